//! Boots a Debian with systemd in QEMU to run a unit there.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::artifacts::Executables;
use crate::kernels::Kernel;
use crate::machine::{self, Machine, Report};
use crate::overlay::{Overlay, Put};
use crate::tally::Scenarios;
use crate::vm::Selection;

/// Time limit of a machine. Booting and testing take two minutes under emulation, six on a busy host.
const TIME_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Kernel parameters: systemd as the first process. Failures during the boot are shown, without colours; there is no
/// getty, since the console belongs to the unit.
const PARAMETERS: &str = "rdinit=/lib/systemd/systemd TERM=dumb systemd.show_status=error \
                          systemd.getty_auto=no systemd.mask=proc-sys-fs-binfmt_misc.automount";

/// Drop-in that makes a unit the machine's work: it owns the console, and when it ends, its result goes to the second
/// serial port and the machine powers off.
const DROP_IN: &str = include_str!("systemd/work.conf");
/// The unit that runs the tests of units and packages.
const TESTS: &str = "linger-test.service";
const TEST_UNIT: &str = include_str!("systemd/linger-test.service");
/// The unit that opens a shell on the console.
const SHELL_UNIT: &str = include_str!("systemd/linger-shell.service");

/// What to run there.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Boot a Debian 12 with systemd, and run the tests that need it
    #[arg(long)]
    pub systemd: bool,
    /// Run this service in that machine, instead of the tests
    #[arg(long, requires = "systemd", conflicts_with_all = ["filter", "plan"])]
    pub unit: Option<String>,
    /// Put a file into that machine; may be given several times
    #[arg(long = "put", value_name = "FILE:PLACE", requires = "systemd")]
    puts: Vec<Put>,
}

/// A unit to run on a machine, and the files it needs.
struct Job<'a> {
    kernel: &'a Kernel,
    unit: &'a str,
    overlay: Overlay,
}

impl<'a> Job<'a> {
    /// Prepares to run this service after the boot. It must be installed in the machine or be among `puts`.
    fn new(kernel: &'a Kernel, unit: &'a str, puts: &[Put]) -> Result<Self> {
        let overlay = Overlay::new(kernel)?;
        let drop_in = machine::with_ports(DROP_IN, kernel.architecture);
        overlay.write(&format!("/etc/systemd/system/{unit}.d/work.conf"), &drop_in)?;
        for put in puts {
            overlay.put(put)?;
        }
        Ok(Self {
            kernel,
            unit,
            overlay,
        })
    }

    /// Boots, runs the unit to its end, and shows what it prints.
    fn run(&self) -> Result<Report> {
        self.machine()?.run()
    }

    /// Boots, runs the tests with these arguments, and returns their results.
    fn run_tests(&self, tests: &Path, arguments: &[String]) -> Result<Scenarios> {
        self.overlay.put_program(tests, "linger-test")?;
        let unit = TEST_UNIT.replace("@ARGUMENTS@", &arguments.join(" "));
        self.overlay
            .write(&format!("/etc/systemd/system/{TESTS}"), &unit)?;
        self.run()?.scenarios()
    }

    /// Returns whether the machine has the file of the service, or of the template it is an instance of.
    fn has_unit(&self) -> bool {
        let file = match self.unit.split_once('@') {
            Some((template, _)) => format!("{template}@.service"),
            None => self.unit.to_owned(),
        };
        let has = |folder| self.overlay.has(&format!("{folder}/systemd/system/{file}"));
        self.unit.ends_with(".service") && ["etc", "usr/lib"].into_iter().any(has)
    }

    fn machine(&self) -> Result<Machine<'a>> {
        if !self.has_unit() {
            // Without it, nothing would power the machine off.
            bail!(
                "that machine has no service {0}: put it there, `--put FILE:/etc/systemd/system/{0}`",
                self.unit
            );
        }
        let parameters = format!("{PARAMETERS} systemd.wants={}", self.unit);
        let archive = self.overlay.pack()?;
        Ok(Machine::new(self.kernel, archive, parameters, TIME_LIMIT))
    }
}

/// Runs the tests of units. Failed tests are not an `Err`, but part of the result.
pub fn run_tests(
    kernel: &Kernel,
    built: &Executables,
    selection: &Selection,
    options: &Options,
) -> Result<Scenarios> {
    let job = Job::new(kernel, TESTS, &options.puts)?;
    job.overlay.put_program(&built.lingerd, "lingerd")?;
    let mut arguments = ["--lingerd", "/usr/local/bin/lingerd"]
        .map(str::to_owned)
        .to_vec();
    if let Some(entry) = kernel.entry {
        arguments.push(format!("--environment={}", entry.label));
    }
    arguments.extend(selection.args());
    job.run_tests(&built.systemd, &arguments)
}

/// Runs the tests of the packages, the second being the newer one, and of the tarball. Failed tests are not an `Err`,
/// but part of the result.
pub fn run_package_tests(
    kernel: &Kernel,
    tests: &Path,
    [deb, newer]: [&Path; 2],
    tarball: &Path,
) -> Result<Scenarios> {
    let job = Job::new(kernel, TESTS, &[])?;
    let mut arguments = Vec::new();
    for (option, file) in [("--deb", deb), ("--newer", newer), ("--tarball", tarball)] {
        let name = file.file_name().context("a package has a name")?;
        let place = Path::new("/root").join(name);
        arguments.extend([option.to_owned(), place.display().to_string()]);
        job.overlay.put(&Put {
            file: file.to_owned(),
            place,
        })?;
    }
    job.run_tests(tests, &arguments)
}

/// Runs this unit; returns whether it succeeded.
pub fn run_unit(kernel: &Kernel, unit: &str, options: &Options) -> Result<bool> {
    let report = Job::new(kernel, unit, &options.puts)?.run()?;
    println!("{unit} ended with exit code {}", report.code);
    Ok(report.code == 0)
}

/// Opens a shell on a machine with lingerd installed.
pub fn shell(kernel: &Kernel, lingerd: &Path, options: &Options) -> Result<()> {
    let name = "linger-shell.service";
    let job = Job::new(kernel, name, &options.puts)?;
    job.overlay.put_program(lingerd, "lingerd")?;
    job.overlay
        .write(&format!("/etc/systemd/system/{name}"), SHELL_UNIT)?;
    job.machine()?.interact()
}
