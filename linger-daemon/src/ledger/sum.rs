//! Sums of counters.

use linger_ebpf::Counters;
use linger_ebpf::pod::{words, words_mut};

pub(super) fn sum(copies: &[Counters]) -> Counters {
    let mut sum = Counters::ZERO;
    for copy in copies {
        add(&mut sum, copy);
    }
    sum
}

/// Adds counters to others, wrapping: those of one CPU may be below zero if a close was recounted on another.
pub(super) fn add(sum: &mut Counters, more: &Counters) {
    // Not a count.
    let number = sum.number;
    for (sum, more) in words_mut(sum).iter_mut().zip(words(more)) {
        *sum = sum.wrapping_add(*more);
    }
    sum.number = number;
}

/// A sum that changes with everything that is counted.
pub(super) fn fingerprint(counters: &Counters) -> u64 {
    words(counters).iter().copied().fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use linger_ebpf::Outcome;

    use super::*;

    #[test]
    fn every_count_is_added_to_its_own_and_the_number_stays() {
        let mut one = Counters::ZERO;
        one.closes[Outcome::COUNT - 1] = 1;
        one.orphans.left = u64::MAX;
        one.number = 7;
        let mut two = Counters { number: 9, ..one };
        add(&mut two, &one);
        let mut expected = Counters::ZERO;
        expected.closes[Outcome::COUNT - 1] = 2;
        expected.orphans.left = u64::MAX - 1;
        expected.number = 9;
        assert_eq!(two, expected);
    }
}
