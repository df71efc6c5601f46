//! Every check and test, one step after another, and a summary at the end.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::artifacts;
use crate::bench;
use crate::fuzz;
use crate::kernels::{Kernel, NEWEST, SERIES};
use crate::package;
use crate::scale;
use crate::setup::{self, Purpose};
use crate::shell::{cargo, command, each_line, output, root, run, tools};
use crate::systemd;
use crate::tally::{Scenarios, Tally};
use crate::vm::{self, Selection};

/// What a step showed.
enum Findings {
    /// Counts of tests.
    Counted(Tally),
    /// What became of each scenario with each plan.
    Scenarios(Scenarios),
}

impl Findings {
    fn tally(&self) -> Tally {
        match self {
            Self::Counted(tally) => *tally,
            Self::Scenarios(scenarios) => scenarios.tally(),
        }
    }
}

type Work = Box<dyn Fn() -> Result<Findings>>;

/// A step that was done.
struct Done {
    name: String,
    time: Duration,
    /// Nothing if the step could not even be done.
    findings: Option<Findings>,
}

impl Done {
    fn tally(&self) -> Tally {
        self.findings
            .as_ref()
            .map_or(Tally::FAILED, Findings::tally)
    }

    fn verdict(&self) -> &'static str {
        match self.tally() {
            Tally { failed: 1.., .. } => "FAILED",
            Tally { passed: 0, .. } => "not run",
            _ => "ok",
        }
    }
}

/// Does every step whose name contains `filter`, prints the summary; whether all passed.
pub(crate) fn run_all(filter: &str) -> Result<bool> {
    let steps: Vec<_> = steps()
        .into_iter()
        .filter(|(name, _)| name.contains(filter))
        .collect();
    if steps.is_empty() {
        bail!("no step's name contains {filter:?}; without --filter all are run and listed");
    }
    // Whatever is asked for needs its tools first.
    let setup: (String, Work) = (
        "setup".into(),
        checked(|| {
            setup::ensure(Purpose::Test)?;
            setup::mount_tracefs()
        }),
    );
    let count = steps.len() + 1;
    let done: Vec<Done> = std::iter::once(setup)
        .chain(steps)
        .enumerate()
        .map(|(index, (name, work))| {
            println!("\n=== step {} of {count}: {name}", index + 1);
            perform(name, &work)
        })
        .collect();
    Ok(summarize(&done))
}

fn steps() -> Vec<(String, Work)> {
    let mut steps = vec![
        ("format".into(), checked(format)),
        ("clippy".into(), checked(clippy)),
        (
            "clippy of the kernel side".into(),
            Box::new(clippy_bpf) as Work,
        ),
        ("documentation".into(), checked(documentation)),
        ("licences".into(), checked(licences)),
        ("unit tests".into(), Box::new(unit_tests)),
        (
            "fuzz, shortly".into(),
            checked(|| fuzz::fuzz(&fuzz::Options::short())),
        ),
        ("scenarios on this kernel".into(), Box::new(scenarios_here)),
    ];
    for series in SERIES {
        let work = move || {
            let kernel = Kernel::of_series(series)?;
            let built = artifacts::executables()?;
            vm::run_scenarios(&kernel, &built, &Selection::default()).map(Findings::Scenarios)
        };
        steps.push((format!("scenarios on kernel {series}"), Box::new(work)));
    }
    steps.push((
        "units under systemd".into(),
        Box::new(|| {
            let kernel = Kernel::of_series(NEWEST)?;
            let built = artifacts::executables()?;
            systemd::run_tests(
                &kernel,
                &built,
                &Selection::default(),
                &systemd::Options::default(),
            )
            .map(Findings::Scenarios)
        }),
    ));
    for series in SERIES {
        let work = move || {
            let made = package::make()?;
            package::test(&Kernel::of_series(series)?, &made).map(Findings::Scenarios)
        };
        steps.push((format!("package on kernel {series}"), Box::new(work)));
    }
    steps.push((
        "bench".into(),
        checked(|| bench::run(&bench::Options::short())),
    ));
    steps.push((
        "scale, shortly".into(),
        checked(|| scale::run(&scale::Options::short())),
    ));
    steps
}

/// A step that is itself the one thing to pass or fail.
fn checked(work: impl Fn() -> Result<()> + 'static) -> Work {
    Box::new(move || work().map(|()| Findings::Counted(Tally::PASSED)))
}

fn perform(name: String, work: &Work) -> Done {
    let start = Instant::now();
    let findings = work()
        .inspect_err(|error| println!("error: {error:#}"))
        .ok();
    let done = Done {
        name,
        time: start.elapsed(),
        findings,
    };
    println!(
        "=== {}: {}, {:.1} s",
        done.name,
        done.verdict(),
        done.time.as_secs_f64()
    );
    done
}

fn format() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

/// The programs are checked by the clippy that belongs to the compiler that builds them.
fn clippy_bpf() -> Result<Findings> {
    if !setup::has_debian_rustc() {
        println!(
            "not run: Debian's rustc-web, whose clippy this takes, does not build the programs"
        );
        return Ok(Findings::Counted(Tally {
            skipped: 1,
            ..Tally::default()
        }));
    }
    run(cargo()
        .args(["check", "--locked", "--package", "linger-ebpf"])
        .args(["--bins", "--features", "kernel"])
        .args(["--target", "bpfel-unknown-none"])
        .args(["--target-dir", "target/bpf-clippy"])
        .env("RUSTC", setup::DEBIAN_RUSTC)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC_WORKSPACE_WRAPPER", tools().join("bpf-clippy-driver"))
        .env("CLIPPY_ARGS", "-Dwarnings"))?;
    Ok(Findings::Counted(Tally::PASSED))
}

