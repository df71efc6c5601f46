//! The groups in the ledger: their names, and their end.
//!
//! A group whose cgroup is gone is retired once nothing has changed for a while and no orphan of its
//! is under way: from then on nothing can add to it. No process is in its cgroup, and what is done to
//! sockets from elsewhere is no longer counted for it by the programs (`who::of_socket`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{HashMap as BpfMap, MapData};
use linger_ebpf::{Counters, Exe, Group, Kind, Path, ROWS, Row, RowKey};
use tracing::debug;

use super::orphans::Records;
use super::percpu::PerCpu;
use super::sum::{add, add_kind, add_orphans};
use super::totals::Totals;
use super::{LedgerError, take};
use crate::attribution::{Cgroup, Cgroups, Dimension, Labels, Namer, Paths};

/// How full the kernel's table of groups may be, in quarters, before the gone are not kept for long.
const CROWDED_QUARTERS: usize = 3;

/// How long they are kept then: longer than any program that was at work when their cgroup went.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// The groups of the ledger.
pub(super) struct Groups {
    rows: PerCpu<RowKey>,
    places: BpfMap<MapData, Group, u64>,
    written: Written,
    namer: Namer,
    known: HashMap<Group, Known>,
    /// How many find a place.
    most: usize,
    /// How long the gone are kept.
    patience: Duration,
    other: Arc<Labels>,
    retired: Arc<Labels>,
    /// What those counted that were retired.
    past: Counters,
    pass: u64,
}

/// The paths that the kernel wrote down.
struct Written {
    cgroups: BpfMap<MapData, u64, Path>,
    exes: BpfMap<MapData, Exe, Path>,
}

impl Paths for Written {
    fn cgroup(&self, id: u64) -> Option<Path> {
        self.cgroups.get(&id, 0).ok()
    }

    fn exe(&self, exe: &Exe) -> Option<Path> {
        self.exes.get(exe, 0).ok()
    }
}

