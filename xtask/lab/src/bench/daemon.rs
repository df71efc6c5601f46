//! The measured daemon.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail};
use linger_testkit::exposition::Scrape;
use linger_testkit::http;
use linger_xtask::shell::{command, root};
use nix::sys::signal::Signal;

use super::process::{Process, field};
use super::scrape;
use crate::table::float;

/// Time limit of a start, far above what the daemon is expected to need.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// A running daemon.
pub(super) struct Daemon {
    pub(super) process: Process,
    address: SocketAddr,
    /// Time from its start until it was attached.
    pub(super) ready: Duration,
    /// CPU time that it used until then.
    pub(super) ready_cpu: Duration,
}

impl Daemon {
    /// Starts the daemon with these options in addition to the usual ones, and waits until it is attached.
    pub(super) fn start(lingerd: &Path, args: &[&str]) -> Result<Self> {
        let log = root().join("target/bench-lingerd.log");
        let address = free_address()?;
        let start = Instant::now();
        let process = Process::start(
            command(lingerd)
                .args(["run", "--listen", &address.to_string()])
                .args(args)
                .stdout(File::create(&log)?)
                .stderr(File::options().append(true).open(&log)?),
        )?;
        let mut daemon = Self {
            process,
            address,
            ready: Duration::ZERO,
            ready_cpu: Duration::ZERO,
        };
        let mut readiness = http::Poll::new(address, "/readyz");
        while !readiness.is_ready() {
            if let Some(status) = daemon.process.ended()? {
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
        daemon.ready_cpu = daemon.cpu_time()?;
        Ok(daemon)
    }

    /// Returns its metrics.
    pub(super) fn metrics(&self) -> Result<Scrape> {
        Scrape::parse(&http::body(self.address, "/metrics")?).map_err(Error::msg)
    }

    /// Scrapes it and discards the answer; returns the length, bytes.
    pub(super) fn drain(&self, gzip: bool) -> Result<usize> {
        scrape::drain(self.address, gzip)
    }

    /// Returns the CPU time used so far, in user space and in the kernel.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        self.process.cpu_time()
    }

    /// Resets the peak of its resident memory.
    pub(super) fn forget_most_resident(&self) -> Result<()> {
        Ok(fs::write(self.process.file("clear_refs"), "5")?)
    }

    /// Returns its resident memory, MiB: now, and the peak since its start or the last reset.
    pub(super) fn resident_mib(&self) -> Result<[f64; 2]> {
        let status = fs::read_to_string(self.process.file("status"))?;
        let mib = |name| {
            let kib = field(&status, name).with_context(|| format!("{name} is missing"))?;
            anyhow::Ok(float(kib) / 1024.0)
        };
        Ok([mib("VmRSS:")?, mib("VmHWM:")?])
    }

    /// Ends the daemon by SIGTERM, as a service manager does.
    pub(super) fn stop(mut self) -> Result<()> {
        let status = self.process.end(Signal::SIGTERM).context("end lingerd")?;
        if !status.success() {
            bail!("lingerd ended with {status} after SIGTERM");
        }
        Ok(())
    }
}

/// Returns an unused address on loopback.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Returns the per-CPU memory of the whole host, MiB.
pub(super) fn host_percpu_mib() -> Result<f64> {
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kib = field(&memory, "Percpu:").context("/proc/meminfo has no Percpu")?;
    Ok(float(kib) / 1024.0)
}
