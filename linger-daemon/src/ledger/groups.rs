//! The groups in the ledger: their names, and the series in which they are shown.

mod reading;
mod retire;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::maps::{HashMap as BpfMap, MapData};
use linger_ebpf::{Counters, Exe, Group, Path, key_field};
use tracing::{debug, warn};

pub(super) use self::reading::Reading;
use super::admission::Admission;
use super::group_counters::GroupCounters;
use super::notes::Notes;
use super::retired_totals::{RETIRED, RetiredTotals};
use super::{LedgerError, take};
use crate::attribution::{Cgroup, Cgroups, Labels, Namer, Names, comm};
use crate::config::Config;
use crate::probe::Maps;

/// All groups that have counters, with these, and with the maps that name and admit them.
pub(super) struct Groups {
    pub(super) counters: GroupCounters,
    pub(super) notes: Notes,
    /// Totals counted by the daemon, not by the programs.
    pub(super) retired_totals: RetiredTotals,
    /// Groups by [`Group::number`].
    numbers: BpfMap<MapData, u64, Group>,
    /// The paths of cgroups and executables, as recorded by the programs.
    cgroup_paths: BpfMap<MapData, u64, Path>,
    exe_paths: BpfMap<MapData, Exe, Path>,
    pub(super) namer: Namer,
    admission: Admission,
    known: HashMap<Group, KnownGroup>,
    /// The group whose counters are already added to those of others, but not yet removed: readings skip it.
    added: Option<Group>,
    /// Key fields in use, a set of [`key_field`] bits.
    key_fields: u32,
    capacity: usize,
    most_series: usize,
    /// Returns the number of series that counters are shown as.
    series: fn(&Counters) -> usize,
    /// How long series continue without changes when their cgroup is gone.
    retire_after: Duration,
    /// The labels of [`Group::SHARED`], in their order.
    pub(super) shared: [Arc<Labels>; Group::SHARED.len()],
    passes: u64,
    /// Number of groups ever seen.
    seen: u64,
}

struct KnownGroup {
    /// Its own labels, or those of retired groups if its cgroup is unknown.
    own: Arc<Labels>,
    is_other: bool,
    /// Its cgroup; `None` if that is not a key field, or is unknown.
    cgroup: Option<Arc<Cgroup>>,
    /// The sum of its counters when it last changed, and the time of that change.
    sum: u64,
    changed: Instant,
    /// Its number among all groups in the order in which they were first seen.
    first_seen: u64,
    /// The last pass that found it.
    pass: u64,
    /// Its orphans that had not ended at the last pass.
    orphans_under_way: u64,
}

impl Groups {
    pub(super) fn new(
        maps: &mut Maps,
        cgroups: Cgroups,
        config: &Config,
        series: fn(&Counters) -> usize,
    ) -> Result<Self, LedgerError> {
        let namer = Namer::new(config.labels.as_slice().into(), cgroups);
        let all = |value| Arc::new(Labels::new(vec![value; config.labels.len()]));
        let mut groups = Self {
            counters: GroupCounters::take(maps)?,
            notes: Notes::take(maps)?,
            retired_totals: RetiredTotals::new(maps)?,
            numbers: take(maps, "NUMBERS")?,
            cgroup_paths: take(maps, "CGROUPS")?,
            exe_paths: take(maps, "EXES")?,
            namer,
            admission: Admission::new(maps, config)?,
            known: HashMap::new(),
            added: None,
            key_fields: config.key_fields(),
            capacity: config.max_groups as usize,
            most_series: config.max_series as usize,
            series,
            retire_after: config.retire_after,
            shared: ["other", "retired", ""].map(all),
            passes: 0,
            seen: 0,
        };
        // Another daemon may have ended after adding counters to others and before removing them.
        groups.clear_already_added()?;
        Ok(groups)
    }

    /// Applies the settings that can change. The counts of a group move to where it is shown from now on.
    pub(super) fn reconfigure(&mut self, config: &Config) -> Result<(), LedgerError> {
        self.retire_after = config.retire_after;
        self.most_series = config.max_series as usize;
        self.admission.set(config)?;
        for (group, known) in &mut self.known {
            if known.is_other {
                // Its series may fit again.
                self.notes.set_most_series(group, 0)?;
            }
            if let Some(cgroup) = &known.cgroup {
                self.admission
                    .apply_to_cgroup(group.cgroup_id, &cgroup.names.unit);
            }
        }
        // Only now: if this fails halfway, all groups stay where they are.
        for (group, known) in &mut self.known {
            let cgroup = known.cgroup.as_deref();
            known.is_other = is_left_out(&self.admission, self.key_fields, group, cgroup);
        }
        Ok(())
    }

    pub(super) fn names(&mut self, cgroup_ids: &[u64]) -> Vec<Option<Names>> {
        let recorded = |id| self.cgroup_paths.get(&id, 0).ok();
        self.namer.names(cgroup_ids, recorded)
    }

