//! Programs that serve for as long as something lasts.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::http::Poll;

/// How long a start may take.
pub const START: Duration = Duration::from_secs(180);
/// How long an end may take before it is forced.
const END: Duration = Duration::from_secs(10);
/// How often a start is tried.
const TRIES: u32 = 3;
/// Pause between two looks at what goes on.
pub const PAUSE: Duration = Duration::from_millis(200);

/// A program that is to run until all ends.
pub struct Server {
    name: &'static str,
    process: Child,
}

impl Server {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// There is no such program.
    pub fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let process = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { name, process })
    }

    /// Starts it at an address on loopback that it is given, and waits until it answers this path there.
    ///
    /// # Errors
    ///
    /// It does not start, or ends or does not answer in time.
    pub fn start_somewhere(
        name: &'static str,
        command: impl Fn(SocketAddr) -> Result<Command>,
        ready: &str,
    ) -> Result<(Self, SocketAddr)> {
        for _ in 0..TRIES {
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            let mut server = Self::start(name, &mut command(address)?)?;
            // Another program may be given the same port meanwhile: then it ends.
            if server.wait_until_ready(address, ready)? {
                return Ok((server, address));
            }
        }
        bail!("{name} ends before it is ready")
    }

    /// Sees that it still runs.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            Some(status) => bail!("{} ended: {status}", self.name),
            None => Ok(()),
        }
    }

    /// Waits until it answers this path; not if it ends.
    fn wait_until_ready(&mut self, address: SocketAddr, path: &str) -> Result<bool> {
        let start = Instant::now();
        let mut readiness = Poll::new(address, path);
        while !readiness.is_ready() {
            ensure!(
                start.elapsed() < START,
                "nothing answers at http://{address}{path}"
            );
            if self.process.try_wait()?.is_some() {
                return Ok(false);
            }
            thread::sleep(PAUSE);
        }
        Ok(true)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let id = i32::try_from(self.process.id()).map(Pid::from_raw);
        // Whoever has ended by itself cannot be asked to.
        let asked = id.is_ok_and(|id| kill(id, Signal::SIGTERM).is_ok());
        let start = Instant::now();
        while asked && start.elapsed() < END && matches!(self.process.try_wait(), Ok(None)) {
            thread::sleep(PAUSE);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
