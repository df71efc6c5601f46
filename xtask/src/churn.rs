//! Load: connections on loopback, made and closed one after another.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use socket2::SockRef;

/// Makes connections for this long, one after another; how many a second.
#[expect(
    clippy::cast_precision_loss,
    reason = "a count of connections is far below 2^52"
)]
pub(crate) fn churn(time: Duration) -> Result<f64> {
    let start = Instant::now();
    let made = connections(|_| start.elapsed() < time)?;
    Ok(made as f64 / start.elapsed().as_secs_f64())
}

/// Makes connections as long as `more`, asked with their number so far, says so; how many.
///
/// Each is aborted by its client with `SO_LINGER` 0, so that no port is left in `TIME_WAIT`, and
/// then closed by its server. One thread does both: nothing waits for the scheduler, and every
/// connection takes the same way through the kernel.
pub(crate) fn connections(mut more: impl FnMut(u64) -> bool) -> Result<u64> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
    let address = listener.local_addr()?;
    let mut made = 0;
    while more(made) {
        let client = TcpStream::connect(address).context("connect on loopback")?;
        let (server, _) = listener.accept().context("accept on loopback")?;
        SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
        drop(client);
        drop(server);
        made += 1;
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_as_many_connections_as_asked_for() {
        assert_eq!(connections(|made| made < 200).unwrap(), 200);
    }
}
