//! Real closes of every kind on loopback, with their expected counts.
//!
//! `lingerd exercise` makes them to show that an installation counts; the scenario tests compare the actual counts with
//! the expected ones.

pub mod diag;
mod kinds;
pub mod linger_wait;
mod orphan_limit;
mod orphan_tally;
mod orphans;
mod report;
pub mod state;
mod tally;
pub mod tcp;

use std::io;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use linger_ebpf::Outcome;
use serde::Serialize;

pub use kinds::{
    LINGER, MESSAGE, abort, close_after_fin, close_and_end_orphan, close_gracefully, close_reset,
    memory_aborted_under, pair_with_unacked, pair_with_unsent, until_aborted,
};
pub use orphan_limit::OrphanLimit;
pub use orphan_tally::{FateTally, OrphanTally};
pub use orphans::close_window;
pub use report::table;
pub use tally::{Closes, End, Tally};
use tcp::Loopback;

/// A kind of close, named after its outcome where it has one of its own.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, strum::Display,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[clap(rename_all = "snake_case")]
pub enum Kind {
    /// Both ends close, everything read
    Graceful,
    /// Waits under `SO_LINGER` until the data is acknowledged
    Lingered,
    /// Waits under `SO_LINGER` for 1 s, until the time is up
    LingerTimeout,
    /// Waits under `SO_LINGER` until a signal arrives
    LingerInterrupted,
    /// Waits under `SO_LINGER` until the peer resets the connection
    LingerFailed,
    /// `SO_LINGER` with zero time
    LingerAborted,
    /// `SO_LINGER` with zero time while data is unsent and unacknowledged
    LingerAbortedData,
    /// Received data is left unread
    UnreadAborted,
    /// Negative `TCP_LINGER2`
    Linger2Aborted,
    /// No quota for orphans: briefly lowers `net.ipv4.tcp_max_orphans` of the whole host, and
    /// meanwhile every close with data left is reset; runs only if requested by name
    MemoryAborted,
    /// Both sides had shut down before
    AlreadyClosed,
    /// Never connected
    NotConnected,
    /// A connect is still in progress
    ConnectAborted,
    /// A listener with connections in its accept queue
    Listener,
    /// `TCP_REPAIR`, needs `CAP_NET_ADMIN`
    Repaired,
    /// `connect(AF_UNSPEC)` before the close
    Disconnected,
    /// Leaves data to the kernel, and the peer reads it all later
    OrphanDelivered,
    /// Leaves data to the kernel, and the peer resets the connection
    OrphanPeerReset,
    /// Leaves data to the kernel, and the peer sends some too
    OrphanLateData,
    /// Leaves data to the kernel, and the peer acknowledges none within `TCP_USER_TIMEOUT`
    OrphanTimedOut,
    /// Leaves data to the kernel, and the connection is ended as by `ss -K`; needs `CAP_NET_ADMIN`
    OrphanDestroyed,
}

impl Kind {
    /// Makes one close of this kind, and counts all closes made for it.
    pub fn perform(self, loopback: &Loopback, tally: &mut Tally) -> io::Result<()> {
        match self {
            Self::Graceful => close_gracefully(tally, loopback.pair()?),
            Self::Lingered => kinds::lingered(loopback, tally),
            Self::LingerTimeout => kinds::linger_timeout(loopback, tally),
            Self::LingerInterrupted => kinds::linger_interrupted(loopback, tally),
            Self::LingerFailed => kinds::linger_failed(loopback, tally),
            Self::LingerAborted => abort(tally, loopback.pair()?),
            Self::LingerAbortedData => abort(tally, pair_with_unsent(loopback)?),
            Self::UnreadAborted => kinds::unread_aborted(loopback, tally),
            Self::Linger2Aborted => kinds::linger2_aborted(loopback, tally),
            Self::MemoryAborted => {
                memory_aborted_under(&OrphanLimit::open()?, loopback, tally, tcp::close)
            }
            Self::AlreadyClosed => kinds::already_closed(loopback, tally),
            Self::NotConnected => tally
                .close(loopback.socket()?, Outcome::NotConnected)
                .map(drop),
            Self::ConnectAborted => kinds::connect_aborted(tally),
            Self::Listener => kinds::listener(tally),
            Self::Repaired => kinds::repaired(loopback, tally),
            Self::Disconnected => kinds::disconnected(loopback, tally),
            Self::OrphanDelivered => orphans::delivered(loopback, tally),
            Self::OrphanPeerReset => orphans::peer_reset(loopback, tally),
            Self::OrphanLateData => orphans::late_data(loopback, tally),
            Self::OrphanTimedOut => orphans::timed_out(loopback, tally),
            Self::OrphanDestroyed => orphans::destroyed(loopback, tally),
        }
    }
}

