//! The runs of the programs, while the kernel counts and times them.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use linger_daemon::exercise::tcp::{self, Loopback};
use linger_ebpf::Plan;

use crate::closes::sum;
use crate::daemon::Daemon;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario::daemon("runs_under_bpf_stats", runs).by_plan_only()];

/// The kernel's BPF statistics, switched on until this is dropped.
struct Statistics {
    before: String,
}

impl Statistics {
    const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

    fn switch_on() -> Result<Self> {
        let before = fs::read_to_string(Self::SWITCH)?;
        fs::write(Self::SWITCH, "1").context("switch BPF statistics on")?;
        Ok(Self { before })
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        let _ = fs::write(Self::SWITCH, &self.before);
    }
}

/// Runs and their time are shown as the kernel says, once it has counted any.
fn runs(lingerd: &Path, plan: Plan) -> Result<()> {
    const CLOSES: u64 = 20;
    let daemon = Daemon::start(lingerd, plan, &[])?;
    let scrape = daemon.scrape()?;
    let shown = scrape.of("linger_probe_runs_total").count();
    ensure!(shown == 0, "{shown} programs have runs without statistics");

    let statistics = Statistics::switch_on()?;
    let loopback = Loopback::new()?;
    for _ in 0..CLOSES / 2 {
        let pair = loopback.pair()?;
        tcp::close(pair.client)?;
        tcp::close(pair.server)?;
    }
    drop(statistics);

    let scrape = daemon.scrape()?;
    let (count, time_ns) = daemon.timed_runs()?;
    let shown = sum(&scrape, "linger_probe_runs_total", |_| true);
    ensure!(
        shown == count && count >= CLOSES,
        "{shown} runs, where the kernel says {count}, of {CLOSES} closes"
    );
    let seconds = scrape.of("linger_probe_run_seconds_total");
    let seconds: f64 = seconds.map(|sample| sample.value).sum();
    #[expect(clippy::cast_precision_loss, reason = "less than a second")]
    let expected = time_ns as f64 / 1e9;
    ensure!(
        (seconds - expected).abs() < 1e-8 && time_ns > 0,
        "{seconds} s, where the kernel says {expected}"
    );
    daemon.stop()
}
