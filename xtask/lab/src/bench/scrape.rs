//! Asking the daemon.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, bail};
use linger_testkit::exposition::{Sample, Scrape};
use linger_testkit::http;

/// Longer than the daemon gives itself for an answer.
const LIMIT: Duration = Duration::from_secs(30);

/// Asks for a path.
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

/// Scrapes, and forgets the answer as it comes, so that it costs this side next to nothing; its length
/// in bytes, head and framing included.
pub(super) fn drain(address: SocketAddr, gzip: bool) -> Result<usize> {
    drain_stream(ask(address, "/metrics", gzip)?)
}

/// Takes a stream to its end, which must begin like a good answer; how many bytes came.
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

/// What the daemon served at `/metrics`.
pub(super) struct Metrics(Scrape);

impl Metrics {
    /// Asks for them.
    pub(super) fn of(address: SocketAddr) -> Result<Self> {
        let text = http::body(address, "/metrics")?;
        Scrape::parse(&text).map(Self).map_err(anyhow::Error::msg)
    }

    /// How many series there are.
    pub(super) fn series(&self) -> usize {
        self.0.0.len()
    }

    /// How many samples of a metric are such.
    pub(super) fn count(&self, metric: &str, is_such: impl Fn(&Sample) -> bool) -> usize {
        self.0.of(metric).filter(|sample| is_such(sample)).count()
    }

    /// The value of a metric without labels.
    pub(super) fn value(&self, metric: &str) -> Option<f64> {
        self.0.value(metric)
    }

    /// The value of a label in the first sample of a metric, if that has it.
    pub(super) fn label(&self, metric: &str, label: &str) -> Option<&str> {
        self.0.of(metric).next()?.get(label)
    }

    /// The sum of a metric's samples that have this value of a label.
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
