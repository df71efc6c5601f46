//! A real Prometheus that scrapes known counts, in the format that it chooses itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

use linger_daemon::metrics::Format;
use linger_testkit::exposition::{Sample, Scrape};
use linger_testkit::prometheus::{ask, command};
use linger_testkit::server::{self, PAUSE, START};
use serde_json::{Value, json};

use crate::fixture;
use crate::server::Server;

/// A series: its name and its labels, in order.
type Series = BTreeMap<String, String>;

#[test]
fn a_real_prometheus_has_every_series_by_open_metrics() {
    let lingerd = Server::attached();
    let folder = tempfile::tempdir().unwrap();
    let settings = json!({
        "global": { "scrape_interval": "1s" },
        "scrape_configs": [{
            "job_name": "lingerd",
            "static_configs": [{ "targets": [lingerd.address().to_string()] }],
        }],
    });
    let command = |address| command(folder.path(), &settings, address);
    let started = server::Server::start_somewhere("prometheus", command, "/-/ready");
    let (_prometheus, address) = started.unwrap_or_else(|error| panic!("{error:#}"));
    let found = scraped(address);

    let text = fixture::exposition(fixture::snapshot(), Format::OpenMetrics);
    let written = Scrape::parse(&text).unwrap().0;
    let names = |all: &BTreeMap<Series, f64>| all.keys().cloned().collect::<BTreeSet<_>>();
    let expected: BTreeMap<_, _> = written.iter().map(series).collect();
    assert_eq!(expected.len(), written.len());
    assert_eq!(names(&found), names(&expected));
    let changing = ["process_", "linger_scrape_duration_seconds"];
    for (series, value) in &found {
        let name = &series["__name__"];
        if !changing.iter().any(|start| name.starts_with(start)) {
            let is_same = value.total_cmp(&expected[series]).is_eq();
            assert!(is_same, "{series:?} is {value}");
        }
    }
    expect_types(address, &text);
}

/// Returns the series of lingerd, once scraped.
fn scraped(address: SocketAddr) -> BTreeMap<Series, f64> {
    let start = Instant::now();
    loop {
        let data = ask(address, "query", &[("query", r#"{job="lingerd"}"#)]).unwrap();
        let found: BTreeMap<_, _> = list(&data["result"]).iter().filter_map(stored).collect();
        if !found.is_empty() {
            return found;
        }
        let targets = ask(address, "targets", &[]).unwrap();
        assert!(start.elapsed() < START, "nothing is scraped: {targets:#}");
        thread::sleep(PAUSE);
    }
}

/// Returns a stored series without the labels of the target; `None` for Prometheus' own.
fn stored(series: &Value) -> Option<(Series, f64)> {
    let mut labels: Series = serde_json::from_value(series["metric"].clone()).unwrap();
    labels.remove("job");
    labels.remove("instance");
    let name = labels["__name__"].as_str();
    let is_own = name == "up" || name.starts_with("scrape_");
    let value = series["value"][1].as_str().unwrap().parse().unwrap();
    (!is_own).then_some((labels, value))
}

/// Returns a sample as Prometheus stores it: without empty labels.
fn series(sample: &Sample) -> (Series, f64) {
    let labels = sample.labels.iter().filter(|(_, value)| !value.is_empty());
    let name = ("__name__".to_owned(), sample.name.clone());
    (labels.cloned().chain([name]).collect(), sample.value)
}

/// Expects it to know type, unit and help of every family.
fn expect_types(address: SocketAddr, text: &str) {
    let known = ask(address, "targets/metadata", &[]).unwrap();
    let known: BTreeMap<_, _> = list(&known)
        .iter()
        .map(|one| (one["metric"].as_str().unwrap(), one))
        .collect();
    let lines = |what| text.lines().filter_map(move |line| line.strip_prefix(what));
    let pairs = |what| lines(what).map(|line| line.split_once(' ').unwrap());
    let units: BTreeMap<_, _> = pairs("# UNIT ").collect();
    let types: Vec<_> = pairs("# TYPE ").collect();
    for &(name, kind) in &types {
        let one = known
            .get(name)
            .unwrap_or_else(|| panic!("{name} is unknown: {known:#?}"));
        let unit = units.get(name).copied().unwrap_or_default();
        assert_eq!(
            (&one["type"], &one["unit"]),
            (&json!(kind), &json!(unit)),
            "{name}"
        );
        assert_ne!(one["help"], "", "{name}");
    }
    assert!(types.len() > 20 && units.len() > 8, "{types:?} {units:?}");
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
