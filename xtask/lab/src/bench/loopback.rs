//! The part of a scrape's time that is due neither to the daemon nor to the client, but to loopback itself.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use anyhow::Result;

use super::scrape;

/// Number of bytes written at a time.
const PIECE: usize = 1 << 18;

/// The head of the answer.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// Measures, `often` times, how long a ready-made answer of this length takes, milliseconds.
pub(super) fn times(bytes: usize, often: u32) -> Result<Vec<f64>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let time = |_| {
        let start = Instant::now();
        let client = TcpStream::connect(address)?;
        let (server, _) = listener.accept()?;
        thread::scope(|scope| {
            scope.spawn(|| answer(server, bytes));
            scrape::drain_stream(client)
        })?;
        Ok(start.elapsed().as_secs_f64() * 1000.0)
    };
    (0..often).map(time).collect()
}

/// Answers without reading the request.
fn answer(mut stream: TcpStream, bytes: usize) -> io::Result<()> {
    let piece = vec![b'x'; PIECE];
    stream.write_all(ANSWER)?;
    let mut left = bytes.saturating_sub(ANSWER.len());
    while left > 0 {
        let length = left.min(PIECE);
        stream.write_all(&piece[..length])?;
        left -= length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_timed() {
        assert_eq!(times(3 * PIECE + 7, 3).unwrap().len(), 3);
        assert_eq!(times(1, 1).unwrap().len(), 1);
    }
}
