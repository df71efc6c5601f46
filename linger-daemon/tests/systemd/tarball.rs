//! The tarball, installed and removed by its own instructions.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::attached::Programs;
use crate::lingerd::Lingerd;
use crate::service::Service;
use crate::tools::run;
use linger_ebpf::Plan;

/// Follows the instructions to the letter.
pub(crate) fn installs(tarball: &str) -> Result<()> {
    run(&[
        "tar",
        "--extract",
        "--gzip",
        "--directory=/root",
        "--file",
        tarball,
    ])?;
    let folder = extracted()?;
    let instructions = fs::read_to_string(folder.join("INSTALL.md"))?;
    let mut blocks = instructions.split("```sh\n").skip(1);
    let mut follow = || {
        let block = blocks.next().context("no more instructions")?;
        let (commands, _) = block.split_once("```").context("they do not end")?;
        let line = format!("cd {} && set -x\n{commands}", folder.display());
        run(&["sh", "-c", &line])
    };
    follow()?;
    Service::expect_active()?;
    let programs = Programs::of(&Lingerd::installed(Plan::Fentry).scrape()?)?;
    follow()?;
    programs.expect_gone()?;
    let left = run(&["find", "/usr", "/etc", "-name", "*lingerd*"])?;
    ensure!(left.is_empty(), "left: {left}");
    Ok(())
}

/// Returns the only folder in the tarball.
fn extracted() -> Result<PathBuf> {
    let mut entries = fs::read_dir(Path::new("/root"))?.filter_map(Result::ok);
    let folder = entries.find(|entry| {
        entry.path().is_dir() && entry.file_name().to_string_lossy().starts_with("lingerd-")
    });
    Ok(folder.context("the tarball has no folder")?.path())
}
