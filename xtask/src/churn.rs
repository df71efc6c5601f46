//! Load: connections on loopback, made and closed one after another.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use socket2::SockRef;

/// So many connections may wait to be accepted: well under the listener's backlog, for past it the
/// kernel drops SYNs and a connect takes a second.
const WAITING: u64 = 64;

/// Makes connections for this long, one after another; how many a second.
///
/// One thread connects and closes with `SO_LINGER` 0, so that no port is left in `TIME_WAIT`;
/// another accepts and closes.
#[expect(
    clippy::cast_precision_loss,
    reason = "a count of connections is far below 2^52"
)]
pub(crate) fn churn(time: Duration) -> Result<f64> {
    let start = Instant::now();
    let made = connections(|_| start.elapsed() < time)?;
    Ok(made as f64 / start.elapsed().as_secs_f64())
}

/// Makes connections as long as `more` says so, which is asked with their number; how many.
pub(crate) fn connections(mut more: impl FnMut(u64) -> bool) -> Result<u64> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
    let accepted = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Ends when the listener is shut down.
            while let Ok((stream, _)) = listener.accept() {
                drop(stream);
                accepted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut made = 0;
        let result = loop {
            if !more(made) {
                break Ok(made);
            }
            if let Err(error) = connect_and_abort(&listener) {
                break Err(error);
            }
            made += 1;
            while made - accepted.load(Ordering::Relaxed) > WAITING {
                thread::yield_now();
            }
        };
        SockRef::from(&listener).shutdown(std::net::Shutdown::Both)?;
        result
    })
}

fn connect_and_abort(listener: &TcpListener) -> Result<()> {
    let stream = TcpStream::connect(listener.local_addr()?).context("connect on loopback")?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_as_many_connections_as_asked_for() {
        assert_eq!(connections(|made| made < 200).unwrap(), 200);
    }
}
