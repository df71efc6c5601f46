//! A lingerd that runs.

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

/// How long anything may take on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until this has a value, and otherwise fails with what is said then.
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

/// The process, and the folder with its socket, settings and log.
pub(crate) struct Lingerd {
    folder: TempDir,
    process: Child,
}

impl Lingerd {
    /// Starts one that serves at a port and a socket of its own, with these options besides.
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

    /// The file of settings by which it is found.
    pub(crate) fn settings(&self) -> PathBuf {
        self.folder.path().join("lingerd.toml")
    }

    /// The address that it got.
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

/// A file of settings by which no lingerd is found.
pub(crate) fn settings_of_none(folder: &Path) -> PathBuf {
    let file = folder.join("none.toml");
    let listen = format!("listen = \"unix:{}/none\"\n", folder.display());
    fs::write(&file, listen).unwrap();
    file
}
