//! The floor: programs that only count, on the same hooks as a plan of lingerd.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use linger_xtask::shell::command;

use super::process::Process;
use super::ways::Watcher;

/// The programs, attached.
pub(super) struct Floor {
    process: Process,
    says: BufReader<ChildStdout>,
    made: u64,
}

impl Floor {
    /// Attaches those of a plan, and waits until they are.
    pub(super) fn start(floor: &Path, plan: &str) -> Result<Self> {
        let mut process = Process::start(
            command(floor)
                .arg(plan)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        )?;
        let says = process.child().stdout.take().context("its output")?;
        let mut floor = Self {
            process,
            says: BufReader::new(says),
            made: 0,
        };
        match floor.line()?.as_str() {
            "attached" => Ok(floor),
            other => bail!("the floor cannot be attached {other}"),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Watcher for Floor {
    fn cpu_time(&mut self) -> Result<Duration> {
        self.process.cpu_time()
    }

    fn check(&mut self, connections: u64, _orphans: u64) -> Result<()> {
        self.made = connections;
        Ok(())
    }

    fn stop(mut self: Box<Self>) -> Result<()> {
        // The end of its input ends it.
        drop(self.process.child().stdin.take());
        let runs: u64 = self.line()?.parse().context("it counts its runs")?;
        if runs < self.made {
            bail!(
                "{} connections were closed, and it ran {runs} times",
                self.made
            );
        }
        let status = self.process.wait()?;
        if !status.success() {
            bail!("it ended with {status}");
        }
        Ok(())
    }
}
