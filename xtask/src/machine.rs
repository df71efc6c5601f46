//! A machine in QEMU: it boots a kernel, is watched to its end, and leaves a report.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::architecture::Architecture;
use crate::kernels::Kernel;
use crate::shell::{command, run, tool};
use crate::tally::Scenarios;

/// How long the console may be silent before a sign of life is given.
const SILENCE: Duration = Duration::from_secs(30);

/// What a machine reports once its first process runs.
const UP: &str = "up";

/// What is booted. Its console is the first serial port; to the second it writes its report: that it is
/// up, the exit code of its work and, from the next line on, the summary that the tests leave.
pub struct Machine<'a> {
    kernel: &'a Kernel,
    /// The file system, which is the initramfs.
    archive: PathBuf,
    /// For the kernel's command line.
    parameters: String,
    /// After this long the machine hangs.
    limit: Duration,
    cpus: u32,
    /// Whether its clock counts instructions.
    counts: bool,
}

impl<'a> Machine<'a> {
    /// This kernel with this file system; `parameters` come last on its command line.
    pub fn new(kernel: &'a Kernel, archive: PathBuf, parameters: String, limit: Duration) -> Self {
        Self {
            kernel,
            archive,
            parameters,
            limit,
            cpus: 2,
            counts: false,
        }
    }

    /// One with so many CPUs whose clock ticks once for each instruction: a nanosecond is an instruction, on
    /// whichever CPU, and neither what else this machine does nor a wait takes any.
    pub fn counting_instructions(self, cpus: u32) -> Self {
        Self {
            cpus,
            counts: true,
            ..self
        }
    }

    /// Runs the machine to its end, showing its console; what it reported. One that never came up has tested
    /// nothing: it is booted once more.
    ///
    /// Fails if it did not come to an orderly end or the kernel complained; failed tests are in the
    /// report.
    pub fn run(&self) -> Result<Report> {
        if let Some(report) = self.run_once()? {
            return Ok(report);
        }
        println!(
            "{} | it never came up, and is booted once more",
            self.kernel.label
        );
        let report = self.run_once()?;
        let report = report.context("the machine never came up, twice; its console is above")?;
        Ok(Report {
            booted_in_vain: 1,
            ..report
        })
    }

    /// What it reported; nothing if it never came up.
    fn run_once(&self) -> Result<Option<Report>> {
        let file = self.archive.with_extension("report");
        // One of an earlier run must not pass for this one's.
        fs::write(&file, "").with_context(|| format!("write {}", file.display()))?;
        let mut qemu = self.qemu();
        qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
            .args(self.report_port(&format!("file,path={}", file.display())));
        let troubles = watch(&mut qemu, &self.kernel.label, self.limit)?;
        let report = fs::read_to_string(&file)?;
        let Some(report) = report.strip_prefix(UP) else {
            return Ok(None);
        };
        if !troubles.is_empty() {
            bail!(
                "kernel {} complained: {}",
                self.kernel.label,
                troubles.join("; ")
            );
        }
        Report::parse(report.trim_start()).map(Some)
    }

    /// Runs the machine with this terminal as its console.
    pub fn interact(&self) -> Result<()> {
        run(self
            .qemu()
            .arg("-nographic")
            .args(["-serial", "mon:stdio"])
            .args(self.report_port("null"))
            .stdin(Stdio::inherit()))
    }

    fn qemu(&self) -> Command {
        // Whatever ends this process ends the machine.
        let mut qemu = command("setpriv");
        let architecture = self.kernel.architecture;
        qemu.args(["--pdeathsig", "KILL"]).arg(self.program());
        // Emulated on purpose: it works everywhere, also where /dev/kvm is there and does not.
        if self.counts {
            qemu.args(["-accel", "tcg,thread=single"])
                .args(["-icount", "shift=0,sleep=off"]);
        } else {
            qemu.args(["-accel", "tcg,thread=multi"]);
        }
        qemu.args(match architecture {
            Architecture::Amd64 if self.counts => &["-cpu", "max"][..],
            // Without its string instructions for bytes, of which QEMU makes a loop, the kernel copies by words.
            Architecture::Amd64 => &["-cpu", "max,-erms,-fsrm"],
            // One that signs no pointers, which takes QEMU long.
            Architecture::Arm64 => &["-machine", "virt", "-cpu", "cortex-a72"],
        });
        qemu.args(["-smp", &self.cpus.to_string()])
            .args(["-m", "2048", "-nodefaults", "-no-reboot"])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(&self.archive)
            .arg("-append")
            // Warnings are shown, for they fail the run; a panic ends QEMU.
            .arg(format!(
                "console={} loglevel=5 oops=panic panic=-1 {} {}",
                console(architecture),
                self.parameters,
                self.kernel.parameters
            ));
        qemu
    }

    /// The QEMU to start. Instructions are counted by the one that is installed, as those written down were: others
    /// count otherwise (10.0 some thousand more for a close), and one thread translates without a race.
    fn program(&self) -> PathBuf {
        let name = program(self.kernel.architecture);
        let newer = if self.counts { None } else { tool(&name) };
        newer.unwrap_or_else(|| name.into())
    }

    /// What the second serial port leads to.
    fn report_port(&self, to: &str) -> [String; 4] {
        let device = match self.kernel.architecture {
            Architecture::Amd64 => "isa-serial",
            // The board has one port of its own.
            Architecture::Arm64 => "pci-serial",
        };
        let device = format!("{device},chardev=report");
        ["-chardev", &format!("{to},id=report"), "-device", &device].map(str::to_owned)
    }
}

