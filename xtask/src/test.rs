//! Runs the checks and tests in stages, stops at the first stage that fails, and prints a summary.

mod schedule;
mod step;
mod steps;
mod summary;
mod unit;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

pub use self::step::perform_here;
pub use self::summary::describe;

use self::schedule::Schedule;
use self::step::{Extent, Step};
use crate::setup::{self, Purpose};

/// Number of steps run concurrently: on a host with two cores, an emulated machine keeps one busy.
const LANES: usize = 2;

/// How much to test.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Everything: each plan with each scenario on each kernel, a million closes, fuzzing, scale and
    /// all of the bench; takes hours
    #[arg(long)]
    pub full: bool,
    /// Seed of random scenarios: a number, or `random` [default: always the same; random with --full]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<String>,
}

impl Options {
    /// Returns the options as arguments of a command that takes them.
    fn arguments(&self) -> Vec<String> {
        let full = self.full.then(|| "--full".to_owned());
        let seed = self.seed.iter();
        let seed = seed.flat_map(|seed| ["--seed".to_owned(), seed.clone()]);
        full.into_iter().chain(seed).collect()
    }
}

/// Performs every step whose name contains `filter`; returns whether all passed.
///
/// # Errors
///
/// If there is no such step, or setup fails.
pub fn run_all(filter: &str, options: &Options) -> Result<bool> {
    let extent = if options.full {
        Extent::Full
    } else {
        Extent::Usual
    };
    perform(chosen(extent, filter)?, options)
}

/// Performs the steps that every change should pass; returns whether all passed.
///
/// # Errors
///
/// If setup fails.
pub fn check(options: &Options) -> Result<bool> {
    perform(chosen(Extent::Everyday, "")?, options)
}

/// Returns the steps of this extent whose name contains `filter`.
fn chosen(extent: Extent, filter: &str) -> Result<Vec<Step>> {
    let mut steps = steps::all();
    steps.retain(|step| step.extent <= extent && step.name.contains(filter));
    if steps.is_empty() {
        bail!("no step's name contains {filter:?}; without --filter all are run and listed");
    }
    Ok(steps)
}

/// Performs the steps, up to the first stage that fails, and prints the summary.
fn perform(steps: Vec<Step>, options: &Options) -> Result<bool> {
    let start = Instant::now();
    println!("=== setup");
    setup::ensure(if options.full {
        Purpose::FullTest
    } else {
        Purpose::Test
    })?;
    setup::mount_tracefs()?;
    println!("=== setup: ok, {:.1} s", start.elapsed().as_secs_f64());

    let (done, not_begun) = Schedule::new(steps).perform(LANES, |step| step.perform(options));
    let not_begun: Vec<_> = not_begun.iter().map(|step| step.name.as_str()).collect();
    Ok(summary::print(&done, &not_begun, start.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_arguments_of_a_step() {
        let options = Options {
            full: true,
            seed: Some("7".into()),
        };
        assert_eq!(options.arguments(), ["--full", "--seed", "7"]);
        assert!(Options::default().arguments().is_empty());
    }

    #[test]
    fn more_is_tested_the_larger_the_extent() {
        let names = |extent| -> Vec<String> {
            let steps = chosen(extent, "").unwrap();
            steps.into_iter().map(|step| step.name).collect()
        };
        let (everyday, usual) = (names(Extent::Everyday), names(Extent::Usual));
        assert!(everyday.iter().all(|name| usual.contains(name)));
        assert!(usual.iter().all(|name| names(Extent::Full).contains(name)));
        assert!(everyday.len() < usual.len());
    }

    #[test]
    fn a_filter_that_matches_nothing_is_an_error() {
        assert!(chosen(Extent::Full, "no such step").is_err());
    }
}
