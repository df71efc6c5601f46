//! Test counts, as read from the output of the test programs.

use std::fmt;
use std::ops::AddAssign;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Numbers of tests that passed, failed, and were not run.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
    /// Not run, or failed, for a recorded reason.
    pub skipped: u64,
}

impl Tally {
    /// One test that passed.
    pub const PASSED: Self = Self {
        passed: 1,
        failed: 0,
        skipped: 0,
    };
    /// One test that failed.
    pub const FAILED: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };

    /// Reads the counts from a line of cargo's test harness, if it is the result line.
    pub fn of_libtest(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |what: &str| {
            counts
                .split("; ")
                .find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
        };
        Some(Self {
            passed: count("passed")?,
            failed: count("failed")?,
            skipped: count("ignored")?,
        })
    }

    /// Counts skipped tests as failed, since they should have run.
    pub fn with_skipped_as_failed(self) -> Self {
        Self {
            failed: self.failed + self.skipped,
            skipped: 0,
            ..self
        }
    }

    /// Takes the program's exit status into account: an unsuccessful one is at least one failure.
    pub fn with_exit(mut self, success: bool) -> Self {
        if !success && self.failed == 0 {
            self.failed = 1;
        }
        self
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// The report of the scenario tests. A pair is a scenario run by one plan.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Scenarios {
    /// Pairs that passed.
    pub passed: u64,
    /// Pairs that failed unexpectedly.
    pub failed: u64,
    /// Pairs not run, as `expected.toml` states.
    pub not_run: u64,
    /// Pairs that failed, as `expected.toml` states.
    #[serde(default)]
    pub known_failures: u64,
    /// Pairs that timed out waiting, then passed when run again.
    #[serde(default)]
    pub flaky: u64,
    /// Ends of orphans missing from counts, tolerated on hosts that hide threads from BPF.
    #[serde(default)]
    pub forgiven: u64,
    /// Boots of their machine that failed.
    #[serde(default)]
    pub booted_in_vain: u64,
    /// Every pair.
    #[serde(default)]
    pub pairs: Vec<Pair>,
}

/// A scenario run by a plan.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Pair {
    /// The name of the scenario.
    pub scenario: String,
    /// The name of the plan.
    pub plan: String,
    /// `passed`, `failed`, `not run` or `known failure`.
    pub result: String,
    /// Why it failed or did not run.
    #[serde(default)]
    pub detail: String,
    /// Whether it passed only when run again.
    #[serde(default)]
    pub flaky: bool,
    /// Ends of orphans missing from its counts, and tolerated.
    #[serde(default)]
    pub forgiven: u64,
    /// Its duration, seconds.
    #[serde(default)]
    pub seconds: f64,
}

impl AddAssign for Scenarios {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.not_run += other.not_run;
        self.known_failures += other.known_failures;
        self.flaky += other.flaky;
        self.forgiven += other.forgiven;
        self.booted_in_vain += other.booted_in_vain;
        self.pairs.extend(other.pairs);
    }
}

impl Scenarios {
    /// Reads the JSON written by the scenario tests.
    pub fn parse(json: &str) -> Result<Self> {
        serde_json::from_str(json).context("the scenario tests left no readable summary")
    }

    /// Returns the pairs with this result.
    pub fn with_result(&self, result: &str) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(move |pair| pair.result == result)
    }

    /// Returns the counts of tests; pairs known not to run or to fail are skipped.
    pub fn tally(&self) -> Tally {
        Tally {
            passed: self.passed,
            failed: self.failed,
            skipped: self.not_run + self.known_failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_result_line_of_libtest_is_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 4 filtered \
                    out; finished in 0.01s";
        assert_eq!(
            Tally::of_libtest(line),
            Some(Tally {
                passed: 12,
                failed: 3,
                skipped: 1
            })
        );
        assert_eq!(Tally::of_libtest("test probe::btf::finds ... ok"), None);
        assert_eq!(Tally::of_libtest("running 12 tests"), None);
    }

    #[test]
    fn a_failed_exit_is_never_counted_as_success() {
        assert_eq!(Tally::default().with_exit(false), Tally::FAILED);
        let three = Tally {
            failed: 3,
            ..Tally::PASSED
        };
        assert_eq!(three.with_exit(false), three);
        assert_eq!(Tally::PASSED.with_exit(true), Tally::PASSED);
    }

    #[test]
    fn skipped_tests_are_shown_only_if_there_are_any() {
        assert_eq!(Tally::PASSED.to_string(), "1 passed, 0 failed");
        let skipped = Tally {
            skipped: 2,
            ..Tally::FAILED
        };
        assert_eq!(skipped.to_string(), "0 passed, 1 failed, 2 skipped");
    }

    #[test]
    fn summary_of_scenarios_is_read() {
        let json = r#"{"passed":1,"failed":0,"not_run":1,"pairs":[
            {"scenario":"linger0_empty","plan":"fentry","result":"passed","detail":""},
            {"scenario":"linger0_empty","plan":"kprobe","result":"not run","detail":"refused"}]}"#;
        let scenarios = Scenarios::parse(json).unwrap();
        assert_eq!(
            scenarios.tally().to_string(),
            "1 passed, 0 failed, 1 skipped"
        );
        assert_eq!(scenarios.pairs[1].detail, "refused");
        assert!(Scenarios::parse("").is_err());
    }
}
