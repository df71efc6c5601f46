//! What is wrong with a configuration, a line each.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::{Key, Origin};

/// One thing that is wrong.
#[derive(Debug, Error)]
pub enum Problem {
    /// The file as a whole.
    #[error("{}: {why}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        why: FileError,
    },
    /// A line that is not TOML.
    #[error("{}:{line}: invalid TOML: {why}", file.display())]
    Syntax {
        /// The file.
        file: Arc<Path>,
        /// Its line, from 1.
        line: usize,
        /// What the parser says.
        why: String,
    },
    /// A key that means nothing.
    #[error("{origin}: {name}: unknown key, {hint}")]
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// What it is called.
        name: String,
        /// What it could be.
        hint: String,
    },
    /// A value that a key does not take.
    #[error("{}{why}", place(origin, key))]
    Value {
        /// Where it stands.
        origin: Origin,
        /// The key, or the table, that it is for.
        key: String,
        /// What is wrong, and what was expected.
        why: String,
    },
}

impl Problem {
    /// Something wrong with the value of a key.
    pub(super) fn value(origin: &Origin, key: Key, why: String) -> Self {
        Self::Value {
            origin: origin.clone(),
            key: key.to_string(),
            why,
        }
    }

    /// Where it is in the file: whole file, then by line, then what is outside.
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

/// Of a line of the file, the key has to be told; a flag tells it already.
fn place(origin: &Origin, key: &str) -> String {
    match origin {
        Origin::Line(..) => format!("{origin}: {key}: "),
        Origin::Default => format!("{key}: "),
        Origin::Environment | Origin::Flag(_) => format!("{origin}: "),
    }
}

/// Why a file is not read.
#[derive(Debug, Error)]
pub enum FileError {
    /// The system says so.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A directory, a pipe, a device.
    #[error("is no regular file, expected one of text")]
    NotAFile,
    /// Anybody could tell the daemon of root what to do.
    #[error(
        "is writable by everyone, expected only its owner's settings: `chmod o-w` it, and look who \
         changed it"
    )]
    WorldWritable,
    /// No one writes that much by hand.
    #[error("is larger than 1 MiB, expected a few lines of text")]
    TooLarge,
    /// Not text.
    #[error("is not UTF-8 in line {0}, expected text")]
    NotUtf8(usize),
}

/// A configuration with at least one problem.
#[derive(Debug, Error)]
pub struct Invalid(pub Vec<Problem>);

impl fmt::Display for Invalid {
    /// A line for each problem, whatever its names and values contain.
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
