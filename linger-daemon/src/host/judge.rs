//! What follows from the facts.

use nix::errno::Errno;

use super::{Bpffs, Facts, Finding, Lockdown, Tracefs, Verdict};
use crate::probe::Preemption;

/// Every thing with its verdict: first what may keep lingerd from counting at all.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    const JUDGES: [(&str, Judge); 14] = [
        ("capabilities", capabilities),
        ("user namespace", user_namespace),
        ("seccomp", seccomp),
        ("security modules", modules),
        ("lockdown", lockdown),
        ("BTF", btf),
        ("preemption", preemption),
        ("cgroups", cgroups),
        ("PID namespace", pid_namespace),
        ("bpffs", bpffs),
        ("tracefs", tracefs),
        ("perf_event_paranoid", perf_paranoid),
        ("unprivileged_bpf_disabled", unprivileged),
        ("bpf_jit_enable", jit),
    ];
    JUDGES
        .into_iter()
        .map(|(what, judge)| {
            let (verdict, found, fix) = judge(facts);
            Finding {
                what,
                verdict,
                found,
                fix,
            }
        })
        .collect()
}

/// A verdict, what was found, and what helps.
type Judgment = (Verdict, String, Option<&'static str>);

type Judge = fn(&Facts) -> Judgment;

fn ok(found: impl Into<String>) -> Judgment {
    (Verdict::Ok, found.into(), None)
}

fn warning(found: impl Into<String>, fix: &'static str) -> Judgment {
    (Verdict::Warning, found.into(), Some(fix))
}

fn problem(found: impl Into<String>, fix: &'static str) -> Judgment {
    (Verdict::Problem, found.into(), Some(fix))
}

fn capabilities(facts: &Facts) -> Judgment {
    if facts.asked.missing.is_empty() {
        return ok("all there");
    }
    let names: Vec<_> = facts
        .asked
        .missing
        .iter()
        .map(ToString::to_string)
        .collect();
    problem(
        format!("missing {}", names.join(", ")),
        "run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN; a container is given them by \
         --cap-add or securityContext.capabilities.add, and keeps them only as user 0",
    )
}

fn user_namespace(facts: &Facts) -> Judgment {
    if facts.is_initial_user {
        return ok("the host's");
    }
    problem(
        "not the host's: capabilities are worth nothing for BPF there",
        "run in the host's user namespace: no rootless container, no userns-remap, no hostUsers: false",
    )
}

/// A refusal that no lack of privileges explains.
fn refused(errno: Option<Errno>, facts: &Facts) -> Option<Errno> {
    let privileged = facts.asked.missing.is_empty() && facts.is_initial_user;
    errno.filter(|errno| privileged || *errno == Errno::ENOSYS)
}

fn seccomp(facts: &Facts) -> Judgment {
    let of = |errno, call| refused(errno, facts).map(|errno| format!("{call} ({errno})"));
    let bpf = of(facts.asked.bpf_refused, "bpf(2)");
    let perf = of(facts.asked.perf_refused, "perf_event_open(2)");
    if !facts.is_filtered {
        if facts.asked.bpf_refused == Some(Errno::ENOSYS) {
            return problem(
                "no filter, but there is no bpf(2)",
                "use a kernel built with CONFIG_BPF_SYSCALL=y",
            );
        }
        return ok("no filter");
    }
    match (bpf, perf) {
        (Some(bpf), _) => problem(
            format!("the filter on this process refuses {bpf}"),
            "allow bpf(2): containerd since 1.6.9 and Docker since 23 do by default where CAP_BPF is added; \
             else seccompProfile Unconfined or --security-opt seccomp=unconfined, or a profile of your own; \
             for systemd SystemCallFilter=bpf",
        ),
        (None, Some(perf)) => warning(
            format!("the filter on this process refuses {perf}: not for the plan kprobe"),
            "allow perf_event_open(2) if neither fentry nor tracepoint is usable",
        ),
        (None, None) => ok("a filter that lets bpf(2) and perf_event_open(2) pass"),
    }
}

fn modules(facts: &Facts) -> Judgment {
    let modules = facts.modules.as_deref();
    let is_filtered = facts.is_filtered && facts.asked.bpf_refused.is_some();
    match refused(facts.asked.map, facts).filter(|errno| !is_filtered && *errno != Errno::ENOSYS) {
        Some(errno @ (Errno::EPERM | Errno::EACCES)) => problem(
            format!(
                "making a map is refused ({errno}) with all capabilities there; in use: {}",
                modules.unwrap_or("unknown")
            ),
            "look for what denied it: journalctl -k -g denied, ausearch -m avc -ts recent; under SELinux \
             containers need the type spc_t",
        ),
        Some(errno) => problem(
            format!("no map can be made ({errno})"),
            "raise the memory limit: what maps take is charged to the service or the container",
        ),
        None => ok(modules.unwrap_or("they let maps be made")),
    }
}

fn lockdown(facts: &Facts) -> Judgment {
    match facts.lockdown {
        Lockdown::None => ok("none"),
        Lockdown::Integrity => ok("integrity: kernel memory may be read, which is enough"),
        Lockdown::Confidentiality => problem(
            "confidentiality: no program may read kernel memory, and there are no kprobes",
            "boot with lockdown=integrity; it cannot be lowered while the kernel runs",
        ),
        Lockdown::Unknown => ok("not to be seen from here: none, or securityfs is not mounted"),
    }
}

fn btf(facts: &Facts) -> Judgment {
    if facts.has_btf {
        return ok("the kernel shows its types");
    }
    problem(
        "there is no /sys/kernel/btf/vmlinux",
        "use a kernel built with CONFIG_DEBUG_INFO_BTF=y; in a container, have the host's /sys there",
    )
}

fn cgroups(facts: &Facts) -> Judgment {
    match facts.cgroups {
        None => ok("v2, all of them visible"),
        Some(shortcoming) => (Verdict::Warning, shortcoming.to_owned(), None),
    }
}

fn preemption(facts: &Facts) -> Judgment {
    match facts.preemption {
        Preemption::None => ok(facts.preemption.describe()),
        Preemption::Threads | Preemption::Realtime => warning(
            format!(
                "{}: it skips programs meanwhile. fentry makes up for that but for the time of a close in some \
                 hundred thousand; tracepoint, from 7.0 on, misses more times; kprobe misses closes",
                facts.preemption.describe()
            ),
            "use the plan fentry, if it is usable",
        ),
        Preemption::Unknown => warning(
            facts.preemption.describe(),
            "mount debugfs, so that /sys/kernel/debug/sched/preempt tells: fewer programs are attached where \
             the kernel does not preempt",
        ),
    }
}

fn pid_namespace(facts: &Facts) -> Judgment {
    if facts.is_initial_pid {
        return ok("the host's");
    }
    warning(
        "not the host's: a close whose return was missed stays in flight, as threads that are gone \
         cannot be told",
        "nothing has to be done; hostPID: true, or --pid=host, has them swept",
    )
}

fn bpffs(facts: &Facts) -> Judgment {
    const MOUNT: &str = "mount -t bpf bpf /sys/fs/bpf; a container is given the host's as a volume";
    match &facts.bpffs {
        Bpffs::Writable => ok("/sys/fs/bpf may be written to"),
        Bpffs::Missing => warning("not mounted at /sys/fs/bpf: counts end with lingerd", MOUNT),
        Bpffs::Other(kind) => warning(
            format!("at /sys/fs/bpf is {kind}: counts end with lingerd"),
            MOUNT,
        ),
        Bpffs::ReadOnly => warning(
            "/sys/fs/bpf may not be written to: counts end with lingerd",
            "mount -o remount,rw /sys/fs/bpf, and run as its owner; a container is given it without \
             readOnly, and with appArmorProfile Unconfined where AppArmor is in use",
        ),
    }
}

fn tracefs(facts: &Facts) -> Judgment {
    match facts.tracefs {
        Tracefs::Writable => ok("kprobe_events may be written to"),
        Tracefs::Missing => warning(
            "no kprobe_events: not for the plan kprobe",
            "if neither fentry nor tracepoint is usable: mount -t tracefs tracefs /sys/kernel/tracing, on \
             a kernel with CONFIG_KPROBE_EVENTS=y",
        ),
        Tracefs::ReadOnly => warning(
            "kprobe_events may not be written to: not for the plan kprobe",
            "if neither fentry nor tracepoint is usable, run as root with tracefs mounted for writing",
        ),
    }
}

fn perf_paranoid(facts: &Facts) -> Judgment {
    let level = facts.perf_paranoid;
    let shown = level.map_or_else(|| "unknown".to_owned(), |level| level.to_string());
    match refused(facts.asked.event, facts) {
        // Levels above 2 are of Debian and Ubuntu; they take CAP_SYS_ADMIN.
        Some(Errno::EACCES | Errno::EPERM)
            if facts.asked.perf_refused.is_none() && level > Some(2) =>
        {
            warning(
                format!("{shown}: no events even with CAP_PERFMON: not for the plan kprobe"),
                "if neither fentry nor tracepoint is usable: sysctl kernel.perf_event_paranoid=2, or run with \
                 CAP_SYS_ADMIN",
            )
        }
        _ => ok(format!("{shown}, above which CAP_PERFMON stands")),
    }
}

fn unprivileged(facts: &Facts) -> Judgment {
    match facts.unprivileged_disabled {
        Some(0) => warning(
            "0: every user may load programs, and read side channels by them",
            "not needed for lingerd, but wise: sysctl kernel.unprivileged_bpf_disabled=1",
        ),
        Some(level) => ok(format!("{level}, above which CAP_BPF stands")),
        None => ok("unknown, CAP_BPF stands above it"),
    }
}

fn jit(facts: &Facts) -> Judgment {
    match facts.jit {
        Some(0) => warning(
            "0: programs are interpreted, slowly, and not for the plan fentry",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        Some(level) => ok(level.to_string()),
        None => ok("not to be seen from this network namespace"),
    }
}
