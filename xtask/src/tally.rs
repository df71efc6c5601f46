//! How many passed: counts out of what the test programs print.

use std::fmt;
use std::ops::AddAssign;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// How many tests passed, failed, and were not run.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
    /// Not run, for a reason that is written down.
    pub skipped: u64,
}

impl Tally {
    /// One thing that passed.
    pub const PASSED: Self = Self {
        passed: 1,
        failed: 0,
        skipped: 0,
    };
    /// One thing that failed.
    pub const FAILED: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };

    /// The counts in a line of cargo's test harness, if it is the one that sums up.
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

    /// What is skipped counted as failed: it should have run.
    pub fn with_skipped_as_failed(self) -> Self {
        Self {
            failed: self.failed + self.skipped,
            skipped: 0,
            ..self
        }
    }

    /// What a program that ended like this really has: one that failed did so with something.
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

/// What the scenario tests report: each scenario with each plan is a pair.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Scenarios {
    /// Passed.
    pub passed: u64,
    /// Failed, and should not have.
    pub failed: u64,
    /// Not run, as it is written down.
    pub not_run: u64,
    /// Failed, as it is written down.
    #[serde(default)]
    pub known_failures: u64,
    /// Passed only when run once more, after they had waited in vain.
    #[serde(default)]
    pub flaky: u64,
    /// What was missing in counts, and is forgiven on hosts that hide threads.
    #[serde(default)]
    pub forgiven: u64,
    /// How often their machine was booted and did not come up.
    #[serde(default)]
    pub booted_in_vain: u64,
    /// Each of them.
    #[serde(default)]
    pub pairs: Vec<Pair>,
}

/// One scenario with one plan.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Pair {
    /// Its name.
    pub scenario: String,
    /// The name of the plan.
    pub plan: String,
    /// `passed`, `failed`, `not run` or `known failure`.
    pub result: String,
    /// Why it failed or did not run.
    #[serde(default)]
    pub detail: String,
    /// Whether it passed only when run once more.
    #[serde(default)]
    pub flaky: bool,
    /// What was missing in its counts, and is forgiven.
    #[serde(default)]
    pub forgiven: u64,
    /// How long it took.
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
    /// Reads the JSON that the scenario tests leave.
    pub fn parse(json: &str) -> Result<Self> {
        serde_json::from_str(json).context("the scenario tests left no readable summary")
    }

    /// The pairs that ended like this.
    pub fn with_result(&self, result: &str) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(move |pair| pair.result == result)
    }

    /// As counts of tests: what is known not to run or to fail is skipped.
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
    fn libtest_lines_that_sum_up_are_counted_and_others_are_not() {
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
    fn skipped_is_only_named_when_there_is_some() {
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
