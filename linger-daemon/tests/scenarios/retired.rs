//! Orphans of a cgroup that is gone: it is retired when its last orphan has ended.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::process;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use linger_daemon::exercise::tcp::{self, Loopback};
use linger_ebpf::Plan;
use linger_testkit::exposition::Scrape;
use socket2::Socket;

use crate::born::Cgroup;
use crate::churn;
use crate::closes::{lost, wait_until, whole};
use crate::daemon::Daemon;
use crate::netns;
use crate::pinned::Pinned;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::daemon("retired_exactly", retired).once(),
    Scenario::daemon("retired_with_its_series", restarted).once(),
    Scenario::daemon("retired_once", not_removed).once(),
    Scenario::daemon("retired_after_its_last_close", closed_last).once(),
    Scenario::daemon("series_goes_on", restarted_often).once(),
];

const PATIENCE: &str = "1s";
/// A multiple of [`PATIENCE`].
const LONGER: Duration = Duration::from_secs(2);
/// Data that each close leaves to the kernel.
pub(crate) const MESSAGE: &[u8] = b"left to the kernel";
const ORPHANS: usize = 3;

fn retired(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let comm = format!("{:x}-gone", process::id());
        let options = ["--retire-after", PATIENCE, "--allow-comm", &comm];
        let daemon = Daemon::start(lingerd, plan, &options)?;
        let cgroup = Cgroup::new("gone.service")?;
        let unit = cgroup.unit().to_owned();
        let loopback = Loopback::new()?;
        // Accepted sockets inherit the filter.
        tcp::drop_data(loopback.listener())?;
        let leave = || (0..ORPHANS).try_for_each(|_| leave(&loopback));
        // SAFETY: it only makes system calls.
        unsafe { cgroup.bear(comm, leave) }?;
        let mut servers = (0..ORPHANS)
            .map(|_| loopback.accept())
            .collect::<Result<Vec<_>, _>>()?;
        cgroup.remove()?;

        while let Some(server) = servers.pop() {
            let of_unit = UnitMetrics::of(&daemon.scrape()?, &unit);
            ensure!(
                of_unit == UnitMetrics::with_orphans(servers.len() + 1),
                "before the end of an orphan: {of_unit:?}"
            );
            look_for(LONGER, &daemon, |scrape| {
                ensure!(
                    UnitMetrics::of(scrape, &unit) == of_unit,
                    "{:?}",
                    UnitMetrics::of(scrape, &unit)
                );
                ensure!(
                    UnitMetrics::of(scrape, "retired") == UnitMetrics::default(),
                    "retired early"
                );
                Ok(())
            })?;
            tcp::accept_data(&server)?;
            tcp::receive_all(&server)?;
            drop(server);
            let ended = UnitMetrics::with_orphans(servers.len());
            if !servers.is_empty() {
                wait_until(&daemon, |scrape| {
                    let found = UnitMetrics::of(scrape, &unit);
                    ensure!(found == ended, "an orphan has ended: {found:?}");
                    Ok(())
                })?;
            }
        }
        let all = UnitMetrics::with_orphans(0);
        wait_until(&daemon, |scrape| {
            let (unit, retired) = (
                UnitMetrics::of(scrape, &unit),
                UnitMetrics::of(scrape, "retired"),
            );
            // At every moment the counts are under one of the two.
            let is_either = unit == UnitMetrics::default() || retired == UnitMetrics::default();
            ensure!(is_either, "twice: {unit:?} and {retired:?}");
            ensure!(retired == all, "retired: {retired:?}; not yet: {unit:?}");
            ensure!(
                !scrape
                    .0
                    .iter()
                    .any(|sample| sample.label("unit") == "gone.service")
            );
            Ok(())
        })?;
        look_for(LONGER, &daemon, |scrape| {
            let retired = UnitMetrics::of(scrape, "retired");
            ensure!(retired == all, "later: {retired:?}");
            Ok(())
        })?;
        daemon.stop()
    })
}

