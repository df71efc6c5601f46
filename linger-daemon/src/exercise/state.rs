//! The kernel's own numbers about sockets, and waits for them.
//!
//! Nothing here guesses a time: every helper waits until the kernel itself reports the state.

use std::io;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use nix::errno::Errno;
use nix::libc;
use socket2::Socket;

/// Maximum time to wait for a state before it counts as an error.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two reads of the kernel's state.
const PAUSE: Duration = Duration::from_micros(100);

/// States of a TCP socket, with the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TcpState {
    /// Open in both directions.
    Established = 1,
    /// Connecting.
    SynSent = 2,
    /// Being connected.
    SynRecv = 3,
    /// Our FIN is on its way.
    FinWait1 = 4,
    /// Our FIN is acknowledged, the peer's is awaited.
    FinWait2 = 5,
    /// Both FINs are done; never seen through a descriptor.
    TimeWait = 6,
    /// No connection.
    Close = 7,
    /// The peer's FIN has come.
    CloseWait = 8,
    /// The peer's FIN has come, ours is on its way.
    LastAck = 9,
    /// Listening.
    Listen = 10,
    /// Both FINs crossed.
    Closing = 11,
}

impl TcpState {
    /// The state with this number.
    pub fn from_number(number: u8) -> io::Result<Self> {
        Self::value_variants()
            .iter()
            .copied()
            .find(|state| *state as u8 == number)
            .ok_or_else(|| io::Error::other(format!("unknown TCP state {number}")))
    }

    /// Whether the send queue may end with a FIN of ours.
    #[must_use]
    pub fn sent_fin(self) -> bool {
        matches!(self, Self::FinWait1 | Self::Closing | Self::LastAck)
    }
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
    if state.sent_fin() && outstanding > 0 {
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
    TcpState::from_number(info(socket)?.tcpi_state)
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
    wait_for(&what, || Ok(state(socket)? == wanted))
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
    wait_for(&what, || port_is_in(port, |state| state == wanted))
}

/// Waits until the FIN of the socket with this local port, and all before it, is acknowledged, or
/// the socket is gone. IPv4 only.
pub fn wait_for_end_of_orphan(port: u16) -> io::Result<()> {
    let what = format!("the orphan of port {port} to end");
    wait_for(&what, || Ok(!port_is_in(port, TcpState::sent_fin)?))
}

/// Whether any socket with this local port is in such a state.
fn port_is_in(port: u16, such: impl Fn(TcpState) -> bool) -> io::Result<bool> {
    let local = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp")?;
    Ok(table.lines().skip(1).any(|line| {
        // Columns: number of the line, local address, remote address, state.
        let mut columns = line.split_ascii_whitespace().skip(1);
        let is_local = columns
            .next()
            .is_some_and(|address| address.ends_with(&local));
        let state = columns.nth(1).map(|state| u8::from_str_radix(state, 16));
        let state = state.and_then(|number| TcpState::from_number(number.ok()?).ok());
        is_local && state.is_some_and(&such)
    }))
}
