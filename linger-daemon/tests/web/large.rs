//! Ledgers with every group that fits.

use linger_daemon::attribution::{Dimension, Labels};
use linger_daemon::ledger::Snapshot;
use linger_ebpf::{
    BUCKETS, Closes, Counters, Ends, Fate, Lost, MAX_GROUPS, Outcome, Plan, QueueBytes,
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
        skipped_runs: Vec::new(),
    }
}

/// Closes that differ in all that is counted of them.
fn closes(count: u64, buckets: usize) -> Closes {
    let mut closes = Closes {
        blocked_ns: count * 12_345_678,
        undated: 1,
        discarded: QueueBytes {
            unsent: count * 1460,
            unacked: count * 536,
        },
        ..Closes::ZERO
    };
    for bucket in &mut closes.buckets[..buckets] {
        *bucket = count;
    }
    closes
}

/// The same of orphans.
fn ends(count: u64, buckets: usize) -> Ends {
    let closes = closes(count, buckets);
    Ends {
        lived_ns: closes.blocked_ns,
        buckets: closes.buckets,
        discarded: closes.discarded,
    }
}

/// What most groups do: two or three outcomes, of which most are quick, and now and then an orphan.
pub(crate) fn typical(group: u64) -> Counters {
    let mut counters = Counters::ZERO;
    let count = group * 37 + 1;
    counters.closes[Outcome::Graceful.index()] = closes(count, 3);
    counters.closes[Outcome::UnreadAborted.index()] = closes(count / 9 + 1, 2);
    if group.is_multiple_of(2) {
        counters.closes[Outcome::LingerAborted.index()] = closes(count / 99 + 1, 1);
    }
    counters.unread_bytes = count;
    counters.resets[0] = count / 9 + 1;
    counters.orphans.left = count;
    counters.orphans.left_bytes = count * 2000;
    counters.orphans.ends[Fate::Delivered.index()] = ends(1, 2);
    counters
}

/// All that a group can count, at once.
pub(crate) fn everything(group: u64) -> Counters {
    let mut counters = Counters::ZERO;
    for (number, outcome) in (1..).zip(&mut counters.closes) {
        *outcome = closes(group * 37 + number, BUCKETS);
    }
    for (number, resets) in (1..).zip(&mut counters.resets) {
        *resets = group + number;
    }
    counters.unread_bytes = group + 1;
    counters.orphans.left = u64::from(u32::MAX);
    counters.orphans.left_bytes = u64::from(u32::MAX);
    counters.orphans.delivered_bytes = group;
    for (number, end) in (1..).zip(&mut counters.orphans.ends) {
        *end = ends(group * 7 + number, BUCKETS);
    }
    counters
}
