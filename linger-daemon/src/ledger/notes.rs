//! The daemon's notes about groups. They are stored in a map like all else, so that the next daemon can continue with
//! them.

use std::collections::HashMap;

use aya::maps::{HashMap as BpfMap, MapData};
use linger_ebpf::{Counters, Fate, Group, LIVED_BOUNDS_NS, Note, Orphans};

use super::sum::add;
use super::{LedgerError, keys, read, take, write};
use crate::probe::Maps;

const NAME: &str = "NOTES";

/// The map of notes, and a copy of it.
pub(super) struct Notes {
    map: BpfMap<MapData, Group, Note>,
    notes: HashMap<Group, Box<Note>>,
}

impl Notes {
    pub(super) fn take(maps: &mut Maps) -> Result<Self, LedgerError> {
        let map = take(maps, NAME)?;
        let mut notes = HashMap::new();
        for group in keys(&map, NAME)? {
            let note = map.get(&group, 0).map_err(read(NAME))?;
            notes.insert(group, Box::new(note));
        }
        Ok(Self { map, notes })
    }

    /// The maximum number of series for which this group was moved to `other`; 0 if it was not.
    pub(super) fn most_series(&self, group: &Group) -> u64 {
        self.notes.get(group).map_or(0, |note| note.most_series)
    }

    /// Records that a group is shown under `other` because of this maximum number of series or, with 0, that it is not.
    pub(super) fn set_most_series(
        &mut self,
        group: &Group,
        most_series: u64,
    ) -> Result<(), LedgerError> {
        if self.most_series(group) == most_series {
            return Ok(());
        }
        self.change(group, |note| note.most_series = most_series)
    }

    pub(super) fn give_up(&mut self, group: &Group, given_up: GivenUp) -> Result<(), LedgerError> {
        self.change(group, |note| given_up.count(&mut note.counters.orphans))
    }

    /// Adds the counts of another group to the note of this one. Records that other group in the same write, so that it
    /// is not counted twice if the daemon ends before it has removed the other's counters.
    pub(super) fn inherit(
        &mut self,
        group: &Group,
        counters: &Counters,
        from: &Group,
    ) -> Result<(), LedgerError> {
        self.change(group, |note| {
            add(&mut note.counters, counters);
            note.last = *from;
        })
    }

    /// The groups that inherited from another last whose own counters may not be removed yet, each with that other.
    pub(super) fn heirs(&self) -> Vec<(Group, Group)> {
        let last = self.notes.iter().map(|(heir, note)| (*heir, note.last));
        last.filter(|(_, last)| *last != Group::ZERO).collect()
    }

    /// Records that the own counters of the last group that this one inherited from are removed: that group may get
    /// others.
    pub(super) fn settle(&mut self, group: &Group) -> Result<(), LedgerError> {
        self.change(group, |note| note.last = Group::ZERO)
    }

    pub(super) fn add_to(&self, group: &Group, counters: &mut Counters) {
        if let Some(note) = self.notes.get(group) {
            add(counters, &note.counters);
        }
    }

    pub(super) fn forget(&mut self, group: &Group) {
        if self.notes.remove(group).is_some() {
            // It need not exist.
            let _ = self.map.remove(group);
        }
    }

    /// Changes the note in the map and, if that succeeds, in the copy.
    fn change(&mut self, group: &Group, how: impl FnOnce(&mut Note)) -> Result<(), LedgerError> {
        let mut note = match self.notes.get(group) {
            Some(note) => note.clone(),
            None => Box::new(Note::ZERO),
        };
        how(&mut note);
        self.map.insert(group, *note, 0).map_err(write(NAME))?;
        self.notes.insert(*group, note);
        Ok(())
    }
}

/// An orphan that was given up, its fate unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GivenUp {
    /// How long it had lived, nanoseconds.
    pub(super) lived_ns: u64,
    /// Payload that was outstanding when its close returned.
    pub(super) bytes: u64,
}

impl GivenUp {
    /// Counts it. Its payload counts as sent, which it may have been.
    pub(super) fn count(self, orphans: &mut Orphans) {
        let unknown = Fate::Unknown.index();
        orphans.ends[unknown] += 1;
        orphans.lived.add(self.lived_ns, &LIVED_BOUNDS_NS);
        orphans.discarded[unknown].unacked += self.bytes;
    }
}