/// Counts of a retired group are not counted twice when the kernel does not let the daemon remove the group.
fn not_removed(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let pinned = Pinned::new()?;
        let comm = format!("{:x}-stays", process::id());
        let options = ["--retire-after", PATIENCE, "--allow-comm", &comm];
        let mut daemon = pinned.start(lingerd, plan, &options)?;
        let loopback = Loopback::new()?;
        let cgroup = Cgroup::new("stays.service")?;
        let close = || tcp::close(loopback.socket()?).map(drop);
        // SAFETY: it only makes system calls.
        unsafe { cgroup.bear(comm, close) }?;
        let unit = cgroup.unit().to_owned();
        let closes = |scrape: &Scrape| {
            ["retired", &unit].map(|unit| {
                let place = UnitMetrics::of(scrape, unit);
                place.0.get("linger_closes_total").copied().unwrap_or(0)
            })
        };
        wait_until(&daemon, |scrape| {
            ensure!(closes(scrape) == [0, 1], "the close");
            Ok(())
        })?;
        pinned.freeze_ledger()?;
        cgroup.remove()?;
        wait_until(&daemon, |scrape| {
            let found = closes(scrape);
            ensure!(found[0] > 0, "retired, and of the unit: {found:?}");
            Ok(())
        })?;
        look_for(LONGER, &daemon, |scrape| {
            let found = closes(scrape);
            ensure!(found == [1, 0], "retired, and of the unit: {found:?}");
            Ok(())
        })?;
        // Its maintenance fails, so it would not end with success.
        daemon.kill()
    })
}

/// A unit that restarts has a new cgroup, and goes on with the series of the old one, which never fall.
fn restarted(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let comm = format!("{:x}-anew", process::id());
        let options = ["--retire-after", PATIENCE, "--allow-comm", &comm];
        let daemon = Daemon::start(lingerd, plan, &options)?;
        let loopback = Loopback::new()?;
        let start = || -> Result<Cgroup> {
            let cgroup = Cgroup::new("anew.service")?;
            // SAFETY: it only makes system calls.
            unsafe { cgroup.bear(comm.as_str(), || tcp::close(loopback.socket()?).map(drop)) }?;
            Ok(cgroup)
        };
        let closes = |scrape: &Scrape, unit: &str| -> u64 {
            let place = UnitMetrics::of(scrape, unit);
            place.0.get("linger_closes_total").copied().unwrap_or(0)
        };
        let first = start()?;
        let unit = first.unit().to_owned();
        wait_until(&daemon, |scrape| {
            ensure!(closes(scrape, &unit) == 1, "the first close");
            Ok(())
        })?;
        first.remove()?;
        let second = start()?;
        look_for(LONGER, &daemon, |scrape| {
            let found = (closes(scrape, &unit), closes(scrape, "retired"));
            ensure!(found == (2, 0), "of the unit and retired: {found:?}");
            Ok(())
        })?;
        second.remove()?;
        wait_until(&daemon, |scrape| {
            let found = (closes(scrape, &unit), closes(scrape, "retired"));
            ensure!(found == (0, 2), "of the unit and retired: {found:?}");
            Ok(())
        })?;
        daemon.stop()
    })
}

/// A unit that restarts again and again takes few places, and no count of its series ever falls.
fn restarted_often(lingerd: &Path, plan: Plan) -> Result<()> {
    const PLACES: &str = "8";
    const STARTS: u64 = 24;
    /// Pause between two starts: a few fit in the time that groups without a cgroup are kept when places are few.
    const PAUSE: Duration = Duration::from_millis(300);
    netns::in_own(|| {
        let comm = format!("{:x}-often", process::id());
        let options = ["--max-groups", PLACES, "--allow-comm", &comm];
        let daemon = Daemon::start(lingerd, plan, &options)?;
        let loopback = Loopback::new()?;
        let mut each = None;
        for starts in 1..=STARTS {
            let cgroup = Cgroup::new("often.service")?;
            // SAFETY: it only makes system calls.
            unsafe { cgroup.bear(comm.as_str(), || churn::close_all(&loopback)) }?;
            let unit = cgroup.unit().to_owned();
            cgroup.remove()?;
            let each = each.get_or_insert(UnitMetrics::of(&daemon.scrape()?, &unit));
            look_for(PAUSE, &daemon, |scrape| {
                let found = UnitMetrics::of(scrape, &unit);
                ensure!(
                    found == each.times(starts),
                    "after {starts} starts of {each:?}: {found:?}"
                );
                let retired = UnitMetrics::of(scrape, "retired");
                ensure!(retired == UnitMetrics::default(), "retired: {retired:?}");
                let homeless = lost(scrape, "group");
                ensure!(homeless == 0, "{homeless} changes found no place");
                Ok(())
            })?;
        }
        daemon.stop()
    })
}

