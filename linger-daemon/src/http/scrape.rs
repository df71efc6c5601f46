//! `/metrics` and `/live.json`, which take a reading of the ledger.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::{Method, StatusCode, Version, header};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::body::{ResponseBody, ResponseSender, Writer};
use super::connections::RequestGuard;
use super::response::{Answer, busy, compressed, not_attached, respond, text, with};
use super::{State, negotiation};
use crate::memory;
use crate::metrics::{Exposition, Format, Metrics, ScrapeError};

/// A representation of a reading.
#[derive(Clone, Copy)]
pub(super) enum View {
    /// The metrics, for Prometheus, in the format that it accepts.
    Metrics(Format),
    /// The live view, as JSON.
    Live,
}

/// The response that is requested.
#[derive(Clone, Copy)]
struct Wanted {
    view: View,
    /// True for only the head of the response.
    head: bool,
    gzip: bool,
}

/// Reads the ledger and responds with it; at most [`super::MAX_SCRAPES`] do so at a time.
///
/// A long response holds its permit until the client has taken it.
pub(super) async fn scrape<B>(
    request: &hyper::Request<B>,
    view: View,
    state: &State,
    in_flight: &RequestGuard,
) -> Answer {
    let Some(metrics) = state.metrics.get() else {
        return not_attached();
    };
    let wanted = Wanted {
        view,
        head: *request.method() == Method::HEAD,
        gzip: negotiation::takes_gzip(request.headers()),
    };
    let started = Instant::now();
    let metrics = Arc::clone(metrics);
    let mut has_permit = false;
    let work = async {
        let permit = state
            .scrapes
            .acquire(in_flight.peer(), in_flight.most_of_peer());
        let permit = in_flight.wait_for(permit).await?;
        has_permit = true;
        let (begins, begun) = oneshot::channel();
        spawn_blocking(move || {
            show(&metrics, wanted, begins);
            drop(permit);
        });
        Some(begun.await.unwrap_or(Err(ScrapeError::Unfinished)))
    };
    let shown = timeout_at(in_flight.due(), work).await;
    match shown {
        // In HTTP/1.0, a body ends with its connection: a truncated one would pass for complete.
        Ok(Some(Ok(ResponseBody::Long(_)))) if request.version() < Version::HTTP_11 => text(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "the metrics are too long for HTTP/1.0: ask with HTTP/1.1\n",
        ),
        Ok(Some(Ok(body))) => exposed(body, wanted),
        Ok(Some(Err(error))) => failed(error),
        Ok(None) => busy("too many scrapes from this address wait: try again\n"),
        Err(_) => late(started.elapsed(), has_permit),
    }
}

/// Number of groups from which a scrape uses memory worth returning, more than a MiB.
const MANY: usize = 400;

/// Reads the ledger and, unless only the head of the response is requested, writes the body.
fn show(metrics: &Metrics, wanted: Wanted, begins: ResponseSender) {
    let read = metrics.read();
    let groups = read.as_ref().map_or(0, Exposition::groups);
    // Both fail only if the client is gone, and then there is nothing to do.
    let _ = match read {
        Ok(exposition) if !wanted.head => {
            write(metrics, &exposition, wanted, Writer::new(begins)).ok()
        }
        read => begins.send(read.map(|_| ResponseBody::NONE)).ok(),
    };
    if groups >= MANY {
        memory::release();
    }
}

/// Writes a body, compressed if the client accepts it.
fn write(
    metrics: &Metrics,
    exposition: &Exposition,
    wanted: Wanted,
    mut body: Writer,
) -> io::Result<()> {
    let view = |mut out: &mut dyn Write| match wanted.view {
        View::Metrics(format) => exposition.write(format, &mut out),
        View::Live => Ok(serde_json::to_writer(out, &metrics.live(exposition))?),
    };
    if wanted.gzip {
        // The text is so repetitive that the fastest level suffices.
        let mut encoder = GzEncoder::new(body, Compression::fast());
        view(&mut encoder)?;
        body = encoder.finish()?;
    } else {
        view(&mut body)?;
    }
    body.finish()
}

fn exposed(body: ResponseBody, wanted: Wanted) -> Answer {
    let (content_type, follows_from) = match wanted.view {
        View::Metrics(format) => (format.content_type(), "accept, accept-encoding"),
        View::Live => ("application/json", "accept-encoding"),
    };
    let answer = respond(StatusCode::OK, content_type, body);
    let answer = compressed(answer, follows_from, wanted.gzip);
    match wanted.view {
        View::Metrics(_) => answer,
        View::Live => with(answer, header::CACHE_CONTROL, "no-store"),
    }
}

fn failed(error: ScrapeError) -> Answer {
    let reason = format!("{:#}", anyhow::Error::from(error));
    tracing::error!(%reason, "a scrape failed");
    text(StatusCode::INTERNAL_SERVER_ERROR, reason + "\n")
}

fn late(time: Duration, has_permit: bool) -> Answer {
    let seconds = time.as_secs_f32();
    let help = if has_permit {
        tracing::warn!(seconds, "a scrape took too long");
        format!("the ledger was not read within {seconds:.1} seconds\n")
    } else {
        tracing::warn!(seconds, "a scrape waited too long for others");
        format!("other scrapes took all of {seconds:.1} seconds: try again\n")
    };
    text(StatusCode::SERVICE_UNAVAILABLE, help)
}
