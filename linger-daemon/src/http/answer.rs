//! From request to answer.

use hyper::body::{Body, Bytes};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::Instant;

use super::access::refusal;
use super::body::ResponseBody;
use super::connections::RequestGuard;
use super::listen::Peer;
use super::page::{PAGE, Page};
use super::scrape::{View, compressed, scrape};
use super::security::Verdict;
use super::{State, negotiation};

/// An answer; only that of a scrape may be too long to be held in memory.
pub(super) type Answer = Response<ResponseBody>;

const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Answers one request by the time it is `due`; a long answer has only begun by then.
pub(super) async fn answer(
    request: &Request<impl Body>,
    state: &State,
    peer: Peer,
    in_flight: &RequestGuard,
    due: Instant,
) -> Answer {
    let rules = state.security.rules();
    let gate = &state.security.gate;
    let has_body = !request.body().is_end_stream();
    let mut answer = match gate.check(&rules.users, request.headers(), peer).await {
        Verdict::Welcome => {
            let scrape = |view| scrape(request, view, state, peer, in_flight, due);
            let refused = refusal(state.live, request, peer, rules.knows_all);
            welcome(request, has_body, state, refused, scrape).await
        }
        Verdict::Unknown => unauthorized(),
        Verdict::Busy => busy(),
    };
    if has_body {
        // Its body is not read, so nothing can follow it.
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    answer
}

/// Answers one who may ask, and is `refused` what is live, or not.
async fn welcome<B, F: Future<Output = Answer>>(
    request: &Request<B>,
    has_body: bool,
    state: &State,
    refused: Option<&'static str>,
    scrape: impl FnOnce(View) -> F,
) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        method_not_allowed()
    } else if has_body {
        text(
            StatusCode::PAYLOAD_TOO_LARGE,
            "no endpoint takes a request body\n",
        )
    } else {
        match request.uri().path() {
            "/" => page(negotiation::takes_gzip(request.headers())),
            "/live.json" => match refused {
                Some(why) => text(StatusCode::FORBIDDEN, why),
                None => scrape(View::Live).await,
            },
            "/metrics" => {
                let format = negotiation::format(request.headers());
                scrape(View::Metrics(format)).await
            }
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => ready(state),
            path => not_found(path),
        }
    }
}

fn unauthorized() -> Answer {
    let mut answer = text(StatusCode::UNAUTHORIZED, "Unauthorized\n");
    let basic = HeaderValue::from_static("Basic");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
    answer
}

/// Checking a password takes long, and must not take all of the time.
fn busy() -> Answer {
    let mut answer = text(
        StatusCode::TOO_MANY_REQUESTS,
        "too many passwords wait to be checked: try again\n",
    );
    let soon = HeaderValue::from_static("1");
    answer.headers_mut().insert(header::RETRY_AFTER, soon);
    answer
}

/// An answer that is there as a whole.
fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    respond_with(status, content_type, ResponseBody::Whole(body.into()))
}

/// An answer with any body.
pub(super) fn respond_with(
    status: StatusCode,
    content_type: &'static str,
    body: ResponseBody,
) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    answer
}

/// An answer in words.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
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
    let help = format!("nothing at {path}: try /, /metrics, /live.json, /healthz or /readyz\n");
    text(StatusCode::NOT_FOUND, help)
}

fn ready(state: &State) -> Answer {
    match state.metrics.get() {
        Some(_) => text(StatusCode::OK, "ready\n"),
        None => not_attached(),
    }
}

/// What is to be had once the programs are attached.
pub(super) fn not_attached() -> Answer {
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        "starting: the programs are not attached yet\n",
    )
}

/// `/`: the page, which shows `/live.json`.
fn page(gzip: bool) -> Answer {
    let Page {
        html,
        compressed: zipped,
        policy,
    } = &*PAGE;
    let body = if gzip { zipped } else { html };
    let mut answer = respond(StatusCode::OK, HTML, body.clone());
    let headers = answer.headers_mut();
    compressed(headers, "accept-encoding", gzip);
    headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
    for (name, value) in [
        // Another version of the daemon has another page.
        (header::CACHE_CONTROL, "no-cache"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}
