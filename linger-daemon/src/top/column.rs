//! The columns of the table of units.

use std::cmp::Ordering;
use std::ops::Index;

use clap::ValueEnum;
use serde::{Serialize, Serializer};

use crate::live::{Group, Live, Queues};
use crate::text::{bytes, count, seconds};

/// A column of the table of units, by which it may be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Column {
    /// The name of the unit
    Unit,
    /// Closes of sockets
    Closes,
    /// Closes that aborted their connection: the outcomes that end in _aborted
    Aborts,
    /// Payload in the send queue that closes discarded
    Discarded,
    /// Time that threads spent in close
    Blocked,
    /// Payload that a close left to the kernel, and that was lost afterwards
    Lost,
    /// Closed sockets whose data is still under way
    Orphans,
    /// Received payload that the program had not read, discarded by closes
    Unread,
    /// RSTs that this host sent
    Resets,
}

impl Column {
    pub(super) fn numbers() -> &'static [Self] {
        &Self::value_variants()[1..]
    }

    /// The columns of numbers, the most useful first.
    pub(super) const BY_WORTH: &[Self] = &[
        Self::Aborts,
        Self::Discarded,
        Self::Blocked,
        Self::Lost,
        Self::Closes,
        Self::Orphans,
        Self::Resets,
        Self::Unread,
    ];

    /// Returns its name, its description, and the function that formats its numbers.
    const fn describe(self) -> (&'static str, &'static str, fn(f64) -> String) {
        match self {
            Self::Unit => ("unit", "who closed", count),
            Self::Closes => ("closes", "closes of sockets, of every outcome", count),
            Self::Aborts => (
                "aborts",
                "closes that gave the connection up (_aborted)",
                count,
            ),
            Self::Discarded => ("discarded", "payload thrown away by closes, bytes", bytes),
            Self::Blocked => ("blocked", "time that threads spent in close", seconds),
            Self::Lost => ("lost", "payload lost after close, bytes", bytes),
            Self::Orphans => ("orphans", "closed sockets with data still under way", count),
            Self::Unread => ("unread", "received payload that no one read, bytes", bytes),
            Self::Resets => ("resets", "RSTs that this host sent", count),
        }
    }

    /// Returns its name in the head of the table.
    pub(super) const fn name(self) -> &'static str {
        self.describe().0
    }

    /// Returns its name in at most seven letters, with `/s` for a rate, to fit into the head of a narrow column.
    pub(super) fn head(self, is_rate: bool) -> String {
        let is_rate = is_rate && !self.is_gauge();
        let name = match self {
            Self::Discarded => "discard",
            Self::Blocked if is_rate => "block",
            other => other.name(),
        };
        if is_rate {
            format!("{name}/s")
        } else {
            name.to_owned()
        }
    }

    /// Returns its description.
    pub(super) const fn words(self) -> &'static str {
        self.describe().1
    }

    /// Returns whether it counts what exists now, and not what happened.
    pub(super) const fn is_gauge(self) -> bool {
        matches!(self, Self::Orphans)
    }

    /// Formats a number of this column; a dash if unknown.
    pub(super) fn text(self, value: Option<f64>) -> String {
        value.map_or("-".to_owned(), self.describe().2)
    }
}

/// The numbers to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Rates per second since the previous reading.
    Rates,
    /// Totals.
    Totals,
}

/// Totals, and rates per second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Figures {
    #[serde(rename = "totals")]
    pub(super) total: Numbers,
    /// `None` if the last two readings are not comparable.
    #[serde(rename = "rates")]
    pub(super) rate: Option<Numbers>,
}

impl Figures {
    /// Returns the number of a column to show, if known. Gauges have no rates.
    pub(super) fn number(&self, column: Column, shown: Shown) -> Option<f64> {
        match shown {
            Shown::Rates if !column.is_gauge() => self.rate.map(|rate| rate[column]),
            _ => Some(self.total[column]),
        }
    }

    /// Compares by the number shown, then by the other one, so that quiet units keep their places.
    pub(super) fn compare(&self, other: &Self, column: Column, shown: Shown) -> Ordering {
        let rate = |figures: &Self| figures.number(column, Shown::Rates).unwrap_or(0.0);
        let by_rate = rate(self).total_cmp(&rate(other));
        let by_total = self.total[column].total_cmp(&other.total[column]);
        match shown {
            Shown::Rates => by_rate.then(by_total),
            Shown::Totals => by_total.then(by_rate),
        }
    }

    /// Adds the figures of another group.
    pub(super) fn add(&mut self, other: &Self) {
        self.total.add(&other.total);
        if let Some(rate) = &other.rate {
            self.rate.get_or_insert_default().add(rate);
        }
    }
}

/// A number for each column, zero for [`Column::Unit`]: counts, bytes, or seconds, in total or per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Numbers([f64; 9]);

impl Index<Column> for Numbers {
    type Output = f64;

    fn index(&self, column: Column) -> &f64 {
        &self.0[column as usize]
    }
}

impl Numbers {
    pub(super) fn of_group(group: &Group) -> Self {
        Self([
            0.0,
            sum(group.closes.values()),
            float(group.aborted),
            float(group.discarded),
            group.blocked_seconds,
            float(group.lost_after_close),
            float(group.orphans),
            float(group.unread),
            float(group.resets),
        ])
    }

    /// Returns the numbers of the whole host, including groups that are not shown.
    pub(super) fn of_host(live: &Live) -> Self {
        let closes = live.closes.iter();
        let aborts = closes.filter(|(outcome, _)| outcome.ends_with("_aborted"));
        let blocked = live.blocked.waited.values();
        let queues = |queues: &Queues| queues.unsent + queues.unacked;
        Self([
            0.0,
            sum(live.closes.values()),
            sum(aborts.map(|(_, count)| count)),
            float(live.discarded.values().map(queues).sum()),
            // Their `sum` would be -0 if there are none.
            blocked.fold(0.0, |all, histogram| all + histogram.sum),
            float(live.orphans.discarded.values().map(queues).sum()),
            float(live.orphans.now),
            float(live.unread),
            sum(live.resets.values()),
        ])
    }

    /// Returns the increase per second since `before`; `None` if a counter fell, which means that the counts began
    /// again. Gauges keep their value.
    pub(super) fn rate(&self, before: &Self, seconds: f64) -> Option<Self> {
        let mut rate = *self;
        for &column in Column::numbers().iter().filter(|column| !column.is_gauge()) {
            let since = self[column] - before[column];
            // Sums of fractions in another order may differ by their last digits.
            if since < -1e-6 {
                return None;
            }
            rate.0[column as usize] = since.max(0.0) / seconds;
        }
        Some(rate)
    }

    fn add(&mut self, others: &Self) {
        for (sum, other) in self.0.iter_mut().zip(others.0) {
            *sum += other;
        }
    }
}

impl Serialize for Numbers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let numbers = Column::numbers().iter();
        serializer.collect_map(numbers.map(|&column| (column.name(), self[column])))
    }
}

fn sum<'a>(counts: impl Iterator<Item = &'a u64>) -> f64 {
    float(counts.sum())
}

/// Converts a count to floating point.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 2^53; three digits are shown"
)]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}
