//! The container image for both architectures, as an OCI archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::ARCHITECTURES;
use crate::architecture::Architecture;
use crate::package::{epoch, folder, folder_static, tar};
use crate::shell::{command, output, run};

/// Builds the image from the Containerfile and the static binaries, and checks it by reading it back.
pub(super) fn make() -> Result<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    let scratch = tempfile::tempdir()?;
    let buildah = || buildah(scratch.path());
    let name = format!("lingerd:{version}");
    let revision = output(command("git").args(["rev-parse", "HEAD"]))?;
    for architecture in ARCHITECTURES {
        run(buildah()
            .args(["build", "--quiet", "--manifest", &name])
            .args(["--platform", &format!("linux/{}", architecture.debian())])
            .args(["--timestamp", &epoch()?])
            .args(["--build-arg", &format!("VERSION={version}")])
            .args(["--build-arg", &format!("REVISION={}", revision.trim())])
            .args(["--file", "linger-daemon/packaging/container/Containerfile"])
            .arg(folder_static(architecture)))?;
    }
    let tree = format!("lingerd-{version}-oci");
    let layout = scratch.path().join(&tree);
    run(buildah()
        .args(["manifest", "push", "--all", &name])
        .arg(format!("oci:{}:{version}", layout.display())))?;
    let archive = folder().join(format!("{tree}.tar"));
    tar(&archive, &layout, &["blobs", "index.json", "oci-layout"])?;
    for architecture in ARCHITECTURES {
        check(&archive, architecture, &scratch.path().join("copy"))?;
    }
    Ok(archive)
}

/// Returns a buildah with storage of its own, apart from what this machine's users keep.
fn buildah(scratch: &Path) -> Command {
    let mut buildah = command("buildah");
    buildah
        .args(["--storage-driver", "vfs", "--root"])
        .arg(scratch.join("storage"))
        .arg("--runroot")
        .arg(scratch.join("run"));
    buildah
}

/// Fails if the image of an architecture differs from the Containerfile. Also runs the image of this machine's
/// architecture.
fn check(archive: &Path, architecture: Architecture, copy: &Path) -> Result<()> {
    let from = format!("oci-archive:{}", archive.display());
    let skopeo = || {
        let mut skopeo = command("skopeo");
        skopeo.args(["--override-arch", architecture.debian()]);
        skopeo
    };
    let image: Value =
        serde_json::from_str(&output(skopeo().args(["inspect", "--config", &from]))?)?;
    let config = &image["config"];
    let label = &config["Labels"]["org.opencontainers.image.version"];
    for (found, expected) in [
        (&image["architecture"], json!(architecture.debian())),
        (&config["User"], json!("0:0")),
        (&config["Entrypoint"], json!(["/lingerd"])),
        (&config["Cmd"], json!(["run", "--listen", "0.0.0.0:10546"])),
        (label, json!(env!("CARGO_PKG_VERSION"))),
    ] {
        ensure!(*found == expected, "{found} in the image, not {expected}");
    }
    if architecture != Architecture::here() {
        return Ok(());
    }
    run(skopeo()
        .args(["copy", "--quiet", &from])
        .arg(format!("dir:{}", copy.display())))?;
    let manifest: Value = serde_json::from_slice(&fs::read(copy.join("manifest.json"))?)?;
    let layer = manifest["layers"][0]["digest"]
        .as_str()
        .and_then(|digest| digest.strip_prefix("sha256:"))
        .context("the image has a layer")?;
    let root = copy.join("root");
    fs::create_dir(&root)?;
    run(command("tar")
        .arg("--extract")
        .arg("--file")
        .arg(copy.join(layer))
        .arg("--directory")
        .arg(&root))?;
    let answer = output(command("chroot").arg(&root).args(["/lingerd", "--version"]))?;
    ensure!(
        answer.trim() == concat!("lingerd ", env!("CARGO_PKG_VERSION")),
        "the image's lingerd says {answer:?}"
    );
    Ok(())
}
