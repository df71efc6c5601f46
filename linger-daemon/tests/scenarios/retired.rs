//! Orphans of a cgroup that is gone: it is retired when the last of them has ended.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use linger_daemon::exercise::tcp::{self, Family, Loopback};
use linger_ebpf::Plan;
use linger_testkit::exposition::Scrape;
use socket2::Socket;

use crate::born::Cgroup;
use crate::churn;
use crate::closes::{lost, wait_until, whole};
use crate::daemon::Daemon;
use crate::netns;
use crate::scenario::{Scenario, Script};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("retired_exactly", Script::Daemon(retired)).once(),
    Scenario::new("retired_with_its_series", Script::Daemon(restarted)).once(),
    Scenario::new("series_goes_on", Script::Daemon(restarted_often)).once(),
];

const PATIENCE: &str = "1s";
/// A multiple of that.
const LONGER: Duration = Duration::from_secs(2);
/// What each close leaves to the kernel.
const MESSAGE: &[u8] = b"left to the kernel";
const ORPHANS: usize = 3;

fn retired(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let comm = format!("{:x}-gone", process::id());
        let options = ["--retire-after", PATIENCE, "--allow-comm", &comm];
        let daemon = Daemon::start(lingerd, plan, &options)?;
        let cgroup = Cgroup::new("gone.service")?;
        let unit = cgroup.unit().to_owned();
        let loopback = Loopback::new(Family::V4)?;
        // Accepted sockets inherit it.
        tcp::drop_data(loopback.listener())?;
        let leave = || (0..ORPHANS).try_for_each(|_| leave(&loopback));
        // SAFETY: it does nothing but call the kernel.
        unsafe { cgroup.bear(&CString::new(comm)?, leave) }?;
        let mut servers = (0..ORPHANS)
            .map(|_| loopback.accept())
            .collect::<Result<Vec<_>, _>>()?;
        cgroup.remove()?;

        while let Some(server) = servers.pop() {
            let of_unit = Place::of(&daemon.scrape()?, &unit);
            ensure!(
                of_unit == Place::with_orphans(servers.len() + 1),
                "before the end of an orphan: {of_unit:?}"
            );
            look_for(LONGER, &daemon, |scrape| {
                ensure!(
                    Place::of(scrape, &unit) == of_unit,
                    "{:?}",
                    Place::of(scrape, &unit)
                );
                ensure!(
                    Place::of(scrape, "retired") == Place::default(),
                    "retired early"
                );
                Ok(())
            })?;
            tcp::accept_data(&server)?;
            tcp::receive_all(&server)?;
            drop(server);
            let ended = Place::with_orphans(servers.len());
            if !servers.is_empty() {
                wait_until(&daemon, |scrape| {
                    let found = Place::of(scrape, &unit);
                    ensure!(found == ended, "an orphan has ended: {found:?}");
                    Ok(())
                })?;
            }
        }
        let all = Place::with_orphans(0);
        wait_until(&daemon, |scrape| {
            let (unit, retired) = (Place::of(scrape, &unit), Place::of(scrape, "retired"));
            // At every moment it is at one of the two.
            let is_either = unit == Place::default() || retired == Place::default();
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
            let retired = Place::of(scrape, "retired");
            ensure!(retired == all, "later: {retired:?}");
            Ok(())
        })?;
        daemon.stop()
    })
}

/// A unit that is started anew has a new cgroup, and the series of the old one, which never fall.
fn restarted(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let comm = format!("{:x}-anew", process::id());
        let options = ["--retire-after", PATIENCE, "--allow-comm", &comm];
        let daemon = Daemon::start(lingerd, plan, &options)?;
        let comm = CString::new(comm)?;
        let loopback = Loopback::new(Family::V4)?;
        let start = || -> Result<Cgroup> {
            let cgroup = Cgroup::new("anew.service")?;
            // SAFETY: it does nothing but call the kernel.
            unsafe { cgroup.bear(&comm, || tcp::close(loopback.socket()?).map(drop)) }?;
            Ok(cgroup)
        };
        let closes = |scrape: &Scrape, unit: &str| -> u64 {
            let place = Place::of(scrape, unit);
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

/// A unit that is started anew again and again takes few places, and no count of its series ever falls.
fn restarted_often(lingerd: &Path, plan: Plan) -> Result<()> {
    const PLACES: &str = "8";
    const STARTS: u64 = 24;
    /// Between two starts: a few of them are within the time that the gone are kept where places are few.
    const PAUSE: Duration = Duration::from_millis(300);
    netns::in_own(|| {
        let comm = format!("{:x}-often", process::id());
        let options = ["--max-groups", PLACES, "--allow-comm", &comm];
        let daemon = Daemon::start(lingerd, plan, &options)?;
        let comm = CString::new(comm)?;
        let loopback = Loopback::new(Family::V4)?;
        let mut each = None;
        for starts in 1..=STARTS {
            let cgroup = Cgroup::new("often.service")?;
            // SAFETY: it does nothing but call the kernel.
            unsafe { cgroup.bear(&comm, || churn::close_all(&loopback)) }?;
            let unit = cgroup.unit().to_owned();
            cgroup.remove()?;
            let each = each.get_or_insert(Place::of(&daemon.scrape()?, &unit));
            look_for(PAUSE, &daemon, |scrape| {
                let found = Place::of(scrape, &unit);
                ensure!(
                    found == each.times(starts),
                    "after {starts} starts of {each:?}: {found:?}"
                );
                let retired = Place::of(scrape, "retired");
                ensure!(retired == Place::default(), "retired: {retired:?}");
                let homeless = lost(scrape, "group");
                ensure!(homeless == 0, "{homeless} changes found no place");
                Ok(())
            })?;
        }
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

/// Scrapes for a time, in which nothing may be wrong.
fn look_for(time: Duration, daemon: &Daemon, wrong: impl Fn(&Scrape) -> Result<()>) -> Result<()> {
    const LOOKS: u32 = 40;
    (0..LOOKS).try_for_each(|_| {
        thread::sleep(time / LOOKS);
        wrong(&daemon.scrape()?)
    })
}

/// What stands for a unit: the values of its metrics that are not 0, by their names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Place(BTreeMap<String, u64>);

impl Place {
    /// What a scrape says, times aside.
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

    /// So many times as much.
    fn times(&self, factor: u64) -> Self {
        let values = self.0.iter();
        Self(
            values
                .map(|(name, value)| (name.clone(), factor * value))
                .collect(),
        )
    }

    /// What all closes come to while so many of the orphans are under way.
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
