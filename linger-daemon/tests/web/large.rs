//! Ledgers with every group that fits.

use linger_daemon::attribution::{Dimension, Labels};
use linger_daemon::ledger::Snapshot;
use linger_ebpf::{
    BUCKETS, Cause, Counters, Fate, Lost, MAX_GROUPS, Outcome, Plan, QueueBytes, Times,
};

/// As many groups as the ledger holds, each with the counters that belong to its number.
pub(crate) fn snapshot(counters: fn(u64) -> Counters) -> Snapshot {
    let groups = (0..u64::from(MAX_GROUPS)).map(|group| {
        let unit = format!("service-{group:04}.service");
        (
            Labels::new([unit.as_str(), "worker"]).into(),
            counters(group).into(),
        )
    });
    Snapshot {
        plan: Plan::Fentry,
        dimensions: Dimension::DEFAULT.into(),
        groups: groups.collect(),
        lost: [0; Lost::COUNT],
        lost_orphan_bytes: 0,
        maps: Vec::new(),
        hooks: Vec::new(),
        skipped_runs: Vec::new(),
    }
}

/// Adds so many closes for each of the first buckets, and one that has no time. Groups differ in all that is counted
/// of them.
pub(crate) fn close(counters: &mut Counters, outcome: Outcome, count: u64, buckets: usize) {
    let closes = &mut counters.closes[outcome.index()];
    *closes += add_times(
        &mut counters.blocked[usize::from(outcome.waited())],
        count,
        buckets,
    ) + 1;
    if outcome.discards() {
        *counters.discarded_mut(outcome) = bytes(count);
    }
}

/// The same of orphans that end: all have a time.
fn end(counters: &mut Counters, fate: Fate, count: u64, buckets: usize) {
    let orphans = &mut counters.orphans;
    orphans.ends[fate.index()] += add_times(&mut orphans.lived, count, buckets);
    if fate.discards() {
        orphans.discarded[fate.index()] = bytes(count);
    }
}

/// Returns how many they are.
fn add_times(times: &mut Times, count: u64, buckets: usize) -> u64 {
    times.sum_ns += count * 12_345_678;
    let buckets = &mut times.buckets[..buckets];
    for bucket in &mut *buckets {
        *bucket += count;
    }
    count * buckets.len() as u64
}

fn bytes(count: u64) -> QueueBytes {
    QueueBytes {
        unsent: count * 1460,
        unacked: count * 536,
    }
}

/// What a usual service does: graceful closes, closes of ended connections and of listeners, and aborts. It leaves no
/// orphans.
pub(crate) fn usual(group: u64) -> Counters {
    let mut counters = Counters::ZERO;
    for outcome in [
        Outcome::Graceful,
        Outcome::AlreadyClosed,
        Outcome::UnreadAborted,
        Outcome::Listener,
    ] {
        close(&mut counters, outcome, group * 37 + 1, BUCKETS);
    }
    counters.resets[Cause::UnreadAborted.index()] = group + 1;
    counters.unread_bytes = group + 1;
    counters
}

/// What most groups do: two or three outcomes, of which most are quick, and now and then an orphan.
pub(crate) fn typical(group: u64) -> Counters {
    let mut counters = Counters::ZERO;
    let count = group * 37 + 1;
    close(&mut counters, Outcome::Graceful, count, 3);
    close(&mut counters, Outcome::UnreadAborted, count / 9 + 1, 2);
    if group.is_multiple_of(2) {
        close(&mut counters, Outcome::LingerAborted, count / 99 + 1, 1);
    }
    counters.unread_bytes = count;
    counters.resets[0] = count / 9 + 1;
    counters.orphans.left = count;
    counters.orphans.left_bytes = count * 2000;
    end(&mut counters, Fate::Delivered, 1, 2);
    counters
}

/// All that a group can count, at once.
pub(crate) fn everything(group: u64) -> Counters {
    let mut counters = Counters::ZERO;
    for (number, outcome) in (1..).zip(Outcome::ALL) {
        close(&mut counters, *outcome, group * 37 + number, BUCKETS);
    }
    for (number, resets) in (1..).zip(&mut counters.resets) {
        *resets = group + number;
    }
    counters.unread_bytes = group + 1;
    counters.orphans.left = u64::from(u32::MAX);
    counters.orphans.left_bytes = u64::from(u32::MAX);
    counters.orphans.delivered_bytes = group;
    for (number, fate) in (1..).zip(Fate::ALL) {
        end(&mut counters, *fate, group * 7 + number, BUCKETS);
    }
    counters
}
