//! The HTTP endpoints, bounded in connections, sizes and times.

mod access;
mod answer;
mod body;
mod connections;
mod fair_semaphore;
mod listen;
mod negotiation;
mod page;
mod response;
mod scrape;
mod security;
mod serve_connection;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use self::connections::{Connection, Connections};
use self::fair_semaphore::FairSemaphore;
use self::listen::{Accept, Transport};
pub use self::listen::{BindError, Listeners, bind, passed};
pub use self::security::{Mistake, Security, SecurityError};
use self::serve_connection::serve_connection;
use crate::config::Access;
use crate::metrics::Metrics;

/// Limits that no client can exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of connections. A further one replaces one that waits for its client; if none does, it waits
    /// in the kernel's queue.
    pub connections: usize,
    /// Time from the start of a connection, or the last response on it, to the end of the next request.
    pub request_time: Duration,
    /// Time from a request to the beginning of its response; a second later, the client must have read all of it.
    pub answer_time: Duration,
    /// Lifetime of a connection; a response in progress at its end is still finished.
    pub connection_time: Duration,
    /// Time for all responses in progress, once the server is to stop.
    pub stop_time: Duration,
}

impl Limits {
    /// Limits for a host's own collectors and a few browsers.
    pub const DEFAULT: Self = Self {
        // Enough that a flood does not evict a distant client at once, whose request takes a while to arrive; at
        // some 20 KiB each.
        connections: 256,
        // Ample for one packet; short, so that idle clients do not occupy the connections.
        request_time: Duration::from_secs(5),
        // The default scrape timeout of Prometheus, which does not wait longer.
        answer_time: Duration::from_secs(10),
        // Ends clients that read a response byte by byte.
        connection_time: Duration::from_secs(60),
        // A scrape takes milliseconds, and the daemon promises to stop within a second.
        stop_time: Duration::from_millis(500),
    };

    /// [`Self::DEFAULT`], with fewer connections if the process may open only so many more files. Without one for a
    /// connection, accepting fails, and no connection is replaced.
    #[must_use]
    pub fn with_files(free: usize) -> Self {
        let connections = free.saturating_sub(SPARE_FILES);
        Self {
            connections: connections.clamp(MIN_CONNECTIONS, Self::DEFAULT.connections),
            ..Self::DEFAULT
        }
    }
}

/// Files left for all that is open only now and then: cgroups, the configuration, the hook of the return of close(2).
const SPARE_FILES: usize = 32;

/// Connections even if that leaves fewer files.
const MIN_CONNECTIONS: usize = 8;

/// Maximum number of concurrent scrapes; more would only compete. A peer has at most two, one for each of a pair of
/// Prometheus servers, so that one is left for others while its clients read slowly.
const MAX_SCRAPES: usize = 3;
const MAX_SCRAPES_OF_PEER: usize = 2;

/// Pause after a failure to accept, which is most often a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The state behind the endpoints.
pub struct State {
    /// Set once the programs are attached.
    metrics: OnceLock<Arc<Metrics>>,
    scrapes: FairSemaphore,
    /// Rules for all requests.
    security: Security,
    /// Clients that may also read `/live.json`.
    live: Access,
}

impl State {
    /// Creates the state before the programs are attached: `/readyz` and `/metrics` answer 503. Requests must satisfy
    /// `security`, and those for `/live.json` must be of the clients in `live`.
    #[must_use]
    pub fn new(security: Security, live: Access) -> Self {
        Self {
            metrics: OnceLock::new(),
            scrapes: FairSemaphore::new(MAX_SCRAPES, MAX_SCRAPES_OF_PEER),
            security,
            live,
        }
    }

    /// Declares the programs attached, and their counts readable. Only the first call has an effect.
    pub fn attached(&self, metrics: Metrics) {
        self.metrics.get_or_init(|| Arc::new(metrics));
    }
}

/// Serves on sockets of [`bind`] or [`passed`] until `shutdown` completes, then finishes the responses in progress.
///
/// Needs a tokio runtime with I/O and time. Fails only if the runtime cannot register the sockets.
pub async fn serve(
    listeners: Listeners,
    state: Arc<State>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut listeners = Accept::new(listeners)?;
    let connections = Connections::new(limits.connections);
    let (stop, stopped) = watch::channel(());
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            (stream, connection) = accept(&mut listeners, &connections) => {
                let (state, stopped) = (Arc::clone(&state), stopped.clone());
                tokio::spawn(serve_connection(stream, connection, state, limits, stopped));
            }
        }
        // Let the accepted connections proceed before the next is accepted.
        yield_now().await;
    }
    drop((listeners, stop));
    let _ = timeout(limits.stop_time, connections.done()).await;
    Ok(())
}

/// Serves one connection, given as a stream instead of by a listener, to its end.
///
/// Needs a tokio runtime with I/O and time.
pub async fn serve_stream(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    state: Arc<State>,
    limits: Limits,
) {
    let place = Connections::new(1).admit(None).await;
    let (_stop, stopped) = watch::channel(());
    serve_connection(Box::new(stream), place, state, limits, stopped).await;
}

/// Accepts the next connection, and waits until it is admitted.
async fn accept(
    listeners: &mut Accept,
    connections: &Arc<Connections>,
) -> (Box<dyn Transport>, Connection) {
    loop {
        match listeners.next().await {
            Ok((stream, peer)) => return (stream, connections.admit(peer).await),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the metrics");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
