//! All connections: what each is doing, and which of them gives way when there are too many.

mod connection;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

pub(super) use self::connection::{Connection, End, RequestGuard};
use super::listen::Peer;

/// Answers, longer than [`LONG`], that wait at a time to be taken by their clients. Beyond that the
/// one that has waited longest is given up, so that no one fills the memory by not reading.
const MAX_WAITING: usize = 16;

/// Bytes from which on an answer that waits counts.
const LONG: usize = 64 * 1024;

/// How long the client of a long answer may take none of it while others wait for their turn.
const STALL: Duration = Duration::from_secs(2);

/// How long every connection may take to send something before it can be evicted. If more than the limit arrive
/// in this time, new ones wait in the kernel's queue.
const CHANCE: Duration = Duration::from_millis(50);

/// All connections, never more than a limit.
pub(super) struct Connections {
    limit: usize,
    table: Mutex<Table>,
    /// A connection ended, or may be ended now.
    changed: Notify,
}

#[derive(Default)]
struct Table {
    last: u64,
    entries: BTreeMap<u64, Entry>,
}

struct Entry {
    peer: Peer,
    state: Arc<watch::Sender<ConnectionState>>,
}

/// What a connection is doing.
struct ConnectionState {
    /// Its requests under way, by number.
    requests: BTreeMap<u64, InFlightRequest>,
    /// Since when there is none.
    quiet_since: Instant,
    /// It has said something that is whole: a greeting by TLS, or a request.
    has_spoken: bool,
    /// It must end, so that there is room for another.
    gives_way: bool,
}

struct InFlightRequest {
    /// When its answer must have been taken.
    due: Instant,
    /// Bytes of its answer, and since when it waits to be taken.
    waits: Option<(usize, Instant)>,
}

impl ConnectionState {
    /// Since when all it does is to wait for its client, and whether answers wait.
    ///
    /// None while an answer is being made.
    fn waits_since(&self) -> Option<(bool, Instant)> {
        let answers = self.requests.values().map(|request| request.waits);
        let answers = answers.collect::<Option<Vec<_>>>()?;
        let since = answers.iter().map(|(_, since)| *since).min();
        Some((since.is_some(), since.unwrap_or(self.quiet_since)))
    }

    /// Since when a long answer waits.
    fn long_since(&self) -> Option<Instant> {
        let answers = self.requests.values().filter_map(|request| request.waits);
        let long = answers.filter(|(bytes, _)| *bytes >= LONG);
        long.map(|(_, since)| since).min()
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

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a new connection. If there are too many, another gives way: of those that wait for
    /// their client, one without an answer before one with; one that has not spoken if those are half
    /// of all, so that they push out only each other, or else one that has; one of the peer that has
    /// the most; the one that has waited longest. If all are busy, or that one is new as well, the new
    /// one waits.
    ///
    /// To be called by one task at a time, like [`Self::done`].
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

    /// Fails if there is no room, with the time when there may be some if that is known.
    fn try_admit(self: &Arc<Self>, peer: Peer) -> Result<Connection, Option<Instant>> {
        let mut table = self.table();
        if table.entries.len() >= self.limit {
            let (first_to_go, since) = table.first_to_go(self.limit).ok_or(None)?;
            if since.elapsed() < CHANCE {
                return Err(Some(since + CHANCE));
            }
            table.end(first_to_go);
        }
        let state = Arc::new(watch::Sender::new(ConnectionState {
            requests: BTreeMap::new(),
            quiet_since: Instant::now(),
            has_spoken: false,
            gives_way: false,
        }));
        table.last += 1;
        let id = table.last;
        let entry = Entry {
            peer,
            state: Arc::clone(&state),
        };
        table.entries.insert(id, entry);
        drop(table);
        Ok(Connection {
            all: Arc::clone(self),
            id,
            peer,
            state,
        })
    }

    /// Done when there is no connection left.
    pub(super) async fn done(&self) {
        while !self.table().entries.is_empty() {
            self.changed.notified().await;
        }
    }

    /// Ends the connection whose long answer has waited longest, if there are too many.
    fn end_oldest_long_answer(&self) {
        let mut table = self.table();
        let waiting = table.long_answers();
        if waiting.len() > MAX_WAITING
            && let Some(&(_, longest)) = waiting.iter().min()
        {
            table.end(longest);
        }
    }

    /// Ends the connections whose long answers stall.
    fn end_stalled(&self) {
        let mut table = self.table();
        for (since, id) in table.long_answers() {
            if since.elapsed() >= STALL {
                table.end(id);
            }
        }
    }
}

impl Table {
    /// The connection to evict, and since when it waits.
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

    /// The connections on which long answers wait, and since when.
    fn long_answers(&self) -> Vec<(Instant, u64)> {
        let waiting = self.entries.iter().filter_map(|(&id, entry)| {
            let since = entry.state.borrow().long_since()?;
            Some((since, id))
        });
        waiting.collect()
    }

    fn end(&mut self, id: u64) {
        if let Some(entry) = self.entries.remove(&id) {
            entry.state.send_modify(|state| state.gives_way = true);
        }
    }
}
