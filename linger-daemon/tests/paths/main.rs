//! Names read out of cgroup paths: of those that real systems build, and of any others.

mod properties;

use linger_daemon::attribution::Names;
use serde::Deserialize;

const TABLE: &str = include_str!("paths.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    path: Vec<Row>,
}

/// A path and the names in it. A column that the table omits is empty.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    path: String,
    unit: String,
    #[serde(default)]
    slice: String,
    #[serde(default)]
    container: String,
    #[serde(default)]
    pod: String,
    from: String,
}

impl Row {
    /// Returns how the names read out of this path differ, if they do.
    fn mismatch(&self) -> Option<String> {
        let expected = Names {
            unit: self.unit.clone(),
            slice: self.slice.clone(),
            container: self.container.clone(),
            pod: self.pod.clone(),
        };
        let found = Names::of(&self.path);
        (found != expected).then(|| {
            let Self { path, from, .. } = self;
            format!("{path} ({from})\n  expected {expected:?}\n  found    {found:?}")
        })
    }
}

fn rows() -> Vec<Row> {
    let table: Table = toml::from_str(TABLE).expect("the table is TOML of this form");
    table.path
}

#[test]
fn every_path_of_the_table_names_who_runs_there() {
    let mismatches: Vec<_> = rows().iter().filter_map(Row::mismatch).collect();
    assert!(
        mismatches.is_empty(),
        "{} paths are misread:\n{}",
        mismatches.len(),
        mismatches.join("\n")
    );
}

#[test]
fn a_very_long_path_names_its_innermost_unit() {
    let path = format!(
        "/a.slice{}/b.service{}",
        "/x".repeat(5000),
        "/y".repeat(5000)
    );
    let names = Names::of(&path);
    assert_eq!(
        (names.unit.as_str(), names.slice.as_str()),
        ("b.service", "a.slice")
    );
}
