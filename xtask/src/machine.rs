//! Boots a kernel in a QEMU machine, and reads its report when it has ended.

mod console;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::architecture::Architecture;
use crate::kernels::Kernel;
use crate::shell::{command, run, tool};
use crate::tally::Scenarios;

/// The report of a machine whose first process runs.
const UP: &str = "up";

/// A machine to boot. Its console is the first serial port. It writes its report to the second: that it is up, the exit
/// code of its work and, from the next line on, the summary written by the tests.
pub struct Machine<'a> {
    kernel: &'a Kernel,
    /// The initramfs, which is the whole file system.
    archive: PathBuf,
    /// Parameters for the kernel's command line.
    parameters: String,
    /// Time after which the machine is considered to hang.
    limit: Duration,
    cpus: u32,
    /// Whether its clock counts instructions.
    counts: bool,
}

impl<'a> Machine<'a> {
    /// A machine with this kernel and file system; `parameters` are added to the kernel's command line.
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

    /// The same machine with this number of CPUs and a clock that counts instructions: a nanosecond is an instruction,
    /// on any CPU, and neither load on the host nor waiting adds any.
    pub fn counting_instructions(self, cpus: u32) -> Self {
        Self {
            cpus,
            counts: true,
            ..self
        }
    }

    /// Runs the machine until it ends, prints its console, and returns its report. A machine that never came up has
    /// tested nothing, and is booted once more.
    ///
    /// Fails if the machine did not end in an orderly way or the kernel reported a fault. Failed tests are part of the
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

    /// Returns the machine's report, or `None` if it never came up.
    fn run_once(&self) -> Result<Option<Report>> {
        let file = self.archive.with_extension("report");
        // Must not be taken from an earlier run.
        fs::write(&file, "").with_context(|| format!("write {}", file.display()))?;
        let mut qemu = self.qemu();
        qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
            .args(self.report_port(&format!("file,path={}", file.display())));
        let is_up = || fs::read(&file).is_ok_and(|report| report.starts_with(UP.as_bytes()));
        let troubles = console::watch(&mut qemu, &self.kernel.label, self.limit, is_up)?;
        let report = fs::read_to_string(&file)?;
        let (Some(troubles), Some(report)) = (troubles, report.strip_prefix(UP)) else {
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
        // The machine ends with this process, however that ends.
        let mut qemu = command("setpriv");
        let architecture = self.kernel.architecture;
        qemu.args(["--pdeathsig", "KILL"]).arg(self.program());
        // Always emulated, which works everywhere, also where /dev/kvm exists but does not work.
        if self.counts {
            qemu.args(["-accel", "tcg,thread=single"])
                .args(["-icount", "shift=0,sleep=off"]);
        } else {
            qemu.args(["-accel", "tcg,thread=multi"]);
        }
        qemu.args(match architecture {
            Architecture::Amd64 if self.counts => &["-cpu", "max"][..],
            // Without ERMS and FSRM the kernel copies by words; QEMU executes string instructions for bytes as a loop.
            Architecture::Amd64 => &["-cpu", "max,-erms,-fsrm"],
            // A CPU without pointer authentication, which is slow under QEMU.
            Architecture::Arm64 => &["-machine", "virt", "-cpu", "cortex-a72"],
        });
        qemu.args(["-smp", &self.cpus.to_string()])
            .args(["-m", "2048", "-nodefaults", "-no-reboot"])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(&self.archive)
            .arg("-append")
            // Shows warnings, since they fail the run; a panic ends QEMU.
            .arg(format!(
                "console={} loglevel=5 oops=panic panic=-1 {} {}",
                console(architecture),
                self.parameters,
                self.kernel.parameters
            ));
        qemu
    }

    /// Returns the QEMU to start. To count instructions it is the installed one, as for the recorded counts: other
    /// versions count differently (10.0 some thousand more for a close), and a single thread translates without a race.
    fn program(&self) -> PathBuf {
        let name = qemu_name(self.kernel.architecture);
        let newer = if self.counts { None } else { tool(&name) };
        newer.unwrap_or_else(|| name.into())
    }

    /// Returns the options that connect the second serial port to `to`.
    fn report_port(&self, to: &str) -> [String; 4] {
        let device = match self.kernel.architecture {
            Architecture::Amd64 => "isa-serial",
            // The board has only one port.
            Architecture::Arm64 => "pci-serial",
        };
        let device = format!("{device},chardev=report");
        ["-chardev", &format!("{to},id=report"), "-device", &device].map(str::to_owned)
    }
}

/// Returns the name of the QEMU program for an architecture.
pub(crate) fn qemu_name(architecture: Architecture) -> String {
    format!("qemu-system-{}", architecture.name())
}

/// Returns the kernel's name of the first serial port.
fn console(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Amd64 => "ttyS0",
        Architecture::Arm64 => "ttyAMA0",
    }
}

/// Returns the kernel's name of the second serial port.
fn report(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Amd64 => "ttyS1",
        Architecture::Arm64 => "ttyS0",
    }
}

/// Fills in the names of the serial ports in a file for a machine: `@CONSOLE@` is the first, its console, and
/// `@REPORT@` the second.
pub(crate) fn with_ports(text: &str, architecture: Architecture) -> String {
    text.replace("@CONSOLE@", console(architecture))
        .replace("@REPORT@", report(architecture))
}

/// The report of a machine.
#[derive(Debug)]
pub struct Report {
    /// The exit code of its work.
    pub code: i32,
    /// The summary written by the tests.
    pub summary: String,
    /// Number of earlier boots that did not come up.
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

    /// Returns the results of the tests. Fails if they do not explain the exit code.
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

#[cfg(test)]
mod tests {
    use super::*;

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
