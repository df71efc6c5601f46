//! What the metrics say of processes.

use std::collections::BTreeMap;

use linger_daemon::exercise::{Closes, Ended, Tally};
use linger_ebpf::Fate;
use linger_testkit::exposition::{Sample, Scrape};

use crate::left::Homeless;

impl Homeless {
    /// What a scrape says of them, on the whole host.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts are whole, positive and below 2^53"
    )]
    pub(crate) fn of(scrape: &Scrape) -> Self {
        let sum = |name, what| {
            let samples = scrape.of(name);
            let samples = samples.filter(|sample| sample.label("what") == what);
            samples.map(|sample| sample.value).sum::<f64>() as u64
        };
        Self {
            count: sum("linger_lost_total", "orphan"),
            bytes: sum("linger_lost_orphan_bytes_total", ""),
        }
    }
}

/// What the metrics say of some processes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counted {
    /// Closes, with the sum of their blocked time, discarded bytes, unread bytes and resets.
    pub(crate) tally: Tally,
    /// By outcome: closes whose time is in the histogram.
    pub(crate) timed: BTreeMap<String, u64>,
    /// By outcome: closes that blocked for no longer than so many nanoseconds.
    pub(crate) within: BTreeMap<String, BTreeMap<u64, u64>>,
    /// By fate: orphans whose time is in the histogram.
    pub(crate) timed_orphans: BTreeMap<String, u64>,
    /// Orphans under way.
    pub(crate) under_way: i64,
}

impl Counted {
    /// The sums over all groups whose samples satisfy `select`.
    pub(crate) fn of(scrape: &Scrape, select: impl Fn(&Sample) -> bool) -> Self {
        let mut counted = Self::default();
        for sample in &scrape.0 {
            if sample.value != 0.0 && select(sample) {
                counted.add(sample);
            }
        }
        counted
    }

    /// What was counted since `before`.
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
            closes.blocked_ns -= before.blocked_ns;
        }
        for (outcome, timed) in &mut counted.timed {
            *timed -= before.timed.get(outcome).copied().unwrap_or(0);
        }
        for (outcome, within) in &mut counted.within {
            for (bound, closes) in within {
                let before = before.within.get(outcome).and_then(|it| it.get(bound));
                *closes -= before.copied().unwrap_or(0);
            }
        }
        for (cause, resets) in &mut counted.tally.resets {
            *resets -= before.tally.resets.get(cause).copied().unwrap_or(0);
        }
        counted.tally.unread -= before.tally.unread;
        counted.tally.orphans = self.tally.orphans.since(&before.tally.orphans);
        for (fate, timed) in &mut counted.timed_orphans {
            *timed -= before.timed_orphans.get(fate).copied().unwrap_or(0);
        }
        counted.under_way -= before.under_way;
        counted
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts are whole, positive and below 2^53"
    )]
    fn add(&mut self, sample: &Sample) {
        let value = sample.value as u64;
        match sample.name.as_str() {
            "linger_closes_total" => self.closes(sample, "outcome").count += value,
            "linger_close_blocked_seconds_count" => {
                let outcome = sample.label("outcome").to_owned();
                *self.timed.entry(outcome).or_default() += value;
            }
            "linger_close_blocked_seconds_bucket" if sample.label("le") != "+Inf" => {
                let bound: f64 = sample.label("le").parse().unwrap_or(f64::NAN);
                let outcome = sample.label("outcome").to_owned();
                let within = self.within.entry(outcome).or_default();
                *within.entry((bound * 1e9).round() as u64).or_default() += value;
            }
            "linger_close_blocked_seconds_sum" => {
                self.closes(sample, "outcome").blocked_ns += (sample.value * 1e9).round() as u64;
            }
            "linger_discarded_bytes_total" => self.discarded(sample, value),
            "linger_unread_bytes_total" => self.tally.unread += value,
            "linger_resets_sent_total" => {
                let cause = sample.label("cause").to_owned();
                *self.tally.resets.entry(cause).or_default() += value;
            }
            "linger_orphans" => self.under_way += sample.value as i64,
            "linger_orphans_total" => {
                let ended = Ended {
                    count: value,
                    ..Ended::default()
                };
                self.tally.orphans.end(sample.label("fate"), ended);
            }
            "linger_orphaned_bytes_total" => self.tally.orphans.bytes += value,
            "linger_orphan_delivered_bytes_total" => self.tally.orphans.delivered += value,
            "linger_orphan_seconds_count" => {
                let fate = sample.label("fate").to_owned();
                *self.timed_orphans.entry(fate).or_default() += value;
            }
            _ => {}
        }
    }

    /// Bytes thrown away by a close, or, if the cause is a fate, after it.
    fn discarded(&mut self, sample: &Sample, bytes: u64) {
        let (cause, unsent) = (sample.label("cause"), sample.label("queue") == "unsent");
        if Fate::ALL.iter().any(|fate| fate.name() == cause) {
            let (unsent, unacked) = if unsent { (bytes, 0) } else { (0, bytes) };
            let ended = Ended {
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

    /// By what the histogram of an outcome says, the least and the most that the sum of its times can be, nanoseconds.
    pub(crate) fn blocked_by_histogram(&self, outcome: &str) -> (u64, u64) {
        let (mut least, mut most, mut below, mut below_bound) = (0, 0, 0, 0);
        for (&bound, &closes) in self.within.get(outcome).into_iter().flatten() {
            least += (closes - below) * below_bound;
            most += (closes - below) * bound;
            (below, below_bound) = (closes, bound);
        }
        let longer = self.timed.get(outcome).copied().unwrap_or(0) - below;
        if longer > 0 {
            (least + longer * below_bound, u64::MAX)
        } else {
            (least, most)
        }
    }

    fn closes(&mut self, sample: &Sample, label: &str) -> &mut Closes {
        let outcome = sample.label(label).to_owned();
        self.tally.closes.entry(outcome).or_default()
    }
}
