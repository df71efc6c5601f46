//! Reads the kernel's maps into one typed snapshot of all counts.
//!
//! [`Ledger::read`] makes a [`Snapshot`] at each scrape and changes nothing. [`Ledger::maintain`], which follows, does
//! the work that the programs leave to the daemon.
//!
//! | module | contents |
//! | --- | --- |
//! | `groups` | the groups, their labels, and their retirement |
//! | `group_counters`, `sum` | the counters of groups, and their sums |
//! | `notes`, `retired_totals` | counts that the daemon adds, in maps for its successor |
//! | `series_limit`, `admission` | the limit of series, and the configured lists of who is left out |
//! | `in_flight`, `orphans`, `undecided` | records in the kernel whose end was missed |
//! | `return_hook` | the hook of the return of close(2), attached only while closes wait |
//! | `mapped_array` | maps of the kernel that are mapped into memory |

mod admission;
mod group_counters;
mod groups;
mod in_flight;
mod mapped_array;
mod notes;
mod orphans;
mod retired_totals;
mod return_hook;
mod series_limit;
mod sum;
mod undecided;

use std::collections::HashSet;
use std::hash::Hash;
use std::io;
use std::sync::Arc;

use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use linger_ebpf::{Close, Counters, Group, Lost, MAX_CLOSES};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::groups::{Groups, Reading};
use self::in_flight::InFlight;
pub(crate) use self::mapped_array::MappedArray;
use self::orphans::OrphanRecords;
use self::retired_totals::OTHER;
pub(crate) use self::return_hook::ReturnHook;
pub use self::series_limit::MAX_SERIES_PER_GROUP;
pub(crate) use self::undecided::Undecided;
use crate::attribution::{Cgroups, Dimension, Labels, Names};
use crate::config::Config;
use crate::probe::{Hook, Maps, ProgramRuns, Programs};

/// The fill level of a BPF map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapFill {
    /// Its name.
    pub map: String,
    /// Entries in it.
    pub entries: u64,
    /// Entries that fit.
    pub capacity: u64,
}

/// All counts at one moment. Each set of labels occurs once. By default, nothing has been counted.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The dimensions of a group's labels.
    pub dimensions: Arc<[Dimension]>,
    /// The counters of each group, sorted by labels.
    pub groups: Vec<(Arc<Labels>, Box<Counters>)>,
    /// Losses, by [`Lost`].
    pub lost: [u64; Lost::COUNT],
    /// Payload of the lost orphans, bytes.
    pub lost_orphan_bytes: u64,
    /// How full the maps are.
    pub maps: Vec<MapFill>,
    /// The hooks, and whether each is attached.
    pub hooks: Vec<(Hook, bool)>,
    /// The kernel's counts of the runs of each program.
    pub runs: Vec<ProgramRuns>,
}

