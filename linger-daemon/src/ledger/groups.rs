//! The groups in the ledger: who they are, and where they are shown.

mod retire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::maps::{HashMap as BpfMap, MapData};
use linger_ebpf::{Counters, Group, Past, keyed};
use tracing::{debug, warn};

use super::admission::Admission;
use super::bound::beyond;
use super::notes::{GivenUp, Notes};
use super::percpu::PerCpu;
use super::sum::add;
use super::totals::Totals;
use super::written::Written;
use super::{LedgerError, take};
use crate::attribution::{Cgroup, Cgroups, Dimension, Labels, Namer, Names, comm};
use crate::config::Config;
use crate::probe::Maps;

/// The groups of the ledger.
pub(super) struct Groups {
    notes: Notes,
    numbers: BpfMap<MapData, u64, Group>,
    written: Written,
    namer: Namer,
    admission: Admission,
    known: HashMap<Group, Known>,
    /// What of groups is asked for, a set of [`keyed`] bits.
    keyed: u32,
    /// How many find a place.
    most: usize,
    /// How many series they may have.
    most_series: usize,
    /// How many series a group is shown as.
    series: fn(&Counters) -> usize,
    /// How long the gone are kept.
    patience: Duration,
    other: Arc<Labels>,
    retired: Arc<Labels>,
    nobody: Arc<Labels>,
    /// How many readings there were, and how many groups were ever met.
    passes: u64,
    met: u64,
}

/// The places of [`Group::SHARED`].
const OTHER: usize = 0;
const RETIRED: usize = 1;

/// A group that has counters.
struct Known {
    /// Its own labels, or those of the retired if no one knows what it was.
    own: Arc<Labels>,
    /// It is shown under `other` all the same.
    is_other: bool,
    /// Where it is; none if that is not asked for, or if no one knows it any more.
    cgroup: Option<Arc<Cgroup>>,
    /// All that its counters added up to when it last changed, and when that was.
    sum: u64,
    changed: Instant,
    /// How many groups were met before it.
    met: u64,
    now: Pass,
}

/// What one reading of the ledger found of a group.
struct Pass {
    number: u64,
    slot: usize,
    sum: u64,
    orphans_under_way: u64,
}

impl Pass {
    /// Not read yet.
    const NONE: Self = Self {
        number: 0,
        slot: 0,
        sum: 0,
        orphans_under_way: 0,
    };
}

impl Groups {
    /// Takes the maps.
    pub(super) fn new(
        maps: &mut Maps,
        cgroups: Cgroups,
        config: &Config,
        series: fn(&Counters) -> usize,
    ) -> Result<Self, LedgerError> {
        let namer = Namer::new(config.labels.as_slice().into(), cgroups);
        let [other, retired, nobody] =
            ["other", "retired", ""].map(|value| Arc::new(namer.all(value)));
        Ok(Self {
            notes: Notes::take(maps)?,
            numbers: take(maps, "NUMBERS")?,
            written: Written::take(maps)?,
            namer,
            admission: Admission::new(maps, config)?,
            known: HashMap::new(),
            keyed: config.keyed(),
            most: config.max_groups as usize,
            most_series: config.max_series as usize,
            series,
            patience: config.retire_after,
            other,
            retired,
            nobody,
            passes: 0,
            met: 0,
        })
    }

    /// Takes over what of the configuration can change. What groups have counted moves to where they
    /// are shown from now on.
    pub(super) fn reconfigure(&mut self, config: &Config) -> Result<(), LedgerError> {
        self.patience = config.retire_after;
        self.most_series = config.max_series as usize;
        self.admission.set(config)?;
        for (group, known) in &mut self.known {
            if known.is_other {
                // It may find room again.
                self.notes.set_most_series(group, 0)?;
            }
            let cgroup = known.cgroup.as_deref();
            known.is_other = is_left_out(group, cgroup, self.keyed, &mut self.admission);
        }
        Ok(())
    }

    /// What the labels stand for.
    pub(super) fn dimensions(&self) -> &Arc<[Dimension]> {
        self.namer.dimensions()
    }

    /// The names of cgroups; none of one that no one knows any more.
    pub(super) fn names(&mut self, cgroup_ids: &[u64]) -> Vec<Option<Names>> {
        self.namer.find(cgroup_ids.iter().copied(), &self.written);
        let ids = cgroup_ids.iter();
        ids.map(|id| self.namer.names(*id, &self.written)).collect()
    }

    /// How many groups have counters.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Counts an orphan of a group that was given up.
    pub(super) fn give_up(&mut self, group: &Group, given_up: GivenUp) -> Result<(), LedgerError> {
        self.notes.give_up(group, given_up)
    }

    /// The labels of [`Group::SHARED`], in their order.
    pub(super) fn shared_labels(&self) -> [&Arc<Labels>; Group::SHARED.len()] {
        [&self.other, &self.retired, &self.nobody]
    }

