//! The web endpoints, bounded in connections, sizes and times.

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
    /// Connections at a time. A further one takes the place of one that waits for its client; if none
    /// does, it waits in the kernel's queue.
    pub connections: usize,
    /// From the start of a connection, or the last answer on it, to the end of the next request.
    pub request_time: Duration,
    /// From a request until its answer is taken.
    pub answer_time: Duration,
    /// How long a connection is kept; an answer that is due by then is still given.
    pub connection_time: Duration,
    /// For all answers under way, once the server is to stop.
    pub stop_time: Duration,
}

impl Limits {
    /// For a host's own collectors and a few people with browsers.
    pub const DEFAULT: Self = Self {
        // A client whose request takes a while to come, from afar, is not pushed out at once by a
        // flood; at some 20 KiB each, and well within the usual limit of 1,024 open files.
        connections: 256,
        // Ample for one packet; short, so that idle clients do not occupy the connections.
        request_time: Duration::from_secs(5),
        // The default scrape timeout of Prometheus: later, no one listens.
        answer_time: Duration::from_secs(10),
        // Ends clients that take an answer byte by byte.
        connection_time: Duration::from_secs(60),
        // A scrape takes milliseconds, and the daemon promises to be gone within a second.
        stop_time: Duration::from_millis(500),
    };
}

/// Scrapes at a time: one for each of a pair of Prometheus servers. More would only compete.
const MAX_SCRAPES: usize = 2;

/// After a failure to accept, which is most often a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The state behind the endpoints.
pub struct State {
    /// Set once the programs are attached.
    metrics: OnceLock<Arc<Metrics>>,
    scrapes: FairSemaphore,
    /// Who may ask.
    security: Security,
    /// Who of them may see `/live.json`.
    live: Access,
}

impl State {
    /// The state before anything is attached: `/readyz` and `/metrics` answer 503. Everyone may ask.
    #[must_use]
    pub fn new() -> Self {
        Self::secured(Security::none())
    }

    /// Like [`Self::new`], but requests must satisfy `security`.
    #[must_use]
    pub fn secured(security: Security) -> Self {
        Self {
            metrics: OnceLock::new(),
            scrapes: FairSemaphore::new(MAX_SCRAPES),
            security,
            live: Access::default(),
        }
    }

    /// Sets who may read `/live.json`.
    #[must_use]
    pub fn live_for(self, live: Access) -> Self {
        Self { live, ..self }
    }

    /// Declares the programs attached, and their counts readable. The first call counts.
    pub fn attached(&self, metrics: Metrics) {
        self.metrics.get_or_init(|| Arc::new(metrics));
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

/// Answers on sockets of [`bind`] or [`passed`] until `shutdown` is done, then ends what is under way.
///
/// Needs a tokio runtime with I/O and time. Fails only if the runtime cannot take the sockets.
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
        // Those that are here go on before the next comes.
        yield_now().await;
    }
    drop((listeners, stop));
    let _ = timeout(limits.stop_time, connections.done()).await;
    Ok(())
}

/// Serves one connection that came through no listener, to its end.
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

/// The next connection and its place.
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
