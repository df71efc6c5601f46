//! A step of the tests: a process whose output lines are prefixed by the step's name, and which writes its findings to
//! a file.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::{Options, steps};
use crate::shell::root;
use crate::tally::{Scenarios, Tally};

/// The stage of a step. No step begins once one of an earlier stage has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Static checks: format, lints, licences.
    Form,
    /// Unit and integration tests.
    Unit,
    /// The scenarios on this host, and by one plan on one kernel.
    First,
    /// All other steps.
    Rest,
}

/// The smallest test run that includes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extent {
    /// Every run, including `cargo xtask check`.
    Everyday,
    /// `cargo xtask test`.
    Usual,
    /// Only `cargo xtask test --full`.
    Full,
}

/// The work of a step.
pub(super) type Work = Box<dyn Fn(&Options) -> Result<Findings> + Send + Sync>;

/// A check or a group of tests.
pub(super) struct Step {
    /// Its name, by which `--filter` selects it.
    pub(super) name: String,
    pub(super) stage: Stage,
    pub(super) extent: Extent,
    /// Whether it runs alone, after the others of its stage: load would break it, or it is the load.
    pub(super) alone: bool,
    pub(super) work: Work,
}

/// The findings of a step.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Findings {
    /// Counts of tests.
    Counted(Tally),
    /// Results of each scenario by each plan.
    Scenarios(Scenarios),
}

impl Findings {
    pub(super) fn tally(&self) -> Tally {
        match self {
            Self::Counted(tally) => *tally,
            Self::Scenarios(scenarios) => scenarios.tally(),
        }
    }
}

/// A completed step.
pub(super) struct Done {
    pub(super) name: String,
    pub(super) stage: Stage,
    pub(super) time: Duration,
    /// The findings; if the step broke, the last lines it printed and the error.
    pub(super) findings: Result<Findings, String>,
}

impl Done {
    pub(super) fn tally(&self) -> Tally {
        self.findings
            .as_ref()
            .map_or(Tally::FAILED, Findings::tally)
    }

    /// Returns whether nothing failed and at least one test passed.
    pub(super) fn passed(&self) -> bool {
        matches!(
            self.tally(),
            Tally {
                passed: 1..,
                failed: 0,
                ..
            }
        )
    }

    pub(super) fn verdict(&self) -> &'static str {
        if self.passed() { "ok" } else { "FAILED" }
    }
}

impl Step {
    /// Performs the step in a process of its own, so that its lines can be distinguished from those of other steps.
    pub(super) fn perform(&self, options: &Options) -> Done {
        println!("=== {}", self.name);
        let start = Instant::now();
        let last = Last::default();
        let findings = run(&self.name, options, &last)
            .map_err(|error| format!("{}{error:#}", last.into_text()));
        let done = Done {
            name: self.name.clone(),
            stage: self.stage,
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
}

/// The last lines that a step printed.
#[derive(Default)]
struct Last(Mutex<VecDeque<String>>);

impl Last {
    /// Number of lines kept: enough to show why a step broke, or the registers and call trace of a kernel that did.
    const LINES: usize = 40;

    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == Self::LINES {
            lines.pop_front();
        }
        lines.push_back(format!("{line}\n"));
    }

    fn into_text(self) -> String {
        let lines = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        lines.into_iter().collect()
    }
}

/// Runs the step's process, prints its lines, and reads its findings.
fn run(name: &str, options: &Options, last: &Last) -> Result<Findings> {
    let report = report(name)?;
    if report.exists() {
        fs::remove_file(&report)?;
    }
    // By this link, since another build may have replaced the file of that name.
    let mut child = Command::new("/proc/self/exe")
        .arg("step")
        .arg(name)
        .arg("--report")
        .arg(&report)
        .args(options.arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start a process for the step")?;
    let stdout = child.stdout.take().context("the output is a pipe")?;
    let stderr = child.stderr.take().context("so are the errors")?;
    thread::scope(|scope| {
        scope.spawn(|| show(name, stderr, last));
        show(name, stdout, last);
    });
    let status = child.wait()?;
    let text = fs::read_to_string(&report)
        .with_context(|| format!("the step left no findings ({status})"))?;
    serde_json::from_str(&text).context("the findings of the step")
}

/// Prints each line, prefixed by the name of the step.
fn show(name: &str, stream: impl Read, last: &Last) {
    for bytes in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end();
        println!("{name} | {line}");
        last.push(line);
    }
}

fn report(name: &str) -> Result<PathBuf> {
    let folder = root().join("target/test");
    fs::create_dir_all(&folder)?;
    Ok(folder.join(format!("{}.json", name.replace([' ', '/'], "-"))))
}

/// Performs a step in this process, and writes its findings to `report`.
///
/// # Errors
///
/// If there is no such step, or it broke.
pub fn perform_here(name: &str, report: &Path, options: &Options) -> Result<()> {
    // The steps end with the process that started them.
    set_pdeathsig(Signal::SIGTERM)?;
    let steps = steps::all();
    let step = steps.iter().find(|step| step.name == name);
    let step = step.with_context(|| format!("there is no step {name:?}"))?;
    let findings = (step.work)(options)?;
    fs::write(report, serde_json::to_string(&findings)?)
        .with_context(|| format!("write {}", report.display()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A step that does nothing.
    pub(in super::super) fn step(name: &str, stage: Stage) -> Step {
        Step {
            name: name.into(),
            stage,
            extent: Extent::Usual,
            alone: false,
            work: Box::new(|_| Ok(Findings::Counted(Tally::PASSED))),
        }
    }

    /// A completed step with these findings; without any, one that broke.
    pub(in super::super) fn done(findings: Option<Findings>) -> Done {
        Done {
            name: "x".into(),
            stage: Stage::Form,
            time: Duration::ZERO,
            findings: findings.ok_or_else(|| "it broke".into()),
        }
    }

    #[test]
    fn the_last_lines_of_a_step_are_kept() {
        let last = Last::default();
        for line in 0..=Last::LINES {
            last.push(&line.to_string());
        }
        let text = last.into_text();
        assert!(text.starts_with("1\n") && text.ends_with("40\n"), "{text}");
    }

    #[test]
    fn a_step_that_broke_or_ran_no_test_failed() {
        assert!(!done(None).passed());
        assert!(!done(Some(Findings::Counted(Tally::default()))).passed());
        assert!(!done(Some(Findings::Counted(Tally::FAILED))).passed());
        assert!(done(Some(Findings::Counted(Tally::PASSED))).passed());
    }

    #[test]
    fn findings_pass_between_processes_as_json() {
        let text = serde_json::to_string(&Findings::Counted(Tally::PASSED)).unwrap();
        let findings: Findings = serde_json::from_str(&text).unwrap();
        assert_eq!(findings.tally(), Tally::PASSED);
    }
}
