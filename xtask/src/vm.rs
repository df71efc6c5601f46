//! Booting Debian's kernels in QEMU, with nothing but the scenario tests in them.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::artifacts::Executables;
use crate::initramfs;
use crate::kernels::Kernel;
use crate::shell::{self, command, root, run};
use crate::tally::Scenarios;

/// After this long the machine hangs: emulated, the scenarios take a few minutes.
const TIME_LIMIT: Duration = Duration::from_secs(20 * 60);
/// How long the console may be silent before a sign of life is given.
const SILENCE: Duration = Duration::from_secs(30);

/// Closes of the load there; emulated, the million that it makes natively takes too long.
const LOAD: &str = "20000";

/// Which scenarios to run: all, unless something is given.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Selection {
    /// Only scenarios whose name contains this
    #[arg(long = "test", value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Only this plan: fentry, kprobe or tracepoint
    #[arg(long)]
    pub(crate) plan: Option<String>,
}

impl Selection {
    /// As arguments of the scenario tests.
    pub(crate) fn args(&self) -> Vec<String> {
        let option = |name: &str, value: &Option<String>| {
            value
                .iter()
                .flat_map(|value| [format!("--{name}"), value.clone()])
                .collect::<Vec<_>>()
        };
        [option("filter", &self.filter), option("plan", &self.plan)].concat()
    }
}

/// Runs scenarios on a kernel.
///
/// Fails if the machine did not come to an orderly end or the kernel complained; failed scenarios
/// are in the result.
pub(crate) fn run_scenarios(
    kernel: &Kernel,
    built: &Executables,
    selection: &Selection,
) -> Result<Scenarios> {
    let folder = folder(kernel)?;
    let scenarios = folder.join("scenarios");
    fs::copy(&built.scenarios, &scenarios)?;
    let mut work = vec!["scenarios", "--lingerd", "/bin/lingerd"];
    work.extend([
        "--kernel-label",
        &kernel.label,
        "--summary",
        "/tmp/summary.json",
    ]);
    work.extend(["--load", LOAD]);
    let selection = selection.args();
    work.extend(selection.iter().map(String::as_str));

    let programs = programs(&[scenarios, built.lingerd.clone()])?;
    let archive = initramfs::pack(&folder, kernel, &programs, &quoted(&work))?;
    let report = folder.join("report");
    let mut qemu = qemu(kernel, &archive);
    qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
        .arg("-serial")
        .arg(format!("file:{}", report.display()));

    let troubles = watch(&mut qemu, &kernel.label)?;
    if !troubles.is_empty() {
        bail!(
            "kernel {} complained: {}",
            kernel.label,
            troubles.join("; ")
        );
    }
    read_report(&fs::read_to_string(&report)?)
}

/// A shell on a kernel, with the same programs at hand.
pub(crate) fn shell(kernel: &Kernel, lingerd: PathBuf) -> Result<()> {
    let folder = folder(kernel)?;
    let work = "echo 'Here are lingerd, tc, ss and /bin/ip (plain ip is that of busybox). exit or Ctrl-A X ends it.'\n\
                setsid cttyhack sh";
    let archive = initramfs::pack(&folder, kernel, &programs(&[lingerd])?, work)?;
    run(qemu(kernel, &archive)
        .arg("-nographic")
        .args(["-serial", "mon:stdio", "-serial", "null"])
        .stdin(Stdio::inherit()))
}

