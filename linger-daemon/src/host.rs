//! Checks the environment for obstacles to counting: privileges, namespaces, filters, and restrictions of the
//! kernel. Each finding has a verdict and, if needed, a fix.

mod environment;
mod judge;
mod kernel_probe;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde::Serialize;

use self::environment::{Environment, Namespace};
use self::judge::judge;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Some data, or one of the plans, is not available.
    Warning,
    /// Nothing can be counted.
    Problem,
}

impl Verdict {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
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
    let mut findings = findings().into_iter();
    let problem = findings.find(|finding| finding.verdict == Verdict::Problem)?;
    let fix = problem.fix.map(|fix| format!("; {fix}"));
    let (what, found) = (problem.what, problem.found);
    Some(format!("{what}: {found}{}", fix.unwrap_or_default()))
}

/// Whether this process is in the host's PID namespace.
#[must_use]
pub fn in_pid_namespace_of_host() -> bool {
    Namespace::Pid.is_initial(Path::new("/"))
}
