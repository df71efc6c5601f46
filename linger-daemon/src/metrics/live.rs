//! From a reading of the ledger to what the views show of it.

mod largest;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use linger_ebpf::{
    BLOCKED_BOUNDS_NS, BUCKETS, Cause, Counters, Fate, LIVED_BOUNDS_NS, Lost, Outcome, QueueBytes,
    Times, WAITED,
};

use self::largest::{aborted, blocked, discarded, largest, lost_after_close};
use super::Exposition;
use crate::attribution::{Dimension, Labels};
use crate::live::{
    Blocked, Counts, Group, Health, Histogram, Hook, Live, Lived, MAX_GROUPS, MAX_RECENT, Map,
    Orphans, Queues, RecentClose,
};
use crate::version::{REVISION, VERSION};

impl Live {
    /// The live view of this reading, with the latest costly closes, newest first.
    #[must_use]
    pub fn of(exposition: &Exposition, mut recent: Vec<RecentClose>) -> Self {
        let Exposition {
            snapshot, facts, ..
        } = exposition;
        recent.truncate(MAX_RECENT);
        let counters: Vec<_> = snapshot.groups.iter().map(|(_, one)| &**one).collect();
        let shown = largest(&counters, MAX_GROUPS);
        let mut live = Self {
            at: unix_seconds(exposition.at),
            started: exposition.process("process_start_time_seconds"),
            host: facts.host.clone(),
            version: VERSION.to_owned(),
            revision: REVISION.to_owned(),
            plan: facts.plan.name().to_owned(),
            kernel: facts.kernel.clone(),
            closes: Counts::new(),
            blocked: Blocked {
                bounds: BLOCKED_BOUNDS_NS.map(seconds).into(),
                waited: BTreeMap::new(),
            },
            discarded: BTreeMap::new(),
            unread: 0,
            resets: Counts::new(),
            orphans: Orphans {
                now: 0,
                orphaned: 0,
                delivered: 0,
                discarded: BTreeMap::new(),
                ends: Counts::new(),
                seconds: Lived {
                    bounds: LIVED_BOUNDS_NS.map(seconds).into(),
                    times: Histogram::none(),
                },
            },
            dimensions: names(&snapshot.dimensions).collect(),
            groups: shown
                .iter()
                .map(|&index| {
                    let (labels, counters) = &snapshot.groups[index];
                    Group::of(&snapshot.dimensions, labels, counters)
                })
                .collect(),
            groups_omitted: counters.len() - shown.len(),
            health: Health::of(exposition),
            recent,
        };
        for counters in counters {
            live.add(counters);
        }
        live
    }

    /// Adds what a group counted.
    fn add(&mut self, counters: &Counters) {
        for &outcome in Outcome::ALL {
            let discarded = counters.discarded(outcome);
            let name = outcome.name();
            count(&mut self.closes, name, counters.closed(outcome));
            throw_away(&mut self.discarded, name, discarded);
        }
        for (waited, times) in WAITED.into_iter().zip(&counters.blocked) {
            if times.count() > 0 {
                let waited = self.blocked.waited.entry(waited.to_owned());
                waited.or_insert_with(Histogram::none).add(times);
            }
        }
        self.unread += counters.unread_bytes;
        for (cause, &resets) in Cause::ALL.iter().zip(&counters.resets) {
            count(&mut self.resets, cause.name(), resets);
        }
        self.orphans.add(&counters.orphans);
    }
}

impl Histogram {
    /// No times.
    fn none() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            sum: 0.0,
        }
    }

    /// Adds the times of a group.
    fn add(&mut self, times: &Times) {
        for (sum, more) in self.counts.iter_mut().zip(times.buckets) {
            *sum += more;
        }
        self.sum += seconds(times.sum_ns);
    }
}

impl Orphans {
    /// Adds those of a group.
    fn add(&mut self, orphans: &linger_ebpf::Orphans) {
        self.now += orphans.under_way();
        self.orphaned += orphans.total_bytes();
        self.delivered += orphans.delivered_bytes;
        for (&fate, &discarded) in Fate::ALL.iter().zip(&orphans.discarded) {
            count(&mut self.ends, fate.name(), orphans.ends[fate.index()]);
            throw_away(&mut self.discarded, fate.name(), discarded);
        }
        self.seconds.times.add(&orphans.lived);
    }
}

impl Group {
    fn of(dimensions: &[Dimension], labels: &Labels, counters: &Counters) -> Self {
        let mut closes = Counts::new();
        for &outcome in Outcome::ALL {
            count(&mut closes, outcome.name(), counters.closed(outcome));
        }
        Self {
            labels: names(dimensions)
                .zip(labels.values().map(str::to_owned))
                .collect(),
            closes,
            aborted: aborted(counters),
            blocked_seconds: seconds(blocked(counters)),
            discarded: discarded(counters),
            unread: counters.unread_bytes,
            resets: counters.resets.iter().sum(),
            orphans: counters.orphans.under_way(),
            orphaned: counters.orphans.total_bytes(),
            delivered: counters.orphans.delivered_bytes,
            lost_after_close: lost_after_close(counters),
        }
    }
}

impl Health {
    fn of(exposition: &Exposition) -> Self {
        let snapshot = &exposition.snapshot;
        let lost = Lost::ALL.iter().zip(snapshot.lost);
        let maps = snapshot.maps.iter().map(|fill| Map {
            map: fill.map.to_owned(),
            entries: fill.entries,
            capacity: fill.capacity,
        });
        let hooks = snapshot.hooks.iter().map(|(hook, attached)| Hook {
            program: hook.program.to_owned(),
            target: hook.point.to_string(),
            attached: *attached,
        });
        Self {
            lost: lost
                .map(|(what, count)| (what.name().to_owned(), count))
                .collect(),
            lost_orphan_bytes: snapshot.lost_orphan_bytes,
            maps: maps.collect(),
            hooks: hooks.collect(),
            reading_seconds: exposition.reading.as_secs_f64(),
            resident_bytes: bytes(exposition.process("process_resident_memory_bytes")),
        }
    }
}

fn names(dimensions: &[Dimension]) -> impl Iterator<Item = String> {
    dimensions
        .iter()
        .map(|dimension| dimension.name().to_owned())
}

/// Adds to the count of this name, unless `more` is zero.
fn count(counts: &mut Counts, name: &str, more: u64) {
    if more > 0 {
        *counts.entry(name.to_owned()).or_default() += more;
    }
}

/// Adds payload to the queues of this name, unless there is none.
fn throw_away(queues: &mut BTreeMap<String, Queues>, name: &str, more: QueueBytes) {
    if more != QueueBytes::NONE {
        let sum = queues.entry(name.to_owned()).or_default();
        sum.unsent += more.unsent;
        sum.unacked += more.unacked;
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact for 104 days, and for people"
)]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of bytes, which the process metrics hold as a float"
)]
fn bytes(value: f64) -> u64 {
    value as u64
}

fn unix_seconds(at: SystemTime) -> f64 {
    let since = at.duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
