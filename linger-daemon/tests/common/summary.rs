//! The results of all pairs of a scenario and a plan, for people and for scripts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use linger_ebpf::Plan;
use serde::Serialize;
use serde_json::json;

use super::expected::{Environment, Evidence};

/// A wait that timed out. Only that is worth a retry: a wrong count stays wrong.
#[derive(Debug)]
pub(crate) struct WaitedInVain(pub(crate) String);

impl fmt::Display for WaitedInVain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "waited in vain: {}", self.0)
    }
}

impl std::error::Error for WaitedInVain {}

/// Why a pair did not run: a stated need that is not met, or a plan that the kernel refuses on a machine that
/// `expected.toml` does not list. There is no other reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotRun(String);

impl NotRun {
    /// A need stated by the scenario is not met here.
    pub(crate) fn for_need(unmet: &impl fmt::Display) -> Self {
        Self(unmet.to_string())
    }

    /// The kernel refuses the plan.
    pub(crate) fn for_plan(reason: &str) -> Self {
        Self(format!("the plan is refused: {reason}"))
    }
}

/// The result of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    /// A wait timed out before the scenario got to what it tests.
    WaitedInVain(String),
    NotRun(NotRun),
    /// It failed in this way, for this known reason.
    KnownFailure {
        failure: String,
        reason: String,
    },
}

impl Verdict {
    /// The verdict on the pairs of a plan that is refused for this reason.
    pub(crate) fn of_refused(plan: Plan, reason: &str, known: Option<&Environment>) -> Self {
        match known.and_then(|known| known.misjudges(plan.name(), reason)) {
            Some(wrong) => Self::Failed(format!(
                "tests/expected.toml says otherwise of this plan: {wrong}"
            )),
            None => Self::NotRun(NotRun::for_plan(reason)),
        }
    }

    fn result(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) | Self::WaitedInVain(_) => "failed",
            Self::NotRun(_) => "not run",
            Self::KnownFailure { .. } => "known failure",
        }
    }

    /// Returns the result as cargo's harness words it.
    fn word(&self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Failed(_) | Self::WaitedInVain(_) => "FAILED",
            Self::NotRun(_) => "ignored",
            Self::KnownFailure { .. } => "FAILED, as it is known to",
        }
    }

    fn detail(&self) -> &str {
        match self {
            Self::Passed => "",
            Self::Failed(detail)
            | Self::WaitedInVain(detail)
            | Self::NotRun(NotRun(detail))
            | Self::KnownFailure { reason: detail, .. } => detail,
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.result() == "failed"
    }
}

impl From<Result<()>> for Verdict {
    fn from(result: Result<()>) -> Self {
        let Err(error) = result else {
            return Self::Passed;
        };
        let why = format!("{error:#}");
        let in_vain = error
            .chain()
            .any(<dyn std::error::Error>::is::<WaitedInVain>);
        if in_vain {
            Self::WaitedInVain(why)
        } else {
            Self::Failed(why)
        }
    }
}

/// A scenario under a plan.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    scenario: String,
    plan: Plan,
    verdict: Verdict,
    /// Whether an earlier attempt timed out.
    flaky: bool,
    /// Ends of orphans that were missing, and are forgiven.
    forgiven: u64,
    time: Duration,
    /// What showed meanwhile that the kernel kept lingerd from counting.
    evidence: BTreeSet<Evidence>,
}

impl Pair {
    pub(crate) fn new(scenario: impl Into<String>, plan: Plan, verdict: Verdict) -> Self {
        Self {
            scenario: scenario.into(),
            plan,
            verdict,
            flaky: false,
            forgiven: 0,
            time: Duration::ZERO,
            evidence: BTreeSet::new(),
        }
    }

    /// Sets what showed meanwhile that the kernel kept lingerd from counting.
    pub(crate) fn showing(self, evidence: BTreeSet<Evidence>) -> Self {
        Self { evidence, ..self }
    }

    /// Sets how long it took.
    pub(crate) fn taking(self, time: Duration) -> Self {
        Self { time, ..self }
    }

    /// Sets how many missing ends are forgiven.
    pub(crate) fn forgiving(self, forgiven: u64) -> Self {
        Self { forgiven, ..self }
    }

    /// Returns whether it is worth a retry.
    pub(crate) fn waited_in_vain(&self) -> bool {
        matches!(self.verdict, Verdict::WaitedInVain(_))
    }

    /// Marks it as the result of a retry.
    pub(crate) fn at_another_try(self) -> Self {
        Self {
            flaky: true,
            ..self
        }
    }

