//! A process that closes sockets on request, run from any copy of this program.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};
use linger_daemon::exercise::tcp;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pause};
use socket2::{SockRef, Socket};

/// How the process ends, with one connection still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Exits.
    Exit,
    /// Exits while it has many threads.
    ExitWithThreads,
    /// Waits to be killed.
    Wait,
    /// Exits after an `io_uring` worker has closed the connection.
    IoUring,
}

impl Way {
    const ALL: [Self; 4] = [Self::Exit, Self::ExitWithThreads, Self::Wait, Self::IoUring];

    fn name(self) -> String {
        format!("{self:?}")
    }
}

/// A running closer.
pub(crate) struct Closer {
    process: Child,
    way: Way,
    connection: TcpStream,
    listener: TcpListener,
}

/// Threads of [`Way::ExitWithThreads`].
const THREADS: usize = 16;

impl Closer {
    /// Runs `file` in the network namespace of the calling thread, with this name, in the cgroup whose `cgroup.procs`
    /// is `processes`, and waits until it is about to close.
    pub(crate) fn start(file: &Path, name: &str, way: Way, processes: &Path) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let process = Command::new(file)
            .args(["closer", &listener.local_addr()?.port().to_string()])
            .args([name, &way.name()])
            .arg(processes)
            .spawn()?;
        let (connection, _) = listener.accept()?;
        let mut closer = Self {
            process,
            way,
            connection,
            listener,
        };
        closer.wait_for_word()?;
        Ok(closer)
    }

    fn wait_for_word(&mut self) -> io::Result<()> {
        self.connection.read_exact(&mut [0])
    }

    /// Has it abort a connection and end with another one open: two closes, one `linger_aborted` and one `graceful`.
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.connection.write_all(b"g")?;
        drop(self.listener.accept()?);
        if self.way == Way::Wait {
            self.wait_for_word()?;
            let process = Pid::from_raw(self.process.id().cast_signed());
            kill(process, Signal::SIGKILL)?;
        }
        let status = self.process.wait()?;
        match (self.way, status.code()) {
            (Way::Wait, None) | (_, Some(0)) => Ok(()),
            _ => Err(io::Error::other(format!("a closer ended: {status}"))),
        }
    }
}

/// Exit code of a closer whose way to end is not possible here.
const NOT_RUN: i32 = 3;

/// Runs in the closer's process.
pub(crate) fn run(order: &[&str]) -> io::Result<()> {
    let &[port, name, way, processes] = order else {
        return Err(io::Error::other("usage: closer PORT NAME WAY PROCESSES"));
    };
    nix::sys::prctl::set_name(&CString::new(name)?)?;
    fs::write(processes, "0")?;
    let way = Way::ALL.into_iter().find(|known| known.name() == way);
    let port = port.parse().map_err(io::Error::other)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut kept = TcpStream::connect(address)?;
    kept.write_all(b"r")?;
    kept.read_exact(&mut [0])?;

    let aborted = TcpStream::connect(address)?;
    SockRef::from(&aborted).set_linger(Some(Duration::ZERO))?;
    tcp::close(Socket::from(aborted))?;
    match way {
        Some(Way::Wait) => {
            kept.write_all(b"k")?;
            loop {
                pause();
            }
        }
        Some(Way::ExitWithThreads) => {
            for _ in 0..THREADS {
                thread::spawn(|| {
                    loop {
                        pause();
                    }
                });
            }
        }
        Some(Way::IoUring) => close_by_worker(&kept)?,
        Some(Way::Exit) | None => {}
    }
    // Leave the connection to the kernel, rather than drop it.
    // SAFETY: ends the process.
    unsafe { libc::_exit(0) }
}

/// Has an `io_uring` worker close a connection.
fn close_by_worker(connection: &TcpStream) -> io::Result<()> {
    let Ok(mut ring) = IoUring::new(1) else {
        // SAFETY: ends the process.
        unsafe { libc::_exit(NOT_RUN) }
    };
    let close = opcode::Close::new(types::Fd(connection.as_raw_fd())).build();
    // SAFETY: the operation refers to no memory, and the descriptor stays open until it is done.
    unsafe {
        ring.submission()
            .push(&close.flags(squeue::Flags::ASYNC))
            .map_err(io::Error::other)?;
    }
    ring.submit_and_wait(1)?;
    let completion = ring.completion().next();
    let result = completion.map_or(-libc::EAGAIN, |completion| completion.result());
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    Ok(())
}
