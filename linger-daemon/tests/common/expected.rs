//! Contents of `tests/expected.toml`: what runs where, and how a run may differ.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use linger_testkit::exposition::Scrape;
use serde::Deserialize;
use wildmatch::WildMatch;

/// Text of the file.
const FILE: &str = include_str!("../expected.toml");

/// The parsed file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    /// The name of every scenario.
    scenarios: BTreeSet<String>,
    /// The machines, by the name that a run gets with `--environment`.
    environments: BTreeMap<String, Environment>,
}

/// What runs on a machine.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Environment {
    /// The plans that are refused, with a part of the reason that `lingerd check` gives. It offers all others.
    #[serde(default)]
    refuses: BTreeMap<String, String>,
    /// Needs that it does not meet, and why.
    #[serde(default)]
    pub(crate) lacks: BTreeMap<String, String>,
    /// Pairs that are known to fail.
    #[serde(default)]
    known_failures: Vec<KnownFailure>,
}

/// Pairs that fail for a known reason.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnownFailure {
    plans: Vec<String>,
    /// Name patterns, in which `*` stands for anything.
    scenarios: Vec<String>,
    pub(crate) reason: String,
    /// Evidence for the reason, of which a failed pair must show some; none is asked for if this is empty.
    #[serde(default)]
    evidence: BTreeSet<Evidence>,
    /// Most failures in a run under one plan, where chance decides which pairs fail.
    #[serde(default)]
    pub(crate) at_most: Option<usize>,
}

/// Metrics that show that the kernel kept lingerd from counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Evidence {
    /// `linger_probe_skipped_runs_total`
    SkippedRuns,
    /// `linger_lost_total{what="close"}`
    LostClose,
    /// `linger_lost_total{what="group"}`
    LostGroup,
    /// `linger_lost_total{what="return"}`
    LostReturn,
}

impl Evidence {
    const ALL: [Self; 4] = [
        Self::SkippedRuns,
        Self::LostClose,
        Self::LostGroup,
        Self::LostReturn,
    ];

    /// Returns what grew from one scrape to a later one.
    pub(crate) fn between(before: &Scrape, after: &Scrape) -> BTreeSet<Self> {
        let all = Self::ALL.into_iter();
        all.filter(|evidence| evidence.count(after) > evidence.count(before))
            .collect()
    }

    fn count(self, scrape: &Scrape) -> f64 {
        let (metric, what) = match self {
            Self::SkippedRuns => ("linger_probe_skipped_runs_total", ""),
            Self::LostClose => ("linger_lost_total", "close"),
            Self::LostGroup => ("linger_lost_total", "group"),
            Self::LostReturn => ("linger_lost_total", "return"),
        };
        let samples = scrape.of(metric);
        let samples = samples.filter(|sample| sample.label("what") == what);
        samples.map(|sample| sample.value).sum()
    }
}

impl Expected {
    /// Reads the file.
    pub(crate) fn read() -> Result<Self> {
        Self::parse(FILE).context("tests/expected.toml")
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let expected: Self = toml::from_str(text)?;
        for (name, environment) in &expected.environments {
            for known in &environment.known_failures {
                if known.has_wildcard() && known.evidence.is_empty() {
                    bail!("{name}: a known failure with a wildcard needs evidence: {known:?}");
                }
            }
        }
        Ok(expected)
    }

    /// Returns what the file says of the machine with this name.
    pub(crate) fn environment(&self, name: &str) -> Result<Environment> {
        let Some(environment) = self.environments.get(name) else {
            let names: Vec<_> = self.environments.keys().map(String::as_str).collect();
            bail!(
                "tests/expected.toml has no environment {name}, but {}",
                names.join(", ")
            );
        };
        Ok(environment.clone())
    }

    /// Returns how the existing scenarios and needs differ from those in the file, a line for each difference.
    pub(crate) fn differences<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
        needs: &[&str],
    ) -> Vec<String> {
        let there: BTreeSet<String> = names.map(str::to_owned).collect();
        let more = there.difference(&self.scenarios);
        let less = self.scenarios.difference(&there);
        let more = more.map(|name| format!("{name} is not in tests/expected.toml"));
        let less = less.map(|name| format!("{name} is in tests/expected.toml, and is gone"));
        let environments = self.environments.values();
        let lacks: BTreeSet<&String> = environments.flat_map(|known| known.lacks.keys()).collect();
        let unknown = lacks
            .into_iter()
            .filter(|need| !needs.contains(&need.as_str()));
        let unknown = unknown.map(|need| format!("no scenario states to need {need}"));
        more.chain(less).chain(unknown).collect()
    }
}

impl KnownFailure {
    fn has_wildcard(&self) -> bool {
        let mut scenarios = self.scenarios.iter();
        scenarios.any(|pattern| pattern.contains(['*', '?']))
    }

    /// Returns the evidence that a pair lacks which shows only this, if any.
    pub(crate) fn lacks(&self, shown: &BTreeSet<Evidence>) -> Option<&BTreeSet<Evidence>> {
        let is_met = self.evidence.is_empty() || !self.evidence.is_disjoint(shown);
        (!is_met).then_some(&self.evidence)
    }
}

impl Environment {
    /// Returns the known failure that this pair belongs to, if any.
    pub(crate) fn known_failure(&self, scenario: &str, plan: &str) -> Option<&KnownFailure> {
        let applies = |known: &&KnownFailure| {
            let of_plan = known.plans.iter().any(|known| known == plan);
            let mut scenarios = known.scenarios.iter();
            of_plan && scenarios.any(|pattern| WildMatch::new(pattern).matches(scenario))
        };
        self.known_failures.iter().find(applies)
    }

    /// Returns whether the plan should run here.
    pub(crate) fn offers(&self, plan: &str) -> bool {
        !self.refuses.contains_key(plan)
    }

    /// Compares the reason for which a plan is refused with the one that is written down. Returns the difference.
    pub(crate) fn misjudges(&self, plan: &str, reason: &str) -> Option<String> {
        match self.refuses.get(plan) {
            Some(known) if reason.contains(known) => None,
            Some(known) => Some(format!("it is refused, but not because {known}: {reason}")),
            None => Some(format!("it is refused: {reason}")),
        }
    }
}
