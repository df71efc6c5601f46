//! The project's own commands: what it takes to build, run, test and measure linger.

mod archive;
mod artifacts;
mod bench;
mod churn;
mod cookbook;
mod dashboards;
mod debian;
mod fuzz;
mod initramfs;
mod kernels;
mod machine;
mod modules;
mod notices;
mod package;
mod scale;
mod servers;
mod setup;
mod shell;
mod stack;
mod systemd;
mod table;
mod tally;
mod test;
mod vm;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::kernels::{Kernel, NEWEST, SERIES};
use crate::setup::Purpose;
use crate::tally::{Scenarios, Tally};
use crate::vm::Selection;

/// Builds, runs, tests and measures linger.
///
/// On a fresh Debian 12 machine with Rust from rustup, as root, `cargo xtask run` shows the daemon
/// at work, and `cargo xtask test` proves it. Both install what they need, and say what and why.
/// Elsewhere they say what is to be installed by hand.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask run                        build and start lingerd in the foreground
  cargo xtask run --plan tracepoint      with options for `lingerd run`
  cargo xtask stack                      with a Prometheus beside it, and closes to look at
  cargo xtask test                       every check and test, natively and on two kernels
  cargo xtask test --filter clippy       only the steps whose name contains this
  cargo xtask vm 6.12 --test linger0     some scenarios on one kernel
  cargo xtask vm 6.1 --shell             a shell on that kernel, with lingerd in it
  cargo xtask vm --systemd               services, templates and user scopes, under systemd
  cargo xtask vm --systemd --put ./x.service:/etc/systemd/system/x.service --unit x.service
                                         a service of yours, to its end
  cargo xtask package                    the Debian package, and a tarball
  cargo xtask package --test             and whether it installs, runs, upgrades and goes without trace
  cargo xtask fuzz request --seconds 600 requests that no client would send
  cargo xtask bench                      what lingerd costs on this machine, beside its peers
  cargo xtask bench --part ledger        only what scrapes take, in time and memory
  cargo xtask scale                      what many hosts come to, for Prometheus";

