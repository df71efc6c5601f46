//! Selection of the groups to show where not all can be shown.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use linger_ebpf::{Counters, Outcome};

type Measure = fn(&Counters) -> u64;

/// Measures that take turns in choosing their largest group.
const MEASURES: [Measure; 4] = [lost, aborted, blocked, closed];

/// Returns the indices of the groups that are largest by some measure, at most `most`. Those that are zero by all
/// measures come last.
pub(super) fn largest(groups: &[&Counters], most: usize) -> BTreeSet<usize> {
    let all = 0..groups.len();
    let ranked = MEASURES.map(|measure| {
        let mut indices: Vec<_> = all.clone().collect();
        indices.retain(|&index| measure(groups[index]) > 0);
        indices.sort_by_cached_key(|&index| Reverse(measure(groups[index])));
        indices
    });
    let turns = all.clone().flat_map(|rank| {
        let ranked = ranked.iter();
        ranked.filter_map(move |ranks| ranks.get(rank).copied())
    });
    let mut chosen = BTreeSet::new();
    for index in turns.chain(all) {
        if chosen.len() == most {
            break;
        }
        chosen.insert(index);
    }
    chosen
}

/// Returns the payload lost in any way, bytes.
fn lost(counters: &Counters) -> u64 {
    discarded(counters) + lost_after_close(counters) + counters.unread_bytes
}

/// Returns the payload that the closes discarded from their send queues, bytes.
pub(super) fn discarded(counters: &Counters) -> u64 {
    counters.discarded.iter().map(|bytes| bytes.sum()).sum()
}

/// Returns the payload discarded after the closes, bytes.
pub(super) fn lost_after_close(counters: &Counters) -> u64 {
    let discarded = counters.orphans.discarded.iter();
    discarded.map(|bytes| bytes.sum()).sum()
}

pub(super) fn aborted(counters: &Counters) -> u64 {
    let outcomes = Outcome::ALL.iter();
    outcomes
        .filter(|outcome| outcome.name().ends_with("_aborted"))
        .map(|&outcome| counters.closed(outcome))
        .sum()
}

/// Returns the time spent in close, nanoseconds.
pub(super) fn blocked(counters: &Counters) -> u64 {
    counters.blocked.iter().map(|times| times.sum_ns).sum()
}

fn closed(counters: &Counters) -> u64 {
    let outcomes = Outcome::ALL.iter();
    outcomes.map(|&outcome| counters.closed(outcome)).sum()
}