/// Which closes to make, and for how long at most.
#[derive(Clone, Debug, clap::Args)]
pub struct Request {
    /// Make only this kind; may be repeated
    #[arg(long = "kind", value_enum, value_name = "KIND")]
    pub kinds: Vec<Kind>,
    /// How often to make each kind
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub count: u32,
    /// Start no further close after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub time: u64,
}

/// The expected counts of the closes of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Done {
    /// The kind.
    pub kind: Kind,
    /// Number of times it was made.
    pub times: u32,
    /// All closes made for it in this process, including those of the peers and of the listener.
    pub tally: Tally,
    /// The reason why it was made less often than requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
}

/// Makes closes of each kind in turn, and passes the result of each kind to `progress`.
///
/// If a kind fails or cannot run here, [`Done::left_out`] has the reason; the counts of the closes made until then are
/// not certain.
pub fn run(request: &Request, mut progress: impl FnMut(&Done)) -> Vec<Done> {
    // Without an end if that is farther away than the clock can tell.
    let end = Instant::now().checked_add(Duration::from_secs(request.time));
    let all = request.kinds.is_empty();
    let kinds = if all {
        Kind::value_variants()
    } else {
        &request.kinds
    };
    let mut report = Vec::with_capacity(kinds.len());
    for &kind in kinds {
        let mut done = Done {
            kind,
            times: 0,
            tally: Tally::default(),
            left_out: None,
        };
        done.left_out = if all && kind == Kind::MemoryAborted {
            Some("affects the whole host: request it with --kind".into())
        } else {
            repeat(&mut done, request.count, end)
                .err()
                .map(|error| reason(kind, &error))
        };
        progress(&done);
        report.push(done);
    }
    report
}

fn repeat(done: &mut Done, count: u32, end: Option<Instant>) -> io::Result<()> {
    let loopback = Loopback::new()?;
    let result = (0..count).try_for_each(|_| {
        if end.is_some_and(|end| Instant::now() > end) {
            return Err(io::Error::other("the time is up"));
        }
        done.kind.perform(&loopback, &mut done.tally)?;
        done.times += 1;
        Ok(())
    });
    let listener = loopback.into_listener();
    done.tally.close(listener, Outcome::Listener)?;
    result
}

fn reason(kind: Kind, error: &io::Error) -> String {
    match (kind, error.kind()) {
        (Kind::Repaired | Kind::OrphanDestroyed, io::ErrorKind::PermissionDenied) => {
            "needs CAP_NET_ADMIN".into()
        }
        (Kind::OrphanDestroyed, io::ErrorKind::NotFound) => {
            "the kernel lacks inet_diag and tcp_diag".into()
        }
        (Kind::MemoryAborted, io::ErrorKind::PermissionDenied) => {
            "needs root, to lower net.ipv4.tcp_max_orphans".into()
        }
        (Kind::MemoryAborted, io::ErrorKind::NotFound) => {
            "net.ipv4.tcp_max_orphans is in the host's network namespace only".into()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_may_be_longer_than_the_clock_can_tell() {
        let request = Request {
            kinds: vec![Kind::NotConnected],
            count: 2,
            time: u64::MAX,
        };
        let report = run(&request, |_| ());
        assert_eq!(report[0].times, 2, "{:?}", report[0].left_out);
    }
}