/// A cgroup whose last close, after a quiet time, leaves an orphan just before it is removed, is not retired by a
/// maintenance pass that has read its counters before.
fn closed_last(lingerd: &Path, plan: Plan) -> Result<()> {
    /// Quiet cgroups that are still there: a pass looks for all of them, which takes time.
    const QUIET: usize = 600;
    /// Cgroups with a last close: some of them come at the worst time.
    const LAST: usize = 100;
    netns::in_own(|| {
        let comm = format!("{:x}-last", process::id());
        let options = ["--retire-after", PATIENCE, "--allow-comm", &comm];
        let daemon = Daemon::start(lingerd, plan, &options)?;
        let loopback = Loopback::new()?;
        let start = |name: String| -> Result<Cgroup> {
            let cgroup = Cgroup::new(&name)?;
            // SAFETY: it only makes system calls.
            unsafe { cgroup.bear(comm.as_str(), || tcp::close(loopback.socket()?).map(drop)) }?;
            Ok(cgroup)
        };
        let quiet = (0..QUIET).map(|number| start(format!("quiet{number}.service")));
        let quiet = quiet.collect::<Result<Vec<_>>>()?;
        let last = (0..LAST).map(|number| start(format!("last{number}.service")));
        let last = last.collect::<Result<Vec<_>>>()?;
        // Accepted sockets inherit the filter.
        tcp::drop_data(loopback.listener())?;
        thread::sleep(LONGER);
        let mut servers = Vec::new();
        for cgroup in last {
            // Maintenance follows readings.
            daemon.scrape()?;
            // SAFETY: it only makes system calls.
            unsafe { cgroup.bear(comm.as_str(), || leave(&loopback)) }?;
            cgroup.remove()?;
            servers.push(loopback.accept()?);
        }
        let scrape = daemon.scrape()?;
        let retired = UnitMetrics::of(&scrape, "retired");
        ensure!(retired == UnitMetrics::default(), "retired: {retired:?}");
        drop((servers, quiet));
        daemon.stop()
    })
}

/// Closes a connection whose data has not arrived.
pub(crate) fn leave(loopback: &Loopback) -> io::Result<()> {
    let client: Socket = loopback.connect()?;
    (&client).write_all(MESSAGE)?;
    tcp::close(client)?;
    Ok(())
}

/// Scrapes for a time, during which nothing may be wrong.
fn look_for(time: Duration, daemon: &Daemon, wrong: impl Fn(&Scrape) -> Result<()>) -> Result<()> {
    const LOOKS: u32 = 40;
    (0..LOOKS).try_for_each(|_| {
        thread::sleep(time / LOOKS);
        wrong(&daemon.scrape()?)
    })
}

/// Metrics of a unit: the values other than 0, by name.
#[derive(Debug, Default, PartialEq, Eq)]
struct UnitMetrics(BTreeMap<String, u64>);

impl UnitMetrics {
    /// Returns the metrics of a unit in a scrape, except times.
    fn of(scrape: &Scrape, unit: &str) -> Self {
        let mut place = BTreeMap::<_, u64>::new();
        for sample in &scrape.0 {
            let is_time = sample.name.contains("_seconds");
            if sample.label("unit") == unit && !is_time && sample.value != 0.0 {
                *place.entry(sample.name.clone()).or_default() += whole(sample.value);
            }
        }
        Self(place)
    }

    /// Multiplies all values.
    fn times(&self, factor: u64) -> Self {
        let values = self.0.iter();
        Self(
            values
                .map(|(name, value)| (name.clone(), factor * value))
                .collect(),
        )
    }

    /// Returns the metrics after all closes, while this many orphans are active.
    fn with_orphans(under_way: usize) -> Self {
        let ended = (ORPHANS - under_way) as u64;
        let bytes = MESSAGE.len() as u64;
        let all = ORPHANS as u64;
        let place = [
            ("linger_closes_total", all),
            ("linger_orphaned_bytes_total", all * bytes),
            ("linger_orphans_active", under_way as u64),
            ("linger_orphans_total", ended),
            ("linger_orphan_delivered_bytes_total", ended * bytes),
        ];
        let place = place.into_iter().filter(|(_, value)| *value > 0);
        Self(
            place
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    }
}
