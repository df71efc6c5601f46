//! From request to answer.

use hyper::body::Body;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::time::Instant;

use super::access::refusal;
use super::connections::RequestGuard;
use super::listen::Peer;
use super::page::{PAGE, Page};
use super::response::{
    Answer, busy, compressed, method_not_allowed, not_attached, not_found, respond, text,
    unauthorized,
};
use super::scrape::{View, scrape};
use super::security::Verdict;
use super::{State, negotiation};

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

fn ready(state: &State) -> Answer {
    match state.metrics.get() {
        Some(_) => text(StatusCode::OK, "ready\n"),
        None => not_attached(),
    }
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
