//! Serves one connection, from its first byte to its last.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_rustls::LazyConfigAcceptor;

use super::connections::{Connection, End};
use super::listen::Transport;
use super::{Limits, State, answer};

/// Maximum size of a request's head, bytes. A browser's fits, with the cookies of other ports of the same host.
const MAX_HEAD: u16 = 16 * 1024;

/// Time for the client to read the response that reports a timeout.
const GRACE: Duration = Duration::from_secs(1);

/// Serves one connection to its end.
pub(super) async fn serve_connection(
    stream: Box<dyn Transport>,
    place: Connection,
    state: Arc<State>,
    limits: Limits,
    stopped: watch::Receiver<()>,
) {
    let life = ConnectionLifetime {
        place: &place,
        limits,
        stopped,
    };
    let Some(stream) = life.greet(stream, &state).await else {
        return;
    };
    let service = service_fn(|request: Request<Incoming>| {
        let due = Instant::now() + limits.answer_time;
        let (state, peer) = (Arc::clone(&state), place.peer());
        let in_flight = place.begin(due + GRACE);
        async move {
            let answer = answer::answer(&request, &state, peer, &in_flight, due).await;
            Ok::<_, Infallible>(answer.map(|body| body.of(in_flight)))
        }
    });
    let stream = TokioIo::new(stream);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // `ConnectionLifetime` limits the time, from the first byte on.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD.into())
        .serve_connection(stream, service);
    life.live(connection, http1::Connection::graceful_shutdown)
        .await;
}

/// The limits on the lifetime of a connection.
struct ConnectionLifetime<'a> {
    place: &'a Connection,
    limits: Limits,
    /// Channel whose sender is dropped when the server stops.
    stopped: watch::Receiver<()>,
}

impl ConnectionLifetime<'_> {
    /// Performs the TLS handshake if TLS is configured. Returns the stream for HTTP; `None` if the connection ends.
    async fn greet(&self, stream: Box<dyn Transport>, state: &State) -> Option<Box<dyn Transport>> {
        let rules = state.security.rules();
        let Some(tls) = &rules.tls else {
            return Some(stream);
        };
        let mut stopped = self.stopped.clone();
        let handshake = async {
            let greeting = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            self.place.has_greeted();
            greeting.into_stream(Arc::clone(tls)).await
        };
        let accepted = tokio::select! {
            accepted = handshake => accepted,
            _ = self.place.must_end(self.limits.request_time) => return None,
            _ = stopped.changed() => return None,
        };
        match accepted {
            Ok(stream) => Some(Box::new(stream)),
            Err(error) => {
                tracing::debug!(%error, "a client got no connection by TLS");
                None
            }
        }
    }

    /// Runs a connection until its time is up, then lets it finish the responses in progress.
    async fn live<C: Future>(mut self, connection: C, finish: fn(Pin<&mut C>)) {
        let mut connection = pin!(connection);
        // Errors that end a connection early are up to the client, or due to a limit: do not report them.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = sleep(self.limits.connection_time) => {}
            _ = self.stopped.changed() => {}
            end = self.place.must_end(self.limits.request_time) => if end != End::Silent {
                return self.log_end(end);
            }
        }
        finish(connection.as_mut());
        tokio::select! {
            // Poll the connection first, so that it can close cleanly.
            biased;
            _ = connection => {}
            end = self.place.must_end(self.limits.request_time) => self.log_end(end),
        }
    }

    /// Logs that the connection is ended for an overdue response. The generation of the response ends with it.
    fn log_end(&self, end: End) {
        if end == End::Overdue {
            let seconds = self.limits.answer_time.as_secs_f32();
            tracing::warn!(seconds, "an answer was not taken in time");
        }
    }
}
