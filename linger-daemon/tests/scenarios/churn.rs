//! Cgroups that come and go, each with a process that closes a few sockets: no close is lost, and
//! nothing grows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_ebpf::Plan;
use linger_testkit::exposition::{Sample, Scrape};

use crate::born::{self, Cgroup};
use crate::closes::{is_other, lost, sum, wait_until, whole};
use crate::daemon::Daemon;
use crate::netns;
use crate::scenario::{Scenario, Settings};
use crate::truth::Counters;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::bulk_daemon("churn", fast).once(),
    Scenario::bulk_daemon("churn_gently", gently).once(),
];

/// Groups that the daemon can hold (`--max-groups`).
const MAX_GROUPS: u64 = 256;
/// Groups that stay free in the gentle churn.
const FREE: u64 = 16;
/// The fast churn makes this many times as many cgroups as the gentle one.
const GENTLE: u64 = 10;
/// Number of cgroups after which all tables have been full.
const SETTLED: u64 = 1000;
/// Limit of the growth of memory from then on, bytes.
const GROWTH: u64 = 4 << 20;

/// Counts of each cgroup: metric, label, value of the label, number.
const COUNTED: &[(&str, &str, &str, u64)] = &[
    ("linger_closes_total", "outcome", "linger_aborted", 1),
    ("linger_closes_total", "outcome", "unread_aborted", 1),
    ("linger_closes_total", "outcome", "not_connected", 1),
    ("linger_resets_sent_total", "cause", "linger_aborted", 1),
    ("linger_resets_sent_total", "cause", "unread_aborted", 1),
    (
        "linger_unread_bytes_total",
        "cause",
        "",
        UNREAD.len() as u64,
    ),
];
const UNREAD: &[u8] = b"left unread";
/// Closes of each cgroup.
const CLOSES: u64 = 5;

/// Makes the closes of one cgroup's process. Does not allocate.
pub(crate) fn close_all(loopback: &Loopback) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    born::abort(client, server)?;
    let Pair { client, server } = loopback.pair()?;
    (&client).write_all(UNREAD)?;
    tcp::close(server)?;
    born::close_after_reset(client)?;
    tcp::close(loopback.socket()?)?;
    Ok(())
}

/// Cgroups that come and go, one after another.
#[derive(Default)]
struct Churn {
    most: u64,
    started: AtomicU64,
    done: AtomicU64,
    /// Number of cgroups that are allowed to start.
    admitted: AtomicU64,
    failed: AtomicU64,
}

impl Churn {
    /// Runs all cgroups as they are admitted, and compares with the kernel's own counters.
    fn run(&self, comm: &str) -> Result<()> {
        let result = netns::in_own(|| {
            let loopback = Loopback::new()?;
            for number in 0..self.most {
                while self.admitted.load(Ordering::Acquire) <= number {
                    thread::sleep(Duration::from_millis(1));
                }
                self.started.fetch_add(1, Ordering::AcqRel);
                let cgroup = Cgroup::new(&unit(number))?;
                // SAFETY: it only makes system calls.
                unsafe { cgroup.bear(comm, || close_all(&loopback)) }?;
                cgroup.remove()?;
                self.done.fetch_add(1, Ordering::AcqRel);
            }
            let counters = Counters::read()?;
            let expected = Counters {
                abort_on_data: self.most,
                abort_on_close: self.most,
                out_resets: 2 * self.most,
                ..Counters::default()
            };
            ensure!(counters == expected, "the kernel counted {counters:?}");
            Ok(())
        });
        self.failed
            .store(u64::from(result.is_err()), Ordering::Release);
        result
    }

