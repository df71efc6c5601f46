//! The maps of the kernel as one typed snapshot of all counts.

mod in_flight;
mod orphans;
mod shared;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{MapData, MapError, PerCpuArray, PerCpuHashMap};
use linger_ebpf::{Counters, Group, Lost, MAX_CLOSES, MAX_GROUPS, Orphans, Plan, QueueBytes};
use thiserror::Error;

use self::in_flight::{InFlight, Slots};
use self::orphans::Records;
use crate::attribution::{Cgroups, Dimension, Labels};
use crate::probe::Attached;

/// How full a map of the kernel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapFill {
    /// Its name.
    pub map: &'static str,
    /// Entries in it.
    pub entries: u64,
    /// Entries that fit.
    pub capacity: u64,
}

/// All counts at one moment. Each set of labels stands in it once.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The plan that counted.
    pub plan: Plan,
    /// What the labels of a group stand for.
    pub dimensions: &'static [Dimension],
    /// What each group did, sorted by its labels.
    pub groups: Vec<(Labels, Counters)>,
    /// What could not be recorded, by [`Lost`].
    pub lost: [u64; Lost::COUNT],
    /// Payload of the orphans among that.
    pub lost_orphan_bytes: u64,
    /// How full the maps are.
    pub maps: Vec<MapFill>,
}