/// A group that has rows.
struct Known {
    labels: Arc<Labels>,
    /// Where it is; none if that is not asked for, or if no one knows it any more.
    cgroup: Option<Arc<Cgroup>>,
    /// All that its rows added up to when it last changed, and when that was.
    sum: u64,
    changed: Instant,
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
        ebpf: &mut Ebpf,
        dimensions: Arc<[Dimension]>,
        cgroups: Cgroups,
        max_groups: u32,
        patience: Duration,
    ) -> Result<Self, LedgerError> {
        let namer = Namer::new(dimensions, cgroups);
        Ok(Self {
            rows: PerCpu::take(ebpf, "LEDGER")?,
            places: take(ebpf, "GROUPS")?,
            written: Written {
                cgroups: take(ebpf, "CGROUPS")?,
                exes: take(ebpf, "EXES")?,
            },
            other: Arc::new(namer.all("other")),
            retired: Arc::new(namer.all("retired")),
            namer,
            known: HashMap::new(),
            most: max_groups as usize,
            patience,
            past: Counters::ZERO,
            pass: 0,
        })
    }

    /// What the labels stand for.
    pub(super) fn dimensions(&self) -> &Arc<[Dimension]> {
        self.namer.dimensions()
    }

    /// How many groups have rows.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// The labels of [`Group::SHARED`], in their order.
    pub(super) fn shared_labels(&self) -> [&Arc<Labels>; 2] {
        [&self.other, &self.retired]
    }

    /// Adds what every group counted. Returns how many rows that are.
    pub(super) fn read(&mut self, totals: &mut Totals) -> Result<u64, LedgerError> {
        let Self {
            rows,
            written,
            namer,
            known,
            retired,
            pass,
            ..
        } = self;
        *pass += 1;
        let mut count = 0;
        let started = Instant::now();
        rows.for_each(|key, row| {
            let Some(kind) = kind(key) else { return };
            count += 1;
            let known = known
                .entry(key.group)
                .or_insert_with(|| meet(&key.group, namer, written, retired, started));
            if known.now.number != *pass {
                known.now = Pass {
                    number: *pass,
                    slot: totals.slot(&known.labels),
                    ..Pass::default()
                };
            }
            known.now.add(key.row, kind, row);
            add_kind(totals.at(known.now.slot), kind, row);
        })?;
        known.retain(|_, known| known.now.number == *pass);
        for known in known.values_mut() {
            if known.sum != known.now.sum {
                (known.sum, known.changed) = (known.now.sum, started);
            }
        }
        add(totals.of(retired), &self.past);
        Ok(count)
    }

    /// Adds the orphans that were given up, for the groups that left them.
    pub(super) fn add_expired(&mut self, records: &Records, totals: &mut Totals) {
        for (group, orphans) in records.expired() {
            let labels = match self.known.get_mut(group) {
                Some(known) => {
                    known.now.orphans_ended += orphans.ended();
                    &known.labels
                }
                None => &self.retired,
            };
            add_orphans(&mut totals.of(labels).orphans, orphans);
        }
    }

    /// Retires the groups whose time has come: from the next reading on, what they counted stands under
    /// `retired`.
    pub(super) fn retire(&mut self, records: &mut Records) -> Result<(), LedgerError> {
        let is_crowded = self.known.len() * 4 >= self.most * CROWDED_QUARTERS;
        let patience = if is_crowded {
            self.patience.min(LEAST_PATIENCE)
        } else {
            self.patience
        };
        let mut gone: HashMap<u64, bool> = HashMap::new();
        let mut ended = Vec::new();
        for (group, known) in &self.known {
            if known.changed.elapsed() < patience
                || known.now.orphans_left != known.now.orphans_ended
            {
                continue;
            }
            let is_gone = gone
                .entry(group.cgroup_id)
                .or_insert_with(|| self.is_gone(group, known));
            if *is_gone {
                ended.push(*group);
            }
        }
        for group in ended {
            self.remove(&group, records)?;
        }
        Ok(())
    }

    fn is_gone(&self, group: &Group, known: &Known) -> bool {
        let cgroups = &self.namer.cgroups;
        match &known.cgroup {
            Some(cgroup) => cgroups.is_gone(&cgroup.path, group.cgroup_id),
            None => self.namer.by_cgroup() && cgroups.is_whole(),
        }
    }

    /// Moves a group to those retired.
    fn remove(&mut self, group: &Group, records: &mut Records) -> Result<(), LedgerError> {
        let Some(known) = self.known.remove(group) else {
            return Ok(());
        };
        debug!(labels = ?known.labels, "retired");
        for index in (0..ROWS).filter(|index| known.now.kinds & 1 << index != 0) {
            let key = RowKey {
                group: *group,
                row: index as u64,
            };
            if let (Some(kind), Some(row)) = (Kind::from_index(index), self.rows.remove(&key)?) {
                add_kind(&mut self.past, kind, &row);
            }
        }
        if let Some(orphans) = records.take_expired(group) {
            add_orphans(&mut self.past.orphans, &orphans);
        }
        // What is not there any more is what is wanted.
        let _ = self.places.remove(group);
        let mut others = self.known.keys();
        if others.all(|other| other.cgroup_id != group.cgroup_id) {
            let _ = self.written.cgroups.remove(&group.cgroup_id);
            self.namer.forget(group.cgroup_id);
        }
        Ok(())
    }
}

impl Pass {
    fn add(&mut self, index: u64, kind: Kind, row: &Row) {
        self.kinds |= 1 << index;
        match kind {
            Kind::Closes(_) => self.orphans_left = self.orphans_left.wrapping_add(row.left),
            Kind::Ends(_) => self.orphans_ended += row.buckets.iter().sum::<u64>(),
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

/// A group is met for the first time.
fn meet(
    group: &Group,
    namer: &mut Namer,
    written: &Written,
    retired: &Arc<Labels>,
    now: Instant,
) -> Known {
    let cgroup = if namer.by_cgroup() {
        namer.cgroup(group.cgroup_id, written)
    } else {
        None
    };
    let labels = if namer.by_cgroup() && cgroup.is_none() {
        // No one knows what it was: it is gone.
        debug!(?group, "met a group whose cgroup no one knows");
        Arc::clone(retired)
    } else {
        Arc::new(namer.labels(group, cgroup.as_deref(), written))
    };
    Known {
        labels,
        cgroup,
        sum: 0,
        changed: now,
        now: Pass::default(),
    }
}
