//! Limits the number of series to the configured maximum.

use std::collections::HashSet;
use std::hash::Hash;

use linger_ebpf::{Counters, Group};

/// Maximum number of series of all shared groups.
const SHARED: usize = Group::SHARED.len() * MAX_SERIES_PER_GROUP;

/// Maximum number of series of one group.
pub const MAX_SERIES_PER_GROUP: usize = 94;

/// Returns the keys of the groups beyond `most` series: those first seen last. Each group is given by its number in the
/// order in which groups were first seen, its key, and its counters.
pub(super) fn groups_beyond<'a, K: Hash + Ord>(
    groups: impl Iterator<Item = (u64, K, &'a Counters)>,
    most: usize,
    series: fn(&Counters) -> usize,
) -> HashSet<K> {
    let groups: Vec<_> = groups.collect();
    let room = most.saturating_sub(SHARED);
    // All fit even with the maximum number of series each, so these need not be counted.
    if groups.len() * MAX_SERIES_PER_GROUP <= room {
        return HashSet::new();
    }
    let groups = groups.into_iter();
    let groups = groups.map(|(first_seen, key, counters)| (first_seen, key, series(counters)));
    let mut groups: Vec<_> = groups.collect();
    // Usually all fit: then they need not be sorted.
    if groups.iter().map(|(_, _, series)| series).sum::<usize>() <= room {
        return HashSet::new();
    }
    groups.sort_unstable();
    let mut sum = 0;
    let beyond = groups.into_iter().skip_while(|(_, _, series)| {
        sum += series;
        sum <= room
    });
    beyond.map(|(_, key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use linger_ebpf::Outcome;

    use super::*;

    /// One series per outcome.
    fn series(counters: &Counters) -> usize {
        counters.closes.iter().filter(|closes| **closes > 0).count()
    }

    fn counters(outcomes: usize) -> Counters {
        let mut counters = Counters::ZERO;
        counters.closes[..outcomes].fill(1);
        counters
    }

    #[test]
    fn groups_seen_first_stay() {
        let one = counters(1);
        let size = series(&one);
        let groups = || [(30, 0), (10, 1), (20, 2)].map(|(seen, key)| (seen, key, &one));
        let beyond = |most| groups_beyond(groups().into_iter(), most + SHARED, series);
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
            groups_beyond(groups.into_iter(), most, series),
            HashSet::from([1, 2])
        );
    }
}
