//! The live view: one reading of the ledger for people, as JSON.
//!
//! Its numbers are those of `/metrics`, under the same names, summed over all groups. As there, a missing entry means
//! zero. All numbers except times are integers; those above 2^53 need a reader that does not store them as floats.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::event::Close;
use crate::ledger::MapFill;

/// Maximum number of groups in a [`Live`].
pub const MAX_GROUPS: usize = 200;

/// Counts by name.
pub type Counts = BTreeMap<String, u64>;

/// Everything that the views show, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// When the ledger was read, Unix seconds.
    pub at: f64,
    /// When the daemon was started, Unix seconds. Counts may be older: pinned maps outlive it.
    pub started: f64,
    /// Name of the host.
    pub host: String,
    /// Version of the daemon.
    pub version: String,
    /// Commit that the daemon was built from.
    pub revision: String,
    /// The plan in use.
    pub plan: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// Closes by outcome.
    pub closes: Counts,
    /// Time that closing threads spent in close.
    pub blocked: Blocked,
    /// Send-queue payload discarded by closes, by outcome. Payload discarded after close is in `orphans`;
    /// `linger_discarded_bytes_total` has both.
    pub discarded: BTreeMap<String, Queues>,
    /// Received payload discarded unread by closes, bytes.
    pub unread: u64,
    /// RSTs that this host sent, by cause.
    pub resets: Counts,
    /// Orphans left by closes.
    pub orphans: Orphans,
    /// Names of the groups' labels, in the order in which they are shown.
    pub dimensions: Vec<String>,
    /// The groups, in the order of their labels' values: at most [`MAX_GROUPS`], those that lost most bytes, aborted
    /// most, blocked longest, closed most.
    pub groups: Vec<Group>,
    /// Number of groups not shown. All other numbers include them.
    pub groups_omitted: usize,
    /// The daemon itself.
    pub health: Health,
    /// The latest costly closes, which lost payload or blocked for 100 ms or more: newest first, at
    /// most [`MAX_RECENT`](crate::event::MAX_RECENT).
    pub recent: Vec<RecentClose>,
}

/// Histograms of the time spent in close.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Blocked {
    /// Upper bounds of the buckets, inclusive, seconds; one more bucket is above.
    pub bounds: Vec<f64>,
    /// By whether the close waited under `SO_LINGER`, `true` or `false`. Closes whose time is unknown are missing.
    pub waited: BTreeMap<String, Histogram>,
}

/// Histogram of the time from a close's return to the end of its orphan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lived {
    /// Upper bounds of the buckets, inclusive, seconds; one more bucket is above.
    pub bounds: Vec<f64>,
    /// The times.
    pub times: Histogram,
}

/// A distribution of times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Number of times in each bucket, not cumulative; the last bucket is above all bounds.
    pub counts: Vec<u64>,
    /// Sum of the times, seconds.
    pub sum: f64,
}

/// Bytes of payload in each half of a send queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queues {
    /// Never sent.
    pub unsent: u64,
    /// Sent, and may or may not have arrived.
    pub unacked: u64,
}

/// Closed sockets with payload unsent or unacknowledged, and their fates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Orphans {
    /// Orphans still under way.
    pub now: u64,
    /// Payload outstanding when closes returned, bytes: delivered, discarded or still under way.
    pub orphaned: u64,
    /// Of that, acknowledged by the peer, bytes; counted when the orphan ends.
    pub delivered: u64,
    /// Of that, discarded, by fate.
    pub discarded: BTreeMap<String, Queues>,
    /// Orphans that ended, by fate.
    pub ends: Counts,
    /// How long they lived.
    pub seconds: Lived,
}

/// Counters of one group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Its labels: a value for each dimension, empty if it does not apply.
    pub labels: BTreeMap<String, String>,
    /// Its closes by outcome.
    pub closes: Counts,
    /// Its aborted closes: the outcomes that end in `_aborted`.
    pub aborted: u64,
    /// Time that its threads spent in close, seconds.
    pub blocked_seconds: f64,
    /// Send-queue payload discarded by its closes, bytes.
    pub discarded: u64,
    /// Received payload discarded unread by its closes, bytes.
    pub unread: u64,
    /// RSTs that this host sent.
    pub resets: u64,
    /// Its orphans still under way.
    pub orphans: u64,
    /// Payload outstanding when its closes returned, bytes.
    pub orphaned: u64,
    /// Of that, acknowledged by the peer, bytes.
    pub delivered: u64,
    /// Of that, discarded, bytes.
    pub lost_after_close: u64,
}

/// The health of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Losses, by kind; every kind is present, even if zero.
    pub lost: Counts,
    /// Payload of the lost orphans, bytes.
    pub lost_orphan_bytes: u64,
    /// How full the maps are.
    pub maps: Vec<MapFill>,
    /// The programs.
    pub hooks: Vec<Hook>,
    /// How long reading the ledger took, seconds.
    pub reading_seconds: f64,
    /// Resident memory of the daemon, bytes; zero if unknown.
    pub resident_bytes: u64,
}

/// A program and its attach point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Name of the program.
    pub program: String,
    /// Its attach point.
    pub target: String,
    /// Whether it is attached.
    pub attached: bool,
}

/// A close that lost payload, or blocked for long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecentClose {
    /// When it returned or, if that is unknown, when it began, Unix seconds.
    pub at: f64,
    /// Name of the process.
    pub comm: String,
    /// Its id.
    pub pid: u32,
    /// The systemd unit, or the path of a cgroup outside any unit.
    pub unit: String,
    /// Address and port of this end: `192.0.2.1:80`, `[2001:db8::1]:80`.
    pub local: String,
    /// Address and port of the peer.
    pub remote: String,
    /// How it ended.
    pub outcome: String,
    /// Time that the thread spent in it, seconds; `None` if its return was not seen.
    pub blocked_seconds: Option<f64>,
    /// Payload discarded, never sent, bytes.
    pub unsent: u64,
    /// Payload discarded, sent and not acknowledged, bytes.
    pub unacked: u64,
    /// Received payload discarded unread, bytes.
    pub unread: u64,
}

impl From<&Close> for RecentClose {
    fn from(close: &Close) -> Self {
        let address = |address: Option<SocketAddr>| {
            let address = address.map(|address| address.to_string());
            address.unwrap_or_default()
        };
        let who = &close.connection;
        Self {
            at: close.at + close.blocked_seconds.unwrap_or(0.0),
            comm: who.comm.clone(),
            pid: who.pid,
            unit: who.unit.clone(),
            local: address(who.local),
            remote: address(who.remote),
            outcome: close.outcome.clone(),
            blocked_seconds: close.blocked_seconds,
            unsent: close.unsent.into(),
            unacked: close.unacked.into(),
            unread: close.unread.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use linger_ebpf::Event;

    use super::*;
    use crate::event::{Clock, WatchEvent, decode};

    #[test]
    fn a_close_whose_return_was_not_seen_has_no_time() {
        for (blocked_ns, expected) in [(u64::MAX, None), (0, Some(0.0)), (500_000_000, Some(0.5))] {
            let event = Event {
                blocked_ns,
                ..Event::ZERO
            };
            let WatchEvent::Close(close) = decode(&event, None, &Clock::of_host()) else {
                panic!("a close is told as one")
            };
            let json = serde_json::to_value(RecentClose::from(&close)).unwrap();
            assert_eq!(json["blocked_seconds"].as_f64(), expected);
            assert_eq!(json["blocked_seconds"].is_null(), expected.is_none());
        }
    }
}
