//! The answers of each endpoint.

use std::io::{Read as _, Write as _};

use linger_daemon::http::{self, Limits};

use crate::fixture;
use crate::server::{Answer, Server};

#[test]
fn metrics_are_prometheus_text() {
    let answer = Server::attached().get("/metrics");
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4")
    );
    assert_eq!(answer.header("content-encoding"), None);
    assert!(
        answer.text().contains("\nlinger_closes_total{"),
        "{}",
        answer.text()
    );
}

#[test]
fn metrics_are_open_metrics_on_request() {
    let accept =
        "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n";
    let server = Server::attached();
    for (request, end) in [("GET /metrics", "\n# EOF\n"), ("HEAD /metrics", "")] {
        let answer = server.ask(request, accept);
        assert_eq!(
            answer.header("content-type"),
            Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
        );
        assert_eq!(answer.header("vary"), Some("accept, accept-encoding"));
        assert!(answer.text().ends_with(end), "{}", answer.text());
    }
}

#[test]
fn metrics_are_compressed_on_request() {
    let answer = Server::attached().ask("GET /metrics", "Accept-Encoding: br, gzip\r\n");
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(answer.body.as_slice());
    decoder.read_to_string(&mut text).unwrap();
    assert!(text.contains("\nlinger_closes_total{"), "{text}");
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::attached();
    let [head, get] = ["HEAD /", "GET /"].map(|request| server.ask(request, ""));
    assert_eq!((head.status, head.text()), (200, ""));
    for name in ["content-length", "content-type"] {
        assert!(head.header(name).is_some());
        assert_eq!(head.header(name), get.header(name));
    }
    assert_eq!(server.ask("HEAD /metrics", "").text(), "");
}

#[test]
fn ready_once_attached() {
    let server = Server::start(Limits::DEFAULT);
    assert_eq!(server.get("/healthz").status, 200);
    for path in ["/readyz", "/metrics", "/live.json"] {
        let answer = server.get(path);
        let starting = "starting: the programs are not attached yet\n";
        assert_eq!((answer.status, answer.text()), (503, starting), "{path}");
    }
    server.state.attached(fixture::metrics(fixture::snapshot()));
    assert_eq!(server.get("/readyz").status, 200);
    assert_eq!(server.get("/metrics").status, 200);
}

#[test]
fn unknown_paths_get_help() {
    let answer = Server::attached().get("/metric");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("/metrics"));
}

#[test]
fn only_get_and_head() {
    let answer = Server::attached().ask("DELETE /metrics", "");
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
}

#[test]
fn request_bodies_are_refused() {
    let server = Server::attached();
    let mut stream = server.connect();
    // The request does not ask to close the connection: the server does so itself.
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n")
        .unwrap();
    let answer = Answer::read(&mut stream);
    assert_eq!(answer.status, 413);
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn a_failing_ledger_is_an_error_with_its_reason() {
    let server = Server::reading(Limits::DEFAULT, || Err("the map is gone".into()));
    let answer = server.get("/metrics");
    assert_eq!(answer.status, 500);
    assert_eq!(
        answer.text(),
        "the ledger cannot be read: the map is gone\n"
    );
}

#[test]
fn a_taken_port_says_so() {
    let server = Server::attached();
    let bind = |address: &str| match http::bind(&[address.parse().unwrap()]) {
        Ok(_) => panic!("bound to {address}"),
        Err(error) => error.to_string(),
    };
    let error = bind(&server.address().to_string());
    assert!(
        error.starts_with(&format!("{} is in use", server.address())),
        "{error}"
    );
    let error = bind("192.0.2.1:10546");
    assert!(error.contains("not an address of this host"), "{error}");
}

/// At boot, the network may give the host an address only after a while.
#[test]
fn the_service_is_started_again_for_a_while() {
    let unit = include_str!("../../packaging/lingerd.service");
    let number = |key: &str| -> u32 {
        let values = unit.lines().filter_map(|line| line.strip_prefix(key));
        values.map(|value| value.parse::<u32>().unwrap()).sum()
    };
    assert!(unit.contains("\nStartLimitIntervalSec=5min\n"));
    let seconds = number("StartLimitBurst=") * number("RestartSec=");
    // Longer than the interval would be for ever.
    assert!((90..270).contains(&seconds), "{seconds} s");
}
