//! The lingerd that defined a probe.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process;

use linger_ebpf::PinMetadata;
use procfs::FromRead as _;
use procfs::process::Stat;

/// The owner of a probe. The process id of a lingerd is unique only in its pid namespace and while it runs: in a
/// restarted container it often is process 1 again, in a namespace with the same inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The inode of the pid namespace; 0 if /proc does not show it.
    pub(super) namespace: u32,
    /// The process id there.
    pub(super) pid: u32,
    /// When it started, in clock ticks since boot; 0 if unknown.
    pub(super) started: u64,
}

impl Owner {
    pub(super) fn here() -> Self {
        let namespace = fs::metadata("/proc/self/ns/pid").ok();
        let namespace = namespace.and_then(|file| file.ino().try_into().ok());
        Self {
            namespace: namespace.unwrap_or(0),
            pid: process::id(),
            started: start_of("self").unwrap_or(0),
        }
    }

    /// The lingerd that loaded these programs.
    pub(super) const fn of(metadata: &PinMetadata) -> Self {
        Self {
            namespace: metadata.pid_namespace,
            pid: metadata.pid,
            started: metadata.started,
        }
    }

    /// Whether it runs, as far as visible from this pid namespace. In another one it counts as gone, which is safe
    /// because the kernel does not remove probes in use.
    pub(super) fn is_running(self, here: Self) -> bool {
        self.namespace == here.namespace && start_of(&self.pid.to_string()) == Some(self.started)
    }

    /// Parses the owner in the name of a group. Older versions did not write its start time.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (namespace, process) = text.split_once('_')?;
        let (pid, started) = process.split_once('_').unwrap_or((process, "0"));
        Some(Self {
            namespace: namespace.parse().ok()?,
            pid: pid.parse().ok()?,
            started: started.parse().ok()?,
        })
    }
}

impl Display for Owner {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}_{}_{}",
            self.namespace, self.pid, self.started
        )
    }
}

/// The start time of the process with this folder in /proc, in clock ticks since boot.
fn start_of(process: &str) -> Option<u64> {
    let stat = Stat::from_file(format!("/proc/{process}/stat"));
    Some(stat.ok()?.starttime)
}
