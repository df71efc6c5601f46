//! No client can keep the server from serving the others, or from stopping.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use linger_daemon::http::Limits;

use crate::fixture;
use crate::server::{Answer, Server};

#[test]
fn oversized_heads_are_refused() {
    let server = Server::attached();
    let fits = format!("Cookie: {}\r\n", "a".repeat(12 * 1024));
    assert_eq!(server.ask("GET /healthz", &fits).status, 200);
    let mut stream = server.connect();
    let head = format!("GET /healthz HTTP/1.1\r\nCookie: {}", "a".repeat(16 * 1024));
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(Answer::read(&mut stream).status, 431);
}

#[test]
fn a_client_that_sends_slowly_is_dropped() {
    let request_time = Duration::from_millis(400);
    let server = Server::start(Limits {
        request_time,
        ..Limits::DEFAULT
    });
    let started = Instant::now();
    let mut stream = server.connect();
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nCookie: ")
        .unwrap();
    while stream.write_all(b"a").is_ok() && !is_closed(&mut stream) {
        assert!(started.elapsed() < Duration::from_secs(10), "never dropped");
    }
    assert!(started.elapsed() >= request_time);
}

#[test]
fn a_client_that_has_finished_sending_is_answered() {
    let server = Server::reading(Limits::DEFAULT, || {
        thread::sleep(Duration::from_millis(100));
        Ok(fixture::snapshot())
    });
    let mut stream = server.connect();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n")
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // The answer is complete, and the connection ends without further requests.
    assert_eq!(Answer::read(&mut stream).status, 200);
}

/// Waits for the read timeout of the stream.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 512]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

#[test]
fn who_waits_longest_gives_way_to_a_new_connection() {
    let server = Server::attached_with(Limits {
        connections: 2,
        request_time: Duration::from_secs(60),
        ..Limits::DEFAULT
    });
    let mut first = server.connect();
    let mut second = server.connect();
    // Wait until both are accepted.
    thread::sleep(Duration::from_millis(100));
    first
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
        .unwrap();
    first.read_exact(&mut [0; 12]).unwrap();
    assert_eq!(server.get("/healthz").status, 200);
    assert!(is_closed(&mut second), "it has waited longest");
    first
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).unwrap();
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains("200 OK"), "the answer of the first: {rest}");
}

#[test]
fn an_answer_in_progress_is_not_dropped_for_a_new_connection() {
    let server = Server::reading(
        Limits {
            connections: 1,
            ..Limits::DEFAULT
        },
        || {
            thread::sleep(Duration::from_millis(300));
            Ok(fixture::snapshot())
        },
    );
    let mut busy = server.connect();
    busy.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .unwrap();
    thread::sleep(Duration::from_millis(100));
    let next = thread::spawn({
        let mut stream = server.connect();
        move || Answer::of(&mut stream, "GET /healthz", "").status
    });
    assert_eq!(Answer::read(&mut busy).status, 200);
    assert_eq!(next.join().unwrap(), 200);
}

#[test]
fn answers_that_no_one_takes_do_not_fill_the_memory() {
    // More than the buffers of a socket hold, and short enough to be made as a whole.
    let long = "x".repeat(8 * 1024 * 1024);
    let server = Server::reading(Limits::DEFAULT, move || Err(long.clone().into()));
    let mut stalled: Vec<_> = (0..24).map(|_| server.connect()).collect();
    for stream in &mut stalled {
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            .unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
    }
    let taken = stalled.iter_mut().map(|stream| {
        let mut bytes = Vec::new();
        stream
            .read_to_end(&mut bytes)
            .is_ok_and(|length| length > 8 * 1024 * 1024)
    });
    let taken: Vec<bool> = taken.collect();
    let whole = taken.iter().filter(|whole| **whole).count();
    assert_eq!(whole, 16, "{taken:?}");
    assert!(taken[23], "the newest is kept");
}

/// Connects a client that does not read its answer, after `prepare`; it must be dropped although no other client needs
/// its place.
fn expect_stalled_is_dropped(limits: Limits, prepare: impl FnOnce(&TcpStream)) {
    // More than all socket buffers hold.
    const LONG: usize = 64 * 1024 * 1024;
    let limits = Limits {
        answer_time: Duration::from_millis(300),
        ..limits
    };
    let long = "x".repeat(LONG);
    let server = Server::reading(limits, move || Err(long.clone().into()));
    let mut stalled = server.connect();
    stalled
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n")
        .unwrap();
    prepare(&stalled);
    stalled.read_exact(&mut [0; 12]).unwrap();
    // The time for the answer, its second of grace, and as much again.
    thread::sleep(2 * (limits.answer_time + Duration::from_secs(1)));
    let mut rest = Vec::new();
    let _ = stalled.read_to_end(&mut rest);
    assert!(rest.len() < LONG, "not dropped");
}

