//! Metrics that are too long to be held in memory.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use linger_daemon::config::ListenAddr;
use linger_daemon::http::{self, Limits};
use linger_daemon::ledger::Snapshot;
use linger_daemon::metrics::series;
use linger_ebpf::{Counters, Outcome, TimeHistogram};

use crate::server::{Answer, Server, dechunk};
use crate::{fixture, large};

const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";

fn serving(limits: Limits, snapshot: Snapshot) -> (Server, Arc<AtomicUsize>) {
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reads);
    let server = Server::reading(limits, move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(snapshot.clone())
    });
    (server, reads)
}

/// Long times, as the tests may run on a busy machine.
const PATIENT: Limits = Limits {
    answer_time: Duration::from_secs(60),
    ..Limits::DEFAULT
};

/// Returns the sum of a count over all groups.
fn sum(snapshot: &Snapshot, count: impl Fn(&Counters) -> u64) -> u64 {
    let groups = snapshot.groups.iter();
    groups.map(|(_, counters)| count(counters)).sum()
}

#[test]
fn every_series_of_every_group_comes() {
    let snapshot = large::snapshot(large::everything);
    let (server, _) = serving(PATIENT, snapshot.clone());
    let answer = server.get("/metrics");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    assert_eq!(answer.header("content-length"), None);

    let mut lines = 0;
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for line in answer
        .text()
        .lines()
        .filter(|line| line.contains("{unit=\"service-"))
    {
        lines += 1;
        let (name, rest) = line.split_once('{').unwrap();
        let (_, value) = rest.rsplit_once("\"} ").unwrap();
        if !name.ends_with("_sum") {
            *sums.entry(name).or_default() += value.parse::<u64>().unwrap();
        }
    }
    assert_eq!(lines, sum(&snapshot, |counters| series(counters) as u64));
    let closes = |counters: &Counters| {
        let outcomes = Outcome::ALL.iter();
        outcomes.map(|&outcome| counters.closed(outcome)).sum()
    };
    let timed = |counters: &Counters| counters.blocked.iter().map(TimeHistogram::count).sum();
    for (name, expected) in [
        ("linger_closes_total", sum(&snapshot, closes)),
        ("linger_close_blocked_seconds_count", sum(&snapshot, timed)),
        (
            "linger_unread_bytes_total",
            sum(&snapshot, |counters| counters.unread_bytes),
        ),
        (
            "linger_resets_sent_total",
            sum(&snapshot, |counters| counters.resets.iter().sum()),
        ),
        (
            "linger_orphans_total",
            sum(&snapshot, |counters| counters.orphans.ended()),
        ),
        (
            "linger_orphan_duration_seconds_count",
            sum(&snapshot, |counters| counters.orphans.lived.count()),
        ),
        (
            "linger_orphans_active",
            sum(&snapshot, |counters| counters.orphans.under_way()),
        ),
    ] {
        assert_eq!(sums[name], expected, "{name}");
    }
}

#[test]
fn a_compressed_stream_is_the_same_text() {
    let (server, _) = serving(PATIENT, large::snapshot(large::typical));
    let plain = server.get("/metrics");
    let packed = server.ask("GET /metrics", "Accept-Encoding: gzip\r\n");
    assert_eq!(packed.header("transfer-encoding"), Some("chunked"));
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(packed.body.as_slice());
    decoder.read_to_string(&mut text).unwrap();
    // Only the daemon's own metrics change from scrape to scrape.
    let of_groups = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.contains("{unit="));
        lines.map(str::to_owned).collect()
    };
    let (plain, unpacked) = (of_groups(plain.text()), of_groups(&text));
    assert!(
        !plain.is_empty() && plain == unpacked,
        "{} and {} lines",
        plain.len(),
        unpacked.len()
    );
}

#[test]
fn a_short_answer_has_a_length() {
    let answer = Server::attached().get("/metrics");
    let length = answer.body.len().to_string();
    assert_eq!(answer.header("content-length"), Some(length.as_str()));
    assert_eq!(answer.header("transfer-encoding"), None);
}

