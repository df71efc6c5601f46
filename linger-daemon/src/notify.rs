//! What the service manager is told: that the daemon is ready, reads its configuration again, stops,
//! and is alive.
//!
//! Messages are those of `sd_notify(3)`, written out: the crates for it know no abstract sockets.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::warn;

use crate::sys;

/// The service manager, if it asked for notifications.
#[derive(Debug)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// The manager that the environment names. If it cannot be reached, a warning is logged, and nothing is sent.
    #[must_use]
    pub fn from_environment() -> Self {
        let watchdog = sd_notify::watchdog_enabled().filter(|time| !time.is_zero());
        let manager = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            Self::at(&name, watchdog)
                .inspect_err(|error| warn!(%error, "cannot reach the service manager at {name:?}"))
                .ok()
        });
        manager.unwrap_or(Self {
            socket: None,
            watchdog: None,
        })
    }

    /// One that listens on a socket, the path of one, or @ and the name of an abstract one; and how
    /// long it waits for signs of life, if it does.
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

    /// The daemon does its work, or does it again; `status` is a line for people.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// The configuration is being read again, until [`Manager::ready`] is told.
    pub fn reloading(&self) {
        let now = sys::now_ns() / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}\n"));
    }

    /// The daemon is about to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\n");
    }

    /// The daemon does what it is there for.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            self.tell("WATCHDOG=1\n");
        }
    }

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            warn!(%error, "cannot tell the service manager {state:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 1000];
        socket.set_nonblocking(true).unwrap();
        let length = socket.recv(&mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// Where a manager listens, at this path in a folder that must live as long.
    fn listening() -> (tempfile::TempDir, std::path::PathBuf, UnixDatagram) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        (folder, path, socket)
    }

    #[test]
    fn a_manager_is_told_each_state() {
        let (_folder, path, socket) = listening();
        let manager = |watchdog| Manager::at(path.as_os_str(), watchdog).unwrap();
        manager(None).ready("plan fentry");
        assert_eq!(told(&socket), "READY=1\nSTATUS=plan fentry\n");
        manager(None).alive();
        assert_eq!(told(&socket), "", "no sign of life is given unasked");
        manager(Some(Duration::from_secs(60))).alive();
        assert_eq!(told(&socket), "WATCHDOG=1\n");
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
        let told = told(&socket);
        let time = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
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
        assert_eq!(told(&socket), "STOPPING=1\n");
    }

    #[test]
    fn a_manager_that_is_not_there_is_an_error_and_one_that_went_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        assert!(Manager::at(path.as_os_str(), None).is_err());
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::at(path.as_os_str(), None).unwrap();
        drop(socket);
        manager.ready("");
    }
}