    /// Turns a failure into a known failure, if it is one and shows the evidence for it.
    fn judged_by(self, environment: Option<&Environment>) -> Self {
        let known = environment
            .and_then(|environment| environment.known_failure(&self.scenario, self.plan.name()));
        match known {
            Some(known) if self.verdict.has_failed() => {
                let failure = self.verdict.detail().to_owned();
                if let Some(lacked) = known.lacks(&self.evidence) {
                    let why = format!("{failure}; nothing excuses it: no evidence of {lacked:?}");
                    return Self {
                        verdict: Verdict::Failed(why),
                        ..self
                    };
                }
                println!("{}: {failure}", self.scenario);
                Self {
                    verdict: Verdict::KnownFailure {
                        failure,
                        reason: known.reason.clone(),
                    },
                    ..self
                }
            }
            // A failure by chance usually passes.
            Some(known) if self.verdict == Verdict::Passed && known.at_most.is_none() => {
                println!("{}: passes, though it is known to fail", self.scenario);
                self
            }
            _ => self,
        }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plan, word) = (self.plan.name(), self.verdict.word());
        write!(formatter, "test {plan}::{} ... {word}", self.scenario)?;
        if self.flaky {
            write!(formatter, " (flaky: it waited in vain before)")?;
        }
        if self.forgiven > 0 {
            write!(formatter, " ({} forgiven)", self.forgiven)?;
        }
        match self.verdict.detail() {
            "" => Ok(()),
            detail => write!(formatter, ", {detail}"),
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
            "flaky": self.flaky,
            "forgiven": self.forgiven,
            "seconds": self.time.as_secs_f64(),
        })
        .serialize(serializer)
    }
}

/// The results of all pairs.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pairs: Vec<Pair>,
    /// What `expected.toml` says of this machine.
    environment: Option<Environment>,
}

impl Summary {
    /// Creates a summary without pairs, judged by what `expected.toml` says of the machine.
    pub(crate) fn new(environment: Option<Environment>) -> Self {
        Self {
            pairs: Vec::new(),
            environment,
        }
    }

    /// Adds a pair and prints its line.
    pub(crate) fn add(&mut self, pair: Pair) {
        self.add_as_it_is(pair.judged_by(self.environment.as_ref()));
    }

    /// Adds a pair that did not run, and prints its line. No known failure excuses it.
    pub(crate) fn add_as_it_is(&mut self, pair: Pair) {
        println!("{pair}");
        self.pairs.push(pair);
    }

    /// Adds a failure for each plan under which more pairs failed than are known to.
    fn add_excess(&mut self) {
        let Some(environment) = &self.environment else {
            return;
        };
        let mut excess = Vec::new();
        for &plan in Plan::ALL {
            let mut failures: BTreeMap<(&str, usize), Vec<String>> = BTreeMap::new();
            for pair in self.pairs.iter().filter(|pair| pair.plan == plan) {
                if let Verdict::KnownFailure { failure, reason } = &pair.verdict
                    && let Some(known) = environment.known_failure(&pair.scenario, plan.name())
                    && let Some(most) = known.at_most
                {
                    let failures = failures.entry((reason, most)).or_default();
                    failures.push(format!("{} ({failure})", pair.scenario));
                }
            }
            for ((reason, most), failed) in failures {
                let count = failed.len();
                if count > most {
                    let failed = failed.join("; ");
                    let what =
                        format!("{count} pairs failed, of at most {most}: {reason}: {failed}");
                    excess.push(Pair::new(
                        "what is known to fail",
                        plan,
                        Verdict::Failed(what),
                    ));
                }
            }
        }
        for pair in excess {
            self.add_as_it_is(pair);
        }
    }

    fn count(&self, select: impl Fn(&Pair) -> bool) -> u64 {
        self.pairs.iter().filter(|pair| select(pair)).count() as u64
    }

    fn with_result(&self, result: &str) -> u64 {
        self.count(|pair| pair.verdict.result() == result)
    }

    /// Prints the results and writes them to a file, if one is given, with more facts about the run. Returns the exit
    /// code of the run.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn end(mut self, file: Option<&Path>, more: &serde_json::Value) -> Result<ExitCode> {
        self.add_excess();
        if let Some(path) = file {
            let json = self.json(more);
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

    /// Returns whether no pair failed, and at least one ran.
    fn is_good(&self) -> bool {
        let ran = self.with_result("passed") + self.with_result("known failure");
        self.with_result("failed") == 0 && ran > 0
    }

    /// Returns the pairs and their numbers as JSON.
    fn json(&self, more: &serde_json::Value) -> serde_json::Value {
        json!({
            "run": more,
            "passed": self.with_result("passed"),
            "failed": self.with_result("failed"),
            "not_run": self.with_result("not run"),
            "known_failures": self.with_result("known failure"),
            "flaky": self.count(|pair| pair.flaky),
            "forgiven": self.pairs.iter().map(|pair| pair.forgiven).sum::<u64>(),
            "pairs": self.pairs,
        })
    }

    /// Prints the failures, the numbers of each plan, and the totals.
    fn print_end(&self) {
        if self.with_result("failed") > 0 {
            println!("\nfailures:");
            for pair in self.pairs.iter().filter(|pair| pair.verdict.has_failed()) {
                println!("  {pair}");
            }
        }
        println!();
        for plan in Plan::ALL {
            let all = self.count(|pair| pair.plan == *plan);
            if all > 0 {
                let failed = self.count(|pair| pair.plan == *plan && pair.verdict.has_failed());
                println!("{}: {all} pairs, {failed} failed", plan.name());
            }
        }
        if self.environment.is_none() {
            println!("nothing is written down of this machine: whatever did not run is not missed");
        }
        let forgiven: u64 = self.pairs.iter().map(|pair| pair.forgiven).sum();
        if forgiven > 0 {
            println!(
                "{forgiven} ends of orphans were not seen, and are forgiven: this host hides them"
            );
        }
        println!(
            "scenarios: {} passed, {} failed, {} skipped",
            self.with_result("passed"),
            self.with_result("failed"),
            self.with_result("not run") + self.with_result("known failure"),
        );
    }
}
