//! The list of steps.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Options;
use super::step::{Extent, Findings, Stage, Step};
use super::unit;
use crate::architecture::Architecture;
use crate::artifacts;
use crate::fuzz;
use crate::kernels::{Entry, Kernel, NEWEST, NEWEST_ARM64, PLANS, TABLE};
use crate::oldest;
use crate::package;
use crate::reproduce;
use crate::setup;
use crate::shell::{self, cargo, command, output, root, run, tools};
use crate::systemd;
use crate::tally::{Scenarios, Tally};
use crate::vm::{self, Scope, Selection};

/// Closes of the load scenarios on this host.
const LOAD: &str = "100000";
/// The same with `--full`.
const FULL_LOAD: &str = "1000000";

/// Time to fuzz each target with `--full`, seconds.
const FUZZING: u32 = 600;

/// All targets, in two parts: `--all-targets` leaves out the tests that only run by name, and beside `--tests` cargo
/// ignores names.
const TARGETS: [&[&str]; 2] = [
    &["--lib", "--bins", "--tests", "--benches", "--examples"],
    &["--test", "scenarios", "--test", "systemd"],
];

/// The plan of the first scenarios, among them those that depend on the plan alone. By `tracepoint` they run here; and
/// `kprobe` differs from this plan by its hooks, which scenarios on each kernel test.
const FIRST: &str = "fentry";

/// Returns all steps. Among those that run concurrently, the longest come first.
pub(super) fn all() -> Vec<Step> {
    use Extent::{Everyday, Full, Usual};
    use Stage::{First, Form, Rest, Unit};
    let mut steps = vec![
        checked("format", Form, Everyday, format),
        checked("clippy", Form, Everyday, clippy),
        checked("clippy of the kernel side", Form, Everyday, clippy_bpf),
        checked("documentation", Form, Usual, documentation),
        checked("arm64", Form, Usual, artifacts::check_arm64),
        checked("oldest compiler", Form, Full, || {
            TARGETS.into_iter().try_for_each(oldest::check)
        }),
        checked("licences", Form, Usual, licences),
        counted("unit tests", Unit, Everyday, |_| unit::run()),
        checked("lingerd", Unit, Everyday, || {
            artifacts::lingerd(Architecture::here()).map(drop)
        }),
        Step {
            alone: true,
            ..counted("siege", Unit, Usual, |_| unit::run_siege())
        },
        counted("scenarios here", First, Everyday, scenarios_here),
        on_kernel(NEWEST, FIRST, First, Everyday, Scope::Plan),
        counted("package", Rest, Usual, package_on_kernels),
        checked("gate", Rest, Usual, || lab(&["gate"])),
    ];
    // The newest kernels take longest to verify the programs.
    for entry in TABLE.iter().rev() {
        if entry.is_refused {
            let extent = match entry.architecture {
                Architecture::Amd64 => Usual,
                Architecture::Arm64 => Full,
            };
            let name = format!("refusal on {}", entry.label);
            steps.push(checked(name, Rest, extent, || refusal(entry)));
            continue;
        }
        let others = PLANS
            .iter()
            .filter(|plan| (entry.label, **plan) != (NEWEST, FIRST));
        steps.extend(others.map(|plan| {
            let extent = if entry.plans.contains(plan) {
                Usual
            } else {
                Full
            };
            on_kernel(entry.label, plan, Rest, extent, Scope::Kernel)
        }));
    }
    steps.extend([
        counted("units under systemd", Rest, Usual, units),
        Step {
            alone: true,
            ..checked("bench", Rest, Full, || lab(&["bench"]))
        },
        Step {
            alone: true,
            ..checked("scale", Rest, Full, || lab(&["scale"]))
        },
        Step {
            // Writes to the same folder as the step "package".
            alone: true,
            ..checked("reproducible", Rest, Full, || {
                package::make(Architecture::here())?;
                reproduce::compare(Architecture::here())
            })
        },
        checked("cookbook", Rest, Full, || {
            lab(&["cookbook", "--into", "target/cookbook"])
        }),
        checked("fuzzing", Rest, Full, || {
            fuzz::fuzz(&fuzz::Options::all(FUZZING))
        }),
    ]);
    steps
}

