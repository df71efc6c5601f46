//! Every query, against a real Prometheus that scrapes a real lingerd while closes of all kinds are made.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use linger_testkit::server::Server;

use crate::files::{dashboards, files, list, names, panels, text};
use crate::prometheus::Prometheus;

const LINGERD: &str = env!("CARGO_BIN_EXE_lingerd");

/// Longest time until all data is there, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Alerts that the closes of this test make true.
const CAUSED: [&str; 3] = [
    "LingerDataLostAfterClose",
    "LingerEventLoopBlocked",
    "LingerTimeouts",
];

/// Alerts that are not true of a working daemon, whatever else happens on this host.
const UNTRUE: [&str; 5] = [
    "LingerdAbsent",
    "LingerdCountsNothing",
    "LingerdDown",
    "LingerdNotAttached",
    "LingerdPlanFellBack",
];

/// A query as Grafana sends it.
#[derive(Clone, Debug)]
enum Query {
    /// For a table: the value now.
    Instant(String),
    /// For a graph.
    Range(String),
    /// For a variable: the values of a label.
    Labels(String, String),
}

/// A query, and the panel or variable that it belongs to.
type Named = (String, Query);

/// Returns all queries of the dashboards, with the initial choices.
fn queries() -> Vec<Named> {
    let mut all = Vec::new();
    for dashboard in dashboards() {
        let title = text(&dashboard["title"]);
        for variable in list(&dashboard["templating"]["list"]) {
            let query = text(&variable["query"]["query"]);
            if let Some(arguments) = query.strip_prefix("label_values(") {
                let (selector, label) = arguments.trim_end_matches(')').rsplit_once(", ").unwrap();
                let name = format!("{title}: variable {}", text(&variable["name"]));
                all.push((
                    name,
                    Query::Labels(label.to_owned(), interpolated(selector)),
                ));
            }
        }
        for panel in panels(&dashboard) {
            for target in list(&panel["targets"]) {
                let expression = interpolated(text(&target["expr"]));
                let query = match target["instant"].as_bool() {
                    Some(true) => Query::Instant(expression),
                    _ => Query::Range(expression),
                };
                let name = format!(
                    "{title}: {}: {}",
                    text(&panel["title"]),
                    text(&target["legendFormat"])
                );
                all.push((name, query));
            }
        }
    }
    all
}

/// Returns the queries in the alerts' runbooks: each begins a line, and a line that begins with an operator continues
/// it.
fn runbook_queries() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for page in files("docs/runbooks", "md") {
        let text = fs::read_to_string(&page).unwrap();
        let name = page.file_stem().unwrap().to_string_lossy().into_owned();
        for block in text.split("```promql\n").skip(1) {
            let (block, _) = block.split_once("```").unwrap();
            let lines = block.lines().map(str::trim);
            for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
                match all.last_mut() {
                    Some((_, query)) if line.starts_with('/') => *query += line,
                    _ => all.push((name.clone(), line.to_owned())),
                }
            }
        }
    }
    all
}

/// Replaces variables as Grafana does with everything chosen, with intervals wide enough for a slow machine.
fn interpolated(query: &str) -> String {
    let values = [
        ("$__rate_interval", "5m"),
        ("$__range", "1h"),
        ("$job", ".+"),
        ("$instance", ".+"),
        ("$unit", ".*"),
    ];
    let replaced = values
        .iter()
        .fold(query.to_owned(), |query, (name, value)| {
            query.replace(name, value)
        });
    assert!(!replaced.contains('$'), "an unknown variable: {replaced}");
    replaced
}

/// Returns how many series a query finds; all must be of lingerd, whatever else Prometheus scrapes.
fn ask(prometheus: &Prometheus, query: &Query) -> Result<usize, String> {
    let found = match query {
        Query::Instant(query) => prometheus.query(query),
        Query::Range(query) => prometheus.query_range(query),
        Query::Labels(label, selector) => prometheus.label_values(label, selector),
    }?;
    let own = prometheus.address().to_string();
    match found
        .iter()
        .find(|series| series["metric"]["instance"] == own.as_str())
    {
        Some(foreign) => Err(format!("found what is none of lingerd's: {foreign}")),
        None => Ok(found.len()),
    }
}

fn lingerd() -> (Server, SocketAddr) {
    let command = |address: SocketAddr| {
        let mut command = Command::new(LINGERD);
        command
            .args(["--log-level", "warn", "run", "--listen"])
            .arg(address.to_string())
            .stdout(Stdio::null());
        Ok(command)
    };
    let started = Server::start_somewhere("lingerd", command, "/readyz");
    started.unwrap_or_else(|error| panic!("{error:#}"))
}

/// Makes closes of every kind, and more of those that block.
fn exercise() {
    let blocking = "--kind lingered --kind linger_timeout --count 3";
    for options in ["", blocking] {
        let mut exercise = Command::new(LINGERD);
        exercise.arg("exercise").args(options.split_whitespace());
        // A kind that does not succeed this time may succeed the next.
        let status = exercise.stdout(Stdio::null()).status();
        status.expect("lingerd exercise starts");
    }
}

