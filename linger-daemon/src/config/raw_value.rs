//! Values of the file, the environment and flags, before their validation.

use std::collections::BTreeSet;

use serde::Deserialize as _;
use toml::de::{DeValue, ValueDeserializer};
use toml::{Spanned, Table, Value};

use super::value::expected;
use super::{Config, Origin, Problem};

/// A value before its validation.
pub(super) struct RawValue {
    pub(super) origin: Origin,
    /// The value as messages show it.
    pub(super) found: String,
    /// Possible readings: a word of a flag is text, and perhaps a number or a boolean. A list is empty here.
    candidates: Vec<Value>,
    /// The entries of a list.
    entries: Vec<RawValue>,
}

impl RawValue {
    /// Creates a value from a word of a flag or the environment.
    pub(super) fn word(origin: Origin, word: &str) -> Self {
        let mut raw = Self::one(origin, quoted(word), word.into());
        raw.candidates.extend(word.parse().map(Value::Integer));
        raw.candidates.extend(word.parse().map(Value::Boolean));
        raw
    }

    /// Reads the value of a flag: text, or an array of texts whose entries are separated by commas.
    pub(super) fn flag(key: &str, value: &Value) -> Self {
        let origin = || Origin::Flag(key.to_owned());
        let word = |word: &str| Self::word(origin(), word);
        let Some(lists) = value.as_array() else {
            return word(value.as_str().unwrap_or_default());
        };
        let lists = lists.iter().filter_map(Value::as_str);
        let entries = lists
            .filter(|list| !list.is_empty())
            .flat_map(|list| list.split(','));
        Self::list(origin(), entries.map(str::trim).map(word).collect())
    }

    /// Creates a list, whose entries are checked one by one.
    fn list(origin: Origin, entries: Vec<Self>) -> Self {
        let found = if entries.is_empty() {
            "an empty list"
        } else {
            "a list"
        };
        Self {
            entries,
            ..Self::one(origin, found.to_owned(), Value::Array(Vec::new()))
        }
    }

    /// Reads a value of the file; `line` returns the origin of a list's entry, by its offset.
    pub(super) fn toml(
        origin: Origin,
        value: Spanned<DeValue<'_>>,
        line: &dyn Fn(usize) -> Origin,
    ) -> Self {
        let found = match value.get_ref() {
            DeValue::String(text) => quoted(text),
            DeValue::Integer(integer) => integer.to_string(),
            DeValue::Float(float) => float.to_string(),
            DeValue::Boolean(boolean) => boolean.to_string(),
            DeValue::Datetime(datetime) => datetime.to_string(),
            DeValue::Array(entries) => {
                let entries = entries.iter().cloned();
                let raw = |entry: Spanned<_>| Self::toml(line(entry.span().start), entry, line);
                return Self::list(origin, entries.map(raw).collect());
            }
            DeValue::Table(_) => "a table".to_owned(),
        };
        // Dates, which keys would read as text, and numbers too large for a value become a table, which no key accepts.
        let value = Value::deserialize(ValueDeserializer::from(value)).ok();
        let value = value.filter(|value| !value.is_datetime());
        Self::one(origin, found, value.unwrap_or(Table::new().into()))
    }

    /// Creates a value that is not a list.
    pub(super) fn one(origin: Origin, found: String, value: Value) -> Self {
        Self {
            origin,
            found,
            candidates: vec![value],
            entries: Vec::new(),
        }
    }

    /// Returns the value in the form that a key accepts; fails with all problems found.
    pub(super) fn check(&self, key: &str) -> Result<Value, Vec<Problem>> {
        let default = Config::default().value(key);
        let is_list = default.is_some_and(|value| value.is_array());
        if self.entries.is_empty() || !(is_list || key == "listen") {
            let expected = if is_list {
                "a list in [ ]".to_owned()
            } else {
                expected(key)
            };
            let accepted = self.accepted(key, |value| value);
            return accepted
                .map(|(value, _)| value)
                .ok_or_else(|| vec![self.problem(key, &format!(", expected {expected}"))]);
        }
        let (mut list, mut problems, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for entry in &self.entries {
            match entry.accepted(key, |value| vec![value].into()) {
                Some((value, written)) if seen.insert(written.clone()) => list.push(value),
                Some(_) => problems.push(entry.problem(key, " again, expected it once")),
                None => {
                    let expected = format!(", expected {}", expected(key));
                    problems.push(entry.problem(key, &expected));
                }
            }
        }
        if problems.is_empty() {
            Ok(list.into())
        } else {
            Err(problems)
        }
    }

    /// Returns the first candidate that a key accepts, and its text as written in the file.
    fn accepted(&self, key: &str, wrap: impl Fn(Value) -> Value) -> Option<(Value, String)> {
        self.candidates.iter().find_map(|candidate| {
            let config = Config::default().with(key, wrap(candidate.clone()))?;
            Some((candidate.clone(), config.value(key)?.to_string()))
        })
    }

    fn problem(&self, key: &str, why: &str) -> Problem {
        let found = &self.found;
        Problem::key(&self.origin, key, &format!("found {found}{why}"))
    }
}

/// Quotes text, and truncates it if it is long.
fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