/// Runs a command of the laboratory.
fn lab(args: &[&str]) -> Result<()> {
    run(shell::lab().args(args))
}

/// A step whose work counts tests.
fn counted(
    name: impl Into<String>,
    stage: Stage,
    extent: Extent,
    work: impl Fn(&Options) -> Result<Findings> + Send + Sync + 'static,
) -> Step {
    Step {
        name: name.into(),
        stage,
        extent,
        alone: false,
        work: Box::new(work),
    }
}

/// A step that counts as a single test.
fn checked(
    name: impl Into<String>,
    stage: Stage,
    extent: Extent,
    work: impl Fn() -> Result<()> + Send + Sync + 'static,
) -> Step {
    counted(name, stage, extent, move |_| {
        work().map(|()| Findings::Counted(Tally::PASSED))
    })
}

/// The step that runs the scenarios by a plan on a kernel of the table.
fn on_kernel(
    label: &'static str,
    plan: &'static str,
    stage: Stage,
    extent: Extent,
    scope: Scope,
) -> Step {
    counted(format!("{label} {plan}"), stage, extent, move |options| {
        let kernel = Kernel::of_label(label)?;
        let selection = Selection {
            plan: Some(plan.to_owned()),
            ..selection(options, scope)
        };
        let built = artifacts::executables(kernel.architecture)?;
        vm::run_scenarios(&kernel, &built, &selection).map(Findings::Scenarios)
    })
}

/// The scenarios and their seed: of this scope, or all with `--full`.
fn selection(options: &Options, scope: Scope) -> Selection {
    let scope = if options.full { Scope::Full } else { scope };
    // A full run takes another seed each time, and prints it.
    let random = options.full.then(|| "random".to_owned());
    Selection {
        scope,
        seed: options.seed.clone().or(random),
        ..Selection::default()
    }
}

fn format() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    TARGETS.into_iter().try_for_each(|targets| {
        run(cargo()
            .args(["clippy", "--workspace"])
            .args(targets)
            .args(["--", "-D", "warnings"]))
    })
}

/// Checks the BPF programs with the clippy of the compiler that builds them.
fn clippy_bpf() -> Result<()> {
    anyhow::ensure!(
        setup::has_debian_rustc(),
        "this takes Debian's rustc-web and its clippy, and something else builds the programs here"
    );
    run(cargo()
        .args(["check", "--locked", "--package", "linger-ebpf"])
        .args(["--bins", "--features", "kernel"])
        .args(["--target", "bpfel-unknown-none"])
        .args(["--target-dir", "target/bpf-clippy"])
        .env("RUSTC", setup::DEBIAN_RUSTC)
        .env("RUSTC_BOOTSTRAP", "1")
        // As in linger-ebpf/build.rs: without 32-bit operations inline assembly cannot name their registers.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-cpu=v3")
        .env("RUSTC_WORKSPACE_WRAPPER", tools().join("bpf-clippy-driver"))
        .env("CLIPPY_ARGS", "-Dwarnings"))
}

fn documentation() -> Result<()> {
    run(cargo()
        .args(["doc", "--no-deps", "--workspace"])
        .env("RUSTDOCFLAGS", "-Dwarnings"))
}

fn licences() -> Result<()> {
    run(command(tools().join("cargo-deny")).args(["check", "licenses", "bans", "sources"]))
}

