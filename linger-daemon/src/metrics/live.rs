//! Builds the live view from a reading of the ledger.

mod largest;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use linger_ebpf::{
    BLOCKED_BOUNDS_NS, BUCKETS, Cause, Counters, Fate, LIVED_BOUNDS_NS, Lost, Outcome, QueueBytes,
    TimeHistogram, WAITED,
};

use self::largest::{aborted, blocked, discarded, largest, lost_after_close};
use super::Exposition;
use crate::attribution::{Dimension, Labels};
use crate::event::seconds;
use crate::live::{
    Blocked, Counts, Group, Health, Histogram, Hook, Live, Lived, MAX_GROUPS, Orphans, Queues,
    RecentClose,
};
use crate::version::{REVISION, VERSION};

impl Live {
    /// Builds the live view of a reading, with the latest costly closes, newest first.
    #[must_use]
    pub fn of(exposition: &Exposition, recent: Vec<RecentClose>) -> Self {
        let Exposition {
            snapshot, facts, ..
        } = exposition;
        let counters: Vec<_> = snapshot.groups.iter().map(|(_, one)| &**one).collect();
        let shown = largest(&counters, MAX_GROUPS);
        let groups = shown.iter().map(|&index| {
            let (labels, counters) = &snapshot.groups[index];
            Group::of(&snapshot.dimensions, labels, counters)
        });
        let groups: Vec<_> = groups.collect();
        let all = Sum(&counters);
        let waited = WAITED.into_iter().enumerate();
        let waited = waited.filter(|&(at, _)| all.of(|one| one.blocked[at].count()) > 0);
        Self {
            at: unix_seconds(exposition.at),
            started: exposition.process("process_start_time_seconds"),
            host: facts.host.clone(),
            version: VERSION.to_owned(),
            revision: REVISION.to_owned(),
            plan: facts.plan.name().to_owned(),
            kernel: facts.kernel.clone(),
            closes: all.closes(),
            blocked: Blocked {
                bounds: BLOCKED_BOUNDS_NS.map(seconds).into(),
                waited: waited
                    .map(|(at, waited)| (waited.to_owned(), all.times(|one| &one.blocked[at])))
                    .collect(),
            },
            discarded: all.queues(Outcome::ALL, Outcome::name, Counters::discarded),
            unread: all.of(|one| one.unread_bytes),
            resets: all.counts(Cause::ALL, Cause::name, |one, cause| {
                one.resets[cause.index()]
            }),
            orphans: Orphans {
                now: all.of(|one| one.orphans.under_way()),
                orphaned: all.of(|one| one.orphans.total_bytes()),
                delivered: all.of(|one| one.orphans.delivered_bytes),
                discarded: all.queues(Fate::ALL, Fate::name, |one, fate| {
                    one.orphans.discarded[fate.index()]
                }),
                ends: all.counts(Fate::ALL, Fate::name, |one, fate| {
                    one.orphans.ends[fate.index()]
                }),
                seconds: Lived {
                    bounds: LIVED_BOUNDS_NS.map(seconds).into(),
                    times: all.times(|one| &one.orphans.lived),
                },
            },
            dimensions: snapshot
                .dimensions
                .iter()
                .map(ToString::to_string)
                .collect(),
            groups_omitted: counters.len() - groups.len(),
            groups,
            health: Health::of(exposition),
            recent,
        }
    }
}

/// Groups whose counts are added up.
struct Sum<'a>(&'a [&'a Counters]);

impl Sum<'_> {
    fn of(&self, count: impl Fn(&Counters) -> u64) -> u64 {
        self.0.iter().map(|counters| count(counters)).sum()
    }

    /// Returns the counts that are not zero, by name.
    fn counts<T: Copy>(
        &self,
        all: &[T],
        name: fn(T) -> &'static str,
        count: impl Fn(&Counters, T) -> u64,
    ) -> Counts {
        let counts = all.iter().map(|&one| {
            let sum = self.of(|counters| count(counters, one));
            (name(one).to_owned(), sum)
        });
        counts.filter(|(_, sum)| *sum > 0).collect()
    }

    fn closes(&self) -> Counts {
        self.counts(Outcome::ALL, Outcome::name, Counters::closed)
    }

    /// Returns the payload by queue, by name, without entries that are zero.
    fn queues<T: Copy>(
        &self,
        all: &[T],
        name: fn(T) -> &'static str,
        bytes: impl Fn(&Counters, T) -> QueueBytes,
    ) -> BTreeMap<String, Queues> {
        let queues = all.iter().map(|&one| {
            let sum = Queues {
                unsent: self.of(|counters| bytes(counters, one).unsent),
                unacked: self.of(|counters| bytes(counters, one).unacked),
            };
            (name(one).to_owned(), sum)
        });
        queues
            .filter(|(_, sum)| *sum != Queues::default())
            .collect()
    }

    fn times(&self, times: impl Fn(&Counters) -> &TimeHistogram) -> Histogram {
        let bucket = |bucket| self.of(|counters| times(counters).buckets[bucket]);
        Histogram {
            counts: (0..BUCKETS).map(bucket).collect(),
            sum: seconds(self.of(|counters| times(counters).sum_ns)),
        }
    }
}

impl Group {
    fn of(dimensions: &[Dimension], labels: &Labels, counters: &Counters) -> Self {
        Self {
            labels: dimensions
                .iter()
                .map(ToString::to_string)
                .zip(labels.values().map(str::to_owned))
                .collect(),
            closes: Sum(&[counters]).closes(),
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
            maps: snapshot.maps.clone(),
            hooks: hooks.collect(),
            reading_seconds: exposition.reading.as_secs_f64(),
            resident_bytes: bytes(exposition.process("process_resident_memory_bytes")),
        }
    }
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
