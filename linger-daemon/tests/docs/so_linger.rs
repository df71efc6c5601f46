//! Names in docs/so-linger.md: outcomes, and the scenarios that prove its statements.

use std::collections::BTreeSet;
use std::fs;

use linger_ebpf::{Fate, Outcome};
use serde::Deserialize;

use crate::{package, page};

#[derive(Deserialize)]
struct Expected {
    scenarios: BTreeSet<String>,
}

/// Returns the words in code of a cell.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn names_outcomes_and_scenarios_that_there_are() {
    let expected = fs::read_to_string(package().join("tests/expected.toml")).unwrap();
    let Expected { scenarios } = toml::from_str(&expected).unwrap();
    let outcomes = Outcome::ALL.iter().map(|outcome| outcome.name());
    let fates = Fate::ALL.iter().map(|fate| fate.name());
    let ends: BTreeSet<_> = outcomes.chain(fates).collect();
    let page = page("so-linger.md");
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let mut count = 0;
    for row in rows.filter(|row| !row.ends_with("| scenario |") && !row.starts_with("| ---")) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let [_, _, end, proof] = cells[..] else {
            panic!("a row has four cells: {row}");
        };
        for end in code(end) {
            assert!(ends.contains(end), "there is no outcome or fate {end}");
        }
        assert!(code(proof).count() > 0, "nothing proves: {row}");
        for scenario in code(proof) {
            assert!(
                scenarios.contains(scenario),
                "there is no scenario {scenario}"
            );
        }
        count += 1;
    }
    assert!(count > 20, "{count} rows");
}
