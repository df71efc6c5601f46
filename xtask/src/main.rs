//! The project's own commands: build, run, test and measure linger.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use linger_xtask::architecture::Architecture;
use linger_xtask::kernels::{self, Entry, Kernel, NEWEST, NEWEST_ARM64};
use linger_xtask::setup::{self, Purpose};
use linger_xtask::tally::Scenarios;
use linger_xtask::vm::{self, Selection};
use linger_xtask::{artifacts, fuzz, mutate, package, release, reproduce, shell, systemd, test};

/// Builds, runs, tests and measures linger.
///
/// On a fresh Debian 12 machine with Rust from rustup, as root, `cargo xtask run` shows the daemon
/// at work, and `cargo xtask test` proves it. Both install what they need, and say what and why.
/// Elsewhere they say what you have to install by hand.
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
  cargo xtask check                      what every change should pass, in minutes
  cargo xtask test                       every check and test, natively and on all kernels
  cargo xtask test --filter clippy       only the steps whose name contains `clippy`
  cargo xtask test --mutate              whether the scenarios notice when the kernel side is broken
  cargo xtask vm --list                  the available kernels
  cargo xtask vm 6.12 --test linger0     some scenarios on one kernel
  cargo xtask vm 6.12 --append preempt=full
                                         with additional kernel parameters
  cargo xtask vm 6.1 --shell             a shell on that kernel, with lingerd in it
  cargo xtask vm --systemd               services, templates and user scopes, under systemd
  cargo xtask vm --systemd --put ./x.service:/etc/systemd/system/x.service --unit x.service
                                         your own service, until it ends
  cargo xtask package                    the Debian package, and a tarball
  cargo xtask package --arch arm64       the same for arm64
  cargo xtask package --twice            and check that a second build elsewhere is the same
  cargo xtask package --release          everything in a release
  cargo xtask package --test             and test that it installs, runs, upgrades and is removed without a trace
  cargo xtask docs                       the pages in docs, as a book
  cargo xtask fuzz request --seconds 600 requests that no client would send
  cargo xtask lab stack                  a lingerd, a Prometheus that scrapes it, and closes to look at
  cargo xtask lab bench                  what lingerd costs on this machine, beside its peers
  cargo xtask lab gate                   whether a close costs more instructions than recorded";

