//! Checks the environment for obstacles to counting: privileges, namespaces, filters, and restrictions of the
//! kernel. Each finding has a verdict and, if needed, a fix.

mod environment;
mod judge;
mod kernel_probe;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

use serde::Serialize;

use self::environment::{Environment, PID, is_in};
use self::judge::{Judgment, judge, judge_files};

/// The aspect of how many files this process may open.
const OPEN_FILES: &str = "open files";

/// A finding about one aspect of the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The aspect.
    pub what: &'static str,
    /// The verdict.
    pub verdict: Verdict,
    /// The finding.
    pub found: String,
    /// The fix, if one is needed.
    pub fix: Option<&'static str>,
}

/// A verdict about one aspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, Serialize)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Some data, or one of the plans, is not available.
    Warning,
    /// Nothing can be counted.
    Problem,
}

impl Finding {
    fn new(what: &'static str, (verdict, found, fix): Judgment) -> Self {
        Self {
            what,
            verdict,
            found,
            fix,
        }
    }

    /// The problem with its fix, as one line; `None` if it is none.
    fn problem(self) -> Option<String> {
        let fix = self.fix.map(|fix| format!("; {fix}"));
        let problem = format!("{}: {}{}", self.what, self.found, fix.unwrap_or_default());
        (self.verdict == Verdict::Problem).then_some(problem)
    }
}

/// All findings about this process, first those that may keep it from counting at all.
#[must_use]
pub fn findings() -> Vec<Finding> {
    judge(&Environment::of_process())
}

/// The first problem that keeps this process from counting, with its fix, as one line; `None` if none is known.
#[must_use]
pub fn obstacle() -> Option<String> {
    findings().into_iter().find_map(Finding::problem)
}

/// The problem that this process may open too few files even at its hard limit, to which this raises the soft one; with
/// its fix, as one line. Know it before you open pins: those that cannot be opened would count as missing, and all would
/// be removed.
#[must_use]
pub fn too_few_files() -> Option<String> {
    Finding::new(OPEN_FILES, judge_files(kernel_probe::raise_open_files())).problem()
}

/// Returns how many more files this process may open.
#[must_use]
pub fn free_files() -> usize {
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let limit = usize::try_from(kernel_probe::raise_open_files()).unwrap_or(usize::MAX);
    limit.saturating_sub(open)
}

/// Whether this process is in the host's PID namespace.
#[must_use]
pub fn in_pid_namespace_of_host() -> bool {
    is_in(Path::new("/"), PID)
}
