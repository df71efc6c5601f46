//! Time and memory of a scrape, by the size of the ledger.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use linger_testkit::exposition::Sample;

use super::Extent;
use super::bpftool;
use super::daemon::{Daemon, host_percpu_mib};
use super::loopback;
use super::mix::Mix;
use super::report::Report;
use super::syscalls::{Counted, Syscalls};
use crate::table::{self, float};

/// A bound above the number of series of all groups.
const SERIES: &str = "--max-series=10000000";
/// A bound above the numbers of groups measured, given only if they exceed [`USUAL_GROUPS`].
const GROUPS: &str = "--max-groups=20000";
/// Number of groups that fit by default, beside those of other programs.
const USUAL_GROUPS: u32 = 4096;

/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

/// Maximum number of scrapes whose answer is parsed.
const MOST_READ: u32 = 5;

const TIMES: &[&str] = &[
    "groups",
    "series",
    "answer, MiB",
    "scrape, ms",
    "µs per group",
    "CPU of the daemon, ms",
    "of which reading",
    "the same bytes alone",
    "in gzip, ms",
    "system calls",
    "of which bpf",
];
const MEMORY: &[&str] = &[
    "groups",
    "resident, MiB",
    "at most, MiB",
    "maps, MiB",
    "per CPU, MiB",
];

/// Measures each size of the ledger with a new daemon, and reports.
pub(super) fn run(lingerd: &Path, plan: &str, extent: Extent, report: &mut Report) -> Result<()> {
    let usual = extent.groups.iter().map(|&groups| (groups, Mix::Usual));
    let full = (extent.full_groups, Mix::Everything);
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for (groups, mix) in usual.chain([full]) {
        let name = format!("{groups} of {}", mix.name());
        println!("ledger: {name}");
        let measured = Measured::of(lingerd, plan, (groups, mix), extent.scrapes)
            .with_context(|| format!("a ledger of {name}"))?;
        measured.report(&format!("ledger/{name}/lingerd, {plan}"), report);
        times.push(measured.times(name.clone()));
        memory.push(measured.memory(name));
    }
    let text = format!(
        "Scrapes over HTTP on loopback, by a client that discards the answer; medians of {}. The daemon's CPU \
         time is for one scrape; reading is `linger_scrape_duration_seconds`; the same bytes alone are sent by a \
         server with a prepared answer.",
        extent.scrapes
    );
    report.page("Scrapes", &text, &table::markdown(TIMES, &times));
    let text = "Resident: after the scrapes, and the maximum during them. Maps: the memory that the daemon's maps \
                report; per CPU: the increase of the host's per-CPU memory.";
    report.page("Memory", text, &table::markdown(MEMORY, &memory));
    Ok(())
}

/// Measurements of a daemon with a ledger of one size.
struct Measured {
    groups: u32,
    series: usize,
    text: Scrapes,
    gzip: Scrapes,
    /// Times of ready-made answers of the same length, ms.
    loopback: Vec<f64>,
    /// Resident memory now and at its peak, MiB.
    resident: [f64; 2],
    maps_mib: f64,
    percpu_mib: f64,
}

/// Returns the kernel memory that all maps except `others` report, MiB.
fn maps_mib(others: &BTreeMap<u32, u64>) -> Result<f64> {
    let maps = bpftool::maps()?.into_iter();
    let bytes: u64 = maps
        .filter(|(id, _)| !others.contains_key(id))
        .map(|(_, bytes)| bytes)
        .sum();
    Ok(float(bytes) / MIB)
}

impl Measured {
    fn of(lingerd: &Path, plan: &str, (groups, mix): (u32, Mix), scrapes: u32) -> Result<Self> {
        let (percpu, others) = (host_percpu_mib()?, bpftool::maps()?);
        let many = (groups > USUAL_GROUPS).then_some(GROUPS);
        let args: Vec<_> = ["--plan", plan, SERIES].into_iter().chain(many).collect();
        let daemon = Daemon::start(lingerd, &args)?;
        fill(groups, mix)?;
        daemon.forget_most_resident()?;
        let metrics = daemon.metrics()?;
        let is_own = |sample: &&Sample| {
            sample.label("comm").starts_with("bench-")
                && sample.label("outcome") == "linger_aborted"
        };
        let own = metrics.of("linger_closes_total").filter(is_own).count();
        if own < groups as usize * 9 / 10 {
            bail!(
                "{groups} groups closed, and {own} found a place: what else closes on this host?"
            );
        }
        let text = Scrapes::measure(&daemon, false, scrapes)?;
        let gzip = Scrapes::measure(&daemon, true, scrapes)?;
        let resident = daemon.resident_mib()?;
        let maps_mib = maps_mib(&others)?;
        let percpu_mib = host_percpu_mib()? - percpu;
        daemon.stop()?;
        Ok(Self {
            groups,
            series: metrics.0.len(),
            loopback: loopback::times(text.bytes, scrapes)?,
            text,
            gzip,
            resident,
            maps_mib,
            percpu_mib,
        })
    }

