//! Every check and test, in stages that stop, and a summary at the end.

mod unit;
mod step;
mod steps;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

pub(crate) use self::step::perform_here;
use self::step::{Done, Extent, Findings, Stage, Step};
use crate::setup::{self, Purpose};
use crate::tally::{Scenarios, Tally};

/// What to test, and how much of it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// Everything: each plan with each scenario on each kernel of the table, a million closes, long
    /// fuzzing, all of the bench; takes hours
    #[arg(long)]
    pub(crate) full: bool,
    /// Where random scenarios begin: a number, or `random` [default: always the same]
    #[arg(long, value_name = "SEED")]
    pub(crate) seed: Option<String>,
}

impl Options {
    /// As arguments of a command that takes them.
    fn arguments(&self) -> Vec<String> {
        let full = self.full.then(|| "--full".to_owned());
        let seed = self.seed.iter();
        let seed = seed.flat_map(|seed| ["--seed".to_owned(), seed.clone()]);
        full.into_iter().chain(seed).collect()
    }
}

/// Does every step whose name contains `filter`; whether all passed.
pub(crate) fn run_all(filter: &str, options: &Options) -> Result<bool> {
    let extent = if options.full {
        Extent::Full
    } else {
        Extent::Usual
    };
    perform(chosen(extent, filter)?, options)
}

/// Does what every change should pass; whether all did.
pub(crate) fn check(options: &Options) -> Result<bool> {
    perform(chosen(Extent::Everyday, "")?, options)
}

/// The steps of this extent whose name contains `filter`.
fn chosen(extent: Extent, filter: &str) -> Result<Vec<Step>> {
    let includes = |step: &Step| match step.extent {
        Extent::Everyday => true,
        Extent::Usual => extent != Extent::Everyday,
        Extent::Full => extent == Extent::Full,
    };
    let steps = steps::all()?.into_iter();
    let steps: Vec<_> = steps
        .filter(|step| includes(step) && step.name.contains(filter))
        .collect();
    if steps.is_empty() {
        bail!("no step's name contains {filter:?}; without --filter all are run and listed");
    }
    Ok(steps)
}

/// Does the steps, stage by stage, up to one in which something failed; prints the summary.
fn perform(steps: Vec<Step>, options: &Options) -> Result<bool> {
    let start = Instant::now();
    println!("=== setup");
    setup::ensure(Purpose::Test)?;
    setup::mount_tracefs()?;
    println!("=== setup: ok, {:.1} s", start.elapsed().as_secs_f64());

    let mut done = Vec::new();
    let mut left = steps;
    for stage in Stage::ALL {
        let (now, later) = left.into_iter().partition(|step| step.stage == stage);
        left = later;
        done.extend(perform_stage(stage, now, options));
        if done.iter().any(|step| !step.passed()) {
            break;
        }
    }
    let begun = summarize(&done, &left);
    println!("after {:.0} s", start.elapsed().as_secs_f64());
    Ok(conclude(&done, begun))
}

/// Does the steps of a stage, some side by side.
fn perform_stage(stage: Stage, steps: Vec<Step>, options: &Options) -> Vec<Done> {
    let (alone, together): (Vec<_>, Vec<_>) = steps.into_iter().partition(|step| step.alone);
    let mut done = side_by_side(&together, stage.lanes(), options);
    done.extend(alone.iter().map(|step| step::perform(step, options)));
    done
}

/// Does the steps in their order, so many at a time.
fn side_by_side(steps: &[Step], lanes: usize, options: &Options) -> Vec<Done> {
    let next = Mutex::new(steps.iter().map(|step| step.name.clone()).enumerate());
    let _ = (&next, lanes, options);
    todo!()
}
