//! A running `lingerd`, as its users see it: a process, its exit code and its web pages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_ebpf::Plan;
use linger_testkit::exposition::Scrape;
use linger_testkit::http;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::Socket;

use crate::common::expected::Evidence;
use crate::common::summary::WaitedInVain;
use crate::watch::sight;

/// Longest time to attach, on a slow machine.
const START: Duration = Duration::from_secs(180);
/// Longest time for an effect, on a slow machine.
const EFFECT: Duration = Duration::from_secs(60);
/// Time after a scrape by which the daemon has certainly maintained its ledger.
pub(crate) const MAINTENANCE: Duration = Duration::from_secs(1);
/// Longest time to exit: a second, and much more on a machine that emulates several others.
const EXIT: Duration = Duration::from_secs(10);

/// What daemons have shown since the last [`take_evidence`].
static EVIDENCE: Mutex<BTreeSet<Evidence>> = Mutex::new(BTreeSet::new());

fn evidence() -> MutexGuard<'static, BTreeSet<Evidence>> {
    EVIDENCE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns what all daemons have shown since the last call that the kernel kept them from counting.
pub(crate) fn take_evidence() -> BTreeSet<Evidence> {
    mem::take(&mut *evidence())
}

/// A running `lingerd`, killed when dropped.
pub(crate) struct Daemon {
    process: Child,
    address: SocketAddr,
    errors: Arc<Mutex<String>>,
    /// IDs of its BPF programs.
    programs: BTreeSet<u32>,
}

impl Daemon {
    /// Starts it with these options of `run`, and waits until it is ready. Under `tracepoint`, also makes a close that
    /// waits: where possible, the daemon has then hooked the return of close(2).
    pub(crate) fn start(lingerd: &Path, plan: Plan, options: &[&str]) -> Result<Self> {
        Self::start_by(lingerd, plan, options, Command::spawn)
    }

    /// As [`Daemon::start`], with `start` to start the command.
    pub(crate) fn start_by(
        lingerd: &Path,
        plan: Plan,
        options: &[&str],
        start: impl FnOnce(&mut Command) -> io::Result<Child>,
    ) -> Result<Self> {
        let mut daemon = Self::spawn_by(lingerd, plan, options, start)?;
        daemon.wait_until_ready()?;
        if plan == Plan::Tracepoint {
            wait_in_close(&Loopback::new()?)?;
            if sight(plan)?.release_in_close {
                daemon.wait_for_return_hook()?;
            }
        }
        daemon.programs = find_programs(daemon.id())?;
        ensure!(
            !daemon.programs.is_empty(),
            "the daemon has no BPF programs"
        );
        Ok(daemon)
    }

    /// As [`Daemon::start`], for options that let its programs outlive it, or for a daemon that has seen no close that
    /// waits.
    pub(crate) fn start_keeping(lingerd: &Path, plan: Plan, options: &[&str]) -> Result<Self> {
        let mut daemon = Self::spawn(lingerd, plan, options)?;
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// Starts it without waiting until it is ready.
    pub(crate) fn spawn(lingerd: &Path, plan: Plan, options: &[&str]) -> Result<Self> {
        Self::spawn_by(lingerd, plan, options, Command::spawn)
    }

    /// As [`Daemon::spawn`], with `start` to start the command.
    pub(crate) fn spawn_by(
        lingerd: &Path,
        plan: Plan,
        options: &[&str],
        start: impl FnOnce(&mut Command) -> io::Result<Child>,
    ) -> Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(lingerd);
        command
            .args(["run", "--plan", plan.name(), "--listen"])
            .arg(address.to_string())
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process =
            start(&mut command).with_context(|| format!("run {}", lingerd.display()))?;
        let errors = Arc::new(Mutex::new(String::new()));
        if let Some(stderr) = process.stderr.take() {
            keep(stderr, Arc::clone(&errors));
        }
        Ok(Self {
            process,
            address,
            errors,
            programs: BTreeSet::new(),
        })
    }

