//! Ledgers with the maximum number of groups.

use linger_daemon::attribution::{Dimension, Labels};
use linger_daemon::ledger::Snapshot;
use linger_ebpf::{BUCKETS, Cause, Counters, Fate, MAX_GROUPS, Outcome, QueueBytes, TimeHistogram};

/// Returns the maximum number of groups, each with the counters for its number.
pub(crate) fn snapshot(counters: fn(u64) -> Counters) -> Snapshot {
    let groups = (0..u64::from(MAX_GROUPS)).map(|group| {
        let unit = format!("service-{group:04}.service");
        (
            Labels::new([unit.as_str(), "worker"]).into(),
            counters(group).into(),
        )
    });
    Snapshot {
        dimensions: Dimension::DEFAULT.into(),
        groups: groups.collect(),
        ..Snapshot::default()
    }
}

/// Adds `count` closes to each of the first buckets, and one without a time. All counts differ between groups.
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

/// Adds orphans that end, in the same way: all have a time.
fn end(counters: &mut Counters, fate: Fate, count: u64, buckets: usize) {
    let orphans = &mut counters.orphans;
    orphans.ends[fate.index()] += add_times(&mut orphans.lived, count, buckets);
    if fate.discards() {
        orphans.discarded[fate.index()] = bytes(count);
    }
}

/// Adds `count` times to each of the first buckets. Returns their number.
fn add_times(times: &mut TimeHistogram, count: u64, buckets: usize) -> u64 {
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

/// Returns the counters of a usual service: graceful closes, closes of ended connections and of listeners, and aborts.
/// It leaves no orphans.
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

/// Returns the counters of a typical group: two or three outcomes, mostly quick, and some orphans.
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

/// Returns counters with everything that a group can count.
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