    fn started(&self) -> u64 {
        self.started.load(Ordering::Acquire)
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    fn is_over(&self) -> bool {
        self.done() == self.most || self.failed.load(Ordering::Acquire) != 0
    }
}

fn unit(number: u64) -> String {
    format!("churn-{number}.service")
}

/// Expects the counts of at least `least` and at most `most` cgroups together.
///
/// Counts under `other` include those of the rest of the host; `linger_lost_total` says how many closes of the cgroups
/// are among them.
fn expect_counts(scrape: &Scrape, least: u64, most: u64) -> Result<()> {
    let homeless = lost(scrape, "group");
    for &(metric, label, value, each) in COUNTED {
        let of_label = |sample: &Sample| sample.label(label) == value;
        let own = sum(scrape, metric, |sample| {
            of_label(sample) && !is_other(sample)
        });
        let all = sum(scrape, metric, of_label);
        let reached = if homeless == 0 { own } else { all };
        ensure!(
            own <= most * each && least * each <= reached,
            "{metric} {value:?} is {own}, with others {all}, after {least} to {most} cgroups of {each}"
        );
    }
    let own = sum(scrape, "linger_closes_total", |sample| !is_other(sample));
    ensure!(
        (least * CLOSES..=most * CLOSES).contains(&(own + homeless)),
        "{own} closes and {homeless} under other, after {least} to {most} cgroups"
    );
    Ok(())
}

/// The churn as seen from outside.
struct Watch<'a> {
    daemon: &'a Daemon,
    churn: &'a Churn,
    comm: &'a str,
    /// Sums over all groups at the last scrape.
    sums: BTreeMap<(String, Vec<(String, String)>), f64>,
    /// Memory once it had settled, and now, bytes.
    memory: Option<(u64, u64)>,
    /// Units shown so far.
    shown: BTreeSet<String>,
}

impl Watch<'_> {
    /// Scrapes once and checks what it finds. Returns the number of groups in the map.
    fn look(&mut self) -> Result<u64> {
        let before = self.churn.done();
        let scrape = self.daemon.scrape()?;
        let after = self.churn.started();
        self.expect_no_fall(&scrape)?;
        expect_counts(&scrape, before, after)?;
        ensure!(lost(&scrape, "close") == 0, "closes are lost");
        self.expect_names(&scrape, before)?;
        let memory = sum(&scrape, "process_resident_memory_bytes", |_| true);
        if before >= SETTLED {
            let (first, now) = self.memory.get_or_insert((memory, memory));
            *now = memory;
            ensure!(
                memory <= *first + GROWTH,
                "memory grew from {first} to {memory} bytes"
            );
        }
        Self::expect_bounds(&scrape)
    }

    fn expect_no_fall(&mut self, scrape: &Scrape) -> Result<()> {
        const GROW: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];
        let mut sums = BTreeMap::new();
        for sample in &scrape.0 {
            if GROW.iter().any(|ending| sample.name.ends_with(ending)) {
                let labels = sample.labels.clone().into_iter();
                let labels = labels.filter(|(name, _)| !["unit", "comm"].contains(&name.as_str()));
                *sums
                    .entry((sample.name.clone(), labels.collect()))
                    .or_default() += sample.value;
            }
        }
        for (series, last) in &self.sums {
            let now = sums.get(series).copied().unwrap_or(f64::NAN);
            // Seconds are not whole: their sums depend on the order.
            ensure!(
                now >= last * (1.0 - 1e-9),
                "{series:?} fell from {last} to {now}"
            );
        }
        self.sums = sums;
        Ok(())
    }

    /// Expects the right name of every group and, once its process is done, all its closes.
    fn expect_names(&mut self, scrape: &Scrape, done: u64) -> Result<()> {
        let mut closes: BTreeMap<&str, u64> = BTreeMap::new();
        let of_churn = |sample: &&Sample| sample.label("comm") == self.comm;
        for sample in scrape.of("linger_closes_total").filter(of_churn) {
            *closes.entry(sample.label("unit")).or_default() += whole(sample.value);
        }
        for (unit, closes) in closes {
            let number = unit
                .strip_prefix("churn-")
                .and_then(|rest| rest.strip_suffix(".service")?.parse::<u64>().ok())
                .with_context(|| format!("a unit of no cgroup: {unit}"))?;
            // Beyond the bound, a group that finds a place late shows only the closes since.
            let whole = number < done && lost(scrape, "group") == 0;
            ensure!(
                closes == CLOSES || !whole && closes < CLOSES,
                "{closes} closes of {unit}"
            );
            self.shown.insert(unit.to_owned());
        }
        Ok(())
    }

    fn expect_bounds(scrape: &Scrape) -> Result<u64> {
        let in_map = |metric| sum(scrape, metric, |sample| sample.label("map") == "groups");
        let entries = in_map("linger_map_entries");
        let capacity = in_map("linger_map_capacity");
        ensure!(entries <= capacity, "{entries} groups, {capacity} fit");
        let groups: BTreeSet<_> = scrape
            .of("linger_closes_total")
            .map(|sample| (sample.label("unit"), sample.label("comm")))
            .collect();
        let shared = 2;
        ensure!(
            !groups.is_empty() && groups.len() as u64 <= MAX_GROUPS + shared,
            "{} groups are shown",
            groups.len()
        );
        Ok(entries)
    }

    /// Prints a summary.
    fn print_summary(&self) -> Result<()> {
        println!(
            "{} cgroups came and went, {} changes found no place; memory in bytes: {:?}",
            self.churn.most,
            lost(&self.daemon.scrape()?, "group"),
            self.memory
        );
        Ok(())
    }

    /// Checks that nothing is left in the end.
    fn finish(&mut self) -> Result<()> {
        self.look()?;
        let churn = self.churn;
        wait_until(self.daemon, |scrape| {
            let left = sum(scrape, "linger_map_entries", |sample| {
                sample.label("map") == "groups"
            });
            ensure!(left == 0, "{left} groups are left of {}", churn.most);
            Ok(())
        })?;
        self.look()?;
        Ok(())
    }
}

