//! Reads the configuration file.
//!
//! Entries are checked one by one, with their lines, instead of deserializing the whole file, to report all mistakes
//! at once.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use nix::libc::O_NONBLOCK;
use nix::unistd::geteuid;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::raw_value::RawValue;
use super::{FileError, Origin, Problem, keys};

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
        let newlines = error.as_bytes()[..valid]
            .iter()
            .filter(|byte| **byte == b'\n');
        FileError::NotUtf8(newlines.count() + 1)
    })
}

/// Checks the file once it is open, and can no longer be replaced.
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

/// A key with its value, or a problem if there is no such key.
pub(super) type Entry = Result<(&'static str, RawValue), Problem>;

/// Splits a file into its entries; fails with all errors if it is not valid TOML.
pub(super) fn entries(text: &str, file: &Arc<Path>) -> Result<Vec<Entry>, Vec<Problem>> {
    let newlines: Vec<_> = text.match_indices('\n').map(|(at, _)| at).collect();
    let line = |at| newlines.partition_point(|&newline| newline < at) + 1;
    let origin = |at| Origin::Line(Arc::clone(file), line(at));
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let errors = errors.iter().map(|error| {
            let at = error.span().map_or(text.len(), |span| span.start);
            let text = format!("{}: invalid TOML: {}", origin(at), error.message());
            Problem {
                line: line(at),
                text,
            }
        });
        return Err(errors.collect());
    }
    let entry_of = |table: &str, name: Spanned<Cow<'_, str>>, value| {
        let value = RawValue::toml(origin(name.span().start), value, &origin);
        entry(table, name.get_ref(), value)
    };
    let mut entries = Vec::new();
    for (name, value) in document.into_inner() {
        let (table, span) = (format!("{}.", name.get_ref()), value.span());
        match value.into_inner() {
            DeValue::Table(content) if keys().iter().any(|key| key.starts_with(&table)) => {
                let content = content.into_iter();
                entries.extend(content.map(|(name, value)| entry_of(&table, name, value)));
            }
            value => entries.push(entry_of("", name, Spanned::new(span, value))),
        }
    }
    Ok(entries)
}

/// Looks up the key of an entry of `table`, which is empty or ends in a dot.
fn entry(table: &str, name: &str, value: RawValue) -> Entry {
    // Quote names as TOML requires it: a dot within quotes does not select a table.
    let is_bare = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    let name = if !name.is_empty() && name.chars().all(is_bare) {
        name.to_owned()
    } else {
        format!("{name:?}")
    };
    let full = format!("{table}{name}");
    if let Some(key) = keys().iter().find(|key| **key == full) {
        return Ok((key, value));
    }
    let within = format!("{full}.");
    let inner = keys().iter().filter_map(|key| key.strip_prefix(&within));
    let inner: Vec<_> = inner.collect();
    let why = if inner.is_empty() {
        format!("unknown key, {}", hint(table, &name))
    } else {
        let (found, inner) = (&value.found, inner.join(", "));
        format!("found {found}, expected a table with {inner}")
    };
    Err(Problem::key(&value.origin, &full, &why))
}

/// Suggests known keys in place of an unknown one.
fn hint(table: &str, name: &str) -> String {
    /// Minimum likeness, 0 to 1: two letters out of five may be wrong.
    const NEAR: f64 = 0.6;
    if !table.is_empty() && keys().iter().any(|key| key == name) {
        return format!("{name} belongs above the first line in [ ]");
    }
    let keys = keys().iter().map(String::as_str);
    let keys: Vec<_> = keys.filter(|key| key.starts_with(table)).collect();
    let tables = keys.iter().filter_map(|key| Some(key.split_once('.')?.0));
    let tables = tables.filter(|_| table.is_empty());
    let written = format!("{table}{name}").to_lowercase().replace('_', "-");
    let likeness = |known: &&str| strsim::normalized_damerau_levenshtein(known, &written);
    let near = keys
        .iter()
        .copied()
        .chain(tables)
        .map(|known| (known, likeness(&known)));
    match near.max_by(|one, other| one.1.total_cmp(&other.1)) {
        Some((known, likeness)) if likeness >= NEAR => format!("did you mean {known}?"),
        _ => format!("expected one of {}", keys.join(", ")),
    }
}
