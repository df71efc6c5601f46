//! The place of one connection, and its requests under way.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Connections, Doing, LONG, STALL, UnderWay};
use crate::http::listen::Peer;

/// The place of one connection; free when dropped.
pub(in crate::http) struct Connection {
    pub(super) all: Arc<Connections>,
    pub(super) id: u64,
    pub(super) peer: Peer,
    pub(super) doing: Arc<watch::Sender<Doing>>,
}

/// Why a connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum End {
    /// Another needs its place.
    GivesWay,
    /// No whole request came in time.
    Silent,
    /// An answer was not made and taken in time.
    Overdue,
}

impl Connection {
    /// Who made it.
    pub(in crate::http) fn peer(&self) -> Peer {
        self.peer
    }

    /// The client greeted by TLS.
    pub(in crate::http) fn has_greeted(&self) {
        self.doing.send_modify(|doing| doing.has_spoken = true);
    }

    /// A request came; its answer must have been taken by then.
    pub(in crate::http) fn begin(&self, due: Instant) -> Request {
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
    pub(in crate::http) async fn must_end(&self, quiet: Duration) -> End {
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
pub(in crate::http) struct Request {
    all: Arc<Connections>,
    doing: Arc<watch::Sender<Doing>>,
    number: u64,
}

impl Request {
    /// Waits for a turn that others may have. Those whose clients do not go on taking what is made for
    /// them meanwhile lose it.
    pub(in crate::http) async fn get<T>(&self, turn: impl Future<Output = T>) -> T {
        let mut turn = pin!(turn);
        loop {
            match timeout(STALL / 4, turn.as_mut()).await {
                Ok(turn) => return turn,
                Err(_) => self.all.end_stalled(),
            }
        }
    }

    /// So many bytes of the answer are made, and wait for the client from now on.
    pub(in crate::http) fn made(&self, bytes: usize) {
        self.doing.send_modify(|doing| {
            if let Some(request) = doing.requests.get_mut(&self.number) {
                request.waits = Some((bytes, Instant::now()));
            }
        });
    }

    /// The same of the first bytes.
    pub(in crate::http) fn waits(&self, bytes: usize) {
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
