//! A running `lingerd watch`, as its users see it: a process and the lines that it writes.

use std::fs;
use std::io::{self, BufRead as _, BufReader, PipeReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use linger_daemon::event::{Close, End, WatchEvent};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::daemon::wait_until;

/// Longest time to attach, or for a line, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `lingerd watch`, killed when dropped.
pub(crate) struct Watching {
    process: Child,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
    told: Vec<WatchEvent>,
}

impl Watching {
    /// Starts it with these options, and waits until it watches.
    pub(crate) fn start(lingerd: &Path, options: &[&str]) -> Result<Self> {
        let (mut watching, stdout) = Self::start_unread(lingerd, options)?;
        let (out, lines) = channel();
        watching.lines = lines;
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The scenario may be over.
                let _ = out.send(line);
            }
        });
        Ok(watching)
    }

    /// As [`Watching::start`], without reading its lines.
    pub(crate) fn start_unread(lingerd: &Path, options: &[&str]) -> Result<(Self, ChildStdout)> {
        let mut process = Command::new(lingerd)
            .args(["watch", "--json"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("run {}", lingerd.display()))?;
        let stdout = process.stdout.take().context("its stdout is piped")?;
        let stderr = process.stderr.take().context("its stderr is piped")?;
        let mut stderr = BufReader::new(stderr);
        let mut errors = String::new();
        while !errors.contains("watching by") {
            let length = stderr.read_line(&mut errors)?;
            ensure!(length > 0, "lingerd watch ended: {errors}");
        }
        let errors = thread::spawn(move || {
            // Messages of lingerd are text.
            let _ = stderr.read_to_string(&mut errors);
            errors
        });
        let watching = Self {
            process,
            lines: channel().1,
            errors: Some(errors),
            told: Vec::new(),
        };
        Ok((watching, stdout))
    }

    /// As [`Watching::start_unread`], with stderr in the same pipe as its lines. Returns the reader of both.
    pub(crate) fn start_joined(
        lingerd: &Path,
        options: &[&str],
    ) -> Result<(Self, BufReader<PipeReader>)> {
        let (reader, writer) = io::pipe()?;
        let process = Command::new(lingerd)
            .arg("watch")
            .args(options)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()
            .with_context(|| format!("run {}", lingerd.display()))?;
        let watching = Self {
            process,
            lines: channel().1,
            errors: Some(thread::spawn(String::new)),
            told: Vec::new(),
        };
        let mut reader = BufReader::new(reader);
        let mut text = String::new();
        while !text.contains("watching by") {
            let length = reader.read_line(&mut text)?;
            ensure!(length > 0, "lingerd watch ended: {text}");
        }
        Ok((watching, reader))
    }

    /// Waits for its end, whether or not its lines are read.
    pub(crate) fn expect_end(&mut self) -> Result<()> {
        wait_until("the end of lingerd watch", || self.has_ended())
    }

    /// Returns whether it has ended.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_some())
    }

    /// Returns its process ID.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Expects its threads to have no capabilities but these, by number, and `CAP_BPF` where reading maps needs it.
    pub(crate) fn expect_capabilities(&self, most: &[u32]) -> Result<()> {
        const CAP_BPF: u32 = 39;
        let most = most
            .iter()
            .fold(1 << CAP_BPF, |all, one| all | 1_u64 << one);
        for task in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
            let has = u64::from_str_radix(line.context("CapPrm")?.trim(), 16)?;
            ensure!(
                has & !most == 0,
                "capabilities {has:#x}, expected {most:#x}"
            );
        }
        Ok(())
    }

    /// Reads lines until the events so far are as they should be; they must then stay so for a while.
    pub(crate) fn expect(&mut self, wrong: impl Fn(&[WatchEvent]) -> Result<()>) -> Result<()> {
        const STAYS: Duration = Duration::from_millis(300);
        let begun = Instant::now();
        loop {
            let result = wrong(&self.told);
            let patience = match &result {
                Ok(()) => STAYS,
                Err(_) => PATIENCE.saturating_sub(begun.elapsed()),
            };
            match self.lines.recv_timeout(patience) {
                Ok(line) => self.told.push(serde_json::from_str(&line)?),
                Err(_) if result.is_ok() => return Ok(()),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return result,
            }
        }
    }

    /// Returns all events so far.
    pub(crate) fn told(&self) -> &[WatchEvent] {
        &self.told
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(
            Pid::from_raw(self.process.id().cast_signed()),
            signal,
        )?)
    }

    /// Waits for its end. Returns its exit status, all events, and what it wrote to stderr.
    pub(crate) fn end(mut self) -> Result<(ExitStatus, Vec<WatchEvent>, String)> {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.told.push(serde_json::from_str(&line)?);
        }
        let status = self.process.wait()?;
        let told = std::mem::take(&mut self.told);
        let errors = self.errors.take().context("it has ended before")?;
        let errors = errors.join();
        let errors = errors.map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        Ok((status, told, errors))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // After its end the process is gone; that is no error.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the closes among the events.
pub(crate) fn closes(told: &[WatchEvent]) -> impl Iterator<Item = &Close> {
    told.iter().filter_map(|told| match told {
        WatchEvent::Close(close) => Some(close),
        WatchEvent::Orphan(_) | WatchEvent::Correction(_) => None,
    })
}

/// Returns the ends of orphans among the events.
pub(crate) fn ends(told: &[WatchEvent]) -> impl Iterator<Item = &End> {
    told.iter().filter_map(|told| match told {
        WatchEvent::Orphan(end) => Some(end),
        WatchEvent::Close(_) | WatchEvent::Correction(_) => None,
    })
}
