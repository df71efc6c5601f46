//! The QEMU machine that counts instructions, which runs this program itself.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use linger_xtask::architecture::Architecture;
use linger_xtask::artifacts;
use linger_xtask::kernels::{Kernel, NEWEST};
use linger_xtask::vm;
use serde::de::DeserializeOwned;

/// Boots a machine with this number of CPUs and additional programs, runs `xtask inside` there with the arguments
/// `what`, and returns the counts.
pub(super) fn count<T: DeserializeOwned>(
    cpus: u32,
    what: &str,
    programs: Vec<PathBuf>,
) -> Result<T> {
    count_on(Kernel::of_label(NEWEST)?, cpus, what, programs)
}

/// The same on a given kernel.
pub(super) fn count_on<T: DeserializeOwned>(
    kernel: Kernel,
    cpus: u32,
    what: &str,
    programs: Vec<PathBuf>,
) -> Result<T> {
    // Counts depend on the kernel's load address, too.
    let kernel = kernel.with_parameters("nokaslr");
    // By this link, since another build may have replaced the file of that name.
    let own = PathBuf::from("/proc/self/exe");
    let mut all = vec![
        (own, "xtask".to_owned()),
        (
            artifacts::lingerd(Architecture::here())?,
            "lingerd".to_owned(),
        ),
        (artifacts::floor()?, "floor".to_owned()),
    ];
    for program in programs {
        let name = program.file_name().context("a program has a name")?;
        let name = name.to_string_lossy().into_owned();
        all.push((program, name));
    }
    let programs: Vec<_> = all
        .iter()
        .map(|(file, name)| (file.as_path(), name.as_str()))
        .collect();
    let work = format!("xtask inside --report /run/summary.json {what}");
    let report = vm::boot(&kernel, &programs, &work, |machine| {
        machine.counting_instructions(cpus).run()
    })?;
    if report.code != 0 {
        bail!(
            "counting ended with exit code {}; its console is above",
            report.code
        );
    }
    serde_json::from_str(&report.summary).context("the machine reports what it counted")
}
