//! `/`: a document that shows `/live.json`, and fetches nothing else.

use std::io::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use hyper::{StatusCode, header};
use ring::digest::{SHA256, digest};

use super::body::ResponseBody;
use super::response::{self, Answer, compressed, with};

const DOCUMENT: &str = include_str!("../page/index.html");
const STYLE: &str = include_str!("../page/page.css");
const SCRIPT: &str = concat!(
    include_str!("../page/words.js"),
    include_str!("../page/draw.js"),
    include_str!("../page/page.js")
);

struct Page {
    html: Bytes,
    /// The same, compressed by gzip.
    gzip: Bytes,
    /// Content security policy, which allows its own style and script, and requests to its origin.
    policy: HeaderValue,
}

/// The page, built at the first request.
static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let html = DOCUMENT
        .replace("{style}", STYLE)
        .replace("{script}", SCRIPT)
        .replace("{repository}", env!("CARGO_PKG_REPOSITORY"));
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    Page {
        gzip: compress(html.as_bytes()),
        html: html.into(),
        policy: policy.try_into().expect("it is ASCII"),
    }
});

pub(super) fn respond(gzip: bool) -> Answer {
    let body = if gzip { &PAGE.gzip } else { &PAGE.html };
    let body = ResponseBody::Whole(body.clone());
    let answer = response::respond(StatusCode::OK, "text/html; charset=utf-8", body);
    let mut answer = compressed(answer, "accept-encoding", gzip);
    let policy = PAGE.policy.clone();
    answer
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, policy);
    // Another version of the daemon has another page.
    let answer = with(answer, header::CACHE_CONTROL, "no-cache");
    with(answer, header::REFERRER_POLICY, "no-referrer")
}

/// Returns the hash by which a policy allows a part of the document.
fn hash(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    format!("sha256-{}", BASE64_STANDARD.encode(digest))
}

fn compress(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory takes all");
    encoder.finish().expect("memory takes all").into()
}