#[test]
fn head_tells_of_a_long_answer_without_making_it() {
    let (server, reads) = serving(PATIENT, large::snapshot(large::typical));
    let answer = server.ask("HEAD /metrics", "");
    assert_eq!((answer.status, answer.text()), (200, ""));
    assert_eq!(answer.header("content-length"), None);
    assert_eq!(reads.load(Ordering::SeqCst), 1);
    let failing = Server::reading(Limits::DEFAULT, || Err("the map is gone".into()));
    assert_eq!(failing.ask("HEAD /metrics", "").status, 500);
}

#[test]
fn http_1_0_cannot_tell_the_end_of_a_long_answer() {
    let (server, _) = serving(PATIENT, large::snapshot(large::typical));
    let mut stream = server.connect();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let answer = Answer::read(&mut stream);
    assert_eq!(answer.status, 505);
    assert!(answer.text().contains("HTTP/1.1"), "{}", answer.text());
}

#[test]
fn a_client_that_stalls_a_long_answer_is_cut_off_and_others_get_theirs() {
    let limits = Limits {
        answer_time: Duration::from_secs(2),
        ..Limits::DEFAULT
    };
    let (server, reads) = serving(limits, large::snapshot(large::typical));
    let mut stalled = [server.connect(), server.connect()];
    for stream in &mut stalled {
        stream.write_all(REQUEST).unwrap();
        // The answer has begun.
        stream.read_exact(&mut [0; 12]).unwrap();
    }
    assert_eq!(server.get("/healthz").status, 200);
    thread::scope(|scope| {
        let third = scope.spawn(|| {
            let started = Instant::now();
            while started.elapsed() < Duration::from_secs(20) {
                let mut stream = server.connect();
                stream.write_all(REQUEST).unwrap();
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer);
                if is_whole(&answer) {
                    return true;
                }
            }
            false
        });
        // While the two hold their turns, no further scrape starts.
        thread::sleep(Duration::from_millis(200));
        assert_eq!(reads.load(Ordering::SeqCst), 2);
        assert!(third.join().unwrap(), "no one else got an answer");
    });
    // Its turn came with the end of one of the two: the other may have begun later, and has as much time.
    thread::sleep(2 * limits.answer_time);
    for mut stream in stalled {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(!is_whole(&rest), "not cut off");
    }
}

#[test]
fn many_stalled_clients_do_not_keep_another_host_from_its_turn() {
    // 127.0.0.1 and ::1 count as two hosts. With a long time limit, late clients are not cut off.
    let places = ["127.0.0.1:0", "[::1]:0"].map(|place| place.parse().unwrap());
    let server = Server::listening(http::bind(&places).unwrap(), PATIENT);
    let metrics = fixture::metrics(large::snapshot(large::typical));
    server.state.attached(metrics);
    let Some(&ListenAddr::Tcp(other)) = server.places.last() else {
        panic!("it listens at {:?}", server.places);
    };
    let mut stalled: Vec<_> = (0..40)
        .map(|_| TcpStream::connect(other).unwrap())
        .collect();
    for stream in &mut stalled {
        stream.write_all(REQUEST).unwrap();
    }
    // The first two have their turns.
    for stream in &mut stalled[..2] {
        stream.read_exact(&mut [0; 12]).unwrap();
    }
    let mut good = server.connect();
    good.write_all(REQUEST).unwrap();
    let mut answer = Vec::new();
    good.read_to_end(&mut answer).unwrap();
    assert!(is_whole(&answer), "{} bytes", answer.len());
}

/// Returns whether an answer of status 200, or the rest from within its head, has all its chunks.
fn is_whole(answer: &[u8]) -> bool {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, chunks) = answer.split_at(end.expect("there is a head") + 4);
    let chunked = head.to_ascii_lowercase();
    let chunked = chunked.windows(7).any(|seven| seven == b"chunked");
    chunked && dechunk(chunks).is_some()
}
