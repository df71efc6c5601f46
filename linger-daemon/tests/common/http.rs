//! Web pages, as the daemon serves them.

use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(20);

/// The status and the body that `path` is answered with.
///
/// The connection is closed here first, when all has come: so the daemon's close leaves nothing behind.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    let mut stream = BufReader::new(stream);
    let first = line(&mut stream)?;
    let status = first.split(' ').nth(1).context("no HTTP status")?.parse()?;
    let mut length = None;
    loop {
        let header = line(&mut stream)?.to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = Some(value.trim().parse()?);
        }
    }
    let body = match length {
        Some(length) => exactly(&mut stream, length)?,
        None => chunks(&mut stream)?,
    };
    Ok((status, String::from_utf8(body)?))
}

/// A line, without its end.
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

/// The body that comes in chunks, down to the last.
fn chunks(stream: &mut impl BufRead) -> Result<Vec<u8>> {
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
