//! Asking the daemon.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Longer than the daemon gives itself for an answer.
const LIMIT: Duration = Duration::from_secs(30);

/// What a server answered, as it came.
pub(super) struct Answer(Vec<u8>);

impl Answer {
    /// Asks for a path, and takes the answer to its end.
    pub(super) fn of(address: SocketAddr, path: &str, gzip: bool) -> Result<Self> {
        let mut bytes = Vec::new();
        ask(address, path, gzip)?.read_to_end(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Its status, 200 if all is well.
    pub(super) fn status(&self) -> Option<u16> {
        let text = self.0.get("HTTP/1.1 ".len()..)?.get(..3)?;
        str::from_utf8(text).ok()?.parse().ok()
    }

    /// Its body, which must not be compressed.
    pub(super) fn text(&self) -> Result<String> {
        let answer = str::from_utf8(&self.0).context("the answer is not plain text")?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .context("an answer in HTTP has a head")?;
        if head.to_ascii_lowercase().contains("transfer-encoding") {
            chunked(body).context("the answer is cut short")
        } else {
            Ok(body.to_owned())
        }
    }
}

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

/// What chunks carry; none if the last is missing.
fn chunked(mut body: &str) -> Option<String> {
    let mut text = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n")?;
        let length = usize::from_str_radix(length, 16).ok()?;
        if length == 0 {
            return Some(text);
        }
        text.push_str(rest.get(..length)?);
        body = rest.get(length..)?.strip_prefix("\r\n")?;
    }
}

/// What the daemon served at `/metrics`.
pub(super) struct Metrics(String);

impl Metrics {
    /// Reads an answer.
    pub(super) fn of(answer: &Answer) -> Result<Self> {
        match answer.status() {
            Some(200) => Ok(Self(answer.text()?)),
            status => bail!("/metrics answered {status:?}"),
        }
    }

    /// How many series there are.
    pub(super) fn series(&self) -> usize {
        let lines = self.0.lines();
        lines.filter(|line| !line.starts_with('#')).count()
    }

    /// How many samples of a metric have all of these in their labels.
    pub(super) fn count(&self, metric: &str, parts: &[&str]) -> usize {
        self.samples(metric)
            .filter(|(labels, _)| parts.iter().all(|part| labels.contains(part)))
            .count()
    }

    /// The value of a metric without labels.
    pub(super) fn value(&self, metric: &str) -> Option<f64> {
        let mut lines = self.0.lines();
        let value = lines.find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '))?;
        value.parse().ok()
    }

    /// The value of a label in the first sample of a metric.
    pub(super) fn label(&self, metric: &str, label: &str) -> Option<&str> {
        let (labels, _) = self.samples(metric).next()?;
        let (_, value) = labels.split_once(&format!("{label}=\""))?;
        value.split('"').next()
    }

    /// The sum of a metric's samples that have this value of a label.
    pub(super) fn sum(&self, metric: &str, (label, value): (&str, &str)) -> Result<u64> {
        let label = format!("{label}=\"{value}\"");
        self.samples(metric)
            .filter(|(labels, _)| labels.contains(&label))
            .map(|(_, value)| value.parse::<u64>())
            .sum::<Result<_, _>>()
            .with_context(|| format!("{metric} is no whole number"))
    }

    /// Labels and value of each sample of a metric that has labels.
    fn samples(&self, metric: &str) -> impl Iterator<Item = (&str, &str)> {
        self.0.lines().filter_map(move |line| {
            let sample = line.strip_prefix(metric)?.strip_prefix('{')?;
            sample.rsplit_once(' ')
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_the_right_metric_are_found() {
        let metrics = Metrics(
            "# TYPE linger_probe_info gauge\n\
             linger_probe_info_other{plan=\"x\"} 1\n\
             linger_probe_info{kernel=\"6.1\",plan=\"kprobe\"} 1\n\
             linger_orphans_total{comm=\"a b\",fate=\"delivered\"} 40\n\
             linger_orphans_total{comm=\"a b\",fate=\"destroyed\"} 2\n\
             linger_orphans_total{comm=\"c\",fate=\"delivered\"} 3\n"
                .to_owned(),
        );
        assert_eq!(metrics.label("linger_probe_info", "plan"), Some("kprobe"));
        assert_eq!(metrics.label("linger_probe_info", "none"), None);
        let sum = |metric, comm| metrics.sum(metric, ("comm", comm)).unwrap();
        assert_eq!(sum("linger_orphans_total", "a b"), 42);
        assert_eq!(sum("linger_orphans_total", "c"), 3);
        assert_eq!(sum("linger_orphans", "c"), 0);
    }

    #[test]
    fn values_and_series_are_found() {
        let metrics = Metrics("# TYPE a gauge\na_b 1\na 0.5\nc{d=\"e\"} 3\n".to_owned());
        assert_eq!(metrics.value("a"), Some(0.5));
        assert_eq!(metrics.value("c"), None);
        assert_eq!(metrics.series(), 3);
    }

    #[test]
    fn chunks_are_put_together() {
        let body = "4\r\nlin\n\r\nc\r\nger\r\n 12345\n\r\n0\r\n\r\n";
        assert_eq!(chunked(body).unwrap(), "lin\nger\r\n 12345\n");
        assert_eq!(chunked("4\r\nling\r\n"), None);
        assert_eq!(chunked("5\r\nling"), None);
    }
}
