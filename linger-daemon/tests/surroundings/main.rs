//! Reports of `lingerd check` and `lingerd run` where something prevents them from counting: a seccomp filter, missing
//! capabilities, or separate namespaces. These tests need root, and a kernel on which lingerd works.

#[path = "../common/seccomp.rs"]
mod seccomp;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::mem;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal::SIGTERM;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::{Value, json};

const LINGERD: &str = env!("CARGO_BIN_EXE_lingerd");

/// The result of `lingerd check`: its exit code and its report.
struct Checked(Option<i32>, Value);

impl Checked {
    fn by(command: &mut Command) -> Self {
        let output = command.args(["check", "--json"]).output().unwrap();
        let report = serde_json::from_slice(&output.stdout);
        let report = report.unwrap_or_else(|error| panic!("{error}: {}", errors(&output)));
        Self(output.status.code(), report)
    }

    fn of(&self, what: &str) -> &Value {
        let all = self.1["host"].as_array().unwrap();
        all.iter().find(|one| one["what"] == what).unwrap()
    }

    /// Expects this verdict, with these words in the finding or its fix.
    fn expect(&self, what: &str, verdict: &str, words: &[&str]) {
        let finding = self.of(what);
        assert_eq!(finding["verdict"], verdict, "{finding}");
        for word in words {
            assert!(finding.to_string().contains(word), "no {word} in {finding}");
        }
    }

    /// Expects that the lack of privileges is blamed alone for what the kernel refuses.
    fn expect_only_privileges_blamed(&self) {
        for what in ["seccomp", "security modules", "perf_event_paranoid"] {
            self.expect(what, "ok", &[]);
        }
    }

