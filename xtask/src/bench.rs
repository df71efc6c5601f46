//! What the daemon costs, measured with the daemon itself.

mod closes;
mod daemon;
pub(crate) mod inside;
mod instructions;
mod ledger;
mod mix;
mod scrape;
mod syscalls;
mod table;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::artifacts;

/// What there is to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What being attached costs a connection, and the daemon while nobody asks it
    Closes,
    /// How many instructions being attached adds to a close by each plan, counted in QEMU
    Instructions,
    /// Time and memory of scrapes, by the size of the ledger
    Ledger,
}

/// What to measure, and how long.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// Only this part
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// Very short, with a small ledger: whether it still works
    #[arg(long)]
    short: bool,
    /// Another build of lingerd, to compare what it costs a connection
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
}

impl Options {
    /// Enough to see that it still works.
    pub(crate) fn short() -> Self {
        Self {
            short: true,
            ..Self::default()
        }
    }

    fn extent(&self) -> Extent {
        if self.short {
            Extent::SHORT
        } else {
            Extent::FULL
        }
    }

    fn includes(&self, part: Part) -> bool {
        self.part.is_none_or(|only| only == part)
    }
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// Rounds of all ways to be attached.
    rounds: u32,
    /// Time of each kind of churn in each of them.
    churn: Duration,
    /// Groups in the ledger.
    groups: &'static [u32],
    /// Scrapes of each ledger, in plain text and compressed.
    scrapes: u32,
}

impl Extent {
    /// Enough for a median that means something: many rounds and short, because what else a machine
    /// does comes and goes.
    const FULL: Self = Self {
        rounds: 40,
        churn: Duration::from_millis(100),
        groups: &[1, 100, 1000, 4096],
        scrapes: 20,
    };
    const SHORT: Self = Self {
        rounds: 1,
        churn: Duration::from_millis(50),
        groups: &[20],
        scrapes: 2,
    };
}

/// Measures, and prints Markdown tables.
pub(crate) fn run(options: &Options) -> Result<()> {
    let lingerd = artifacts::lingerd()?;
    let extent = options.extent();
    println!(
        "\nKernel {}, {} CPUs.",
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        thread::available_parallelism()?,
    );
    if options.includes(Part::Closes) {
        closes::run(&lingerd, options.against.as_deref(), extent)?;
    }
    if options.includes(Part::Instructions) {
        instructions::run()?;
    }
    if options.includes(Part::Ledger) {
        ledger::run(&lingerd, extent)?;
    }
    Ok(())
}
