//! Checks that the end of a connection reaches the hooks of a plan: functions in the kernel's types may be
//! inlined at their callers.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::PerCpuArray;
use linger_ebpf::program_index;
use socket2::{Domain, SockRef, Socket, Type};

use super::hooks::{Hook, Point};
use super::traits::{V4_ANSWER, V6_ANSWER};
use crate::sys::set_linger2;

/// Maximum time to wait for packets over loopback: usually they have arrived once they are sent.
const PATIENCE: Duration = Duration::from_millis(100);

/// Number of connections to end before a hook counts as unreached.
const ATTEMPTS: u32 = 10;

/// Ends connections while programs of the object `FLOOR` are attached to these hooks. Returns the first hook whose
/// program did not run, if any. Fails if no connection can be made.
pub(super) fn first_unreached(ebpf: &Ebpf, hooks: &[Hook]) -> io::Result<Option<Hook>> {
    let runs = ebpf.map("RUNS").ok_or(io::ErrorKind::NotFound)?;
    let runs = PerCpuArray::<_, u64>::try_from(runs).map_err(io::Error::other)?;
    let has_run = |hook: &Hook| -> io::Result<bool> {
        let index = program_index(hook.program).ok_or(io::ErrorKind::NotFound)?;
        let runs = runs.get(&index, 0).map_err(io::Error::other)?;
        Ok(runs.iter().any(|runs| *runs > 0))
    };
    let first = |refused: &[_]| {
        for hook in hooks {
            if is_of_connections(hook, refused) && !has_run(hook)? {
                return Ok(Some(*hook));
            }
        }
        io::Result::Ok(None)
    };
    let is_of_answers = |hook: &Hook| matches!(hook.point.function(), Some(V4_ANSWER | V6_ANSWER));
    let are_answers_hooked = hooks.iter().any(is_of_answers);
    let mut refused = Vec::new();
    for _ in 0..ATTEMPTS {
        end_connections()?;
        if are_answers_hooked {
            refused = be_refused();
        }
        if first(&refused)?.is_none() {
            return Ok(None);
        }
        sleep(PATIENCE);
    }
    first(&refused)
}

/// Whether the connections must reach this hook, of which these answers were `refused`: others are reached by exiting
/// processes, or run by the daemon.
fn is_of_connections(hook: &Hook, refused: &[&str]) -> bool {
    match hook.point.function() {
        Some(answer @ (V4_ANSWER | V6_ANSWER)) => refused.contains(&answer),
        _ => !matches!(
            hook.point,
            Point::OnDemand | Point::RawTracepoint("exit_mmap")
        ),
    }
}

/// Connects to ports without a listener. Returns the functions that answered with an RST, by protocol: a host may lack
/// one of these.
fn be_refused() -> Vec<&'static str> {
    let by = |address: IpAddr| -> io::Result<bool> {
        // Bound but not listening, so that nothing else takes the port.
        let socket = Socket::new(Domain::for_address((address, 0).into()), Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((address, 0)).into())?;
        let bound = socket.local_addr()?.as_socket();
        let bound = bound.ok_or(io::ErrorKind::Unsupported)?;
        let error = TcpStream::connect_timeout(&bound, PATIENCE).err();
        Ok(error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
    };
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    let answers = [(V4_ANSWER, v4), (V6_ANSWER, v6)].into_iter();
    let refused = answers.filter(|(_, address)| by(*address).unwrap_or(false));
    refused.map(|(function, _)| function).collect()
}

/// Makes connections on loopback and closes them. One is aborted from the other side: this reaches the close, the timer of
/// the orphan, the RST sent, the RST received, and the end of both sockets. The other ends with both FINs acknowledged.
fn end_connections() -> io::Result<()> {
    let by = |address: IpAddr| {
        let listener = TcpListener::bind((address, 0))?;
        SockRef::from(&listener).set_read_timeout(Some(PATIENCE))?;
        let (client, server) = connection_shut_down(&listener)?;
        // The timer is used only if the wait for the server's own FIN may exceed TCP_TIMEWAIT_LEN.
        set_linger2(&client, 2 * TIMEWAIT_SECONDS)?;
        drop(client);
        SockRef::from(&server).set_linger(Some(Duration::ZERO))?;
        drop(server);
        connection_shut_down(&listener).map(drop)
    };
    by(Ipv4Addr::LOCALHOST.into())
        .or_else(|error| by(Ipv6Addr::LOCALHOST.into()).map_err(|_| error))
}

/// A connection of which the client has sent its FIN, and received data that acknowledges it.
fn connection_shut_down(listener: &TcpListener) -> io::Result<(TcpStream, TcpStream)> {
    let mut client = TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)?;
    client.set_read_timeout(Some(PATIENCE))?;
    let (mut server, _) = listener.accept()?;
    client.shutdown(Shutdown::Write)?;
    server.write_all(&[0])?;
    client.read_exact(&mut [0])?;
    Ok((client, server))
}

/// `TCP_TIMEWAIT_LEN` (include/net/tcp.h).
const TIMEWAIT_SECONDS: i32 = 60;
