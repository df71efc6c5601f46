//! Judges the environment.

use nix::errno::Errno;

use super::environment::{Environment, PID, USER, is_in};
use super::{Finding, OPEN_FILES, Verdict};
use crate::probe::{self, Preemption};

/// All findings, first those that may keep lingerd from counting at all.
pub(super) fn judge(host: &Environment) -> Vec<Finding> {
    const JUDGES: [(&str, Judge); 15] = [
        ("capabilities", capabilities),
        ("user namespace", user_namespace),
        (OPEN_FILES, |host| judge_files(host.probe.files)),
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
        .map(|(what, judge)| Finding::new(what, judge(host)))
        .collect()
}

/// A verdict, the finding, and a fix.
pub(super) type Judgment = (Verdict, String, Option<&'static str>);

type Judge = fn(&Environment) -> Judgment;

fn ok(found: impl Into<String>) -> Judgment {
    (Verdict::Ok, found.into(), None)
}

fn warning(found: impl Into<String>, fix: &'static str) -> Judgment {
    (Verdict::Warning, found.into(), Some(fix))
}

fn problem(found: impl Into<String>, fix: &'static str) -> Judgment {
    (Verdict::Problem, found.into(), Some(fix))
}

fn capabilities(host: &Environment) -> Judgment {
    if host.probe.missing.is_empty() {
        return ok("all present");
    }
    let missing = host.probe.missing.iter();
    let names: Vec<_> = missing.map(ToString::to_string).collect();
    problem(
        format!("missing {}", names.join(", ")),
        "run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN; a container gets them by \
         --cap-add or securityContext.capabilities.add, and keeps them only as user 0",
    )
}

fn user_namespace(host: &Environment) -> Judgment {
    if is_in(&host.root, USER) {
        return ok("the host's");
    }
    problem(
        "not the host's: capabilities have no effect on BPF there",
        "run in the host's user namespace: no rootless container, no userns-remap, no hostUsers: false",
    )
}

/// Files that a plan opens on any kernel, for maps, programs and links, with room for some connections.
const MIN_FILES: u64 = 128;

const MORE_FILES: &str = "raise the limit: LimitNOFILE= in systemd, --ulimit nofile= of a container, ulimit -n in a \
                          shell";

pub(super) fn judge_files(limit: u64) -> Judgment {
    if limit >= MIN_FILES {
        return ok(format!("at most {limit}"));
    }
    problem(
        format!("at most {limit}, lingerd needs {MIN_FILES}"),
        MORE_FILES,
    )
}

/// Returns the error of a refusal, unless a lack of privileges explains it.
fn refused(errno: Option<Errno>, host: &Environment) -> Option<Errno> {
    let privileged = host.probe.missing.is_empty() && is_in(&host.root, USER);
    errno.filter(|errno| privileged || *errno == Errno::ENOSYS)
}

fn seccomp(host: &Environment) -> Judgment {
    let of = |errno, call| refused(errno, host).map(|errno| format!("{call} ({errno})"));
    let bpf = of(host.probe.bpf_refused, "bpf(2)");
    let perf = of(host.probe.perf_refused, "perf_event_open(2)");
    if !host.is_filtered() {
        if host.probe.bpf_refused == Some(Errno::ENOSYS) {
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
             otherwise use seccompProfile Unconfined, --security-opt seccomp=unconfined, or a profile of your own; \
             in systemd SystemCallFilter=bpf",
        ),
        (None, Some(perf)) => warning(
            format!("the filter on this process refuses {perf}, which rules out the plan kprobe"),
            "allow perf_event_open(2), if neither fentry nor tracepoint can be used",
        ),
        (None, None) => ok("a filter that lets bpf(2) and perf_event_open(2) pass"),
    }
}

fn modules(host: &Environment) -> Judgment {
    let modules = host.text("/sys/kernel/security/lsm");
    let modules = Some(modules.trim()).filter(|modules| !modules.is_empty());
    let is_filtered = host.is_filtered() && host.probe.bpf_refused.is_some();
    match refused(host.probe.map, host).filter(|errno| !is_filtered && *errno != Errno::ENOSYS) {
        Some(errno @ (Errno::EPERM | Errno::EACCES)) => problem(
            format!(
                "creating a map is refused ({errno}) despite all capabilities; in use: {}",
                modules.unwrap_or("unknown")
            ),
            "look for what denied it: journalctl -k -g denied, ausearch -m avc -ts recent; under SELinux \
             containers need the type spc_t",
        ),
        Some(errno @ (Errno::EMFILE | Errno::ENFILE)) => {
            problem(format!("no map can be created ({errno})"), MORE_FILES)
        }
        Some(errno) => problem(
            format!("no map can be created ({errno})"),
            "raise the memory limit: maps are charged to the service or the container",
        ),
        None => ok(modules.unwrap_or("none refuses maps")),
    }
}

fn lockdown(host: &Environment) -> Judgment {
    let (file, command_line) = (
        host.text("/sys/kernel/security/lockdown"),
        host.text("/proc/cmdline"),
    );
    let in_force = file
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    let asked_for = || {
        let mut words = command_line.split_ascii_whitespace().rev();
        words.find_map(|word| word.strip_prefix("lockdown="))
    };
    match in_force.map(|(level, _)| level).or_else(asked_for) {
        Some("none") => ok("none"),
        Some("integrity") => ok("integrity: reading kernel memory is allowed, which is enough"),
        Some("confidentiality") => problem(
            "confidentiality: programs may not read kernel memory, and there are no kprobes",
            "boot with lockdown=integrity; it cannot be lowered while the kernel runs",
        ),
        _ => ok("not visible: none, or securityfs is not mounted"),
    }
}

fn btf(host: &Environment) -> Judgment {
    if host.exists("/sys/kernel/btf/vmlinux") {
        return ok("available");
    }
    problem(
        "there is no /sys/kernel/btf/vmlinux",
        "use a kernel built with CONFIG_DEBUG_INFO_BTF=y; in a container, mount the host's /sys",
    )
}

fn cgroups(host: &Environment) -> Judgment {
    match host.cgroups {
        None => ok("v2, all visible"),
        Some(shortcoming) => (Verdict::Warning, shortcoming.to_owned(), None),
    }
}

fn preemption(host: &Environment) -> Judgment {
    match host.preemption {
        Preemption::None => ok(host.preemption.describe()),
        Preemption::Threads | Preemption::Realtime | Preemption::SoftInterrupts => warning(
            format!(
                "{}: it then skips programs. fentry makes up for that, except for the time of one close in some \
                 hundred thousand; tracepoint, from 7.0 on, misses more times; kprobe misses closes",
                host.preemption.describe()
            ),
            "use the plan fentry, if possible",
        ),
        Preemption::Unknown => warning(
            host.preemption.describe(),
            "mount debugfs, so that /sys/kernel/debug/sched/preempt can be read: fewer programs are attached \
             where the kernel does not preempt",
        ),
    }
}

fn pid_namespace(host: &Environment) -> Judgment {
    if is_in(&host.root, PID) {
        return ok("the host's");
    }
    warning(
        "not the host's: a close whose return was missed stays in flight, because lingerd cannot see that \
         its thread is gone",
        "usually none is needed; hostPID: true, or --pid=host, lets lingerd clean up",
    )
}

fn bpffs(host: &Environment) -> Judgment {
    const MOUNT: &str =
        "mount -t bpf bpf /sys/fs/bpf; in a container, mount the host's as a volume";
    let mounts = host.text("/proc/self/mounts");
    // The last mount is on top.
    let kind = mounts.lines().rev().find_map(|line| {
        let rest = line.split_once(' ')?.1.strip_prefix("/sys/fs/bpf ")?;
        rest.split(' ').next()
    });
    match kind {
        Some("bpf") if host.is_writable("/sys/fs/bpf") => ok("/sys/fs/bpf can be written"),
        None => warning(
            "not mounted at /sys/fs/bpf: counts cannot outlive lingerd",
            MOUNT,
        ),
        Some("bpf") => warning(
            "/sys/fs/bpf cannot be written: counts cannot outlive lingerd",
            "mount -o remount,rw /sys/fs/bpf, and run as its owner; in a container, mount it without \
             readOnly, and with appArmorProfile Unconfined where AppArmor is in use",
        ),
        Some(kind) => warning(
            format!("/sys/fs/bpf is {kind}: counts cannot outlive lingerd"),
            MOUNT,
        ),
    }
}

fn tracefs(host: &Environment) -> Judgment {
    let files = probe::TRACEFS.map(|folder| format!("{folder}/kprobe_events"));
    match files.iter().find(|file| host.exists(file)) {
        Some(file) if host.is_writable(file) => ok("kprobe_events can be written"),
        None => warning(
            "no kprobe_events, which rules out the plan kprobe",
            "if neither fentry nor tracepoint can be used: mount -t tracefs tracefs /sys/kernel/tracing, on \
             a kernel with CONFIG_KPROBE_EVENTS=y",
        ),
        Some(_) => warning(
            "kprobe_events cannot be written, which rules out the plan kprobe",
            "if neither fentry nor tracepoint can be used, run as root with tracefs mounted for writing",
        ),
    }
}

fn perf_paranoid(host: &Environment) -> Judgment {
    let level = host.number("/proc/sys/kernel/perf_event_paranoid");
    let shown = level.map_or_else(|| "unknown".to_owned(), |level| level.to_string());
    match refused(host.probe.event, host) {
        // Levels above 2 exist in Debian and Ubuntu, and require CAP_SYS_ADMIN.
        Some(Errno::EACCES | Errno::EPERM)
            if host.probe.perf_refused.is_none() && level > Some(2) =>
        {
            warning(
                format!(
                    "{shown}: no events even with CAP_PERFMON, which rules out the plan kprobe"
                ),
                "if neither fentry nor tracepoint can be used: sysctl kernel.perf_event_paranoid=2, or run with \
                 CAP_SYS_ADMIN",
            )
        }
        _ => ok(format!("{shown}, which CAP_PERFMON overrides")),
    }
}

fn unprivileged(host: &Environment) -> Judgment {
    match host.number("/proc/sys/kernel/unprivileged_bpf_disabled") {
        Some(0) => warning(
            "0: every user may load BPF programs, and exploit side channels with them",
            "not needed for lingerd, but recommended: sysctl kernel.unprivileged_bpf_disabled=1",
        ),
        Some(level) => ok(format!("{level}, which CAP_BPF overrides")),
        None => ok("unknown, but CAP_BPF overrides it"),
    }
}

fn jit(host: &Environment) -> Judgment {
    match host.number("/proc/sys/net/core/bpf_jit_enable") {
        Some(0) => warning(
            "0: programs are interpreted, which is slow and rules out the plan fentry",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        Some(level) => ok(level.to_string()),
        None => ok("not visible from this network namespace"),
    }
}