/// Where the files of a kernel's machine are made.
fn folder(kernel: &Kernel) -> Result<PathBuf> {
    let folder = root()
        .join("target/vm")
        .join(format!("run-{}", kernel.label));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// These programs, and those that tests call.
fn programs(own: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut programs = own.to_vec();
    for name in ["ip", "tc", "ss"] {
        programs.push(shell::find(name).with_context(|| format!("{name} is not installed"))?);
    }
    Ok(programs)
}

fn qemu(kernel: &Kernel, archive: &Path) -> Command {
    let mut qemu = command("qemu-system-x86_64");
    // Emulated on purpose: it works everywhere, also where /dev/kvm is there and does not.
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"])
        .args(["-m", "2048", "-nodefaults", "-no-reboot"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(archive)
        // Warnings are shown, for they fail the run; a panic ends QEMU.
        .args(["-append", "console=ttyS0 loglevel=5 oops=panic panic=-1"]);
    qemu
}

/// Runs the machine to its end, showing its console; what the kernel complained about.
fn watch(qemu: &mut Command, label: &str) -> Result<Vec<String>> {
    let mut child = qemu
        .stdout(Stdio::piped())
        .spawn()
        .context("start qemu-system-x86_64")?;
    let console = lines(child.stdout.take().context("the console is a pipe")?);
    let result = follow(&console, label);
    if result.is_err() {
        child.kill()?;
    }
    end(child)?;
    result
}

fn end(mut child: Child) -> Result<()> {
    child.wait().context("wait for QEMU")?;
    Ok(())
}

fn follow(console: &Receiver<String>, label: &str) -> Result<Vec<String>> {
    let start = Instant::now();
    let mut troubles = Vec::new();
    while start.elapsed() < TIME_LIMIT {
        match console.recv_timeout(SILENCE) {
            Ok(line) => {
                println!("{label} | {line}");
                if is_trouble(&line) {
                    troubles.push(line);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                println!("{label} | (running for {} s)", start.elapsed().as_secs());
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(troubles),
        }
    }
    bail!(
        "kernel {label} was not done after {} minutes",
        TIME_LIMIT.as_secs() / 60
    )
}

/// The lines of a stream, as they come.
fn lines(stream: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for bytes in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&bytes);
            if sender.send(line.trim_end_matches('\r').to_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Whether this is a line of the kernel that means that something broke.
fn is_trouble(line: &str) -> bool {
    // The kernel's own lines begin with the time; a test may print the same words.
    let Some((time, text)) = line
        .strip_prefix('[')
        .and_then(|line| line.split_once("] "))
    else {
        return false;
    };
    time.trim().parse::<f64>().is_ok()
        && [
            "Kernel panic",
            "BUG:",
            "Oops:",
            "soft lockup",
            "WARNING: CPU",
            "general protection fault",
        ]
        .iter()
        .any(|words| text.contains(words))
}

/// Reads what /init left on the second serial port: the exit code, then the summary.
fn read_report(report: &str) -> Result<Scenarios> {
    let (code, summary) = report
        .split_once('\n')
        .context("the machine ended before its tests did; its console is above")?;
    let code: i32 = code.trim().parse().context("the exit code of the tests")?;
    let scenarios = Scenarios::parse(summary)
        .with_context(|| format!("the scenario tests ended with exit code {code}"))?;
    if code != 0 && scenarios.failed == 0 {
        bail!("the scenario tests failed with exit code {code}, though no pair did");
    }
    Ok(scenarios)
}

/// The words as one line for a shell.
fn quoted(words: &[&str]) -> String {
    let quote = |word: &&str| format!("'{}'", word.replace('\'', r"'\''"));
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_of_the_kernel_are_seen_and_words_of_tests_are_not() {
        for line in [
            "[    1.798159] Kernel panic - not syncing: VFS: Unable to mount root fs",
            "[   40.000001] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [scenarios:90]",
            "[    2.5] WARNING: CPU: 0 PID: 70 at kernel/bpf/verifier.c:1 x+0x1/0x2",
        ] {
            assert!(is_trouble(line), "{line}");
        }
        for line in [
            "BUG: an assertion of a test",
            "[   12.000000] TCP: request_sock_TCP: Possible SYN flooding on port 1",
            "[kprobe] WARNING: CPU time is not measured",
        ] {
            assert!(!is_trouble(line), "{line}");
        }
    }

    #[test]
    fn report_has_exit_code_and_summary() {
        let summary = "{\"passed\":3,\"failed\":1,\"not_run\":0,\"pairs\":[]}\r\n";
        let scenarios = read_report(&format!("1\r\n{summary}")).unwrap();
        assert_eq!((scenarios.passed, scenarios.failed), (3, 1));
    }

    #[test]
    fn report_that_does_not_prove_success_is_an_error() {
        let no_failure = "{\"passed\":3,\"failed\":0,\"not_run\":0,\"pairs\":[]}";
        for report in ["", "0\n", "100\n", &format!("139\n{no_failure}")] {
            assert!(read_report(report).is_err(), "{report}");
        }
    }

    #[test]
    fn quotes_survive_the_shell() {
        assert_eq!(quoted(&["a", "it's b"]), r"'a' 'it'\''s b'");
    }
}