/// Why the ledger cannot be read.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The object has no such map, or one of another kind.
    #[error("the map {0} is missing from the programs")]
    NoMap(&'static str),
    /// The kernel does not hand it out.
    #[error("cannot read the map {map}")]
    Read {
        /// Its name.
        map: &'static str,
        /// Why.
        source: MapError,
    },
    /// The kernel does not share it.
    #[error("cannot map the map {map} into memory")]
    Share {
        /// Its name.
        map: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// The counts in the kernel, and what is needed to read them.
pub struct Ledger {
    plan: Plan,
    groups: PerCpuHashMap<MapData, Group, Counters>,
    other: PerCpuArray<MapData, Counters>,
    lost: PerCpuArray<MapData, u64>,
    lost_orphan_bytes: PerCpuArray<MapData, u64>,
    in_flight: InFlight,
    orphans: Records,
    max_orphans: u32,
    cgroups: Cgroups,
    /// Losses found by sweeping.
    swept: [u64; Lost::COUNT],
}

impl Ledger {
    /// Takes the maps of attached programs. An orphan is given up after `orphan_ttl`.
    pub fn new(
        attached: &mut Attached,
        cgroups: Cgroups,
        orphan_ttl: Duration,
    ) -> Result<Self, LedgerError> {
        let ebpf = &mut attached.ebpf;
        Ok(Self {
            plan: attached.plan,
            groups: take(ebpf, "GROUPS")?,
            other: take(ebpf, "OTHER")?,
            lost: take(ebpf, "LOST")?,
            lost_orphan_bytes: take(ebpf, "LOST_ORPHAN_BYTES")?,
            orphans: Records::new(ebpf, orphan_ttl)?,
            max_orphans: attached.max_orphans,
            in_flight: InFlight {
                slots: Slots::map(ebpf)?,
                crowded: take(ebpf, "CROWDED")?,
                parked: take(ebpf, "PARKED")?,
            },
            cgroups,
            swept: [0; Lost::COUNT],
        })
    }

    /// Reads all counts.
    pub fn snapshot(&mut self) -> Result<Snapshot, LedgerError> {
        let (in_flight, removed) = self.in_flight.sweep()?;
        self.swept[Lost::Close.index()] += removed;
        let mut groups: BTreeMap<Labels, Counters> = BTreeMap::new();
        let mut counted = self.read_groups()?;
        let found = counted.len();
        self.swept[Lost::Orphan.index()] += self.orphans.sweep()?;
        for (group, orphans) in self.orphans.expired() {
            let counters = counted.entry(*group).or_insert(Counters::ZERO);
            add_orphans(&mut counters.orphans, orphans);
        }
        self.cgroups
            .resolve(counted.keys().map(|group| group.cgroup_id));
        for (group, counters) in counted {
            let unit = self.cgroups.unit(group.cgroup_id);
            let labels = Labels::new([unit.as_str(), &comm(&group.comm())]);
            add(groups.entry(labels).or_insert(Counters::ZERO), &counters);
        }
        let other = sum_cpus(&self.other.get(&0, 0).map_err(read("OTHER"))?);
        if other != Counters::ZERO {
            let labels = Labels::all("other", Dimension::DEFAULT.len());
            add(groups.entry(labels).or_insert(Counters::ZERO), &other);
        }
        let orphans = groups.values();
        let under_way = orphans.map(|counters| counters.orphans.under_way()).sum();
        Ok(Snapshot {
            plan: self.plan,
            dimensions: Dimension::DEFAULT,
            groups: groups.into_iter().collect(),
            lost: self.read_lost()?,
            lost_orphan_bytes: self.read_lost_orphan_bytes()?,
            maps: vec![
                MapFill {
                    map: "groups",
                    entries: found as u64,
                    capacity: MAX_GROUPS.into(),
                },
                MapFill {
                    map: "closes",
                    entries: in_flight,
                    capacity: MAX_CLOSES.into(),
                },
                MapFill {
                    map: "orphans",
                    entries: under_way,
                    capacity: self.max_orphans.into(),
                },
            ],
        })
    }

    fn read_groups(&self) -> Result<BTreeMap<Group, Counters>, LedgerError> {
        let mut groups: BTreeMap<Group, Counters> = BTreeMap::new();
        for entry in &self.groups {
            let (group, counters) = entry.map_err(read("GROUPS"))?;
            groups.insert(group, sum_cpus(&counters));
        }
        Ok(groups)
    }

    fn read_lost_orphan_bytes(&self) -> Result<u64, LedgerError> {
        let bytes = self.lost_orphan_bytes.get(&0, 0);
        Ok(bytes.map_err(read("LOST_ORPHAN_BYTES"))?.iter().sum())
    }

    fn read_lost(&self) -> Result<[u64; Lost::COUNT], LedgerError> {
        let mut lost = self.swept;
        for what in Lost::ALL {
            let index = u32::try_from(what.index()).expect("a handful of losses");
            let counts = self.lost.get(&index, 0).map_err(read("LOST"))?;
            lost[what.index()] += counts.iter().sum::<u64>();
        }
        Ok(lost)
    }
}

fn take<T: TryFrom<aya::maps::Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, LedgerError> {
    ebpf.take_map(name)
        .and_then(|map| map.try_into().ok())
        .ok_or(LedgerError::NoMap(name))
}

fn read(map: &'static str) -> impl Fn(MapError) -> LedgerError {
    move |source| LedgerError::Read { map, source }
}

/// A process name as text; what is not UTF-8 shows as U+FFFD.
fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn sum_cpus(values: &aya::maps::PerCpuValues<Counters>) -> Counters {
    values.iter().fold(Counters::ZERO, |mut sum, counters| {
        add(&mut sum, counters);
        sum
    })
}

/// Adds counters. Those of one CPU may stand below zero, when a close was counted anew on another.
fn add(sum: &mut Counters, more: &Counters) {
    for (sum, more) in sum.closes.iter_mut().zip(&more.closes) {
        add_all(&mut sum.buckets, &more.buckets);
        let QueueBytes { unsent, unacked } = more.discarded;
        add_all(
            [
                &mut sum.blocked_ns,
                &mut sum.undated,
                &mut sum.discarded.unsent,
                &mut sum.discarded.unacked,
            ],
            &[more.blocked_ns, more.undated, unsent, unacked],
        );
    }
    add_all(&mut sum.resets, &more.resets);
    add_all([&mut sum.unread_bytes], &[more.unread_bytes]);
    add_orphans(&mut sum.orphans, &more.orphans);
}

fn add_orphans(sum: &mut Orphans, more: &Orphans) {
    add_all(
        [&mut sum.left, &mut sum.left_bytes, &mut sum.delivered_bytes],
        &[more.left, more.left_bytes, more.delivered_bytes],
    );
    for (sum, more) in sum.ends.iter_mut().zip(&more.ends) {
        add_all(&mut sum.buckets, &more.buckets);
        let QueueBytes { unsent, unacked } = more.discarded;
        add_all(
            [
                &mut sum.lived_ns,
                &mut sum.discarded.unsent,
                &mut sum.discarded.unacked,
            ],
            &[more.lived_ns, unsent, unacked],
        );
    }
}

fn add_all<'a>(sums: impl IntoIterator<Item = &'a mut u64>, more: &[u64]) {
    for (sum, more) in sums.into_iter().zip(more) {
        *sum = sum.wrapping_add(*more);
    }
}
