//! The expectations about where scenarios run: the file itself, and each way to differ from it.

#[path = "../common/expected.rs"]
mod expected;
#[path = "../common/summary.rs"]
#[expect(dead_code, reason = "shared with the scenarios")]
mod summary;

use std::fs;

use expected::{Environment, Evidence, Expected};
use linger_ebpf::Plan;
use linger_testkit::exposition::Scrape;
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
evidence = ["skipped_runs", "lost_close"]
at_most = 3

[[environments.here.known_failures]]
plans = ["fentry"]
scenarios = ["exact"]
reason = "it fails"
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

/// Returns the summary of these pairs as it is written, and of these that did not run.
fn written(ran: &[Pair], not_run: &[Pair]) -> Value {
    let mut summary = Summary::new(Some(here()));
    for pair in ran {
        summary.add(pair.clone());
    }
    for pair in not_run {
        summary.add_as_it_is(pair.clone());
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("summary");
    summary.end(Some(&file), &Value::Null).unwrap();
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn failed(scenario: &str) -> Pair {
    Pair::new(scenario, Plan::Fentry, Verdict::Failed("wrong".into()))
}

#[test]
fn a_known_failure_excuses_only_pairs_that_ran() {
    let written = written(&[failed("exact")], &[failed("exact")]);
    assert_eq!(written["known_failures"], json!(1), "{written}");
    assert_eq!(written["failed"], json!(1), "{written}");
}

#[test]
fn a_known_failure_excuses_only_pairs_with_its_evidence() {
    let pairs = [
        failed("load").showing([Evidence::LostClose].into()),
        failed("load").showing([Evidence::LostGroup].into()),
        failed("load"),
    ];
    let written = written(&pairs, &[]);
    assert_eq!(written["known_failures"], json!(1), "{written}");
    assert_eq!(written["failed"], json!(2), "{written}");
    let detail = written["pairs"][2]["detail"].as_str().unwrap();
    assert!(detail.contains("no evidence of"), "{detail}");
}

#[test]
fn evidence_is_what_grew_between_two_scrapes() {
    let scrape = |skipped, close, group| {
        Scrape::parse(&format!(
            "linger_probe_skipped_runs_total{{program=\"close_enter\"}} {skipped}\n\
             linger_lost_total{{what=\"close\"}} {close}\n\
             linger_lost_total{{what=\"group\"}} {group}\n"
        ))
        .unwrap()
    };
    let before = scrape(3, 2, 0);
    let between = |after| Evidence::between(&before, &after);
    assert_eq!(between(scrape(3, 2, 0)), [].into());
    assert_eq!(between(scrape(4, 2, 0)), [Evidence::SkippedRuns].into());
    let lost = [Evidence::LostClose, Evidence::LostGroup];
    assert_eq!(between(scrape(3, 3, 1)), lost.into());
    let all = Evidence::between(&Scrape::default(), &before);
    assert_eq!(all, [Evidence::SkippedRuns, Evidence::LostClose].into());
}

#[test]
fn a_wildcard_without_evidence_is_an_error() {
    let without = FILE.replace("evidence = [\"skipped_runs\", \"lost_close\"]\n", "");
    let error = Expected::parse(&without).unwrap_err().to_string();
    assert!(error.contains("needs evidence"), "{error}");
    let unknown = FILE.replace("lost_close", "lost_keys");
    assert!(Expected::parse(&unknown).is_err());
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
