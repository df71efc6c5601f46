//! What each set of labels adds up to.

use std::collections::HashMap;
use std::sync::Arc;

use linger_ebpf::Counters;

use super::sum::add;
use crate::attribution::Labels;

/// Counters by labels: several groups may have the same.
#[derive(Default)]
pub(super) struct Totals {
    slots: HashMap<Arc<Labels>, usize>,
    counters: Vec<(Arc<Labels>, Box<Counters>)>,
}

impl Totals {
    /// Where these labels stand; they do from now on.
    pub(super) fn slot(&mut self, labels: &Arc<Labels>) -> usize {
        if let Some(&slot) = self.slots.get(labels) {
            return slot;
        }
        let slot = self.counters.len();
        self.slots.insert(Arc::clone(labels), slot);
        self.counters
            .push((Arc::clone(labels), Box::new(Counters::ZERO)));
        slot
    }

    /// The counters of what stands there.
    pub(super) fn at(&mut self, slot: usize) -> &mut Counters {
        &mut self.counters[slot].1
    }

    /// The counters of these labels.
    pub(super) fn of(&mut self, labels: &Arc<Labels>) -> &mut Counters {
        let slot = self.slot(labels);
        self.at(slot)
    }

    /// All of them: where they stand, and what they are.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Counters)> {
        let counters = self.counters.iter().enumerate();
        counters.map(|(slot, (_, counters))| (slot, &**counters))
    }

    /// Moves what stands in one place to these labels.
    pub(super) fn fold(&mut self, slot: usize, into: &Arc<Labels>) {
        let counters = std::mem::replace(self.at(slot), Counters::ZERO);
        add(self.of(into), &counters);
    }

    /// The nonzero counters, sorted by labels.
    pub(super) fn sorted(mut self) -> Vec<(Arc<Labels>, Box<Counters>)> {
        self.counters
            .retain(|(_, counters)| **counters != Counters::ZERO);
        self.counters.sort_by(|(one, _), (two, _)| one.cmp(two));
        self.counters
    }
}