/// Runs a daemon, the churn, and a scraper that admits more cgroups: `admit` returns how many may have started, given
/// those that had before a scrape and the groups that it found.
fn run(
    lingerd: &Path,
    plan: Plan,
    cgroups: u64,
    admit: impl Fn(u64, u64) -> u64,
    check: impl Fn(&Watch) -> Result<()>,
) -> Result<()> {
    let comm = format!("{:x}-churn", process::id());
    let places = MAX_GROUPS.to_string();
    let bounds = ["--max-groups", &places, "--retire-after", "1s"];
    let daemon = Daemon::start(
        lingerd,
        plan,
        &[&bounds[..], &["--allow-comm", &comm]].concat(),
    )?;
    let churn = Churn {
        most: cgroups,
        ..Churn::default()
    };
    let mut watch = Watch {
        daemon: &daemon,
        churn: &churn,
        comm: &comm,
        sums: BTreeMap::new(),
        memory: None,
        shown: BTreeSet::new(),
    };
    thread::scope(|scope| {
        let work = scope.spawn(|| churn.run(&comm));
        let watched = loop {
            let started = churn.started();
            match watch.look() {
                Ok(groups) => churn
                    .admitted
                    .fetch_max(admit(started, groups), Ordering::AcqRel),
                Err(error) => break Err(error),
            };
            if churn.is_over() {
                break Ok(());
            }
        };
        // Nothing else admits cgroups: let the churn end without the watch.
        churn.admitted.store(u64::MAX, Ordering::Release);
        let worked = work
            .join()
            .map_err(|_| anyhow::anyhow!("the churn panicked"))?;
        watched.and(worked)
    })?;
    watch.finish()?;
    watch.print_summary()?;
    check(&watch)?;
    daemon.stop()
}

/// As fast as possible: the groups do not all fit.
fn fast(lingerd: &Path, plan: Plan, settings: Settings) -> Result<()> {
    run(lingerd, plan, settings.churn, |_, _| u64::MAX, |_| Ok(()))
}

/// Only as groups become free: all fit, and are shown under their names although they are gone.
fn gently(lingerd: &Path, plan: Plan, settings: Settings) -> Result<()> {
    run(
        lingerd,
        plan,
        settings.churn / GENTLE,
        |started, groups| started + (MAX_GROUPS - FREE).saturating_sub(groups),
        |watch| {
            let scrape = watch.daemon.scrape()?;
            let lost = lost(&scrape, "group");
            ensure!(lost == 0, "{lost} changes found no place");
            let (shown, all) = (watch.shown.len() as u64, watch.churn.most);
            ensure!(shown == all, "{shown} of {all} units were ever shown");
            Ok(())
        },
    )
}
