//! The floor: BPF programs that only count their runs, on the same hooks as a plan of lingerd.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use linger_xtask::shell::command;

use super::process::Process;
use super::ways::Watcher;

/// The attached programs.
pub(super) struct Floor {
    process: Process,
    stdout: BufReader<ChildStdout>,
    made: u64,
}

impl Floor {
    /// Attaches the programs for a plan, and waits until they are attached.
    pub(super) fn start(floor: &Path, plan: &str) -> Result<Self> {
        let mut process = Process::start(
            command(floor)
                .arg(plan)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        )?;
        let stdout = process.child().stdout.take().context("its output")?;
        let mut floor = Self {
            process,
            stdout: BufReader::new(stdout),
            made: 0,
        };
        match floor.line()?.as_str() {
            "attached" => Ok(floor),
            other => bail!("the floor cannot be attached {other}"),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
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
        // The process ends at the end of its input.
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