    /// Reads the counts of all groups, and those of the past. Nothing changes: new groups are named again by each
    /// reading, until [`Self::learn`].
    pub(super) fn read(&self) -> Result<Reading, LedgerError> {
        let mut reading = Reading::default();
        let mut seen = self.seen;
        let mut cgroups = HashMap::new();
        let recorded = |id| self.cgroup_paths.get(&id, 0).ok();
        let mut unnamed = Vec::new();
        self.counters.for_each(|group, counters| {
            if self.added == Some(*group) {
                return;
            }
            self.notes.add_to(group, counters);
            if let Some(known) = self.known.get(group) {
                return reading.add(group, known, counters, self);
            }
            seen += 1;
            let mut cgroup = None;
            if self.key_fields & key_field::CGROUP != 0 {
                let id = group.cgroup_id;
                let found = cgroups.entry(id);
                cgroup.clone_from(found.or_insert_with(|| self.namer.look_up(id, recorded)));
                if cgroup.is_none() {
                    return unnamed.push((*group, seen));
                }
            }
            reading.add_new(group, self.identify(group, cgroup, seen), counters, self);
        })?;
        let ids = unnamed.iter().map(|(group, _)| group.cgroup_id).collect();
        let searched = self.namer.search(ids);
        for (group, first_seen) in unnamed {
            if let Some(counters) = self.counts(&group)? {
                let cgroup = searched.get(&group.cgroup_id).cloned();
                let known = self.identify(&group, cgroup, first_seen);
                reading.add_new(&group, known, &counters, self);
            }
        }
        let past = &self.retired_totals.past.counters;
        for (labels, counters) in self.shared.iter().zip(past) {
            reading.show(labels, counters);
        }
        reading.bound(self);
        Ok(reading)
    }

    /// Names a group that is seen for the first time, as the one with this number.
    fn identify(&self, group: &Group, cgroup: Option<Arc<Cgroup>>, first_seen: u64) -> KnownGroup {
        let own = if self.key_fields & key_field::CGROUP != 0 && cgroup.is_none() {
            // Its cgroup is gone, and its name is unknown.
            Arc::clone(&self.shared[RETIRED])
        } else {
            let exe = |exe: &Exe| self.exe_paths.get(exe, 0).ok();
            Arc::new(self.namer.labels(group, cgroup.as_deref(), exe))
        };
        let had_no_room = self.notes.most_series(group) >= self.most_series as u64;
        KnownGroup {
            own,
            is_other: had_no_room
                || is_left_out(&self.admission, self.key_fields, group, cgroup.as_deref()),
            cgroup,
            sum: 0,
            changed: Instant::now(),
            first_seen,
            pass: 0,
            orphans_under_way: 0,
        }
    }

    /// Records the results of a reading: the new groups, the groups that have changed, and those shown under `other`
    /// from now on because there are too many series.
    pub(super) fn learn(&mut self, reading: Reading) -> Result<(), LedgerError> {
        self.passes += 1;
        self.namer.end_pass();
        for (group, known) in reading.new {
            self.seen = self.seen.max(known.first_seen);
            if self.key_fields & key_field::CGROUP != 0 {
                self.namer.learn(group.cgroup_id, known.cgroup.as_ref());
                if let Some(cgroup) = &known.cgroup {
                    self.admission
                        .apply_to_cgroup(group.cgroup_id, &cgroup.names.unit);
                } else {
                    debug!(?group, "found a group whose cgroup is unknown");
                }
            }
            self.known.insert(group, known);
        }
        let now = Instant::now();
        for found in reading.found {
            let Some(known) = self.known.get_mut(&found.group) else {
                continue;
            };
            if known.sum != found.sum {
                (known.sum, known.changed) = (found.sum, now);
            }
            known.pass = self.passes;
            known.orphans_under_way = found.orphans_under_way;
        }
        let passes = self.passes;
        self.known.retain(|_, known| known.pass == passes);
        self.keep_bound(&reading.too_many)
    }

    /// Shows the groups of these series under `other` from now on.
    fn keep_bound(&mut self, too_many: &HashSet<Arc<Labels>>) -> Result<(), LedgerError> {
        if too_many.is_empty() {
            return Ok(());
        }
        let most = self.most_series;
        warn!(
            groups = too_many.len(),
            "more than {most} series: these groups are shown under other; see max-series"
        );
        for (group, known) in &mut self.known {
            if !known.is_other && too_many.contains(&known.own) {
                self.notes.set_most_series(group, most as u64)?;
                known.is_other = true;
            }
        }
        Ok(())
    }
}

/// Whether a group is shown under `other` because of the configured lists.
fn is_left_out(
    admission: &Admission,
    key_fields: u32,
    group: &Group,
    cgroup: Option<&Cgroup>,
) -> bool {
    let unit = cgroup.map(|cgroup| cgroup.names.unit.as_str());
    let comm = (key_fields & key_field::COMM != 0).then(|| comm(group.comm));
    !admission.admits(unit, comm.as_deref())
}

impl KnownGroup {
    /// Whether it is shown with labels of its own, not under `other` or `retired`.
    fn has_series(&self, retired: &Arc<Labels>) -> bool {
        !self.is_other && !Arc::ptr_eq(&self.own, retired)
    }
}