/// Waits until each query finds something, making closes all the while.
fn expect_data(prometheus: &Prometheus, queries: &[Named]) {
    let start = Instant::now();
    let mut pending = queries.to_vec();
    while !pending.is_empty() {
        assert!(
            start.elapsed() < PATIENCE,
            "{} of {} find nothing: {pending:#?}",
            pending.len(),
            queries.len()
        );
        exercise();
        pending.retain(|(name, query)| match ask(prometheus, query) {
            Ok(found) => found == 0,
            Err(error) => panic!("{name}: {query:?}: {error}"),
        });
    }
}

/// Waits until Prometheus has evaluated every rule without an error. Returns each alert's name and query.
fn expect_rules_to_work(prometheus: &Prometheus) -> Vec<(String, String)> {
    let start = Instant::now();
    loop {
        let rules = prometheus.rules();
        let broken = rules.iter().find(|rule| rule["health"] == "err");
        assert!(broken.is_none(), "{broken:#?}");
        if rules.iter().all(|rule| rule["health"] == "ok") {
            let found: BTreeSet<_> = rules
                .iter()
                .map(|rule| text(&rule["name"]).to_owned())
                .collect();
            let written = names("alert").into_iter().chain(names("record"));
            assert_eq!(found, written.collect());
            let alerts = rules.iter().filter(|rule| rule["type"] == "alerting");
            let named = alerts.map(|rule| {
                (
                    text(&rule["name"]).to_owned(),
                    text(&rule["query"]).to_owned(),
                )
            });
            return named.collect();
        }
        assert!(
            start.elapsed() < PATIENCE,
            "rules are not evaluated: {rules:#?}"
        );
        thread::sleep(Duration::from_millis(200));
    }
}

/// Waits until the named queries find something.
fn expect_found(prometheus: &Prometheus, queries: &[(String, String)], names: &[&str]) {
    let start = Instant::now();
    for name in names {
        let (_, query) = queries.iter().find(|(found, _)| found == name).unwrap();
        while prometheus.query(query).unwrap().is_empty() {
            assert!(start.elapsed() < PATIENCE, "{name} finds nothing");
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Returns the tables of alerts, each with a query for the rows of this alert.
fn tables_of_alerts(panels: &[Named], alert: &str) -> Vec<(String, String)> {
    let tables = panels.iter().filter_map(|(name, query)| match query {
        Query::Instant(query) if name.contains(": Alerts: ") => Some((
            name.clone(),
            format!("{query} and on (alertname) ALERTS_FOR_STATE{{alertname=\"{alert}\"}}"),
        )),
        _ => None,
    });
    tables.collect()
}

#[test]
fn every_query_finds_what_a_real_lingerd_counted() {
    let (lingerd, address) = lingerd();
    let prometheus = Prometheus::start(address);
    let alerts = expect_rules_to_work(&prometheus);
    let panels = queries();
    let now = |name: &str, query: &str| (name.to_owned(), Query::Instant(query.to_owned()));
    let recorded: Vec<_> = names("record").iter().map(|name| now(name, name)).collect();
    let caused = alerts
        .iter()
        .filter(|(name, _)| CAUSED.contains(&name.as_str()));
    let caused: Vec<_> = caused.map(|(name, query)| now(name, query)).collect();
    assert_eq!(caused.len(), CAUSED.len());
    expect_data(&prometheus, &[&panels[..], &recorded, &caused].concat());

    let shown: BTreeSet<_> = expect_rules_to_work(&prometheus).into_iter().collect();
    assert_eq!(shown, alerts.iter().cloned().collect());
    for (name, query) in &alerts {
        let found = prometheus.query(query);
        let found = found.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            found.is_empty() || !UNTRUE.contains(&name.as_str()),
            "{name} is true: {found:?}"
        );
    }
    let runbook_queries = runbook_queries();
    assert!(!runbook_queries.is_empty(), "no runbook has a query");
    for (page, query) in &runbook_queries {
        let found = prometheus.query(query);
        found.unwrap_or_else(|error| panic!("{page}: {query}: {error}"));
    }
    drop(lingerd);
    let blind = ["LingerdDown", "LingerdAbsent"];
    expect_found(&prometheus, &alerts, &blind);
    let tables = tables_of_alerts(&panels, "LingerdAbsent");
    let titles: Vec<_> = tables.iter().map(|(title, _)| title.as_str()).collect();
    assert_eq!(titles.len(), 2, "{titles:?}");
    expect_found(&prometheus, &tables, &titles);

    // Bypasses the harness, which captures standard output.
    let _ = writeln!(
        io::stderr(),
        "{} queries of panels and variables, {} recording rules, {} alerts and {} queries of their pages were \
         run against Prometheus; {} alerts were made true",
        panels.len(),
        recorded.len(),
        alerts.len(),
        runbook_queries.len(),
        caused.len() + blind.len()
    );
}
