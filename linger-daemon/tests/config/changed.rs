//! Settings that a running daemon takes over from a new file.

use linger_daemon::config::{Config, changes, in_effect};

use crate::fixture::config;

/// Returns the lines that the log shows, and the configuration in effect then.
fn change(running: &str, wanted: &str) -> (Vec<String>, Config) {
    let (running, wanted) = (config(running), config(wanted));
    let changes = changes(&running, &wanted);
    let lines = changes.iter().map(ToString::to_string).collect();
    (lines, in_effect(&running, &wanted))
}

#[test]
fn the_same_settings_change_nothing() {
    let text = "labels = [\"port\"]\nports = [1, 2]\ndeny.units = [\"a\"]";
    let same = "labels = [\"port\"]\nports = [\"1-2\"]\n[deny]\nunits = [\"a\"]";
    assert_eq!(change(text, same), (vec![], config(text)));
}

#[test]
fn settings_that_need_no_attaching_are_taken_over() {
    let wanted = r#"
        log-level = "debug"
        max-series = 5000
        retire-after = "5m"
        orphan-ttl = "1h"
        [allow]
        units = ["a.service"]
        comms = ["a"]
        ports = [1]
        [deny]
        units = ["b.service"]
        comms = ["b"]
        ports = [2]
    "#;
    let (lines, effect) = change("", wanted);
    assert_eq!(
        lines,
        [
            r#"log-level: "info" -> "debug""#,
            "max-series: 100000 -> 5000",
            r#"retire-after: "15m" -> "5m""#,
            r#"orphan-ttl: "30m" -> "1h""#,
            r#"allow.units: [] -> ["a.service"]"#,
            r#"allow.comms: [] -> ["a"]"#,
            "allow.ports: [] -> [1]",
            r#"deny.units: [] -> ["b.service"]"#,
            r#"deny.comms: [] -> ["b"]"#,
            "deny.ports: [] -> [2]",
        ]
    );
    assert_eq!(effect, config(wanted));
}

#[test]
fn settings_fixed_by_attaching_stay() {
    let wanted = r#"
        listen = "127.0.0.1:1"
        plan = "kprobe"
        labels = ["comm"]
        max-groups = 10
        max-orphans = 10
        retire-after = "5m"
    "#;
    let (lines, effect) = change("", wanted);
    assert_eq!(
        lines,
        [
            r#"listen: "127.0.0.1:10546" -> "127.0.0.1:1" needs a restart"#,
            r#"plan: "auto" -> "kprobe" needs a restart"#,
            r#"labels: ["unit", "comm"] -> ["comm"] needs a restart"#,
            "max-groups: 4096 -> 10 needs a restart",
            r#"retire-after: "15m" -> "5m""#,
            "max-orphans: 65536 -> 10 needs a restart",
        ]
    );
    assert_eq!(effect, config("retire-after = \"5m\""));
}

#[test]
fn ports_change_only_where_they_are_told_apart_already() {
    let with = |ports: &str| format!("labels = [\"port\"]\nports = {ports}");
    let (lines, effect) = change(&with("[443]"), &with("[80, 443]"));
    assert_eq!(lines, ["ports: [443] -> [80, 443]"]);
    assert_eq!(effect, config(&with("[80, 443]")));

    for (running, wanted) in [("", with("[80]")), (&with("[443]"), String::new())] {
        let (lines, effect) = change(running, &wanted);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().all(|line| line.ends_with(" needs a restart")));
        assert_eq!(effect, config(running));
    }
}

#[test]
fn series_never_become_fewer_than_the_groups_that_run() {
    let (lines, effect) = change(
        "max-groups = 60000",
        "max-groups = 1000\nmax-series = 59999",
    );
    assert_eq!(
        lines,
        [
            "max-groups: 60000 -> 1000 needs a restart",
            "max-series: 100000 -> 59999 needs a restart",
        ]
    );
    assert_eq!(effect.max_series, 100_000);
}
