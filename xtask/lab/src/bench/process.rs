//! A measured process.

use std::fs;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Time limit of an end, after which any process counts as hung. lingerd promises to end within a second.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A process that is killed when dropped.
pub(super) struct Process(Child);

impl Process {
    /// Starts the process.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .spawn()
            .with_context(|| format!("start {program}"))?;
        Ok(Self(child))
    }

    /// Returns its id.
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Returns the process itself.
    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Returns its exit status, if it has ended.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// Returns the CPU time of all its threads, including those that have ended.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let clock = clock_getcpuclockid(self.pid()?).context("the clock of a process")?;
        Ok(clock_gettime(clock)?.into())
    }

    /// Returns the number of times that its threads went to sleep, and so woke up.
    pub(super) fn sleeps(&self) -> Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(self.file("task"))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            sum += field(&status, "voluntary_ctxt_switches:").context("no count of sleeps")?;
        }
        Ok(sum)
    }

    /// Returns the path of one of its files in /proc.
    pub(super) fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.id())
    }

    /// Sends a signal, and waits until the process has ended.
    pub(super) fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        kill(self.pid()?, signal)?;
        self.wait()
    }

    /// Waits until the process has ended.
    pub(super) fn wait(&mut self) -> Result<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < STOP_LIMIT {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("it did not end within {STOP_LIMIT:?}");
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(self.id().try_into()?))
    }
}

impl Drop for Process {
    /// Kills the process, so that none is left behind after an error.
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) && self.0.kill().is_ok() {
            self.0.wait().ok();
        }
    }
}

/// Returns the CPU time of all threads of this process.
pub(super) fn own_cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// Returns the number in the line of a /proc file that begins with a name.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_are_found() {
        let text =
            "VmRSS:\t   41000 kB\nnonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t3\n";
        assert_eq!(field(text, "VmRSS:"), Some(41000));
        assert_eq!(field(text, "voluntary_ctxt_switches:"), Some(3));
        assert_eq!(field(text, "VmHWM:"), None);
    }

    #[test]
    fn a_process_uses_cpu_time_and_ends_by_a_signal() {
        let mut process = Process::start(Command::new("sleep").arg("60")).unwrap();
        while process.cpu_time().unwrap() == Duration::ZERO {
            thread::sleep(Duration::from_millis(1));
        }
        let status = process.end(Signal::SIGTERM).unwrap();
        assert!(!status.success());
        assert!(own_cpu_time().unwrap() > Duration::ZERO);
    }
}
