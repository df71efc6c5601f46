//! The environment of a process: files, and answers of the kernel.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::kernel_probe::KernelProbe;
use crate::attribution::Cgroups;
use crate::probe::Preemption;

pub(super) struct Environment {
    /// The root of the file system to look into.
    pub(super) root: PathBuf,
    /// The kernel's answers to probing system calls.
    pub(super) probe: KernelProbe,
    pub(super) preemption: Preemption,
    /// Restrictions of the labels that follow from cgroups.
    pub(super) cgroups: Option<&'static str>,
}

impl Environment {
    pub(super) fn of_process() -> Self {
        Self {
            root: "/".into(),
            probe: KernelProbe::now(),
            preemption: Preemption::running(),
            cgroups: Cgroups::of_host().shortcoming(),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The text of a file; empty if it cannot be read.
    pub(super) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    pub(super) fn number(&self, path: &str) -> Option<i64> {
        self.text(path).trim().parse().ok()
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Whether this process may write there, by permissions and mount options.
    pub(super) fn is_writable(&self, path: &str) -> bool {
        access(&self.path(path), AccessFlags::W_OK).is_ok()
    }

    pub(super) fn is_filtered(&self) -> bool {
        let status = self.text("/proc/self/status");
        let mut modes = status
            .lines()
            .filter_map(|line| line.strip_prefix("Seccomp:"));
        modes.any(|mode| mode.trim() != "0")
    }
}

/// The initial namespaces of process ids, and of users, which decides the scope of capabilities
/// (`include/linux/proc_ns.h`: `PROC_PID_INIT_INO`, `PROC_USER_INIT_INO`).
pub(super) const PID: (&str, &str) = ("pid", "pid:[4026531836]");
pub(super) const USER: (&str, &str) = ("user", "user:[4026531837]");

/// Whether this process is in an initial namespace, by the files below `root`.
pub(super) fn is_in(root: &Path, (file, initial): (&str, &str)) -> bool {
    let link = fs::read_link(root.join("proc/self/ns").join(file));
    link.is_ok_and(|link| link.as_os_str() == initial)
}
