//! Problems with a configuration, one line each.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::{Key, Origin};

/// A problem with a configuration.
#[derive(Debug, Error)]
pub enum Problem {
    /// The file cannot be used.
    #[error("{}: {why}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        why: FileError,
    },
    /// Invalid TOML.
    #[error("{}:{line}: invalid TOML: {why}", file.display())]
    Syntax {
        /// The file.
        file: Arc<Path>,
        /// Its line, from 1.
        line: usize,
        /// The message of the parser.
        why: String,
    },
    /// An unknown key.
    #[error("{origin}: {name}: unknown key, {hint}")]
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// Its name.
        name: String,
        /// A suggestion.
        hint: String,
    },
    /// An invalid value.
    #[error("{}{why}", place(origin, key))]
    Value {
        /// Where it stands.
        origin: Origin,
        /// Its key, or table.
        key: String,
        /// What was found, and what is expected.
        why: String,
    },
}

impl Problem {
    /// An invalid value of a key.
    pub(super) fn value(origin: &Origin, key: Key, why: String) -> Self {
        Self::Value {
            origin: origin.clone(),
            key: key.to_string(),
            why,
        }
    }

    /// Its line, for sorting: the whole file first, then by line, then problems outside the file.
    pub(super) fn line(&self) -> usize {
        match self {
            Self::File { .. } => 0,
            Self::Syntax { line, .. } => *line,
            Self::UnknownKey { origin, .. } | Self::Value { origin, .. } => match origin {
                Origin::Line(_, line) => *line,
                _ => usize::MAX,
            },
        }
    }
}

impl From<Problem> for Vec<Problem> {
    fn from(problem: Problem) -> Self {
        vec![problem]
    }
}

/// The place to show: a line with its key; a flag shows the key itself.
fn place(origin: &Origin, key: &str) -> String {
    match origin {
        Origin::Line(..) => format!("{origin}: {key}: "),
        Origin::Default => format!("{key}: "),
        Origin::Environment | Origin::Flag(_) => format!("{origin}: "),
    }
}

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// Reading it fails.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A directory, a pipe, a device.
    #[error("is no regular file, expected one of text")]
    NotAFile,
    /// Any user could control a daemon that runs as root.
    #[error(
        "is writable by everyone, expected only its owner's settings: `chmod o-w` it, and look who \
         changed it"
    )]
    WorldWritable,
    /// Larger than any file written by hand.
    #[error("is larger than 1 MiB, expected a few lines of text")]
    TooLarge,
    /// Not text.
    #[error("is not UTF-8 in line {0}, expected text")]
    NotUtf8(usize),
}

/// The problems of a configuration, at least one.
#[derive(Debug, Error)]
pub struct Invalid(pub Vec<Problem>);

impl fmt::Display for Invalid {
    /// One line for each problem, with control characters escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            for character in problem.to_string().chars() {
                if character.is_control() {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    write!(f, "{character}")?;
                }
            }
        }
        Ok(())
    }
}
