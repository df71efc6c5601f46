//! No more series than configured.

use std::collections::HashSet;
use std::hash::Hash;

use linger_ebpf::{Counters, Group};

/// Maximum number of series of the groups that stand for several.
const SHARED: usize = Group::SHARED.len() * MOST_SERIES;

/// Series of a group that did all that can be done.
pub(crate) const MOST_SERIES: usize = 94;

/// Which of these counters, given with when they were first met, are too many: the last met are. None
/// as long as there are no more than `most` series.
pub(super) fn beyond<'a, K: Hash + Ord>(
    groups: impl Iterator<Item = (u64, K, &'a Counters)>,
    most: usize,
    series: fn(&Counters) -> usize,
) -> HashSet<K> {
    let groups: Vec<_> = groups.collect();
    let room = most.saturating_sub(SHARED);
    // Not even counted, where all would fit whatever they do.
    if groups.len() * MOST_SERIES <= room {
        return HashSet::new();
    }
    let groups = groups.into_iter();
    let mut groups: Vec<_> = groups
        .map(|(met, key, counters)| (met, key, series(counters)))
        .collect();
    let all: usize = groups.iter().map(|(_, _, series)| series).sum();
    if all <= room {
        return HashSet::new();
    }
    groups.sort_unstable();
    let mut sum = 0;
    let mut is_full = false;
    groups.retain(|(_, _, series)| {
        sum += series;
        is_full |= sum > room;
        is_full
    });
    groups.into_iter().map(|(_, key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use linger_ebpf::Outcome;

    use super::*;

    /// As many series as outcomes.
    fn series(counters: &Counters) -> usize {
        counters.closes.iter().filter(|closes| **closes > 0).count()
    }

    fn counters(outcomes: usize) -> Counters {
        let mut counters = Counters::ZERO;
        counters.closes[..outcomes].fill(1);
        counters
    }

    #[test]
    fn the_first_met_stay() {
        let one = counters(1);
        let size = series(&one);
        let groups = || [(30, 0), (10, 1), (20, 2)].map(|(met, slot)| (met, slot, &one));
        let beyond = |most| beyond(groups().into_iter(), most + SHARED, series);
        assert_eq!(beyond(3 * size), HashSet::new());
        assert_eq!(beyond(3 * size - 1), HashSet::from([0]));
        assert_eq!(beyond(2 * size), HashSet::from([0]));
        assert_eq!(beyond(size), HashSet::from([2, 0]));
        assert_eq!(beyond(0), HashSet::from([1, 2, 0]));
    }

    #[test]
    fn a_small_group_does_not_slip_in_behind_a_large_one() {
        let (large, small) = (counters(Outcome::COUNT), counters(1));
        let groups = [(1, 0, &small), (2, 1, &large), (3, 2, &small)];
        let most = 2 * series(&small) + SHARED;
        assert_eq!(
            beyond(groups.into_iter(), most, series),
            HashSet::from([1, 2])
        );
    }
}
