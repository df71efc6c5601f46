//! Scenarios: real closes, counted by a real `lingerd` under every plan that this kernel allows,
//! and compared with what the kernel itself says of them.
//!
//! Each scenario is a process of its own, which knows by ioctls read just before each close, and by
//! the counters of its own network namespace, what must be counted. The parent reads from the
//! daemon what was counted for that process.

mod abort;
mod asleep;
mod attribution;
mod born;
#[path = "../common/browser.rs"]
mod browser;
mod child;
mod churn;
mod closer;
mod closes;
#[path = "../common/mod.rs"]
mod common;
mod cookbook;
mod daemon;
mod dimensions;
mod ends;
mod exes;
mod exposition;
mod graceful;
mod groups_full;
mod harness;
mod hostile;
mod kernel_threads;
mod left;
mod left_out;
mod linger;
mod listener;
mod load;
mod netns;
mod orphan_ends;
mod orphan_netns;
mod orphan_table;
mod orphans;
mod page;
mod persist;
mod pinned;
mod pod;
mod process_names;
mod random;
mod reload;
mod retired;
mod scenario;
#[path = "../common/seccomp.rs"]
mod seccomp;
mod service;
mod sight;
mod sight_orphans;
mod special;
mod truth;
mod unread;
mod watch;
mod watching;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use linger_ebpf::Plan;

use crate::scenario::Settings;

const HELP: &str = "\
usage: scenarios [--lingerd PATH] [--plan PLAN] [--filter TEXT] [--kernel-label TEXT]
                 [--load CLOSES] [--churn CGROUPS] [--seed NUMBER] [--summary FILE] [--list]
                 [--film FILE]";

/// Closes of the load, unless told otherwise.
const LOAD: u64 = 1_000_000;

/// Closes of the load for each cgroup that comes and goes, unless told otherwise.
const CLOSES_PER_CHURN: u64 = 50;

/// What to run.
#[derive(Debug)]
pub(crate) struct Options {
    /// The daemon's binary.
    pub(crate) lingerd: PathBuf,
    /// The only plan to run; all if none.
    pub(crate) plan: Option<Plan>,
    /// What the names of the scenarios to run contain.
    pub(crate) filter: String,
    /// Closes of the load.
    pub(crate) load: u64,
    /// Cgroups that come and go; as many as the load allows if none.
    churn: Option<u64>,
    /// Where random scenarios begin.
    pub(crate) seed: u64,
    kernel_label: String,
    summary: Option<PathBuf>,
    /// Where to write what is counted while the cookbook's cases run slowly, instead of testing.
    film: Option<PathBuf>,
    list: bool,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let mut options = Self {
            lingerd: env!("CARGO_BIN_EXE_lingerd").into(),
            plan: None,
            filter: String::new(),
            load: LOAD,
            churn: None,
            seed: now.as_secs(),
            kernel_label: String::new(),
            summary: None,
            film: None,
            list: false,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || {
                let value = arguments.next();
                value.with_context(|| format!("{argument} needs a value\n{HELP}"))
            };
            match argument.as_str() {
                "--lingerd" => options.lingerd = value()?.into(),
                "--plan" => options.plan = Some(plan(&value()?)?),
                "--filter" => options.filter = value()?,
                "--kernel-label" => options.kernel_label = value()?,
                "--load" => options.load = value()?.parse().context("--load")?,
                "--churn" => options.churn = Some(value()?.parse().context("--churn")?),
                "--seed" => options.seed = value()?.parse().context("--seed")?,
                "--summary" => options.summary = Some(value()?.into()),
                "--film" => options.film = Some(value()?.into()),
                "--list" => options.list = true,
                // Of the standard harness: `cargo test` passes them to every test binary.
                "--test-threads" | "--format" | "--color" | "--skip" => drop(value()?),
                flag if flag.starts_with('-') => {}
                name => options.filter = name.into(),
            }
        }
        Ok(options)
    }

    /// What these set for bulk scenarios.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            load: self.load,
            seed: self.seed,
            churn: self.churn.unwrap_or(self.load / CLOSES_PER_CHURN),
            pace: 0,
        }
    }
}

fn plan(name: &str) -> Result<Plan> {
    let plan = Plan::ALL.iter().find(|plan| plan.name() == name);
    plan.copied()
        .with_context(|| format!("there is no plan {name}: fentry, kprobe, tracepoint"))
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["child", name, load, seed, churn, pace] => {
            let settings = Settings {
                load: load.parse()?,
                seed: seed.parse()?,
                churn: churn.parse()?,
                pace: pace.parse()?,
            };
            child::run(name, settings)?;
            return Ok(ExitCode::SUCCESS);
        }
        ["pod", ref order @ ..] => {
            let code = u8::try_from(pod::run(order)?)?;
            return Ok(ExitCode::from(code));
        }
        ["closer", ref order @ ..] => {
            closer::run(order)?;
            return Ok(ExitCode::SUCCESS);
        }
        ["aborter", ref order @ ..] => {
            persist::run_aborter(order)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }

    let options = Options::parse(arguments.into_iter())?;
    if options.list {
        for scenario in scenario::all() {
            println!("{}: test", scenario.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(file) = &options.film {
        cookbook::make(&options, file)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("seed {}", options.seed);
    let summary = harness::run(&options)?;
    summary.end(options.summary.as_deref(), &options.kernel_label)
}
