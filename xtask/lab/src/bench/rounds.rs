//! Measures loads in rounds: each round runs every load under every way to be watched.

use anyhow::{Context as _, Result};

use super::report::Report;
use super::ways::Way;
use crate::table::float;

/// A load to be run under every way.
pub(super) struct Load<'a> {
    /// Its name in tables and figures.
    pub(super) name: String,
    /// Runs it once.
    pub(super) run: Box<dyn Fn() -> Result<Done> + 'a>,
}

/// The result of a load.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// Connections made and closed.
    pub(super) connections: u64,
    /// Number of them that left an orphan.
    pub(super) orphans: u64,
    /// Connections per second.
    pub(super) rate: f64,
    /// Microseconds per connection.
    pub(super) micros: f64,
}

/// The measurements of a load under a way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// The result of the load.
    pub(super) done: Done,
    /// CPU time of the watching processes, microseconds per connection.
    pub(super) watching_micros: f64,
}

/// Samples by way, then by load; `None` for a way that was not measured in this round.
pub(super) type Round = Vec<Option<Vec<Sample>>>;

/// Measures this number of rounds. The first way and the direction change from round to round, so that neither drift
/// of the machine nor the previous way favours any.
///
/// If a way that is not required fails, it is reported as not run, and not tried again.
pub(super) fn measure(
    part: &str,
    ways: &[Way<'_>],
    loads: &[Load<'_>],
    rounds: u32,
    report: &mut Report,
) -> Result<Vec<Round>> {
    let mut broken = vec![false; ways.len()];
    let mut all = Vec::new();
    for turn in 0..rounds as usize {
        let mut round: Round = ways.iter().map(|_| None).collect();
        for place in order(ways.len(), turn) {
            let way = &ways[place];
            if broken[place] {
                continue;
            }
            match sample(way, loads) {
                Ok(samples) => round[place] = Some(samples),
                Err(error) if way.required => {
                    return Err(error).with_context(|| way.name.clone());
                }
                Err(error) => {
                    broken[place] = true;
                    report.not_run(&way.name, &format!("{error:#}"));
                }
            }
        }
        all.push(round);
        println!("{part}: round {} of {rounds}", turn + 1);
    }
    Ok(all)
}

/// Returns the order of the ways in a round.
fn order(ways: usize, turn: usize) -> impl Iterator<Item = usize> {
    (0..ways).map(move |step| {
        let step = if turn.is_multiple_of(2) {
            step
        } else {
            ways - 1 - step
        };
        (step + turn) % ways
    })
}

/// Runs every load under a way.
fn sample(way: &Way<'_>, loads: &[Load<'_>]) -> Result<Vec<Sample>> {
    let mut watcher = (way.start)()?;
    let mut samples = Vec::new();
    for load in loads {
        let before = watcher.cpu_time()?;
        let done = (load.run)()?;
        let cpu = watcher.cpu_time()?.saturating_sub(before);
        samples.push(Sample {
            done,
            watching_micros: cpu.as_secs_f64() * 1e6 / float(done.connections),
        });
    }
    let sum = |count: fn(&Done) -> u64| samples.iter().map(|sample| count(&sample.done)).sum();
    watcher.check(sum(|done| done.connections), sum(|done| done.orphans))?;
    watcher.stop()?;
    Ok(samples)
}

/// Computes a value from the samples of some ways in each round; skips the rounds that lack one of them.
pub(super) fn values<const N: usize>(
    rounds: &[Round],
    ways: [usize; N],
    load: usize,
    value: impl Fn([&Sample; N]) -> f64,
) -> Vec<f64> {
    let values = rounds.iter().filter_map(|round| {
        let samples = ways.map(|way| round[way].as_ref().map(|samples| &samples[load]));
        let found: Vec<_> = samples.into_iter().flatten().collect();
        found.try_into().ok().map(&value)
    });
    values.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_runs_once_in_every_round_and_first_in_some() {
        let mut first = Vec::new();
        for turn in 0..6 {
            let mut order: Vec<_> = order(3, turn).collect();
            first.push(order[0]);
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2]);
        }
        first.sort_unstable();
        assert_eq!(first, [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn values_come_from_rounds_that_have_every_way() {
        let sample = |micros| {
            Some(vec![Sample {
                done: Done {
                    micros,
                    ..Done::default()
                },
                watching_micros: 0.0,
            }])
        };
        let rounds = [
            vec![sample(1.0), sample(3.0)],
            vec![sample(1.0), None],
            vec![sample(2.0), sample(7.0)],
        ];
        let added = values(&rounds, [0, 1], 0, |[bare, way]| {
            way.done.micros - bare.done.micros
        });
        assert_eq!(added, [2.0, 5.0]);
    }
}
