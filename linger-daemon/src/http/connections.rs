//! All connections: what each is doing, and which of them gives way when there are too many.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::future::{Future, pending};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::listen::Peer;

/// Answers, longer than [`LONG`], that wait at a time to be taken by their clients. Beyond that the
/// one that has waited longest is given up, so that no one fills the memory by not reading.
const MAX_WAITING: usize = 16;

/// Bytes from which on an answer that waits counts.
const LONG: usize = 64 * 1024;

/// How long the client of a long answer may take none of it while others wait for their turn.
const STALL: Duration = Duration::from_secs(2);

/// What every connection is given to say something before it may have to give way. Faster than the
/// limit in this time, new ones wait in the kernel's queue.
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
    /// How many connections each has.
    peers: HashMap<Peer, usize>,
}

struct Entry {
    peer: Peer,
    doing: Arc<watch::Sender<Doing>>,
}

/// What a connection is doing.
struct Doing {
    /// Its requests under way, by number.
    requests: BTreeMap<u64, UnderWay>,
    /// Since when there is none.
    quiet_since: Instant,
    /// It has said something that is whole: a greeting by TLS, or a request.
    has_spoken: bool,
    /// It must end, so that there is room for another.
    gives_way: bool,
}

struct UnderWay {
    /// When its answer must have been taken.
    due: Instant,
    /// Bytes of its answer, and since when it waits to be taken.
    waits: Option<(usize, Instant)>,
}

impl Doing {
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
        let doing = Arc::new(watch::Sender::new(Doing {
            requests: BTreeMap::new(),
            quiet_since: Instant::now(),
            has_spoken: false,
            gives_way: false,
        }));
        table.last += 1;
        let id = table.last;
        *table.peers.entry(peer).or_default() += 1;
        let entry = Entry {
            peer,
            doing: Arc::clone(&doing),
        };
        table.entries.insert(id, entry);
        drop(table);
        Ok(Connection {
            all: Arc::clone(self),
            id,
            peer,
            doing,
        })
    }

    /// Done when there is no connection left.
    pub(super) async fn done(&self) {
        while !self.table().entries.is_empty() {
            self.changed.notified().await;
        }
    }

    /// Ends the connection whose long answer has waited longest, if there are too many.
    fn relieve(&self) {
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
    /// The one to give way, and since when it waits.
    fn first_to_go(&self, limit: usize) -> Option<(u64, Instant)> {
        let silent = |entry: &Entry| !entry.doing.borrow().has_spoken;
        let many_silent = self.entries.values().filter(|entry| silent(entry)).count() >= limit / 2;
        let waiting = self.entries.iter().filter_map(|(&id, entry)| {
            let (answers, since) = entry.doing.borrow().waits_since()?;
            let of_the_many = silent(entry) == many_silent;
            let of_peer = self.peers.get(&entry.peer).copied().unwrap_or_default();
            Some(((answers, !of_the_many, Reverse(of_peer), since), id))
        });
        let (rank, id) = waiting.min()?;
        Some((id, rank.3))
    }

    /// The connections on which long answers wait, and since when.
    fn long_answers(&self) -> Vec<(Instant, u64)> {
        let waiting = self.entries.iter().filter_map(|(&id, entry)| {
            let since = entry.doing.borrow().long_since()?;
            Some((since, id))
        });
        waiting.collect()
    }

    fn end(&mut self, id: u64) {
        if let Some(entry) = self.remove(id) {
            entry.doing.send_modify(|doing| doing.gives_way = true);
        }
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        if let Some(count) = self.peers.get_mut(&entry.peer) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&entry.peer);
            }
        }
        Some(entry)
    }
}

/// The place of one connection; free when dropped.
pub(super) struct Connection {
    all: Arc<Connections>,
    id: u64,
    peer: Peer,
    doing: Arc<watch::Sender<Doing>>,
}

/// Why a connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Another needs its place.
    GivesWay,
    /// No whole request came in time.
    Silent,
    /// An answer was not made and taken in time.
    Overdue,
}

impl Connection {
    /// Who made it.
    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    /// The client greeted by TLS.
    pub(super) fn has_greeted(&self) {
        self.doing.send_modify(|doing| doing.has_spoken = true);
    }

    /// A request came; its answer must have been taken by then.
    pub(super) fn begin(&self, due: Instant) -> Request {
        let mut number = 0;
        self.doing.send_modify(|doing| {
            number = doing
                .requests
                .last_key_value()
                .map_or(0, |(last, _)| last + 1);
            let request = UnderWay { due, waits: None };
            doing.has_spoken = true;
            doing.requests.insert(number, request);
        });
        Request {
            all: Arc::clone(&self.all),
            doing: Arc::clone(&self.doing),
            number,
        }
    }

