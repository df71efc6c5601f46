use std::sync::Arc;

use linger_ebpf::{Counters, Lost, Outcome, Plan};

use crate::attribution::{Dimension, Labels};
use crate::ledger::Snapshot;
use crate::live::{Live, MAX_GROUPS, MAX_RECENT, RecentClose};
use crate::metrics::{Facts, Metrics};

fn live(groups: Vec<(Labels, Counters)>, recent: Vec<RecentClose>) -> Live {
    let groups = groups.into_iter();
    let snapshot = Snapshot {
        plan: Plan::Fentry,
        dimensions: [Dimension::Unit].into(),
        groups: groups
            .map(|(labels, counters)| (labels.into(), counters.into()))
            .collect(),
        lost: [0; Lost::COUNT],
        lost_orphan_bytes: 0,
        maps: Vec::new(),
        hooks: Vec::new(),
        skipped_runs: Vec::new(),
    };
    let facts = Facts {
        plan: Plan::Fentry,
        kernel: "6.1.0-test".to_owned(),
        host: "test".to_owned(),
    };
    let metrics = Metrics::new(Arc::new(move || Ok(snapshot.clone())), facts)
        .with_recent(Arc::new(move || recent.clone()));
    metrics.live(&metrics.read().unwrap())
}

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
fn of_many_groups_the_largest_by_any_measure_are_shown_and_all_are_counted() {
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
    let groups = groups
        .into_iter()
        .map(|(unit, counters)| (Labels::new([unit.as_str()]), counters));
    let live = live(groups.collect(), Vec::new());
    let shown: Vec<_> = live
        .groups
        .iter()
        .map(|group| &*group.labels["unit"])
        .collect();
    assert_eq!(shown.len(), MAX_GROUPS);
    assert_eq!(live.groups_omitted, 1003 - MAX_GROUPS);
    for unit in ["lost", "blocked", "aborted", "1000", "0999", "0951"] {
        assert!(shown.contains(&unit), "{unit} is not among {shown:?}");
    }
    assert_eq!(live.closes["graceful"], 500_500);
    assert_eq!(live.closes["unread_aborted"], 1);
}

#[test]
fn a_group_that_is_largest_by_every_measure_takes_one_place() {
    let groups = ["one", "two"].map(|unit| (Labels::new([unit]), harmless(2)));
    let live = live(groups.into(), Vec::new());
    assert_eq!(live.groups.len(), 2);
    assert_eq!(live.groups_omitted, 0);
}

#[test]
fn recent_closes_are_the_newest() {
    let recent = (0..2 * MAX_RECENT).map(|age| RecentClose {
        pid: u32::try_from(age).unwrap(),
        ..RecentClose::default()
    });
    let live = live(Vec::new(), recent.collect());
    assert_eq!(live.recent.len(), MAX_RECENT);
    assert_eq!(live.recent[0].pid, 0);
}
