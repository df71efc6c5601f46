//! Programs that serve until the test is done with them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::http;

/// How long a start may take, on a slow machine.
const START: Duration = Duration::from_secs(120);

/// A program; ended when dropped.
pub(crate) struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts a program, which is to serve at the address that it is given, and waits until it answers `ready`.
    pub(crate) fn start(command: impl Fn(SocketAddr) -> Command, ready: &str) -> Self {
        // Another program may be given the same port meanwhile.
        let mut tries = (0..3).filter_map(|_| Self::try_start(&command, ready));
        tries.next().expect("the program ends before it is ready")
    }

    fn try_start(command: &impl Fn(SocketAddr) -> Command, ready: &str) -> Option<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut command = command(address);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let process = process.unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let mut server = Self { process, address };
        let start = Instant::now();
        while !matches!(http::get(address, ready), Ok((200, _))) {
            if server.process.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(start.elapsed() < START, "{command:?} does not get ready");
            thread::sleep(Duration::from_millis(50));
        }
        Some(server)
    }

    /// Where it serves.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing of it is to be kept. It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
