//! Traits of a kernel that decide which hooks are used.

use linger_ebpf::PinMetadata;

use super::btf::{Kernel, RECOGNIZES_SYSCALLS};
use super::preemption::{self, Preemption};
use crate::attribution::whole_cgroup_root;

/// Functions that answer a packet with an RST.
pub(super) const V4_ANSWER: &str = "tcp_v4_send_reset";
pub(super) const V6_ANSWER: &str = "tcp_v6_send_reset";

/// The function that sets a socket's timer, and its name since v6.18.
pub(super) const TIMER: &str = "inet_csk_reset_keepalive_timer";
pub(super) const NEW_TIMER: &str = "tcp_reset_keepalive_timer";

/// Traits of a kernel that decide which hooks are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct KernelTraits {
    /// The plan `tracepoint` can see the return of close(2).
    pub sees_returns: bool,
    /// How it preempts.
    pub preemption: Preemption,
    /// It preempts tracepoint programs too.
    pub preempts_tracepoints: bool,
    /// The function that sets a socket's timer has its new name.
    pub new_timer: bool,
    /// How RSTs that answer a packet are seen.
    pub answers: Answers,
    /// The release of every socket can be hooked: all cgroups are visible.
    pub sees_releases: bool,
}

impl KernelTraits {
    /// The traits of the running kernel, which has these types.
    pub(super) fn running(kernel: &Kernel) -> Self {
        Self {
            // Before v6.6 the release of a file was left to task work, after the return; `filp_flush` (fs/open.c) came
            // with the change.
            sees_returns: RECOGNIZES_SYSCALLS && kernel.has_function("filp_flush"),
            preemption: Preemption::running(),
            preempts_tracepoints: preemption::preempts_tracepoints(),
            new_timer: kernel.has_function(NEW_TIMER),
            answers: Answers::of(kernel),
            sees_releases: whole_cgroup_root().is_ok(),
        }
    }

    /// The traits for which pinned programs were loaded.
    pub(super) fn recorded(metadata: &PinMetadata) -> Self {
        Self {
            sees_returns: metadata.sees_returns != 0,
            preemption: Preemption::from_repr(metadata.preemption as usize)
                .unwrap_or(Preemption::Unknown),
            preempts_tracepoints: metadata.preempts_tracepoints != 0,
            new_timer: metadata.new_timer != 0,
            answers: Answers::from_repr(metadata.answers as usize).unwrap_or(Answers::Shown),
            sees_releases: metadata.sees_releases != 0,
        }
    }
}

/// Whether the running kernel leaves bytes of a process's earlier names behind the end of its name. Neither BTF nor any
/// file shows it.
///
/// kernel: ..v5.16 fs/exec.c: `__set_task_comm` copies the name; v5.17..: and fills its field with zeros
pub(super) fn leaves_old_names() -> bool {
    !preemption::is_running((5, 17))
}

/// How the programs see RSTs that answer a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::FromRepr)]
pub enum Answers {
    /// By the tracepoint `tcp_send_reset`. Before v6.10, in which it became an event class of its own, it showed only
    /// the RSTs of full sockets.
    Shown,
    /// By the functions that send them, in plans that hook functions.
    Hooked,
    /// By the function for IPv4: the one for IPv6 is not built in.
    HookedV4,
}

impl Answers {
    /// Determines how they are seen on this kernel.
    fn of(kernel: &Kernel) -> Self {
        if kernel.has_struct("trace_event_raw_tcp_send_reset") {
            Self::Shown
        } else if kernel.has_function(V6_ANSWER) {
            Self::Hooked
        } else {
            Self::HookedV4
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn traits_follow_from_functions_and_structs() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/btf");
        for (file, sees_returns, answers) in [
            ("debian-6.1.0-56.btf", false, Answers::Hooked),
            ("debian-6.12.117.btf", RECOGNIZES_SYSCALLS, Answers::Shown),
        ] {
            let traits = KernelTraits::running(&Kernel::from_file(&folder.join(file)).unwrap());
            assert_eq!(traits.sees_returns, sees_returns, "{file}");
            assert_eq!(traits.answers, answers, "{file}");
            assert!(!traits.new_timer, "{file}");
        }
    }
}