/// What emulates a machine.
pub(crate) fn program(architecture: Architecture) -> String {
    format!("qemu-system-{}", architecture.name())
}

/// What the kernel calls the first serial port.
fn console(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Amd64 => "ttyS0",
        Architecture::Arm64 => "ttyAMA0",
    }
}

/// What the kernel calls the second serial port.
fn report(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Amd64 => "ttyS1",
        Architecture::Arm64 => "ttyS0",
    }
}

/// Names the serial ports in a file for a machine: the first, its console, is `@CONSOLE@` there and the second
/// `@REPORT@`.
pub(crate) fn with_ports(text: &str, architecture: Architecture) -> String {
    text.replace("@CONSOLE@", console(architecture))
        .replace("@REPORT@", report(architecture))
}

/// What a machine reported at its end.
#[derive(Debug)]
pub struct Report {
    /// The exit code of its work.
    pub code: i32,
    /// What it left besides.
    pub summary: String,
    /// How often it was booted before and did not come up.
    booted_in_vain: u64,
}

impl Report {
    fn parse(text: &str) -> Result<Self> {
        let (code, summary) = text
            .split_once('\n')
            .context("the machine ended before its work did; its console is above")?;
        let code = code.trim();
        Ok(Self {
            code: code
                .parse()
                .with_context(|| format!("its work ended by {code:?}, not by an exit code"))?,
            summary: summary.to_owned(),
            booted_in_vain: 0,
        })
    }

    /// What the tests found, if that explains the exit code.
    pub fn scenarios(&self) -> Result<Scenarios> {
        let code = self.code;
        let mut scenarios = Scenarios::parse(&self.summary)
            .with_context(|| format!("the tests ended with exit code {code}"))?;
        scenarios.booted_in_vain = self.booted_in_vain;
        if code != 0 && scenarios.failed == 0 {
            bail!("the tests failed with exit code {code}, though no pair did");
        }
        Ok(scenarios)
    }
}

/// Runs the machine to its end, showing its console; what the kernel complained about.
fn watch(qemu: &mut Command, label: &str, limit: Duration) -> Result<Vec<String>> {
    let mut child = qemu.stdout(Stdio::piped()).spawn().context("start QEMU")?;
    let console = lines(child.stdout.take().context("the console is a pipe")?);
    let result = follow(&console, label, limit);
    if result.is_err() {
        child.kill()?;
    }
    child.wait().context("wait for QEMU")?;
    result
}

fn follow(console: &Receiver<String>, label: &str, limit: Duration) -> Result<Vec<String>> {
    let start = Instant::now();
    let mut troubles = Vec::new();
    while start.elapsed() < limit {
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
        limit.as_secs() / 60
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
    // Since 6.19 a warning names its place first, and the CPU after it.
    let is_warning = text.starts_with("WARNING: ");
    time.trim().parse::<f64>().is_ok()
        && (is_warning || TROUBLES.iter().any(|words| text.contains(words)))
}

/// Words of the kernel's, wherever in a line, for something that broke. They are of Linux 6.1 to 7.3.
const TROUBLES: [&str; 8] = [
    "Kernel panic",
    "BUG:",
    "Oops:",
    "UBSAN:",
    "soft lockup",
    "general protection fault",
    // Of RCU, and of tasks that hang.
    "detected stall",
    "blocked for more than",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_of_the_kernel_are_seen_and_words_of_tests_are_not() {
        for line in [
            "[    1.798159] Kernel panic - not syncing: VFS: Unable to mount root fs",
            "[   40.000001] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [scenarios:90]",
            "[    2.5] WARNING: CPU: 0 PID: 70 at kernel/bpf/verifier.c:1 x+0x1/0x2",
            "[    2.5] WARNING: kernel/bpf/verifier.c:1 at x+0x1/0x2, CPU#0: scenarios/70",
            "[   60.0] rcu: INFO: rcu_preempt self-detected stall on CPU",
            "[  242.0] INFO: task scenarios:90 blocked for more than 120 seconds.",
        ] {
            assert!(is_trouble(line), "{line}");
        }
        for line in [
            "BUG: an assertion of a test",
            "[   12.000000] TCP: request_sock_TCP: Possible SYN flooding on port 1",
            "[kprobe] WARNING: CPU time is not measured",
            "[    0.1] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on",
        ] {
            assert!(!is_trouble(line), "{line}");
        }
    }

    #[test]
    fn report_has_exit_code_and_summary() {
        let summary = "{\"passed\":3,\"failed\":1,\"not_run\":0,\"pairs\":[]}\r\n";
        let report = Report::parse(&format!("1\r\n{summary}")).unwrap();
        let scenarios = report.scenarios().unwrap();
        assert_eq!((scenarios.passed, scenarios.failed), (3, 1));
    }

    #[test]
    fn report_that_does_not_prove_success_is_an_error() {
        let no_failure = "{\"passed\":3,\"failed\":0,\"not_run\":0,\"pairs\":[]}";
        for report in ["", "0\n", "100\n", "KILL\n", &format!("139\n{no_failure}")] {
            let scenarios = Report::parse(report).and_then(|report| report.scenarios());
            assert!(scenarios.is_err(), "{report}");
        }
    }
}