#[derive(Subcommand)]
enum Task {
    /// Install what building or testing needs; quick if everything is installed
    ///
    /// Debian packages are installed as root by apt-get; everything else goes to a cache, which serves
    /// every checkout: `$LINGER_CACHE`, or else `linger` in `$XDG_CACHE_HOME` or `~/.cache`.
    Setup {
        /// What to prepare the machine for
        #[arg(long = "for", value_enum, default_value_t = Purpose::Build)]
        purpose: Purpose,
    },
    /// Build the daemon and run it in the foreground: `lingerd run ARGS...`
    Run {
        /// Options for `lingerd run`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run what every change should pass: format, clippy, unit tests, scenarios here and on 6.12
    Check(test::Options),
    /// Run every check and test, then sum up
    ///
    /// Runs in stages, each of which starts only if the previous one passed. The last line is
    /// `N passed, N failed`, with `, N skipped` if any were; the exit code is not 0 if anything failed.
    Test {
        /// Only the steps, or mutations, whose name contains this
        #[arg(long, default_value = "")]
        filter: String,
        /// Instead, break the kernel side on purpose: each breakage must make a scenario fail
        #[arg(long, conflicts_with_all = ["full", "seed"])]
        mutate: bool,
        #[command(flatten)]
        options: test::Options,
    },
    /// Run one step of `test`, and write its result to a file
    #[command(hide = true)]
    Step {
        /// The name of the step
        name: String,
        /// The file to write the result to
        #[arg(long)]
        report: PathBuf,
        #[command(flatten)]
        options: test::Options,
    },
    /// Run the scenario tests on Debian's kernels in QEMU, or get a shell there
    ///
    /// The machine is emulated, so this works without KVM. It is a small Debian 12; with --systemd, systemd
    /// boots it, and the tests are those that distinguish closes by unit.
    Vm(OnKernels),
    /// Build the Debian package and the tarball for other distributions
    ///
    /// They go to target/package, which is emptied first; --release builds those of all architectures.
    /// Lintian must find neither errors nor warnings in the package.
    Package(Packaging),
    /// Build the pages in docs into a book with a table of contents and search: target/book/index.html
    Docs,
    /// Fuzz the parsers of input
    ///
    /// Uses libFuzzer, guided by coverage. Stops at the first input that breaks something, and keeps it in
    /// target/fuzz/found.
    Fuzz(fuzz::Options),
    /// Measure and draw: bench, gate, scale, cookbook, dashboards, stack; see `cargo xtask lab --help`
    #[command(disable_help_flag = true)]
    Lab {
        /// A command of the lab, and its options
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// Options of `cargo xtask vm`.
#[derive(Args)]
struct OnKernels {
    /// A kernel of the table (see --list), or the path of a vmlinuz [default: 6.12]
    #[arg(value_parser = parse_kernel)]
    kernel: Option<Which>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    systemd: systemd::Options,
    /// Open an interactive shell instead of running the tests
    #[arg(long, conflicts_with_all = ["filter", "plan", "unit"])]
    shell: bool,
    /// Additional parameters for the kernel's command line
    #[arg(long, value_name = "PARAMETERS", default_value = "")]
    append: String,
    /// List the table of kernels
    #[arg(long)]
    list: bool,
}

/// Options of `cargo xtask package`.
#[derive(Args)]
struct Packaging {
    /// The architecture to build for [default: this machine's]
    #[arg(long = "arch", value_enum, value_name = "ARCHITECTURE")]
    architecture: Option<Architecture>,
    /// Also install, upgrade, remove and purge it, on a Debian 12 in QEMU
    #[arg(long)]
    test: bool,
    /// Also build them from a clone in another folder, and fail if a bit differs
    #[arg(long)]
    twice: bool,
    /// Build everything in a release, for both architectures: also rpm packages, an image, and a bill of materials
    #[arg(long, conflicts_with_all = ["architecture", "test", "twice"])]
    release: bool,
    /// The kernel for that test: one of the table, or the path of a vmlinuz
    #[arg(value_parser = parse_kernel, requires = "test")]
    kernel: Option<Which>,
}

/// A kernel as named on the command line. One of the table is looked up only after setup has unpacked it.
#[derive(Clone)]
enum Which {
    Listed(&'static Entry),
    Image(Kernel),
}

impl Which {
    fn architecture(&self) -> Architecture {
        match self {
            Self::Listed(entry) => entry.architecture,
            Self::Image(kernel) => kernel.architecture,
        }
    }

    fn kernel(self) -> Result<Kernel> {
        match self {
            Self::Listed(entry) => Kernel::of_label(entry.label),
            Self::Image(kernel) => Ok(kernel),
        }
    }
}

fn parse_kernel(text: &str) -> Result<Which> {
    match Entry::of(text) {
        Some(entry) => Ok(Which::Listed(entry)),
        None => Kernel::of_image(Path::new(text))
            .map(Which::Image)
            .context("neither in the table (see `cargo xtask vm --list`) nor a file"),
    }
}

fn main() -> ExitCode {
    shell::exit_code(perform(Cli::parse().command))
}

/// Performs the task; returns whether everything passed.
fn perform(task: Task) -> Result<bool> {
    match task {
        Task::Setup { purpose } => setup::ensure(purpose).map(|()| true),
        Task::Run { args } => run(args).map(|()| true),
        Task::Check(options) => test::check(&options),
        Task::Test {
            filter,
            mutate: true,
            ..
        } => {
            setup::ensure(Purpose::Test)?;
            mutate::run_all(&filter)
        }
        Task::Test {
            filter, options, ..
        } => test::run_all(&filter, &options),
        Task::Step {
            name,
            report,
            options,
        } => test::perform_here(&name, &report, &options).map(|()| true),
        Task::Vm(options) => on_kernels(options),
        Task::Package(options) => package(options),
        Task::Docs => docs().map(|()| true),
        Task::Fuzz(options) => {
            setup::ensure(Purpose::Fuzz)?;
            fuzz::fuzz(&options).map(|()| true)
        }
        Task::Lab { args } => lab(&args),
    }
}

/// Makes the packages and, if asked to, tests them on a kernel of their architecture.
fn package(options: Packaging) -> Result<bool> {
    if options.release {
        setup::ensure(Purpose::Release)?;
        return release::make().map(|()| true);
    }
    let architecture = options.architecture.unwrap_or(Architecture::here());
    setup::ensure(match architecture {
        _ if options.test => Purpose::test_on(architecture),
        Architecture::Arm64 => Purpose::PackageArm64,
        Architecture::Amd64 => Purpose::Package,
    })?;
    let made = package::make(architecture)?;
    if options.twice {
        reproduce::compare(architecture)?;
    }
    if !options.test {
        return Ok(true);
    }
    let newest = match architecture {
        Architecture::Amd64 => NEWEST,
        Architecture::Arm64 => NEWEST_ARM64,
    };
    let kernel = options.kernel.map(Which::kernel);
    let kernel = kernel.unwrap_or_else(|| Kernel::of_label(newest))?;
    if kernel.architecture != architecture {
        bail!(
            "{} is not a kernel of {}",
            kernel.label,
            architecture.debian()
        );
    }
    Ok(report("package", &package::test(&kernel, &made)?))
}

/// Builds the book.
fn docs() -> Result<()> {
    setup::ensure(Purpose::Docs)?;
    shell::run(shell::command(shell::tools().join("mdbook")).args(["build", "docs"]))?;
    println!("{}", shell::root().join("target/book/index.html").display());
    Ok(())
}

/// Replaces this process with the laboratory, built first.
fn lab(args: &[OsString]) -> Result<bool> {
    let error = shell::lab().args(args).stdin(Stdio::inherit()).exec();
    Err(error).context("start cargo")
}

/// Builds the daemon and replaces this process with it, so that signals reach it.
fn run(args: Vec<OsString>) -> Result<()> {
    setup::ensure(Purpose::Build)?;
    let lingerd = artifacts::lingerd(Architecture::here())?;
    setup::mount_tracefs()?;
    // Keeps the working directory, since paths among the arguments are relative to it.
    let error = Command::new(&lingerd).arg("run").args(args).exec();
    Err(error).with_context(|| format!("start {}", lingerd.display()))
}

/// Runs the scenarios, the tests of units, a unit or a shell on kernels; returns whether everything passed.
fn on_kernels(options: OnKernels) -> Result<bool> {
    if options.list {
        kernels::print_table();
        return Ok(true);
    }
    let architecture = options.kernel.as_ref().map(Which::architecture);
    setup::ensure(architecture.map_or(Purpose::Test, Purpose::test_on))?;
    let kernel = options.kernel.map(Which::kernel);
    let kernel = kernel.unwrap_or_else(|| Kernel::of_label(NEWEST))?;
    let kernel = kernel.with_parameters(&options.append);
    let systemd = &options.systemd;
    if options.shell {
        let lingerd = artifacts::lingerd(kernel.architecture)?;
        let ended = if systemd.systemd {
            systemd::shell(&kernel, &lingerd, systemd)
        } else {
            vm::shell(&kernel, &lingerd)
        };
        return ended.map(|()| true);
    }
    if let Some(unit) = &systemd.unit {
        return systemd::run_unit(&kernel, unit, systemd);
    }
    let built = artifacts::executables(kernel.architecture)?;
    if systemd.systemd {
        let scenarios = systemd::run_tests(&kernel, &built, &options.selection, systemd)?;
        return Ok(report("units under systemd", &scenarios));
    }
    let scenarios = vm::run_scenarios(&kernel, &built, &options.selection)?;
    Ok(report(&format!("kernel {}", kernel.label), &scenarios))
}

/// Prints the results; returns whether nothing failed.
fn report(name: &str, scenarios: &Scenarios) -> bool {
    test::describe(name, scenarios);
    println!("\n{}", scenarios.tally());
    scenarios.failed == 0
}
