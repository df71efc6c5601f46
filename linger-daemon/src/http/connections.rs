//! The table of connections: their states, and the choice of the one to evict when there are too many.

mod connection;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

pub(super) use self::connection::{Connection, End, RequestGuard};
use super::listen::Peer;
use crate::sync::lock;

/// Maximum number of responses of at least [`LONG`] bytes that wait for their clients. Beyond that, the one that has
/// waited longest is dropped, so that clients cannot fill the memory by not reading.
const MAX_WAITING: usize = 16;

/// Minimum size of a long response, bytes.
const LONG: usize = 64 * 1024;

/// Time for which the client of a response that holds a permit may read none of it while others wait for one.
const STALL: Duration = Duration::from_secs(2);

/// Time that every connection has to send something before it can be evicted. If more than the limit arrive in this
/// time, new ones wait in the kernel's queue.
const CHANCE: Duration = Duration::from_millis(50);

/// Time for the client to read the response that reports a timeout.
const GRACE: Duration = Duration::from_secs(1);

/// All connections, at most `limit`.
pub(super) struct Connections {
    limit: usize,
    table: Mutex<Table>,
    /// Notified when a connection ended, or may be evicted now.
    changed: Notify,
}

#[derive(Default)]
struct Table {
    last: u64,
    entries: BTreeMap<u64, Arc<Entry>>,
}

/// A connection, shared by its slot in the table and its requests.
struct Entry {
    id: u64,
    peer: Peer,
    state: watch::Sender<ConnectionState>,
}

struct ConnectionState {
    /// Requests in flight, by number.
    requests: BTreeMap<u64, InFlightRequest>,
    /// Time since when none is in flight.
    quiet_since: Instant,
    /// True once the client has sent a complete message: a TLS greeting, or a request.
    has_spoken: bool,
    /// True if it must end in favour of others.
    gives_way: bool,
}

struct InFlightRequest {
    /// Time by which its response must have been read.
    due: Instant,
    /// Bytes of its response that wait for the client, and since when; `None` while it is being generated.
    waits: Option<(usize, Instant)>,
    /// True if its response holds a permit until the client has taken it.
    holds_permit: bool,
}

impl ConnectionState {
    /// Returns whether responses wait for the client, and since when the connection has only waited for its client.
    ///
    /// `None` while a response is being generated.
    fn waits_since(&self) -> Option<(bool, Instant)> {
        let answers = self.requests.values().map(|request| request.waits);
        let answers = answers.collect::<Option<Vec<_>>>()?;
        let since = answers.iter().map(|(_, since)| *since).min();
        Some((since.is_some(), since.unwrap_or(self.quiet_since)))
    }

    /// Returns since when a long response has waited.
    fn long_since(&self) -> Option<Instant> {
        let answers = self.requests.values().filter_map(|request| request.waits);
        let long = answers.filter(|(bytes, _)| *bytes >= LONG);
        long.map(|(_, since)| since).min()
    }

    /// Returns whether a response holds a permit while its client reads nothing.
    fn is_stalled(&self) -> bool {
        self.requests.values().any(|request| {
            let has_waited = |(_, since): (_, Instant)| since.elapsed() >= STALL;
            request.holds_permit && request.waits.is_some_and(has_waited)
        })
    }
}

impl Connections {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            table: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Admits a new connection. If there are too many, it evicts one of those that wait for their client, chosen by
    /// these criteria in order:
    ///
    /// 1. without a waiting response;
    /// 2. silent so far, if half of all connections are, so that these evict only each other; else not silent;
    /// 3. of the peer with the most connections;
    /// 4. waiting longest.
    ///
    /// If all are busy, or the chosen one is new as well, the new one waits.
    ///
    /// Only one task at a time may call this or [`Self::done`].
    pub(super) async fn admit(self: &Arc<Self>, peer: Peer) -> Connection {
        loop {
            match self.try_admit(peer) {
                Ok(connection) => return connection,
                Err(None) => self.changed.notified().await,
                Err(Some(chance)) => tokio::select! {
                    () = sleep_until(chance) => {}
                    () = self.changed.notified() => {}
                },
            }
        }
    }

    /// Admits a connection without waiting. Fails if there is no slot, with the time when there may be one, if known.
    fn try_admit(self: &Arc<Self>, peer: Peer) -> Result<Connection, Option<Instant>> {
        let mut table = lock(&self.table);
        if table.entries.len() >= self.limit {
            let (first_to_go, since) = table.first_to_go(self.limit).ok_or(None)?;
            if since.elapsed() < CHANCE {
                return Err(Some(since + CHANCE));
            }
            table.end(first_to_go);
        }
        table.last += 1;
        let entry = Arc::new(Entry {
            id: table.last,
            peer,
            state: watch::Sender::new(ConnectionState {
                requests: BTreeMap::new(),
                quiet_since: Instant::now(),
                has_spoken: false,
                gives_way: false,
            }),
        });
        table.entries.insert(entry.id, Arc::clone(&entry));
        drop(table);
        let all = Arc::clone(self);
        Ok(Connection { all, entry })
    }

    /// Waits until no connection is left.
    pub(super) async fn done(&self) {
        while !lock(&self.table).entries.is_empty() {
            self.changed.notified().await;
        }
    }

    /// Ends the connection whose long response has waited longest, if too many wait.
    fn end_oldest_long_answer(&self) {
        let mut table = lock(&self.table);
        let waiting = table.entries.iter().filter_map(|(&id, entry)| {
            let since = entry.state.borrow().long_since()?;
            Some((since, id))
        });
        let waiting: Vec<(Instant, u64)> = waiting.collect();
        if waiting.len() > MAX_WAITING
            && let Some(&(_, longest)) = waiting.iter().min()
        {
            table.end(longest);
        }
    }

    /// Ends the connections whose responses hold a permit while their clients read nothing.
    fn end_stalled(&self) {
        let mut table = lock(&self.table);
        let entries = table.entries.iter();
        let stalled = entries.filter(|(_, entry)| entry.state.borrow().is_stalled());
        let stalled: Vec<u64> = stalled.map(|(&id, _)| id).collect();
        for id in stalled {
            table.end(id);
        }
    }
}

impl Table {
    /// Returns the connection to evict, and since when it has waited.
    fn first_to_go(&self, limit: usize) -> Option<(u64, Instant)> {
        let silent = |entry: &Entry| !entry.state.borrow().has_spoken;
        let many_silent = self.entries.values().filter(|entry| silent(entry)).count() >= limit / 2;
        let mut peers: HashMap<Peer, usize> = HashMap::new();
        for entry in self.entries.values() {
            *peers.entry(entry.peer).or_default() += 1;
        }
        let waiting = self.entries.iter().filter_map(|(&id, entry)| {
            let (answers, since) = entry.state.borrow().waits_since()?;
            let of_the_many = silent(entry) == many_silent;
            Some((
                (answers, !of_the_many, Reverse(peers[&entry.peer]), since),
                id,
            ))
        });
        let (rank, id) = waiting.min()?;
        Some((id, rank.3))
    }

    fn end(&mut self, id: u64) {
        if let Some(entry) = self.entries.remove(&id) {
            entry.state.send_modify(|state| state.gives_way = true);
        }
    }
}
