//! `/`: a document that shows `/live.json`, and fetches nothing else.

use std::io::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use ring::digest::{SHA256, digest};

const DOCUMENT: &str = include_str!("../page/index.html");
const STYLE: &str = include_str!("../page/page.css");
const SCRIPT: &str = concat!(
    include_str!("../page/words.js"),
    include_str!("../page/draw.js"),
    include_str!("../page/page.js")
);

/// The page, ready to be sent.
pub(super) struct Page {
    pub(super) html: Bytes,
    /// The same, compressed by gzip.
    pub(super) compressed: Bytes,
    /// Content security policy, which allows its own style and script, and requests to its origin.
    pub(super) policy: HeaderValue,
}

/// The page, built at the first request.
pub(super) static PAGE: LazyLock<Page> = LazyLock::new(|| {
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
        compressed: compress(html.as_bytes()),
        html: html.into(),
        policy: policy.try_into().expect("it is ASCII"),
    }
});

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
