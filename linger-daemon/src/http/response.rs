//! Responses and their headers.

use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::ResponseBody;

/// A response; only that of a scrape may be too long to be held in memory.
pub(super) type Answer = Response<ResponseBody>;

const PLAIN: &str = "text/plain; charset=utf-8";

pub(super) fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: ResponseBody,
) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let answer = with(answer, header::CONTENT_TYPE, content_type);
    with(answer, header::X_CONTENT_TYPE_OPTIONS, "nosniff")
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    respond(status, PLAIN, ResponseBody::Whole(body.into()))
}

pub(super) fn with(mut answer: Answer, header: HeaderName, value: &'static str) -> Answer {
    let value = HeaderValue::from_static(value);
    answer.headers_mut().insert(header, value);
    answer
}

/// Adds the headers for a body that may be compressed, and that varies with the headers of the request named here.
pub(super) fn compressed(answer: Answer, follows_from: &'static str, gzip: bool) -> Answer {
    let answer = with(answer, header::VARY, follows_from);
    if gzip {
        with(answer, header::CONTENT_ENCODING, "gzip")
    } else {
        answer
    }
}

/// Creates the response to one of too many requests.
pub(super) fn busy(help: &'static str) -> Answer {
    let answer = text(StatusCode::TOO_MANY_REQUESTS, help);
    with(answer, header::RETRY_AFTER, "1")
}

/// Creates the response that is sent until the programs are attached.
pub(super) fn not_attached() -> Answer {
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        "starting: the programs are not attached yet\n",
    )
}
