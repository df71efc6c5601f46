//! What closes add up to.

use super::group::Group;
use super::labels::{Cause, Fate, Outcome};

/// Upper bounds of the buckets of times blocked in close, nanoseconds, inclusive; one more bucket is above.
pub const BLOCKED_BOUNDS_NS: [u64; BUCKETS - 1] = [
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
    60_000_000_000,
];

/// As [`BLOCKED_BOUNDS_NS`], of times from a close's return to the end of its orphan.
pub const LIVED_BOUNDS_NS: [u64; BUCKETS - 1] = [
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
    60_000_000_000,
    600_000_000_000,
];

/// Number of buckets, the one above all bounds included.
pub const BUCKETS: usize = 8;

/// Times, and their sum.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Nanoseconds.
    pub sum_ns: u64,
    /// How many there were, by bucket; not cumulative.
    pub buckets: [u64; BUCKETS],
}

impl Times {
    /// None.
    pub const ZERO: Self = Self {
        sum_ns: 0,
        buckets: [0; BUCKETS],
    };

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds one, by the bounds of its buckets.
    pub fn add(&mut self, time_ns: u64, bounds_ns: &[u64; BUCKETS - 1]) {
        self.sum_ns += time_ns;
        self.buckets[bounds_ns.partition_point(|&bound| bound < time_ns)] += 1;
    }
}

/// A number of bytes for each half of the send queue, FIN and SYN not counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueBytes {
    /// Never sent (`write_seq - snd_nxt`): did not reach the peer.
    pub unsent: u64,
    /// Sent, not acknowledged (`snd_nxt - snd_una`): may have reached the peer.
    pub unacked: u64,
}

impl QueueBytes {
    /// Nothing in it.
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

/// What one group's closes left behind.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphans {
    /// Those that ended, by [`Fate`]. It is added to last and read first: who sees an end sees its payload.
    pub ends: [u64; Fate::COUNT],
    /// Payload that was thrown away with them, by [`Fate`].
    pub discarded: [QueueBytes; Fate::COUNT],
    /// Times from the close's return to the end.
    pub lived: Times,
    /// Payload of ended orphans that the peer acknowledged since.
    pub delivered_bytes: u64,
    /// Payload that was outstanding when the closes returned.
    pub left_bytes: u64,
    /// Orphans that closes left. It is added to first and read last: who sees the payload of an orphan
    /// sees the orphan.
    pub left: u64,
}

impl Orphans {
    /// Nothing counted.
    pub const ZERO: Self = Self {
        ends: [0; Fate::COUNT],
        discarded: [QueueBytes::NONE; Fate::COUNT],
        lived: Times::ZERO,
        delivered_bytes: 0,
        left_bytes: 0,
        left: 0,
    };

    /// How many ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ends.iter().sum()
    }

    /// Payload of those that ended.
    #[must_use]
    pub fn ended_bytes(&self) -> u64 {
        let discarded: u64 = self.discarded.iter().map(|bytes| bytes.sum()).sum();
        self.delivered_bytes + discarded
    }

    /// How many there ever were. An end that is counted implies its beginning, also where the
    /// counters of another CPU were read before it began.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.left.max(self.ended())
    }

    /// How many have not ended.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.total() - self.ended()
    }

    /// Payload they were left with; as [`Orphans::total`].
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.left_bytes.max(self.ended_bytes())
    }
}

/// All that one group counted: the value of the ledger, one copy for every CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Closes, by [`Outcome`]. Those of one CPU, or of one outcome, may stand below zero: a close is taken back
    /// and counted anew if it turns out to be another's, or to have another outcome.
    pub closes: [u64; Outcome::COUNT],
    /// Times blocked in close: of those that did not wait under `SO_LINGER`, and of those that did
    /// ([`Outcome::waited`]). Closes whose time is not known are missing.
    pub blocked: [Times; 2],
    /// Send-queue payload that closes threw away, by [`Outcome::queue`].
    pub discarded: [QueueBytes; Outcome::QUEUES],
    /// RSTs this host sent, by [`Cause`].
    pub resets: [u64; Cause::COUNT],
    /// Received payload that no one read, thrown away by closes.
    pub unread_bytes: u64,
    /// What its closes left behind.
    pub orphans: Orphans,
    /// [`Group::number`], once that is written down; 0 until then, in the counters of each CPU. It is no count.
    pub number: u64,
}

impl Counters {
    /// Nothing counted.
    pub const ZERO: Self = Self {
        closes: [0; Outcome::COUNT],
        blocked: [Times::ZERO; 2],
        discarded: [QueueBytes::NONE; Outcome::QUEUES],
        resets: [0; Cause::COUNT],
        unread_bytes: 0,
        orphans: Orphans::ZERO,
        number: 0,
    };

    /// Payload that closes of an outcome threw away.
    #[must_use]
    pub fn discarded(&self, outcome: Outcome) -> QueueBytes {
        outcome
            .queue()
            .map_or(QueueBytes::NONE, |queue| self.discarded[queue])
    }

    /// The same, to be added to.
    ///
    /// # Panics
    ///
    /// If closes of that outcome throw nothing away.
    #[must_use]
    pub fn discarded_mut(&mut self, outcome: Outcome) -> &mut QueueBytes {
        let queue = outcome.queue().expect("an outcome that discards");
        &mut self.discarded[queue]
    }

    /// Closes of an outcome.
    #[must_use]
    pub fn closed(&self, outcome: Outcome) -> u64 {
        // Below zero if a close was counted anew that had not been counted, being lost.
        u64::try_from(self.closes[outcome.index()].cast_signed()).unwrap_or(0)
    }
}

/// How many groups [`Group::SHARED`] are.
#[expect(clippy::cast_possible_truncation, reason = "two")]
pub const SHARED_GROUPS: u32 = Group::SHARED.len() as u32;

/// What the daemon keeps of a group: no program touches it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// If it is shown under `other` for want of series, how many there might be then; else 0.
    pub most_series: u64,
    /// What the daemon adds to the group's own counters: its orphans that were given up, and all that the groups
    /// counted whose series it continues.
    pub counters: Counters,
    /// The group that was added last, whose own counters may still be there.
    pub last: Group,
}

impl Note {
    /// Nothing kept.
    pub const ZERO: Self = Self {
        most_series: 0,
        counters: Counters::ZERO,
        last: Group::ZERO,
    };
}
