//! The command line: what to run, and how.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use libtest_mimic::Arguments;
use linger_ebpf::Plan;

use crate::scenario::{Scenario, Settings};

/// Closes of the load, by default.
const LOAD: u64 = 100_000;

/// Closes of the load for each cgroup of the churn, by default.
const CLOSES_PER_CHURN: u64 = 50;

/// Seed of the random scenarios, by default.
const SEED: u64 = 20_261_127;

/// Real closes, counted by a real lingerd under every plan, and compared with what the kernel itself says of them.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// What people know of cargo's harness: a filter, --exact, --skip, --list and more.
    #[command(flatten)]
    pub(crate) libtest: Arguments,
    /// The daemon's binary
    #[arg(long, default_value = env!("CARGO_BIN_EXE_lingerd"))]
    pub(crate) lingerd: PathBuf,
    /// Only this plan: fentry, kprobe or tracepoint
    #[arg(long, value_parser = plan)]
    pub(crate) plan: Option<Plan>,
    /// Under which name tests/expected.toml says what runs here; nothing is expected without
    #[arg(long)]
    pub(crate) environment: Option<String>,
    /// Which pairs of scenario and plan
    #[arg(long, value_enum, default_value_t)]
    pub(crate) scope: Scope,
    /// Where random scenarios begin: a number, or `random`
    #[arg(long, value_parser = seed, default_value_t = SEED)]
    pub(crate) seed: u64,
    /// Closes of the load
    #[arg(long, default_value_t = LOAD)]
    load: u64,
    /// Cgroups that come and go [default: as many as the load allows]
    #[arg(long)]
    churn: Option<u64>,
    /// Where to write what came of each pair, as JSON
    #[arg(long)]
    pub(crate) summary: Option<PathBuf>,
    /// Where to write what is counted while the cookbook's cases run slowly, instead of testing
    #[arg(long)]
    pub(crate) film: Option<PathBuf>,
}

/// Which pairs of scenario and plan to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// Scenarios that depend on the plan by each, others by one
    #[default]
    Standard,
    /// Each scenario by each plan
    Full,
    /// Scenarios that depend on the kernel or the plan, by each plan
    Plan,
    /// Scenarios that depend on the kernel, by each plan
    Kernel,
}

impl Scope {
    /// Returns its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Full => "full",
            Self::Plan => "plan",
            Self::Kernel => "kernel",
        }
    }
}

impl Options {
    /// Returns the settings for scenarios.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            load: self.load,
            seed: self.seed,
            churn: self.churn.unwrap_or(self.load / CLOSES_PER_CHURN),
            pace: 0,
            attempt: 0,
        }
    }

    /// Returns the scenarios selected by name, with their numbers among `all`; at least one.
    pub(crate) fn select(&self, all: Vec<Scenario>) -> Result<Vec<(usize, Scenario)>> {
        let matches = |name: &str, filter: &str| {
            if self.libtest.exact {
                name == filter
            } else {
                name.contains(filter)
            }
        };
        let mut selected: Vec<_> = all.into_iter().enumerate().collect();
        selected.retain(|(_, scenario)| {
            let filter = self.libtest.filter.iter();
            filter.clone().all(|filter| matches(scenario.name, filter))
                && !self
                    .libtest
                    .skip
                    .iter()
                    .any(|skip| matches(scenario.name, skip))
        });
        ensure!(
            !selected.is_empty(),
            "no scenario's name matches the filter; --list names all"
        );
        Ok(selected)
    }
}

fn plan(name: &str) -> Result<Plan> {
    let plan = Plan::ALL.iter().find(|plan| plan.name() == name);
    match plan {
        Some(plan) => Ok(*plan),
        None => bail!("there is no plan {name}: fentry, kprobe, tracepoint"),
    }
}

fn seed(text: &str) -> Result<u64> {
    if text == "random" {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        return Ok(u64::from(now.subsec_nanos()) ^ now.as_secs());
    }
    text.parse().context("a number, or `random`")
}
