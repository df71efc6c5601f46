//! Programs that serve for as long as something lasts, and asking them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a start may take.
pub(crate) const START: Duration = Duration::from_secs(60);
/// How long an end may take before it is forced.
const END: Duration = Duration::from_secs(10);
/// How often a start is tried.
const TRIES: u32 = 3;
/// Pause between two looks at what goes on.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(180);

/// A program that is to run until all ends.
pub(crate) struct Server {
    name: &'static str,
    process: Child,
}

impl Server {
    /// Starts it.
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let process = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { name, process })
    }

    /// Starts it at an address on loopback that it is given, and waits until it answers this path there.
    pub(crate) fn start_somewhere(
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

    /// Fails if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            Some(status) => bail!("{} ended: {status}", self.name),
            None => Ok(()),
        }
    }

    /// Waits until it answers this path; not if it ends.
    fn wait_until_ready(&mut self, address: SocketAddr, path: &str) -> Result<bool> {
        let start = Instant::now();
        while !is_ready(address, path) {
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

/// Whether a server answers this path with 200.
pub(crate) fn is_ready(address: SocketAddr, path: &str) -> bool {
    get(address, path).is_ok()
}

/// The body of what a server answers this path with, which must be with 200.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<String> {
    ask(address, "GET", path)
}

/// The same, of something to be done.
pub(crate) fn post(address: SocketAddr, path: &str) -> Result<String> {
    ask(address, "POST", path)
}

/// In the version of HTTP that has no chunks.
fn ask(address: SocketAddr, method: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, START)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => return Err(error.into()),
        _ => {}
    }
    let answer = String::from_utf8(answer).context("the answer is no text")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(
        status == "200",
        "http://{address}{path} answers {status}: {body}"
    );
    Ok(body.to_owned())
}
