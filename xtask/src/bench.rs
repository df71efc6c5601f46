//! What the daemon costs: connections made and closed on loopback, bare against attached.

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

use crate::artifacts;
use crate::churn::{self, Server};
use crate::shell::{command, root};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Pairs of bare and attached.
    pairs: u32,
    /// Time of each half of a pair.
    half: Duration,
}

impl Extent {
    /// Enough for a median that means something.
    pub(crate) const FULL: Self = Self {
        pairs: 7,
        half: Duration::from_secs(3),
    };
    /// Enough to see that it still works.
    pub(crate) const SHORT: Self = Self {
        pairs: 1,
        half: Duration::from_millis(300),
    };
}

/// Groups that exist when memory is measured.
const GROUPS: u32 = 100;
/// The daemon is expected to be ready in a fraction of this.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// The contract is a second; past this it hangs.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// One line of the table: what is measured, once for each pair.
struct Series {
    what: &'static str,
    decimals: usize,
    values: Vec<f64>,
}

/// Measures, and prints a Markdown table.
pub(crate) fn run(extent: Extent) -> Result<()> {
    let lingerd = artifacts::lingerd()?;
    let mut table = [
        ("connections a second by one thread, bare", 0),
        ("connections a second by one thread, attached", 0),
        ("attached / bare", 3),
        ("connections a second between two threads, bare", 0),
        ("connections a second between two threads, attached", 0),
        ("attached / bare", 3),
        ("daemon's CPU time under load, % of one CPU", 2),
        ("daemon's memory at 100 groups, MiB", 1),
        ("start to attached, ms", 0),
    ]
    .map(|(what, decimals)| Series {
        what,
        decimals,
        values: Vec::new(),
    });
    let mut plan = String::new();
    for pair in 0..extent.pairs {
        // In turns, so that a drift of the machine favours neither.
        let early = (pair % 2 == 0).then(|| rates(extent.half)).transpose()?;
        let attached = measure_attached(&lingerd, extent.half)?;
        let bare = match early {
            Some(rates) => rates,
            None => rates(extent.half)?,
        };
        println!(
            "pair {} of {}: bare {:.0}/s and {:.0}/s, attached {:.0}/s and {:.0}/s",
            pair + 1,
            extent.pairs,
            bare[0],
            bare[1],
            attached.rates[0],
            attached.rates[1]
        );
        let values = [
            bare[0],
            attached.rates[0],
            attached.rates[0] / bare[0],
            bare[1],
            attached.rates[1],
            attached.rates[1] / bare[1],
            attached.cpu_percent,
            attached.resident_mib,
            attached.ready.as_secs_f64() * 1000.0,
        ];
        for (series, value) in table.iter_mut().zip(values) {
            series.values.push(value);
        }
        plan = attached.plan;
    }
    println!(
        "\nPlan {plan}, kernel {}, {} CPUs, {} pairs of {:.1} s each:\n",
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        thread::available_parallelism()?,
        extent.pairs,
        extent.half.as_secs_f64()
    );
    print_table(&table);
    Ok(())
}

/// Connections a second, by [`Server::ALL`], each for half of this time.
fn rates(time: Duration) -> Result<[f64; 2]> {
    let [same, own] = Server::ALL.map(|server| churn::churn(time / 2, server));
    Ok([same?, own?])
}

/// What one run of the daemon showed.
struct Attached {
    /// By [`Server::ALL`].
    rates: [f64; 2],
    cpu_percent: f64,
    resident_mib: f64,
    ready: Duration,
    plan: String,
}

fn measure_attached(lingerd: &Path, half: Duration) -> Result<Attached> {
    let daemon = Daemon::start(lingerd)?;
    let (before, start) = (daemon.cpu_time()?, Instant::now());
    let rates = rates(half)?;
    let cpu = daemon.cpu_time()?.saturating_sub(before);
    let time = start.elapsed();

    close_from_groups()?;
    let (status, metrics) = daemon.get("/metrics")?;
    if status != 200 {
        bail!("/metrics answered {status}");
    }
    let attached = Attached {
        rates,
        cpu_percent: 100.0 * cpu.as_secs_f64() / time.as_secs_f64(),
        resident_mib: daemon.resident_mib()?,
        ready: daemon.ready,
        plan: label(&metrics, "linger_probe_info", "plan")
            .context("/metrics does not say which plan is in use")?
            .to_owned(),
    };
    daemon.stop()?;
    Ok(attached)
}

/// Closes under many names of the process, each of which is a group of its own.
fn close_from_groups() -> Result<()> {
    let own = fs::read_to_string("/proc/self/comm")?;
    for group in 0..GROUPS {
        fs::write("/proc/self/comm", format!("bench-{group}"))?;
        churn::connections(Server::SameThread, |made| made < 1)?;
    }
    fs::write("/proc/self/comm", own.trim())?;
    Ok(())
}

/// A running daemon.
struct Daemon {
    process: Child,
    address: SocketAddr,
    /// From its start until it was attached.
    ready: Duration,
}

impl Daemon {
    fn start(lingerd: &Path) -> Result<Self> {
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
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
        Ok((
            status.context("an answer in HTTP has a status")?,
            body.unwrap_or_default().to_owned(),
        ))
    }

    /// CPU time used so far, in user space and in the kernel; counted in ticks, usually of 10 ms.
    fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let hz = sysconf(SysconfVar::CLK_TCK)?.context("the length of a tick is unknown")?;
        let ticks = cpu_ticks(&stat).context("read /proc/PID/stat")?;
        let hz = u64::try_from(hz)?;
        Ok(Duration::from_millis(ticks * 1000 / hz))
    }

    /// Memory held in RAM.
    fn resident_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let kib: f64 = kib.context("/proc/PID/status has no VmRSS")?.parse()?;
        Ok(kib / 1024.0)
    }

    /// Ends the daemon as a service manager does.
    fn stop(mut self) -> Result<()> {
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

/// The value of a label in the first sample of a metric.
fn label<'a>(metrics: &'a str, metric: &str, label: &str) -> Option<&'a str> {
    let labels = metrics
        .lines()
        .find_map(|line| line.strip_prefix(metric)?.strip_prefix('{'))?;
    let (_, value) = labels.split_once(&format!("{label}=\""))?;
    value.split('"').next()
}

fn print_table(table: &[Series]) {
    let width = table
        .iter()
        .map(|series| series.what.len())
        .max()
        .unwrap_or(0);
    println!("| {:width$} |  median |  lowest | highest |", "");
    println!("| {:-<width$} | ------: | ------: | ------: |", "");
    for series in table {
        let (low, median, high) = spread(&series.values);
        let decimals = series.decimals;
        println!(
            "| {:width$} | {median:7.decimals$} | {low:7.decimals$} | {high:7.decimals$} |",
            series.what
        );
    }
}

/// The lowest, the middle and the highest of some values; of an even number the upper middle.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    (
        at(0),
        at(sorted.len() / 2),
        at(sorted.len().saturating_sub(1)),
    )
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
    fn label_of_the_right_metric_is_found() {
        let metrics = "# TYPE linger_probe_info gauge\n\
                       linger_probe_info_other{plan=\"x\"} 1\n\
                       linger_probe_info{kernel=\"6.1\",plan=\"kprobe\"} 1\n";
        assert_eq!(label(metrics, "linger_probe_info", "plan"), Some("kprobe"));
        assert_eq!(label(metrics, "linger_probe_info", "none"), None);
    }

    #[test]
    fn spread_sorts() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), (1.0, 2.0, 3.0));
        assert_eq!(spread(&[5.0]), (5.0, 5.0, 5.0));
    }
}
