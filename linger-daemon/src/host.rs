//! What surrounds this process and may keep it from counting: privileges, namespaces, filters, and
//! what the kernel was told to refuse. Each thing is judged, with what helps.
//!
//! [`Facts`] are read, or given by a test; what follows from them is in [`judge`].

mod facts;
mod judge;
mod kernel_probe;
mod namespace;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use self::facts::{Bpffs, Facts, Lockdown, Tracefs};
pub use self::judge::judge;
pub use self::kernel_probe::KernelProbe;
pub use self::namespace::Namespace;

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The thing.
    pub what: &'static str,
    /// Whether it is as it should be.
    pub verdict: Verdict,
    /// How it is.
    pub found: String,
    /// What helps; none if nothing has to.
    pub fix: Option<&'static str>,
}

/// Whether a thing is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is.
    Ok,
    /// Something is lost for it, or one of the plans.
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

/// What keeps this process from counting, with what helps, as one line; none if nothing is known.
#[must_use]
pub fn obstacle() -> Option<String> {
    let findings = judge(&Facts::here());
    let problem = findings
        .into_iter()
        .find(|finding| finding.verdict == Verdict::Problem)?;
    let fix = problem.fix.map(|fix| format!("; {fix}"));
    let (what, found) = (problem.what, problem.found);
    Some(format!("{what}: {found}{}", fix.unwrap_or_default()))
}
