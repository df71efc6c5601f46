//! Facts about the orphans of a scenario.

use linger_daemon::exercise::state::Queues;
use linger_ebpf::Fate;
use serde::{Deserialize, Serialize};

use crate::truth::Truth;

/// Orphans that did not fit in the orphan table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Homeless {
    pub(crate) count: u64,
    /// Payload outstanding when their closes returned, bytes.
    pub(crate) bytes: u64,
}

/// Delivered orphans that a scenario may or may not make, by the kernel's timing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chance {
    pub(crate) least: Bound,
    pub(crate) most: Bound,
}

/// A bound of a [`Chance`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) orphans: u64,
    /// Their payload, bytes.
    pub(crate) bytes: u64,
}

impl Bound {
    /// Adds an orphan, if these bytes make one.
    pub(crate) fn count(&mut self, bytes: u64) {
        self.orphans += u64::from(bytes > 0);
        self.bytes += bytes;
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.orphans += other.orphans;
        self.bytes += other.bytes;
    }
}

impl Truth {
    /// States that a close left an orphan whose payload was all delivered.
    pub(crate) fn delivered(&mut self, left: Queues) {
        self.tally.orphans.delivered(left);
    }

    /// States that a close left an orphan of whose payload nothing was delivered.
    pub(crate) fn lost(&mut self, left: Queues, fate: Fate) {
        self.tally.orphans.lost(left, fate);
    }
}

/// A message sent and not acknowledged, as [`pair_with_unacked`] leaves it.
///
/// [`pair_with_unacked`]: linger_daemon::exercise::pair_with_unacked
pub(crate) const UNACKED_MESSAGE: Queues = Queues {
    unsent: 0,
    unacked: linger_daemon::exercise::MESSAGE as u64,
    unread: 0,
};
