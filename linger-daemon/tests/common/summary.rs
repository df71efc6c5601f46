//! What came of every pair of a scenario and a plan, for people and for scripts.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use linger_ebpf::Plan;
use serde::Serialize;
use serde_json::json;

/// What came of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    NotRun(String),
}

impl Verdict {
    fn result(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "failed",
            Self::NotRun(_) => "not run",
        }
    }

    fn detail(&self) -> &str {
        match self {
            Self::Passed => "",
            Self::Failed(detail) | Self::NotRun(detail) => detail,
        }
    }
}

impl From<Result<()>> for Verdict {
    fn from(result: Result<()>) -> Self {
        let Err(error) = result else {
            return Self::Passed;
        };
        let why = format!("{error:#}");
        match error.root_cause().downcast_ref::<io::Error>() {
            Some(cause) if cause.kind() == io::ErrorKind::Unsupported => Self::NotRun(why),
            _ => Self::Failed(why),
        }
    }
}

/// A scenario under a plan.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    scenario: &'static str,
    plan: Plan,
    verdict: Verdict,
}

impl Pair {
    pub(crate) fn new(scenario: &'static str, plan: Plan, verdict: Verdict) -> Self {
        Self {
            scenario,
            plan,
            verdict,
        }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plan, result) = (self.plan.name(), self.verdict.result());
        write!(formatter, "{plan:<10}  {:<32}  {result}", self.scenario)?;
        match self.verdict.detail() {
            "" => Ok(()),
            detail => write!(formatter, "  {detail}"),
        }
    }
}

impl Serialize for Pair {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        json!({
            "scenario": self.scenario,
            "plan": self.plan.name(),
            "result": self.verdict.result(),
            "detail": self.verdict.detail(),
        })
        .serialize(serializer)
    }
}

/// How many pairs had each result.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Numbers {
    passed: usize,
    failed: usize,
    not_run: usize,
}

/// All pairs.
#[derive(Debug, Default)]
pub(crate) struct Summary(Vec<Pair>);

impl Summary {
    /// Adds a pair and prints its line.
    pub(crate) fn add(&mut self, pair: Pair) {
        println!("{pair}");
        self.0.push(pair);
    }

    fn numbers(&self, select: impl Fn(&Pair) -> bool) -> Numbers {
        let mut numbers = Numbers::default();
        for pair in self.0.iter().filter(|pair| select(pair)) {
            *match pair.verdict {
                Verdict::Passed => &mut numbers.passed,
                Verdict::Failed(_) => &mut numbers.failed,
                Verdict::NotRun(_) => &mut numbers.not_run,
            } += 1;
        }
        numbers
    }

    /// Prints what came of all, writes it into a file if one is given, and says with which code the
    /// run exits.
    pub(crate) fn end(&self, file: Option<&Path>, kernel_label: &str) -> Result<ExitCode> {
        if let Some(path) = file {
            let json = self.json(kernel_label);
            fs::write(path, format!("{json:#}\n"))
                .with_context(|| format!("write {}", path.display()))?;
        }
        self.print_end();
        Ok(if self.is_good() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// Whether no pair failed, and some passed if there were any.
    fn is_good(&self) -> bool {
        let numbers = self.numbers(|_| true);
        numbers.failed == 0 && (numbers.passed > 0 || self.0.is_empty())
    }

    /// The pairs and their numbers, as JSON.
    fn json(&self, kernel_label: &str) -> serde_json::Value {
        let Numbers {
            passed,
            failed,
            not_run,
        } = self.numbers(|_| true);
        json!({
            "kernel": kernel_label,
            "passed": passed,
            "failed": failed,
            "not_run": not_run,
            "pairs": self.0,
        })
    }

    /// Prints the failures, the numbers of each plan, and those of all.
    fn print_end(&self) {
        let failed = |pair: &&Pair| matches!(pair.verdict, Verdict::Failed(_));
        if self.0.iter().any(|pair| failed(&pair)) {
            println!("\nfailed:");
            for pair in self.0.iter().filter(failed) {
                println!("  {pair}");
            }
        }
        println!();
        for plan in Plan::ALL {
            let Numbers {
                passed,
                failed,
                not_run,
            } = self.numbers(|pair| pair.plan == *plan);
            if passed + failed + not_run > 0 {
                let run = passed + failed;
                let plan = plan.name();
                println!("{plan}: {run} pairs run, {failed} failed, {not_run} not run");
            }
        }
        let Numbers {
            passed,
            failed,
            not_run,
        } = self.numbers(|_| true);
        println!("scenarios: {passed} passed, {failed} failed, {not_run} skipped");
    }
}