    /// Done when the connection must end, which it must too if no request comes within `quiet`.
    pub(super) async fn must_end(&self, quiet: Duration) -> End {
        let mut doing = self.doing.subscribe();
        loop {
            let (at, end) = {
                let doing = doing.borrow_and_update();
                if doing.gives_way {
                    return End::GivesWay;
                }
                match doing.requests.values().map(|request| request.due).min() {
                    Some(due) => (due, End::Overdue),
                    None => (doing.quiet_since + quiet, End::Silent),
                }
            };
            tokio::select! {
                () = sleep_until(at) => return end,
                // The sender lives as long as this connection.
                changed = doing.changed() => if changed.is_err() {
                    return pending().await;
                }
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.table().remove(self.id);
        self.all.changed.notify_one();
    }
}

/// A request under way, until its answer is taken, or no one waits for it any more: then it is
/// dropped.
pub(super) struct Request {
    all: Arc<Connections>,
    doing: Arc<watch::Sender<Doing>>,
    number: u64,
}

impl Request {
    /// Waits for a turn that others may have. Those whose clients do not go on taking what is made for
    /// them meanwhile lose it.
    pub(super) async fn get<T>(&self, turn: impl Future<Output = T>) -> T {
        let mut turn = pin!(turn);
        loop {
            match timeout(STALL / 4, turn.as_mut()).await {
                Ok(turn) => return turn,
                Err(_) => self.all.end_stalled(),
            }
        }
    }

    /// So many bytes of the answer are made, and wait for the client from now on.
    pub(super) fn made(&self, bytes: usize) {
        self.doing.send_modify(|doing| {
            if let Some(request) = doing.requests.get_mut(&self.number) {
                request.waits = Some((bytes, Instant::now()));
            }
        });
    }

    /// The same of the first bytes.
    pub(super) fn waits(&self, bytes: usize) {
        self.made(bytes);
        if bytes >= LONG {
            self.all.relieve();
        }
        self.all.changed.notify_one();
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.doing.send_modify(|doing| {
            doing.requests.remove(&self.number);
            doing.quiet_since = Instant::now();
        });
        self.all.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const QUIET: Duration = Duration::from_secs(5);

    fn host(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// Whether it is told to end for another.
    async fn gives_way(connection: &Connection) -> bool {
        tokio::select! {
            biased;
            end = connection.must_end(QUIET) => end == End::GivesWay,
            () = async {} => false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_peer_with_the_most_connections_gives_way() {
        let all = Connections::new(3);
        let good = all.admit(Some(host(1))).await;
        let flood = [
            all.admit(Some(host(2))).await,
            all.admit(Some(host(2))).await,
        ];
        let more = all.admit(Some(host(2))).await;
        assert!(!gives_way(&good).await, "although it has waited longest");
        assert!(gives_way(&flood[0]).await);
        assert!(!gives_way(&flood[1]).await && !gives_way(&more).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_waits_gives_way_after_all_that_have_none() {
        let all = Connections::new(2);
        let asking = all.admit(Some(host(1))).await;
        let request = asking.begin(Instant::now() + QUIET);
        request.waits(1);
        let silent = all.admit(Some(host(1))).await;
        let third = all.admit(Some(host(1))).await;
        assert!(!gives_way(&asking).await && gives_way(&silent).await);
        let answered = third.begin(Instant::now() + QUIET);
        answered.waits(1);
        let _fourth = all.admit(Some(host(1))).await;
        assert!(gives_way(&asking).await && !gives_way(&third).await);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_do_not_speak_push_out_each_other() {
        let all = Connections::new(4);
        let greeted = [all.admit(None).await, all.admit(None).await];
        greeted.iter().for_each(Connection::has_greeted);
        let mut silent = Vec::new();
        for _ in 0..6 {
            silent.push(all.admit(None).await);
        }
        for connection in &greeted {
            assert!(!gives_way(connection).await, "although they came before");
        }
        // Those who speak push out each other, too.
        silent[5].has_greeted();
        let _more = all.admit(None).await;
        assert!(gives_way(&greeted[0]).await && !gives_way(&silent[4]).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_being_made_lets_others_wait() {
        let all = Connections::new(1);
        let asking = all.admit(Some(host(1))).await;
        let request = asking.begin(Instant::now() + QUIET);
        assert!(all.try_admit(Some(host(2))).is_err());
        drop(request);
        let next = all.admit(Some(host(2))).await;
        assert!(gives_way(&asking).await);
        drop((asking, next));
        all.done().await;
        assert!(all.table().peers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_answers_not_taken_end_a_connection() {
        let all = Connections::new(2);
        let silent = all.admit(None).await;
        assert_eq!(silent.must_end(QUIET).await, End::Silent);
        let asking = all.admit(None).await;
        let due = Instant::now() + 2 * QUIET;
        let request = asking.begin(due);
        assert_eq!(asking.must_end(QUIET).await, End::Overdue);
        assert_eq!(Instant::now(), due);
        drop(request);
        assert_eq!(asking.must_end(QUIET).await, End::Silent);
        assert_eq!(Instant::now(), due + QUIET);
    }
}
