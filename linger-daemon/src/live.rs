//! What the views show: one reading of the ledger for people, as JSON.
//!
//! Its numbers are those of `/metrics`, by the same names, added up over all groups. As there, what
//! never happened is missing, and stands for zero. All numbers but times are whole; those above 2^53
//! take a reader that does not hold them as floats.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::event::Close;

/// Groups that a [`Live`] shows at most.
pub const MAX_GROUPS: usize = 200;

/// Costly closes that a [`Live`] shows at most.
pub const MAX_RECENT: usize = 100;

/// How many there are of each thing, by its name.
pub type Counts = BTreeMap<String, u64>;

/// All that the views show, at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Payload that closes threw away from their send queues, by outcome. What was thrown away after
    /// close is in `orphans`; `linger_discarded_bytes_total` has both.
    pub discarded: BTreeMap<String, Queues>,
    /// Received payload that no one read, thrown away by closes, bytes.
    pub unread: u64,
    /// RSTs that this host sent, by cause.
    pub resets: Counts,
    /// What closes left to the kernel.
    pub orphans: Orphans,
    /// Names of the groups' labels, in the order in which they are shown.
    pub dimensions: Vec<String>,
    /// Who closed, in the order of the labels' values: at most [`MAX_GROUPS`], those that lost most
    /// bytes, aborted most, blocked longest, closed most.
    pub groups: Vec<Group>,
    /// How many groups are not shown. They are in all other numbers.
    pub groups_omitted: usize,
    /// The daemon itself.
    pub health: Health,
    /// The latest costly closes, which lost payload or blocked for 100 ms or more: newest first, at
    /// most [`MAX_RECENT`].
    pub recent: Vec<RecentClose>,
}

/// Histograms of the time spent in close.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blocked {
    /// Upper bounds of the buckets, inclusive, seconds; one more bucket is above.
    pub bounds: Vec<f64>,
    /// By whether the close waited under `SO_LINGER`, `true` or `false`. Closes whose time is not known are
    /// missing.
    pub waited: BTreeMap<String, Histogram>,
}

/// Histogram of the time from a close's return to the end of its orphan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lived {
    /// Upper bounds of the buckets, inclusive, seconds; one more bucket is above.
    pub bounds: Vec<f64>,
    /// The times.
    pub times: Histogram,
}

/// A distribution of times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// How many times lie in each bucket, not cumulative; the last is above all bounds.
    pub counts: Vec<u64>,
    /// Sum of the times, seconds.
    pub sum: f64,
}

/// Bytes of payload in each half of a send queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queues {
    /// Never left this host.
    pub unsent: u64,
    /// Sent, and may or may not have arrived.
    pub unacked: u64,
}

/// Closed sockets with payload unsent or unacknowledged, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Orphans {
    /// Orphans still under way.
    pub now: u64,
    /// Payload outstanding when closes returned, bytes: delivered, discarded or still under way.
    pub orphaned: u64,
    /// Of that, acknowledged by the peer, bytes; counted when the orphan ends.
    pub delivered: u64,
    /// Of that, thrown away, by fate.
    pub discarded: BTreeMap<String, Queues>,
    /// Orphans that came to an end, by fate.
    pub ends: Counts,
    /// How long they lived.
    pub seconds: Lived,
}

/// What one group did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Who it is: a value for each of the dimensions, empty where one does not apply.
    pub labels: BTreeMap<String, String>,
    /// Its closes by outcome.
    pub closes: Counts,
    /// Those of them that gave their connection up: the outcomes that end in `_aborted`.
    pub aborted: u64,
    /// Time that its threads spent in close, seconds.
    pub blocked_seconds: f64,
    /// Payload that its closes threw away from their send queues, bytes.
    pub discarded: u64,
    /// Received payload that no one read, thrown away by its closes, bytes.
    pub unread: u64,
    /// RSTs that this host sent.
    pub resets: u64,
    /// Its orphans still under way.
    pub orphans: u64,
    /// Payload outstanding when its closes returned, bytes.
    pub orphaned: u64,
    /// Of that, acknowledged by the peer, bytes.
    pub delivered: u64,
    /// Of that, thrown away, bytes.
    pub lost_after_close: u64,
}

/// How the daemon is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// What could not be recorded, by kind; each is there, also when it is zero.
    pub lost: Counts,
    /// Payload of orphans that found no place, bytes.
    pub lost_orphan_bytes: u64,
    /// How full the maps are.
    pub maps: Vec<Map>,
    /// The programs.
    pub hooks: Vec<Hook>,
    /// How long reading the ledger took, seconds.
    pub reading_seconds: f64,
    /// Memory that the daemon occupies, bytes; zero if the system does not say.
    pub resident_bytes: u64,
}

/// How full a map of the kernel is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// Its name.
    pub map: String,
    /// Entries in it.
    pub entries: u64,
    /// Entries that fit.
    pub capacity: u64,
}

/// A program, and its place in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Name of the program.
    pub program: String,
    /// Where it belongs.
    pub target: String,
    /// Whether it is there.
    pub attached: bool,
}

/// A close that lost payload, or blocked for long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecentClose {
    /// When it returned, Unix seconds.
    pub at: f64,
    /// Name of the process.
    pub comm: String,
    /// Its id.
    pub pid: u32,
    /// The systemd unit, or the path of the cgroup that is in none.
    pub unit: String,
    /// Address and port of this end: `192.0.2.1:80`, `[2001:db8::1]:80`.
    pub local: String,
    /// Address and port of the peer.
    pub remote: String,
    /// How it ended.
    pub outcome: String,
    /// Time that the thread spent in it, seconds.
    pub blocked_seconds: f64,
    /// Payload thrown away that was never sent, bytes.
    pub unsent: u64,
    /// Payload thrown away that was sent and not acknowledged, bytes.
    pub unacked: u64,
    /// Received payload thrown away that no one had read, bytes.
    pub unread: u64,
}

impl From<&Close> for RecentClose {
    fn from(close: &Close) -> Self {
        let address = |address: Option<SocketAddr>| {
            let address = address.map(|address| address.to_string());
            address.unwrap_or_default()
        };
        let who = &close.connection;
        let blocked = close.blocked_seconds.unwrap_or(0.0);
        Self {
            at: close.at + blocked,
            comm: who.comm.clone(),
            pid: who.pid,
            unit: who.unit.clone(),
            local: address(who.local),
            remote: address(who.remote),
            outcome: close.outcome.clone(),
            blocked_seconds: blocked,
            unsent: close.unsent.into(),
            unacked: close.unacked.into(),
            unread: close.unread.into(),
        }
    }
}
