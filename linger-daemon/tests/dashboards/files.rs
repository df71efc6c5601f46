//! The files under test, as they are in the repository.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Returns a path of the repository.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// Returns the files of a folder with this extension, by name.
pub(crate) fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(path(folder)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    assert!(!files.is_empty(), "{folder} has no .{extension}");
    files
}

/// Returns this list, or an empty one.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Returns this text, or an empty one.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Reads a YAML file.
pub(crate) fn yaml(file: &Path) -> Value {
    let text = fs::read_to_string(file).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Returns all dashboards.
pub(crate) fn dashboards() -> Vec<Value> {
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    };
    files("dashboards", "json").into_iter().map(read).collect()
}

/// Returns the panels of a dashboard that draw something.
pub(crate) fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let all = list(&dashboard["panels"]).iter();
    all.filter(|panel| panel["type"] != "row")
}

/// Returns all recording rules and alerts.
pub(crate) fn all_rules() -> Vec<Value> {
    let files = files("dashboards/rules", "yaml");
    let groups = files.iter().flat_map(|file| {
        let file = yaml(file);
        list(&file["groups"]).to_vec()
    });
    groups
        .flat_map(|group| list(&group["rules"]).to_vec())
        .collect()
}

/// Returns the names of all rules of a kind, `alert` or `record`.
pub(crate) fn names(kind: &str) -> Vec<String> {
    let rules = all_rules();
    let named = rules.iter().filter_map(|rule| rule[kind].as_str());
    named.map(str::to_owned).collect()
}
