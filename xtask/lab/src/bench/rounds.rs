//! Loads measured in rounds: in each, every load under every way to be watched.

use anyhow::{Context as _, Result};

use super::report::Report;
use super::ways::Way;

/// Something to be done again and again, under every way.
pub(super) struct Load<'a> {
    /// What it is, in tables and in the names of figures.
    pub(super) name: String,
    /// Does it.
    pub(super) run: Box<dyn Fn() -> Result<Done> + 'a>,
}

/// What a load took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// Connections made and closed.
    pub(super) connections: u64,
    /// How many of them left an orphan.
    pub(super) orphans: u64,
    /// Connections a second.
    pub(super) rate: f64,
    /// Microseconds for each.
    pub(super) micros: f64,
}

/// What one load showed under one way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// What the load took.
    pub(super) done: Done,
    /// CPU time of the processes that watch, microseconds for a connection.
    pub(super) watching_micros: f64,
}

/// By way and by load; nothing for a way that could not be measured in this round.
pub(super) type Round = Vec<Option<Vec<Sample>>>;

/// So many rounds. Where each begins and in which direction it goes takes turns, so that neither a
/// drift of the machine nor what came before favours any way.
///
/// A way that need not work and does not is reported as not run, and not tried again.
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

/// In which order the ways take their turn.
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

/// Every load under one way.
fn sample(way: &Way<'_>, loads: &[Load<'_>]) -> Result<Vec<Sample>> {
    let mut watcher = (way.start)()?;
    let mut samples = Vec::new();
    for load in loads {
        let before = watcher.cpu_time()?;
        let done = (load.run)()?;
        let cpu = watcher.cpu_time()?.saturating_sub(before);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 connections")]
        let connections = done.connections as f64;
        samples.push(Sample {
            done,
            watching_micros: cpu.as_secs_f64() * 1e6 / connections,
        });
    }
    let sum = |count: fn(&Done) -> u64| samples.iter().map(|sample| count(&sample.done)).sum();
    watcher.check(sum(|done| done.connections), sum(|done| done.orphans))?;
    watcher.stop()?;
    Ok(samples)
}

/// What each round says of some of its ways together; the rounds that lack one say nothing.
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
    fn every_way_has_its_turn_in_every_round_and_begins_some() {
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
    fn values_come_from_the_rounds_that_have_them_all() {
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
