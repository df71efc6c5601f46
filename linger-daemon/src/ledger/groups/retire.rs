//! The end of groups.
//!
//! A group whose cgroup is gone is retired once nothing has changed for a while and no orphan of its
//! is under way: from then on nothing can add to it. No process is in its cgroup, and what is done to
//! sockets from elsewhere is no longer counted for it by the programs (`who::of_socket`).
//!
//! A unit that is started anew gets another cgroup, and so another group, with the same labels. What the
//! first one counted stays with them as long as there is a second one: a series never falls, it ends. Only
//! where places run out are the gone retired one by one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use linger_ebpf::{Exe, Group, keyed};
use tracing::debug;

use super::super::past::Kept;
use super::super::percpu::PerCpu;
use super::super::sum::add;
use super::super::{LedgerError, keys};
use super::{Groups, Known, OTHER, RETIRED};

/// How full a table of the kernel may be before what is of no use is not kept for long: this many
/// quarters.
const CROWDED: usize = 3;

/// How long the gone are kept then: longer than any program that was at work when their cgroup went.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// How many readings lie between two looks at the files that processes execute.
const EXES_EVERY: u64 = 4;

impl Groups {
    /// Retires the groups whose time has come: from the next reading on, what they counted stands under
    /// `retired`, or stays under `other`.
    pub(in super::super) fn retire(
        &mut self,
        counters: &PerCpu<Group>,
        kept: &mut Kept,
    ) -> Result<(), LedgerError> {
        let is_crowded = self.known.len() * 4 >= self.most * CROWDED;
        let patience = if is_crowded {
            self.patience.min(LEAST_PATIENCE)
        } else {
            self.patience
        };
        let mut gone: HashMap<u64, bool> = HashMap::new();
        let mut ended = HashSet::new();
        for (group, known) in &self.known {
            let is_quiet = known.changed.elapsed() >= patience;
            if is_quiet && known.now.orphans_under_way == 0 {
                let is_gone = gone.entry(group.cgroup_id);
                if *is_gone.or_insert_with(|| self.is_gone(group, known)) {
                    ended.insert(*group);
                }
            }
        }
        if !is_crowded {
            ended = self.with_their_series(&ended);
        }
        for group in ended {
            self.remove(&group, counters, kept)?;
        }
        self.forget_cgroups(gone.into_iter().filter(|(_, gone)| *gone));
        if self.keyed & keyed::EXE != 0 && self.passes.is_multiple_of(EXES_EVERY) {
            self.forget_exes()?;
        }
        Ok(())
    }

    /// Those of the groups whose series end with them: no other group has the same.
    fn with_their_series(&self, ended: &HashSet<Group>) -> HashSet<Group> {
        let staying = self.known.iter().filter(|(group, known)| {
            !ended.contains(*group) && !known.is_other && !Arc::ptr_eq(&known.own, &self.retired)
        });
        let series: HashSet<usize> = staying.map(|(_, known)| known.now.slot).collect();
        let ends = |group: &&Group| !series.contains(&self.known[*group].now.slot);
        ended.iter().filter(ends).copied().collect()
    }

    fn is_gone(&self, group: &Group, known: &Known) -> bool {
        let cgroups = &self.namer.cgroups;
        match &known.cgroup {
            Some(cgroup) => cgroups.is_gone(&cgroup.path, group.cgroup_id),
            None => self.keyed & keyed::CGROUP != 0 && cgroups.is_whole(),
        }
    }

    /// Moves what a group counted to those of the past.
    fn remove(
        &mut self,
        group: &Group,
        counters: &PerCpu<Group>,
        kept: &mut Kept,
    ) -> Result<(), LedgerError> {
        let Some(known) = self.known.remove(group) else {
            return Ok(());
        };
        debug!(labels = ?known.own, "retired");
        let place = if known.is_other { OTHER } else { RETIRED };
        let mut sum = Box::new(kept.past().counters[place]);
        if let Some(mut own) = counters.get(group)? {
            self.notes.add_to(group, &mut own);
            add(&mut sum, &own);
        }
        kept.put(place, &sum, group)?;
        self.clear(group, counters)
    }

    /// Removes the counters of a group that stand among those of the past, and what is kept of it.
    pub(in super::super) fn clear(
        &mut self,
        group: &Group,
        counters: &PerCpu<Group>,
    ) -> Result<(), LedgerError> {
        let number = group.number();
        if self
            .numbers
            .get(&number, 0)
            .is_ok_and(|named| named == *group)
        {
            let _ = self.numbers.remove(&number);
        }
        counters.remove(group)?;
        self.notes.forget(group);
        Ok(())
    }

    /// Forgets cgroups that are gone, and have no group any more.
    fn forget_cgroups(&mut self, gone: impl Iterator<Item = (u64, bool)>) {
        let left: HashSet<u64> = self.known.keys().map(|group| group.cgroup_id).collect();
        for (id, _) in gone.filter(|(id, _)| !left.contains(id)) {
            let _ = self.written.cgroups.remove(&id);
            self.namer.forget(id);
            self.admission.forget(id);
        }
    }

    /// Forgets files that no group's processes execute, where there are many. One that is executed again
    /// is written down again.
    fn forget_exes(&mut self) -> Result<(), LedgerError> {
        let all: Vec<Exe> = keys(&self.written.exes, "EXES")?;
        if all.len() * 4 < self.most * CROWDED {
            return Ok(());
        }
        let used: HashSet<Exe> = self.known.keys().map(Group::exe).collect();
        for exe in all.iter().filter(|exe| !used.contains(exe)) {
            let _ = self.written.exes.remove(exe);
        }
        Ok(())
    }
}
