//! The cost of the daemon, measured on the daemon itself and in comparison with other tools.

mod bpftool;
mod closes;
mod contention;
mod cpus;
mod daemon;
mod emulated;
mod floor;
pub(crate) mod gate;
mod host;
pub(crate) mod inside;
mod instructions;
mod ledger;
mod load;
mod loopback;
mod mix;
mod process;
mod report;
mod rounds;
mod scrape;
mod start;
mod syscalls;
mod targets;
mod tool;
mod watch;
mod ways;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use linger_xtask::architecture::Architecture;
use linger_xtask::artifacts;
use linger_xtask::shell::{command, output, root};
use serde_json::Value;

use self::closes::Builds;
use self::host::Host;
use self::report::Report;

/// What there is to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What being attached costs a close, beside the floor and the peers
    Closes,
    /// How many instructions being attached adds to a close by each plan, counted in QEMU
    Instructions,
    /// What more CPUs make of a scrape and of closing threads, counted in QEMU
    Cpus,
    /// What it costs to have `lingerd watch` running
    Watch,
    /// What a close costs when several threads of a group close
    Contention,
    /// What the daemon itself does while others close 50,000 connections a second
    Load,
    /// Time and memory of scrapes, by the size of the ledger
    Ledger,
    /// From start to attached
    Start,
}

/// What to measure, and how long.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// Only this part; may be given several times
    #[arg(long = "part", value_enum, value_name = "PART")]
    parts: Vec<Part>,
    /// Very short, with a small ledger: whether it still works
    #[arg(long)]
    short: bool,
    /// So many rounds, instead of 30 for closes and 20 for others
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Another build of lingerd, to compare what it costs a close
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
    /// Where all figures go, for machines; the page goes beside it, as .md [default:
    /// target/bench.json]
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

impl Options {
    fn extent(&self) -> Extent {
        let extent = if self.short {
            Extent::SHORT
        } else {
            Extent::FULL
        };
        Extent {
            rounds: self.rounds.unwrap_or(extent.rounds),
            few_rounds: self.rounds.unwrap_or(extent.few_rounds),
            ..extent
        }
    }

    fn includes(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }
}

/// The extent of the measurements.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// Rounds of closes, with all ways to be watched.
    rounds: u32,
    /// Rounds of the parts with fewer ways.
    few_rounds: u32,
    /// Time of each kind of churn in each round.
    churn: Duration,
    /// Time of the load at an even pace, once without scrapes and once with them.
    load: Duration,
    /// Interval of the scrapes during the load.
    scrape_interval: Duration,
    /// Numbers of groups in the ledger.
    groups: &'static [u32],
    /// Number of groups in the ledger where each group has every outcome that needs no wait.
    full_groups: u32,
    /// Scrapes of each ledger, as plain text and again compressed.
    scrapes: u32,
    /// Starts of the daemon.
    starts: u32,
}

impl Extent {
    /// Enough for a meaningful median: many short rounds, since other load on the machine comes and goes.
    const FULL: Self = Self {
        rounds: 30,
        few_rounds: 20,
        churn: Duration::from_millis(100),
        load: Duration::from_secs(45),
        scrape_interval: Duration::from_secs(15),
        groups: &[1, 100, 1000, 4096, 16384],
        full_groups: 4096,
        scrapes: 20,
        starts: 15,
    };
    const SHORT: Self = Self {
        rounds: 1,
        few_rounds: 1,
        churn: Duration::from_millis(50),
        load: Duration::from_secs(2),
        scrape_interval: Duration::from_secs(1),
        groups: &[20],
        full_groups: 20,
        scrapes: 2,
        starts: 2,
    };
}

/// Measures, prints a page of Markdown, and writes the page and all figures to files.
pub(crate) fn run(options: &Options) -> Result<()> {
    let lingerd = artifacts::lingerd(Architecture::here())?;
    let floor = artifacts::floor()?;
    let plans = plans(&lingerd)?;
    let best = &plans[0];
    let extent = options.extent();
    let builds = Builds {
        lingerd: &lingerd,
        against: options.against.as_deref(),
        floor: &floor,
        plans: &plans,
    };
    let mut report = Report::of(Host::of(&lingerd)?);
    for part in Part::value_variants() {
        if !options.includes(*part) {
            continue;
        }
        match part {
            Part::Closes => closes::run(&builds, extent, &mut report)?,
            Part::Instructions => instructions::run(options.short, &mut report)?,
            Part::Cpus => cpus::run(options.short, &mut report)?,
            Part::Watch => watch::run(&lingerd, best, extent, &mut report)?,
            Part::Contention => contention::run(&builds, extent, &mut report)?,
            Part::Load => load::run(&lingerd, best, extent, &mut report)?,
            Part::Ledger => ledger::run(&lingerd, best, extent, &mut report)?,
            Part::Start => start::run(&lingerd, &plans, extent, &mut report)?,
        }
    }
    let json = options.json.clone();
    finish(
        &report,
        &json.unwrap_or_else(|| root().join("target/bench.json")),
    )
}

fn finish(report: &Report, json: &Path) -> Result<()> {
    let page = report.markdown();
    report.write_json(json)?;
    let beside = json.with_extension("md");
    fs::write(&beside, &page).with_context(|| format!("write {}", beside.display()))?;
    println!("\n{page}\nThe same is in {}, and", beside.display());
    println!("every figure in {}.", json.display());
    Ok(())
}

/// Returns the plans that attach on this kernel, best first. Fails if there is none.
fn plans(lingerd: &Path) -> Result<Vec<String>> {
    let found: Value = serde_json::from_str(&output(command(lingerd).args(["check", "--json"]))?)?;
    let plans: Vec<_> = found["plans"]
        .as_array()
        .context("lingerd check lists plans")?
        .iter()
        .filter(|plan| plan["usable"] == true)
        .filter_map(|plan| plan["plan"].as_str().map(str::to_owned))
        .collect();
    if plans.is_empty() {
        bail!("no plan attaches on this kernel: see `lingerd check`");
    }
    Ok(plans)
}
