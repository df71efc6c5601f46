//! Recording rules, alerts and their runbooks, by promtool.

use std::collections::BTreeSet;
use std::process::Command;

use linger_testkit::tools::tool;

use crate::files::{all_rules, files, list, names, path, text, yaml};

/// Expects promtool to accept these files.
fn expect_promtool(arguments: &[&str], folder: &str) {
    let output = Command::new(tool("promtool"))
        .args(arguments)
        .args(files(folder, "yaml"))
        .output()
        .expect("promtool: run `cargo xtask setup --for test`");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
}

#[test]
fn promtool_finds_the_rules_valid() {
    expect_promtool(
        &["check", "rules", "--lint=all", "--lint-fatal"],
        "dashboards/rules",
    );
}

#[test]
fn rules_record_and_alert_as_they_should() {
    expect_promtool(&["test", "rules"], "dashboards/tests");
}

#[test]
fn every_alert_is_tested_to_fire_and_not_to_fire_and_every_recording_rule_to_record() {
    let (mut fires, mut silent, mut recorded) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for file in files("dashboards/tests", "yaml") {
        for test in list(&yaml(&file)["tests"]) {
            for case in list(&test["alert_rule_test"]) {
                let name = text(&case["alertname"]).to_owned();
                let alerts = list(&case["exp_alerts"]);
                if alerts.is_empty() {
                    &mut silent
                } else {
                    &mut fires
                }
                .insert(name);
            }
            let with_samples = list(&test["promql_expr_test"]).iter();
            let with_samples = with_samples.filter(|case| !list(&case["exp_samples"]).is_empty());
            recorded.extend(with_samples.map(|case| text(&case["expr"]).to_owned()));
        }
    }
    let alerts = BTreeSet::from_iter(names("alert"));
    assert_eq!(fires, alerts, "those that are tested to fire");
    assert_eq!(silent, alerts, "those that are tested not to fire");
    let untested: Vec<_> = names("record")
        .into_iter()
        .filter(|name| !recorded.contains(name))
        .collect();
    assert!(untested.is_empty(), "not tested: {untested:?}");
}

#[test]
fn recording_rules_are_named_by_level_metric_and_operations() {
    let levels = [
        "job", "instance", "unit", "comm", "outcome", "cause", "fate", "le", "what", "map",
    ];
    for name in names("record") {
        let parts: Vec<_> = name.split(':').collect();
        let [level, metric, operations] = parts[..] else {
            panic!("{name}");
        };
        assert!(
            level.split('_').all(|label| levels.contains(&label)),
            "{name}"
        );
        assert!(
            metric.starts_with("linger_") && !operations.is_empty(),
            "{name}"
        );
    }
}

#[test]
fn every_alert_says_what_to_do_and_has_a_page_that_says_more() {
    let repository = format!("{}/blob/main/docs/runbooks", env!("CARGO_PKG_REPOSITORY"));
    let headings = [
        "Meaning",
        "What it costs",
        "How to see it",
        "What to do",
        "False alarms",
    ];
    for rule in all_rules().iter().filter(|rule| rule["alert"].is_string()) {
        let name = text(&rule["alert"]);
        let severity = text(&rule["labels"]["severity"]);
        assert!(
            ["info", "warning", "critical"].contains(&severity),
            "{name}: {severity}"
        );
        let annotations = &rule["annotations"];
        for key in ["summary", "description"] {
            assert!(text(&annotations[key]).ends_with('.'), "{name}: {key}");
        }
        assert_eq!(
            text(&annotations["runbook_url"]),
            format!("{repository}/{name}.md")
        );
        let page = std::fs::read_to_string(path(&format!("docs/runbooks/{name}.md")));
        let page = page.unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = page.lines().filter_map(|line| line.strip_prefix("## "));
        assert_eq!(found.collect::<Vec<_>>(), headings, "{name}");
    }
    let pages = files("docs/runbooks", "md").into_iter();
    let pages = pages.map(|page| page.file_stem().unwrap().to_string_lossy().into_owned());
    assert_eq!(
        pages.collect::<BTreeSet<_>>(),
        BTreeSet::from_iter(names("alert")),
        "pages and alerts"
    );
}
