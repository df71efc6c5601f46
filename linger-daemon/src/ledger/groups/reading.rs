//! One reading of all groups: the counts to show, and what it found out about the groups.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use linger_ebpf::{Counters, Group};

use super::super::retired_totals::{OTHER, RETIRED};
use super::super::series_limit::groups_beyond;
use super::super::sum::{add, fingerprint};
use super::{Groups, KnownGroup};
use crate::attribution::Labels;

#[derive(Default)]
pub(in super::super) struct Reading {
    /// The counts to show, by labels: several groups may have the same.
    pub(in super::super) totals: HashMap<Arc<Labels>, Box<Counters>>,
    /// Every group.
    pub(in super::super) found: Vec<GroupReading>,
    pub(super) new: HashMap<Group, KnownGroup>,
    /// When the first group of each series was seen: its number in that order.
    first_seen: HashMap<Arc<Labels>, u64>,
    /// The series beyond the limit, shown under `other`.
    pub(super) too_many: HashSet<Arc<Labels>>,
}

pub(in super::super) struct GroupReading {
    pub(super) group: Group,
    /// The [`fingerprint`] of its counters.
    pub(super) sum: u64,
    pub(super) orphans_under_way: u64,
}

impl Reading {
    /// Adds counters to the total with these labels.
    pub(in super::super) fn show(&mut self, labels: &Arc<Labels>, counters: &Counters) {
        let total = self.totals.entry(Arc::clone(labels));
        add(total.or_insert_with(|| Box::new(Counters::ZERO)), counters);
    }

    /// Adds the counters of a group to the total under which it is shown.
    pub(super) fn add(
        &mut self,
        group: &Group,
        known: &KnownGroup,
        counters: &Counters,
        groups: &Groups,
    ) {
        let labels = if known.is_other {
            &groups.shared[OTHER]
        } else {
            &known.own
        };
        self.show(labels, counters);
        if known.has_series(&groups.shared[RETIRED]) {
            let first = self.first_seen.entry(Arc::clone(labels));
            let first = first.or_insert(known.first_seen);
            *first = known.first_seen.min(*first);
        }
        self.found.push(GroupReading {
            group: *group,
            sum: fingerprint(counters),
            orphans_under_way: counters.orphans.under_way(),
        });
    }

    /// [`Self::add`] for a group that is seen for the first time.
    pub(super) fn add_new(
        &mut self,
        group: &Group,
        known: KnownGroup,
        counters: &Counters,
        groups: &Groups,
    ) {
        self.add(group, &known, counters, groups);
        self.new.insert(*group, known);
    }

    /// Moves the labels that were first seen last to `other`, if there are more series than allowed.
    pub(super) fn bound(&mut self, groups: &Groups) {
        let first_seen = self.first_seen.iter();
        let series = first_seen.map(|(labels, since)| (*since, labels, &*self.totals[labels]));
        let too_many = groups_beyond(series, groups.most_series, groups.series);
        let too_many: HashSet<_> = too_many.into_iter().cloned().collect();
        for labels in &too_many {
            if let Some(counters) = self.totals.remove(labels) {
                self.show(&groups.shared[OTHER], &counters);
            }
        }
        self.too_many = too_many;
    }
}
