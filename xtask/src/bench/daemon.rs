//! The daemon that is measured.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use super::scrape::{Answer, Metrics};
use crate::shell::{command, root};

/// The daemon is expected to be ready in a fraction of this.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// The contract is a second; past this it hangs.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A running daemon.
pub(super) struct Daemon {
    process: Child,
    address: SocketAddr,
    /// From its start until it was attached.
    pub(super) ready: Duration,
}

impl Daemon {
    /// Starts it with these options beside those of every bench, and waits until it is attached.
    pub(super) fn start(lingerd: &Path, args: &[&str]) -> Result<Self> {
        let log = root().join("target/bench-lingerd.log");
        let address = free_address()?;
        let start = Instant::now();
        let process = command(lingerd)
            .args(["run", "--plan", "auto", "--listen", &address.to_string()])
            .args(args)
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .spawn()
            .context("start lingerd")?;
        let mut daemon = Self {
            process,
            address,
            ready: Duration::ZERO,
        };
        while !daemon.is_ready() {
            if let Some(status) = daemon.process.try_wait()? {
                let log = fs::read_to_string(&log)?;
                bail!("lingerd ended ({status}):\n{log}");
            }
            if start.elapsed() > READY_LIMIT {
                bail!(
                    "lingerd is not ready after {READY_LIMIT:?}; see {}",
                    log.display()
                );
            }
            thread::sleep(Duration::from_millis(1));
        }
        daemon.ready = start.elapsed();
        Ok(daemon)
    }

    fn is_ready(&self) -> bool {
        Answer::of(self.address, "/readyz", false).is_ok_and(|answer| answer.status() == Some(200))
    }

    /// What it counted.
    pub(super) fn metrics(&self) -> Result<Metrics> {
        Metrics::of(&self.scrape(false)?)
    }

    /// The answer to a scrape.
    pub(super) fn scrape(&self, gzip: bool) -> Result<Answer> {
        Answer::of(self.address, "/metrics", gzip)
    }

    /// The plan in use.
    pub(super) fn plan(&self) -> Result<String> {
        let metrics = self.metrics()?;
        let plan = metrics.label("linger_probe_info", "plan");
        Ok(plan
            .context("/metrics does not say which plan is in use")?
            .to_owned())
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// CPU time used so far, in user space and in the kernel; counted in ticks, usually of 10 ms.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let hz = sysconf(SysconfVar::CLK_TCK)?.context("the length of a tick is unknown")?;
        let ticks = cpu_ticks(&stat).context("read /proc/PID/stat")?;
        let hz = u64::try_from(hz)?;
        Ok(Duration::from_millis(ticks * 1000 / hz))
    }

    /// Forgets how much memory it held in RAM at most so far.
    pub(super) fn forget_most_resident(&self) -> Result<()> {
        Ok(fs::write(
            format!("/proc/{}/clear_refs", self.process.id()),
            "5",
        )?)
    }

    /// Memory held in RAM, MiB: now, and at most since the start or since it was forgotten.
    pub(super) fn resident_mib(&self) -> Result<[f64; 2]> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let field = |name| field(&status, name).with_context(|| format!("{name} is missing"));
        Ok([mib(field("VmRSS:")?), mib(field("VmHWM:")?)])
    }

    /// Memory of the kernel that its maps say they hold, MiB.
    pub(super) fn maps_mib(&self) -> Result<f64> {
        let mut maps = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{}/fdinfo", self.process.id()))? {
            // A connection may be gone meanwhile.
            let Ok(info) = fs::read_to_string(entry?.path()) else {
                continue;
            };
            if let (Some(map), Some(bytes)) = (field(&info, "map_id:"), field(&info, "memlock:")) {
                maps.insert(map, bytes);
            }
        }
        Ok(mib(maps.values().sum()) / 1024.0)
    }

    /// Ends the daemon as a service manager does.
    pub(super) fn stop(mut self) -> Result<()> {
        kill(
            Pid::from_raw(self.process.id().try_into()?),
            Signal::SIGTERM,
        )?;
        let start = Instant::now();
        while start.elapsed() < STOP_LIMIT {
            if let Some(status) = self.process.try_wait()? {
                if !status.success() {
                    bail!("lingerd ended with {status} after SIGTERM");
                }
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("lingerd did not end within {STOP_LIMIT:?} of SIGTERM");
    }
}

impl Drop for Daemon {
    /// Whatever went wrong, no daemon is left behind.
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) && self.process.kill().is_ok() {
            self.process.wait().ok();
        }
    }
}

/// An address on loopback that nobody listens on.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Memory of the whole host that has a copy for each CPU, MiB.
pub(super) fn host_percpu_mib() -> Result<f64> {
    let memory = fs::read_to_string("/proc/meminfo")?;
    Ok(mib(
        field(&memory, "Percpu:").context("/proc/meminfo has no Percpu")?
    ))
}

/// The number in a line of a file of /proc that begins with a name.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

/// KiB to MiB.
#[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 bytes")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// utime and stime in a line of /proc/PID/stat.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The process's name may contain anything; the fields after it begin with the third.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let utime: u64 = fields.next()?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    Some(utime + stime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_past_a_name_with_spaces() {
        let stat = "12 (a) b) S 1 12 12 0 -1 4194560 500 0 0 0 30 12 0 0 20 0 1 0 99 1 2";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("12 (a) S 1"), None);
    }

    #[test]
    fn numbers_are_read_by_their_names() {
        let status = "VmPeak:\t   10 kB\nVmRSS:\t   2048 kB\nmemlock:\t7\n";
        assert_eq!(field(status, "VmRSS:"), Some(2048));
        assert_eq!(field(status, "memlock:"), Some(7));
        assert_eq!(field(status, "VmHWM:"), None);
    }
}
