//! The Python server of the tests, as a process of any unit.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command};

use anyhow::{Context as _, Result, ensure};

use crate::tools::{run, wait_for};

/// Folder shared by the server and its clients, writable by everyone, like /tmp.
const FOLDER: &str = "/run/linger-test";
const PROGRAM: &str = "/run/linger-test/server.py";
/// Units that differ only in their name.
const SERVICES: [&str; 3] = ["py-web.service", "web@.service", "gone.service"];
/// The user whose manager runs units, too.
const USER: &str = "someone";
const UID: u32 = 1000;

/// Installs the program and its services, and starts the user's manager.
pub(crate) fn install() -> Result<()> {
    fs::create_dir_all(FOLDER)?;
    fs::set_permissions(FOLDER, Permissions::from_mode(0o1777))?;
    fs::write(PROGRAM, include_str!("server.py"))?;
    fs::create_dir_all("/run/systemd/system")?;
    for name in SERVICES {
        let unit = Path::new("/run/systemd/system").join(name);
        fs::write(unit, include_str!("server.service"))?;
    }
    run(&["systemctl", "daemon-reload"])?;
    run(&["loginctl", "enable-linger", USER])?;
    run(&["systemctl", "start", &format!("user@{UID}.service")])?;
    Ok(())
}

/// A server, stopped when dropped.
pub(crate) struct Server {
    unit: String,
    port: u16,
    /// The systemctl command, up to its arguments.
    systemctl: Vec<String>,
    /// The process, where it is a child of this one.
    process: Option<Child>,
}

impl Server {
    /// Starts a service of the system.
    pub(crate) fn of_system(unit: &str) -> Result<Self> {
        let systemctl = vec!["systemctl".to_owned()];
        let start = [&systemctl[..], &["start".into(), unit.into()]].concat();
        Self::start(unit, systemctl, || run(&start).map(|_| None))
    }

    /// Starts a transient service of the user's manager.
    pub(crate) fn of_user(unit: &str) -> Result<Self> {
        let command = transient(unit, "--service-type=exec");
        Self::start(unit, as_user(&["systemctl", "--user"]), || {
            run(&command).map(|_| None)
        })
    }

    /// Starts it as a process of the user, in a scope.
    pub(crate) fn in_scope(unit: &str) -> Result<Self> {
        let command = transient(unit, "--scope");
        Self::start(unit, as_user(&["systemctl", "--user"]), || {
            // The command becomes the server.
            let (program, arguments) = command.split_first().context("an empty command")?;
            Ok(Some(Command::new(program).args(arguments).spawn()?))
        })
    }

    fn start(
        unit: &str,
        systemctl: Vec<String>,
        begin: impl FnOnce() -> Result<Option<Child>>,
    ) -> Result<Self> {
        let file = port_file(unit);
        if Path::new(&file).exists() {
            fs::remove_file(&file)?;
        }
        let mut server = Self {
            unit: unit.to_owned(),
            port: 0,
            systemctl,
            process: begin()?,
        };
        server.port = wait_for(&format!("{unit} to listen"), || {
            fs::read_to_string(&file).ok()?.parse().ok()
        })?;
        Ok(server)
    }

    /// Makes `times` requests, one after another, each over its own connection.
    pub(crate) fn ask(&self, path: &str, times: u64) -> Result<()> {
        (0..times).try_for_each(|_| ask(self.port, path))
    }

    /// Stops it.
    pub(crate) fn stop(&mut self) -> Result<()> {
        run(&[&self.systemctl[..], &["stop".into(), self.unit.clone()]].concat())?;
        if let Some(mut process) = self.process.take() {
            process.wait()?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A stopped unit may be gone; other errors show at a later start.
        let _ = self.stop();
    }
}

/// Returns the command that starts the server in a transient unit of the user's manager.
fn transient(unit: &str, kind: &str) -> Vec<String> {
    let (named, port) = (format!("--unit={unit}"), port_file(unit));
    let begin = ["systemd-run", "--user", "--quiet", kind, &named];
    as_user(&[&begin[..], &["/usr/bin/python3", PROGRAM, &port]].concat())
}

/// Returns the command as the user would run it after logging in.
fn as_user(words: &[&str]) -> Vec<String> {
    let runtime = format!("XDG_RUNTIME_DIR=/run/user/{UID}");
    let user = [
        "setpriv",
        &format!("--reuid={USER}"),
        &format!("--regid={USER}"),
        "--init-groups",
    ];
    let before = [&user[..], &["env", &runtime]].concat();
    let words = before.iter().chain(words);
    words.map(ToString::to_string).collect()
}

fn port_file(unit: &str) -> String {
    format!("{FOLDER}/{unit}.port")
}

/// Makes one request over a new connection, which the server closes.
pub(crate) fn ask(port: u16, path: &str) -> Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("connect to port {port}"))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => {
            let start = String::from_utf8_lossy(&answer[..answer.len().min(20)]).into_owned();
            ensure!(start.contains(" 200 OK"), "the answer begins {start:?}");
            Ok(())
        }
    }
}
