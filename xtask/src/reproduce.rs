//! Checks that packages are reproducible: the same source makes the same packages, bit for bit, in any folder.

use std::fs;

use anyhow::{Result, bail};

use crate::architecture::Architecture;
use crate::package::folder;
use crate::shell::{cargo, command, output, root, run};
use crate::sums::SUMS;

/// Makes the packages again from a clone in another folder, and compares them with those made here.
///
/// # Errors
///
/// If they differ, or if this folder has uncommitted changes, which a clone lacks.
pub fn compare(architecture: Architecture) -> Result<()> {
    let changed = output(command("git").args(["status", "--porcelain"]))?;
    if !changed.is_empty() {
        bail!("commit first, since the second build is of a clone:\n{changed}");
    }
    let other = tempfile::Builder::new().prefix("linger-twice-").tempdir()?;
    let clone = other.path().join("clone");
    run(command("git")
        .args(["clone", "--quiet"])
        .arg(root())
        .arg(&clone))?;
    run(cargo()
        .args(["run", "--quiet", "--package", "linger-xtask", "--"])
        .args(["package", "--arch", architecture.debian()])
        .current_dir(&clone)
        .env_remove("CARGO_TARGET_DIR"))?;
    let theirs = clone.join("target/package");
    let sums = fs::read_to_string(folder().join(SUMS))?;
    if sums != fs::read_to_string(theirs.join(SUMS))? {
        let theirs = other.keep().join("clone/target/package");
        bail!(
            "the packages differ: see `diffoscope {} {}`",
            folder().display(),
            theirs.display()
        );
    }
    print!("The same, bit for bit, from two folders:\n{sums}");
    Ok(())
}
