//! Problems with a configuration, one line each, and the origins of values.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

use crate::logging;
use crate::text::escape_for_terminal;

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The default.
    Default,
    /// A line of the file, from 1.
    Line(Arc<Path>, usize),
    /// The environment variable of the log level.
    Environment,
    /// The flag of this key.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Line(file, line) => write!(f, "{}:{line}", file.display()),
            Self::Environment => write!(f, "${}", logging::ENVIRONMENT),
            Self::Flag(key) => f.write_str(&flag(key)),
        }
    }
}

/// Returns the flag that overrides a key of the file; in the singular for lists in a table: `--allow-unit`.
#[must_use]
pub fn flag(key: &str) -> String {
    match key.split_once('.') {
        Some((table, list)) => format!("--{table}-{}", list.trim_end_matches('s')),
        // The name that all Prometheus exporters use.
        None if key == "web-config-file" => "--web.config.file".to_owned(),
        None => format!("--{key}"),
    }
}

/// A problem with a configuration, in one line.
#[derive(Debug, Error)]
#[error("{text}")]
pub struct Problem {
    /// The key that it concerns; `None` for all keys. The value of a key with a problem counts as unknown when
    /// contradictions are looked for.
    pub(super) key: Option<String>,
    /// Line in the file, for sorting: 0 for the whole file, `usize::MAX` for a value from elsewhere.
    pub(super) line: usize,
    pub(super) text: String,
}

impl Problem {
    /// Describes a problem with a key. The origin alone identifies it if it is a flag or the environment variable.
    pub(super) fn new(origin: &Origin, key: &str, why: &str) -> Self {
        let (line, text) = match origin {
            Origin::Line(_, line) => (*line, format!("{origin}: {key}: {why}")),
            Origin::Default => (usize::MAX, format!("{key}: {why}")),
            Origin::Environment | Origin::Flag(_) => (usize::MAX, format!("{origin}: {why}")),
        };
        let key = Some(key.to_owned());
        Self { key, line, text }
    }
}

/// The problems of a configuration, at least one.
#[derive(Debug, Error)]
pub struct Invalid(pub Vec<Problem>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self
            .0
            .iter()
            .map(|problem| escape_for_terminal(&problem.text));
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}
