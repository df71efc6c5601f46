//! Retires groups.
//!
//! A group whose cgroup is gone is retired once nothing has changed for a while and none of its orphans is under way:
//! from then on nothing can add to it. No process is in its cgroup, and the programs no longer count actions on its
//! sockets from elsewhere for it (`group::of_socket`).
//!
//! A restarted unit gets another cgroup, and so another group, with the same labels. The new group continues the
//! series: the counts of the old one are added to it, which changes no sum. Only the last group of a series moves its
//! counts to `retired`. So no series ever decreases: it ends.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use linger_ebpf::{Counters, Exe, Group, key_field};
use tracing::{debug, warn};

use super::super::retired_totals::{OTHER, RETIRED};
use super::super::sum::{add, fingerprint};
use super::super::{LedgerError, keys};
use super::{Groups, KnownGroup};
use crate::attribution::Labels;

/// Fill level of a map, in quarters, from which unused entries are no longer kept for long.
const CROWDED: usize = 3;

/// How long groups are kept at most while the map is crowded: longer than any BPF program runs that was running when
/// their cgroup went.
const CROWDED_PATIENCE: Duration = Duration::from_secs(1);

/// How long groups are kept at most if their end is not visible in a series: until late data, which counts for the
/// group that closed, no longer meets a remnant of their connections. These last up to a minute in `FIN_WAIT2`, and
/// one in `TIME_WAIT`.
const UNSEEN_PATIENCE: Duration = Duration::from_secs(120);

/// Number of maintenance passes from one check of the executables to the next.
const EXES_EVERY: u64 = 4;

impl Groups {
    /// Retires the groups that have ended: from now on, their counts are shown under `retired`, unless another group
    /// continues their series, or they are shown under `other`.
    pub(in super::super) fn retire(&mut self) -> Result<(), LedgerError> {
        if let Some(group) = self.added {
            self.clear(&group)?;
        }
        let is_crowded = self.known.len() * 4 >= self.capacity * CROWDED;
        let patience = if is_crowded {
            self.retire_after.min(CROWDED_PATIENCE)
        } else {
            self.retire_after
        };
        let mut gone: HashMap<u64, bool> = HashMap::new();
        let mut ended = HashSet::new();
        for (group, known) in &self.known {
            let is_quiet = known.changed.elapsed() >= patience.min(UNSEEN_PATIENCE);
            if is_quiet && known.orphans_under_way == 0 {
                let is_gone = gone.entry(group.cgroup_id);
                if *is_gone.or_insert_with(|| self.is_gone(group, known)) {
                    ended.insert(*group);
                }
            }
        }
        let heirs = self.heirs(&ended, patience);
        for group in ended {
            let known = &self.known[&group];
            match heirs.get(&known.own) {
                Some(heir) if *heir == group => {}
                // It closed between the reading and the end of its cgroup.
                _ if self
                    .counts(&group)?
                    .is_some_and(|own| fingerprint(&own) != known.sum) => {}
                Some(heir) if known.has_series(&self.shared[RETIRED]) => {
                    self.hand_to_heir(&group, heir)?;
                }
                _ => self.remove(&group)?,
            }
        }
        let gone = gone.into_iter().filter(|(_, is_gone)| *is_gone);
        self.forget_cgroups(gone.map(|(id, _)| id));
        if self.key_fields & key_field::EXE != 0 && self.passes.is_multiple_of(EXES_EVERY) {
            self.forget_exes()?;
        }
        Ok(())
    }

    /// Finds the group that continues each series, by labels: the latest that has not ended or, if all have ended and
    /// it is too early for the series to end, the latest of them.
    fn heirs(&self, ended: &HashSet<Group>, patience: Duration) -> HashMap<Arc<Labels>, Group> {
        let mut heirs: HashMap<Arc<Labels>, ((bool, u64), Group)> = HashMap::new();
        for (group, known) in &self.known {
            let has_ended = ended.contains(group);
            let stays = !has_ended || known.changed.elapsed() < patience;
            if stays && known.has_series(&self.shared[RETIRED]) {
                let rank = (!has_ended, known.first_seen);
                let heir = heirs.entry(Arc::clone(&known.own));
                let heir = heir.or_insert((rank, *group));
                *heir = (*heir).max((rank, *group));
            }
        }
        let heirs = heirs.into_iter();
        heirs.map(|(labels, (_, group))| (labels, group)).collect()
    }

