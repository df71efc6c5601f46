//! An HTTP client that closes its connections first.

use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// Time limit of an answer.
const ANSWER: Duration = Duration::from_secs(180);

/// Gets `path`; returns the status and the body.
///
/// Closes the connection first, after receiving the whole answer, so that the daemon's close leaves no orphan.
///
/// # Errors
///
/// If there is no answer in time, or it is not HTTP.
pub fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    ask(&mut connect(address)?, address, "GET", path)
}

/// Gets `path`; returns the body.
///
/// # Errors
///
/// Those of [`get`], or if the status is not 200.
pub fn body(address: SocketAddr, path: &str) -> Result<String> {
    good(address, "GET", path)
}

/// Posts to `path`; returns the body.
///
/// # Errors
///
/// Those of [`body`].
pub fn post(address: SocketAddr, path: &str) -> Result<String> {
    good(address, "POST", path)
}

/// Repeats a request on one connection, so that programs being attached in the meantime see no close of it.
pub struct Poll {
    address: SocketAddr,
    path: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Poll {
    /// Polls this path at this address.
    #[must_use]
    pub fn new(address: SocketAddr, path: &str) -> Self {
        Self {
            address,
            path: path.to_owned(),
            stream: None,
        }
    }

    /// Sends the request; returns whether the status is 200.
    pub fn is_ready(&mut self) -> bool {
        let status = self.status();
        if status.is_err() {
            self.stream = None;
        }
        matches!(status, Ok(200))
    }

    fn status(&mut self) -> Result<u16> {
        if self.stream.is_none() {
            self.stream = Some(connect(self.address)?);
        }
        let stream = self.stream.as_mut().context("it is there")?;
        Ok(ask(stream, self.address, "GET", &self.path)?.0)
    }
}

fn good(address: SocketAddr, method: &str, path: &str) -> Result<String> {
    let (status, body) = ask(&mut connect(address)?, address, method, path)?;
    ensure!(
        status == 200,
        "http://{address}{path} answers {status}: {body}"
    );
    Ok(body)
}

fn connect(address: SocketAddr) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    Ok(BufReader::new(stream))
}

fn ask(
    stream: &mut BufReader<TcpStream>,
    address: SocketAddr,
    method: &str,
    path: &str,
) -> Result<(u16, String)> {
    write!(
        stream.get_mut(),
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n"
    )?;
    let first = line(stream)?;
    let status = first.split(' ').nth(1).context("no HTTP status")?.parse()?;
    let mut length = None;
    loop {
        let header = line(stream)?.to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = Some(value.trim().parse()?);
        }
    }
    let body = match length {
        Some(length) => exactly(stream, length)?,
        None => chunks(stream)?,
    };
    Ok((status, String::from_utf8(body)?))
}

/// Reads a line, without CR LF.
fn line(stream: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let line = line.strip_suffix("\r\n");
    Ok(line.context("the answer ends early")?.to_owned())
}

fn exactly(stream: &mut impl BufRead, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads a chunked body, including its last chunk.
///
/// # Errors
///
/// If it is malformed or ends early.
pub fn chunks(stream: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let length = usize::from_str_radix(&line(stream)?, 16)?;
        body.extend(exactly(stream, length)?);
        ensure!(line(stream)?.is_empty(), "a chunk does not end");
        if length == 0 {
            return Ok(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() {
        let read = |text: &str| chunks(&mut text.as_bytes());
        let body = read("4\r\nlin\n\r\nc\r\nger\r\n 12345\n\r\n0\r\n\r\n").unwrap();
        assert_eq!(body, b"lin\nger\r\n 12345\n");
        for broken in ["4\r\nling\r\n", "5\r\nling"] {
            assert!(read(broken).is_err(), "{broken}");
        }
    }
}
