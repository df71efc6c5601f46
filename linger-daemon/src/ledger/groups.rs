//! The groups in the ledger: who they are, and where they are shown.

mod retire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::maps::{HashMap as BpfMap, MapData};
use linger_ebpf::{Group, Kind, Past, Row, RowKey, keyed};
use tracing::{debug, warn};

use super::admission::Admission;
use super::bound::beyond;
use super::percpu::PerCpu;
use super::sum::{add, add_kind};
use super::totals::Totals;
use super::written::Written;
use super::{LedgerError, take, write};
use crate::attribution::{Cgroup, Cgroups, Dimension, Labels, Namer, Names, comm};
use crate::config::Config;
use crate::probe::Maps;

/// The groups of the ledger.
pub(super) struct Groups {
    /// The places that groups have in the kernel. With those that are shown under `other` for want of
    /// series stands how many there might be.
    places: BpfMap<MapData, Group, u64>,
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
    /// How long the gone are kept.
    patience: Duration,
    other: Arc<Labels>,
    retired: Arc<Labels>,
    /// How many readings there were, and how many groups were ever met.
    passes: u64,
    met: u64,
}

/// The places of [`Group::SHARED`].
const OTHER: usize = 0;
const RETIRED: usize = 1;

/// Of `BPF_MAP_UPDATE_ELEM`: what is not there is not made.
const BPF_EXIST: u64 = 2;

/// A group that has rows.
struct Known {
    /// Its own labels, or those of the retired if no one knows what it was.
    own: Arc<Labels>,
    /// It is shown under `other` all the same.
    is_other: bool,
    /// Where it is; none if that is not asked for, or if no one knows it any more.
    cgroup: Option<Arc<Cgroup>>,
    /// All that its rows added up to when it last changed, and when that was.
    sum: u64,
    changed: Instant,
    /// How many groups were met before it.
    met: u64,
    now: Pass,
}

/// What one reading of the ledger found of a group.
#[derive(Default)]
struct Pass {
    number: u64,
    slot: usize,
    sum: u64,
    orphans_left: u64,
    orphans_ended: u64,
    /// The kinds of its rows, a bit for each.
    kinds: u64,
}

impl Groups {
    /// Takes the maps.
    pub(super) fn new(
        maps: &mut Maps,
        cgroups: Cgroups,
        config: &Config,
    ) -> Result<Self, LedgerError> {
        let namer = Namer::new(config.labels.as_slice().into(), cgroups);
        let [other, retired] = ["other", "retired"].map(|value| Arc::new(namer.all(value)));
        Ok(Self {
            places: take(maps, "GROUPS")?,
            written: Written::take(maps)?,
            namer,
            admission: Admission::new(maps, config)?,
            known: HashMap::new(),
            keyed: config.keyed(),
            most: config.max_groups as usize,
            most_series: config.max_series as usize,
            patience: config.retire_after,
            other,
            retired,
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
                self.places
                    .insert(group, 0, BPF_EXIST)
                    .map_err(write("GROUPS"))?;
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

    /// The names of a cgroup; none if no one knows it any more.
    pub(super) fn names(&mut self, cgroup_id: u64) -> Option<Names> {
        self.namer.names(cgroup_id, &self.written)
    }

    /// How many groups have rows.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether a group has a place of its own in the kernel.
    pub(super) fn has_place(&self, group: &Group) -> bool {
        self.places.get(group, 0).is_ok()
    }

    /// The labels of [`Group::SHARED`], in their order.
    pub(super) fn shared_labels(&self) -> [&Arc<Labels>; 2] {
        [&self.other, &self.retired]
    }

    /// Adds what every group counted, and those of the past. Returns how many rows that are.
    pub(super) fn read(
        &mut self,
        rows: &mut PerCpu<RowKey>,
        past: &Past,
        totals: &mut Totals,
    ) -> Result<u64, LedgerError> {
        self.passes += 1;
        let started = Instant::now();
        let mut count = 0;
        rows.for_each(|key, row| {
            if let Some(kind) = kind(key) {
                count += 1;
                self.add(&key.group, kind, row, totals, started);
            }
        })?;
        self.namer.rest();
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
        Ok(count)
    }

    /// Adds a row of a group.
    fn add(&mut self, group: &Group, kind: Kind, row: &Row, totals: &mut Totals, now: Instant) {
        // Most are known: looked up once.
        if let Some(known) = self.known.get_mut(group) {
            return known.add(self.passes, &self.other, kind, row, totals);
        }
        let mut known = self.meet(group, now);
        known.add(self.passes, &self.other, kind, row, totals);
        self.known.insert(*group, known);
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
            debug!(?group, "met a group whose cgroup no one knows");
            Arc::clone(&self.retired)
        } else {
            Arc::new(self.namer.labels(group, cgroup.as_deref(), &self.written))
        };
        let had_no_room = self
            .places
            .get(group, 0)
            .is_ok_and(|most| most >= self.most_series as u64);
        let is_left_out = is_left_out(group, cgroup.as_deref(), self.keyed, &mut self.admission);
        Known {
            own,
            is_other: had_no_room || is_left_out,
            cgroup,
            sum: 0,
            changed: now,
            met: self.met,
            now: Pass::default(),
        }
    }

    /// Shows the last met groups under `other`, from now on, if there are more series than there may
    /// be.
    pub(super) fn bound(&mut self, totals: &mut Totals) -> Result<(), LedgerError> {
        let mut met: HashMap<usize, u64> = HashMap::new();
        let shown = |known: &&Known| !known.is_other && !Arc::ptr_eq(&known.own, &self.retired);
        for known in self.known.values().filter(shown) {
            let first = met.entry(known.now.slot).or_insert(known.met);
            *first = known.met.min(*first);
        }
        let groups = totals.iter();
        let groups = groups.filter_map(|(slot, counters)| Some((*met.get(&slot)?, slot, counters)));
        let too_many = beyond(groups, self.most_series);
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
                let places = &mut self.places;
                let marked = places.insert(group, most as u64, BPF_EXIST);
                marked.map_err(write("GROUPS"))?;
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
    /// Adds a row of it, in this reading.
    fn add(&mut self, pass: u64, other: &Arc<Labels>, kind: Kind, row: &Row, totals: &mut Totals) {
        if self.now.number != pass {
            let labels = if self.is_other { other } else { &self.own };
            self.now = Pass {
                number: pass,
                slot: totals.slot(labels),
                ..Pass::default()
            };
        }
        self.now.add(kind, row);
        add_kind(totals.at(self.now.slot), kind, row);
    }
}

impl Pass {
    fn add(&mut self, kind: Kind, row: &Row) {
        self.kinds |= 1 << kind.index();
        match kind {
            Kind::Closes(_) => self.orphans_left = self.orphans_left.wrapping_add(row.left),
            Kind::Ends(_) | Kind::GivenUp => self.orphans_ended += row.buckets.iter().sum::<u64>(),
            Kind::Resets(_) => {}
        }
        let counts = row.buckets.iter().copied();
        let all = counts.chain([row.undated, row.resets, row.left, row.time_ns]);
        self.sum = all.fold(self.sum, u64::wrapping_add);
    }
}

fn kind(key: &RowKey) -> Option<Kind> {
    Kind::from_index(usize::try_from(key.row).ok()?)
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
