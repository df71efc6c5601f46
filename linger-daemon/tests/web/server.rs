//! A server, and requests over real connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use linger_daemon::config::{Access, ListenAddr};
use linger_daemon::http::{self, Limits, Listeners, Security, State};
use linger_daemon::ledger::Snapshot;
use linger_daemon::metrics::{Metrics, SourceError};
use tokio::sync::oneshot;

use crate::fixture;

/// A server at its own port, stopped when dropped.
pub(crate) struct Server {
    /// Addresses that it listens on.
    pub(crate) places: Vec<ListenAddr>,
    pub(crate) state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server with nothing attached.
    pub(crate) fn start(limits: Limits) -> Self {
        let anywhere = "127.0.0.1:0".parse().unwrap();
        Self::listening(http::bind(&[anywhere]).unwrap(), limits)
    }

    /// Starts a server on these sockets, with nothing attached.
    pub(crate) fn listening(listeners: Listeners, limits: Limits) -> Self {
        let state = State::new(Security::none(), Access::default());
        Self::with(listeners, limits, state)
    }

    /// Starts a server with known counts, for clients that `security` admits.
    pub(crate) fn secured(security: Security) -> Self {
        Self::secured_with(security, Limits::DEFAULT)
    }

    /// Does the same with these limits.
    pub(crate) fn secured_with(security: Security, limits: Limits) -> Self {
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let listeners = http::bind(&[anywhere]).unwrap();
        let state = State::new(security, Access::default());
        let server = Self::with(listeners, limits, state);
        server.state.attached(fixture::metrics(fixture::snapshot()));
        server
    }

    /// Starts a server with known counts, with this access to its live figures.
    pub(crate) fn live_for(live: Access) -> Self {
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let listeners = http::bind(&[anywhere]).unwrap();
        let state = State::new(Security::none(), live);
        let server = Self::with(listeners, Limits::DEFAULT, state);
        server.state.attached(fixture::metrics(fixture::snapshot()));
        server
    }

    fn with(listeners: Listeners, limits: Limits, state: State) -> Self {
        let places = listeners.places().cloned().collect();
        let state = Arc::new(state);
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&state);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let shutdown = async { drop(stopped.await) };
            runtime
                .block_on(http::serve(listeners, served, limits, shutdown))
                .unwrap();
            // Does not wait for a read of the ledger that still blocks.
            runtime.shutdown_background();
        });
        Self {
            places,
            state,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Starts a server whose scrapes call `source`.
    pub(crate) fn reading<F>(limits: Limits, source: F) -> Self
    where
        F: Fn() -> Result<Snapshot, SourceError> + Send + Sync + 'static,
    {
        let server = Self::start(limits);
        let metrics = Metrics::new(Arc::new(source), fixture::facts());
        server.state.attached(metrics);
        server
    }

    pub(crate) fn attached() -> Self {
        Self::attached_with(Limits::DEFAULT)
    }

    pub(crate) fn attached_with(limits: Limits) -> Self {
        Self::reading(limits, || Ok(fixture::snapshot()))
    }

    /// Returns the first address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        match self.places.first() {
            Some(ListenAddr::Tcp(address)) => *address,
            other => panic!("it listens at {other:?}"),
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        // A server that hangs fails the test instead of hanging it.
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    /// Sends a request with these further lines in its head, and reads to the end of the connection.
    pub(crate) fn ask(&self, request: &str, head: &str) -> Answer {
        Answer::of(&mut self.connect(), request, head)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), "")
    }

    /// Stops the server. Returns how long that took.
    pub(crate) fn stop(&mut self) -> Duration {
        let started = Instant::now();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        started.elapsed()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Sends a request over this connection, and reads to its end.
    pub(crate) fn of(stream: &mut (impl Read + Write), request: &str, head: &str) -> Self {
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{head}\r\n"
        )
        .unwrap();
        Self::read(stream)
    }

    /// Reads to the end of the connection; panics if the answer is incomplete.
    pub(crate) fn read(stream: &mut impl Read) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Self::parse(bytes)
    }

    /// Parses all bytes of a connection; panics if they are no answer.
    pub(crate) fn parse(mut bytes: Vec<u8>) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)));
        let body = bytes.split_off(end + 4);
        let head = String::from_utf8(bytes).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Self { status, head, body };
        if answer.header("transfer-encoding") == Some("chunked") && !answer.body.is_empty() {
            answer.body = dechunk(&answer.body).expect("the answer is cut short");
        }
        answer
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Returns the bytes in these chunks; `None` if the last is missing, or anything follows it.
pub(crate) fn dechunk(mut chunks: &[u8]) -> Option<Vec<u8>> {
    let bytes = linger_testkit::http::chunks(&mut chunks).ok()?;
    chunks.is_empty().then_some(bytes)
}