    /// Waits until its programs count.
    pub(crate) fn wait_until_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        let mut readiness = http::Poll::new(self.address, "/readyz");
        loop {
            if let Some(status) = self.process.try_wait()? {
                bail!(
                    "lingerd ended before it was ready: {status}\n{}",
                    self.errors()
                );
            }
            // The log says so before the first request: a connection of the test that closes while programs are being
            // attached might be counted.
            if self.errors().contains("serving http") && readiness.is_ready() {
                return Ok(());
            }
            if start.elapsed() >= START {
                bail!(WaitedInVain(format!(
                    "lingerd is not ready after {} s\n{}",
                    START.as_secs(),
                    self.errors()
                )));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns its process ID.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns the address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what it has written to stderr so far.
    pub(crate) fn errors(&self) -> String {
        let errors = self.errors.lock();
        errors.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until its stderr contains `text` this many times.
    pub(crate) fn wait_for_log(&self, text: &str, times: usize) -> Result<()> {
        wait_until(text, || Ok(self.errors().matches(text).count() >= times))
            .with_context(|| self.errors())
    }

    /// Waits until the return of close(2) is hooked, after a close has waited.
    pub(crate) fn wait_for_return_hook(&self) -> Result<()> {
        wait_until("the hook of sys_exit, now that a close has waited", || {
            Ok(is_return_hooked(&self.scrape()?))
        })
    }

    /// Scrapes all metrics.
    pub(crate) fn scrape(&self) -> Result<Scrape> {
        let scrape = Scrape::parse(&self.exposition()?).map_err(anyhow::Error::msg)?;
        evidence().extend(Evidence::between(&Scrape::default(), &scrape));
        Ok(scrape)
    }

    /// Returns all metrics in the text format.
    pub(crate) fn exposition(&self) -> Result<String> {
        http::body(self.address, "/metrics")
    }

    /// Returns the kernel memory of its maps, bytes; before Linux 6.4, the most that they may take.
    pub(crate) fn map_memory(&self) -> Result<u64> {
        self.sum_of("map_id:", "memlock:")
    }

    /// Returns how many runs of its programs the kernel skipped, because the program was already running on that CPU
    /// (`bpf_prog_info.recursion_misses`), or another kprobe was (`nmissed`).
    pub(crate) fn skipped_runs(&self) -> Result<u64> {
        let skipped = self.sum_of("prog_id:", "recursion_misses:")?;
        Ok(skipped + self.missed_hits()?)
    }

    /// Returns the runs of its programs, and their time in nanoseconds, that the kernel's BPF statistics have counted.
    pub(crate) fn timed_runs(&self) -> Result<(u64, u64)> {
        let sum = |what| self.sum_of("prog_id:", what);
        Ok((sum("run_cnt:")?, sum("run_time_ns:")?))
    }

    /// Returns the sum of a number that the kernel gives for each object with such an id.
    fn sum_of(&self, id: &str, what: &str) -> Result<u64> {
        let infos = self.descriptors()?;
        // It may have an object open more than once.
        let numbers: BTreeMap<_, _> = infos
            .iter()
            .filter_map(|info| Some((number(info, id)?, number(info, what)?)))
            .collect();
        Ok(numbers.values().sum())
    }

    /// Returns the hits of its kprobes that the kernel missed.
    fn missed_hits(&self) -> Result<u64> {
        let Ok(profile) = fs::read_to_string("/sys/kernel/tracing/kprobe_profile") else {
            return Ok(0);
        };
        let own = format!("_{}_", self.id());
        let mut missed = 0;
        for line in profile.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            if let [event, _, count] = words[..]
                && event.contains(&own)
            {
                missed += count.parse::<u64>()?;
            }
        }
        Ok(missed)
    }

    /// Returns the IDs of its links to cgroups.
    pub(crate) fn cgroup_links(&self) -> Result<Vec<u32>> {
        let infos = self.descriptors()?;
        let links = infos
            .iter()
            .filter(|info| info.contains("link_type:\tcgroup\n"));
        links
            .map(|info| {
                Ok(number(info, "link_id:")
                    .context("a link without a number")?
                    .try_into()?)
            })
            .collect()
    }

    /// Returns the `fdinfo` of every descriptor of the process.
    fn descriptors(&self) -> Result<Vec<String>> {
        descriptors(self.id())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.process.id().cast_signed());
        Ok(kill(pid, signal)?)
    }

    /// Stops it with SIGTERM. It must exit with 0, soon, and leave none of its programs behind.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.terminate()?;
        expect_gone(&self.programs)
    }

