//! Counts of processes in the metrics.

use std::collections::BTreeMap;

use linger_daemon::exercise::{Closes, FateTally, Tally};
use linger_ebpf::{Cause, Fate};
use linger_testkit::exposition::{Sample, Scrape};

use crate::closes::{sum, whole};
use crate::left::Homeless;
use crate::tallies::OrphanParts as _;

impl Homeless {
    /// Returns the counts of a scrape, for the whole host.
    pub(crate) fn of(scrape: &Scrape) -> Self {
        let sum = |name, what| sum(scrape, name, |sample| sample.label("what") == what);
        Self {
            count: sum("linger_lost_total", "orphan"),
            bytes: sum("linger_lost_orphan_bytes_total", ""),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
fn signed(value: f64) -> i64 {
    value as i64
}

/// The histograms of some groups, added up.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Histogram {
    /// Number of times in it.
    pub(crate) count: u64,
    /// Sum of the times, nanoseconds.
    pub(crate) sum_ns: u64,
    /// Number of times up to a bound, by the bound in nanoseconds, for bounds that have any.
    pub(crate) within: BTreeMap<u64, u64>,
}

impl Histogram {
    /// Adds a sample of a histogram, by the suffix of its name.
    fn add(&mut self, sample: &Sample, end: &str) {
        match end {
            "_count" => self.count += whole(sample.value),
            "_sum" => self.sum_ns += whole((sample.value * 1e9).round()),
            "_bucket" if sample.label("le") != "+Inf" => {
                let bound: f64 = sample.label("le").parse().unwrap_or(f64::NAN);
                let within = self.within.entry(whole((bound * 1e9).round()));
                *within.or_default() += whole(sample.value);
            }
            _ => {}
        }
    }

    /// Returns the difference since `before`.
    fn since(&self, before: &Self) -> Self {
        let within = self.within.iter().map(|(bound, times)| {
            let before = before.within.get(bound).copied().unwrap_or(0);
            (*bound, times - before)
        });
        Self {
            count: self.count - before.count,
            sum_ns: self.sum_ns - before.sum_ns,
            within: within.collect(),
        }
    }

    /// Returns how many times are no longer than this bound of a bucket.
    pub(crate) fn up_to(&self, bound_ns: u64) -> u64 {
        self.within.get(&bound_ns).copied().unwrap_or(0)
    }

    /// Returns the least and the greatest sum that its buckets allow, nanoseconds.
    pub(crate) fn range(&self) -> (u64, u64) {
        let (mut least, mut most, mut below, mut below_bound) = (0, 0, 0, 0);
        for (&bound, &times) in &self.within {
            least += (times - below) * below_bound;
            most += (times - below) * bound;
            (below, below_bound) = (times, bound);
        }
        let longer = self.count - below;
        if longer > 0 {
            (least + longer * below_bound, u64::MAX)
        } else {
            (least, most)
        }
    }
}

/// The counts of some processes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counted {
    /// Closes, with discarded bytes, unread bytes and resets. Their times are in `blocked`.
    pub(crate) tally: Tally,
    /// Times in close, by the label `waited`.
    pub(crate) blocked: BTreeMap<String, Histogram>,
    /// Times from the returns of closes to the ends of their orphans.
    pub(crate) lived: Histogram,
    /// Active orphans.
    pub(crate) under_way: i64,
}

impl Counted {
    /// Returns the sums over all groups whose samples satisfy `select`.
    pub(crate) fn of(scrape: &Scrape, select: impl Fn(&Sample) -> bool) -> Self {
        let mut counted = Self::default();
        for sample in &scrape.0 {
            if sample.value != 0.0 && select(sample) {
                counted.add(sample);
            }
        }
        counted
    }

    /// Returns the counts since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut counted = self.clone();
        for (outcome, closes) in &mut counted.tally.closes {
            let before = before
                .tally
                .closes
                .get(outcome)
                .copied()
                .unwrap_or_default();
            closes.count -= before.count;
            closes.unsent -= before.unsent;
            closes.unacked -= before.unacked;
        }
        for (waited, times) in &mut counted.blocked {
            if let Some(before) = before.blocked.get(waited) {
                *times = times.since(before);
            }
        }
        for (cause, resets) in &mut counted.tally.resets {
            *resets -= before.tally.resets.get(cause).copied().unwrap_or(0);
        }
        counted.tally.unread -= before.tally.unread;
        counted.tally.orphans = self.tally.orphans.since(&before.tally.orphans);
        counted.lived = self.lived.since(&before.lived);
        counted.under_way -= before.under_way;
        counted
    }

    fn add(&mut self, sample: &Sample) {
        let value = whole(sample.value);
        if let Some(end) = sample.name.strip_prefix("linger_close_blocked_seconds") {
            let waited = sample.label("waited").to_owned();
            self.blocked.entry(waited).or_default().add(sample, end);
        }
        if let Some(end) = sample.name.strip_prefix("linger_orphan_duration_seconds") {
            self.lived.add(sample, end);
        }
        match sample.name.as_str() {
            "linger_closes_total" => self.closes(sample, "outcome").count += value,
            "linger_discarded_bytes_total" => self.discarded(sample, value),
            "linger_unread_bytes_total" => self.tally.unread += value,
            "linger_resets_sent_total" => {
                let cause = sample.label("cause").to_owned();
                // These belong to no process.
                if [Cause::NoSocket, Cause::Refused]
                    .map(Cause::name)
                    .contains(&&*cause)
                {
                    return;
                }
                *self.tally.resets.entry(cause).or_default() += value;
            }
            "linger_orphans_active" => self.under_way += signed(sample.value),
            "linger_orphans_total" => {
                let ended = FateTally {
                    count: value,
                    ..FateTally::default()
                };
                self.tally.orphans.end(sample.label("fate"), ended);
            }
            "linger_orphaned_bytes_total" => self.tally.orphans.bytes += value,
            "linger_orphan_delivered_bytes_total" => self.tally.orphans.delivered += value,
            _ => {}
        }
    }

    /// Adds bytes discarded by a close or, if the cause is a fate, after it.
    fn discarded(&mut self, sample: &Sample, bytes: u64) {
        let (cause, unsent) = (sample.label("cause"), sample.label("queue") == "unsent");
        if Fate::ALL.iter().any(|fate| fate.name() == cause) {
            let (unsent, unacked) = if unsent { (bytes, 0) } else { (0, bytes) };
            let ended = FateTally {
                count: 0,
                unsent,
                unacked,
            };
            self.tally.orphans.end(cause, ended);
        } else if unsent {
            self.closes(sample, "cause").unsent += bytes;
        } else {
            self.closes(sample, "cause").unacked += bytes;
        }
    }

    /// Returns the times in close of closes that waited under `SO_LINGER`, or of those that did not.
    pub(crate) fn blocked(&self, waited: bool) -> Histogram {
        let times = self.blocked.get(&waited.to_string());
        times.cloned().unwrap_or_default()
    }

    fn closes(&mut self, sample: &Sample, label: &str) -> &mut Closes {
        let outcome = sample.label(label).to_owned();
        self.tally.closes.entry(outcome).or_default()
    }
}
