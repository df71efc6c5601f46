//! What of a scrape is neither the daemon's doing nor the client's: loopback itself.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use anyhow::Result;

use super::scrape;

/// How many bytes are written at a time.
const PIECE: usize = 1 << 18;

/// How the answer begins.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// Milliseconds that an answer of so many bytes takes that is ready made, as often as asked.
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

/// Answers, whatever was asked.
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
