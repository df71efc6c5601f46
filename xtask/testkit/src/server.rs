//! Server processes that are ended when dropped.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::http::Poll;

/// Time limit of a start.
pub const START: Duration = Duration::from_secs(180);
/// Time after SIGTERM until SIGKILL.
const END: Duration = Duration::from_secs(10);
/// Number of attempts to start.
const TRIES: u32 = 3;
/// Interval of polling.
pub const PAUSE: Duration = Duration::from_millis(200);

/// A server process, ended when dropped.
pub struct Server {
    name: &'static str,
    process: Child,
}

impl Server {
    /// Starts the process.
    ///
    /// # Errors
    ///
    /// If there is no such program.
    pub fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let process = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { name, process })
    }

    /// Starts a server at a free address on loopback, passed to `command`, and waits until it answers the path `ready`.
    ///
    /// # Errors
    ///
    /// If it does not start, ends, or does not answer in time.
    pub fn start_somewhere(
        name: &'static str,
        command: impl Fn(SocketAddr) -> Result<Command>,
        ready: &str,
    ) -> Result<(Self, SocketAddr)> {
        for _ in 0..TRIES {
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            let mut server = Self::start(name, &mut command(address)?)?;
            // It ends if another program has taken the port in the meantime.
            let is_running = || Ok(server.process.try_wait()?.is_none());
            if wait_until_ready(address, ready, is_running)? {
                return Ok((server, address));
            }
        }
        bail!("{name} ends before it is ready")
    }

    /// Checks that the process is still running.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            Some(status) => bail!("{} ended: {status}", self.name),
            None => Ok(()),
        }
    }
}

/// Waits until the status of this path is 200; returns false as soon as `goes_on` does.
///
/// # Errors
///
/// If the status is not 200 in time, or `goes_on` fails.
pub fn wait_until_ready(
    address: SocketAddr,
    path: &str,
    mut goes_on: impl FnMut() -> Result<bool>,
) -> Result<bool> {
    let start = Instant::now();
    let mut readiness = Poll::new(address, path);
    while !readiness.is_ready() {
        ensure!(
            start.elapsed() < START,
            "nothing answers at http://{address}{path}"
        );
        if !goes_on()? {
            return Ok(false);
        }
        thread::sleep(PAUSE);
    }
    Ok(true)
}

impl Drop for Server {
    fn drop(&mut self) {
        let is_running = |process: &mut Child| matches!(process.try_wait(), Ok(None));
        // Asked first, since the id of a process that has ended may be that of another by now.
        if is_running(&mut self.process)
            && let Ok(id) = i32::try_from(self.process.id())
        {
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        let start = Instant::now();
        while start.elapsed() < END && is_running(&mut self.process) {
            thread::sleep(PAUSE);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
