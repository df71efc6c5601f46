//! What the table of units has columns for.

use std::ops::{Index, IndexMut};

use clap::ValueEnum;
use serde::{Serialize, Serializer};

use crate::live::{Group, Live, Queues};
use crate::text::{bytes, count, seconds};

/// A column of the table of units, by which it may be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Column {
    /// The name of the unit
    Unit,
    /// Closes of sockets
    Closes,
    /// Closes that gave their connection up: the outcomes that end in _aborted
    Aborts,
    /// Payload that closes threw away from their send queues
    Discarded,
    /// Time that threads spent in close
    Blocked,
    /// Payload lost after the close that had left it to the kernel
    Lost,
    /// Closed sockets whose data is still under way
    Orphans,
    /// Received payload that no one read, thrown away by closes
    Unread,
    /// RSTs that this host sent
    Resets,
}

/// How the numbers of a column are written.
#[derive(Clone, Copy)]
enum Quantity {
    Count,
    Bytes,
    Seconds,
}

impl Column {
    /// Every column, in the order in which they stand and which their digits have.
    pub(super) const ALL: &[Self] = &[
        Self::Unit,
        Self::Closes,
        Self::Aborts,
        Self::Discarded,
        Self::Blocked,
        Self::Lost,
        Self::Orphans,
        Self::Unread,
        Self::Resets,
    ];

    /// The columns of numbers.
    pub(super) const NUMBERS: &[Self] = Self::ALL.split_at(1).1;

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

    /// Its name in the head of the table.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Closes => "closes",
            Self::Aborts => "aborts",
            Self::Discarded => "discarded",
            Self::Blocked => "blocked",
            Self::Lost => "lost",
            Self::Orphans => "orphans",
            Self::Unread => "unread",
            Self::Resets => "resets",
        }
    }

    /// The same in at most seven letters, for each second if it is a rate: all that a head has room for.
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

    /// A description in words.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Unit => "who closed",
            Self::Closes => "closes of sockets, of every outcome",
            Self::Aborts => "closes that gave the connection up (_aborted)",
            Self::Discarded => "payload thrown away by closes, bytes",
            Self::Blocked => "time that threads spent in close",
            Self::Lost => "payload lost after close, bytes",
            Self::Orphans => "closed sockets with data still under way",
            Self::Unread => "received payload that no one read, bytes",
            Self::Resets => "RSTs that this host sent",
        }
    }

    /// Whether it tells what is there now, and not what happened.
    pub(super) const fn is_gauge(self) -> bool {
        matches!(self, Self::Orphans)
    }

    /// A number of this column.
    pub(super) fn text(self, value: f64) -> String {
        match self.quantity() {
            Quantity::Count => count(value),
            Quantity::Bytes => bytes(value),
            Quantity::Seconds => seconds(value),
        }
    }

    const fn quantity(self) -> Quantity {
        match self {
            Self::Discarded | Self::Lost | Self::Unread => Quantity::Bytes,
            Self::Blocked => Quantity::Seconds,
            _ => Quantity::Count,
        }
    }
}

/// A number for each column that has numbers: counts, bytes, or seconds, in all or for each second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Numbers([f64; Column::NUMBERS.len()]);

impl Index<Column> for Numbers {
    type Output = f64;

    /// Of [`Column::Unit`], which has no numbers, nothing.
    fn index(&self, column: Column) -> &f64 {
        (column as usize)
            .checked_sub(1)
            .map_or(&0.0, |index| &self.0[index])
    }
}

impl IndexMut<Column> for Numbers {
    fn index_mut(&mut self, column: Column) -> &mut f64 {
        &mut self.0[column as usize - 1]
    }
}

impl Numbers {
    /// The numbers of a group.
    pub(super) fn of_group(group: &Group) -> Self {
        Self([
            group.closes.values().map(|&count| float(count)).sum(),
            float(group.aborted),
            float(group.discarded),
            group.blocked_seconds,
            float(group.lost_after_close),
            float(group.orphans),
            float(group.unread),
            float(group.resets),
        ])
    }

    /// The numbers of the whole host, including groups that are not shown.
    pub(super) fn of_host(live: &Live) -> Self {
        let aborts = live
            .closes
            .iter()
            .filter(|(outcome, _)| outcome.ends_with("_aborted"));
        let blocked = live.blocked.waited.values();
        Self([
            live.closes.values().map(|&count| float(count)).sum(),
            aborts.map(|(_, &count)| float(count)).sum(),
            live.discarded.values().map(queues).sum(),
            blocked.map(|histogram| histogram.sum).sum(),
            live.orphans.discarded.values().map(queues).sum(),
            float(live.orphans.now),
            float(live.unread),
            live.resets.values().map(|&count| float(count)).sum(),
        ])
    }

    /// The increase since `before`; `None` if a counter fell, which means that they started again.
    /// Gauges keep their value.
    pub(super) fn since(&self, before: &Self) -> Option<Self> {
        let mut since = *self;
        for &column in Column::NUMBERS.iter().filter(|column| !column.is_gauge()) {
            since[column] -= before[column];
            // Sums of fractions in another order may differ by their last digits.
            if since[column] < -1e-6 {
                return None;
            }
            since[column] = since[column].max(0.0);
        }
        Some(since)
    }

    /// The increase per second over this many seconds. Gauges keep their value.
    pub(super) fn per(&self, seconds: f64) -> Self {
        let mut rates = *self;
        for &column in Column::NUMBERS.iter().filter(|column| !column.is_gauge()) {
            rates[column] /= seconds;
        }
        rates
    }

    /// Adds others.
    pub(super) fn add(&mut self, others: &Self) {
        for (sum, other) in self.0.iter_mut().zip(others.0) {
            *sum += other;
        }
    }

    /// Only what is there now: nothing happened.
    pub(super) fn still(&self) -> Self {
        let mut still = Self::default();
        for &column in Column::NUMBERS.iter().filter(|column| column.is_gauge()) {
            still[column] = self[column];
        }
        still
    }
}

impl Serialize for Numbers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            Column::NUMBERS
                .iter()
                .map(|&column| (column.name(), self[column])),
        )
    }
}

fn queues(queues: &Queues) -> f64 {
    float(queues.unsent) + float(queues.unacked)
}

/// A count as a number with a fraction.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 2^53; three digits are shown"
)]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}
