//! Web pages, as the daemon serves them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(20);

/// The status and the body that `path` is answered with.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let (head, body) = split(&answer, b"\r\n\r\n").context("no HTTP answer")?;
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let status = head.split(' ').nth(1).context("no HTTP status")?;
    let body = if head.contains("transfer-encoding: chunked") {
        joined(body)?
    } else {
        body.to_owned()
    };
    Ok((status.parse()?, String::from_utf8(body)?))
}

/// The body that comes in these chunks, down to the last.
fn joined(mut chunks: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let (length, rest) = split(chunks, b"\r\n").context("the answer ends early")?;
        let length = usize::from_str_radix(str::from_utf8(length)?, 16)?;
        if length == 0 {
            return Ok(body);
        }
        let chunk = rest.split_at_checked(length);
        let (chunk, rest) = chunk.context("the answer ends within a chunk")?;
        body.extend(chunk);
        chunks = rest.strip_prefix(b"\r\n").context("a chunk does not end")?;
    }
}

/// What stands before and after the first of these marks.
fn split<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut windows = bytes.windows(mark.len());
    let at = windows.position(|window| window == mark)?;
    Some((&bytes[..at], &bytes[at + mark.len()..]))
}