fn documentation() -> Result<()> {
    run(cargo()
        .args(["doc", "--no-deps", "--workspace"])
        .env("RUSTDOCFLAGS", "-Dwarnings"))
}

fn licences() -> Result<()> {
    run(command(tools().join("cargo-deny")).args(["check", "licenses", "bans", "sources"]))
}

/// All tests but those that are run on kernels and machines of their own.
fn unit_tests() -> Result<Findings> {
    let metadata = output(cargo().args(["metadata", "--no-deps", "--format-version=1"]))?;
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--no-fail-fast", "--lib", "--bins"]);
    // Its programs are no tests, and never end.
    tests.args(["--exclude", "linger-fuzz"]);
    for name in integration_tests(&serde_json::from_str(&metadata)?) {
        if !["scenarios", "systemd"].contains(&name.as_str()) {
            tests.args(["--test", &name]);
        }
    }
    let mut tally = counted(&mut tests)?;
    let mut examples = cargo();
    examples.args(["test", "--workspace", "--no-fail-fast", "--doc"]);
    tally += counted(examples.args(["--exclude", "linger-fuzz"]))?;
    Ok(Findings::Counted(tally))
}

/// The names of the integration tests in what `cargo metadata` prints.
fn integration_tests(metadata: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    list(&metadata["packages"])
        .iter()
        .flat_map(|package| list(&package["targets"]))
        .filter(|target| target["kind"][0] == "test")
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect()
}

/// Runs tests of cargo's harness, and adds up what they sum up.
fn counted(tests: &mut std::process::Command) -> Result<Tally> {
    let mut tally = Tally::default();
    let success = each_line(tests, |line| {
        println!("{line}");
        if let Some(counts) = Tally::of_libtest(line) {
            tally += counts;
        }
    })?;
    Ok(tally.with_exit(success))
}

fn scenarios_here() -> Result<Findings> {
    let built = artifacts::executables()?;
    let summary = root().join("target/scenarios.json");
    if summary.exists() {
        fs::remove_file(&summary)?;
    }
    let result = run(command(built.scenarios)
        .arg("--lingerd")
        .arg(built.lingerd)
        .args(["--kernel-label", "this machine"])
        .arg("--summary")
        .arg(&summary)
        .env("PATH", path_with_tools()?));
    let scenarios = fs::read_to_string(&summary)
        .map_err(Into::into)
        .and_then(|json| Scenarios::parse(&json));
    // Failed pairs are findings; any other failure leaves none.
    if let Err(error) = result
        && !scenarios.as_ref().is_ok_and(|found| found.failed > 0)
    {
        return Err(error);
    }
    scenarios.map(Findings::Scenarios)
}

fn path_with_tools() -> Result<std::ffi::OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths(
        std::iter::once(tools()).chain(env::split_paths(&path)),
    )?)
}

/// Prints what passed and what did not; whether nothing failed.
fn summarize(done: &[Done]) -> bool {
    let width = done.iter().map(|step| step.name.len()).max().unwrap_or(0);
    println!("\n=== summary");
    let mut total = Tally::default();
    for step in done {
        total += step.tally();
        println!(
            "{:width$}  {:7}  {:7.1} s  {}",
            step.name,
            step.verdict(),
            step.time.as_secs_f64(),
            step.tally()
        );
    }
    for step in done {
        if let Some(Findings::Scenarios(scenarios)) = &step.findings {
            describe(&step.name, scenarios);
        }
    }
    println!("\n{total}");
    total.failed == 0
}

/// Prints how many pairs of scenario and plan were run, and which failed or were not run.
pub(crate) fn describe(name: &str, scenarios: &Scenarios) {
    println!(
        "\n{name}: {} pairs of scenario and plan run, {} of them failed; {} not run",
        scenarios.passed + scenarios.failed,
        scenarios.failed,
        scenarios.not_run
    );
    for pair in scenarios.with_result("failed") {
        println!(
            "  failed: {} × {}: {}",
            pair.scenario, pair.plan, pair.detail
        );
    }
    // Mostly all scenarios of a plan, for one reason.
    let mut not_run: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for pair in scenarios.with_result("not run") {
        let same = not_run.entry((&pair.plan, &pair.detail)).or_default();
        same.push(&pair.scenario);
    }
    for ((plan, reason), names) in not_run {
        let names = match names.as_slice() {
            few @ ([_] | [_, _] | [_, _, _]) => few.join(", "),
            many => format!("{} scenarios", many.len()),
        };
        println!("  not run: {names} × {plan}: {reason}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(findings: Option<Findings>) -> Done {
        Done {
            name: "x".into(),
            time: Duration::ZERO,
            findings,
        }
    }

    #[test]
    fn a_step_that_broke_failed_and_one_without_tests_was_not_run() {
        assert_eq!(done(None).verdict(), "FAILED");
        assert_eq!(
            done(Some(Findings::Counted(Tally::default()))).verdict(),
            "not run"
        );
        assert_eq!(done(Some(Findings::Counted(Tally::PASSED))).verdict(), "ok");
    }

    #[test]
    fn one_failure_fails_the_whole() {
        let passed = || done(Some(Findings::Counted(Tally::PASSED)));
        assert!(summarize(&[passed(), passed()]));
        assert!(!summarize(&[passed(), done(None)]));
    }

    #[test]
    fn integration_tests_are_told_from_other_targets() {
        let metadata = serde_json::json!({ "packages": [
            { "targets": [
                { "name": "lingerd", "kind": ["bin"] },
                { "name": "scenarios", "kind": ["test"] },
            ]},
            { "targets": [{ "name": "golden", "kind": ["test"] }]},
        ]});
        assert_eq!(integration_tests(&metadata), ["scenarios", "golden"]);
    }
}
