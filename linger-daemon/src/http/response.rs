//! Answers, and their headers.

use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::ResponseBody;

/// An answer; only that of a scrape may be too long to be held in memory.
pub(super) type Answer = Response<ResponseBody>;

const PLAIN: &str = "text/plain; charset=utf-8";

/// An answer that is there as a whole.
pub(super) fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Answer {
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

/// An answer in words, with one header more.
fn text_with(
    status: StatusCode,
    body: &'static str,
    header: HeaderName,
    value: &'static str,
) -> Answer {
    let mut answer = text(status, body);
    let value = HeaderValue::from_static(value);
    answer.headers_mut().insert(header, value);
    answer
}

/// Says whether a body is compressed, and from which headers of the request it follows.
pub(super) fn compressed(headers: &mut HeaderMap, follows_from: &'static str, gzip: bool) {
    headers.insert(header::VARY, HeaderValue::from_static(follows_from));
    if gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
}

pub(super) fn unauthorized() -> Answer {
    let (header, value) = (header::WWW_AUTHENTICATE, "Basic");
    text_with(StatusCode::UNAUTHORIZED, "Unauthorized\n", header, value)
}

/// Checking a password takes long, and must not take all of the time.
pub(super) fn busy() -> Answer {
    text_with(
        StatusCode::TOO_MANY_REQUESTS,
        "too many passwords wait to be checked: try again\n",
        header::RETRY_AFTER,
        "1",
    )
}

pub(super) fn method_not_allowed() -> Answer {
    text_with(
        StatusCode::METHOD_NOT_ALLOWED,
        "every endpoint is for GET and HEAD\n",
        header::ALLOW,
        "GET, HEAD",
    )
}

pub(super) fn not_found(path: &str) -> Answer {
    let help = format!("nothing at {path}: try /, /metrics, /live.json, /healthz or /readyz\n");
    text(StatusCode::NOT_FOUND, help)
}

/// The answer until the programs are attached.
pub(super) fn not_attached() -> Answer {
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        "starting: the programs are not attached yet\n",
    )
}
