//! What the daemon costs: connections made and closed on loopback, bare against attached.

mod daemon;
mod table;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::daemon::Daemon;
use self::table::Series;
use crate::artifacts;
use crate::churn::{self, Churn};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Pairs of bare and attached.
    pairs: u32,
    /// Time of each half of a pair, all kinds of churn together.
    half: Duration,
}

impl Extent {
    /// Enough for a median that means something: many pairs and short, because what else a machine
    /// does comes and goes.
    pub(crate) const FULL: Self = Self {
        pairs: 15,
        half: Duration::from_secs(1),
    };
    /// Enough to see that it still works.
    pub(crate) const SHORT: Self = Self {
        pairs: 1,
        half: Duration::from_millis(400),
    };
}

/// Groups that exist when memory is measured.
const GROUPS: u32 = 100;
/// Kinds of churn.
const KINDS: usize = Churn::ALL.len();

/// Measures, and prints a Markdown table.
pub(crate) fn run(extent: Extent) -> Result<()> {
    let lingerd = artifacts::lingerd()?;
    let mut pairs = Vec::new();
    for pair in 0..extent.pairs {
        // In turns, so that a drift of the machine favours neither.
        let early = (pair % 2 == 0).then(|| rates(extent.half)).transpose()?;
        let attached = Attached::measure(&lingerd, extent.half)?;
        let bare = match early {
            Some(rates) => rates,
            None => rates(extent.half)?,
        };
        println!(
            "pair {} of {}: bare {bare:.0?}, attached {:.0?} a second",
            pair + 1,
            extent.pairs,
            attached.rates,
        );
        pairs.push((bare, attached));
    }
    println!(
        "\nPlan {}, kernel {}, {} CPUs, {} pairs of {:.1} s each:\n",
        pairs.last().map_or("", |(_, attached)| &attached.plan),
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        thread::available_parallelism()?,
        extent.pairs,
        extent.half.as_secs_f64()
    );
    table::print(&lines(&pairs));
    Ok(())
}

/// Three lines for each kind of churn, and some for the daemon itself.
fn lines(pairs: &[([f64; KINDS], Attached)]) -> Vec<Series> {
    let mut lines = Vec::new();
    let mut line = |what: &str, decimals, value: &dyn Fn(&[f64; KINDS], &Attached) -> f64| {
        let mut series = Series::new(what, decimals);
        let values = pairs.iter().map(|(bare, attached)| value(bare, attached));
        series.values.extend(values);
        lines.push(series);
    };
    for (kind, churn) in Churn::ALL.into_iter().enumerate() {
        let name = churn.name();
        line(
            &format!("{name}, bare: connections a second"),
            0,
            &|bare, _| bare[kind],
        );
        line(&format!("{name}, attached"), 0, &|_, attached| {
            attached.rates[kind]
        });
        line("attached / bare", 3, &|bare, attached| {
            attached.rates[kind] / bare[kind]
        });
    }
    line(
        "daemon's CPU time under load, % of one CPU",
        2,
        &|_, attached| attached.cpu_percent,
    );
    line(
        &format!("daemon's memory at {GROUPS} groups, MiB"),
        1,
        &|_, attached| attached.resident_mib,
    );
    line("start to attached, ms", 0, &|_, attached| {
        attached.ready.as_secs_f64() * 1000.0
    });
    lines
}

/// Connections a second of each kind of churn, each for its share of this time.
fn rates(time: Duration) -> Result<[f64; KINDS]> {
    Ok(churn_all(time)?.map(|(rate, _)| rate))
}

/// Connections a second of each kind of churn, and their number.
fn churn_all(time: Duration) -> Result<[(f64, u64); KINDS]> {
    let share = time / u32::try_from(KINDS)?;
    let mut all = [(0.0, 0); KINDS];
    for (churn, result) in Churn::ALL.into_iter().zip(&mut all) {
        *result = churn::churn(share, churn)?;
    }
    Ok(all)
}

/// What one run of the daemon showed.
struct Attached {
    /// By [`Churn::ALL`].
    rates: [f64; KINDS],
    cpu_percent: f64,
    resident_mib: f64,
    ready: Duration,
    plan: String,
}

impl Attached {
    fn measure(lingerd: &Path, half: Duration) -> Result<Self> {
        let daemon = Daemon::start(lingerd)?;
        let (before, start) = (daemon.cpu_time()?, Instant::now());
        let churned = churn_all(half)?;
        let cpu = daemon.cpu_time()?.saturating_sub(before);
        let time = start.elapsed();

        expect_orphans(&daemon, &churned.map(|(_, made)| made))?;
        close_from_groups()?;
        let attached = Self {
            rates: churned.map(|(rate, _)| rate),
            cpu_percent: 100.0 * cpu.as_secs_f64() / time.as_secs_f64(),
            // A scrape is what makes it read the groups.
            plan: daemon
                .metrics()?
                .label("linger_probe_info", "plan")
                .context("/metrics does not say which plan is in use")?
                .to_owned(),
            resident_mib: daemon.resident_mib()?,
            ready: daemon.ready,
        };
        daemon.stop()?;
        Ok(attached)
    }
}

/// Makes sure that what was measured is what its name says: one kind of churn leaves an orphan with
/// each connection, the others leave none. Other programs' orphans are told apart by the group.
fn expect_orphans(daemon: &Daemon, made: &[u64; KINDS]) -> Result<()> {
    let kinds = Churn::ALL.into_iter().zip(made);
    let expected: u64 = kinds
        .filter(|(churn, _)| churn.leaves_data())
        .map(|(_, made)| made)
        .sum();
    let metrics = daemon.metrics()?;
    let own = fs::read_to_string("/proc/self/comm")?;
    let own = ("comm", own.trim());
    let left = metrics.sum("linger_orphans_total", own)? + metrics.sum("linger_orphans", own)?;
    if left != expected {
        bail!("{expected} closes were to leave data, and {left} did");
    }
    Ok(())
}

/// Closes under many names of the process, each of which is a group of its own.
fn close_from_groups() -> Result<()> {
    let own = fs::read_to_string("/proc/self/comm")?;
    for group in 0..GROUPS {
        fs::write("/proc/self/comm", format!("bench-{group}"))?;
        churn::connections(Churn::Aborts, |made| made < 1)?;
    }
    fs::write("/proc/self/comm", own.trim())?;
    Ok(())
}
