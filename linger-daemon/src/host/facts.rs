//! Facts about the environment.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::{KernelProbe, Namespace};
use crate::probe::{self, Preemption};

/// All facts that are judged.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they have nothing to do with each other"
)]
pub struct Facts {
    /// The kernel's answers to probing system calls.
    pub probe: KernelProbe,
    /// This process has a seccomp filter.
    pub is_filtered: bool,
    /// It is in the initial user namespace.
    pub is_initial_user: bool,
    /// It is in the initial PID namespace.
    pub is_initial_pid: bool,
    /// The kernel's lockdown level.
    pub lockdown: Lockdown,
    /// The security modules in use; `None` if they cannot be read.
    pub modules: Option<String>,
    /// The BPF file system, in which programs and maps outlive the daemon.
    pub bpffs: Bpffs,
    /// The file system in which kprobes are defined.
    pub tracefs: Tracefs,
    /// The kernel's BTF is available.
    pub has_btf: bool,
    /// How the kernel preempts.
    pub preemption: Preemption,
    /// Restrictions of the labels that follow from cgroups.
    pub cgroups: Option<&'static str>,
    /// `net.core.bpf_jit_enable`, visible only in the initial network namespace.
    pub jit: Option<u32>,
    /// `kernel.perf_event_paranoid`
    pub perf_paranoid: Option<i32>,
    /// `kernel.unprivileged_bpf_disabled`
    pub unprivileged_disabled: Option<u32>,
}

/// The kernel's lockdown level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// No lockdown.
    None,
    /// Root may read kernel memory, but not change it.
    Integrity,
    /// Root may not read kernel memory either.
    Confidentiality,
    /// Not visible.
    Unknown,
}

/// The state of `/sys/fs/bpf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bpffs {
    /// Nothing is mounted there.
    Missing,
    /// Another file system is mounted there.
    Other(String),
    /// Mounted, but not writable.
    ReadOnly,
    /// Mounted and writable.
    Writable,
}

/// The state of tracefs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracefs {
    /// Not mounted, or the kernel has no kprobes.
    Missing,
    /// This process may not define probes.
    ReadOnly,
    /// This process may define probes.
    Writable,
}

impl Facts {
    /// The facts of this process.
    #[must_use]
    pub fn here() -> Self {
        let mut facts = Self::read(Path::new("/"), KernelProbe::now());
        facts.preemption = Preemption::running();
        facts.cgroups = probe::cgroups().shortcoming();
        facts
    }

    /// The facts in the files below `root`, with these answers. Assumes that cgroups are fine and that the kernel
    /// does not preempt.
    #[must_use]
    pub fn read(root: &Path, probe: KernelProbe) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        Self {
            probe,
            is_filtered: text("proc/self/status")
                .lines()
                .filter_map(|line| line.strip_prefix("Seccomp:"))
                .any(|mode| mode.trim() != "0"),
            is_initial_user: Namespace::User.is_initial(root),
            is_initial_pid: Namespace::Pid.is_initial(root),
            lockdown: Lockdown::parse(&text("sys/kernel/security/lockdown"), &text("proc/cmdline")),
            modules: Some(text("sys/kernel/security/lsm").trim().to_owned())
                .filter(|modules| !modules.is_empty()),
            bpffs: Bpffs::find(root, &text("proc/self/mounts")),
            tracefs: Tracefs::find(root),
            has_btf: root.join("sys/kernel/btf/vmlinux").exists(),
            preemption: Preemption::None,
            cgroups: None,
            jit: number(&text("proc/sys/net/core/bpf_jit_enable")),
            perf_paranoid: number(&text("proc/sys/kernel/perf_event_paranoid")),
            unprivileged_disabled: number(&text("proc/sys/kernel/unprivileged_bpf_disabled")),
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}

impl Lockdown {
    /// By the file in securityfs or, if that is not visible, the kernel's command line.
    fn parse(file: &str, command_line: &str) -> Self {
        let chosen = file
            .split_once('[')
            .and_then(|(_, rest)| Some(rest.split_once(']')?.0))
            .or_else(|| {
                let words = command_line.split_ascii_whitespace();
                words.rev().find_map(|word| word.strip_prefix("lockdown="))
            });
        match chosen {
            Some("none") => Self::None,
            Some("integrity") => Self::Integrity,
            Some("confidentiality") => Self::Confidentiality,
            _ => Self::Unknown,
        }
    }
}

impl Bpffs {
    fn find(root: &Path, mounts: &str) -> Self {
        const PLACE: &str = "/sys/fs/bpf";
        // The last mount is on top.
        let kind = mounts.lines().rev().find_map(|line| {
            let mut words = line.split(' ');
            let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
            (place == PLACE).then_some(kind)
        });
        match kind {
            None => Self::Missing,
            Some("bpf") if is_writable(&below(root, PLACE)) => Self::Writable,
            Some("bpf") => Self::ReadOnly,
            Some(other) => Self::Other(other.to_owned()),
        }
    }
}

impl Tracefs {
    fn find(root: &Path) -> Self {
        let file = probe::TRACEFS
            .iter()
            .map(|place| below(root, place).join("kprobe_events"))
            .find(|file| file.exists());
        match file {
            None => Self::Missing,
            Some(file) if is_writable(&file) => Self::Writable,
            Some(_) => Self::ReadOnly,
        }
    }
}

/// An absolute path, below `root`.
fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Whether this process may write there, by permissions and mount options.
fn is_writable(path: &Path) -> bool {
    access(path, AccessFlags::W_OK).is_ok()
}
