//! Counts the instructions of scrapes, and of threads that close at the same time, on the machine's CPUs.
//!
//! The clock counts the instructions of all CPUs together. Waiting takes none, spinning does.

use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};
use clap::Args;
use linger_testkit::http;
use serde::{Deserialize, Serialize};

use super::super::ledger;
use super::super::mix::Mix;
use super::{ADDRESS, Attached, Who};
use crate::churn::{self, Churn};
use crate::table::{self, float};

/// Numbers of threads that close at the same time.
pub(in super::super) const THREADS: [u32; 4] = [1, 2, 4, 8];

/// How much is counted.
#[derive(Args, Clone, Debug)]
pub(super) struct Options {
    /// By which plan lingerd is attached
    #[arg(long)]
    plan: String,
    /// How many groups there are when scrapes are counted
    #[arg(long)]
    groups: u32,
    /// How many scrapes are counted
    #[arg(long)]
    scrapes: u32,
    /// How many connections each thread makes
    #[arg(long)]
    connections: u64,
}

/// The counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct OnCpus {
    /// Instructions of a scrape, including the client's: the median.
    pub(in super::super) scrape: f64,
    /// Instructions of a connection with nothing attached, by [`THREADS`].
    pub(in super::super) bare: [f64; THREADS.len()],
    /// The same with the floor.
    pub(in super::super) floor: [f64; THREADS.len()],
    /// The same with lingerd.
    pub(in super::super) lingerd: [f64; THREADS.len()],
}

/// Counts with nothing, the floor and lingerd attached.
pub(super) fn run(options: &Options) -> Result<OnCpus> {
    let in_threads = |who: &Who| -> Result<_> {
        println!("counting: {who:?}, in threads");
        let attached = Attached::start(who)?;
        let counted = in_threads(options.connections)?;
        attached.stop()?;
        Ok(counted)
    };
    Ok(OnCpus {
        bare: in_threads(&Who::Nobody)?,
        floor: in_threads(&Who::Floor(options.plan.clone()))?,
        lingerd: in_threads(&Who::Lingerd(options.plan.clone()))?,
        scrape: scrape(options)?,
    })
}

/// Returns the instructions of a connection, by [`THREADS`]. Warms up with as many connections as a thread makes.
fn in_threads(connections: u64) -> Result<[f64; THREADS.len()]> {
    churn::connections(Churn::Aborts, |made| made < connections)?;
    let mut counted = [0.0; THREADS.len()];
    for (threads, counted) in THREADS.into_iter().zip(&mut counted) {
        let start = Instant::now();
        thread::scope(|scope| {
            let closing: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| churn::connections(Churn::Aborts, |made| made < connections))
                })
                .collect();
            let mut closed = closing.into_iter().map(|thread| {
                let made = thread
                    .join()
                    .map_err(|_| anyhow!("a closing thread panicked"))?;
                made.map(drop)
            });
            closed.try_for_each(|closed| closed)
        })?;
        let made = float(connections * u64::from(threads));
        *counted = start.elapsed().as_secs_f64() * 1e9 / made;
    }
    Ok(counted)
}

/// Returns the instructions of a scrape.
fn scrape(options: &Options) -> Result<f64> {
    println!("counting: scrapes of {} groups", options.groups);
    let attached = Attached::start(&Who::Lingerd(options.plan.clone()))?;
    ledger::fill(options.groups, Mix::Usual)?;
    let mut counted = Vec::new();
    // The first is not counted, since it resolves the names of the groups.
    for _ in 0..=options.scrapes {
        let start = Instant::now();
        http::body(ADDRESS, "/metrics")?;
        counted.push(start.elapsed().as_secs_f64() * 1e9);
    }
    attached.stop()?;
    Ok(table::spread(&counted[1..])[0])
}
