//! Verdicts on environments made of files and of the kernel's answers, besides those of the tests `surroundings`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use caps::Capability;
use nix::errno::Errno;
use tempfile::TempDir;

use super::kernel_probe::KernelProbe;
use super::*;
use crate::probe::Preemption;

/// Files of a host without problems.
const GOOD: &[(&str, &str)] = &[
    (
        "proc/self/status",
        "Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n",
    ),
    (
        "proc/self/mounts",
        "bpf /sys/fs/bpf bpf rw,nosuid,mode=700 0 0\n",
    ),
    ("proc/cmdline", "quiet\n"),
    ("proc/sys/net/core/bpf_jit_enable", "1\n"),
    ("proc/sys/kernel/perf_event_paranoid", "2\n"),
    ("proc/sys/kernel/unprivileged_bpf_disabled", "2\n"),
    ("sys/fs/bpf/x", ""),
    ("sys/kernel/btf/vmlinux", ""),
    (
        "sys/kernel/security/lockdown",
        "[none] integrity confidentiality\n",
    ),
    ("sys/kernel/security/lsm", "lockdown,capability,apparmor"),
    ("sys/kernel/tracing/kprobe_events", ""),
];

/// A tree of files, and answers.
struct Host {
    root: TempDir,
    probe: KernelProbe,
}

impl Host {
    fn good() -> Self {
        let host = Self {
            root: tempfile::tempdir().unwrap(),
            probe: KernelProbe {
                files: 1024,
                ..KernelProbe::default()
            },
        };
        for (path, text) in GOOD {
            host.write(path, text);
        }
        host.live_in("pid", "pid:[4026531836]");
        host.live_in("user", "user:[4026531837]");
        host
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).unwrap();
    }

    fn live_in(&self, file: &str, namespace: &str) {
        let link = self.path("proc/self/ns").join(file);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&link);
        symlink(Path::new(namespace), link).unwrap();
    }

    fn findings(&self) -> Vec<Finding> {
        judge(&Environment {
            root: self.root.path().to_owned(),
            probe: self.probe.clone(),
            preemption: Preemption::None,
            cgroups: None,
        })
    }

    /// The findings that are not ok.
    fn amiss(&self) -> Vec<(&'static str, Verdict)> {
        let findings = self.findings();
        let amiss = findings.iter().filter(|one| one.verdict != Verdict::Ok);
        amiss.map(|one| (one.what, one.verdict)).collect()
    }

    fn found(&self, what: &str) -> Finding {
        let mut findings = self.findings().into_iter();
        findings.find(|one| one.what == what).unwrap()
    }
}

#[test]
fn nothing_is_amiss_on_a_good_host() {
    assert_eq!(Host::good().amiss(), []);
}

#[test]
fn findings_have_a_fix_unless_they_are_ok() {
    let mut host = Host::good();
    for (path, _) in GOOD {
        host.remove(path);
    }
    host.probe.missing = vec![Capability::CAP_BPF];
    for finding in host.findings() {
        assert_eq!(
            finding.verdict == Verdict::Ok,
            finding.fix.is_none(),
            "{finding:?}"
        );
    }
}

#[test]
fn a_refusal_is_attributed_to_its_cause() {
    const NO_BPF: Option<Errno> = Some(Errno::ENOSYS);
    for (bpf_refused, map, what, word) in [
        (NO_BPF, Errno::ENOSYS, "seccomp", "CONFIG_BPF_SYSCALL"),
        (None, Errno::EACCES, "security modules", "apparmor"),
        (None, Errno::ENOMEM, "security modules", "memory limit"),
        (None, Errno::EMFILE, "security modules", "LimitNOFILE"),
    ] {
        let mut host = Host::good();
        host.probe.bpf_refused = bpf_refused;
        host.probe.map = Some(map);
        assert_eq!(host.amiss(), [(what, Verdict::Problem)]);
        let finding = format!("{:?}", host.found(what));
        assert!(finding.contains(word), "{finding}");
    }
}

#[test]
fn too_few_open_files_are_a_problem() {
    let mut host = Host::good();
    host.probe.files = 20;
    assert_eq!(host.amiss(), [("open files", Verdict::Problem)]);
    let problem = host.found("open files").problem().unwrap();
    let expected = "open files: at most 20, lingerd needs 128; raise the limit: LimitNOFILE=";
    assert!(problem.starts_with(expected), "{problem}");
}

#[test]
fn only_confidentiality_is_a_problem() {
    const ASKED_FOR: &str = "lockdown=confidentiality";
    let host = Host::good();
    for (file, command_line, verdict) in [
        ("none [integrity] confidentiality\n", "", Verdict::Ok),
        ("none integrity [confidentiality]\n", "", Verdict::Problem),
        ("", ASKED_FOR, Verdict::Problem),
        ("", "lockdown=confidentiality lockdown=none", Verdict::Ok),
        // The level in force counts, not the requested one.
        ("[none] integrity confidentiality", ASKED_FOR, Verdict::Ok),
    ] {
        host.write("sys/kernel/security/lockdown", file);
        host.write("proc/cmdline", command_line);
        assert_eq!(host.found("lockdown").verdict, verdict, "{file}");
    }
}

#[test]
fn events_that_only_an_administrator_may_open_are_a_warning() {
    let mut host = Host::good();
    host.write("proc/sys/kernel/perf_event_paranoid", "3\n");
    assert_eq!(host.amiss(), []);
    host.probe.event = Some(Errno::EACCES);
    assert_eq!(host.amiss(), [("perf_event_paranoid", Verdict::Warning)]);
}

#[test]
fn partial_restrictions_are_warnings() {
    let host = Host::good();
    host.remove("sys/kernel/tracing/kprobe_events");
    host.write("proc/sys/kernel/unprivileged_bpf_disabled", "0\n");
    host.write("proc/sys/net/core/bpf_jit_enable", "0\n");
    let warnings = ["tracefs", "unprivileged_bpf_disabled", "bpf_jit_enable"];
    assert_eq!(host.amiss(), warnings.map(|what| (what, Verdict::Warning)));
}
