//! Measures a scrape of a ledger full of groups: time (best of [`ROUNDS`]), bytes, and peak memory.

#[path = "../tests/web/large.rs"]
mod large;

use std::fs;
use std::future::pending;
use std::io::{self, Read as _, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use linger_daemon::config::{Access, ListenAddr};
use linger_daemon::http::{self, Limits, Security, State};
use linger_daemon::ledger::Snapshot;
use linger_daemon::metrics::{Facts, Format, Metrics, series};
use linger_ebpf::{Counters, Plan};

const ROUNDS: usize = 7;

fn main() {
    measure("usual", large::usual);
    measure("typical", large::typical);
    measure("everything", large::everything);
}

fn measure(name: &str, counters: fn(u64) -> Counters) {
    let snapshot = Arc::new(large::snapshot(counters));
    let series = snapshot.groups.iter().map(|(_, counters)| series(counters));
    let series: usize = series.sum();
    let groups = snapshot.groups.len();
    println!("{name}: {groups} groups, {series} series");

    let exposition = metrics(&snapshot).read().expect("it can be read");
    for (name, format) in [("text", Format::Text), ("OpenMetrics", Format::OpenMetrics)] {
        report(name, groups, || {
            let mut text = ByteCount(0);
            exposition.write(format, &mut text).expect("it takes all");
            text.0
        });
    }
    drop(exposition);
    report("copy of the snapshot", groups, || {
        drop(metrics(&snapshot).read().expect("it can be read"));
        0
    });
    let address = serve(metrics(&snapshot));
    let accept = "Accept: application/openmetrics-text\r\n";
    let gzip = "Accept-Encoding: gzip\r\n";
    for (name, head) in [
        ("copied, served", String::new()),
        ("the same, OpenMetrics", accept.to_owned()),
        ("copied, served, gzip", gzip.to_owned()),
        ("the same, OpenMetrics", [accept, gzip].concat()),
    ] {
        report(name, groups, || get(address, &head));
    }
}

/// A writer that counts bytes and discards them.
struct ByteCount(usize);

impl Write for ByteCount {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn metrics(snapshot: &Arc<Snapshot>) -> Metrics {
    let snapshot = Arc::clone(snapshot);
    let facts = Facts {
        plan: Plan::Fentry,
        kernel: "bench".to_owned(),
        host: "test".to_owned(),
    };
    Metrics::new(Arc::new(move || Ok(Snapshot::clone(&snapshot))), facts)
}

/// Serves the metrics until the bench ends, and returns the address.
fn serve(metrics: Metrics) -> SocketAddr {
    let anywhere = ListenAddr::Tcp(([127, 0, 0, 1], 0).into());
    let listeners = http::bind(&[anywhere]).expect("a port is free");
    let Some(&ListenAddr::Tcp(address)) = listeners.places().next() else {
        panic!("it listens elsewhere");
    };
    let state = Arc::new(State::new(Security::none(), Access::default()));
    state.attached(metrics);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the system has what it takes");
        runtime.block_on(http::serve(listeners, state, Limits::DEFAULT, pending()))
    });
    address
}

/// Scrapes once, and returns the length of the response, bytes.
fn get(address: SocketAddr, head: &str) -> usize {
    let mut stream = TcpStream::connect(address).expect("it is there");
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n{head}\r\n");
    stream.write_all(request.as_bytes()).expect("it is taken");
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        match stream.read(&mut buffer).expect("it comes") {
            0 => return bytes,
            more => bytes += more,
        }
    }
}

/// Prints the time, bytes and peak memory of `work`, which returns the bytes.
#[expect(
    clippy::cast_precision_loss,
    reason = "figures are rounded for display"
)]
fn report(what: &str, groups: usize, work: impl Fn() -> usize) {
    fs::write("/proc/self/clear_refs", "5").expect("Linux has it");
    let before = memory("VmRSS:");
    let runs = (0..ROUNDS).map(|_| {
        let started = Instant::now();
        let bytes = work();
        (started.elapsed(), bytes)
    });
    let (time, bytes) = runs.min().expect("at least one");
    println!(
        "  {what:22} {:7.1} ms {:6.2} µs a group {bytes:10} bytes {:6.0} a group {:7} KiB of memory",
        time.as_secs_f64() * 1e3,
        time.as_secs_f64() * 1e6 / groups as f64,
        bytes as f64 / groups as f64,
        memory("VmHWM:").saturating_sub(before)
    );
}

/// Reads a field of `/proc/self/status`, KiB.
fn memory(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .expect("it has it")
}