    /// Kills it with SIGKILL. It must leave none of its programs behind.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        expect_gone(&self.programs)
    }

    /// Stops it with SIGTERM. It must exit with 0, soon.
    pub(crate) fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait()? {
                break status;
            }
            ensure!(
                start.elapsed() < EXIT,
                "lingerd still runs {} s after SIGTERM",
                EXIT.as_secs()
            );
            thread::sleep(Duration::from_millis(5));
        };
        ensure!(
            status.success(),
            "lingerd ended with {status} after SIGTERM\n{}",
            self.errors()
        );
        Ok(())
    }
}

/// Fails if any of these programs stays loaded for longer than the kernel takes to free it.
pub(crate) fn expect_gone(programs: &BTreeSet<u32>) -> Result<()> {
    let start = Instant::now();
    loop {
        let loaded = aya::programs::loaded_programs()
            .map(|program| program.map(|program| program.id()))
            .collect::<Result<BTreeSet<_>, _>>();
        // A program freed while the list is made ends the list early.
        if let Ok(loaded) = loaded {
            let left: Vec<_> = programs.intersection(&loaded).collect();
            if left.is_empty() {
                return Ok(());
            }
            // The kernel frees programs asynchronously, even after the process has exited.
            ensure!(
                start.elapsed() < EXIT,
                "lingerd left BPF programs behind: {left:?}"
            );
        }
        thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Not by a scrape: a scenario may have stopped it.
        if self.skipped_runs().is_ok_and(|skipped| skipped > 0) {
            evidence().insert(Evidence::SkippedRuns);
        }
        // After `stop` the process is gone; that is no error.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits for an effect on the daemon.
pub(crate) fn wait_until(what: &str, mut reached: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !reached()? {
        if start.elapsed() >= EFFECT {
            bail!(WaitedInVain(what.to_owned()));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Returns whether the return of close(2) is hooked.
pub(crate) fn is_return_hooked(scrape: &Scrape) -> bool {
    let mut hooks = scrape.of("linger_probe_attached");
    hooks.any(|hook| hook.label("target") == "tp_btf:sys_exit" && hook.whole() == Some(1))
}

/// Returns the number on the line with this beginning.
fn number(info: &str, beginning: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix(beginning))?;
    line.trim().parse().ok()
}

/// Closes a connection, waiting in close(2) until its FIN is acknowledged, which is at once. Returns its other end.
pub(crate) fn wait_in_close(loopback: &Loopback) -> io::Result<Socket> {
    let Pair { client, server } = loopback.pair()?;
    client.set_linger(Some(Duration::from_secs(60)))?;
    tcp::close(client)?;
    Ok(server)
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Returns the IDs of the BPF programs that a process holds, directly or by a link.
pub(crate) fn find_programs(process: u32) -> Result<BTreeSet<u32>> {
    let infos = descriptors(process)?;
    let ids = infos.iter().filter_map(|info| number(info, "prog_id:"));
    Ok(ids.filter_map(|id| u32::try_from(id).ok()).collect())
}

/// Returns the `fdinfo` of every descriptor of a process.
fn descriptors(process: u32) -> Result<Vec<String>> {
    let entries = fs::read_dir(format!("/proc/{process}/fdinfo"))?;
    // A descriptor may be closed meanwhile.
    let infos = entries
        .flatten()
        .map(|entry| fs::read_to_string(entry.path()));
    Ok(infos.filter_map(Result::ok).collect())
}

/// Collects what the process writes, so that a full pipe never blocks it.
fn keep(mut stderr: impl io::Read + Send + 'static, to: Arc<Mutex<String>>) {
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = stderr.read(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..length]);
            to.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push_str(&text);
        }
    });
}
