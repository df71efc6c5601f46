//! The closes of each group in a measured ledger: a few, none of which waits.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockFilter, SockRef, Socket, Type};

use crate::churn::{self, Churn, MESSAGE, abort, connect};

/// The closes that a group makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mix {
    /// `graceful`, `linger_aborted`, `already_closed` and `listener`.
    Usual,
    /// Every outcome that needs no wait, and three fates.
    Everything,
}

impl Mix {
    /// Returns its name in tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Usual => "4 outcomes",
            Self::Everything => "9 outcomes, 3 fates",
        }
    }

    /// Makes the closes once.
    pub(super) fn perform(self) -> Result<()> {
        for churn in [Churn::Aborts, Churn::NothingLeft] {
            churn::connections(churn, |made| made < 1)?;
        }
        if self == Self::Usual {
            return Ok(());
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        unread_aborted(&listener)?;
        lingered(&listener)?;
        repaired(&listener)?;
        orphan_delivered(&listener)?;
        listener_closed(listener)?;
        connect_aborted()?;
        // The churn whose orphans end by the peer's RST.
        churn::connections(Churn::DataLeft, |made| made < 1)?;
        orphan_late_data()?;
        // Never connected.
        drop(Socket::new(Domain::IPV4, Type::STREAM, None)?);
        Ok(())
    }
}

/// Connects; returns the client's and the server's end.
fn pair(listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let client = connect(listener.local_addr()?)?;
    Ok((client, listener.accept()?.0))
}

fn unread_aborted(listener: &TcpListener) -> Result<()> {
    let (client, mut server) = pair(listener)?;
    server.write_all(&[b'x'; MESSAGE])?;
    // Waits until it has arrived.
    client.peek(&mut [0; MESSAGE])?;
    drop(client);
    Ok(())
}

fn lingered(listener: &TcpListener) -> Result<()> {
    let (client, server) = pair(listener)?;
    SockRef::from(&client).set_linger(Some(Duration::from_secs(1)))?;
    drop(client);
    abort(server)
}

fn repaired(listener: &TcpListener) -> Result<()> {
    let (client, server) = pair(listener)?;
    setsockopt(&client, sockopt::TcpRepair, &1)?;
    drop(client);
    abort(server)
}

/// Lets the peer read all data after the close.
fn orphan_delivered(listener: &TcpListener) -> Result<()> {
    let (client, mut server) = pair(listener)?;
    let written = fill(client)?;
    let mut text = Vec::new();
    let read = server.read_to_end(&mut text)?;
    if read != written {
        bail!("{written} bytes were written, {read} came");
    }
    Ok(())
}

/// Writes as much as possible without waiting, and closes. Returns the number of bytes written.
fn fill(mut client: TcpStream) -> Result<usize> {
    SockRef::from(&client).set_send_buffer_size(1 << 17)?;
    client.set_nonblocking(true)?;
    let mut written = 0;
    loop {
        match client.write(&[b'x'; 1 << 14]) {
            Ok(bytes) => written += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(written),
            Err(error) => return Err(error).context("write to loopback"),
        }
    }
}

/// Closes a listener with a connection in its accept queue, which is reset.
fn listener_closed(listener: TcpListener) -> Result<()> {
    let client = connect(listener.local_addr()?)?;
    drop((listener, client));
    Ok(())
}

/// Closes during a connect, which stays under way because the listener drops every segment.
fn connect_aborted() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let code = u16::try_from(nix::libc::BPF_RET | nix::libc::BPF_K)?;
    SockRef::from(&listener).attach_filter(&[SockFilter::new(code, 0, 0, 0)])?;
    let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    client.set_nonblocking(true)?;
    let address: SocketAddr = listener.local_addr()?;
    match client.connect(&address.into()) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => Ok(()),
        result => bail!("a connect to a deaf listener ended: {result:?}"),
    }
}

/// Closes with a message that the peer's filter drops, after which the peer sends data.
fn orphan_late_data() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    churn::drop_messages(&listener)?;
    let (mut client, mut server) = pair(&listener)?;
    client.write_all(&[b'x'; MESSAGE])?;
    drop(client);
    server.write_all(&[b'x'; MESSAGE])?;
    Ok(())
}
