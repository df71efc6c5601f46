//! Reads the configuration file, key by key.
//!
//! Each key is read separately, with its line, instead of deserializing the whole file into one type: this
//! reports all mistakes at once.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use nix::libc::O_NONBLOCK;
use nix::unistd::geteuid;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::raw_value::{RawValue, Value};
use super::{FileError, Key, Origin, Problem};

/// Maximum size of the file, bytes.
const LARGEST: u64 = 1 << 20;

/// Reads a file of settings as text.
pub(crate) fn text(path: &Path) -> Result<String, FileError> {
    // Do not block on a pipe without a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)?;
    check(&file, geteuid().is_root())?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(FileError::TooLarge);
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        FileError::NotUtf8(line(&newlines(error.as_bytes()), valid))
    })
}

/// Checks the open file, which can no longer be replaced.
fn check(file: &File, root: bool) -> Result<(), FileError> {
    const WRITABLE_BY_OTHERS: u32 = 0o002;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile);
    }
    if root && metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(FileError::WorldWritable);
    }
    Ok(())
}

/// Parses a file and calls `each` for every known key in it. Returns the other problems.
pub(super) fn each(text: &str, file: &Arc<Path>, each: impl FnMut(RawValue<'_>)) -> Vec<Problem> {
    let newlines = newlines(text.as_bytes());
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let mut walk = Walk {
            file,
            newlines,
            each,
            problems: Vec::new(),
        };
        walk.document(document.get_ref());
        return walk.problems;
    }
    let problems = errors.iter().map(|error| Problem::Syntax {
        file: Arc::clone(file),
        line: line(
            &newlines,
            error.span().map_or(text.len(), |span| span.start),
        ),
        why: error.message().to_owned(),
    });
    problems.collect()
}

/// The offsets of all newlines.
fn newlines(text: &[u8]) -> Vec<usize> {
    let bytes = text.iter().enumerate();
    bytes
        .filter_map(|(at, &byte)| (byte == b'\n').then_some(at))
        .collect()
}

/// The line of the byte at this offset, from 1.
fn line(newlines: &[usize], at: usize) -> usize {
    newlines.partition_point(|&newline| newline < at) + 1
}

struct Walk<'a, F> {
    file: &'a Arc<Path>,
    newlines: Vec<usize>,
    each: F,
    problems: Vec<Problem>,
}

impl<F: FnMut(RawValue<'_>)> Walk<'_, F> {
    fn document(&mut self, document: &DeTable<'_>) {
        for (name, value) in document {
            match (name.get_ref().as_ref(), value.get_ref()) {
                (table @ ("allow" | "deny"), DeValue::Table(entries)) => {
                    for (name, value) in entries {
                        self.entry(&format!("{table}."), name, value);
                    }
                }
                (table @ ("allow" | "deny"), other) => {
                    // Any key will do: the value is only shown.
                    let found = self.value(Key::AllowUnits, other);
                    self.problems.push(Problem::Value {
                        origin: self.origin(name),
                        key: table.to_owned(),
                        why: format!("found {found}, expected a table with units, comms, ports"),
                    });
                }
                _ => self.entry("", name, value),
            }
        }
    }

    /// An entry of a table, or of the document if the prefix is empty.
    fn entry<T: AsRef<str>>(
        &mut self,
        prefix: &str,
        name: &Spanned<T>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let origin = self.origin(name);
        let own = name.get_ref().as_ref();
        let mut keys = Key::ALL.iter();
        // A dot within quotes does not select a table.
        match keys.find(|key| key.place() == (prefix, own)) {
            Some(&key) => {
                let value = self.value(key, value.get_ref());
                (self.each)(RawValue { key, origin, value });
            }
            None => self.problems.push(Problem::UnknownKey {
                origin,
                name: format!("{prefix}{}", shown(own)),
                hint: hint(prefix, own),
            }),
        }
    }

    fn origin<T>(&self, spanned: &Spanned<T>) -> Origin {
        let line = line(&self.newlines, spanned.span().start);
        Origin::Line(Arc::clone(self.file), line)
    }

    fn value<'v>(&self, key: Key, value: &'v DeValue<'_>) -> Value<'v> {
        match value {
            DeValue::String(text) => Value::Text(text),
            DeValue::Integer(integer) => Value::Integer(integer),
            DeValue::Float(float) => Value::Other(float.to_string()),
            DeValue::Boolean(boolean) => Value::Boolean(*boolean),
            DeValue::Datetime(datetime) => Value::Other(datetime.to_string()),
            DeValue::Array(entries) => Value::List(
                entries
                    .iter()
                    .map(|entry| RawValue {
                        key,
                        origin: self.origin(entry),
                        value: self.value(key, entry.get_ref()),
                    })
                    .collect(),
            ),
            DeValue::Table(_) => Value::Other("a table".to_owned()),
        }
    }
}

/// A name as written in TOML.
fn shown(name: &str) -> String {
    let bare = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    if !name.is_empty() && name.chars().all(bare) {
        name.to_owned()
    } else {
        format!("{name:?}")
    }
}

/// Suggests what an unknown key could be.
fn hint(prefix: &str, own: &str) -> String {
    /// Two letters out of five may be wrong.
    const NEAR: f64 = 0.6;
    if !prefix.is_empty() && Key::ALL.iter().any(|key| key.place() == ("", own)) {
        return format!("{own} belongs above the first line in [ ]");
    }
    let keys = || {
        let names = Key::ALL.iter().map(|key| key.name());
        names.filter(|key| key.starts_with(prefix))
    };
    let tables = ["allow", "deny"].into_iter().filter(|_| prefix.is_empty());
    let written = format!("{prefix}{own}").to_lowercase().replace('_', "-");
    let near = keys()
        .chain(tables)
        .map(|known| {
            (
                known,
                strsim::normalized_damerau_levenshtein(known, &written),
            )
        })
        .max_by(|one, other| one.1.total_cmp(&other.1))
        .filter(|(_, likeness)| *likeness >= NEAR);
    match near {
        Some((known, _)) => format!("did you mean {known}?"),
        None => format!("expected one of {}", keys().collect::<Vec<_>>().join(", ")),
    }
}
