//! What being attached costs: connections made and closed on loopback, bare against attached.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};

use super::Extent;
use super::daemon::Daemon;
use super::table::{self, Series};
use crate::churn::{self, Churn, Churned};

/// Kinds of churn.
const KINDS: usize = Churn::ALL.len();

/// A way to be attached.
struct Way<'a> {
    name: &'static str,
    lingerd: &'a Path,
    args: &'static [&'static str],
    /// Whether what this process does can be told from what others do.
    by_comm: bool,
}

const EVERY_LABEL: &[&str] = &[
    "--labels=unit,slice,container,pod,comm,exe,port,family",
    "--ports=1-65535",
];

/// What one round showed of one way.
struct Attached {
    /// By [`Churn::ALL`].
    churned: [Churned; KINDS],
    cpu_percent: f64,
    ready_ms: f64,
    plan: String,
}

/// Measures in rounds, and prints what each way adds to a connection.
pub(super) fn run(lingerd: &Path, against: Option<&Path>, extent: Extent) -> Result<()> {
    let way = |name, args, by_comm| Way {
        name,
        lingerd,
        args,
        by_comm,
    };
    let mut ways = vec![
        way("unit and comm (default)", &[] as &[_], true),
        way("every label", EVERY_LABEL, true),
        way("no label", &["--labels="], false),
    ];
    ways.extend(against.map(|lingerd| Way {
        name: "the other build, by default",
        lingerd,
        args: &[],
        by_comm: true,
    }));
    let mut rounds = Vec::new();
    for round in 0..extent.rounds as usize {
        rounds.push(measure(&ways, round, extent)?);
        println!("round {} of {}", round + 1, extent.rounds);
    }
    let plan = rounds.last().and_then(|(_, attached)| attached.first());
    println!(
        "\nMicroseconds that being attached, by the plan {}, adds to a connection whose both ends are \
         closed; the fastest tenth of each of {} rounds of {:?}:\n",
        plan.map_or("", |attached| &attached.plan),
        extent.rounds,
        extent.churn
    );
    table::print_spread(&lines(&ways, &rounds));
    Ok(())
}

/// Bare, then attached in each way.
type Round = ([Churned; KINDS], Vec<Attached>);

/// One round. Where it begins and in which direction it goes takes turns, so that neither a drift of
/// the machine nor what came before favours any.
fn measure(ways: &[Way<'_>], turn: usize, extent: Extent) -> Result<Round> {
    let mut bare = [Churned::default(); KINDS];
    let mut attached: Vec<Option<Attached>> = ways.iter().map(|_| None).collect();
    for step in 0..=ways.len() {
        let step = if turn.is_multiple_of(2) {
            step
        } else {
            ways.len() - step
        };
        let place = (step + turn) % (ways.len() + 1);
        match ways.get(place) {
            Some(way) => attached[place] = Some(Attached::measure(way, extent)?),
            None => bare = churn_all(extent)?,
        }
    }
    Ok((bare, attached.into_iter().flatten().collect()))
}

/// Each kind of churn.
fn churn_all(extent: Extent) -> Result<[Churned; KINDS]> {
    let mut all = [Churned::default(); KINDS];
    for (churn, result) in Churn::ALL.into_iter().zip(&mut all) {
        *result = churn::churn(extent.churn, churn)?;
    }
    Ok(all)
}

fn lines(ways: &[Way<'_>], rounds: &[Round]) -> Vec<Series> {
    let mut lines = Vec::new();
    let mut line = |what: String, decimals, value: &dyn Fn(&Round) -> f64| {
        lines.push(Series {
            what,
            decimals,
            values: rounds.iter().map(value).collect(),
        });
    };
    for (kind, churn) in Churn::ALL.into_iter().enumerate() {
        let name = churn.name();
        line(format!("{name}: takes, bare"), 2, &|(bare, _)| {
            bare[kind].micros
        });
        for (place, way) in ways.iter().enumerate() {
            line(format!("{name}: {}", way.name), 2, &|(bare, attached)| {
                attached[place].churned[kind].micros - bare[kind].micros
            });
        }
    }
    line(
        "daemon's CPU time meanwhile, % of one CPU".into(),
        2,
        &|(_, attached)| attached[0].cpu_percent,
    );
    line("start to attached, ms".into(), 0, &|(_, attached)| {
        attached[0].ready_ms
    });
    lines
}

impl Attached {
    fn measure(way: &Way<'_>, extent: Extent) -> Result<Self> {
        let daemon = Daemon::start(way.lingerd, way.args)?;
        let (before, start) = (daemon.cpu_time()?, Instant::now());
        let churned = churn_all(extent)?;
        let cpu = daemon.cpu_time()?.saturating_sub(before);
        let time = start.elapsed();
        if way.by_comm {
            expect_orphans(&daemon, &churned.map(|churned| churned.made))?;
        }
        let attached = Self {
            churned,
            cpu_percent: 100.0 * cpu.as_secs_f64() / time.as_secs_f64(),
            ready_ms: daemon.ready.as_secs_f64() * 1000.0,
            plan: daemon.plan()?,
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
