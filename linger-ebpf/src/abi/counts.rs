//! What closes add up to.

use super::group::Group;
use super::labels::{Cause, Fate, Outcome};

/// Upper bounds of the blocked-time buckets in nanoseconds, inclusive; one more bucket is above.
pub const BUCKET_BOUNDS_NS: [u64; 13] = [
    100_000,
    1_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    120_000_000_000,
];

/// Number of buckets, the one above all bounds included.
pub const BUCKETS: usize = BUCKET_BOUNDS_NS.len() + 1;

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

/// What closes of one outcome add up to, for one group.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closes {
    /// Sum of the blocked times, nanoseconds.
    pub blocked_ns: u64,
    /// Timed closes by the time the thread was blocked; not cumulative.
    pub buckets: [u64; BUCKETS],
    /// Closes counted without a time, because their return was not seen.
    pub undated: u64,
    /// Send-queue payload thrown away.
    pub discarded: QueueBytes,
}

impl Closes {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        // Below zero if a close was counted anew that had not been counted, being lost.
        let undated = self.undated.cast_signed();
        self.timed().saturating_add_signed(undated)
    }

    /// How many of them have a time.
    #[must_use]
    pub fn timed(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Nothing counted.
    pub const ZERO: Self = Self {
        blocked_ns: 0,
        buckets: [0; BUCKETS],
        undated: 0,
        discarded: QueueBytes::NONE,
    };
}

/// What the ends of orphans of one fate add up to, for one group.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Sum of the times from the close's return to the end, nanoseconds.
    pub lived_ns: u64,
    /// Orphans by that time; not cumulative.
    pub buckets: [u64; BUCKETS],
    /// Payload thrown away.
    pub discarded: QueueBytes,
}

impl Ends {
    /// Nothing counted.
    pub const ZERO: Self = Self {
        lived_ns: 0,
        buckets: [0; BUCKETS],
        discarded: QueueBytes::NONE,
    };

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// What one group's closes left behind.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphans {
    /// Orphans that closes left.
    pub left: u64,
    /// Payload that was outstanding when those closes returned.
    pub left_bytes: u64,
    /// Payload of ended orphans that the peer acknowledged since.
    pub delivered_bytes: u64,
    /// Those that ended, by [`Fate`].
    pub ends: [Ends; Fate::COUNT],
}

impl Orphans {
    /// Nothing counted.
    pub const ZERO: Self = Self {
        left: 0,
        left_bytes: 0,
        delivered_bytes: 0,
        ends: [Ends::ZERO; Fate::COUNT],
    };

    /// How many ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ends.iter().map(Ends::count).sum()
    }

    /// Payload of those that ended.
    #[must_use]
    pub fn ended_bytes(&self) -> u64 {
        let discarded = self.ends.iter().map(|ends| ends.discarded);
        let discarded: u64 = discarded.map(QueueBytes::sum).sum();
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

/// All counters of one group.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// By [`Outcome`].
    pub closes: [Closes; Outcome::COUNT],
    /// RSTs this host chose to send, by [`Cause`].
    pub resets: [u64; Cause::COUNT],
    /// Received payload that no one read, thrown away by closes.
    pub unread_bytes: u64,
    /// What its closes left behind.
    pub orphans: Orphans,
}

impl Counters {
    /// Nothing counted.
    pub const ZERO: Self = Self {
        closes: [Closes::ZERO; Outcome::COUNT],
        resets: [0; Cause::COUNT],
        unread_bytes: 0,
        orphans: Orphans::ZERO,
    };
}

/// What a [`Row`] adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Closes of an outcome, with all that they did and left behind.
    Closes(Outcome),
    /// Ends of orphans of a fate.
    Ends(Fate),
    /// RSTs of a cause that are no part of a close.
    Resets(Cause),
    /// Ends of orphans that the daemon gave up, their fate unknown: the only rows that it makes, and
    /// that the programs do not touch.
    GivenUp,
}

/// How many kinds of rows there are.
pub const ROWS: usize = Kind::GivenUp.index() + 1;

/// How many rows [`Group::SHARED`] have.
#[expect(clippy::cast_possible_truncation, reason = "a few dozen")]
pub const SHARED_ROWS: u32 = (Group::SHARED.len() * ROWS) as u32;

impl Kind {
    /// The number of the row, below [`ROWS`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Closes(outcome) => outcome.index(),
            Self::Ends(fate) => Outcome::COUNT + fate.index(),
            Self::Resets(cause) => Outcome::COUNT + Fate::COUNT + cause.index(),
            Self::GivenUp => Outcome::COUNT + Fate::COUNT + Cause::COUNT,
        }
    }

    /// The kind of the row with this number.
    #[must_use]
    pub fn from_index(index: usize) -> Option<Self> {
        let fates = Outcome::COUNT + Fate::COUNT;
        if index < Outcome::COUNT {
            Outcome::ALL.get(index).copied().map(Self::Closes)
        } else if index < fates {
            let fate = Fate::ALL.get(index - Outcome::COUNT);
            fate.copied().map(Self::Ends)
        } else if index == Self::GivenUp.index() {
            Some(Self::GivenUp)
        } else {
            Cause::ALL.get(index - fates).copied().map(Self::Resets)
        }
    }
}

/// The key of a [`Row`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    /// Whose it is.
    pub group: Group,
    /// The index of its [`Kind`].
    pub row: u64,
}

/// The value of the ledger, one copy per CPU: what one kind of thing adds up to for one group. There
/// are rows only of what happened. What has no meaning for a kind stays zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Sum of the times: blocked in close, or from the close to the end of its orphan. Nanoseconds.
    pub time_ns: u64,
    /// How many there were, by that time; not cumulative.
    pub buckets: [u64; BUCKETS],
    /// Closes counted without a time, because their return was not seen.
    pub undated: u64,
    /// Send-queue payload thrown away.
    pub discarded: QueueBytes,
    /// Received payload that no one read, thrown away.
    pub unread_bytes: u64,
    /// RSTs this host chose to send: of closes, with the outcome as their cause.
    pub resets: u64,
    /// Payload of orphans: outstanding when their closes returned; for ends, acknowledged since.
    pub orphan_bytes: u64,
    /// Orphans that closes left. It is added to first and read last: who sees the payload of an orphan
    /// sees the orphan.
    pub left: u64,
}

impl Row {
    /// Nothing counted.
    pub const ZERO: Self = Self {
        time_ns: 0,
        buckets: [0; BUCKETS],
        undated: 0,
        discarded: QueueBytes::NONE,
        unread_bytes: 0,
        resets: 0,
        left: 0,
        orphan_bytes: 0,
    };
}
