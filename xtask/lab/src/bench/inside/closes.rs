//! What is added to a close, and by which program.
//!
//! What is added to a connection is told from what one takes with nothing attached; what of it is a
//! program's own, by the kernel's statistics of programs, which take some instructions themselves.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::super::bpftool::programs;
use super::{Attached, Who};
use crate::churn::{self, Churn};
use crate::table;

/// The kinds of churn.
pub(in super::super) const KINDS: [Churn; 4] = [
    Churn::Aborts,
    Churn::NothingLeft,
    Churn::Lingers,
    Churn::DataLeft,
];

/// What a system call that has nothing to do with sockets is called beside them.
pub(in super::super) const OTHER_CALL: &str = "another system call";

/// Connections before any are counted: rows are made, code and data are met for the first time.
const WARM_UP: usize = 100;
/// Connections for which the kernel's statistics are taken.
const BATCH: u64 = 100;

/// Who is to be attached, and how much is counted.
#[derive(Args, Clone, Debug)]
pub(super) struct Options {
    /// A plan to count for
    #[arg(long = "plan")]
    plans: Vec<String>,
    /// A tool to compare with
    #[arg(long = "peer")]
    peers: Vec<String>,
    /// How many connections of each kind are counted
    #[arg(long)]
    connections: usize,
    /// Only lingerd, and only whole connections, of those that do not wait
    #[arg(long)]
    alone: bool,
    /// How often each is attached anew and counted
    #[arg(long, default_value_t = 1)]
    rounds: usize,
}

/// What a program took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct Part {
    /// Runs for each connection.
    pub(in super::super) runs: f64,
    /// Instructions of each run, the kernel's statistics included.
    pub(in super::super) instructions: f64,
}

/// What connections took while someone was attached, by [`KINDS`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct Taken {
    /// Who that was.
    pub(in super::super) who: Who,
    /// Instructions of a system call that has nothing to do with sockets: the lower quartile.
    pub(in super::super) other_call: f64,
    /// Instructions of a connection: the lower quartile of all.
    pub(in super::super) connections: [f64; KINDS.len()],
    /// The programs, by name.
    pub(in super::super) parts: [BTreeMap<String, Part>; KINDS.len()],
}

/// Counts for all of these, nobody first and last.
pub(super) fn run(options: &Options) -> Result<Vec<Taken>> {
    let mut all = vec![Who::Nobody];
    for plan in &options.plans {
        if !options.alone {
            all.push(Who::Floor(plan.clone()));
        }
        all.push(Who::Lingerd(plan.clone()));
    }
    all.extend(options.peers.iter().cloned().map(Who::Peer));
    all.push(Who::Nobody);
    // Until everybody was attached once, connections with nothing attached take 170 instructions less than ever after.
    let nothing = Options {
        connections: 0,
        alone: true,
        ..options.clone()
    };
    for who in all.clone() {
        println!("attaching: {who:?}");
        count(who, &nothing)?;
    }
    let count = |who| {
        println!("counting: {who:?}");
        count(who, options)
    };
    let rounds = (0..options.rounds).flat_map(|_| all.clone());
    rounds.map(count).collect()
}

fn count(who: Who, options: &Options) -> Result<Taken> {
    let attached = Attached::start(&who)?;
    let mut taken = Taken {
        who,
        // Before any close waits: then there may be one more hook.
        other_call: other_calls(options.connections),
        connections: Default::default(),
        parts: Default::default(),
    };
    for (kind, churn) in KINDS.into_iter().enumerate() {
        if !(options.alone && churn.waits()) {
            taken.connections[kind] = connections(churn, options.connections)?;
        }
    }
    if taken.who != Who::Nobody && !options.alone {
        fs::write("/proc/sys/kernel/bpf_stats_enabled", "1")?;
        for (kind, churn) in KINDS.into_iter().enumerate() {
            taken.parts[kind] = parts(churn)?;
        }
        fs::write("/proc/sys/kernel/bpf_stats_enabled", "0")?;
    }
    attached.stop()?;
    Ok(taken)
}