    /// Adds what every group counted, and those of the past.
    pub(super) fn read(
        &mut self,
        counters: &mut PerCpu<Group>,
        past: &Past,
        totals: &mut Totals,
    ) -> Result<(), LedgerError> {
        self.passes += 1;
        self.namer.rest();
        let started = Instant::now();
        let mut unnamed = Vec::new();
        counters.for_each(|group, counters| {
            self.notes.add_to(group, counters);
            if !self.add(group, counters, totals) {
                if self.is_named(group) {
                    self.add_new(group, counters, totals, started);
                } else {
                    unnamed.push(*group);
                }
            }
        })?;
        let ids = unnamed.iter().map(|group| group.cgroup_id);
        self.namer.find(ids, &self.written);
        for group in &unnamed {
            if let Some(mut counters) = counters.get(group)? {
                self.notes.add_to(group, &mut counters);
                self.add_new(group, &counters, totals, started);
            }
        }
        let passes = self.passes;
        self.known.retain(|_, known| known.now.number == passes);
        for known in self.known.values_mut() {
            if known.sum != known.now.sum {
                (known.sum, known.changed) = (known.now.sum, started);
            }
        }
        for (labels, counters) in self.shared_labels().into_iter().zip(&past.counters) {
            add(totals.of(labels), counters);
        }
        Ok(())
    }

    /// Adds what a group counted that is known; whether it is.
    fn add(&mut self, group: &Group, counters: &Counters, totals: &mut Totals) -> bool {
        let known = self.known.get_mut(group);
        known
            .map(|known| known.add(self.passes, &self.other, counters, totals))
            .is_some()
    }

    /// Adds what a group counted that is met for the first time.
    fn add_new(&mut self, group: &Group, counters: &Counters, totals: &mut Totals, now: Instant) {
        let mut known = self.meet(group, now);
        known.add(self.passes, &self.other, counters, totals);
        self.known.insert(*group, known);
    }

    /// Whether it is known who a group is without a search among all cgroups.
    fn is_named(&mut self, group: &Group) -> bool {
        let is_keyed = self.keyed & keyed::CGROUP != 0;
        !is_keyed || self.namer.cgroup(group.cgroup_id, &self.written).is_some()
    }

    /// A group is met for the first time.
    fn meet(&mut self, group: &Group, now: Instant) -> Known {
        self.met += 1;
        let by_cgroup = self.keyed & keyed::CGROUP != 0;
        let cgroup = by_cgroup
            .then(|| self.namer.cgroup(group.cgroup_id, &self.written))
            .flatten();
        let own = if by_cgroup && cgroup.is_none() {
            // No one knows what it was: it is gone.
            debug!(?group, "met a group whose cgroup is unknown");
            Arc::clone(&self.retired)
        } else {
            Arc::new(self.namer.labels(group, cgroup.as_deref(), &self.written))
        };
        let had_no_room = self.notes.most_series(group) >= self.most_series as u64;
        let is_left_out = is_left_out(group, cgroup.as_deref(), self.keyed, &mut self.admission);
        Known {
            own,
            is_other: had_no_room || is_left_out,
            cgroup,
            sum: 0,
            changed: now,
            met: self.met,
            now: Pass::NONE,
        }
    }

    /// Shows the last met groups under `other`, from now on, if there are more series than there may
    /// be.
    pub(super) fn bound(&mut self, totals: &mut Totals) -> Result<(), LedgerError> {
        let mut met: HashMap<usize, u64> = HashMap::new();
        let shown = |known: &&Known| known.has_series(&self.retired);
        for known in self.known.values().filter(shown) {
            let first = met.entry(known.now.slot).or_insert(known.met);
            *first = known.met.min(*first);
        }
        let groups = totals.iter();
        let groups = groups.filter_map(|(slot, counters)| Some((*met.get(&slot)?, slot, counters)));
        let too_many = beyond(groups, self.most_series, self.series);
        if too_many.is_empty() {
            return Ok(());
        }
        let most = self.most_series;
        warn!(
            groups = too_many.len(),
            "more than {most} series: these groups are shown under other; see max-series"
        );
        for (group, known) in &mut self.known {
            if !known.is_other && too_many.contains(&known.now.slot) {
                self.notes.set_most_series(group, most as u64)?;
                known.is_other = true;
            }
        }
        for slot in too_many {
            totals.fold(slot, &self.other);
        }
        Ok(())
    }
}

impl Known {
    /// Whether it is shown by itself, and not under `other` or `retired`.
    fn has_series(&self, retired: &Arc<Labels>) -> bool {
        !self.is_other && !Arc::ptr_eq(&self.own, retired)
    }

    /// Adds what it counted, in this reading.
    fn add(&mut self, pass: u64, other: &Arc<Labels>, counters: &Counters, totals: &mut Totals) {
        let labels = if self.is_other { other } else { &self.own };
        self.now = Pass {
            number: pass,
            slot: totals.slot(labels),
            sum: fingerprint(counters),
            orphans_under_way: counters.orphans.under_way(),
        };
        add(totals.at(self.now.slot), counters);
    }
}

/// What of counters changes with whatever is counted.
fn fingerprint(counters: &Counters) -> u64 {
    let Counters {
        closes,
        blocked,
        resets,
        unread_bytes,
        orphans,
        ..
    } = counters;
    let counts = closes.iter().chain(resets).chain(&orphans.ends);
    let times = blocked.iter().map(|times| times.sum_ns);
    let others = [orphans.left, orphans.lived.sum_ns, *unread_bytes];
    let all = counts.copied().chain(times).chain(others);
    all.fold(0, u64::wrapping_add)
}

/// Whether a group is left out. The programs are told, if that is for its cgroup.
fn is_left_out(
    group: &Group,
    cgroup: Option<&Cgroup>,
    keyed: u32,
    admission: &mut Admission,
) -> bool {
    let unit = cgroup.map(|cgroup| cgroup.names.unit.as_str());
    if let Some(unit) = unit {
        admission.judge(group.cgroup_id, unit);
    }
    let comm = (keyed & keyed::COMM != 0).then(|| comm(group));
    !admission.admits(unit, comm.as_deref())
}
