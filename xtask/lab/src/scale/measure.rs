//! Measures the cost of a fleet to a Prometheus.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::fleet::Fleet;
use super::prometheus::{OnDisk, Own, Prometheus};
use super::queries::{self, Named};
use super::serve;
use crate::grafana::Times;
use crate::table::{float, spread};

/// Time limit until all hosts have been scraped, in addition to three intervals.
const FIRST: Duration = Duration::from_secs(60);
/// Interval of polling Prometheus.
const PAUSE: Duration = Duration::from_secs(1);
/// Time above which a query is not repeated.
const LONG: Duration = Duration::from_secs(1);

/// The measurements of one fleet.
#[derive(Serialize)]
pub(super) struct Case {
    pub(super) hosts: usize,
    pub(super) groups: usize,
    pub(super) interval_seconds: u64,
    pub(super) for_seconds: u64,
    pub(super) version: String,
    /// Series of a host, and the length of its exposition.
    pub(super) series_per_host: f64,
    pub(super) bytes_per_scrape: usize,
    /// Series of a host that are buckets of histograms.
    pub(super) buckets_per_host: f64,
    /// Series of all hosts, including those that rules record.
    pub(super) series: f64,
    pub(super) recorded_series: f64,
    pub(super) samples_per_second: f64,
    pub(super) scrape_seconds: f64,
    pub(super) slowest_scrape_seconds: f64,
    /// Scrapes that failed or took longer than the interval.
    pub(super) missed_scrapes: f64,
    pub(super) resident_bytes: f64,
    pub(super) cpus: f64,
    /// Median time of an evaluation, by rule.
    pub(super) rules_seconds: BTreeMap<String, f64>,
    pub(super) missed_evaluations: f64,
    #[serde(flatten)]
    pub(super) disk: OnDisk,
    pub(super) queries: Vec<Asked>,
}

/// The measurements of a dashboard's query.
#[derive(Serialize)]
pub(super) struct Asked {
    pub(super) dashboard: String,
    pub(super) panel: String,
    pub(super) query: String,
    pub(super) seconds: f64,
    pub(super) samples: u64,
    pub(super) peak_samples: u64,
    pub(super) series: usize,
    /// Why it failed, if it did.
    pub(super) error: Option<String>,
}

/// Lets a Prometheus scrape a fleet for some time, and runs all queries of the dashboards.
pub(super) fn measure(
    fleet: Arc<Fleet>,
    groups: usize,
    interval: Duration,
    time: Duration,
) -> Result<Case> {
    let hosts = fleet.len();
    let text = fleet.scrape(0).unwrap_or_default();
    let mut prometheus = Prometheus::start(serve::start(fleet)?, hosts, interval)?;
    wait_for_all(&mut prometheus, hosts, interval)?;
    let window = Window::watch(&mut prometheus, time)?;
    let times = Times {
        interval,
        range: time,
    };
    let asked = queries::all(times)?;
    let asked = asked
        .into_iter()
        .map(|named| ask(&prometheus, named, times));
    let asked: Vec<_> = asked.collect();
    let number = |query: &str| prometheus.number(query);
    let range = format!("{}s", time.as_secs());
    Ok(Case {
        hosts,
        groups,
        interval_seconds: interval.as_secs(),
        for_seconds: time.as_secs(),
        version: prometheus.version()?,
        series_per_host: number("avg(scrape_samples_scraped)")?,
        bytes_per_scrape: text.len(),
        buckets_per_host: number(
            r#"count({__name__=~"linger_.*_bucket",instance=~"host0[.].*"})"#,
        )?,
        series: window.last.sum("prometheus_tsdb_head_series"),
        recorded_series: number(r#"count({__name__=~".+:.+"})"#)?,
        samples_per_second: window.rate("prometheus_tsdb_head_samples_appended_total"),
        scrape_seconds: number(&format!(
            "quantile(0.5, avg_over_time(scrape_duration_seconds[{range}]))"
        ))?,
        slowest_scrape_seconds: number(&format!(
            "max(max_over_time(scrape_duration_seconds[{range}]))"
        ))?,
        missed_scrapes: number(&format!(
            "sum(count_over_time(up[{range}]) - sum_over_time(up[{range}]))"
        ))?,
        resident_bytes: window.resident,
        cpus: window.rate("process_cpu_seconds_total"),
        missed_evaluations: window.growth("prometheus_rule_group_iterations_missed_total"),
        rules_seconds: window.rules,
        // Last, since this writes what is in memory to disk.
        disk: prometheus.on_disk()?,
        queries: asked,
    })
}

/// Waits until every host has been scraped.
fn wait_for_all(prometheus: &mut Prometheus, hosts: usize, interval: Duration) -> Result<()> {
    let start = Instant::now();
    // Half a host below the number, since floats are not compared for equality.
    let all = float(hosts as u64) - 0.5;
    while prometheus.number("count(scrape_samples_scraped > 0)")? < all {
        ensure!(
            start.elapsed() < FIRST + 3 * interval,
            "not all hosts could be scraped"
        );
        prometheus.own_metrics()?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Prometheus's own metrics over some time.
struct Window {
    first: Own,
    last: Own,
    seconds: f64,
    /// Peak of resident memory, bytes.
    resident: f64,
    rules: BTreeMap<String, f64>,
}

impl Window {
    fn watch(prometheus: &mut Prometheus, time: Duration) -> Result<Self> {
        let start = Instant::now();
        let first = prometheus.own_metrics()?;
        let mut resident: f64 = 0.0;
        let mut rules = BTreeMap::<_, Vec<f64>>::new();
        loop {
            thread::sleep(PAUSE);
            let last = prometheus.own_metrics()?;
            resident = resident.max(last.sum("process_resident_memory_bytes"));
            for (name, seconds) in prometheus.rules()? {
                rules.entry(name).or_default().push(seconds);
            }
            let elapsed = start.elapsed();
            if elapsed >= time {
                let rules = rules.into_iter();
                return Ok(Self {
                    first,
                    last,
                    seconds: elapsed.as_secs_f64(),
                    resident,
                    rules: rules
                        .map(|(name, times)| (name, spread(&times)[0]))
                        .collect(),
                });
            }
        }
    }

    /// Returns the growth of a counter.
    fn growth(&self, metric: &str) -> f64 {
        self.last.sum(metric) - self.first.sum(metric)
    }

    /// Returns the growth of a counter per second.
    fn rate(&self, metric: &str) -> f64 {
        self.growth(metric) / self.seconds
    }
}

/// Runs a query three times, once if it takes long; its time is the median.
fn ask(prometheus: &Prometheus, named: Named, times: Times) -> Asked {
    let mut seconds = Vec::new();
    let mut asked = Asked {
        dashboard: named.dashboard,
        panel: named.panel,
        query: format!("{:?}", named.query),
        seconds: 0.0,
        samples: 0,
        peak_samples: 0,
        series: 0,
        error: None,
    };
    while seconds.len() < 3 {
        let start = Instant::now();
        match prometheus.ask(&named.query, times) {
            Ok(took) => {
                asked.samples = took.samples;
                asked.peak_samples = took.peak;
                asked.series = took.series;
                seconds.push(took.time.as_secs_f64());
                if took.time > LONG {
                    break;
                }
            }
            Err(error) => {
                asked.error = Some(format!("{error:#}"));
                seconds = vec![start.elapsed().as_secs_f64()];
                break;
            }
        }
    }
    asked.seconds = spread(&seconds)[0];
    asked
}
