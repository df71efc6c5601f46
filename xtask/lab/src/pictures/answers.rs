//! The answers of a Prometheus to the queries of the dashboards.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use linger_testkit::prometheus;
use linger_testkit::server::Server;
use linger_xtask::architecture::Architecture;
use linger_xtask::artifacts;
use linger_xtask::shell::{command, root};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::grafana::{Times, filled_in, list, text};
use crate::scale;
use crate::table::float;

/// Seconds between scrapes, and between points of a line.
const INTERVAL: u64 = 5;
/// Number of simulated hosts, and of groups on each.
const HOSTS: usize = 4;
const GROUPS: usize = 12;
/// Pause between rounds of closes, which the real lingerd counts.
const ROUND: Duration = Duration::from_secs(15);

/// The values of a dashboard's variables: job, instance and unit.
const CHOSEN: [&str; 3] = ["lingerd", ".+", ".*"];
/// Dashboards with other values.
const OTHERWISE: [(&str, [&str; 3]); 2] = [
    ("lingerd-itself", ["real", ".+", ".*"]),
    (
        "unit-in-depth",
        ["lingerd", ".+", r"nginx@0[.]service|postgresql@0[.]service"],
    ),
];

/// All answers.
#[derive(Deserialize, Serialize)]
pub(super) struct Answers {
    /// Times of the first and last point of lines, seconds since 1970.
    pub(super) start: f64,
    pub(super) end: f64,
    /// The series of each query, by dashboard, then by the id of the panel.
    panels: BTreeMap<String, BTreeMap<u64, Vec<Value>>>,
}

impl Answers {
    /// Returns the series found by each query of a panel.
    pub(super) fn of(&self, dashboard: &str, panel: &Value) -> &[Value] {
        let panels = self.panels.get(dashboard);
        let id = panel["id"].as_u64().unwrap_or_default();
        panels
            .and_then(|panels| panels.get(&id))
            .map_or(&[], Vec::as_slice)
    }
}

/// Lets a Prometheus scrape for this many seconds, and runs the queries.
pub(super) fn ask(dashboards: &[(String, Value)], time: u64) -> Result<Answers> {
    let lingerd = artifacts::lingerd(Architecture::here())?;
    let hosts = scale::simulate(HOSTS, GROUPS)?;
    let (_real, real) = scale::start(&lingerd)?;
    let real = json!([{
        "targets": [real.to_string()],
        "labels": { "instance": "host0.example.net:10546" },
    }]);
    let interval = format!("{INTERVAL}s");
    let settings = json!({
        "global": { "scrape_interval": interval, "evaluation_interval": interval },
        "rule_files": [root().join("dashboards/rules/*.yaml")],
        "scrape_configs": [
            { "job_name": "lingerd", "static_configs": hosts },
            { "job_name": "real", "static_configs": real },
        ],
    });
    let folder = root().join("target/pictures");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let run = |address| prometheus::command(&folder, &settings, address);
    let (mut server, address) = Server::start_somewhere("prometheus", run, "/-/ready")?;
    println!("Prometheus scrapes for {time} s");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(time) {
        server.check()?;
        let mut closes = command(&lingerd);
        // A kind that fails this time may succeed the next.
        let _ = closes.arg("exercise").stdout(Stdio::null()).status()?;
        thread::sleep(ROUND);
    }
    let end = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let panels = dashboards.iter().map(|(name, dashboard)| {
        Ok((
            name.clone(),
            of_dashboard(address, name, dashboard, time, end)?,
        ))
    });
    Ok(Answers {
        panels: panels.collect::<Result<_>>()?,
        start: float(end - time),
        end: float(end),
    })
}

fn of_dashboard(
    address: SocketAddr,
    name: &str,
    dashboard: &Value,
    time: u64,
    end: u64,
) -> Result<BTreeMap<u64, Vec<Value>>> {
    let times = Times {
        interval: Duration::from_secs(INTERVAL),
        range: Duration::from_secs(time),
    };
    let mut otherwise = OTHERWISE.iter();
    let chosen = otherwise.find(|(other, _)| *other == name);
    let chosen = chosen.map_or(CHOSEN, |(_, chosen)| *chosen);
    let mut answers = BTreeMap::new();
    for panel in list(&dashboard["panels"]) {
        let targets = list(&panel["targets"]).iter().map(|target| {
            let query = filled_in(text(&target["expr"]), times, chosen);
            let is_instant = target["instant"] == true;
            found(address, &query, is_instant, time, end)
                .with_context(|| format!("{name}: {query}"))
        });
        let id = panel["id"].as_u64().context("a panel has a number")?;
        answers.insert(id, targets.collect::<Result<_>>()?);
    }
    Ok(answers)
}

/// Returns the series that a query finds.
fn found(address: SocketAddr, query: &str, instant: bool, time: u64, end: u64) -> Result<Value> {
    let [start, end, step] = [end - time, end, INTERVAL].map(|number| number.to_string());
    let mut data = if instant {
        prometheus::ask(address, "query", &[("query", query), ("time", &end)])?
    } else {
        let period = [
            ("query", query),
            ("start", &start),
            ("end", &end),
            ("step", &step),
        ];
        prometheus::ask(address, "query_range", &period)?
    };
    Ok(data["result"].take())
}
