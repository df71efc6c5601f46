//! The number of series of a group.

use std::sync::Arc;

use linger_daemon::attribution::Labels;
use linger_daemon::ledger::{MAX_SERIES_PER_GROUP, Snapshot};
use linger_daemon::metrics::series;
use linger_ebpf::{BUCKETS, Cause, Counters, Fate, Orphans, Outcome, QueueBytes, TimeHistogram};
use proptest::prelude::*;

use crate::{fixture, large};

proptest! {
    #[test]
    fn series_are_the_lines_of_a_group(counters in any_counters()) {
        let group = fixture::labels("a.service", "a");
        let with = lines(vec![(group.into(), counters.into())]);
        prop_assert_eq!(with - lines(Vec::new()), series(&counters));
    }
}

#[test]
fn a_group_has_at_most_94_series() {
    assert_eq!(series(&Counters::ZERO), 0);
    assert_eq!(series(&large::everything(1)), MAX_SERIES_PER_GROUP);
    assert_eq!(MAX_SERIES_PER_GROUP, 94);
}

/// The limit promised for a service that leaves no orphans.
#[test]
fn a_usual_service_has_at_most_20_series() {
    let counters = large::usual(1);
    // Outcomes, one histogram, bytes of either queue, resets, and unread bytes.
    assert_eq!(series(&counters), 4 + BUCKETS + 2 + 2 + 1 + 1);
    assert!(series(&counters) <= 20);
}

#[test]
fn series_add_up_over_all_groups_that_fit() {
    let groups = large::snapshot(large::typical).groups;
    let each = groups.iter().map(|(_, counters)| series(counters));
    let all: usize = each.sum();
    assert_eq!(lines(groups) - lines(Vec::new()), all);
}

/// Returns the number of samples in the text of a ledger with these groups.
fn lines(groups: Vec<(Arc<Labels>, Box<Counters>)>) -> usize {
    let text = fixture::text(Snapshot {
        groups,
        ..fixture::snapshot()
    });
    text.lines().filter(|line| !line.starts_with('#')).count()
}

/// Generates counters that are mostly zero.
fn any_counters() -> impl Strategy<Value = Counters> {
    // Sums of all buckets are below 2^64.
    let word = prop_oneof![12 => Just(0), 1 => 1..10_u64, 1 => 0..1_u64 << 56];
    // One more for each outcome: the closes subtracted from it.
    let words = size_of::<Counters>() / size_of::<u64>() + Outcome::COUNT;
    prop::collection::vec(word, words).prop_map(|words| {
        let mut words = words.into_iter();
        counters(&mut || words.next().expect("one for each"))
    })
}

fn counters(word: &mut impl FnMut() -> u64) -> Counters {
    Counters {
        // A count may be below zero: a close is subtracted where it was not counted.
        closes: [(); Outcome::COUNT].map(|()| word().wrapping_sub(word())),
        blocked: [(); 2].map(|()| times(word)),
        discarded: [(); Outcome::DISCARD_INDICES].map(|()| queue(word)),
        resets: [(); Cause::COUNT].map(|()| word()),
        unread_bytes: word(),
        orphans: Orphans {
            ends: [(); Fate::COUNT].map(|()| word()),
            discarded: [(); Fate::COUNT].map(|()| queue(word)),
            lived: times(word),
            delivered_bytes: word(),
            left_bytes: word(),
            left: word(),
        },
        number: 0,
    }
}

fn times(word: &mut impl FnMut() -> u64) -> TimeHistogram {
    TimeHistogram {
        sum_ns: word(),
        buckets: [(); BUCKETS].map(|()| word()),
    }
}

fn queue(word: &mut impl FnMut() -> u64) -> QueueBytes {
    QueueBytes {
        unsent: word(),
        unacked: word(),
    }
}
