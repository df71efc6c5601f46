//! The keys, and what to write instead of one that does not exist.

use std::sync::LazyLock;

use super::Config;

/// Returns every key, in the order of the file.
#[must_use]
pub fn keys() -> &'static [String] {
    static KEYS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let settings = Config::default().settings().into_iter();
        settings.map(|(key, _)| key).collect()
    });
    &KEYS
}

/// Returns the keys within `table`, which ends in a dot, without that prefix.
pub(super) fn keys_within(table: &str) -> Vec<&'static str> {
    let keys = keys().iter();
    keys.filter_map(|key| key.strip_prefix(table)).collect()
}

/// Quotes a name as TOML requires it: a dot within quotes does not select a table.
pub(super) fn quote(name: &str) -> String {
    let is_bare = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    if !name.is_empty() && name.chars().all(is_bare) {
        name.to_owned()
    } else {
        format!("{name:?}")
    }
}

/// Suggests known keys in place of an unknown one of `table`, which is empty or ends in a dot.
pub(super) fn hint(table: &str, name: &str) -> String {
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
    let near = keys.iter().copied().chain(tables).map(|known| {
        let likeness = strsim::normalized_damerau_levenshtein(known, &written);
        (known, likeness)
    });
    match near.max_by(|one, other| one.1.total_cmp(&other.1)) {
        Some((known, likeness)) if likeness >= NEAR => format!("did you mean {known}?"),
        _ => format!("expected one of {}", keys.join(", ")),
    }
}