fn scenarios_here(options: &Options) -> Result<Findings> {
    let built = artifacts::executables(Architecture::here())?;
    let summary = root().join("target/scenarios.json");
    if summary.exists() {
        fs::remove_file(&summary)?;
    }
    let load = if options.full { FULL_LOAD } else { LOAD };
    let lingerd = copied(&built.lingerd)?;
    let result = run(command(built.scenarios)
        .args(["--environment", environment_here(&lingerd)?])
        .arg("--lingerd")
        .arg(lingerd)
        .args(["--load", load])
        .arg("--summary")
        .arg(&summary)
        .args(selection(options, Scope::Standard).args())
        .env("PATH", path_with_tools()?));
    let scenarios = fs::read_to_string(&summary)
        .map_err(Into::into)
        .and_then(|json| Scenarios::parse(&json));
    // Failed pairs are findings; any other failure is an error.
    if let Err(error) = result
        && !scenarios.as_ref().is_ok_and(|found| found.failed > 0)
    {
        return Err(error);
    }
    scenarios.map(Findings::Scenarios)
}

/// Returns the name of this host in `expected.toml`, by whether its kernel lets functions be traced.
fn environment_here(lingerd: &Path) -> Result<&'static str> {
    let report = output(command(lingerd).args(["check", "--json"]))?;
    let report: Value = serde_json::from_str(&report)?;
    let plans = report["plans"].as_array();
    let mut plans = plans.context("lingerd check lists plans")?.iter();
    let traces = plans.any(|plan| plan["plan"] == "fentry" && plan["usable"] == true);
    Ok(if traces { "host" } else { "native" })
}

/// Copies the daemon: a step that builds packages meanwhile replaces cargo's file by a static binary for a time.
fn copied(lingerd: &Path) -> Result<PathBuf> {
    let folder = root().join("target/test/native");
    fs::create_dir_all(&folder)?;
    let copy = folder.join("lingerd");
    // A daemon that still runs from it keeps it.
    if copy.exists() {
        fs::remove_file(&copy)?;
    }
    fs::copy(lingerd, &copy)?;
    Ok(copy)
}

/// Checks that lingerd refuses, in one line, to run on a kernel that is too old.
fn refusal(entry: &Entry) -> Result<()> {
    const WORK: &str = "told=$(timeout 60 lingerd run 2>&1) && finish 1\n\
                        echo \"$told\"\n\
                        test \"$told\" = \"lingerd: this kernel is too old: lingerd needs Linux 5.15 or later\"";
    let kernel = Kernel::of_label(entry.label)?;
    let lingerd = artifacts::lingerd(kernel.architecture)?;
    let report = vm::boot(&kernel, &[(&lingerd, "lingerd")], WORK, |machine| {
        machine.run()
    })?;
    anyhow::ensure!(
        report.code == 0,
        "lingerd does not say that {} is too old",
        entry.label
    );
    Ok(())
}

fn path_with_tools() -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths(
        std::iter::once(tools()).chain(env::split_paths(&path)),
    )?)
}

fn units(_: &Options) -> Result<Findings> {
    systemd::run_tests(
        &Kernel::of_label(NEWEST)?,
        &artifacts::executables(Architecture::here())?,
        &Selection::default(),
        &systemd::Options::default(),
    )
    .map(Findings::Scenarios)
}

/// Tests the package on [`NEWEST`]; with `--full`, on both kernels of Debian 12, and the arm64 package on
/// [`NEWEST_ARM64`].
fn package_on_kernels(options: &Options) -> Result<Findings> {
    let labels: &[&str] = if options.full {
        &["6.1", NEWEST]
    } else {
        &[NEWEST]
    };
    let mut all = package_on(Architecture::here(), labels)?;
    if options.full {
        all += package_on(Architecture::Arm64, &[NEWEST_ARM64])?;
    }
    Ok(Findings::Scenarios(all))
}

fn package_on(architecture: Architecture, labels: &[&str]) -> Result<Scenarios> {
    let made = package::make(architecture)?;
    let mut all = Scenarios::default();
    for label in labels {
        all += package::test(&Kernel::of_label(label)?, &made)?;
    }
    Ok(all)
}
