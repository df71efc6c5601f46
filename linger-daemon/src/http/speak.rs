//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_rustls::LazyConfigAcceptor;

use super::connections::{Connection, End};
use super::listen::Transport;
use super::{Limits, State, answer};

/// Bytes of a request's head: a browser's, with the cookies of other ports of the same host, fits.
const MAX_HEAD: u16 = 16 * 1024;

/// Requests at a time on one connection of HTTP/2.
const MAX_STREAMS: u32 = 8;

/// Bytes of request bodies that a client may send unasked, of HTTP/2; no endpoint takes any.
const WINDOW: u32 = 64 * 1024;

/// Bytes of an answer that are taken over from its making, of HTTP/2.
const MAX_SENDING: usize = 64 * 1024;

/// Streams that are reset before they are looked at, or for a mistake: as many, and the connection
/// ends.
const MAX_RESETS: usize = 16;

/// For the client to take the answer that there is none in time.
const GRACE: Duration = Duration::from_secs(1);

/// Serves one connection to its end.
pub(super) async fn serve(
    stream: Box<dyn Transport>,
    place: Connection,
    state: Arc<State>,
    limits: Limits,
    stopped: watch::Receiver<()>,
) {
    let life = Life {
        place: &place,
        limits,
        stopped,
    };
    let Some((stream, version)) = life.greet(stream, &state).await else {
        return;
    };
    let service = service_fn(|request: Request<Incoming>| {
        let due = Instant::now() + limits.answer_time;
        let (state, peer) = (Arc::clone(&state), place.peer());
        let under_way = place.begin(due + GRACE);
        async move {
            let answer = answer::answer(&request, &state, peer, &under_way, due).await;
            Ok::<_, Infallible>(answer.map(|body| body.of(under_way)))
        }
    });
    let stream = TokioIo::new(stream);
    if version == Version::HTTP_2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD.into())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buf_size(MAX_SENDING)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_RESETS)
            .serve_connection(stream, service);
        life.live(connection, http2::Connection::graceful_shutdown)
            .await;
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Of all requests alike, whatever the protocol, the place keeps the time.
            .header_read_timeout(None)
            .max_buf_size(MAX_HEAD.into())
            .serve_connection(stream, service);
        life.live(connection, http1::Connection::graceful_shutdown)
            .await;
    }
}

/// How long a connection lives.
struct Life<'a> {
    place: &'a Connection,
    limits: Limits,
    /// Its sender is gone when the server stops.
    stopped: watch::Receiver<()>,
}

impl Life<'_> {
    /// Speaks TLS if that is spoken here; returns what to speak inside.
    async fn greet(
        &self,
        stream: Box<dyn Transport>,
        state: &State,
    ) -> Option<(Box<dyn Transport>, Version)> {
        let rules = state.security.rules();
        let Some(tls) = &rules.tls else {
            return Some((stream, Version::HTTP_11));
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
            Ok(stream) => {
                let version = match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => Version::HTTP_2,
                    _ => Version::HTTP_11,
                };
                Some((Box::new(stream), version))
            }
            Err(error) => {
                tracing::debug!(%error, "a client got no connection by TLS");
                None
            }
        }
    }

    /// Lets a connection do its work until its time is up, and then finish what is under way.
    async fn live<C: Future>(mut self, connection: C, finish: fn(Pin<&mut C>)) {
        let mut connection = pin!(connection);
        // What ends a connection early is the client's affair, or a limit: nothing to report.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = sleep(self.limits.connection_time) => {}
            _ = self.stopped.changed() => {}
            end = self.place.must_end(self.limits.request_time) => if end != End::Silent {
                return self.cut(end);
            }
        }
        finish(connection.as_mut());
        tokio::select! {
            // First of all it says farewell.
            biased;
            _ = connection => {}
            end = self.place.must_end(self.limits.request_time) => self.cut(end),
        }
    }

    /// With the connection ends what is made for it, and its turn.
    fn cut(&self, end: End) {
        if end == End::Overdue {
            let seconds = self.limits.answer_time.as_secs_f32();
            tracing::warn!(seconds, "an answer was not taken in time");
        }
    }
}
