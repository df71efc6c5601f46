//! Grafana's dashboard types for Python, of the oldest Grafana that has them and of the newest.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use tempfile::NamedTempFile;

use super::tools::{cached_tool, link_tool};
use crate::cache;
use crate::shell::{command, run, tools};

/// The package on `PyPI`, and its module.
const PACKAGE: &str = "grafana-foundation-sdk";
const MODULE: &str = "grafana_foundation_sdk";

/// The names under which tests find them, their versions, and the SHA-256 digests of their wheels.
const VERSIONS: [(&str, &str, &str); 2] = [
    (
        "grafana-sdk-oldest",
        "1769699998!10.1.0",
        "d131ffe49057fb669ba31ce7e28a303c96b3aecf4332b20de33cfa55110d498c",
    ),
    (
        "grafana-sdk-newest",
        "1769699241",
        "8fb43923355c5d0e1abe4370e6a66accd372e2f06816d34f34edebe52bb16ef2",
    ),
];

/// Returns the folder of a version in the cache.
fn folder(version: &str) -> PathBuf {
    cached_tool(PACKAGE, version)
}

/// Returns whether all are where tests look for them.
pub(super) fn is_present() -> bool {
    VERSIONS.iter().all(|(name, version, _)| {
        let link = tools().join(name);
        let is_other = fs::read_link(&link).is_ok_and(|place| place != folder(version));
        link.join(MODULE).is_dir() && !is_other
    })
}

/// Downloads them from `PyPI`, 0.3 MB each, into the cache.
pub(super) fn install() -> Result<()> {
    for (name, version, digest) in VERSIONS {
        let folder = folder(version);
        if !folder.is_dir() {
            let partial = cache::partial(&cache::folder().join("tools"), PACKAGE)?;
            // pip takes digests from a file only.
            let requirements = NamedTempFile::new()?;
            let line = format!("{PACKAGE}=={version} --hash=sha256:{digest}\n");
            fs::write(requirements.path(), line)?;
            run(command("python3")
                .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
                .arg(&partial)
                .args(["--require-hashes", "--requirement"])
                .arg(requirements.path())
                .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
                .env("PIP_ROOT_USER_ACTION", "ignore"))?;
            fs::rename(&partial, &folder)?;
        }
        link_tool(name, &folder)?;
    }
    Ok(())
}
