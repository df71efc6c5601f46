//! The cost of many hosts: a simulated fleet, a real Prometheus with the rules, and the dashboards' queries.

mod catalogue;
mod fleet;
mod law;
mod measure;
mod prometheus;
mod queries;
mod report;
mod serve;
mod template;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use linger_testkit::http;
use linger_testkit::server::Server;
use linger_xtask::architecture::Architecture;
use linger_xtask::artifacts;
use linger_xtask::shell::{command, root, run_unseen};
use serde_json::Value;

use self::fleet::Fleet;
use self::prometheus::Prometheus;
use self::template::Family;

/// Time limit for `lingerd exercise`, repeated until everything in [`NEEDED`] was counted.
const PATIENCE: Duration = Duration::from_secs(120);

/// Labels of the counts that a real lingerd must have before its metrics serve as the pattern of a host.
const NEEDED: [&str; 4] = [
    "outcome=\"linger_timeout\"",
    "outcome=\"connect_aborted\"",
    "fate=\"peer_reset\"}",
    "fate=\"late_data\"}",
];

/// What to simulate.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// How many hosts, one fleet after another
    #[arg(long, value_delimiter = ',', default_values_t = [5, 15, 45], value_parser = parse_count)]
    hosts: Vec<usize>,
    /// Groups of each host: a unit and a process that closed
    #[arg(long, default_value_t = 100, value_parser = parse_count)]
    groups: usize,
    /// Seconds between scrapes, and between evaluations of rules
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=300))]
    interval: u64,
    /// Seconds that each fleet is scraped for
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=86400))]
    time: u64,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask lab scale                                  5, 15 and 45 hosts, 3 minutes each
  cargo xtask lab scale --hosts 1000 --groups 10         many hosts with few groups
  cargo xtask lab scale --hosts 50 --for 3600            dashboards that look back an hour

Tables are printed, and everything goes to target/scale.json.";

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=20_000) => Ok(count),
        _ => Err("a number from 1 to 20000 is expected".into()),
    }
}

/// Simulates fleets, measures, and prints tables.
pub(crate) fn run(options: &Options) -> Result<()> {
    let served = exercised(&artifacts::lingerd(Architecture::here())?)?;
    let file = root().join("target/scale.json");
    let mut cases = Vec::new();
    for &hosts in &options.hosts {
        println!(
            "{hosts} hosts of {} groups, every {} s, for {} s",
            options.groups, options.interval, options.time
        );
        let fleet = Fleet::new(pattern(&served)?, hosts, options.groups);
        let seconds = Duration::from_secs;
        let case = measure::measure(
            Arc::new(fleet),
            options.groups,
            seconds(options.interval),
            seconds(options.time),
        )?;
        cases.push(case);
        // After each fleet, since a later one may take long and be interrupted.
        fs::write(&file, serde_json::to_string_pretty(&cases)?)?;
    }
    println!(
        "\nPrometheus {}, {} CPUs.",
        cases[0].version,
        thread::available_parallelism()?
    );
    report::print(&cases);
    println!("\nAll of it is in {}.", file.display());
    Prometheus::forget()?;
    let mut asked = cases.iter().flat_map(|case| &case.queries);
    if let Some(error) = asked.find_map(|asked| asked.error.as_ref()) {
        bail!("a query was refused: {error}");
    }
    Ok(())
}

/// Starts to simulate this number of hosts; returns them as scrape targets for Prometheus.
pub(crate) fn simulate(hosts: usize, groups: usize) -> Result<Vec<Value>> {
    let served = exercised(&artifacts::lingerd(Architecture::here())?)?;
    let fleet = Fleet::new(pattern(&served)?, hosts, groups);
    let address = serve::start(Arc::new(fleet))?;
    Ok(prometheus::targets(address, hosts).collect())
}

fn pattern(served: &str) -> Result<Vec<Family>> {
    template::parse(served).context("what lingerd serves is not understood")
}

/// Starts a real lingerd; returns it and its address.
pub(crate) fn start(lingerd: &Path) -> Result<(Server, SocketAddr)> {
    let run = |address: SocketAddr| {
        let mut command = command(lingerd);
        command.args(["--log-level", "warn", "run", "--listen"]);
        command.arg(address.to_string());
        Ok(command)
    };
    Server::start_somewhere("lingerd", run, "/readyz")
}

/// Returns the metrics of a real lingerd that has counted closes of many kinds.
fn exercised(lingerd: &Path) -> Result<String> {
    let (mut server, address) = start(lingerd)?;
    let start = Instant::now();
    loop {
        // A kind that fails this time may succeed the next.
        let _ = run_unseen(command(lingerd).arg("exercise").stdout(Stdio::null()));
        let text = http::body(address, "/metrics")?;
        let has = |needed: &str| {
            let mut lines = text.lines();
            lines.any(|line| line.contains(needed) && !line.ends_with(" 0"))
        };
        let Some(missing) = NEEDED.iter().find(|needed| !has(needed)) else {
            return Ok(text);
        };
        server.check()?;
        ensure!(
            start.elapsed() < PATIENCE,
            "lingerd has counted no {missing}"
        );
    }
}
