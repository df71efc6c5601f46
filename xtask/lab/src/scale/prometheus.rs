//! A separate Prometheus for each fleet, with the rules, and its own metrics.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use linger_testkit::server::Server;
use linger_testkit::{http, prometheus};
use linger_xtask::shell::root;
use serde::Serialize;
use serde_json::{Value, json};

use super::queries::Query;
use super::serve;
use crate::grafana::{Times, list, text};
use crate::table::float;

/// A running Prometheus.
pub(super) struct Prometheus {
    server: Server,
    address: SocketAddr,
}

/// The cost of a query.
pub(super) struct Took {
    /// Time until the answer was complete.
    pub(super) time: Duration,
    /// Number of samples that were read.
    pub(super) samples: u64,
    /// Maximum number of samples in memory at a time; Prometheus refuses queries that need more than 50,000,000.
    pub(super) peak: u64,
    /// Number of series in the answer.
    pub(super) series: usize,
}

/// Disk usage.
#[derive(Serialize)]
pub(super) struct OnDisk {
    /// Bytes of chunks per sample.
    pub(super) bytes_per_sample: f64,
    /// Bytes of the index per series in a block, which usually covers two hours.
    pub(super) index_bytes_per_series: f64,
}

impl Prometheus {
    /// Starts a Prometheus without data that scrapes this number of hosts.
    pub(super) fn start(fleet: SocketAddr, hosts: usize, interval: Duration) -> Result<Self> {
        Self::forget()?;
        let settings = settings(fleet, hosts, interval);
        let command = |address| {
            let mut command = prometheus::command(&folder(), &settings, address)?;
            // Needed to make a snapshot.
            command.arg("--web.enable-admin-api");
            Ok(command)
        };
        let (server, address) = Server::start_somewhere("prometheus", command, "/-/ready")?;
        Ok(Self { server, address })
    }

    /// Removes the data of the previous one.
    pub(super) fn forget() -> Result<()> {
        let folder = folder();
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        Ok(())
    }

    /// Returns its own metrics; fails if it has ended.
    pub(super) fn own_metrics(&mut self) -> Result<Own> {
        self.server.check()?;
        Ok(Own(http::body(self.address, "/metrics")?))
    }

    /// Returns its version.
    pub(super) fn version(&self) -> Result<String> {
        let info = prometheus::ask(self.address, "status/buildinfo", &[])?;
        Ok(info["version"].as_str().unwrap_or("?").to_owned())
    }

    /// Returns the names of all rules, and the time of their last evaluation, seconds.
    pub(super) fn rules(&self) -> Result<Vec<(String, f64)>> {
        let data = prometheus::ask(self.address, "rules", &[])?;
        let rules = list(&data["groups"])
            .iter()
            .flat_map(|group| list(&group["rules"]));
        let rules = rules.map(|rule| {
            let seconds = rule["evaluationTime"].as_f64();
            (text(&rule["name"]).to_owned(), seconds.unwrap_or(0.0))
        });
        Ok(rules.collect())
    }

    /// Returns the number that a query finds, or 0 if it finds none.
    pub(super) fn number(&self, query: &str) -> Result<f64> {
        let data = prometheus::ask(self.address, "query", &[("query", query)])?;
        let value = data["result"][0]["value"][1].as_str();
        Ok(value.map_or(Ok(0.0), str::parse)?)
    }

    /// Runs a query of a dashboard.
    pub(super) fn ask(&self, query: &Query, times: Times) -> Result<Took> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let [start, end] =
            [now.saturating_sub(times.range), now].map(|at| at.as_secs().to_string());
        let step = times.interval.as_secs().to_string();
        let period = [("start", start.as_str()), ("end", &end)];
        let stats = [("stats", "all")];
        let (path, parameters) = match query {
            Query::Instant(query) => ("query".to_owned(), vec![("query", query.as_str())]),
            Query::Range(query) => (
                "query_range".to_owned(),
                [&[("query", query.as_str()), ("step", &step)][..], &period].concat(),
            ),
            Query::Labels { label, selector } => (
                format!("label/{label}/values"),
                [&[("match[]", selector.as_str())][..], &period].concat(),
            ),
        };
        let start = Instant::now();
        let data = prometheus::ask(self.address, &path, &[&stats[..], &parameters].concat())?;
        let time = start.elapsed();
        let samples = &data["stats"]["samples"];
        let number = |name: &str| samples[name].as_u64().unwrap_or(0);
        let found = data["result"].as_array().or(data.as_array());
        Ok(Took {
            time,
            samples: number("totalQueryableSamples"),
            peak: number("peakSamples"),
            series: found.map_or(0, Vec::len),
        })
    }

    /// Makes a snapshot, which writes the data in memory to disk, and measures its size.
    pub(super) fn on_disk(&self) -> Result<OnDisk> {
        let answer = http::post(self.address, "/api/v1/admin/tsdb/snapshot")?;
        let data = prometheus::data(&answer)?;
        let name = data["name"].as_str().context("no snapshot was made")?;
        let (mut chunks, mut index, mut samples, mut series) = (0, 0, 0, 0);
        for block in fs::read_dir(folder().join("data/snapshots").join(name))? {
            let block = block?.path();
            let meta = fs::read_to_string(block.join("meta.json"))?;
            let meta: Value = serde_json::from_str(&meta)?;
            let number = |name: &str| meta["stats"][name].as_u64().unwrap_or(0);
            samples += number("numSamples");
            series += number("numSeries");
            index += fs::metadata(block.join("index"))?.len();
            chunks += size_of_files(&block.join("chunks"))?;
        }
        ensure!(samples > 0, "the snapshot is empty");
        Ok(OnDisk {
            bytes_per_sample: float(chunks) / float(samples),
            index_bytes_per_series: float(index) / float(series),
        })
    }
}

/// Returns the folder of its data.
fn folder() -> PathBuf {
    root().join("target/scale")
}

/// Returns the scrape targets for all simulated hosts of a server.
pub(super) fn targets(fleet: SocketAddr, hosts: usize) -> impl Iterator<Item = Value> {
    (0..hosts).map(move |number| {
        json!({
            "targets": [fleet.to_string()],
            "labels": {
                "__metrics_path__": serve::path(number),
                "instance": format!("host{number}.example.net:10546"),
            },
        })
    })
}

/// Returns the settings.
fn settings(fleet: SocketAddr, hosts: usize, interval: Duration) -> Value {
    let seconds = format!("{}s", interval.as_secs());
    json!({
        "global": {
            "scrape_interval": seconds,
            "scrape_timeout": seconds,
            "evaluation_interval": seconds,
        },
        "rule_files": [root().join("dashboards/rules/*.yaml")],
        "scrape_configs": [{
            "job_name": "lingerd",
            "static_configs": targets(fleet, hosts).collect::<Vec<_>>(),
        }],
    })
}

fn size_of_files(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for file in fs::read_dir(folder)? {
        bytes += file?.metadata()?.len();
    }
    Ok(bytes)
}

/// The metrics of a Prometheus itself.
pub(super) struct Own(String);

impl Own {
    /// Returns the sum of a metric's samples.
    pub(super) fn sum(&self, metric: &str) -> f64 {
        let lines = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(metric)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let is_it = labels.is_empty() || labels.starts_with('{');
            is_it.then_some(value)
        });
        lines.filter_map(|value| value.parse::<f64>().ok()).sum()
    }
}

#[test]
fn samples_of_the_metric_itself_are_added_up() {
    let own = Own("a 1\na_b 2\na{c=\"x\"} 4\na{c=\"y\"} 8e+00\n".to_owned());
    assert_eq!(own.sum("a").to_string(), "13");
}
