//! Scrapes of the daemon.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, bail};

/// Read timeout, longer than the daemon's own limit for an answer.
const LIMIT: Duration = Duration::from_secs(30);

/// Scrapes and discards the answer, so that it costs the client next to nothing. Returns its length, bytes, including
/// head and framing.
pub(super) fn drain(address: SocketAddr, gzip: bool) -> Result<usize> {
    let encoding = if gzip { "gzip" } else { "identity" };
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: {address}\r\nAccept-Encoding: {encoding}\r\n\
         Connection: close\r\n\r\n",
    )?;
    drain_stream(stream)
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
