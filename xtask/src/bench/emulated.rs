//! The machine in QEMU in which instructions are counted: what runs in it is this program itself.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;

use crate::artifacts;
use crate::initramfs;
use crate::kernels::{Kernel, NEWEST};
use crate::machine::{self, Machine};
use crate::shell::find;

/// Far more than it takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Has a machine with so many CPUs count this, as `xtask inside` takes it, with more programs at hand; what
/// it found.
pub(super) fn count<T: DeserializeOwned>(
    cpus: u32,
    what: &str,
    programs: Vec<PathBuf>,
) -> Result<T> {
    let kernel = Kernel::of_series(NEWEST)?;
    let folder = machine::folder("bench")?;
    let own = folder.join("xtask");
    // By this link and not by its name, under which another build may have put another file since.
    fs::copy("/proc/self/exe", &own).context("take this program along")?;
    let bpftool = find("bpftool").context("bpftool is not installed")?;
    let all = [own, artifacts::lingerd()?, artifacts::floor()?, bpftool];
    let all: Vec<_> = all.into_iter().chain(programs).collect();
    let work = format!("xtask inside --report /tmp/summary.json {what}");
    let archive = initramfs::pack(&folder, &kernel, &all, &work)?;
    let report = Machine::new(&kernel, archive, String::new(), LIMIT)
        .counting_instructions(cpus)
        .run()?;
    if report.code != 0 {
        bail!(
            "counting ended with exit code {}; its console is above",
            report.code
        );
    }
    serde_json::from_str(&report.summary).context("the machine reports what it counted")
}
