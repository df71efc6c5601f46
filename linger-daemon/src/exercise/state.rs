//! The kernel's own numbers about sockets, and waits for them.
//!
//! Nothing here guesses a time: every helper waits until the kernel itself reports the state.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
/// The states of a TCP socket, with the kernel's numbers; no descriptor shows `TimeWait`.
pub use procfs::net::TcpState;
use procfs::net::{TcpNetEntries, TcpNetEntry};
use procfs::{FromReadSI as _, current_system_info};
use socket2::Socket;

/// Maximum time to wait for a state before it counts as an error.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two reads of the kernel's state.
const PAUSE: Duration = Duration::from_micros(100);

/// Whether the send queue of a socket in this state may end with a FIN of ours.
#[must_use]
pub fn sent_fin(state: &TcpState) -> bool {
    use TcpState::{Closing, FinWait1, LastAck};
    matches!(state, FinWait1 | Closing | LastAck)
}

/// Payload in the queues of a socket, bytes, as its owner can read it by ioctl(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Written, not sent.
    pub unsent: u64,
    /// Sent, not acknowledged.
    pub unacked: u64,
    /// Received, not read.
    pub unread: u64,
}

impl Queues {
    /// Payload that the peer has not acknowledged, sent or not.
    #[must_use]
    pub const fn outstanding(self) -> u64 {
        self.unsent + self.unacked
    }
}

mod ioctls {
    use nix::libc::{self, c_int};

    nix::ioctl_read_bad!(outq, libc::TIOCOUTQ, c_int);
    nix::ioctl_read_bad!(outq_not_sent, libc::SIOCOUTQNSD, c_int);
    nix::ioctl_read_bad!(inq, libc::FIONREAD, c_int);
}

type QueueIoctl = unsafe fn(libc::c_int, *mut libc::c_int) -> nix::Result<libc::c_int>;

fn queue_length(socket: &Socket, ioctl: QueueIoctl) -> io::Result<u64> {
    let mut bytes = 0;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and `bytes` is the one int
    // that these ioctls write.
    unsafe { ioctl(socket.as_raw_fd(), &raw mut bytes) }?;
    u64::try_from(bytes).map_err(|_| io::Error::other(format!("negative queue length {bytes}")))
}

/// The payload in the queues, without our FIN; zero for a listener.
pub fn queues(socket: &Socket) -> io::Result<Queues> {
    let state = state(socket)?;
    if state == TcpState::Listen {
        return Ok(Queues::default());
    }
    let outstanding = queue_length(socket, ioctls::outq)?;
    let mut unsent = queue_length(socket, ioctls::outq_not_sent)?;
    let mut unacked = outstanding.saturating_sub(unsent);
    if sent_fin(&state) && outstanding > 0 {
        *(if unsent > 0 {
            &mut unsent
        } else {
            &mut unacked
        }) -= 1;
    }
    Ok(Queues {
        unsent,
        unacked,
        unread: queue_length(socket, ioctls::inq)?,
    })
}

/// The kernel's `TCP_INFO`; fields that this kernel does not have read 0.
pub fn info(socket: &Socket) -> io::Result<libc::tcp_info> {
    // SAFETY: `tcp_info` consists of integers, for which zero bytes are a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes, the size of `info`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(info)
}

/// The state of the socket.
pub fn state(socket: &Socket) -> io::Result<TcpState> {
    state_of(info(socket)?.tcpi_state)
}

/// The state with this number.
pub fn state_of(number: u8) -> io::Result<TcpState> {
    TcpState::from_u8(number).ok_or_else(|| io::Error::other(format!("unknown TCP state {number}")))
}

/// Waits until `reached` returns true; `what` completes "waited for" in the error.
pub fn wait_for(what: &str, mut reached: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let start = Instant::now();
    while !reached()? {
        if start.elapsed() > PATIENCE {
            let message = format!("waited {} s for {what}", PATIENCE.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Waits until the socket is in the state.
pub fn wait_for_state(socket: &Socket, wanted: TcpState) -> io::Result<()> {
    let what = format!("the state {wanted:?}");
    wait_for(&what, move || Ok(state(socket)? == wanted))
}

/// Waits until `bytes` bytes are unread.
pub fn wait_for_unread(socket: &Socket, bytes: u64) -> io::Result<()> {
    let what = format!("{bytes} unread bytes");
    wait_for(&what, || Ok(queues(socket)?.unread == bytes))
}

/// Waits until the send queue has not changed for a while: then the tail loss probe, which may send new data, is over.
pub fn wait_for_rest(socket: &Socket) -> io::Result<()> {
    const REST: Duration = Duration::from_millis(30);
    let mut last = queues(socket)?;
    let mut since = Instant::now();
    wait_for("the send queue to rest", || {
        let now = queues(socket)?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        Ok(since.elapsed() > REST)
    })
}

/// Waits until the socket with this local port is in the state; it needs no descriptor. IPv4 only.
pub fn wait_for_port_state(port: u16, wanted: TcpState) -> io::Result<()> {
    let what = format!("port {port} to be in the state {wanted:?}");
    wait_for(&what, move || {
        Ok(states_of_port(port)?.any(|state| state == wanted))
    })
}

/// Waits until the FIN of the socket with this local port, and all before it, is acknowledged, or
/// the socket is gone. IPv4 only.
pub fn wait_for_end_of_orphan(port: u16) -> io::Result<()> {
    let what = format!("the orphan of port {port} to end");
    wait_for(&what, || {
        Ok(!states_of_port(port)?.any(|state| sent_fin(&state)))
    })
}

/// The states of all sockets with this local port, in the network namespace of this thread. IPv4 only.
pub fn states_of_port(port: u16) -> io::Result<impl Iterator<Item = TcpState>> {
    let local = sockets()?.filter(move |socket| socket.local_address.port() == port);
    Ok(local.map(|socket| socket.state))
}

/// All sockets of TCP in the network namespace of this thread. IPv4 only.
pub fn sockets() -> io::Result<impl Iterator<Item = TcpNetEntry>> {
    let file = File::open("/proc/thread-self/net/tcp")?;
    let table = TcpNetEntries::from_read(file, current_system_info());
    Ok(table.map_err(io::Error::other)?.0.into_iter())
}
