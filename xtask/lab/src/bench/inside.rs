//! Counts instructions inside a machine whose clock ticks once for each.

pub(super) mod closes;
pub(super) mod cpus;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use linger_testkit::http::Poll;
use serde::{Deserialize, Serialize};

use super::bpftool::programs;

/// Time limit of a start, by the machine's clock, which advances only with instructions.
const READY: Duration = Duration::from_secs(120);
/// The address that lingerd listens on.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9990);

/// What is to be counted, and where to leave it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Where to leave what was counted
    #[arg(long)]
    report: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// What is added to a close
    Closes(closes::Options),
    /// What scrapes and closing threads take on this number of CPUs
    Cpus(cpus::Options),
}

/// Counts, and writes the counts to a file.
pub(crate) fn run(options: &Options) -> Result<()> {
    let found = match &options.what {
        What::Closes(what) => serde_json::to_string(&closes::run(what)?)?,
        What::Cpus(what) => serde_json::to_string(&cpus::run(what)?)?,
    };
    Ok(fs::write(&options.report, found)?)
}

/// The program attached while counting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Who {
    /// Nothing is attached.
    Nobody,
    /// Programs that only count their runs, on the hooks of a plan.
    Floor(String),
    /// lingerd by a plan.
    Lingerd(String),
    /// Another tool.
    Peer(String),
}

impl Who {
    /// Returns the program to run; `None` if nothing is attached.
    fn command(&self) -> Option<Command> {
        let mut command;
        match self {
            Self::Nobody => return None,
            Self::Floor(plan) => {
                command = Command::new("floor");
                command.arg(plan).stdin(Stdio::piped());
                command.stdout(Stdio::piped());
            }
            Self::Lingerd(plan) => {
                command = Command::new("lingerd");
                command.args(["run", "--plan", plan, "--listen", &ADDRESS.to_string()]);
                command.stdout(Stdio::null());
            }
            Self::Peer(name) => {
                command = Command::new(name);
                command.stdout(Stdio::null());
            }
        }
        Some(command)
    }
}

/// An attached program.
struct Attached(Option<Child>);

impl Attached {
    fn start(who: &Who) -> Result<Self> {
        let child = who
            .command()
            .map(|command| start(who, command, Path::new("/tmp/log")));
        Ok(Self(child.transpose()?))
    }

    fn stop(self) -> Result<()> {
        if let Some(mut child) = self.0 {
            child.kill()?;
            child.wait()?;
        }
        // The kernel frees BPF programs some time after their last reference is gone.
        let start = Instant::now();
        while !programs()?.is_empty() && start.elapsed() < READY {
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// Starts a program, with its stderr in a file, and waits until it is attached.
fn start(who: &Who, mut command: Command, log: &Path) -> Result<Child> {
    command.stderr(File::create(log)?);
    let mut child = command.spawn().with_context(|| format!("start {who:?}"))?;
    let start = Instant::now();
    let mut readiness = Poll::new(ADDRESS, "/readyz");
    while !is_ready(who, &mut child, &mut readiness)? {
        if let Some(status) = child.try_wait()? {
            bail!("{who:?} ended ({status}): {}", fs::read_to_string(log)?);
        }
        if start.elapsed() > READY {
            child.kill()?;
            bail!("{who:?} was not ready after {READY:?}");
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(child)
}

fn is_ready(who: &Who, child: &mut Child, lingerd: &mut Poll) -> Result<bool> {
    match who {
        Who::Nobody => Ok(true),
        Who::Floor(_) => {
            let output = child.stdout.as_mut().context("the output is a pipe")?;
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line)?;
            Ok(line.trim_end() == "attached")
        }
        Who::Lingerd(_) => Ok(lingerd.is_ready()),
        // A peer does not report that it is attached. It attaches its BPF programs soon after they are loaded.
        Who::Peer(_) => {
            let loaded = !programs()?.is_empty();
            if loaded {
                thread::sleep(Duration::from_secs(2));
            }
            Ok(loaded)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_start_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such hook >&2; exit 3"]);
        command.stdout(Stdio::piped());
        let floor = Who::Floor("fentry".into());
        let error = start(&floor, command, &folder.path().join("log")).unwrap_err();
        assert!(error.to_string().contains("no such hook"), "{error}");
    }
}
