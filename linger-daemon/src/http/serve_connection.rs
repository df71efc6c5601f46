//! Serves one connection, from its first byte to its last.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

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

pub(super) async fn serve_connection(
    stream: Box<dyn Transport>,
    place: Connection,
    state: Arc<State>,
    limits: Limits,
    mut stopped: watch::Receiver<()>,
) {
    let Some((stream, is_trusted)) = greet(stream, &place, &state, limits, &mut stopped).await
    else {
        return;
    };
    let service = service_fn(|request: Request<Incoming>| {
        let state = Arc::clone(&state);
        let in_flight = place.begin(Instant::now() + limits.answer_time);
        async move {
            let answer = answer::answer(&request, &state, &in_flight, is_trusted).await;
            Ok::<_, Infallible>(answer.map(|body| body.of(in_flight)))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Answer clients that shut down their side after the request, such as `nc -N`.
        .half_close(true)
        // `Connection::must_end` limits the time, from the first byte on.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD.into())
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // Errors that end a connection early are up to the client, or due to a limit: do not report them.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(limits.connection_time) => {}
        _ = stopped.changed() => {}
        end = place.must_end(limits.request_time) => if end != End::Silent {
            return log_end(end, limits);
        }
    }
    // Let it finish the responses in progress.
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        // Poll the connection first, so that it can close cleanly.
        biased;
        _ = connection => {}
        end = place.must_end(limits.request_time) => log_end(end, limits),
    }
}

/// Performs the TLS handshake if TLS is configured. Returns the stream for HTTP, and whether the client had to show a
/// trusted certificate; `None` if the connection ends.
async fn greet(
    stream: Box<dyn Transport>,
    place: &Connection,
    state: &State,
    limits: Limits,
    stopped: &mut watch::Receiver<()>,
) -> Option<(Box<dyn Transport>, bool)> {
    let Some(tls) = state.security.tls() else {
        return Some((stream, false));
    };
    let handshake = async {
        let greeting = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        place.has_greeted();
        greeting.into_stream(tls.config).await
    };
    let accepted = tokio::select! {
        accepted = handshake => accepted,
        _ = place.must_end(limits.request_time) => return None,
        _ = stopped.changed() => return None,
    };
    match accepted {
        Ok(stream) => Some((Box::new(stream), tls.requires_trusted)),
        Err(error) => {
            tracing::debug!(%error, "a client got no connection by TLS");
            None
        }
    }
}

/// Logs that the connection is ended for an overdue response. The generation of the response ends with it.
fn log_end(end: End, limits: Limits) {
    if end == End::Overdue {
        let seconds = limits.answer_time.as_secs_f32();
        tracing::warn!(seconds, "an answer was not taken in time");
    }
}
