//! The daemon that is measured.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

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
    /// Starts it, and waits until it is attached.
    pub(super) fn start(lingerd: &Path) -> Result<Self> {
        let log = root().join("target/bench-lingerd.log");
        let address = free_address()?;
        let start = Instant::now();
        let process = command(lingerd)
            .args(["run", "--plan", "auto", "--listen", &address.to_string()])
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
        self.get("/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// What it counted.
    pub(super) fn metrics(&self) -> Result<Metrics> {
        let (status, text) = self.get("/metrics")?;
        if status != 200 {
            bail!("/metrics answered {status}");
        }
        Ok(Metrics(text))
    }

    /// The status and the body of what the daemon serves at a path.
    fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(READY_LIMIT))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        if head.to_ascii_lowercase().contains("transfer-encoding") {
            bail!("the answer is in chunks, which this does not read: too many groups closed");
        }
        Ok((
            status.context("an answer in HTTP has a status")?,
            body.to_owned(),
        ))
    }

    /// CPU time used so far, in user space and in the kernel; counted in ticks, usually of 10 ms.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let hz = sysconf(SysconfVar::CLK_TCK)?.context("the length of a tick is unknown")?;
        let ticks = cpu_ticks(&stat).context("read /proc/PID/stat")?;
        let hz = u64::try_from(hz)?;
        Ok(Duration::from_millis(ticks * 1000 / hz))
    }

    /// Memory held in RAM.
    pub(super) fn resident_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let kib: f64 = kib.context("/proc/PID/status has no VmRSS")?.parse()?;
        Ok(kib / 1024.0)
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

/// utime and stime in a line of /proc/PID/stat.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The process's name may contain anything; the fields after it begin with the third.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let utime: u64 = fields.next()?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    Some(utime + stime)
}

/// What the daemon served.
pub(super) struct Metrics(String);

impl Metrics {
    /// The value of a label in the first sample of a metric.
    pub(super) fn label(&self, metric: &str, label: &str) -> Option<&str> {
        let (labels, _) = self.samples(metric).next()?;
        let (_, value) = labels.split_once(&format!("{label}=\""))?;
        value.split('"').next()
    }

    /// The sum of a metric's samples that have this value of a label.
    pub(super) fn sum(&self, metric: &str, (label, value): (&str, &str)) -> Result<u64> {
        let label = format!("{label}=\"{value}\"");
        self.samples(metric)
            .filter(|(labels, _)| labels.contains(&label))
            .map(|(_, value)| value.parse::<u64>())
            .sum::<Result<_, _>>()
            .with_context(|| format!("{metric} is no whole number"))
    }

    /// Labels and value of each sample of a metric that has labels.
    fn samples(&self, metric: &str) -> impl Iterator<Item = (&str, &str)> {
        self.0.lines().filter_map(move |line| {
            let sample = line.strip_prefix(metric)?.strip_prefix('{')?;
            sample.rsplit_once(' ')
        })
    }
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
    fn samples_of_the_right_metric_are_found() {
        let metrics = Metrics(
            "# TYPE linger_probe_info gauge\n\
             linger_probe_info_other{plan=\"x\"} 1\n\
             linger_probe_info{kernel=\"6.1\",plan=\"kprobe\"} 1\n\
             linger_orphans_total{comm=\"a b\",fate=\"delivered\"} 40\n\
             linger_orphans_total{comm=\"a b\",fate=\"destroyed\"} 2\n\
             linger_orphans_total{comm=\"c\",fate=\"delivered\"} 3\n"
                .to_owned(),
        );
        assert_eq!(metrics.label("linger_probe_info", "plan"), Some("kprobe"));
        assert_eq!(metrics.label("linger_probe_info", "none"), None);
        let sum = |metric, comm| metrics.sum(metric, ("comm", comm)).unwrap();
        assert_eq!(sum("linger_orphans_total", "a b"), 42);
        assert_eq!(sum("linger_orphans_total", "c"), 3);
        assert_eq!(sum("linger_orphans", "c"), 0);
    }
}