#[test]
fn a_client_that_does_not_read_is_dropped() {
    let limits = Limits {
        connection_time: Duration::from_millis(300),
        ..Limits::DEFAULT
    };
    expect_stalled_is_dropped(limits, |_| ());
}

#[test]
fn a_client_that_has_finished_sending_is_dropped_if_it_does_not_read() {
    expect_stalled_is_dropped(Limits::DEFAULT, |stalled| {
        stalled.shutdown(Shutdown::Write).unwrap();
    });
}

#[test]
fn at_most_two_scrapes_at_a_time() {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let server = Server::reading(Limits::DEFAULT, || {
        let running = RUNNING.fetch_add(1, Ordering::SeqCst) + 1;
        MOST.fetch_max(running, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(50));
        RUNNING.fetch_sub(1, Ordering::SeqCst);
        Ok(fixture::snapshot())
    });
    thread::scope(|scope| {
        // The views and the scrapes share the limit.
        for path in ["/metrics", "/live.json"].repeat(4) {
            let server = &server;
            scope.spawn(move || assert_eq!(server.get(path).status, 200));
        }
    });
    assert_eq!(MOST.load(Ordering::SeqCst), 2);
}

#[test]
fn a_client_with_too_many_scrapes_is_asked_to_try_again() {
    for (connections, most) in [(256, 192), (8, 6)] {
        let limits = Limits {
            connections,
            ..Limits::DEFAULT
        };
        let server = Server::reading(limits, || {
            thread::sleep(Duration::from_secs(5));
            Ok(fixture::snapshot())
        });
        let mut waiting: Vec<_> = (0..most).map(|_| server.connect()).collect();
        for stream in &mut waiting {
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n")
                .unwrap();
        }
        // Until all of them have arrived.
        thread::sleep(Duration::from_millis(200));
        let answer = server.get("/metrics");
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (429, Some("1"))
        );
        assert_eq!(server.get("/healthz").status, 200);
    }
}

#[test]
fn a_scrape_that_hangs_is_given_up() {
    let answer_time = Duration::from_millis(100);
    let server = Server::reading(
        Limits {
            answer_time,
            ..Limits::DEFAULT
        },
        || {
            thread::sleep(Duration::from_secs(1));
            Ok(fixture::snapshot())
        },
    );
    let answer = server.get("/metrics");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("0.1 seconds"), "{}", answer.text());
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_scrape_that_waits_for_others_in_vain_says_so() {
    let limits = Limits {
        answer_time: Duration::from_millis(100),
        ..Limits::DEFAULT
    };
    let server = Server::reading(limits, || {
        thread::sleep(Duration::from_secs(5));
        Ok(fixture::snapshot())
    });
    for expected in ["not read", "not read", "other scrapes"] {
        let answer = server.get("/metrics");
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains(expected), "{}", answer.text());
    }
}

#[test]
fn a_scrape_of_which_nothing_comes_is_answered() {
    let server = Server::reading(Limits::DEFAULT, || panic!("it has no end"));
    let answer = server.get("/metrics");
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("ended"), "{}", answer.text());
}

#[test]
fn stopping_finishes_what_is_under_way() {
    let mut server = Server::reading(Limits::DEFAULT, || {
        thread::sleep(Duration::from_millis(250));
        Ok(fixture::snapshot())
    });
    let idle = server.connect();
    let mut busy = server.connect();
    busy.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n")
        .unwrap();
    thread::sleep(Duration::from_millis(100));
    let took = server.stop();
    assert_eq!(Answer::read(&mut busy).status, 200);
    assert!(took < Limits::DEFAULT.stop_time, "{took:?}");
    assert!(TcpStream::connect(server.address()).is_err());
    drop(idle);
}

#[test]
fn stopping_does_not_wait_for_ever() {
    let limits = Limits {
        stop_time: Duration::from_millis(100),
        ..Limits::DEFAULT
    };
    let mut server = Server::reading(limits, || {
        thread::sleep(Duration::from_millis(1500));
        Ok(fixture::snapshot())
    });
    let mut busy = server.connect();
    busy.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n")
        .unwrap();
    thread::sleep(Duration::from_millis(100));
    let took = server.stop();
    assert!(took < Duration::from_secs(1), "{took:?}");
}
