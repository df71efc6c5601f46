//! Counters.

use super::group::Group;
use super::labels::{Cause, Fate, Outcome};

/// Inclusive upper bounds of the buckets of times blocked in close, nanoseconds; one more bucket is above.
pub const BLOCKED_BOUNDS_NS: [u64; BUCKETS - 1] = [
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
    60_000_000_000,
];

/// Like [`BLOCKED_BOUNDS_NS`], for times from a close's return to the end of its orphan.
pub const LIVED_BOUNDS_NS: [u64; BUCKETS - 1] = [
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
    60_000_000_000,
    600_000_000_000,
];

/// Number of buckets, including the one above all bounds.
pub const BUCKETS: usize = 8;

/// A histogram of times, and their sum.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeHistogram {
    /// Nanoseconds.
    pub sum_ns: u64,
    /// Number of times, by bucket; not cumulative.
    pub buckets: [u64; BUCKETS],
}

impl TimeHistogram {
    /// No times.
    pub const ZERO: Self = Self {
        sum_ns: 0,
        buckets: [0; BUCKETS],
    };

    /// Number of times.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds a time, with these bounds of the buckets.
    pub fn add(&mut self, time_ns: u64, bounds_ns: &[u64; BUCKETS - 1]) {
        self.sum_ns += time_ns;
        self.buckets[bounds_ns.partition_point(|&bound| bound < time_ns)] += 1;
    }
}

/// Bytes in each half of the send queue, without FIN and SYN.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueBytes {
    /// Never sent (`write_seq - snd_nxt`): did not reach the peer.
    pub unsent: u64,
    /// Sent, not acknowledged (`snd_nxt - snd_una`): may have reached the peer.
    pub unacked: u64,
}

impl QueueBytes {
    /// An empty queue.
    pub const NONE: Self = Self {
        unsent: 0,
        unacked: 0,
    };

    /// Both together.
    #[must_use]
    pub const fn sum(self) -> u64 {
        self.unsent + self.unacked
    }
}

/// Counters of the orphans that one group's closes left behind.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphans {
    /// Orphans that ended, by [`Fate`]. Written last and read first: a reader that sees an end sees its payload.
    pub ends: [u64; Fate::COUNT],
    /// Payload discarded with them, by [`Fate`].
    pub discarded: [QueueBytes; Fate::COUNT],
    /// Times from the close's return to the end.
    pub lived: TimeHistogram,
    /// Payload of ended orphans that the peer acknowledged after the close.
    pub delivered_bytes: u64,
    /// Payload outstanding when the closes returned.
    pub left_bytes: u64,
    /// Orphans that closes left. Written first and read last: a reader that sees the payload of an orphan
    /// sees the orphan.
    pub left: u64,
}

impl Orphans {
    /// Nothing counted.
    pub const ZERO: Self = Self {
        ends: [0; Fate::COUNT],
        discarded: [QueueBytes::NONE; Fate::COUNT],
        lived: TimeHistogram::ZERO,
        delivered_bytes: 0,
        left_bytes: 0,
        left: 0,
    };

    /// Number of orphans that ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ends.iter().sum()
    }

    /// Payload of the orphans that ended.
    #[must_use]
    pub fn ended_bytes(&self) -> u64 {
        let discarded: u64 = self.discarded.iter().map(|bytes| bytes.sum()).sum();
        self.delivered_bytes + discarded
    }

    /// Number of orphans so far. A counted end implies a beginning, even if the counters of the CPU on which
    /// it began were read before.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.left.max(self.ended())
    }

    /// Number of orphans that have not ended.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.total() - self.ended()
    }

    /// Payload of all orphans so far; see [`Orphans::total`].
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.left_bytes.max(self.ended_bytes())
    }
}

/// The counters of one group: the value of the ledger, one copy per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Closes, by [`Outcome`]. The count of one CPU, or of one outcome, may be below zero: a close is subtracted
    /// and counted again if its group or its outcome turns out to be another.
    pub closes: [u64; Outcome::COUNT],
    /// Times blocked in close: of closes that did not wait under `SO_LINGER`, and of those that did
    /// ([`Outcome::waited`]). Closes whose time is unknown are missing.
    pub blocked: [TimeHistogram; 2],
    /// Send-queue payload discarded by closes, by [`Outcome::discard_index`].
    pub discarded: [QueueBytes; Outcome::DISCARD_INDICES],
    /// RSTs this host sent, by [`Cause`].
    pub resets: [u64; Cause::COUNT],
    /// Received payload discarded unread by closes.
    pub unread_bytes: u64,
    /// Orphans left by its closes.
    pub orphans: Orphans,
    /// [`Group::number`] once it is recorded, else 0, in the counters of each CPU. Not a count.
    pub number: u64,
}

impl Counters {
    /// Nothing counted.
    pub const ZERO: Self = Self {
        closes: [0; Outcome::COUNT],
        blocked: [TimeHistogram::ZERO; 2],
        discarded: [QueueBytes::NONE; Outcome::DISCARD_INDICES],
        resets: [0; Cause::COUNT],
        unread_bytes: 0,
        orphans: Orphans::ZERO,
        number: 0,
    };

    /// Send-queue payload discarded by closes with this outcome.
    #[must_use]
    pub fn discarded(&self, outcome: Outcome) -> QueueBytes {
        outcome
            .discard_index()
            .map_or(QueueBytes::NONE, |index| self.discarded[index])
    }

    /// Mutable access to [`Counters::discarded`].
    ///
    /// # Panics
    ///
    /// If closes with this outcome discard nothing.
    #[must_use]
    pub fn discarded_mut(&mut self, outcome: Outcome) -> &mut QueueBytes {
        let index = outcome.discard_index().expect("an outcome that discards");
        &mut self.discarded[index]
    }

    /// Closes with this outcome.
    #[must_use]
    pub fn closed(&self, outcome: Outcome) -> u64 {
        // Below zero if a lost close, which had not been counted, was counted again.
        u64::try_from(self.closes[outcome.index()].cast_signed()).unwrap_or(0)
    }
}

/// The daemon's notes about a group, not used by programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// If the group is shown under `other` for lack of series, how many there could have been then; else 0.
    pub most_series: u64,
    /// Added to the group's own counters: its orphans that were given up, and the counters of the groups whose
    /// series it continues.
    pub counters: Counters,
    /// The group that was added last, whose own counters may not be removed yet.
    pub last: Group,
}

impl Note {
    /// No notes.
    pub const ZERO: Self = Self {
        most_series: 0,
        counters: Counters::ZERO,
        last: Group::ZERO,
    };
}
