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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::MAX_SERIES_PER_GROUP;

    #[test]
    fn a_group_with_every_counter_has_the_maximum_number_of_series() {
        let mut all = Counters::ZERO;
        all.closes.fill(1);
        for times in all.blocked.iter_mut().chain([&mut all.orphans.lived]) {
            times.buckets[0] = 1;
        }
        all.resets = [1; linger_ebpf::Cause::COUNT];
        all.unread_bytes = 1;
        all.orphans.ends.fill(1);
        assert_eq!(series(&all), MAX_SERIES_PER_GROUP);
    }
}
