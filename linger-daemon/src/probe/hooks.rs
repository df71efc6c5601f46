//! The hooks of each plan: the programs of `linger-ebpf` and their attach points.

use std::fmt;

use linger_ebpf::{Constants, Plan, keyed, program_place};

use super::btf::{Kernel, RECOGNIZES_SYSCALLS};
use super::preemption::Preemption;

/// An attach point of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Entry of a function, by trampoline.
    Fentry(&'static str),
    /// Return of a function, by trampoline.
    Fexit(&'static str),
    /// Entry of a function, by kprobe.
    Kprobe(&'static str),
    /// Return of a function, by kretprobe.
    Kretprobe(&'static str),
    /// A raw tracepoint.
    RawTracepoint(&'static str),
    /// A raw tracepoint with BTF-typed arguments.
    BtfTracepoint(&'static str),
    /// Release of any socket of the cgroup v2 root or below.
    SockRelease,
    /// Not attached: the daemon runs the program.
    OnDemand,
}

impl Point {
    /// The hooked kernel function, which must exist; `None` for other attach points.
    #[must_use]
    pub const fn function(self) -> Option<&'static str> {
        match self {
            Self::Fentry(name) | Self::Fexit(name) | Self::Kprobe(name) | Self::Kretprobe(name) => {
                Some(name)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fentry(name) => write!(f, "fentry:{name}"),
            Self::Fexit(name) => write!(f, "fexit:{name}"),
            Self::Kprobe(name) => write!(f, "kprobe:{name}"),
            Self::Kretprobe(name) => write!(f, "kretprobe:{name}"),
            Self::RawTracepoint(name) => write!(f, "raw_tracepoint:{name}"),
            Self::BtfTracepoint(name) => write!(f, "tp_btf:{name}"),
            Self::SockRelease => write!(f, "cgroup:sock_release"),
            Self::OnDemand => write!(f, "on demand"),
        }
    }
}

/// A program and its attach point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of the program.
    pub program: &'static str,
    /// Its attach point.
    pub point: Point,
}

const fn hook(program: &'static str, point: Point) -> Hook {
    assert!(program_place(program).is_some(), "there is no such program");
    Hook { program, point }
}

impl Hook {
    /// Whether it sees the return of close(2), by hooking the return of every system call. It is attached only
    /// while closes wait under `SO_LINGER`.
    #[must_use]
    pub fn sees_returns(self) -> bool {
        self.program == SEES_RETURNS
    }
}

/// Shared by the plans that hook functions.
const DESTROY_SOCK: Hook = hook("destroy_sock", DESTROY);
const RESET_ANSWERS: Hook = hook("reset_answers", SEND_RESET);

/// Begins a close where the kernel may skip [`CLOSE_ENTRIES`].
const SOCK_RELEASE: Hook = hook("sock_release", Point::SockRelease);
const CLOSE_ENTRIES: [&str; 2] = ["fentry_tcp_close", "kprobe_tcp_close"];

/// In every plan.
const SETTLE: Hook = hook("settle", Point::OnDemand);

// In the order of attaching: first the hooks that end a close, then those that begin one, so that no recorded close
// misses its end. Next comes the hook that ends a close whose socket stays, because it reports closes without a
// beginning as lost. The hooks of RSTs sent follow: without a record, an RST would not count for its close. The first
// program on a function is small, and shows whether the plan works.

const FENTRY: &[Hook] = &[
    hook("fentry_reset", Point::Fentry("tcp_reset")),
    SETTLE,
    RESET_ANSWERS,
    hook("fentry_v4_answer", Point::Fentry(V4_ANSWER)),
    hook("fentry_v6_answer", Point::Fentry(V6_ANSWER)),
    DESTROY_SOCK,
    hook("fentry_tcp_close", Point::Fentry("tcp_close")),
    hook("fentry_inner_close", INNER_ENTRY),
    hook("fexit_check_oom", CHECK_OOM),
    hook("fentry_active_reset", ACTIVE_RESET),
    hook("fentry_timer", Point::Fentry(TIMER)),
];

const KPROBE: &[Hook] = &[
    hook("kprobe_reset", Point::Kprobe("tcp_reset")),
    SETTLE,
    RESET_ANSWERS,
    hook("kprobe_v4_answer", Point::Kprobe(V4_ANSWER)),
    hook("kprobe_v6_answer", Point::Kprobe(V6_ANSWER)),
    DESTROY_SOCK,
    hook("kprobe_tcp_close", Point::Kprobe("tcp_close")),
    hook("kprobe_inner_close", Point::Kprobe("__tcp_close")),
    hook("kretprobe_inner_close", Point::Kretprobe("__tcp_close")),
    hook(
        "kprobe_active_reset",
        Point::Kprobe("tcp_send_active_reset"),
    ),
    hook("kprobe_timer", Point::Kprobe(TIMER)),
];

/// Functions that answer a packet with an RST, hooked where [`RESET_ANSWERS`] does not show all of them.
pub(super) const V4_ANSWER: &str = "tcp_v4_send_reset";
pub(super) const V6_ANSWER: &str = "tcp_v6_send_reset";

/// The function that sets a socket's timer, and its name since v6.18.
const TIMER: &str = "inet_csk_reset_keepalive_timer";
const NEW_TIMER: &str = "tcp_reset_keepalive_timer";

/// The program that needs [`sees_returns`].
const SEES_RETURNS: &str = "tracepoint_sys_exit";

const TRACEPOINT: &[Hook] = &[
    SETTLE,
    hook(SEES_RETURNS, Point::BtfTracepoint("sys_exit")),
    hook("tracepoint_destroy_sock", DESTROY),
    hook("tracepoint_set_state", SET_STATE),
    hook("cgroup_sock_release", Point::SockRelease),
    hook("tracepoint_send_reset", SEND_RESET),
];

// One or two copies of each program that a preempting kernel skips: an event is missed only while preempted threads are
// inside the program and all its copies.

const INNER_ENTRY: Point = Point::Fentry("__tcp_close");
const CHECK_OOM: Point = Point::Fexit("tcp_check_oom");
const ACTIVE_RESET: Point = Point::Fentry("tcp_send_active_reset");
const SET_STATE: Point = Point::BtfTracepoint("inet_sock_set_state");
const SEND_RESET: Point = Point::RawTracepoint("tcp_send_reset");
const DESTROY: Point = Point::BtfTracepoint("tcp_destroy_sock");

/// Used by the plan `fentry` where soft interrupts are preempted, or where closes do not begin with [`SOCK_RELEASE`],
/// which is never skipped. Elsewhere the end of a close makes up for a missed decision.
const FENTRY_AGAIN: &[Hook] = &[
    hook("fentry_inner_close_2", INNER_ENTRY),
    hook("fentry_inner_close_3", INNER_ENTRY),
    hook("fexit_check_oom_2", CHECK_OOM),
    hook("fexit_check_oom_3", CHECK_OOM),
];

const ACTIVE_RESET_AGAIN: &[Hook] = &[hook("fentry_active_reset_2", ACTIVE_RESET)];

const TRACEPOINT_AGAIN: &[Hook] = &[
    hook("tracepoint_set_state_2", SET_STATE),
    hook("tracepoint_set_state_3", SET_STATE),
    hook("tracepoint_send_reset_2", SEND_RESET),
    hook("tracepoint_destroy_sock_2", DESTROY),
];

const TRACEPOINT_THRICE: &[Hook] = &[hook("tracepoint_destroy_sock_3", DESTROY)];

/// Used where tracepoint programs are preempted: a thread that processes the backlog may be, at the end of a socket.
const DESTROY_SOCK_AGAIN: &[Hook] = &[hook("destroy_sock_2", DESTROY)];

/// Used where soft interrupts are preempted as well.
const DESTROY_SOCK_THRICE: &[Hook] = &[hook("destroy_sock_3", DESTROY)];

/// The value of [`Constants::again`](linger_ebpf::Constants::again) for this plan and kernel: whether several programs
/// may see the same close or RST.
pub(super) fn hooked_again(plan: Plan, traits: Traits) -> u32 {
    match plan {
        // Copies for the end of a socket need no such check: the first to run leaves nothing to do.
        Plan::Kprobe => 0,
        _ if traits.preemption == Preemption::None => 0,
        Plan::Fentry if decides_again(traits) => Constants::ENDS_TOO,
        Plan::Fentry => Constants::EVENTS,
        Plan::Tracepoint if traits.preempts_tracepoints => Constants::EVENTS,
        Plan::Tracepoint => 0,
    }
}

/// Whether the plan `fentry` hooks decisions and ends of closes more than once on a kernel that preempts.
fn decides_again(traits: Traits) -> bool {
    traits.preemption == Preemption::SoftInterrupts || !traits.sees_releases
}

/// The copies of hooks that a plan needs on this kernel.
fn copies(plan: Plan, traits: Traits) -> Vec<Hook> {
    if traits.preemption == Preemption::None {
        return Vec::new();
    }
    // Closes and most sockets end with soft interrupts disabled.
    let tracepoints = traits.preempts_tracepoints;
    let ends = tracepoints && traits.preemption == Preemption::SoftInterrupts;
    let copies: &[(bool, &[Hook])] = match plan {
        Plan::Fentry => &[
            (decides_again(traits), FENTRY_AGAIN),
            (tracepoints, DESTROY_SOCK_AGAIN),
            (ends, DESTROY_SOCK_THRICE),
            // The tracepoint that shows answers also sees the RSTs that this hook sees.
            (traits.answers != Answers::Shown, ACTIVE_RESET_AGAIN),
        ],
        // All kprobes of a CPU are skipped together.
        Plan::Kprobe => &[
            (tracepoints, DESTROY_SOCK_AGAIN),
            (ends, DESTROY_SOCK_THRICE),
        ],
        Plan::Tracepoint => &[(tracepoints, TRACEPOINT_AGAIN), (ends, TRACEPOINT_THRICE)],
    };
    let copies = copies.iter().filter(|(are_needed, _)| *are_needed);
    copies.flat_map(|(_, hooks)| *hooks).copied().collect()
}

/// In every plan, if the label `exe` is in use.
const EXIT_MMAP: Hook = hook("exit_mmap", Point::RawTracepoint("exit_mmap"));

/// Traits of a kernel that decide which hooks are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Traits {
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

/// The hooks of a plan on a kernel with these traits, in the order of attaching. `asked` are the key fields in use, a
/// set of [`linger_ebpf::keyed`] bits.
#[must_use]
pub fn hooks(plan: Plan, asked: u32, traits: Traits) -> Vec<Hook> {
    let all = match plan {
        Plan::Fentry => FENTRY,
        Plan::Kprobe => KPROBE,
        Plan::Tracepoint => TRACEPOINT,
    };
    let exit = (asked & keyed::EXE != 0).then_some(EXIT_MMAP);
    let all = exit.into_iter().chain(all.iter().copied());
    let all = all.chain(copies(plan, traits));
    let all = all.filter(|hook| traits.sees_returns || !hook.sees_returns());
    let all = all.filter(|hook| match hook.point.function() {
        Some(V4_ANSWER) => traits.answers != Answers::Shown,
        Some(V6_ANSWER) => traits.answers == Answers::Hooked,
        _ => *hook != RESET_ANSWERS || traits.answers == Answers::Shown,
    });
    let released = traits.preemption != Preemption::None && traits.sees_releases;
    let renamed = |mut hook: Hook| {
        if released && CLOSE_ENTRIES.contains(&hook.program) {
            return SOCK_RELEASE;
        }
        match &mut hook.point {
            Point::Fentry(name) | Point::Kprobe(name) if *name == TIMER && traits.new_timer => {
                *name = NEW_TIMER;
            }
            _ => {}
        }
        hook
    };
    all.map(renamed).collect()
}

/// Whether the function that sets a socket's timer has its new name.
pub(super) fn has_new_timer(kernel: &Kernel) -> bool {
    kernel.has_function(NEW_TIMER)
}

/// How the programs see RSTs that answer a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    const ALL: [Self; 3] = [Self::Shown, Self::Hooked, Self::HookedV4];

    /// Determines how they are seen on this kernel.
    pub(super) fn of(kernel: &Kernel) -> Self {
        if kernel.has_struct("trace_event_raw_tcp_send_reset") {
            Self::Shown
        } else if kernel.has_function(V6_ANSWER) {
            Self::Hooked
        } else {
            Self::HookedV4
        }
    }

    /// The variant with this index.
    pub(super) fn from_index(index: u32) -> Self {
        let mut all = Self::ALL.into_iter();
        all.find(|answers| *answers as u32 == index)
            .unwrap_or(Self::Shown)
    }
}

/// Whether the return of close(2) ends the release of its file, and the plan `tracepoint` can recognize it.
///
/// Before v6.6 the release was left to task work; `filp_flush` (fs/open.c) came with the change.
#[must_use]
pub(super) fn sees_returns(kernel: &Kernel) -> bool {
    RECOGNIZES_SYSCALLS && kernel.has_function("filp_flush")
}

/// The blind spots of a plan on this kernel.
#[must_use]
pub fn blind(plan: Plan, kernel: &Kernel) -> Vec<&'static str> {
    match plan {
        Plan::Fentry => Vec::new(),
        Plan::Kprobe => {
            vec![
                "how a close ends that begins while 4,096 others are blocked in close: it is counted without \
                 its time and, if its connection outlives a wait under SO_LINGER, judged by the time that was set",
            ]
        }
        Plan::Tracepoint => {
            let mut blind = vec![
                "closes of the kernel's own sockets and of MPTCP subflows",
                "what a close does after it is decided, mostly sending its FIN: that is not part of the \
                 close's time, and an orphan is as large as it was then",
                "the time of closes that wait under SO_LINGER outside close(2) (io_uring), or before lingerd \
                 has hooked sys_exit, which it does once a close has waited, because every system call pays",
            ];
            if Answers::of(kernel) != Answers::Shown {
                blind.push(
                    "RSTs that answer a packet for which there is no socket, or no more than what \
                     TIME_WAIT or a request keeps of one: that needs Linux 6.10",
                );
            }
            if !sees_returns(kernel) {
                blind.push("the time of any close that waits: that needs Linux 6.6");
                blind.push(
                    "how a wait under SO_LINGER ends: it is counted when its connection ends, by what \
                     became of the data if that was within the linger time, otherwise as linger_timeout",
                );
            }
            blind
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use aya_obj::Object;
    use linger_ebpf::{FLOOR, OBJECT, PROGRAMS};

    use super::*;

    fn programs(object: &[u8]) -> BTreeSet<String> {
        let object = Object::parse(object).unwrap();
        object.programs.into_keys().collect()
    }

    fn names<'a>(all: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
        all.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn the_objects_have_exactly_the_listed_programs() {
        assert_eq!(programs(FLOOR), names(PROGRAMS));
        let again = [
            FENTRY_AGAIN,
            ACTIVE_RESET_AGAIN,
            TRACEPOINT_AGAIN,
            DESTROY_SOCK_AGAIN,
            DESTROY_SOCK_THRICE,
            TRACEPOINT_THRICE,
        ];
        let again = again.into_iter().flatten().map(|hook| hook.program);
        assert_eq!(programs(OBJECT), names(PROGRAMS.into_iter().chain(again)));
    }

    #[test]
    fn traits_follow_from_functions_and_structs() {
        let kernels = ["debian-6.1.0-56.btf", "debian-6.12.117.btf"].map(|file| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/btf");
            Kernel::from_file(&folder.join(file)).unwrap()
        });
        assert_eq!(
            kernels.each_ref().map(sees_returns),
            [false, RECOGNIZES_SYSCALLS]
        );
        assert_eq!(
            kernels.each_ref().map(Answers::of),
            [Answers::Hooked, Answers::Shown]
        );
    }
}