#[derive(Subcommand)]
enum Task {
    /// Install what building or testing needs; quick when everything is there
    ///
    /// Debian packages are installed as root by apt-get; everything else goes to target/tools and
    /// target/vm.
    Setup {
        /// What to make the machine ready for
        #[arg(long = "for", value_enum, default_value_t = Purpose::Build)]
        purpose: Purpose,
    },
    /// Build the daemon and run it in the foreground: `lingerd run ARGS...`
    Run {
        /// Options for `lingerd run`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run every check and test, then sum up
    ///
    /// Goes on after a failure. The last line is `N passed, N failed`, with `, N skipped` if there
    /// are any; the exit code is not 0 if anything failed.
    Test {
        /// Only the steps whose name contains this
        #[arg(long, default_value = "")]
        filter: String,
    },
    /// Run the scenario tests on Debian's kernels in QEMU, or get a shell there
    ///
    /// The machine is emulated, so this works without KVM. It has nothing but a static busybox, the
    /// tests, lingerd, ip, tc and ss. With --systemd it is a small Debian 12 that systemd has booted,
    /// and the tests are those that tell closes apart by unit.
    Vm {
        /// `6.1`, `6.12`, or the path of a vmlinuz; both series if left out, 6.12 with --systemd
        #[arg(value_parser = parse_kernel)]
        kernel: Option<Which>,
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        systemd: systemd::Options,
        /// An interactive shell instead of the tests (on 6.12 if no kernel is given)
        #[arg(long, conflicts_with_all = ["filter", "plan", "unit"])]
        shell: bool,
    },
    /// Make the Debian package and the tarball for other distributions
    ///
    /// They go to target/package. Lintian must find neither error nor warning in the package.
    Package {
        /// Also install, upgrade, remove and purge it, on a Debian 12 in QEMU
        #[arg(long)]
        test: bool,
        /// What that Debian's kernel is: `6.1`, `6.12`, or the path of a vmlinuz
        #[arg(value_parser = parse_kernel, requires = "test")]
        kernel: Option<Which>,
    },
    /// Feed what parses input with what a fuzzer makes up
    ///
    /// libFuzzer, guided by the code that it reaches. Ends with the first input that breaks something,
    /// which is kept in target/fuzz/found.
    Fuzz(fuzz::Options),
    /// See dashboards and alerts at work: a lingerd, and a Prometheus with the rules that scrapes it
    ///
    /// Both run in the foreground, with closes of all kinds to look at, until Ctrl-C. Prometheus is taken
    /// out of Debian's package; nothing is installed, and no service is started.
    Stack(stack::Options),
    /// Make the dashboards for Grafana from their source
    ///
    /// They go to dashboards/, and are committed with it.
    Dashboards(dashboards::Options),
    /// Find out what many hosts come to: simulated ones, and a real Prometheus that scrapes them
    ///
    /// Series, samples, memory, processor and disk of Prometheus, the time of rules and of every query of the
    /// dashboards, and what more hosts would take.
    Scale(scale::Options),
    /// Run the cases of the cookbook, and draw what lingerd counts meanwhile into docs/cookbook
    Cookbook(cookbook::Options),
    /// Measure what lingerd costs: each close, beside its peers, and scrapes, memory and starts
    ///
    /// Takes about ten minutes, of which nothing else should be done on the machine.
    Bench(bench::Options),
    /// Part of `bench`, inside the machine that counts instructions
    #[command(hide = true)]
    Inside(bench::inside::Options),
}

/// A kernel as it is asked for: a series is only looked up once setup has brought it.
#[derive(Clone)]
enum Which {
    Series(&'static str),
    Image(Kernel),
}

impl Which {
    fn kernel(self) -> Result<Kernel> {
        match self {
            Self::Series(series) => Kernel::of_series(series),
            Self::Image(kernel) => Ok(kernel),
        }
    }
}

fn parse_kernel(text: &str) -> Result<Which> {
    match SERIES.iter().find(|series| **series == text) {
        Some(series) => Ok(Which::Series(series)),
        None => Ok(Which::Image(Kernel::of_image(Path::new(text))?)),
    }
}

fn main() -> ExitCode {
    match perform(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything passed.
fn perform(task: Task) -> Result<bool> {
    match task {
        Task::Setup { purpose } => setup::ensure(purpose).map(|()| true),
        Task::Run { args } => run(args).map(|()| true),
        Task::Test { filter } => test::run_all(&filter),
        Task::Vm {
            kernel,
            selection,
            systemd,
            shell,
        } => {
            setup::ensure(Purpose::Test)?;
            if systemd.systemd {
                under_systemd(kernel, &selection, &systemd, shell)
            } else if shell {
                vm::shell(&one(kernel)?, artifacts::lingerd()?).map(|()| true)
            } else {
                scenarios(kernel, &selection)
            }
        }
        Task::Package { test, kernel } => {
            setup::ensure(if test {
                Purpose::Test
            } else {
                Purpose::Package
            })?;
            let made = package::make()?;
            if !test {
                return Ok(true);
            }
            let scenarios = package::test(&one(kernel)?, &made)?;
            Ok(report("package", &scenarios))
        }
        Task::Fuzz(options) => {
            setup::ensure(Purpose::Build)?;
            fuzz::fuzz(&options).map(|()| true)
        }
        Task::Stack(options) => {
            setup::ensure(Purpose::Stack)?;
            stack::run(&options).map(|()| true)
        }
        Task::Dashboards(options) => dashboards::make(&options).map(|()| true),
        Task::Scale(options) => {
            setup::ensure(Purpose::Stack)?;
            setup::mount_tracefs()?;
            scale::run(&options).map(|()| true)
        }
        Task::Cookbook(options) => cookbook::draw(options).map(|()| true),
        Task::Bench(options) => {
            setup::ensure(Purpose::Bench)?;
            setup::mount_tracefs()?;
            bench::run(&options)?;
            Ok(true)
        }
        Task::Inside(options) => bench::inside::run(&options).map(|()| true),
    }
}

/// Builds the daemon and becomes it, so that signals reach it.
fn run(args: Vec<OsString>) -> Result<()> {
    setup::ensure(Purpose::Build)?;
    let lingerd = artifacts::lingerd()?;
    setup::mount_tracefs()?;
    // Not in the workspace's folder: paths among the arguments are relative to where we are.
    let error = Command::new(&lingerd).arg("run").args(args).exec();
    Err(error).with_context(|| format!("start {}", lingerd.display()))
}

/// The kernel asked for, or the newest.
fn one(kernel: Option<Which>) -> Result<Kernel> {
    kernel.unwrap_or(Which::Series(NEWEST)).kernel()
}

fn under_systemd(
    kernel: Option<Which>,
    selection: &Selection,
    options: &systemd::Options,
    shell: bool,
) -> Result<bool> {
    let kernel = one(kernel)?;
    if shell {
        return systemd::shell(&kernel, &artifacts::lingerd()?, options).map(|()| true);
    }
    if let Some(unit) = &options.unit {
        return systemd::run_unit(&kernel, unit, options);
    }
    let scenarios = systemd::run_tests(&kernel, &artifacts::executables()?, selection, options)?;
    Ok(report("units under systemd", &scenarios))
}

/// Prints what was found; whether nothing failed.
fn report(name: &str, scenarios: &Scenarios) -> bool {
    test::describe(name, scenarios);
    println!("\n{}", scenarios.tally());
    scenarios.failed == 0
}

fn scenarios(kernel: Option<Which>, selection: &Selection) -> Result<bool> {
    let built = artifacts::executables()?;
    let kernels = match kernel {
        Some(kernel) => vec![kernel],
        None => SERIES.map(Which::Series).to_vec(),
    };
    let mut total = Tally::default();
    for kernel in kernels {
        let kernel = kernel.kernel()?;
        let scenarios = vm::run_scenarios(&kernel, &built, selection)?;
        test::describe(&format!("kernel {}", kernel.label), &scenarios);
        total += scenarios.tally();
    }
    println!("\n{total}");
    Ok(total.failed == 0)
}
