//! Load: connections on loopback, made and closed one after another.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use socket2::SockRef;

/// Who accepts and closes the other end of the connections.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Server {
    /// The thread that connects: nothing waits for the scheduler, and every connection takes the
    /// same way through the kernel.
    SameThread,
    /// A thread of its own, as it usually is.
    OwnThread,
}

impl Server {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::SameThread, Self::OwnThread];
}

/// Makes connections for this long, one after another; how many a second.
#[expect(
    clippy::cast_precision_loss,
    reason = "a count of connections is far below 2^52"
)]
pub(crate) fn churn(time: Duration, server: Server) -> Result<f64> {
    let start = Instant::now();
    let made = connections(server, |_| start.elapsed() < time)?;
    Ok(made as f64 / start.elapsed().as_secs_f64())
}

/// Makes connections as long as `more`, asked with their number so far, says so; how many.
///
/// Each is aborted by its client with `SO_LINGER` 0, so that no port is left in `TIME_WAIT`, and
/// closed by its server.
pub(crate) fn connections(server: Server, mut more: impl FnMut(u64) -> bool) -> Result<u64> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
    let address = listener.local_addr()?;
    let mut made = 0;
    match server {
        Server::SameThread => {
            while more(made) {
                let client = connect(address)?;
                let accepted = listener.accept().context("accept on loopback")?;
                drop((client, accepted));
                made += 1;
            }
        }
        Server::OwnThread => thread::scope(|scope| {
            // So far ahead of the server, and no further: or its accept queue would overflow.
            let (promise, promised) = mpsc::sync_channel(64);
            scope.spawn(|| {
                for () in promised {
                    if listener.accept().is_err() {
                        break;
                    }
                }
            });
            while more(made) {
                promise.send(()).context("the accepting thread stopped")?;
                drop(connect(address)?);
                made += 1;
            }
            anyhow::Ok(())
        })?,
    }
    Ok(made)
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let client = TcpStream::connect(address).context("connect on loopback")?;
    SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_as_many_connections_as_asked_for() {
        for server in Server::ALL {
            assert_eq!(connections(server, |made| made < 200).unwrap(), 200);
        }
    }
}
