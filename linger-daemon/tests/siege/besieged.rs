//! The server under attack, the answers to its good client, and its memory.

use std::env;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use linger_daemon::http::{self, Limits, Security};
use linger_daemon::memory;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::secure::{Authority, Client, Directory};
use crate::server::Server;
use crate::{fixture, large};

/// Time that an attack lasts.
const TIME: Duration = Duration::from_secs(4);

/// Limit of the growth of the server's memory, KiB: 256 connections, and what waits for them.
const MEMORY: u64 = 40 * 1024;

/// Scrape timeout of Prometheus.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// Environment variable for the server's process: its web configuration, [`LARGE`], or nothing.
const SERVER: &str = "LINGER_TEST_BESIEGED";

/// The server's ledger is too large for an answer of known length, and it listens on 127.0.0.1 and `::1`.
const LARGE: &str = "large";

/// Serves, in the process that the other tests start for it; does nothing otherwise.
#[test]
fn serve_the_besieged() {
    let Some(config) = env::var_os(SERVER) else {
        return;
    };
    memory::keep_together();
    // Open files that a service may have unless its unit says more.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 1024.min(hard), hard).unwrap();
    let server = match config.to_str().unwrap() {
        "" => Server::secured(Security::none()),
        LARGE => {
            let places = ["127.0.0.1:0", "[::1]:0"].map(|place| place.parse().unwrap());
            let server = Server::listening(http::bind(&places).unwrap(), Limits::DEFAULT);
            let metrics = fixture::metrics(large::snapshot(large::everything));
            server.state.attached(metrics);
            server
        }
        file => Server::secured(Security::load(Path::new(file)).unwrap()),
    };
    let places = server.places.iter().map(ToString::to_string);
    println!("\nlistening {}", places.collect::<Vec<_>>().join(" "));
    loop {
        thread::park();
    }
}

/// How clients talk to a server.
pub(crate) enum Speech {
    Plain,
    /// Like `Plain`, with a server whose answers are long.
    Large,
    /// By TLS; heads carry this line of credentials.
    Secured(Directory, Box<Authority>, String),
}

/// A server under attack.
pub(crate) struct Besieged {
    child: Child,
    /// Its addresses; the good client uses the first.
    addresses: Vec<SocketAddr>,
    pub(crate) speech: Speech,
    over: AtomicBool,
    /// Number of things that the attackers did.
    pub(crate) done: AtomicU64,
    /// Only one siege at a time.
    _turn: MutexGuard<'static, ()>,
}

impl Besieged {
    pub(crate) fn start(speech: Speech) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // For the thousands of connections of the attackers.
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        let config = match &speech {
            Speech::Plain => "".into(),
            Speech::Large => LARGE.into(),
            Speech::Secured(directory, ..) => directory.file(),
        };
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "besieged::serve_the_besieged", "--nocapture"])
            .env(SERVER, config)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addresses = lines.find_map(|line| {
            let line = line.unwrap();
            let addresses = line.strip_prefix("listening ")?.split(' ');
            Some(addresses.map(|address| address.parse().unwrap()).collect())
        });
        Self {
            child,
            addresses: addresses.unwrap(),
            speech,
            over: AtomicBool::new(false),
            done: AtomicU64::new(0),
            _turn: turn,
        }
    }

    /// Returns whether the attackers may stop.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Runs this many attackers, each with its number, while the good client scrapes.
    pub(crate) fn attack(&self, name: &str, attackers: u64, attack: impl Fn(&Self, u64) + Sync) {
        // Allocate beforehand what is allocated once.
        for _ in 0..20 {
            self.scrape().unwrap();
        }
        let before = self.memory("VmRSS");
        let started = Instant::now();
        let (scrapes, slowest) = thread::scope(|scope| {
            for number in 0..attackers {
                let attack = &attack;
                scope.spawn(move || attack(self, number));
            }
            let outcome = self.scrapes(started);
            // Also on failure, so that the attackers end.
            self.over.store(true, Ordering::Relaxed);
            outcome
        })
        .unwrap();
        let (peak, after) = (self.memory("VmHWM"), self.memory("VmRSS"));
        let rate = self.done.load(Ordering::Relaxed) / started.elapsed().as_secs().max(1);
        println!(
            "{name}: {rate} a second; good client: {scrapes} scrapes, slowest {slowest:.0?}; memory \
             {before} KiB before, {peak} at most, {after} after"
        );
        assert!(self.done.load(Ordering::Relaxed) > 0, "nothing was done");
        assert!(peak < before + MEMORY, "{peak} KiB, {before} before");
    }

    /// Scrapes as the good client. Returns the number of scrapes and the time of the slowest, or the first error.
    fn scrapes(&self, started: Instant) -> io::Result<(usize, Duration)> {
        let (mut count, mut slowest) = (0, Duration::ZERO);
        while started.elapsed() < TIME {
            let begun = Instant::now();
            self.scrape()?;
            slowest = slowest.max(begun.elapsed());
            count += 1;
            thread::sleep(Duration::from_millis(50));
        }
        Ok((count, slowest))
    }

    /// Scrapes once, as Prometheus does.
    fn scrape(&self) -> io::Result<()> {
        match &self.speech {
            Speech::Plain | Speech::Large => ask(self.connect()?, ""),
            Speech::Secured(_, authority, head) => {
                ask(Client::trusting(authority).over(self.connect()?), head)
            }
        }
    }

    pub(crate) fn connect(&self) -> io::Result<TcpStream> {
        Self::connect_to(&self.addresses[0])
    }

    /// Connects from the other address of this host.
    pub(crate) fn connect_elsewhere(&self) -> io::Result<TcpStream> {
        Self::connect_to(&self.addresses[1])
    }

    fn connect_to(address: &SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(address, SCRAPE_TIMEOUT)?;
        stream.set_read_timeout(Some(SCRAPE_TIMEOUT))?;
        stream.set_write_timeout(Some(SCRAPE_TIMEOUT))?;
        Ok(stream)
    }

    /// Returns a line of the process's status, KiB.
    fn memory(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let mut lines = status.lines();
        let value = lines.find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
        value
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap()
    }
}

/// Reads the metrics, which must be complete.
fn ask(mut stream: impl Read + Write, head: &str) -> io::Result<()> {
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{head}\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let is_whole = answer.contains("content-length: ") || answer.ends_with("\r\n0\r\n\r\n");
    let whole = is_whole
        && answer.starts_with("HTTP/1.1 200 OK\r\n")
        && answer.contains("\nlinger_closes_total{");
    whole.then_some(()).ok_or_else(|| {
        let start: String = answer.chars().take(200).collect();
        io::Error::other(format!("no metrics: {start:?}"))
    })
}

impl Drop for Besieged {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
