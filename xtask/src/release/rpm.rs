//! The rpm package.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::architecture::Architecture;
use crate::artifacts;
use crate::debian::Debian;
use crate::package::{EPOCH, epoch, folder};
use crate::shell::{command, root, run, tools};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A version above every other, to upgrade to.
const NEWER: &str = "99";

/// The script that installs, upgrades and removes the package in a root file system.
const LIFE: &str = include_str!("rpm.sh");

/// Packs the built daemon, under another version if one is given.
pub(super) fn make(architecture: Architecture, version: Option<&str>) -> Result<PathBuf> {
    let version = version.unwrap_or(VERSION);
    let file = file(architecture, version);
    let mut rpm = command(tools().join("cargo-generate-rpm"));
    rpm.args(["generate-rpm", "--package", "linger-daemon"])
        .args(["--arch", architecture.name()])
        .args(["--set-metadata", &format!("version = \"{version}\"")])
        .arg("--output")
        .arg(&file)
        .env(EPOCH, epoch()?);
    artifacts::build_for(architecture, &mut rpm);
    run(&mut rpm)?;
    Ok(file)
}

fn file(architecture: Architecture, version: &str) -> PathBuf {
    folder().join(format!("lingerd-{version}-1.{}.rpm", architecture.name()))
}

/// Runs rpmlint on the rpm packages among these files; installs, upgrades and removes the one for this machine in the
/// root of a Debian.
pub(super) fn check(files: &[PathBuf]) -> Result<()> {
    let is_rpm = |file: &&PathBuf| file.extension().is_some_and(|extension| extension == "rpm");
    run(command("rpmlint")
        .arg("--strict")
        .arg("--config")
        .arg(root().join("linger-daemon/packaging/rpm/rpmlint.toml"))
        .args(files.iter().filter(is_rpm)))?;

    let here = Architecture::here();
    let newer = make(here, Some(NEWER))?;
    let scratch = tempfile::tempdir()?;
    unpack(&Debian::open(here)?.archive, scratch.path())?;
    run(command("unshare")
        .args(["--mount", "sh", "-eu", "-c", LIFE, "rpm.sh"])
        .arg(scratch.path())
        .args([&file(here, VERSION), &newer]))?;
    std::fs::remove_file(newer)?;
    println!("rpm: installed, upgraded and removed in the root of a Debian 12");
    Ok(())
}

fn unpack(archive: &Path, folder: &Path) -> Result<()> {
    run(command("cpio")
        .args(["--extract", "--make-directories", "--quiet", "--file"])
        .arg(archive)
        .current_dir(folder))
}
