//! One connection in the table, and its requests in flight.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::{Connections, Entry, GRACE, InFlightRequest, LONG, STALL};
use crate::http::listen::Peer;
use crate::sync::lock;

/// The slot of one connection, freed when dropped.
pub(in crate::http) struct Connection {
    pub(super) all: Arc<Connections>,
    pub(super) entry: Arc<Entry>,
}

/// Reason why a connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum End {
    /// It is evicted in favour of others.
    GivesWay,
    /// No complete request arrived in time.
    Silent,
    /// A response was not generated and read in time.
    Overdue,
}

impl Connection {
    /// Records that the client sent its TLS greeting (`ClientHello`).
    pub(in crate::http) fn has_greeted(&self) {
        let state = &self.entry.state;
        state.send_modify(|state| state.has_spoken = true);
    }

    /// Records a request, whose response must have begun by `due`, and have been read a second later.
    pub(in crate::http) fn begin(&self, due: Instant) -> RequestGuard {
        let mut number = 0;
        self.entry.state.send_modify(|state| {
            number = state
                .requests
                .last_key_value()
                .map_or(0, |(last, _)| last + 1);
            let request = InFlightRequest {
                due: due + GRACE,
                waits: None,
                holds_permit: false,
            };
            state.has_spoken = true;
            state.requests.insert(number, request);
        });
        RequestGuard {
            all: Arc::clone(&self.all),
            entry: Arc::clone(&self.entry),
            number,
            due,
        }
    }

    /// Waits until the connection must end, as it must if no request arrives within `quiet`.
    pub(in crate::http) async fn must_end(&self, quiet: Duration) -> End {
        let mut state = self.entry.state.subscribe();
        loop {
            let (at, end) = {
                let state = state.borrow_and_update();
                if state.gives_way {
                    return End::GivesWay;
                }
                match state.requests.values().map(|request| request.due).min() {
                    Some(due) => (due, End::Overdue),
                    None => (state.quiet_since + quiet, End::Silent),
                }
            };
            tokio::select! {
                () = sleep_until(at) => return end,
                // The sender lives as long as this connection.
                changed = state.changed() => if changed.is_err() {
                    return pending().await;
                }
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        lock(&self.all.table).entries.remove(&self.entry.id);
        self.all.changed.notify_one();
    }
}

/// A request in flight; dropped when its response has been read or abandoned.
pub(in crate::http) struct RequestGuard {
    all: Arc<Connections>,
    entry: Arc<Entry>,
    number: u64,
    due: Instant,
}

impl RequestGuard {
    pub(in crate::http) fn peer(&self) -> Peer {
        self.entry.peer
    }

    /// Returns how many requests of a peer may wait at a time, so that they do not occupy all connections.
    pub(in crate::http) fn most_of_peer(&self) -> usize {
        (self.all.limit * 3 / 4).max(1)
    }

    /// Returns the time by which the response must have begun.
    pub(in crate::http) fn due(&self) -> Instant {
        self.due
    }

    /// Waits for a permit, and meanwhile ends connections that hold one while their client reads nothing.
    pub(in crate::http) async fn wait_for<T>(&self, permit: impl Future<Output = T>) -> T {
        let mut permit = pin!(permit);
        loop {
            match timeout(STALL / 4, permit.as_mut()).await {
                Ok(permit) => return permit,
                Err(_) => self.all.end_stalled(),
            }
        }
    }

    /// Records that this many bytes of the response wait for the client from now on.
    pub(in crate::http) fn made(&self, bytes: usize) {
        self.change(|request| request.waits = Some((bytes, Instant::now())));
    }

    /// Records that the response begins, this many bytes of it wait for the client, and whether it holds a permit until
    /// the client has taken it.
    pub(in crate::http) fn begin_answer(&self, bytes: usize, holds_permit: bool) {
        self.change(|request| {
            request.holds_permit = holds_permit;
            request.waits = Some((bytes, Instant::now()));
        });
        if bytes >= LONG {
            self.all.end_oldest_long_answer();
        }
        self.all.changed.notify_one();
    }

    fn change(&self, how: impl FnOnce(&mut InFlightRequest)) {
        self.entry.state.send_modify(|state| {
            if let Some(request) = state.requests.get_mut(&self.number) {
                how(request);
            }
        });
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.entry.state.send_modify(|state| {
            state.requests.remove(&self.number);
            state.quiet_since = Instant::now();
        });
        self.all.changed.notify_one();
    }
}
