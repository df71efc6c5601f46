//! Notifies the service manager that the daemon is ready, reloads its configuration, stops, and is alive.
//!
//! Messages of `sd_notify(3)` are written out here, because the crates for it do not support abstract sockets.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::warn;

use crate::sys;

/// Maximum time to wait while the manager's queue is full, because the host is starting or the manager reloads. Without
/// [`Manager::ready`] the start fails in the end.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same for [`Manager::stopping`]: the daemon stops quickly, and its end says the same.
const STOP_PATIENCE: Duration = Duration::from_millis(250);

/// The service manager, if it asked for notifications.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// Connects to the manager that the environment names. If that fails, logs a warning, and nothing is sent.
    #[must_use]
    pub fn from_environment() -> Self {
        let watchdog = sd_notify::watchdog_enabled().filter(|time| !time.is_zero());
        let manager = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            Self::at(&name, watchdog)
                .inspect_err(|error| warn!(%error, "cannot reach the service manager at {name:?}"))
                .ok()
        });
        manager.unwrap_or_default()
    }

    /// Connects to the manager at a socket: a path, or @ and the name of an abstract socket. `watchdog` is how long it
    /// waits for signs of life, if it does.
    pub(crate) fn at(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A manager that does not read must not stop the daemon.
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: Some(socket),
            watchdog,
        })
    }

    /// How long the manager waits for [`Manager::alive`] before it takes the daemon for hung.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Reports that the daemon works, or works again after a reload; `status` is a line for people. May block for some
    /// seconds, like [`Manager::reloading`].
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}\n"), PATIENCE);
    }

    /// Reports that the configuration is being reloaded, until [`Manager::ready`] is called.
    pub fn reloading(&self) {
        let now = sys::now_ns() / 1000;
        let state = format!("RELOADING=1\nMONOTONIC_USEC={now}\n");
        self.send(&state, PATIENCE);
    }

    /// Reports that the daemon is about to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1\n", STOP_PATIENCE);
    }

    /// Reports that the daemon works, if the manager has a watchdog.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            // The next one follows soon.
            self.send("WATCHDOG=1\n", Duration::ZERO);
        }
    }

    /// Sends a message, which is lost if the manager's queue stays full for so long.
    fn send(&self, state: &str, patience: Duration) {
        let Some(socket) = &self.socket else {
            return;
        };
        let until = Instant::now() + patience;
        while let Err(error) = socket.send(state.as_bytes()) {
            let left = until.saturating_duration_since(Instant::now());
            if error.kind() != io::ErrorKind::WouldBlock || left.is_zero() {
                return warn!(%error, "cannot tell the service manager {state:?}");
            }
            let mut writable = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            // If a signal interrupts it, the message is sent again all the same.
            let _ = poll(&mut writable, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 1000];
        socket.set_nonblocking(true).unwrap();
        let length = socket.recv(&mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// The socket of a manager, and its path in a folder that must live as long.
    fn listening() -> (tempfile::TempDir, std::path::PathBuf, UnixDatagram) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        (folder, path, socket)
    }

    #[test]
    fn a_manager_receives_each_state() {
        let (_folder, path, socket) = listening();
        let manager = |watchdog| Manager::at(path.as_os_str(), watchdog).unwrap();
        manager(None).ready("plan fentry");
        assert_eq!(received(&socket), "READY=1\nSTATUS=plan fentry\n");
        manager(None).alive();
        assert_eq!(received(&socket), "", "no sign of life is given unasked");
        manager(Some(Duration::from_secs(60))).alive();
        assert_eq!(received(&socket), "WATCHDOG=1\n");
    }

    #[test]
    fn a_reload_has_the_time_at_which_it_began() {
        let (_folder, path, socket) = listening();
        let uptime = || {
            let text = std::fs::read_to_string("/proc/uptime").unwrap();
            text.split(' ').next().unwrap().parse::<f64>().unwrap()
        };
        let before = uptime();
        Manager::at(path.as_os_str(), None).unwrap().reloading();
        let after = uptime();
        let text = received(&socket);
        let time = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        let seconds: f64 = time.trim_end().parse::<f64>().unwrap() / 1e6;
        // The uptime is given in hundredths, and includes time asleep.
        assert!(
            seconds > 0.0 && seconds < after + 0.01,
            "{seconds}, uptime {before} to {after}"
        );
    }

    #[test]
    fn an_abstract_socket_is_named_after_an_at_sign() {
        let name = format!("linger-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Manager::at(format!("@{name}").as_ref(), None)
            .unwrap()
            .stopping();
        assert_eq!(received(&socket), "STOPPING=1\n");
    }

    /// Fills the queue of a socket. Returns the number of messages.
    fn fill(path: &std::path::Path) -> usize {
        let socket = UnixDatagram::unbound().unwrap();
        socket.set_nonblocking(true).unwrap();
        (0..1_000_000)
            .take_while(|_| socket.send_to(b"x", path).is_ok())
            .count()
    }

    #[test]
    fn a_manager_with_a_full_queue_learns_that_the_daemon_is_ready() {
        let (_folder, path, socket) = listening();
        let manager = Manager::at(path.as_os_str(), Some(PATIENCE)).unwrap();
        let before = fill(&path);
        manager.alive();
        let reading = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            (0..before).for_each(|_| assert_eq!(received(&socket), "x"));
            socket
        });
        manager.ready("");
        let socket = reading.join().unwrap();
        assert_eq!(received(&socket), "READY=1\nSTATUS=\n");
        fill(&path);
        // Returns although nobody reads.
        manager.stopping();
    }

    #[test]
    fn a_missing_manager_is_an_error_and_one_that_went_away_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        assert!(Manager::at(path.as_os_str(), None).is_err());
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::at(path.as_os_str(), None).unwrap();
        drop(socket);
        manager.ready("");
    }
}
