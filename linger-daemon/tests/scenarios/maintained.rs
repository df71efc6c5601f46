//! Reading the ledger changes nothing; only maintenance does what readings leave undone.

use std::collections::BTreeMap;
use std::mem;
use std::path::Path;
use std::process;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use linger_daemon::attribution::Cgroups;
use linger_daemon::config::Config;
use linger_daemon::exercise::tcp::{self, Loopback};
use linger_daemon::ledger::{Ledger, Snapshot};
use linger_daemon::metrics;
use linger_daemon::probe::{self, LoadOptions};
use linger_ebpf::{Counters, Fate, Plan};

use crate::born::Cgroup;
use crate::netns;
use crate::retired::leave;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario::daemon("reading_changes_nothing", reading_changes_nothing).once()];

/// Time that orphans, and groups whose cgroup is gone, are kept.
const PATIENCE: Duration = Duration::from_secs(1);
/// A multiple of [`PATIENCE`].
const LONGER: Duration = Duration::from_secs(2);
const UNIT: &str = "maintained.service";

/// The counters of this scenario's groups, by unit.
type Shown = BTreeMap<String, Counters>;

fn reading_changes_nothing(_: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let comm = format!("{:x}-read", process::id());
        let mut config = Config {
            orphan_ttl: PATIENCE,
            retire_after: PATIENCE,
            ..Config::default()
        };
        config.filter.allow.comms.insert(comm.clone());
        let (mut attached, mut ledger) =
            probe::attach_or_take_over(Some(plan), LoadOptions::default(), None, |maps| {
                Ledger::new(maps, Cgroups::of_host(), &config, metrics::series)
            })?;
        ledger.set_programs(mem::take(&mut attached.programs));
        // Accepted sockets inherit the filter: the orphan does not end.
        let loopback = Loopback::new()?;
        tcp::drop_data(loopback.listener())?;
        let cgroup = Cgroup::new(UNIT)?;
        // SAFETY: `leave` only makes system calls.
        unsafe { cgroup.bear(comm.as_str(), || leave(&loopback)) }?;
        let _server = loopback.accept()?;
        cgroup.remove()?;

        thread::sleep(LONGER);
        let left = expect(&ledger, UNIT, "the orphan is too old")?;
        ensure!(left.orphans.under_way() == 1, "{left:?}");

        ledger.maintain()?;
        let given_up = expect(&ledger, UNIT, "the orphan was given up")?;
        let unknown = given_up.orphans.ends[Fate::Unknown.index()];
        ensure!(
            unknown == 1 && given_up.orphans.under_way() == 0,
            "{given_up:?}"
        );

        thread::sleep(LONGER);
        let quiet = expect(&ledger, UNIT, "the group has not changed for long")?;
        ensure!(quiet == given_up, "{quiet:?}");

        ledger.maintain()?;
        let retired = expect(&ledger, "retired", "the group was retired")?;
        ensure!(retired == given_up, "{retired:?}");
        Ok(())
    })
}

/// Reads twice and expects the same counts, of this unit alone. Returns them.
fn expect(ledger: &Ledger, unit: &str, when: &str) -> Result<Counters> {
    let first = shown(&ledger.read()?);
    let second = shown(&ledger.read()?);
    ensure!(first == second, "{when}: {first:?}, and then {second:?}");
    let units: Vec<_> = first.keys().collect();
    ensure!(units == [unit], "{when}: shown are {units:?}");
    Ok(first[unit])
}

fn shown(snapshot: &Snapshot) -> Shown {
    let groups = snapshot.groups.iter().filter_map(|(labels, counters)| {
        let unit = labels.values().next()?;
        [UNIT, "retired"]
            .contains(&unit)
            .then(|| (unit.to_owned(), **counters))
    });
    groups.collect()
}
