//! The expected counts of closes, from the kernel's numbers read just before each of them.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use linger_ebpf::{BLOCKED_BOUNDS_NS, Cause, Outcome};
use serde::{Deserialize, Serialize};
use socket2::Socket;

use super::orphan_tally::OrphanTally;
use super::state::{self, Queues};
use super::tcp;

/// The expected end of a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Its outcome.
    pub outcome: Outcome,
    /// The cause of the RST it sends, if any.
    pub reset: Option<Cause>,
}

impl End {
    /// An end without an RST, whatever is usual for the outcome.
    #[must_use]
    pub const fn silent(outcome: Outcome) -> Self {
        Self {
            outcome,
            reset: None,
        }
    }
}

impl From<Outcome> for End {
    /// The end with the RST that is usual for the outcome.
    fn from(outcome: Outcome) -> Self {
        let reset = match outcome {
            Outcome::LingerAborted => Some(Cause::LingerAborted),
            Outcome::UnreadAborted => Some(Cause::UnreadAborted),
            Outcome::Linger2Aborted => Some(Cause::Linger2Aborted),
            Outcome::MemoryAborted => Some(Cause::MemoryAborted),
            _ => None,
        };
        Self { outcome, reset }
    }
}

/// Closes of one outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closes {
    /// Number of closes.
    pub count: u64,
    /// Send-queue payload discarded that was not sent, bytes.
    pub unsent: u64,
    /// Send-queue payload discarded that was sent and not acknowledged, bytes.
    pub unacked: u64,
    /// Time around the calls of close, nanoseconds: the closes blocked for no longer than this.
    pub blocked_ns: u64,
    /// Number of those calls that took no longer than the first bound of the histogram.
    pub quick: u64,
}

impl Closes {
    /// Adds other closes.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.unsent += other.unsent;
        self.unacked += other.unacked;
        self.blocked_ns += other.blocked_ns;
        self.quick += other.quick;
    }
}

/// All expected counts of a number of closes, by the values of the metrics' labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// By outcome.
    pub closes: BTreeMap<String, Closes>,
    /// RSTs that this host sent, by cause.
    pub resets: BTreeMap<String, u64>,
    /// Received payload discarded unread, bytes.
    pub unread: u64,
    /// Orphans that the closes left.
    pub orphans: OrphanTally,
}

/// The outcomes in which `__tcp_close` discards its send queue. Taken from the kernel's source, not from the code that
/// counts, because its counts are compared with this.
const DISCARDING: [Outcome; 6] = [
    Outcome::LingerAborted,
    Outcome::UnreadAborted,
    Outcome::Linger2Aborted,
    Outcome::MemoryAborted,
    Outcome::ConnectAborted,
    Outcome::LingerFailed,
];

impl Tally {
    /// Closes the last descriptor of a socket and counts it. Returns how long the close took.
    pub fn close(&mut self, socket: Socket, end: impl Into<End>) -> io::Result<Duration> {
        let queues = state::queues(&socket)?;
        let blocked = tcp::close(socket)?;
        self.count(end, queues, blocked);
        Ok(blocked)
    }

    /// Counts one close of a socket that had these queues.
    pub fn count(&mut self, end: impl Into<End>, queues: Queues, blocked: Duration) {
        let End { outcome, reset } = end.into();
        let closes = self.closes.entry(outcome.name().into()).or_default();
        closes.count += 1;
        if DISCARDING.contains(&outcome) {
            closes.unsent += queues.unsent;
            closes.unacked += queues.unacked;
        }
        let blocked_ns = u64::try_from(blocked.as_nanos()).unwrap_or(u64::MAX);
        closes.blocked_ns += blocked_ns;
        closes.quick += u64::from(blocked_ns <= BLOCKED_BOUNDS_NS[0]);
        self.unread += queues.unread;
        if let Some(cause) = reset {
            self.reset(cause, 1);
        }
    }

    /// Counts RSTs.
    pub fn reset(&mut self, cause: Cause, count: u64) {
        *self.resets.entry(cause.name().into()).or_default() += count;
    }

    /// Adds all counts of another tally.
    pub fn add(&mut self, other: &Self) {
        for (outcome, closes) in &other.closes {
            self.closes.entry(outcome.clone()).or_default().add(closes);
        }
        for (cause, count) in &other.resets {
            *self.resets.entry(cause.clone()).or_default() += count;
        }
        self.unread += other.unread;
        self.orphans.add(&other.orphans);
    }

    /// All closes together.
    #[must_use]
    pub fn total(&self) -> Closes {
        let mut total = Closes::default();
        self.closes.values().for_each(|closes| total.add(closes));
        total
    }
}
