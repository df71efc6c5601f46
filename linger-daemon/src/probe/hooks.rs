//! The hooks of each plan: the programs of `linger-ebpf` and their attach points.

use linger_ebpf::{Constants, PROGRAMS, Plan, key_field, program_index};
use serde::{Serialize, Serializer};

use super::preemption::Preemption;
use super::traits::{Answers, KernelTraits, NEW_TIMER, TIMER, V4_ANSWER, V6_ANSWER};

/// An attach point of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
pub enum Point {
    /// Entry of a function, by trampoline.
    #[strum(to_string = "fentry:{0}")]
    Fentry(&'static str),
    /// Return of a function, by trampoline.
    #[strum(to_string = "fexit:{0}")]
    Fexit(&'static str),
    /// Entry of a function, by kprobe.
    #[strum(to_string = "kprobe:{0}")]
    Kprobe(&'static str),
    /// Return of a function, by kretprobe.
    #[strum(to_string = "kretprobe:{0}")]
    Kretprobe(&'static str),
    /// A raw tracepoint.
    #[strum(to_string = "raw_tracepoint:{0}")]
    RawTracepoint(&'static str),
    /// A raw tracepoint with BTF-typed arguments.
    #[strum(to_string = "tp_btf:{0}")]
    BtfTracepoint(&'static str),
    /// Release of any socket of the cgroup v2 root or below.
    #[strum(to_string = "cgroup:sock_release")]
    SockRelease,
    /// Not attached: the daemon runs the program.
    #[strum(to_string = "on demand")]
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

impl Serialize for Point {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
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
    assert!(program_index(program).is_some(), "there is no such program");
    Hook { program, point }
}

impl Hook {
    /// Whether it sees the return of close(2), by hooking the return of every system call. It is attached only
    /// while closes wait under `SO_LINGER`.
    #[must_use]
    pub fn sees_returns(self) -> bool {
        self.program == SEES_RETURNS
    }

    pub(super) fn is_copy(self) -> bool {
        !PROGRAMS.contains(&self.program)
    }
}

/// The program that needs [`KernelTraits::sees_returns`].
const SEES_RETURNS: &str = "tracepoint_sys_exit";

const TCP_CLOSE: &str = "tcp_close";

// Points of more than one hook.
const INNER_ENTRY: Point = Point::Fentry("__tcp_close");
const CHECK_OOM: Point = Point::Fexit("tcp_check_oom");
const ACTIVE_RESET: Point = Point::Fentry("tcp_send_active_reset");
const SET_STATE: Point = Point::BtfTracepoint("inet_sock_set_state");
const SEND_RESET: Point = Point::RawTracepoint("tcp_send_reset");
const ORDERLY_END: Point = Point::Fentry("tcp_update_metrics");
const LISTEN_STOP: Point = Point::Fexit("inet_csk_listen_stop");
const DESTROY: Point = Point::BtfTracepoint("tcp_destroy_sock");

// Hooks of more than one plan.
const EXIT_MMAP: Hook = hook("exit_mmap", Point::RawTracepoint("exit_mmap"));
pub(super) const SETTLE: Hook = hook("settle", Point::OnDemand);
pub(super) const MISSED_END: Hook = hook("missed_end", Point::OnDemand);
const RESET_ANSWERS: Hook = hook("reset_answers", SEND_RESET);
const SOCKET_ANSWERS: Hook = hook("socket_answers", SEND_RESET);
const SOCK_RELEASE: Hook = hook("sock_release", Point::SockRelease);
const DESTROY_SOCK: Hook = hook("destroy_sock", DESTROY);
const DESTROY_SOCK_2: Hook = hook("destroy_sock_2", DESTROY);
const DESTROY_SOCK_3: Hook = hook("destroy_sock_3", DESTROY);

// All hooks of each plan, of which a kernel needs some, in the order of attaching: first the hooks that end a close,
// then those that begin one, so that no recorded close misses its end. Next comes the hook that ends a close whose
// socket stays, because it reports closes without a beginning as lost. The hooks of RSTs sent follow: without a record,
// an RST would not count for its close. The first program on a function is small, and shows whether the plan works.
//
// At the end are one or two copies of each program that a preempting kernel skips: an event is missed only while
// preempted threads are inside the program and all its copies.

const FENTRY: &[Hook] = &[
    EXIT_MMAP,
    hook("fentry_reset", Point::Fentry("tcp_reset")),
    SETTLE,
    MISSED_END,
    hook("fentry_v4_answer", Point::Fentry(V4_ANSWER)),
    hook("fentry_v6_answer", Point::Fentry(V6_ANSWER)),
    DESTROY_SOCK,
    hook("fentry_orderly_end", ORDERLY_END),
    hook("fexit_listen_stop", LISTEN_STOP),
    SOCK_RELEASE,
    hook("fentry_tcp_close", Point::Fentry(TCP_CLOSE)),
    hook("fentry_inner_close", INNER_ENTRY),
    hook("fexit_check_oom", CHECK_OOM),
    RESET_ANSWERS,
    hook("fentry_active_reset", ACTIVE_RESET),
    hook("fentry_timer", Point::Fentry(TIMER)),
    hook("fentry_timer", Point::Fentry(NEW_TIMER)),
    hook("fentry_inner_close_2", INNER_ENTRY),
    hook("fentry_inner_close_3", INNER_ENTRY),
    hook("fexit_check_oom_2", CHECK_OOM),
    hook("fexit_check_oom_3", CHECK_OOM),
    DESTROY_SOCK_2,
    DESTROY_SOCK_3,
    hook("fentry_active_reset_2", ACTIVE_RESET),
];

const KPROBE: &[Hook] = &[
    EXIT_MMAP,
    hook("kprobe_reset", Point::Kprobe("tcp_reset")),
    SETTLE,
    MISSED_END,
    SOCKET_ANSWERS,
    hook("kprobe_v4_answer", Point::Kprobe(V4_ANSWER)),
    hook("kprobe_v6_answer", Point::Kprobe(V6_ANSWER)),
    DESTROY_SOCK,
    SOCK_RELEASE,
    hook("kprobe_tcp_close", Point::Kprobe(TCP_CLOSE)),
    hook("kprobe_inner_close", Point::Kprobe("__tcp_close")),
    hook("kretprobe_inner_close", Point::Kretprobe("__tcp_close")),
    RESET_ANSWERS,
    hook(
        "kprobe_active_reset",
        Point::Kprobe("tcp_send_active_reset"),
    ),
    hook("kprobe_timer", Point::Kprobe(TIMER)),
    hook("kprobe_timer", Point::Kprobe(NEW_TIMER)),
    // All kprobes of a CPU are skipped together: copies of them would not help.
    DESTROY_SOCK_2,
    DESTROY_SOCK_3,
];

const TRACEPOINT: &[Hook] = &[
    EXIT_MMAP,
    SETTLE,
    MISSED_END,
    hook(SEES_RETURNS, Point::BtfTracepoint("sys_exit")),
    hook("tracepoint_destroy_sock", DESTROY),
    hook("tracepoint_set_state", SET_STATE),
    hook("cgroup_sock_release", Point::SockRelease),
    hook("tracepoint_send_reset", SEND_RESET),
    hook("tracepoint_set_state_2", SET_STATE),
    hook("tracepoint_set_state_3", SET_STATE),
    hook("tracepoint_send_reset_2", SEND_RESET),
    hook("tracepoint_destroy_sock_2", DESTROY),
    hook("tracepoint_destroy_sock_3", DESTROY),
];

const fn table(plan: Plan) -> &'static [Hook] {
    match plan {
        Plan::Fentry => FENTRY,
        Plan::Kprobe => KPROBE,
        Plan::Tracepoint => TRACEPOINT,
    }
}

/// The hooks of a plan on a kernel with these traits, in the order of attaching. `key_fields` are the key fields in
/// use, a set of [`linger_ebpf::key_field`] bits.
pub(super) fn hooks(plan: Plan, key_fields: u32, traits: KernelTraits) -> Vec<Hook> {
    let mut hooks = table(plan).to_vec();
    hooks.retain(|hook| is_needed(*hook, plan, key_fields, traits));
    hooks
}

/// Whether a kernel with these traits needs this hook of a plan.
fn is_needed(hook: Hook, plan: Plan, key_fields: u32, traits: KernelTraits) -> bool {
    // Where the kernel may skip a program on the function that begins a close.
    let begins_by_release = traits.preemption != Preemption::None && traits.sees_releases;
    match hook {
        EXIT_MMAP => key_fields & key_field::EXE != 0,
        RESET_ANSWERS => traits.answers == Answers::Shown,
        SOCKET_ANSWERS => traits.answers != Answers::Shown,
        SOCK_RELEASE => begins_by_release,
        _ if hook.sees_returns() => traits.sees_returns,
        DESTROY_SOCK_2 if plan == Plan::Fentry && ends_are_early(traits) => false,
        _ if hook.is_copy() => needs_copy(hook, traits),
        _ if [ORDERLY_END, LISTEN_STOP].contains(&hook.point) => ends_are_early(traits),
        _ => match hook.point.function() {
            Some(TCP_CLOSE) => !begins_by_release,
            Some(V4_ANSWER) => traits.answers != Answers::Shown,
            Some(V6_ANSWER) => traits.answers == Answers::Hooked,
            Some(TIMER) => !traits.new_timer,
            Some(NEW_TIMER) => traits.new_timer,
            _ => true,
        },
    }
}

/// Whether this copy makes up for runs that a kernel with these traits skips.
fn needs_copy(copy: Hook, traits: KernelTraits) -> bool {
    if traits.preemption == Preemption::None {
        return false;
    }
    match copy.point {
        INNER_ENTRY | CHECK_OOM => decisions_have_copies(traits),
        // The tracepoint that shows answers also sees the RSTs that this hook sees.
        ACTIVE_RESET => traits.answers != Answers::Shown,
        // Closes and most sockets end with soft interrupts disabled; a thread that processes the backlog may be
        // preempted at the end of a socket.
        DESTROY if copy.program.ends_with('3') => {
            traits.preempts_tracepoints && traits.preemption == Preemption::SoftInterrupts
        }
        _ => traits.preempts_tracepoints,
    }
}

/// Whether the plan `fentry` hooks decisions and ends of closes more than once on a kernel that preempts: where soft
/// interrupts are preempted, or closes do not begin with [`SOCK_RELEASE`], which is never skipped. Elsewhere the end of
/// a close makes up for a missed decision.
fn decisions_have_copies(traits: KernelTraits) -> bool {
    traits.preemption == Preemption::SoftInterrupts || !traits.sees_releases
}

/// Whether the plan `fentry` ends closes and orphans before the end of their socket: where only the program there may be
/// skipped. That costs less than to hook it twice.
fn ends_are_early(traits: KernelTraits) -> bool {
    traits.preemption == Preemption::Threads && traits.preempts_tracepoints && traits.sees_releases
}

/// The value of [`Constants::copies`] for this plan and kernel: whether several programs may see the same close or RST.
pub(super) fn copies_of(plan: Plan, traits: KernelTraits) -> u32 {
    match plan {
        // The kernel skips the kprobe of an RST while another kprobe runs, but not the tracepoint. Copies for the end of a
        // socket need no such check: the first to run leaves nothing to do.
        Plan::Kprobe if traits.answers == Answers::Shown => Constants::COPIES,
        Plan::Kprobe => Constants::NO_COPIES,
        _ if traits.preemption == Preemption::None => Constants::NO_COPIES,
        Plan::Fentry if decisions_have_copies(traits) => Constants::COPIES_OF_ENDS,
        Plan::Fentry if ends_are_early(traits) => Constants::EARLY_ENDS,
        Plan::Fentry => Constants::COPIES,
        Plan::Tracepoint if traits.preempts_tracepoints => Constants::COPIES,
        Plan::Tracepoint => Constants::NO_COPIES,
    }
}

/// What a plan does not see on a kernel with these traits, a phrase for each blind spot.
#[must_use]
pub fn blind(plan: Plan, traits: KernelTraits) -> Vec<&'static str> {
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
            if traits.answers != Answers::Shown {
                blind.push(
                    "RSTs that answer a packet for which there is no socket, or no more than what \
                     TIME_WAIT or a request keeps of one: that needs Linux 6.10",
                );
            }
            if !traits.sees_returns {
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

    use aya_obj::Object;
    use linger_ebpf::{FLOOR, OBJECT};

    use super::*;

    fn programs(object: &[u8]) -> BTreeSet<String> {
        let object = Object::parse(object).unwrap();
        object.programs.into_keys().collect()
    }

    #[test]
    fn the_objects_have_exactly_the_listed_programs() {
        let programs_once = PROGRAMS.map(str::to_owned);
        assert_eq!(programs(FLOOR), BTreeSet::from(programs_once));
        let all = Plan::ALL.iter().flat_map(|plan| table(*plan));
        let all = all.map(|hook| hook.program.to_owned());
        assert_eq!(programs(OBJECT), all.collect());
    }

    const USUAL: KernelTraits = KernelTraits {
        sees_returns: true,
        preemption: Preemption::None,
        preempts_tracepoints: false,
        new_timer: false,
        answers: Answers::Shown,
        sees_releases: true,
    };
    const OLD: KernelTraits = KernelTraits {
        sees_returns: false,
        answers: Answers::Hooked,
        ..USUAL
    };
    const FULL: KernelTraits = KernelTraits {
        preemption: Preemption::Threads,
        ..USUAL
    };
    const NEWEST: KernelTraits = KernelTraits {
        preempts_tracepoints: true,
        new_timer: true,
        ..FULL
    };
    const REALTIME: KernelTraits = KernelTraits {
        preemption: Preemption::SoftInterrupts,
        ..NEWEST
    };
    const NEWEST_BLIND: KernelTraits = KernelTraits {
        sees_releases: false,
        ..NEWEST
    };
    const NEWEST_VOLUNTARY: KernelTraits = KernelTraits {
        preemption: Preemption::None,
        ..NEWEST
    };
    const BLIND: KernelTraits = KernelTraits {
        sees_releases: false,
        answers: Answers::HookedV4,
        ..FULL
    };

    /// The hooks of a plan, as the names of programs without its prefix.
    fn programs_of(plan: Plan, traits: KernelTraits) -> String {
        let hooks = hooks(plan, 0, traits);
        let prefix = format!("{}_", plan.name());
        let names = hooks
            .iter()
            .map(|hook| hook.program.trim_start_matches(&prefix));
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_kernel_has_its_hooks() {
        const BOTH: &str = " reset_answers active_reset";
        const RESET: &str = " active_reset";
        const EARLY: &str = " orderly_end fexit_listen_stop";
        const TWICE: &str = " destroy_sock_2";
        const THRICE: &str = " destroy_sock_2 destroy_sock_3";
        const AGAIN: &str = " inner_close_2 inner_close_3 fexit_check_oom_2 fexit_check_oom_3";
        let expect = |plan: Plan, traits: KernelTraits, expected: String| {
            assert_eq!(programs_of(plan, traits), expected, "{plan:?}, {traits:?}");
        };
        for (traits, answers, early, begin, resets, again, copies) in [
            (USUAL, "", "", "tcp_close", BOTH, "", ""),
            (OLD, " v4_answer v6_answer", "", "tcp_close", RESET, "", ""),
            (FULL, "", "", "sock_release", BOTH, "", ""),
            (NEWEST, "", EARLY, "sock_release", BOTH, "", ""),
            (REALTIME, "", "", "sock_release", BOTH, AGAIN, THRICE),
            (
                BLIND,
                " v4_answer",
                "",
                "tcp_close",
                RESET,
                AGAIN,
                " active_reset_2",
            ),
            (NEWEST_BLIND, "", "", "tcp_close", BOTH, AGAIN, TWICE),
            (NEWEST_VOLUNTARY, "", "", "tcp_close", BOTH, "", ""),
        ] {
            let expected = format!(
                "reset settle missed_end{answers} destroy_sock{early} {begin} inner_close \
                 fexit_check_oom{resets} timer{again}{copies}"
            );
            expect(Plan::Fentry, traits, expected);
        }
        for (traits, answers, begin, resets, copies) in [
            (USUAL, "", "tcp_close", BOTH, ""),
            (
                OLD,
                " socket_answers v4_answer v6_answer",
                "tcp_close",
                RESET,
                "",
            ),
            (NEWEST, "", "sock_release", BOTH, TWICE),
            (REALTIME, "", "sock_release", BOTH, THRICE),
        ] {
            let expected = format!(
                "reset settle missed_end{answers} destroy_sock {begin} inner_close \
                 kretprobe_inner_close{resets} timer{copies}"
            );
            expect(Plan::Kprobe, traits, expected);
        }
        let copies = " set_state_2 set_state_3 send_reset_2 destroy_sock_2";
        for (traits, returns, copies) in [
            (USUAL, " sys_exit", ""),
            (OLD, "", ""),
            (FULL, " sys_exit", ""),
            (NEWEST, " sys_exit", copies),
            (REALTIME, " sys_exit", &format!("{copies} destroy_sock_3")),
        ] {
            let expected = format!(
                "settle missed_end{returns} destroy_sock set_state cgroup_sock_release send_reset{copies}"
            );
            expect(Plan::Tracepoint, traits, expected);
        }
    }
}
