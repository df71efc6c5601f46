//! Load: connections on loopback, made and closed one after another.
//!
//! One end of each is closed with `SO_LINGER` 0, so that no port is left in `TIME_WAIT`: there are
//! not enough of them for a second.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::libc;
use socket2::{SockFilter, SockRef};

use crate::table::float;

/// Length of a message, where there are any, bytes.
pub(crate) const MESSAGE: usize = 100;

/// How the connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Churn {
    /// The client aborts; the server finds the connection closed. All by one thread: nothing waits
    /// for the scheduler, and every connection takes the same way through the kernel.
    Aborts,
    /// The same, with a thread of its own for the server, as it usually is.
    AbortsBetweenThreads,
    /// The client closes, with a FIN, after a message and its answer, with which the message was
    /// certainly acknowledged; the server aborts what is left of the connection. By one thread.
    NothingLeft,
    /// As `NothingLeft`, with `SO_LINGER` of a second: the close would wait, and finds all acknowledged.
    Lingers,
    /// The same, with a message that does not reach the server, which answers all the same: the
    /// close leaves the message to the kernel, and the server's abort loses it.
    DataLeft,
}

impl Churn {
    /// Every kind.
    pub(crate) const ALL: [Self; 4] = [
        Self::Aborts,
        Self::AbortsBetweenThreads,
        Self::NothingLeft,
        Self::DataLeft,
    ];

    /// What it is, in a table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Aborts => "aborts",
            Self::AbortsBetweenThreads => "aborts, two threads",
            Self::NothingLeft => "FIN, nothing left",
            Self::Lingers => "FIN, SO_LINGER 1 s",
            Self::DataLeft => "FIN, data left",
        }
    }

    /// Whether the scheduler has a say in how long a connection takes.
    pub(crate) const fn takes_two_threads(self) -> bool {
        matches!(self, Self::AbortsBetweenThreads)
    }

    /// Whether closes wait for the peer.
    pub(crate) const fn waits(self) -> bool {
        matches!(self, Self::Lingers)
    }

    /// Whether each connection makes an orphan.
    pub(crate) const fn leaves_data(self) -> bool {
        matches!(self, Self::DataLeft)
    }
}

/// What it took to make and close connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Churned {
    /// How many they were.
    pub(crate) made: u64,
    /// How long it took, seconds.
    pub(crate) seconds: f64,
    /// Microseconds for each, in the fastest tenth of batches: when the machine did nothing else.
    pub(crate) micros: f64,
}

impl Churned {
    /// Connections a second, over all the time.
    pub(crate) fn rate(&self) -> f64 {
        float(self.made) / self.seconds
    }
}

/// Connections that are timed together: less than a millisecond.
const BATCH: u64 = 32;

/// Makes connections for this long, one after another; or longer, until some can be timed.
pub(crate) fn churn(time: Duration, churn: Churn) -> Result<Churned> {
    let (start, mut batch) = (Instant::now(), Instant::now());
    let mut batches = Vec::new();
    let made = connections(churn, |made| {
        if made > 0 && made % BATCH == 0 {
            batches.push(batch.elapsed());
            batch = Instant::now();
        }
        start.elapsed() < time || batches.is_empty()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    batches.sort_unstable();
    let fast = batches.get(batches.len() / 10);
    let fast = fast.context("there was no time for connections")?;
    Ok(Churned {
        made,
        seconds,
        micros: fast.as_secs_f64() * 1e6 / float(BATCH),
    })
}

/// Makes connections as long as `more`, asked with their number so far, says so; how many.
pub(crate) fn connections(churn: Churn, more: impl FnMut(u64) -> bool) -> Result<u64> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
    match churn {
        Churn::Aborts => by_one_thread(&listener, more, |client, server| {
            abort(client)?;
            drop(server);
            Ok(())
        }),
        Churn::AbortsBetweenThreads => between_threads(&listener, more),
        Churn::NothingLeft | Churn::Lingers => {
            by_one_thread(&listener, more, |mut client, mut server| {
                if churn == Churn::Lingers {
                    SockRef::from(&client).set_linger(Some(Duration::from_secs(1)))?;
                }
                client.write_all(&[b'x'; MESSAGE])?;
                server.read_exact(&mut [0; MESSAGE])?;
                answer(&mut client, &mut server)?;
                drop(client);
                abort(server)
            })
        }
        Churn::DataLeft => {
            drop_messages(&listener)?;
            by_one_thread(&listener, more, |mut client, mut server| {
                client.write_all(&[b'x'; MESSAGE])?;
                answer(&mut client, &mut server)?;
                drop(client);
                abort(server)
            })
        }
    }
}

fn by_one_thread(
    listener: &TcpListener,
    mut more: impl FnMut(u64) -> bool,
    end: impl Fn(TcpStream, TcpStream) -> Result<()>,
) -> Result<u64> {
    let address = listener.local_addr()?;
    let mut made = 0;
    while more(made) {
        let client = connect(address)?;
        let (server, _) = listener.accept().context("accept on loopback")?;
        end(client, server)?;
        made += 1;
    }
    Ok(made)
}

fn between_threads(listener: &TcpListener, mut more: impl FnMut(u64) -> bool) -> Result<u64> {
    let address = listener.local_addr()?;
    let mut made = 0;
    thread::scope(|scope| {
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
            abort(connect(address)?)?;
            made += 1;
        }
        Ok(made)
    })
}

/// A connection to a listener on loopback.
pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream> {
    TcpStream::connect(address).context("connect on loopback")
}

/// Sends a message to the client, which carries the acknowledgement of all that has come.
fn answer(client: &mut TcpStream, server: &mut TcpStream) -> Result<()> {
    server.write_all(&[b'x'; MESSAGE])?;
    client.read_exact(&mut [0; MESSAGE])?;
    Ok(())
}

/// Closes with `SO_LINGER` 0.
pub(crate) fn abort(socket: TcpStream) -> Result<()> {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    drop(socket);
    Ok(())
}

/// Makes the connections that a listener accepts from now on deaf to messages, as if those were
/// lost on their way. Other segments, which are shorter, come through.
pub(crate) fn drop_messages(listener: &TcpListener) -> Result<()> {
    let instruction = |code, operand| SockFilter::new(code, 0, 1, operand);
    let length = u32::try_from(MESSAGE)?;
    let [load, is_no_less, end] = [
        libc::BPF_LD | libc::BPF_W | libc::BPF_LEN,
        libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    ]
    .map(u16::try_from);
    // What the filter sees begins with the TCP header, which is no longer than 60 bytes.
    SockRef::from(listener).attach_filter(&[
        instruction(load?, 0),
        instruction(is_no_less?, length),
        instruction(end?, 0),
        instruction(end?, u32::MAX),
    ])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_as_many_connections_as_asked_for() {
        for churn in Churn::ALL {
            assert_eq!(connections(churn, |made| made < 200).unwrap(), 200);
        }
    }
}
