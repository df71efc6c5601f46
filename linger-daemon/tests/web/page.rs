//! The page, as far as it can be tested without a browser.

use std::io::Read as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use linger_daemon::http::Limits;
use ring::digest::{SHA256, digest};

use crate::server::{Answer, Server};

/// Limit of the page's size, bytes: more would be slow over a slow line, or hard to keep in mind.
const SMALL: usize = 60_000;

fn page() -> Answer {
    // Before anything is attached as well: the page says so itself.
    Server::start(Limits::DEFAULT).get("/")
}

/// Returns the content of an element of the page.
fn inside<'a>(page: &'a str, opening: &str, closing: &str) -> &'a str {
    let (_, rest) = page.split_once(opening).unwrap();
    rest.split_once(closing).unwrap().0
}

#[test]
fn is_one_small_document() {
    let answer = page();
    let head = ["content-type", "cache-control", "referrer-policy"].map(|name| answer.header(name));
    let expected = ["text/html; charset=utf-8", "no-cache", "no-referrer"];
    assert_eq!((answer.status, head), (200, expected.map(Some)));
    let text = answer.text();
    assert!(text.len() < SMALL, "{} bytes", text.len());
    for missing in ["{style}", "{script}", "{repository}"] {
        assert!(!text.contains(missing), "{missing} is left");
    }
    // Links are not fetched.
    for fetching in [" src=", "@import", "url(", "<link rel=\"stylesheet"] {
        assert!(!text.contains(fetching), "{fetching} fetches");
    }
}

#[test]
fn may_run_its_own_style_and_script_only() {
    let answer = page();
    let policy = answer.header("content-security-policy").unwrap();
    let hash = |text: &str| BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes()));
    let style = hash(inside(answer.text(), "<style>", "</style>"));
    let script = hash(inside(
        answer.text(),
        "<script type=\"module\">",
        "</script>",
    ));
    assert_eq!(
        policy,
        format!(
            "default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; \
             connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'"
        )
    );
}

#[test]
fn puts_names_in_as_text() {
    let answer = page();
    let script = inside(answer.text(), "<script type=\"module\">", "</script>");
    for dangerous in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
    ] {
        assert!(!script.contains(dangerous), "{dangerous}");
    }
}

#[test]
fn says_without_a_script_where_the_counts_are() {
    let answer = page();
    let instead = inside(answer.text(), "<noscript>", "</noscript>");
    assert!(instead.contains("href=\"metrics\""), "{instead}");
}

#[test]
fn is_compressed_on_request() {
    let server = Server::attached();
    let zipped = server.ask("GET /", "Accept-Encoding: gzip\r\n");
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    assert_eq!(zipped.header("vary"), Some("accept-encoding"));
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(zipped.body.as_slice());
    decoder.read_to_string(&mut text).unwrap();
    assert_eq!(text, server.get("/").text());
}
