//! The published files: packages of all kinds for both architectures, an image, and a bill of materials.

mod image;
mod rpm;
mod sbom;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use flate2::read::ZlibDecoder;
use serde_json::Value;

use crate::architecture::Architecture;
use crate::artifacts::{self, Libraries};
use crate::package::{folder, folder_static, make_pages, pack};
use crate::shell::{command, run_unseen};
use crate::sums;

/// The architectures of the published packages.
const ARCHITECTURES: [Architecture; 2] = [Architecture::Amd64, Architecture::Arm64];

/// Makes and checks all published files, in `target/package`.
///
/// # Errors
///
/// If this machine is not x86-64: only that can build for both.
pub fn make() -> Result<()> {
    ensure!(
        Architecture::here() == Architecture::Amd64,
        "a release is made on x86-64"
    );
    make_pages()?;
    let mut files = Vec::new();
    for architecture in ARCHITECTURES {
        let made = pack(architecture, Libraries::Listed)?;
        check_list(architecture, &folder_static(architecture).join("lingerd"))?;
        check_list(
            architecture,
            &artifacts::shipped(architecture, Libraries::Listed)?,
        )?;
        files.extend([made.deb, made.tarball, rpm::make(architecture, None)?]);
    }
    rpm::check(&files)?;
    files.extend([image::make()?, sbom::make()?]);
    sums::write(&folder(), &files.iter().collect::<Vec<_>>())?;
    println!(
        "{} files and {}: {}",
        files.len(),
        sums::SUMS,
        folder().display()
    );
    Ok(())
}

/// Fails if a binary lacks the list of its libraries in the section that `cargo audit bin` reads.
fn check_list(architecture: Architecture, lingerd: &Path) -> Result<()> {
    let list = tempfile::NamedTempFile::new()?;
    let section = format!(".dep-v0={}", list.path().display());
    run_unseen(
        command(format!("{}-linux-gnu-objcopy", architecture.name()))
            .args(["--dump-section", &section])
            .args([lingerd, Path::new("/dev/null")]),
    )?;
    let mut text = String::new();
    ZlibDecoder::new(File::open(list.path())?).read_to_string(&mut text)?;
    let list: Value = serde_json::from_str(&text)?;
    let packages = list["packages"].as_array().context("a list of packages")?;
    for name in ["linger-daemon", "aya", "tokio"] {
        ensure!(
            packages.iter().any(|package| package["name"] == name),
            "{} does not list {name}",
            lingerd.display()
        );
    }
    println!("{}: lists {} crates", lingerd.display(), packages.len());
    Ok(())
}
