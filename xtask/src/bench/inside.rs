//! Counting instructions, inside a machine whose clock ticks once for each.
//!
//! What is added to a connection is told from what one takes with nothing attached; what of it is a
//! program's own, by the kernel's statistics of programs, which take some instructions themselves.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::bpftool::programs;
use super::scrape::Answer;
use super::table;
use crate::churn::{self, Churn};

/// The kinds of churn.
pub(super) const KINDS: [Churn; 4] = [
    Churn::Aborts,
    Churn::NothingLeft,
    Churn::Lingers,
    Churn::DataLeft,
];

/// The plans, in the order of preference.
pub(super) const PLANS: [&str; 3] = ["fentry", "kprobe", "tracepoint"];

/// Connections before any are counted: rows are made, code and data are met for the first time.
const WARM_UP: usize = 100;
/// Connections for which the kernel's statistics are taken.
const BATCH: u64 = 100;
/// Whatever is started is ready within this, in time that only passes with instructions.
const READY: Duration = Duration::from_secs(120);
/// Where lingerd listens.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9990);

/// What is to be counted.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// A plan to count for
    #[arg(long = "plan")]
    plans: Vec<String>,
    /// A tool to compare with
    #[arg(long = "peer")]
    peers: Vec<String>,
    /// How many connections of each kind are counted
    #[arg(long)]
    connections: usize,
    /// Where to leave what was counted
    #[arg(long)]
    report: PathBuf,
}

/// Who is attached while connections are made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Who {
    /// Nobody.
    Nobody,
    /// Programs that only count their runs, on the hooks of a plan.
    Floor(String),
    /// lingerd by a plan.
    Lingerd(String),
    /// Another tool.
    Peer(String),
}

/// What a program took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Part {
    /// Runs for each connection.
    pub(super) runs: f64,
    /// Instructions of each run, the kernel's statistics included.
    pub(super) instructions: f64,
}

/// The median, and what a quarter is below and above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Quarters {
    pub(super) lower: f64,
    pub(super) median: f64,
    pub(super) upper: f64,
}

/// What connections took while someone was attached, by [`KINDS`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Taken {
    /// Who that was.
    pub(super) who: Who,
    /// Instructions of a connection: the quarters of all.
    pub(super) connections: [Quarters; KINDS.len()],
    /// The programs, by name.
    pub(super) parts: [BTreeMap<String, Part>; KINDS.len()],
}

/// Counts for all of these, nobody first and last, and leaves what it found in a file.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut all = vec![Who::Nobody];
    for plan in &options.plans {
        all.extend([Who::Floor(plan.clone()), Who::Lingerd(plan.clone())]);
    }
    all.extend(options.peers.iter().cloned().map(Who::Peer));
    all.push(Who::Nobody);
    let mut taken = Vec::new();
    for who in all {
        println!("counting: {who:?}");
        taken.push(count(who, options.connections)?);
    }
    Ok(serde_json::to_writer(
        File::create(&options.report)?,
        &taken,
    )?)
}

fn count(who: Who, counted: usize) -> Result<Taken> {
    let attached = Attached::start(&who)?;
    let mut taken = Taken {
        who,
        connections: Default::default(),
        parts: Default::default(),
    };
    for (kind, churn) in KINDS.into_iter().enumerate() {
        taken.connections[kind] = connections(churn, counted)?;
    }
    if taken.who != Who::Nobody {
        fs::write("/proc/sys/kernel/bpf_stats_enabled", "1")?;
        for (kind, churn) in KINDS.into_iter().enumerate() {
            taken.parts[kind] = parts(churn)?;
        }
        fs::write("/proc/sys/kernel/bpf_stats_enabled", "0")?;
    }
    attached.stop()?;
    Ok(taken)
}

/// Counts the instructions of each connection, from its beginning to the next one's: one by one, for some
/// meet the clock's tick, or a longer search for a port.
fn connections(churn: Churn, counted: usize) -> Result<Quarters> {
    let mut times = Vec::with_capacity(WARM_UP + counted + 1);
    churn::connections(churn, |_| {
        times.push(Instant::now());
        times.len() <= WARM_UP + counted
    })?;
    let instructions = times[WARM_UP..]
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e9);
    let [median, lower, upper] = table::spread(&instructions.collect::<Vec<_>>());
    Ok(Quarters {
        lower,
        median,
        upper,
    })
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

/// Someone who is attached.
struct Attached(Option<Child>);

impl Attached {
    fn start(who: &Who) -> Result<Self> {
        let mut command = match who {
            Who::Nobody => return Ok(Self(None)),
            Who::Floor(plan) => {
                let mut command = Command::new("floor");
                command
                    .arg(plan)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped());
                command
            }
            Who::Lingerd(plan) => {
                let mut command = Command::new("lingerd");
                command.args(["run", "--plan", plan, "--listen", &ADDRESS.to_string()]);
                command
                    .stdout(Stdio::null())
                    .stderr(File::create("/tmp/log")?);
                command
            }
            Who::Peer(name) => {
                let mut command = Command::new(name);
                command.stdout(Stdio::null());
                command
            }
        };
        let mut child = command.spawn().with_context(|| format!("start {who:?}"))?;
        let start = Instant::now();
        while !is_ready(who, &mut child)? {
            if let Some(status) = child.try_wait()? {
                let mut log = String::new();
                File::open("/tmp/log")?.read_to_string(&mut log)?;
                bail!("{who:?} ended ({status}): {log}");
            }
            if start.elapsed() > READY {
                child.kill()?;
                bail!("{who:?} was not ready after {READY:?}");
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(Self(Some(child)))
    }

    fn stop(self) -> Result<()> {
        if let Some(mut child) = self.0 {
            child.kill()?;
            child.wait()?;
        }
        // Programs are freed some time after the last who holds them.
        let start = Instant::now();
        while !programs()?.is_empty() && start.elapsed() < READY {
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

fn is_ready(who: &Who, child: &mut Child) -> Result<bool> {
    match who {
        Who::Nobody => Ok(true),
        Who::Floor(_) => {
            let output = child.stdout.as_mut().context("the output is a pipe")?;
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line)?;
            Ok(line.trim_end() == "attached")
        }
        Who::Lingerd(_) => {
            Ok(Answer::of(ADDRESS, "/readyz", false)
                .is_ok_and(|answer| answer.status() == Some(200)))
        }
        // It says nothing, or it says so where no one reads: once its programs are there it attaches them.
        Who::Peer(_) => {
            let loaded = !programs()?.is_empty();
            if loaded {
                thread::sleep(Duration::from_secs(2));
            }
            Ok(loaded)
        }
    }
}