/// Instructions of a connection of each kind, counted several times for `who`: the least of each.
pub(in super::super) fn least(taken: &[Taken], who: &Who) -> Result<[f64; KINDS.len()]> {
    let mut all = [0.0; KINDS.len()];
    for (kind, least) in all.iter_mut().enumerate() {
        *least = least_of(taken, who, |taken| taken.connections[kind])?;
    }
    Ok(all)
}

/// Instructions of something, counted several times for `who`: the least.
pub(in super::super) fn least_of(
    taken: &[Taken],
    who: &Who,
    of: impl Fn(&Taken) -> f64,
) -> Result<f64> {
    let taken = taken.iter().filter(|taken| taken.who == *who);
    let least = taken.map(of).reduce(f64::min);
    least.with_context(|| format!("{who:?} was not counted"))
}

/// Counts the instructions of each connection: one by one, because some include the clock's tick, or a longer search
/// for a port.
fn connections(churn: Churn, counted: usize) -> Result<f64> {
    let mut idle = Idle::new()?;
    let mut instructions = Vec::with_capacity(WARM_UP + counted);
    let mut start = Instant::now();
    let mut result = Ok(());
    churn::connections(churn, |made| {
        if made > 0 {
            instructions.push(start.elapsed().as_secs_f64() * 1e9);
        }
        result = idle.vary(made);
        start = Instant::now();
        result.is_ok() && instructions.len() < WARM_UP + counted
    })?;
    result?;
    // None of them is to stay in TIME_WAIT.
    idle.vary(0)?;
    Ok(lower_quartile(&instructions[WARM_UP..]))
}

fn lower_quartile(values: &[f64]) -> f64 {
    let [_, lower, _] = table::spread(values);
    lower
}

/// Idle connections, whose number varies.
///
/// A connection takes up to 280 instructions more if it takes the last object of a slab in the kernel's allocators. With
/// the same number of other connections all the time, every connection counted would do so, or none.
struct Idle {
    listener: TcpListener,
    /// Both ends; of every other connection, the client is closed and in `FIN_WAIT2`.
    open: Vec<(Option<TcpStream>, TcpStream)>,
}

impl Idle {
    fn new() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
        let open = Vec::new();
        Ok(Self { listener, open })
    }

    /// Opens or aborts some, so that their number depends on `turn`.
    fn vary(&mut self, turn: u64) -> Result<()> {
        /// A prime: every number below it has its turn.
        const MOST: u64 = 31;
        let wanted = usize::try_from(turn * 12 % MOST)?;
        while self.open.len() < wanted {
            let mut client = churn::connect(self.listener.local_addr()?)?;
            let (server, _) = self.listener.accept().context("accept on loopback")?;
            // Nobody reads it: its buffers stay allocated.
            client.write_all(&[b'x'; churn::MESSAGE])?;
            let client = self.open.len().is_multiple_of(2).then_some(client);
            self.open.push((client, server));
        }
        for (_client, server) in self.open.drain(wanted..) {
            churn::abort(server)?;
        }
        Ok(())
    }
}

/// Counts the instructions of getppid(2), in batches.
fn other_calls(batches: usize) -> f64 {
    let batch = || {
        let start = Instant::now();
        for _ in 0..BATCH {
            nix::unistd::getppid();
        }
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let calls = BATCH as f64;
        start.elapsed().as_secs_f64() * 1e9 / calls
    };
    batch();
    lower_quartile(&(0..batches).map(|_| batch()).collect::<Vec<_>>())
}

/// What each program takes of a batch of connections.
fn parts(churn: Churn) -> Result<BTreeMap<String, Part>> {
    let before = programs()?;
    churn::connections(churn, |made| made < BATCH)?;
    let mut parts = BTreeMap::new();
    for (id, after) in programs()? {
        let before = before.get(&id).cloned().unwrap_or_default();
        let runs = after.run_cnt - before.run_cnt;
        if runs == 0 {
            continue;
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let part = Part {
            runs: runs as f64 / BATCH as f64,
            instructions: (after.run_time_ns - before.run_time_ns) as f64 / runs as f64,
        };
        parts.insert(after.name, part);
    }
    Ok(parts)
}
