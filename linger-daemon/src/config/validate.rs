//! Validates values of the file, the environment and flags, all of them in the form of TOML.

use std::collections::BTreeSet;
use std::slice;

use toml::de::DeValue;
use toml::{Spanned, Value};

use super::value::expected;
use super::{Config, Origin, Problem};

/// Creates a value from a word of a flag or the environment.
pub(super) fn word(word: &str) -> Spanned<DeValue<'_>> {
    Spanned::new(0..0, DeValue::String(word.into()))
}

/// Reads the value of a flag: text, or an array of texts whose entries are separated by commas.
pub(super) fn flag(value: &Value) -> Spanned<DeValue<'_>> {
    let Some(lists) = value.as_array() else {
        return word(value.as_str().unwrap_or_default());
    };
    let lists = lists.iter().filter_map(Value::as_str);
    let lists = lists.filter(|list| !list.is_empty());
    let entries = lists.flat_map(|list| list.split(',').map(str::trim).map(word));
    Spanned::new(0..0, DeValue::Array(entries.collect()))
}

/// Returns the value in the form that a key accepts; fails with all problems found. `origin` returns the origin of the
/// value, or of an entry of its list, by its offset in the file.
pub(super) fn validate(
    key: &str,
    raw: &Spanned<DeValue<'_>>,
    origin: &dyn Fn(usize) -> Origin,
) -> Result<Value, Vec<Problem>> {
    let default = Config::default().value(key);
    let is_list = default.is_some_and(|value| value.is_array());
    let (entries, is_in_list) = match raw.get_ref() {
        DeValue::Array(entries) if !entries.is_empty() && (is_list || key == "listen") => {
            (&entries[..], true)
        }
        _ => (slice::from_ref(raw), false),
    };
    let is_word = !matches!(origin(0), Origin::Line(..));
    let (mut values, mut problems, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for entry in entries {
        let mut candidates = candidates(entry.get_ref(), is_word).into_iter();
        let accepted = candidates.find_map(|value| {
            let whole = if is_in_list {
                vec![value.clone()].into()
            } else {
                value.clone()
            };
            // Equal entries may differ: compare how the file would have them.
            let config = Config::default().with(key, whole)?;
            Some((value, config.value(key)?.to_string()))
        });
        let why = match accepted {
            Some((value, written)) if seen.insert(written.clone()) => {
                values.push(value);
                continue;
            }
            Some(_) => " again, expected it once".to_owned(),
            None if is_list && !is_in_list => ", expected a list in [ ]".to_owned(),
            None => format!(", expected {}", expected(key)),
        };
        let why = format!("found {}{why}", found(entry.get_ref()));
        problems.push(Problem::new(&origin(entry.span().start), key, &why));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(if is_in_list {
        values.into()
    } else {
        values.remove(0)
    })
}

/// Returns the possible readings of a value: a word of a flag is text, and perhaps a number or a boolean. A list is
/// empty here, because its entries are validated one by one.
fn candidates(value: &DeValue<'_>, is_word: bool) -> Vec<Value> {
    match value {
        DeValue::String(word) if is_word => {
            let number = word.parse().ok().map(Value::Integer);
            let boolean = word.parse().ok().map(Value::Boolean);
            let text = Some(word.as_ref().into());
            [text, number, boolean].into_iter().flatten().collect()
        }
        DeValue::String(text) => vec![text.as_ref().into()],
        DeValue::Integer(integer) => {
            let integer = i64::from_str_radix(integer.as_str(), integer.radix());
            integer.map(Value::Integer).into_iter().collect()
        }
        DeValue::Boolean(boolean) => vec![(*boolean).into()],
        DeValue::Array(_) => vec![Value::Array(Vec::new())],
        // No key accepts these.
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => Vec::new(),
    }
}

pub(super) fn found(value: &DeValue<'_>) -> String {
    /// Number of characters from which on text is truncated.
    const LONGEST: usize = 60;
    match value {
        DeValue::String(text) => match text.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{:?}…", &text[..end]),
            None => format!("{text:?}"),
        },
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::Array(entries) if entries.is_empty() => "an empty list".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
