//! The definition of a metric, and the sink of its series.

use linger_ebpf::{BUCKETS, Counters, TimeHistogram};

use super::Exposition;

/// The definition of a metric, with the rule that derives its series from the counts.
pub(super) struct Family {
    pub(super) name: &'static str,
    /// Help text: its meaning, its unit, and how to read it.
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) rule: Rule,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// Carries its information in its labels; the value is 1.
    Info,
    /// Times, by these upper bounds of its buckets but the last, in nanoseconds.
    Histogram(&'static [u64; BUCKETS - 1]),
}

/// Emits the series of a metric, in the order of their labels' values.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// The series of one group, without the group's own labels.
    Group(fn(&Counters, &mut dyn Series)),
    /// The series of the daemon itself.
    Daemon(fn(&Exposition, &mut dyn Series)),
}

pub(super) type Label<'a> = (&'static str, &'a str);

#[derive(Clone, Copy)]
pub(super) enum Value {
    Count(u64),
    /// A duration in nanoseconds, shown in seconds.
    Nanoseconds(u64),
    Float(f64),
}

/// Sink of the series of a metric: the text of an exposition, or a counter of its lines.
pub(super) trait Series {
    fn sample(&mut self, labels: &[Label], value: Value);

    fn histogram(&mut self, labels: &[Label], times: &TimeHistogram);

    fn count(&mut self, labels: &[Label], count: u64) {
        self.sample(labels, Value::Count(count));
    }
}

/// Counts series instead of writing them.
impl Series for usize {
    fn sample(&mut self, _: &[Label], _: Value) {
        *self += 1;
    }

    fn histogram(&mut self, _: &[Label], _: &TimeHistogram) {
        // The sum and the count are series of their own.
        *self += BUCKETS + 2;
    }
}
