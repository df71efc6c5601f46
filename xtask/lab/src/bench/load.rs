//! The work of the daemon itself under a load of 50,000 closes a second.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Extent;
use super::daemon::Daemon;
use super::report::Report;
use crate::churn::{self, Churn};
use crate::table::{self, float};

/// The intended load, closes per second: two for each connection.
const CLOSES: f64 = 50_000.0;
/// Number of connections made in a row before the pace is checked.
const BATCH: u64 = 32;

const HEAD: &[&str] = &[
    "",
    "closes/s",
    "for, s",
    "CPU of the daemon, % of one",
    "CPU per scrape, ms",
    "wake-ups/s",
];

/// Measures without scrapes and with regular ones, and reports.
pub(super) fn run(lingerd: &Path, plan: &str, extent: Extent, report: &mut Report) -> Result<()> {
    let every = extent.scrape_interval;
    let mut rows = Vec::new();
    for (name, interval) in [
        ("no scrapes".to_owned(), None),
        (format!("a scrape every {every:?}"), Some(every)),
    ] {
        println!("load: {name}, {:?}", extent.load);
        let seen = Seen::of(lingerd, plan, extent.load, interval)?;
        let mut figure = |measure: &str, unit, value| {
            let name = format!("load/{name}/lingerd, {plan}/{measure}");
            report.figure(name, unit, vec![value]);
        };
        figure("rate", "closes/s", seen.closes);
        figure("CPU time", "% of one CPU", seen.cpu_percent);
        figure("wake-ups", "1/s", seen.wake_ups);
        rows.push(vec![
            name,
            format!("{:.0}", seen.closes),
            format!("{:.0}", extent.load.as_secs_f64()),
            format!("{:.4}", seen.cpu_percent),
            seen.scrape_millis
                .map_or_else(String::new, |millis| format!("{millis:.2}")),
            format!("{:.2}", seen.wake_ups),
        ]);
    }
    let text = "Aborts at a steady rate, by a process whose closes are one group. Wake-ups are the sum of \
                `voluntary_ctxt_switches` over all threads of the daemon.";
    report.page("Under load", text, &table::markdown(HEAD, &rows));
    Ok(())
}

/// Measurements of the daemon.
struct Seen {
    /// Closes per second, as reached.
    closes: f64,
    cpu_percent: f64,
    wake_ups: f64,
    /// The daemon's whole CPU time divided by the number of scrapes, if there were any.
    scrape_millis: Option<f64>,
}

impl Seen {
    fn of(lingerd: &Path, plan: &str, time: Duration, interval: Option<Duration>) -> Result<Self> {
        let daemon = Daemon::start(lingerd, &["--plan", plan])?;
        // Lets it finish work that is done only once.
        daemon.drain(false)?;
        thread::sleep(Duration::from_secs(1));
        let (cpu, wake_ups) = (daemon.cpu_time()?, daemon.process.sleeps()?);
        let start = Instant::now();
        let over = AtomicBool::new(false);
        let (made, scrapes) = thread::scope(|scope| {
            let closing = scope.spawn(|| {
                let made = at_pace(time);
                over.store(true, Ordering::Relaxed);
                made
            });
            let scrapes = scrape_meanwhile(&daemon, interval, &over)?;
            match closing.join() {
                Ok(made) => Ok((made?, scrapes)),
                Err(_) => bail!("the closing thread panicked"),
            }
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let cpu = daemon.cpu_time()?.saturating_sub(cpu).as_secs_f64();
        let wake_ups = daemon.process.sleeps()?.saturating_sub(wake_ups);
        daemon.stop()?;
        Ok(Self {
            closes: 2.0 * float(made) / seconds,
            cpu_percent: 100.0 * cpu / seconds,
            wake_ups: float(wake_ups) / seconds,
            scrape_millis: (scrapes > 0).then(|| 1000.0 * cpu / f64::from(scrapes)),
        })
    }
}

/// Makes and aborts connections at the intended pace, or as fast as possible; returns their number.
fn at_pace(time: Duration) -> Result<u64> {
    let start = Instant::now();
    churn::connections(Churn::Aborts, |made| {
        if made.is_multiple_of(BATCH) {
            let due = start + Duration::from_secs_f64(2.0 * float(made) / CLOSES);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        start.elapsed() < time
    })
}

/// Scrapes the daemon at `interval`, if there is one, until `over`; returns the number of scrapes.
fn scrape_meanwhile(daemon: &Daemon, interval: Option<Duration>, over: &AtomicBool) -> Result<u32> {
    let (start, mut scrapes) = (Instant::now(), 0);
    while !over.load(Ordering::Relaxed) {
        // In the middle of each interval, so that the whole scrape falls into the measured time.
        if interval.is_some_and(|interval| start.elapsed() >= interval * scrapes + interval / 2) {
            daemon.drain(false)?;
            scrapes += 1;
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(scrapes)
}