/// The reason why the ledger cannot be read.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The object has no such map, or one of another kind.
    #[error("the map {0} is missing from the programs")]
    NoMap(&'static str),
    /// An operation on a map failed.
    #[error("cannot {what} the map {map}")]
    Map {
        /// The operation.
        what: &'static str,
        /// The name of the map.
        map: &'static str,
        /// The cause.
        source: MapError,
    },
    /// The state of a program cannot be queried.
    #[error("cannot query a program's state in the kernel")]
    Program(#[source] io::Error),
}

/// The counts in the kernel, with everything needed to read and maintain them.
pub struct Ledger {
    groups: Groups,
    lost: PerCpuArray<MapData, u64>,
    lost_orphan_bytes: PerCpuArray<MapData, u64>,
    in_flight: InFlight,
    return_hook: ReturnHook,
    orphans: OrphanRecords,
    undecided: Undecided,
    programs: Programs,
    max_groups: u32,
    max_orphans: u32,
}

impl Ledger {
    /// Takes the maps of programs that are yet to be attached, and writes the configuration into them.
    /// `series` returns the number of series that counters are shown as.
    pub fn new(
        maps: &mut Maps,
        cgroups: Cgroups,
        config: &Config,
        series: fn(&Counters) -> usize,
    ) -> Result<Self, LedgerError> {
        Ok(Self {
            groups: Groups::new(maps, cgroups, config, series)?,
            lost: take(maps, "LOST")?,
            lost_orphan_bytes: take(maps, "LOST_ORPHAN_BYTES")?,
            return_hook: ReturnHook::map(maps)?,
            orphans: OrphanRecords::new(maps, config.orphan_ttl)?,
            undecided: Undecided::map(maps)?,
            programs: Programs::default(),
            max_groups: config.max_groups,
            max_orphans: config.max_orphans,
            in_flight: InFlight::take(maps)?,
        })
    }

    /// Sets the attached programs, whose state in the kernel is read from now on.
    pub fn set_programs(&mut self, programs: Programs) {
        self.programs = programs;
    }

    /// Applies the settings that can change while programs are attached.
    pub fn reconfigure(&mut self, config: &Config) -> Result<(), LedgerError> {
        self.orphans.ttl = config.orphan_ttl;
        self.groups.reconfigure(config)
    }

    /// Reads all counts, and changes nothing: neither here nor in the kernel.
    ///
    /// The snapshot already shows what the next [`Self::maintain`] will record (the names of new groups, and the groups
    /// beyond the bound of series, shown under `other`), so no count decreases in between.
    pub fn read(&self) -> Result<Snapshot, LedgerError> {
        let mut reading = self.groups.read()?;
        for (place, labels) in (0..).zip(&self.groups.shared) {
            reading.show(labels, &self.groups.counters.read_row(place)?);
        }
        let Reading { totals, found, .. } = reading;
        let totals = totals.into_iter();
        let mut groups: Vec<_> = totals
            .filter(|(_, counters)| **counters != Counters::ZERO)
            .collect();
        groups.sort_by(|(one, _), (two, _)| one.cmp(two));
        let orphans = groups.iter().map(|(_, counters)| &counters.orphans);
        let under_way = orphans.map(linger_ebpf::Orphans::under_way).sum();
        let states = self.programs.states(self.return_hook.is_attached());
        let (hooks, runs) = states.map_err(LedgerError::Program)?;
        let lost_orphan_bytes = self.lost_orphan_bytes.get(&0, 0);
        let lost_orphan_bytes = lost_orphan_bytes.map_err(read("LOST_ORPHAN_BYTES"))?;
        let fill = |map: &str, entries, capacity| MapFill {
            map: map.to_owned(),
            entries,
            capacity,
        };
        Ok(Snapshot {
            dimensions: Arc::clone(&self.groups.namer.dimensions),
            groups,
            lost: self.read_lost()?,
            lost_orphan_bytes: lost_orphan_bytes.iter().sum(),
            maps: vec![
                fill("groups", found.len() as u64, self.max_groups.into()),
                fill("closes", self.in_flight.count()?, MAX_CLOSES.into()),
                fill("orphans", under_way, self.max_orphans.into()),
            ],
            hooks,
            runs,
        })
    }

    /// Does the work that the programs leave to the daemon: counts closes whose return was missed, hooks the return of
    /// close(2) while closes wait, gives up orphans that are too old, settles undecided ones, names new groups, and
    /// retires those that are gone. Call it every 10 seconds at least.
    pub fn maintain(&mut self) -> Result<(), LedgerError> {
        let swept = self.in_flight.sweep()?;
        self.count_missed(&swept.missed)?;
        self.return_hook.update(&self.programs, swept.awaits_return);
        self.give_up()?;
        self.undecided.settle_by(&self.programs)?;
        let reading = self.groups.read()?;
        self.groups.learn(reading)?;
        self.groups.retire()
    }

    /// The names of cgroups; `None` for those that are unknown.
    pub fn names(&mut self, cgroup_ids: &[u64]) -> Vec<Option<Names>> {
        self.groups.names(cgroup_ids)
    }

    /// Counts closes whose return was missed. Their threads are gone, and with them the group and the time.
    fn count_missed(&mut self, missed: &[Close]) -> Result<(), LedgerError> {
        let mut orphans = 0;
        for close in missed {
            self.groups.retired_totals.count_missed(close)?;
            orphans += u64::from(self.orphans.remove_left_by(close));
        }
        self.groups.retired_totals.lose(Lost::Orphan, orphans)
    }

    /// Gives up old orphans, and counts them for the groups that left them.
    fn give_up(&mut self) -> Result<(), LedgerError> {
        let swept = self.orphans.sweep(&self.programs)?;
        self.groups.retired_totals.lose(Lost::Orphan, swept.lost)?;
        for (group, given_up) in swept.given_up {
            let place = Group::SHARED.iter().position(|shared| *shared == group);
            if place.is_none() && self.groups.counters.get(&group)?.is_some() {
                self.groups.notes.give_up(&group, given_up)?;
            } else {
                // Counted for a shared group, as its close was.
                self.groups
                    .retired_totals
                    .give_up(place.unwrap_or(OTHER), given_up)?;
            }
        }
        Ok(())
    }

    fn read_lost(&self) -> Result<[u64; Lost::COUNT], LedgerError> {
        let mut lost = self.groups.retired_totals.past.lost;
        for what in Lost::ALL {
            let index = u32::try_from(what.index()).expect("a handful of losses");
            let counts = self.lost.get(&index, 0).map_err(read("LOST"))?;
            lost[what.index()] += counts.iter().sum::<u64>();
        }
        Ok(lost)
    }
}

/// Takes a map as the requested type.
pub(crate) fn take<T: TryFrom<aya::maps::Map>>(
    maps: &mut Maps,
    name: &'static str,
) -> Result<T, LedgerError> {
    maps.remove(name)
        .and_then(|map| map.try_into().ok())
        .ok_or(LedgerError::NoMap(name))
}

/// The keys of a map that changes meanwhile, each once. If the current key is removed, the kernel starts again from the
/// first one: then this stops and leaves the rest for the next call, because it might never end.
fn keys<K: aya::Pod + Eq + Hash, V: aya::Pod>(
    map: &HashMap<MapData, K, V>,
    name: &'static str,
) -> Result<Vec<K>, LedgerError> {
    let mut seen = HashSet::new();
    for key in map.keys() {
        if !seen.insert(key.map_err(read(name))?) {
            break;
        }
    }
    Ok(seen.into_iter().collect())
}

fn read(map: &'static str) -> impl Fn(MapError) -> LedgerError {
    failed("read", map)
}

fn write(map: &'static str) -> impl Fn(MapError) -> LedgerError {
    failed("write into", map)
}

fn failed<E: Into<MapError>>(what: &'static str, map: &'static str) -> impl Fn(E) -> LedgerError {
    move |error| LedgerError::Map {
        what,
        map,
        source: error.into(),
    }
}