    /// Whether the cgroup of a group is gone. One that is unknown counts as gone if all cgroups are visible.
    fn is_gone(&self, group: &Group, known: &KnownGroup) -> bool {
        let cgroups = &self.namer.cgroups;
        match &known.cgroup {
            Some(cgroup) => cgroups.is_gone(&cgroup.path, group.cgroup_id),
            None => self.key_fields & key_field::CGROUP != 0 && cgroups.is_whole,
        }
    }

    /// Adds what a group counted to the one that continues its series.
    fn hand_to_heir(&mut self, group: &Group, heir: &Group) -> Result<(), LedgerError> {
        let own = self.final_counts(group)?;
        if let Some(own) = own
            && let Err(error) = self.notes.inherit(heir, &own, group)
        {
            // Out of memory: no harm is done, except that the group still takes an entry of its own.
            warn!("a group whose cgroup is gone stays: {error}");
            return Ok(());
        }
        if let (Some(known), Some(heir)) = (self.known.remove(group), self.known.get_mut(heir)) {
            debug!(labels = ?known.own, "goes on in another cgroup");
            // Counts that are handed on are no change of the heir.
            heir.sum = heir.sum.wrapping_add(known.sum);
        }
        self.clear(group)?;
        self.notes.settle(heir)
    }

    /// Moves the counts of a group to those of the past.
    fn remove(&mut self, group: &Group) -> Result<(), LedgerError> {
        let Some(known) = self.known.remove(group) else {
            return Ok(());
        };
        debug!(labels = ?known.own, "retired");
        let place = if known.is_other { OTHER } else { RETIRED };
        let mut sum = Box::new(self.retired_totals.past.counters[place]);
        if let Some(own) = self.final_counts(group)? {
            add(&mut sum, &own);
        }
        self.retired_totals.put(place, &sum, group)?;
        self.clear(group)?;
        self.retired_totals.settle()
    }

    /// Returns all counts of a group that has ended. From then on, late data for its connections is not counted for it.
    fn final_counts(&mut self, group: &Group) -> Result<Option<Counters>, LedgerError> {
        self.forget_number(group);
        self.counts(group)
    }

    pub(super) fn counts(&self, group: &Group) -> Result<Option<Counters>, LedgerError> {
        let mut own = self.counters.get(group)?;
        if let Some(own) = &mut own {
            self.notes.add_to(group, own);
        }
        Ok(own)
    }

    /// Removes the counters of the groups that are already added to others, of which a daemon that was killed may have
    /// left those it added last.
    pub(super) fn clear_already_added(&mut self) -> Result<(), LedgerError> {
        for (heir, group) in self.notes.heirs() {
            self.clear(&group)?;
            self.notes.settle(&heir)?;
        }
        let last = self.retired_totals.past.last;
        if last != Group::ZERO {
            self.clear(&last)?;
            self.retired_totals.settle()?;
        }
        Ok(())
    }

    /// Removes the counters of a group, which are added to those of others, and its note. They are not counted again if
    /// that fails: since Linux 6.15 the kernel may be unable to take the map's lock (`ETIMEDOUT`, `EDEADLK`).
    fn clear(&mut self, group: &Group) -> Result<(), LedgerError> {
        self.added = Some(*group);
        self.forget_number(group);
        self.counters.remove(group)?;
        self.added = None;
        self.notes.forget(group);
        Ok(())
    }

    /// Forgets the number of a group, unless it is another's.
    fn forget_number(&mut self, group: &Group) {
        let number = group.number();
        let named = self.numbers.get(&number, 0);
        if named.is_ok_and(|named| named == *group) {
            let _ = self.numbers.remove(&number);
        }
    }

    /// Forgets the cgroups that are gone and have no group left.
    fn forget_cgroups(&mut self, gone: impl Iterator<Item = u64>) {
        let left: HashSet<u64> = self.known.keys().map(|group| group.cgroup_id).collect();
        for id in gone.filter(|id| !left.contains(id)) {
            let _ = self.cgroup_paths.remove(&id);
            self.namer.forget(id);
            self.admission.forget(id);
        }
    }

    /// Forgets the executables of no group, if the map is crowded. One that is executed again is recorded again.
    fn forget_exes(&mut self) -> Result<(), LedgerError> {
        let all: Vec<Exe> = keys(&self.exe_paths, "EXES")?;
        if all.len() * 4 < self.capacity * CROWDED {
            return Ok(());
        }
        let used: HashSet<Exe> = self.known.keys().map(Group::exe).collect();
        for exe in all.iter().filter(|exe| !used.contains(exe)) {
            let _ = self.exe_paths.remove(exe);
        }
        Ok(())
    }
}