    fn problems(&self) -> Vec<&str> {
        let all = self.1["host"].as_array().unwrap();
        let problems = all.iter().filter(|one| one["verdict"] == "problem");
        problems.map(|one| one["what"].as_str().unwrap()).collect()
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs `lingerd run`, which must not start. Returns its error output.
fn refusal(command: &mut Command) -> String {
    let output = command.args(["run", "--listen", "127.0.0.1:0"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    errors(&output)
}

fn lingerd() -> Command {
    Command::new(LINGERD)
}

/// Returns a command that runs lingerd by a tool that changes its surroundings.
fn by(tool: &str) -> Command {
    let mut words = tool.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words).arg(LINGERD);
    command
}

/// Returns a command that runs lingerd in its own mount namespace, after this script.
fn with_mounts(script: &str) -> Command {
    let mut command = Command::new("unshare");
    let script = format!("set -e; {script}; exec \"$0\" \"$@\"");
    command.args(["--mount", "sh", "-c", &script, LINGERD]);
    command
}

/// A running `lingerd run`, killed when dropped.
struct Running {
    process: Child,
    errors: BufReader<ChildStderr>,
    said: String,
    address: String,
}

impl Running {
    /// Starts it, and waits until it serves.
    fn by(command: &mut Command) -> Self {
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(process.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let from = said.len();
            assert!(errors.read_line(&mut said).unwrap() > 0, "{said}");
            if let Some((_, rest)) = said[from..].split_once("serving http://") {
                break rest.split_once('/').unwrap().0.to_owned();
            }
        };
        Self {
            process,
            errors,
            said,
            address,
        }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).unwrap()
    }

    /// Expects it to answer, before what keeps it waiting can have ended by the usual limit of five seconds.
    fn expect_metrics(&self) {
        let started = Instant::now();
        let mut answer = String::new();
        let mut stream = self.connect();
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        stream.read_to_string(&mut answer).unwrap();
        let taken = started.elapsed();
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
        assert!(taken < Duration::from_secs(3), "{taken:?}");
    }

    /// Stops it, and returns its error output.
    fn end(mut self) -> String {
        kill(Pid::from_raw(self.process.id().cast_signed()), SIGTERM).unwrap();
        self.errors.read_to_string(&mut self.said).unwrap();
        assert!(self.process.wait().unwrap().success(), "{}", self.said);
        mem::take(&mut self.said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `end` the process is gone; that is no error.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn filtered(calls: &[libc::c_long], errno: i32) -> Command {
    let mut command = lingerd();
    seccomp::refuse(&mut command, calls, errno).unwrap();
    command
}

#[test]
fn without_anything_in_the_way_there_is_no_problem() {
    let checked = Checked::by(&mut lingerd());
    assert_eq!(checked.problems(), Vec::<&str>::new());
    assert_eq!(checked.0, Some(0), "{}", checked.1);
    checked.expect("seccomp", "ok", &["no filter"]);
    let btf = &checked.1["btf"];
    assert_eq!(
        (&btf["usable"], &btf["reason"]),
        (&true.into(), &Value::Null)
    );
    assert!(btf["fields"].as_array().unwrap().len() > 20, "{btf}");
}

#[test]
fn a_filter_that_refuses_bpf_is_named() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let checked = Checked::by(&mut filtered(&[libc::SYS_bpf], errno));
        assert_eq!(checked.0, Some(1), "{}", checked.1);
        assert_eq!(checked.problems(), ["seccomp"]);
        checked.expect(
            "seccomp",
            "problem",
            &["bpf(2)", "Unconfined", "SystemCallFilter"],
        );
    }
}

#[test]
fn a_filter_that_refuses_only_perf_event_open_leaves_plans() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let checked = Checked::by(&mut filtered(&[libc::SYS_perf_event_open], errno));
        checked.expect("seccomp", "warning", &["perf_event_open(2)", "kprobe"]);
        assert_eq!(checked.0, Some(0), "{}", checked.1);
    }
}

#[test]
fn a_filter_that_refuses_neither_is_all_right() {
    let checked = Checked::by(&mut filtered(&[libc::SYS_reboot], libc::EPERM));
    checked.expect("seccomp", "ok", &["pass"]);
    assert_eq!(checked.0, Some(0), "{}", checked.1);
}

#[test]
fn a_limit_of_open_files_that_prevents_the_start_is_named() {
    for limit in [10, 20, 60, 127] {
        let said = refusal(&mut by(&format!("prlimit --nofile={limit}")));
        let expected = format!("lingerd: open files: at most {limit}, lingerd needs 128; raise");
        assert!(said.starts_with(&expected), "{said}");
    }
}

#[test]
fn idle_clients_keep_no_one_out_however_few_files_may_be_open() {
    // The lower one is raised to the higher one.
    for limit in ["128", "200", "100:300"] {
        let mut run = by(&format!("prlimit --nofile={limit}"));
        run.args(["run", "--listen", "127.0.0.1:0"]);
        let lingerd = Running::by(&mut run);
        let _idle: Vec<_> = (0..300).map(|_| lingerd.connect()).collect();
        lingerd.expect_metrics();
        let said = lingerd.end();
        assert!(!said.contains("cannot accept"), "{limit}: {said}");
    }
}

#[test]
fn a_service_manager_that_does_not_read_keeps_no_client_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send_to(b"x", &path).is_ok() {}
    let mut run = lingerd();
    run.args(["run", "--listen", "127.0.0.1:0"]);
    let lingerd = Running::by(run.env("NOTIFY_SOCKET", &path));
    lingerd.expect_metrics();
    // First come the messages that filled the queue.
    let limit = Some(Duration::from_secs(10));
    manager.set_read_timeout(limit).unwrap();
    let mut message = [0; 7];
    while &message != b"READY=1" {
        manager.recv(&mut message).unwrap();
    }
    lingerd.end();
}

#[test]
fn a_start_that_a_filter_prevents_says_so() {
    let said = refusal(&mut filtered(&[libc::SYS_bpf], libc::EPERM));
    assert!(
        said.contains("seccomp: the filter on this process refuses bpf(2)"),
        "{said}"
    );
}

#[test]
fn missing_capabilities_are_named() {
    let without = || by("setpriv --bounding-set -all --inh-caps -all");
    let checked = Checked::by(&mut without());
    assert_eq!(checked.0, Some(1), "{}", checked.1);
    assert_eq!(checked.problems(), ["capabilities"]);
    let names = ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"];
    checked.expect("capabilities", "problem", &names);
    checked.expect_only_privileges_blamed();
    let said = refusal(&mut without());
    for name in names {
        assert!(said.contains(name), "{said}");
    }
}

