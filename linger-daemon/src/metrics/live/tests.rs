use std::sync::Arc;
use std::time::Duration;

use linger_ebpf::Plan;

use super::*;
use crate::ledger::Snapshot;
use crate::metrics::Facts;

/// Returns the counters of `count` closes with an outcome.
fn closes(outcome: Outcome, count: u64) -> Counters {
    let mut counters = Counters::ZERO;
    counters.closes[outcome.index()] = count;
    counters
}

/// Returns the counters of `count` closes that are quick and lose nothing.
fn harmless(count: u64) -> Counters {
    let mut counters = closes(Outcome::Graceful, count);
    counters.blocked[0].buckets[0] = count;
    counters
}

#[test]
fn the_largest_groups_by_any_measure_are_shown_and_all_are_counted() {
    let mut groups: Vec<_> = (1..=1000)
        .map(|number| (format!("{number:04}"), harmless(number)))
        .collect();
    let mut lost = closes(Outcome::LingerFailed, 1);
    lost.discarded_mut(Outcome::LingerFailed).unacked = 1;
    let mut blocked = closes(Outcome::Lingered, 1);
    blocked.blocked[1].sum_ns = 1_000_000_000;
    let aborted = closes(Outcome::UnreadAborted, 1);
    groups.push(("lost".into(), lost));
    groups.push(("blocked".into(), blocked));
    groups.push(("aborted".into(), aborted));
    let groups = groups.into_iter();
    let groups = groups.map(|(unit, one)| (Labels::new([unit.as_str()]).into(), one.into()));
    let exposition = Exposition {
        at: SystemTime::now(),
        snapshot: Snapshot {
            dimensions: [Dimension::Unit].into(),
            groups: groups.collect(),
            ..Snapshot::default()
        },
        facts: Arc::new(Facts {
            plan: Plan::Fentry,
            kernel: String::new(),
            host: String::new(),
        }),
        reading: Duration::ZERO,
        process: Vec::new(),
    };
    let live = Live::of(&exposition, Vec::new());
    let shown = live.groups.iter().map(|group| &*group.labels["unit"]);
    let shown: Vec<_> = shown.collect();
    assert_eq!(shown.len(), MAX_GROUPS);
    assert_eq!(live.groups_omitted, 1003 - MAX_GROUPS);
    // No place is left to groups that are only the first of those that lost nothing.
    for unit in ["lost", "blocked", "aborted", "1000", "0999", "0804"] {
        assert!(shown.contains(&unit), "{unit} is not among {shown:?}");
    }
    assert_eq!(live.closes["graceful"], 500_500);
    assert_eq!(live.closes["unread_aborted"], 1);
}

#[test]
fn a_group_that_is_largest_by_every_measure_takes_one_place() {
    let group = harmless(2);
    assert_eq!(largest(&[&group, &group], 2).len(), 2);
}

#[test]
fn a_group_that_is_zero_by_every_measure_is_shown_if_there_is_room() {
    let (busy, quiet) = (harmless(2), Counters::ZERO);
    let groups = [&quiet, &busy];
    assert_eq!(Vec::from_iter(largest(&groups, 1)), [1]);
    assert_eq!(Vec::from_iter(largest(&groups, 2)), [0, 1]);
}
