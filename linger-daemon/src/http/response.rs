//! Answers, and their headers.

use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::ResponseBody;

/// An answer; only that of a scrape may be too long to be held in memory.
pub(super) type Answer = Response<ResponseBody>;

const PLAIN: &str = "text/plain; charset=utf-8";

/// An answer with this body.
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

/// An answer in words.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    respond(status, PLAIN, ResponseBody::Whole(body.into()))
}

/// The answer with one header more.
pub(super) fn with(mut answer: Answer, header: HeaderName, value: &'static str) -> Answer {
    let value = HeaderValue::from_static(value);
    answer.headers_mut().insert(header, value);
    answer
}

/// Says whether the body is compressed, and from which headers of the request it follows.
pub(super) fn compressed(answer: Answer, follows_from: &'static str, gzip: bool) -> Answer {
    let answer = with(answer, header::VARY, follows_from);
    if gzip {
        with(answer, header::CONTENT_ENCODING, "gzip")
    } else {
        answer
    }
}

/// The answer until the programs are attached.
pub(super) fn not_attached() -> Answer {
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        "starting: the programs are not attached yet\n",
    )
}
