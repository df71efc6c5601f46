//! What a scrape takes, in time and memory, by the size of the ledger.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::Extent;
use super::daemon::{Daemon, host_percpu_mib};
use super::mix::Mix;
use super::syscalls::{Counted, Syscalls};
use super::table;

/// More than all groups have.
const SERIES: &str = "--max-series=10000000";

const HEAD: &[&str] = &[
    "groups",
    "series",
    "answer, MiB",
    "scrape, ms",
    "of that reading",
    "in gzip, ms",
    "system calls",
    "of that bpf",
    "resident, MiB",
    "at most",
    "maps, MiB",
    "per CPU",
];

/// Measures each size of a ledger with a daemon of its own, and prints a table.
pub(super) fn run(lingerd: &Path, extent: Extent) -> Result<()> {
    let usual = extent.groups.iter().map(|&groups| (groups, Mix::Usual));
    let largest = extent.groups.last().map(|&most| (most, Mix::Everything));
    let mut rows = Vec::new();
    for (groups, mix) in usual.chain(largest) {
        println!("{groups} groups of {}", mix.name());
        rows.push(measure(lingerd, (groups, mix), extent.scrapes)?);
    }
    println!(
        "\nA scrape over HTTP; medians and means of {}:\n",
        extent.scrapes
    );
    table::print(HEAD, &rows);
    Ok(())
}

/// A line of the table.
fn measure(lingerd: &Path, (groups, mix): (u32, Mix), scrapes: u32) -> Result<Vec<String>> {
    let percpu = host_percpu_mib()?;
    let daemon = Daemon::start(lingerd, &[SERIES])?;
    fill(groups, mix)?;
    daemon.forget_most_resident()?;
    let metrics = daemon.metrics()?;
    let series = metrics.series();
    let own = metrics.count(
        "linger_closes_total",
        &["comm=\"bench-", "\"linger_aborted\""],
    );
    if own < groups as usize * 9 / 10 {
        bail!("{groups} groups closed, and {own} found a place: what else closes on this host?");
    }
    let [plain, gzip] = [false, true].map(|gzip| Scrapes::measure(&daemon, gzip, scrapes));
    let (plain, gzip) = (plain?, gzip?);
    let [resident, most] = daemon.resident_mib()?;
    let maps = daemon.maps_mib()?;
    let percpu = host_percpu_mib()? - percpu;
    daemon.stop()?;
    Ok(vec![
        format!("{groups} of {}", mix.name()),
        series.to_string(),
        format!("{:.1}", plain.mib),
        format!("{:.1}", plain.millis),
        format!("{:.1}", plain.reading_millis),
        format!("{:.1}", gzip.millis),
        plain.syscalls.all.to_string(),
        plain.syscalls.bpf.to_string(),
        format!("{resident:.1}"),
        format!("{most:.1}"),
        format!("{maps:.1}"),
        format!("{percpu:.1}"),
    ])
}

/// Has so many groups do this: each is a name of this process.
fn fill(groups: u32, mix: Mix) -> Result<()> {
    let own = fs::read_to_string("/proc/self/comm")?;
    for group in 0..groups {
        fs::write("/proc/self/comm", format!("bench-{group}"))?;
        mix.perform()
            .with_context(|| format!("close as group {group}"))?;
    }
    fs::write("/proc/self/comm", own.trim())?;
    Ok(())
}

/// What some scrapes took.
struct Scrapes {
    mib: f64,
    millis: f64,
    /// Of that, what the daemon took for reading the ledger.
    reading_millis: f64,
    /// Of each.
    syscalls: Counted,
}

impl Scrapes {
    fn measure(daemon: &Daemon, gzip: bool, scrapes: u32) -> Result<Self> {
        let calls = Syscalls::of(daemon.pid())?;
        let (mut millis, mut bytes) = (Vec::new(), 0);
        for _ in 0..scrapes {
            let start = Instant::now();
            let answer = daemon.scrape(gzip)?;
            millis.push(start.elapsed().as_secs_f64() * 1000.0);
            if answer.status() != Some(200) {
                bail!("/metrics answered {:?}", answer.status());
            }
            bytes = answer.len();
        }
        let syscalls = calls.count()?.per(scrapes);
        if syscalls.bpf == 0 {
            bail!("no system call was seen");
        }
        let reading = (0..scrapes).map(|_| {
            let seconds = daemon.metrics()?.value("linger_scrape_duration_seconds");
            Ok(1000.0 * seconds.context("a scrape tells how long it took")?)
        });
        let [reading_millis, ..] = table::spread(&reading.collect::<Result<Vec<_>>>()?);
        let [millis, ..] = table::spread(&millis);
        Ok(Self {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
            mib: bytes as f64 / f64::from(1 << 20),
            millis,
            reading_millis,
            syscalls,
        })
    }
}