    /// Returns the time of each scrape per group, µs.
    fn micros_a_group(&self) -> Vec<f64> {
        let groups = f64::from(self.groups);
        let millis = self.text.millis.iter();
        millis.map(|millis| millis * 1000.0 / groups).collect()
    }

    fn report(&self, name: &str, report: &mut Report) {
        let mut figure = |measure: &str, unit, values| {
            report.figure(format!("{name}/{measure}"), unit, values);
        };
        figure("scrape", "ms", self.text.millis.clone());
        figure("scrape, a group", "µs", self.micros_a_group());
        figure("CPU time of a scrape", "ms", self.text.cpu_millis.clone());
        figure(
            "reading of a scrape",
            "ms",
            self.text.reading_millis.clone(),
        );
        figure("the same bytes alone", "ms", self.loopback.clone());
        figure("scrape in gzip", "ms", self.gzip.millis.clone());
        let syscalls = self.text.syscalls;
        for (measure, unit, value) in [
            ("series", "", float(self.series as u64)),
            ("answer", "bytes", float(self.text.bytes as u64)),
            ("system calls", "a scrape", float(syscalls.all)),
            ("calls of bpf(2)", "a scrape", float(syscalls.bpf)),
            ("resident", "MiB", self.resident[0]),
            ("resident at most", "MiB", self.resident[1]),
            ("maps", "MiB", self.maps_mib),
            ("memory per CPU", "MiB", self.percpu_mib),
        ] {
            figure(measure, unit, vec![value]);
        }
    }

    fn times(&self, name: String) -> Vec<String> {
        let mib = float(self.text.bytes as u64) / MIB;
        vec![
            name,
            self.series.to_string(),
            format!("{mib:.1}"),
            table::cell(&self.text.millis, 1),
            table::median(&self.micros_a_group(), 2),
            table::median(&self.text.cpu_millis, 1),
            table::median(&self.text.reading_millis, 1),
            table::median(&self.loopback, 1),
            table::median(&self.gzip.millis, 1),
            self.text.syscalls.all.to_string(),
            self.text.syscalls.bpf.to_string(),
        ]
    }

    fn memory(&self, name: String) -> Vec<String> {
        let [resident, most] = self.resident;
        let sizes = [resident, most, self.maps_mib, self.percpu_mib];
        let cells = sizes.iter().map(|mib| format!("{mib:.1}"));
        std::iter::once(name).chain(cells).collect()
    }
}

/// Performs the mix in this number of groups, by changing the name of this process.
pub(super) fn fill(groups: u32, mix: Mix) -> Result<()> {
    let own = fs::read_to_string("/proc/self/comm")?;
    for group in 0..groups {
        fs::write("/proc/self/comm", format!("bench-{group}"))?;
        mix.perform()
            .with_context(|| format!("close as group {group}"))?;
    }
    fs::write("/proc/self/comm", own.trim())?;
    Ok(())
}

/// Measurements of several scrapes.
struct Scrapes {
    /// Length of an answer, bytes.
    bytes: usize,
    millis: Vec<f64>,
    /// CPU time of the daemon.
    cpu_millis: Vec<f64>,
    /// Time that the daemon took to read the ledger, as it reports it.
    reading_millis: Vec<f64>,
    /// Number per scrape.
    syscalls: Counted,
}

impl Scrapes {
    fn measure(daemon: &Daemon, gzip: bool, scrapes: u32) -> Result<Self> {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        let calls = Syscalls::of(daemon.process.id())?;
        let mut bytes = 0;
        let (mut times, mut cpu_times) = (Vec::new(), Vec::new());
        for _ in 0..scrapes {
            let cpu = daemon.cpu_time()?;
            let start = Instant::now();
            bytes = daemon.drain(gzip)?;
            times.push(millis(start.elapsed()));
            cpu_times.push(millis(daemon.cpu_time()?.saturating_sub(cpu)));
        }
        let syscalls = calls.count()?.per(scrapes);
        if syscalls.bpf == 0 {
            bail!("no system call was seen");
        }
        let reading = (0..scrapes.min(MOST_READ)).map(|_| {
            let seconds = daemon.metrics()?.value("linger_scrape_duration_seconds");
            Ok(1000.0 * seconds.context("a scrape tells how long it took")?)
        });
        Ok(Self {
            bytes,
            millis: times,
            cpu_millis: cpu_times,
            reading_millis: reading.collect::<Result<_>>()?,
            syscalls,
        })
    }
}
