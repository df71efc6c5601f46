//! From request to answer.

use std::error::Error;
use std::iter::successors;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use prometheus::TEXT_FORMAT;
use tokio::time::timeout;

use super::{State, gzip};
use crate::metrics::{Metrics, REVISION, ScrapeError, VERSION};

type Answer = Response<Full<Bytes>>;

const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const NOT_ATTACHED: &str = "not ready: the programs are not attached yet\n";

/// Answers one request within `time`.
pub(super) async fn answer(request: &Request<impl Body>, state: &State, time: Duration) -> Answer {
    let has_body = !request.body().is_end_stream();
    let mut answer = if !matches!(*request.method(), Method::GET | Method::HEAD) {
        method_not_allowed()
    } else if has_body {
        text(
            StatusCode::PAYLOAD_TOO_LARGE,
            "no endpoint takes a request body\n",
        )
    } else {
        match request.uri().path() {
            "/" => landing(state),
            "/metrics" => scrape(state, gzip::accepted(request.headers()), time).await,
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => ready(state),
            path => not_found(path),
        }
    };
    if has_body {
        // Its body is not read, so nothing can follow it.
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    answer
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    respond(status, PLAIN, body)
}

fn method_not_allowed() -> Answer {
    let mut answer = text(
        StatusCode::METHOD_NOT_ALLOWED,
        "every endpoint is for GET and HEAD\n",
    );
    let methods = HeaderValue::from_static("GET, HEAD");
    answer.headers_mut().insert(header::ALLOW, methods);
    answer
}

fn not_found(path: &str) -> Answer {
    let help = format!("nothing at {path}: try /, /metrics, /healthz or /readyz\n");
    text(StatusCode::NOT_FOUND, help)
}

fn ready(state: &State) -> Answer {
    match state.metrics.get() {
        Some(_) => text(StatusCode::OK, "ready\n"),
        None => text(StatusCode::SERVICE_UNAVAILABLE, NOT_ATTACHED),
    }
}

/// `/metrics`: reads the ledger, at most [`super::MAX_SCRAPES`] times at once.
async fn scrape(state: &State, gzip: bool, time: Duration) -> Answer {
    let Some(metrics) = state.metrics.get() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, NOT_ATTACHED);
    };
    let metrics = Arc::clone(metrics);
    let scrapes = Arc::clone(&state.scrapes);
    let work = async {
        let turn = scrapes.acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        let work = tokio::task::spawn_blocking(move || {
            let body = exposition(&metrics, gzip);
            drop(turn);
            body
        });
        work.await.expect("a scrape does not panic")
    };
    match timeout(time, work).await {
        Ok(Ok(body)) => exposed(body, gzip),
        Ok(Err(error)) => failed(&error),
        Err(_) => {
            let seconds = time.as_secs_f32();
            tracing::warn!(seconds, "a scrape took too long");
            let help = format!("the ledger was not read within {seconds} seconds\n");
            text(StatusCode::SERVICE_UNAVAILABLE, help)
        }
    }
}

fn exposition(metrics: &Metrics, gzip: bool) -> Result<Bytes, ScrapeError> {
    let mut text = Vec::new();
    let exposition = metrics.read()?;
    exposition
        .write(&mut text)
        .expect("memory takes every byte");
    Ok(if gzip {
        gzip::compress(&text).into()
    } else {
        text.into()
    })
}

fn exposed(body: Bytes, gzip: bool) -> Answer {
    let mut answer = respond(StatusCode::OK, TEXT_FORMAT, body);
    let headers = answer.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

fn failed(error: &ScrapeError) -> Answer {
    let causes: Vec<String> = successors(Some(error as &dyn Error), |&error| error.source())
        .map(ToString::to_string)
        .collect();
    let reason = causes.join(": ");
    tracing::error!(%reason, "a scrape failed");
    text(StatusCode::INTERNAL_SERVER_ERROR, reason + "\n")
}

/// `/`: what this is, and where to go.
fn landing(state: &State) -> Answer {
    let facts = state.metrics.get().map(|metrics| metrics.facts());
    let plan = facts.map_or("none yet: attaching", |facts| facts.plan.name());
    let kernel = facts.map_or("", |facts| &facts.kernel);
    let page = include_str!("landing.html")
        .replace("{version}", VERSION)
        .replace("{revision}", &escape(REVISION))
        .replace("{repository}", env!("CARGO_PKG_REPOSITORY"))
        .replace("{plan}", plan)
        .replace("{kernel}", &escape(kernel));
    let mut answer = respond(StatusCode::OK, HTML, page);
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
    answer
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, policy);
    answer
}

/// Text as HTML shows it.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
