//! The number of series of a group.

use linger_ebpf::{BUCKETS, Counters, TimeHistogram};

use super::families::FAMILIES;
use super::family::{Label, Rule, Series, Value};

/// Returns the number of series of a group with these counters.
#[must_use]
pub fn series(counters: &Counters) -> usize {
    let mut count = Count(0);
    for family in FAMILIES {
        if let Rule::Group(rule) = family.rule {
            rule(counters, &mut count);
        }
    }
    count.0
}

/// Counts series instead of writing them.
struct Count(usize);

impl Series for Count {
    fn sample(&mut self, _: &[Label], _: Value) {
        self.0 += 1;
    }

    fn histogram(&mut self, _: &[Label], _: &TimeHistogram) {
        // The sum and the count are series of their own.
        self.0 += BUCKETS + 2;
    }
}
