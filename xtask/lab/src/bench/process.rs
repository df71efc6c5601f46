//! A process that is measured.

use std::fs;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// The contract of lingerd is a second; past this, whatever it is hangs.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A process that is ended with its owner.
pub(super) struct Process(Child);

impl Process {
    /// Starts it.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .spawn()
            .with_context(|| format!("start {program}"))?;
        Ok(Self(child))
    }

    /// Its number.
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// The process itself.
    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// CPU time that all its threads took so far, those that ended included.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let clock = clock_getcpuclockid(self.pid()?).context("the clock of a process")?;
        Ok(clock_gettime(clock)?.into())
    }

    /// How often its threads went to sleep so far, and so how often they woke up.
    pub(super) fn sleeps(&self) -> Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(self.file("task"))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            sum += field(&status, "voluntary_ctxt_switches:").context("no count of sleeps")?;
        }
        Ok(sum)
    }

    /// The path of a file of /proc that tells about it.
    pub(super) fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.id())
    }

    /// Sends it a signal, and waits until it has ended.
    pub(super) fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        kill(self.pid()?, signal)?;
        self.wait()
    }

    /// Waits until it has ended.
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
    /// Whatever went wrong, no process is left behind.
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) && self.0.kill().is_ok() {
            self.0.wait().ok();
        }
    }
}

/// CPU time that all threads of this process took so far.
pub(super) fn own_cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// The number in a line of a file of /proc that begins with a name.
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
    fn a_process_has_taken_time_and_is_ended_by_a_signal() {
        let mut process = Process::start(Command::new("sleep").arg("60")).unwrap();
        while process.cpu_time().unwrap() == Duration::ZERO {
            thread::sleep(Duration::from_millis(1));
        }
        let status = process.end(Signal::SIGTERM).unwrap();
        assert!(!status.success());
        assert!(own_cpu_time().unwrap() > Duration::ZERO);
    }
}
