//! A running lingerd.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::LINGERD;

/// Longest time for anything, on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `value` returns one; fails with the message of `or` otherwise.
pub(crate) fn eventually<T>(mut value: impl FnMut() -> Option<T>, or: impl Fn() -> String) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(started.elapsed() < PATIENCE, "{}", or());
        thread::sleep(Duration::from_millis(50));
    }
}

/// The process, and the folder with its socket, configuration and log.
pub(crate) struct Lingerd {
    folder: TempDir,
    process: Child,
}

impl Lingerd {
    /// Starts one that serves at its own port and socket, with these further options.
    pub(crate) fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = format!("unix:{}/socket", folder.path().display());
        fs::write(
            folder.path().join("lingerd.toml"),
            format!("listen = \"{socket}\"\n"),
        )
        .unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(LINGERD)
            .args(["run", "--listen", &socket, "--listen", "127.0.0.1:0"])
            .args(options)
            .env_remove("LINGER_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lingerd = Self { folder, process };
        eventually(
            || {
                let ended = lingerd.process.try_wait().unwrap();
                assert!(ended.is_none(), "{}", lingerd.log());
                lingerd.log().contains("127.0.0.1:").then_some(())
            },
            || "it does not serve".to_owned(),
        );
        lingerd
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Returns a configuration file with the address of its socket.
    pub(crate) fn settings(&self) -> PathBuf {
        self.folder.path().join("lingerd.toml")
    }

    /// Returns the TCP address that it got.
    pub(crate) fn address(&self) -> SocketAddr {
        let log = self.log();
        let (_, rest) = log.split_once("://127.0.0.1:").unwrap();
        let (port, _) = rest.split_once('/').unwrap();
        SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))
    }
}

impl Drop for Lingerd {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.process.id().try_into().unwrap());
        let _ = kill(pid, Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

/// Creates a configuration file with an address where no lingerd answers.
pub(crate) fn settings_of_none(folder: &Path) -> PathBuf {
    let file = folder.join("none.toml");
    let listen = format!("listen = \"unix:{}/none\"\n", folder.display());
    fs::write(&file, listen).unwrap();
    file
}
