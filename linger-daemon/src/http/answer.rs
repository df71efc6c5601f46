//! Answers requests.

use hyper::body::Body;
use hyper::{Method, Request, StatusCode, header};
use tokio::time::Instant;

use super::access::refusal;
use super::body::ResponseBody;
use super::connections::RequestGuard;
use super::listen::Peer;
use super::page::{PAGE, Page};
use super::response::{Answer, compressed, not_attached, respond, text, with};
use super::scrape::{View, scrape};
use super::security::Verdict;
use super::{State, negotiation};

/// Answers one request by the time it is `due`; a long response has only begun by then.
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
    let answer = match gate.check(&rules.users, request.headers(), peer).await {
        Verdict::Welcome if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            let help = "every endpoint is for GET and HEAD\n";
            let answer = text(StatusCode::METHOD_NOT_ALLOWED, help);
            with(answer, header::ALLOW, "GET, HEAD")
        }
        Verdict::Welcome if has_body => text(
            StatusCode::PAYLOAD_TOO_LARGE,
            "no endpoint takes a request body\n",
        ),
        Verdict::Welcome => {
            let scrape = |view| scrape(request, view, state, peer, in_flight, due);
            let refused = refusal(state.live, request, peer, rules.knows_all);
            endpoint(request, state, refused, scrape).await
        }
        Verdict::Unknown => {
            let answer = text(StatusCode::UNAUTHORIZED, "Unauthorized\n");
            with(answer, header::WWW_AUTHENTICATE, "Basic")
        }
        // Checking passwords is slow, and must not take up all of the time.
        Verdict::Busy => {
            let help = "too many passwords wait to be checked: try again\n";
            let answer = text(StatusCode::TOO_MANY_REQUESTS, help);
            with(answer, header::RETRY_AFTER, "1")
        }
    };
    if has_body {
        // The body is not read, so no further request can follow it.
        with(answer, header::CONNECTION, "close")
    } else {
        answer
    }
}

/// Answers a permitted request; `refused` is the reason to refuse it `/live.json`, if any.
async fn endpoint<B, F: Future<Output = Answer>>(
    request: &Request<B>,
    state: &State,
    refused: Option<&'static str>,
    scrape: impl FnOnce(View) -> F,
) -> Answer {
    match request.uri().path() {
        "/" => page(negotiation::takes_gzip(request.headers())),
        "/live.json" => match refused {
            Some(why) => text(StatusCode::FORBIDDEN, why),
            None => scrape(View::Live).await,
        },
        "/metrics" => scrape(View::Metrics(negotiation::format(request.headers()))).await,
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => match state.metrics.get() {
            Some(_) => text(StatusCode::OK, "ready\n"),
            None => not_attached(),
        },
        path => {
            let help =
                format!("nothing at {path}: try /, /metrics, /live.json, /healthz or /readyz\n");
            text(StatusCode::NOT_FOUND, help)
        }
    }
}

/// Answers `/` with the page, which shows `/live.json`.
fn page(gzip: bool) -> Answer {
    let Page {
        html,
        compressed: zipped,
        policy,
    } = &*PAGE;
    let body = if gzip { zipped } else { html };
    let body = ResponseBody::Whole(body.clone());
    let answer = respond(StatusCode::OK, "text/html; charset=utf-8", body);
    let mut answer = compressed(answer, "accept-encoding", gzip);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
    // Another version of the daemon has another page.
    let answer = with(answer, header::CACHE_CONTROL, "no-cache");
    with(answer, header::REFERRER_POLICY, "no-referrer")
}
