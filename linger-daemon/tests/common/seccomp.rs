//! Seccomp filters, as container runtimes put them on what they start.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

/// Has the kernel refuse these system calls with this error, to the command and to whatever it starts.
pub(crate) fn refuse(
    command: &mut Command,
    calls: &[nix::libc::c_long],
    errno: i32,
) -> anyhow::Result<()> {
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    let action = SeccompAction::Errno(errno.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?;
    let program = BpfProgram::try_from(filter)?;
    // SAFETY: it only makes system calls.
    unsafe { command.pre_exec(move || apply_filter(&program).map_err(std::io::Error::other)) };
    Ok(())
}
