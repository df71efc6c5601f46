//! Answers requests.

use hyper::body::Body;
use hyper::{Method, Request, StatusCode, header};
use tokio::time::timeout_at;

use super::access::refusal;
use super::connections::RequestGuard;
use super::response::{Answer, busy, not_attached, text, with};
use super::scrape::{View, scrape};
use super::security::Refusal;
use super::{State, negotiation, page};

/// Answers one request by the time it is due; a long response has only begun by then. `is_trusted` says whether its
/// connection required a trusted certificate.
pub(super) async fn answer(
    request: &Request<impl Body>,
    state: &State,
    in_flight: &RequestGuard,
    is_trusted: bool,
) -> Answer {
    let has_body = !request.body().is_end_stream();
    let check = state.security.check(request.headers(), in_flight.peer());
    let checked = timeout_at(in_flight.due(), check).await;
    let answer = match checked.unwrap_or(Err(Refusal::Busy)) {
        Ok(_) if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            let help = "every endpoint is for GET and HEAD\n";
            let answer = text(StatusCode::METHOD_NOT_ALLOWED, help);
            with(answer, header::ALLOW, "GET, HEAD")
        }
        Ok(_) if has_body => text(
            StatusCode::PAYLOAD_TOO_LARGE,
            "no endpoint takes a request body\n",
        ),
        Ok(known) => endpoint(request, state, in_flight, known || is_trusted).await,
        Err(Refusal::Unknown) => {
            let answer = text(StatusCode::UNAUTHORIZED, "Unauthorized\n");
            with(answer, header::WWW_AUTHENTICATE, "Basic")
        }
        // Checking passwords is slow, and must not take up all of the time.
        Err(Refusal::Busy) => busy("too many passwords wait to be checked: try again\n"),
    };
    if has_body {
        // The body is not read, so no further request can follow it.
        with(answer, header::CONNECTION, "close")
    } else {
        answer
    }
}

/// Answers a permitted request; a `known` one carries a required password or certificate.
async fn endpoint<B>(
    request: &Request<B>,
    state: &State,
    in_flight: &RequestGuard,
    known: bool,
) -> Answer {
    match request.uri().path() {
        "/" => page::respond(negotiation::takes_gzip(request.headers())),
        "/live.json" => match refusal(state.live, request, in_flight.peer(), known) {
            Some(why) => text(StatusCode::FORBIDDEN, why),
            None => scrape(request, View::Live, state, in_flight).await,
        },
        "/metrics" => {
            let view = View::Metrics(negotiation::format(request.headers()));
            scrape(request, view, state, in_flight).await
        }
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
