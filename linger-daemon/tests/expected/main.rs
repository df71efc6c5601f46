//! The expectations about where scenarios run: the file itself, and each way to differ from it.

#[path = "../common/expected.rs"]
mod expected;
#[path = "../common/summary.rs"]
#[expect(dead_code, reason = "shared with the scenarios")]
mod summary;

use std::fs;

use expected::{Environment, Expected};
use linger_ebpf::Plan;
use serde_json::{Value, json};
use summary::{Pair, Summary, Verdict};

const FILE: &str = r#"
scenarios = ["one", "two"]

[environments.here]
refuses.kprobe = "no tracefs"
lacks = { browser = "none is here" }

[[environments.here.known_failures]]
plans = ["fentry"]
scenarios = ["lin*_timeout", "load"]
reason = "runs are skipped"
at_most = 3
"#;

fn parsed() -> Expected {
    Expected::parse(FILE).unwrap()
}

fn here() -> Environment {
    parsed().environment("here").unwrap()
}

#[test]
fn the_file_is_well_formed_and_names_every_kernel_of_the_table() {
    let expected = Expected::read().unwrap();
    for name in [
        "native",
        "host",
        "6.1",
        "6.12",
        "6.12-full",
        "6.12-rt",
        "6.18",
        "7.3",
        "7.3-rt",
        "6.1-arm64",
        "6.12-arm64",
        "6.18-arm64",
        "7.3-arm64",
    ] {
        assert!(expected.environment(name).is_ok(), "{name}");
    }
}

#[test]
fn an_environment_that_is_not_there_is_an_error_that_names_those_that_are() {
    let error = parsed().environment("there").unwrap_err().to_string();
    assert!(error.contains("there") && error.contains("here"), "{error}");
}

#[test]
fn a_plan_is_refused_only_if_it_is_written_down_and_for_that_reason() {
    let here = here();
    assert!(here.offers("fentry"));
    assert!(!here.offers("kprobe"));
    assert_eq!(here.misjudges("kprobe", "there is no tracefs"), None);
    assert!(here.misjudges("kprobe", "error 524").is_some());
    assert!(here.misjudges("fentry", "there is no tracefs").is_some());
}

#[test]
fn failures_are_known_by_plan_and_pattern() {
    let here = here();
    let known = |scenario, plan| {
        let known = here.known_failure(scenario, plan);
        known.map(|known| (known.reason.as_str(), known.at_most))
    };
    let skipped = Some(("runs are skipped", Some(3)));
    assert_eq!(known("linger_timeout", "fentry"), skipped);
    assert_eq!(known("load", "fentry"), skipped);
    assert_eq!(known("load_first", "fentry"), None);
    assert_eq!(known("linger_timeout", "tracepoint"), None);
}

#[test]
fn a_known_failure_excuses_only_pairs_that_ran() {
    let failed = || Pair::new("load", Plan::Fentry, Verdict::Failed("wrong".into()));
    let mut summary = Summary::new(Some(here()));
    summary.add(failed());
    summary.add_as_it_is(failed());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("summary");
    summary.end(Some(&file), &Value::Null).unwrap();
    let written: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(written["known_failures"], json!(1), "{written}");
    assert_eq!(written["failed"], json!(1), "{written}");
}

#[test]
fn new_and_missing_scenarios_and_unknown_needs_are_reported() {
    let differences =
        |names: &[&str], needs: &[&str]| parsed().differences(names.iter().copied(), needs);
    assert!(differences(&["one", "two"], &["browser"]).is_empty());
    for (names, needs, told) in [
        (&["one", "two", "three"][..], &["browser"][..], "three"),
        (&["one"], &["browser"], "two"),
        (&["one", "two"], &[], "browser"),
    ] {
        let found = differences(names, needs);
        assert!(found.len() == 1 && found[0].contains(told), "{found:?}");
    }
}

#[test]
fn an_unknown_key_is_an_error() {
    assert!(Expected::parse(&format!("{FILE}\nunknown = 1")).is_err());
}
