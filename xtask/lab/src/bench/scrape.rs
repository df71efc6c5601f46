//! Scrapes of the daemon.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, bail};
use linger_testkit::exposition::{Sample, Scrape};
use linger_testkit::http;

/// Read timeout, longer than the daemon's own limit for an answer.
const LIMIT: Duration = Duration::from_secs(30);

/// Sends a request for a path.
fn ask(address: SocketAddr, path: &str, gzip: bool) -> Result<TcpStream> {
    let encoding = if gzip { "gzip" } else { "identity" };
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept-Encoding: {encoding}\r\n\
         Connection: close\r\n\r\n",
    )?;
    Ok(stream)
}

/// Scrapes and discards the answer, so that it costs the client next to nothing. Returns its length, bytes, including
/// head and framing.
pub(super) fn drain(address: SocketAddr, gzip: bool) -> Result<usize> {
    drain_stream(ask(address, "/metrics", gzip)?)
}

/// Reads a stream to its end and checks that it begins with status 200. Returns the number of bytes.
pub(super) fn drain_stream(mut stream: TcpStream) -> Result<usize> {
    let mut buffer = vec![0; 1 << 18];
    let mut length = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 if length == 0 => bail!("there is no answer"),
            0 => return Ok(length),
            bytes => {
                if length == 0 && !buffer[..bytes].starts_with(b"HTTP/1.1 200") {
                    bail!("/metrics was not answered");
                }
                length += bytes;
            }
        }
    }
}

/// The metrics served by the daemon.
pub(super) struct Metrics(Scrape);

impl Metrics {
    /// Requests the metrics.
    pub(super) fn of(address: SocketAddr) -> Result<Self> {
        let text = http::body(address, "/metrics")?;
        Scrape::parse(&text).map(Self).map_err(anyhow::Error::msg)
    }

    /// Returns the number of series.
    pub(super) fn series(&self) -> usize {
        self.0.0.len()
    }

    /// Returns the number of samples of a metric that match.
    pub(super) fn count(&self, metric: &str, matches: impl Fn(&Sample) -> bool) -> usize {
        self.0.of(metric).filter(|sample| matches(sample)).count()
    }

    /// Returns the value of a metric without labels.
    pub(super) fn value(&self, metric: &str) -> Option<f64> {
        self.0.value(metric)
    }

    /// Returns the value of a label in the first sample of a metric.
    pub(super) fn label(&self, metric: &str, label: &str) -> Option<&str> {
        self.0.of(metric).next()?.get(label)
    }

    /// Returns the sum of a metric's samples that have this label and value.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts far below 2^52"
    )]
    pub(super) fn sum(&self, metric: &str, (label, value): (&str, &str)) -> u64 {
        let samples = self
            .0
            .of(metric)
            .filter(|sample| sample.label(label) == value);
        samples.map(|sample| sample.value).sum::<f64>() as u64
    }
}