#[test]
fn a_user_namespace_is_told_from_missing_capabilities() {
    let inside = || by("unshare --user --map-root-user");
    let checked = Checked::by(&mut inside());
    assert_eq!(checked.0, Some(1), "{}", checked.1);
    assert_eq!(checked.problems(), ["user namespace"]);
    checked.expect_only_privileges_blamed();
    let said = refusal(&mut inside());
    assert!(said.contains("user namespace: not the host's"), "{said}");
}

#[test]
fn a_pid_namespace_takes_little_away() {
    let checked = Checked::by(&mut by("unshare --pid --fork --mount-proc"));
    checked.expect("PID namespace", "warning", &["hostPID"]);
    assert_eq!(checked.0, Some(0), "{}", checked.1);
}

#[test]
fn a_part_of_the_cgroups_is_not_taken_for_all() {
    // The namespace begins at a cgroup below the root.
    let script = r#"root=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
        mkdir -p "$root/linger-part-$$" && echo $$ > "$root/linger-part-$$/cgroup.procs"
        unshare --cgroup --mount sh -c 'umount -l "$0"; mount -t cgroup2 none "$0" && exec "$@"' "$root" "$0" "$@"
        code=$?; echo $$ > "$root/cgroup.procs"; rmdir "$root/linger-part-$$"; exit $code"#;
    let mut command = Command::new("sh");
    let checked = Checked::by(command.args(["-c", script, LINGERD]));
    checked.expect("cgroups", "warning", &["cgroup namespace"]);
    let plans = checked.1["plans"].as_array().unwrap();
    let tracepoint = plans.iter().find(|plan| plan["plan"] == "tracepoint");
    let reason = tracepoint.unwrap()["reason"].to_string();
    assert!(reason.contains("only a part of all cgroups"), "{reason}");
}

#[test]
fn bpffs_is_found_as_it_is_mounted() {
    // Removes whatever the host has mounted there.
    let away = "while umount /sys/fs/bpf 2>/dev/null; do :; done";
    let mount = "mount -t bpf bpf /sys/fs/bpf";
    for (script, verdict, word) in [
        (away.to_owned(), "warning", "mount -t bpf bpf /sys/fs/bpf"),
        (format!("{away}; {mount}"), "ok", "written"),
        (format!("{away}; {mount} -o ro"), "warning", "remount,rw"),
        (
            "mount -t tmpfs none /sys/fs/bpf".to_owned(),
            "warning",
            "tmpfs",
        ),
    ] {
        let checked = Checked::by(&mut with_mounts(&script));
        checked.expect("bpffs", verdict, &[word]);
        assert_eq!(checked.0, Some(0), "{}", checked.1);
    }
}

#[test]
fn a_kernel_whose_types_are_hidden_is_named() {
    let hidden = || with_mounts("mount -t tmpfs none /sys/kernel");
    let checked = Checked::by(&mut hidden());
    assert_eq!(checked.0, Some(1), "{}", checked.1);
    assert_eq!(checked.problems(), ["BTF"]);
    let btf = &checked.1["btf"];
    assert_eq!(
        (&btf["usable"], &btf["fields"]),
        (&false.into(), &json!([]))
    );
    let reason = btf["reason"].as_str().unwrap();
    assert!(reason.contains("/sys/kernel/btf/vmlinux"), "{reason}");
    let said = refusal(&mut hidden());
    assert!(said.contains("/sys/kernel/btf/vmlinux"), "{said}");
}

#[test]
fn a_start_without_proc_says_so() {
    let said = refusal(&mut with_mounts("mount -t tmpfs none /proc"));
    assert!(said.contains("cannot read /proc/self/task"), "{said}");
}

#[test]
fn the_report_for_people_stands_in_columns() {
    let output = filtered(&[libc::SYS_bpf], libc::EPERM)
        .arg("check")
        .output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let table: Vec<_> = text
        .lines()
        .skip(2)
        .take_while(|line| !line.is_empty())
        .collect();
    assert!(table.len() > 13, "{text}");
    for line in table {
        let verdict = line.get(27..34).map(str::trim_end);
        let is_fix = line.starts_with(&" ".repeat(36)) && line.contains("fix: ");
        assert!(
            is_fix || ["ok", "warning", "problem"].map(Some).contains(&verdict),
            "{line}"
        );
    }
}
