//! How values are read and written.
//!
//! Errors describe valid values: whoever reports one knows the key, its place and the value found.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
use toml::Value;

use crate::attribution::Dimension;
use crate::logging::LogFilter;

/// Reads a value; `expected` describes valid ones.
pub(super) fn one<'de, D: Deserializer<'de>, T>(
    from: D,
    expected: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<T, D::Error> {
    read(&Value::deserialize(from)?).ok_or_else(|| D::Error::custom(expected))
}

/// Reads a list of different entries; `expected` describes valid ones.
pub(super) fn list<'de, D: Deserializer<'de>, T: Ord>(
    from: D,
    expected: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<BTreeSet<T>, D::Error> {
    let Value::Array(entries) = Value::deserialize(from)? else {
        return Err(D::Error::custom("a list in [ ]"));
    };
    different(&entries, read).ok_or_else(|| D::Error::custom(expected))
}

/// The entries of a list, if all are valid and no two the same.
pub(super) fn different<T: Ord>(
    entries: &[Value],
    read: impl Fn(&Value) -> Option<T>,
) -> Option<BTreeSet<T>> {
    let list: BTreeSet<T> = entries.iter().map(read).collect::<Option<_>>()?;
    (list.len() == entries.len()).then_some(list)
}

pub(super) fn boolean<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    one(from, "true or false", Value::as_bool)
}

pub(super) fn whole<'de, D: Deserializer<'de>, const LEAST: u32, const MOST: u32>(
    from: D,
) -> Result<u32, D::Error> {
    let expected = format!("a whole number from {LEAST} to {MOST}");
    one(from, &expected, |value| {
        let number = value.as_integer()?.try_into().ok()?;
        (LEAST..=MOST).contains(&number).then_some(number)
    })
}

pub(super) fn absolute_path<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    one(from, "a path that begins with /", |value| {
        let path = PathBuf::from(value.as_str()?);
        path.is_absolute().then_some(path)
    })
}

pub(super) fn log_filter<'de, D: Deserializer<'de>>(from: D) -> Result<LogFilter, D::Error> {
    const EXPECTED: &str = "a level (error, warn, info, debug or trace), or levels by module as in \
                            info,linger_daemon::http=debug";
    one(from, EXPECTED, |value| value.as_str()?.parse().ok())
}

/// One of the names known to the command line.
pub(super) fn choice<'de, D: Deserializer<'de>, T: ValueEnum>(from: D) -> Result<T, D::Error> {
    one(from, &one_of::<T>(), by_name)
}

pub(super) fn labels<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Dimension>, D::Error> {
    let labels = list(from, &one_of::<Dimension>(), by_name)?;
    Ok(labels.into_iter().collect())
}

pub(super) fn comms<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<String>, D::Error> {
    /// Maximum length of a process name, bytes.
    const LONGEST: usize = 15;
    list(from, "the name of a process, of 1 to 15 bytes", |value| {
        let comm = value.as_str()?;
        let valid = (1..=LONGEST).contains(&comm.len()) && !comm.contains('\0');
        valid.then(|| comm.to_owned())
    })
}

fn by_name<T: ValueEnum>(value: &Value) -> Option<T> {
    T::from_str(value.as_str()?, false).ok()
}

fn one_of<T: ValueEnum>() -> String {
    let values = T::value_variants().iter().filter_map(T::to_possible_value);
    let names: Vec<_> = values.map(|value| value.get_name().to_owned()).collect();
    format!("one of {}", names.join(", "))
}

/// The path of a file; `None` if the text is empty.
pub(super) fn optional_path<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<PathBuf>, D::Error> {
    one(from, "the path of a file", |value| {
        let path = value.as_str().filter(|path| !path.contains('\0'))?;
        Some((!path.is_empty()).then(|| path.into()))
    })
}

#[expect(clippy::ref_option, reason = "serde gives it so")]
pub(super) fn path_text<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
    path.clone().unwrap_or_default().serialize(to)
}

/// A time; a bare number is in seconds.
pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    const EXPECTED: &str =
        "at least 1s: a number of seconds such as 90, or a time such as \"1h 30m\"";
    one(from, EXPECTED, |value| {
        let time = match value.as_integer() {
            Some(seconds) => Duration::from_secs(seconds.try_into().ok()?),
            None => humantime::parse_duration(value.as_str()?).ok()?,
        };
        (time >= Duration::from_secs(1)).then_some(time)
    })
}

pub(super) fn duration_text<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_duration(*time))
}
