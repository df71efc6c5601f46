//! Sets of ports.

use std::ops::RangeInclusive;

use toml::Value;

/// A set of TCP ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSet {
    /// Sorted, with gaps between them.
    ranges: Vec<RangeInclusive<u16>>,
}

impl PortSet {
    /// Whether the set contains a port.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        let next = self.ranges.partition_point(|range| *range.end() < port);
        self.ranges
            .get(next)
            .is_some_and(|range| range.contains(&port))
    }

    /// Every port, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.ranges.iter().cloned().flatten()
    }

    /// Number of ports.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.iter().map(ExactSizeIterator::len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ports in both sets.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        self.iter()
            .filter(|&port| other.contains(port))
            .map(|port| port..=port)
            .collect()
    }

    /// The entries of a list in the file: a number for a port, text for a range.
    pub(super) fn entries(&self) -> impl Iterator<Item = Value> {
        self.ranges.iter().map(|range| {
            let (first, last) = (*range.start(), *range.end());
            if first == last {
                i64::from(first).into()
            } else {
                format!("{first}-{last}").into()
            }
        })
    }
}

impl FromIterator<RangeInclusive<u16>> for PortSet {
    /// Ranges may overlap, be empty, and come in any order.
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u16>>>(ranges: I) -> Self {
        let mut sorted: Vec<_> = ranges
            .into_iter()
            .filter(|range| !range.is_empty())
            .collect();
        sorted.sort_unstable_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u16>> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*range.end().max(last.end());
                }
                _ => merged.push(range),
            }
        }
        Self { ranges: merged }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_the_set_of_its_ranges(ranges in proptest::collection::vec((1..300_u16, 0..40_u16), 0..12)) {
            let ranges = ranges.into_iter().map(|(first, more)| first..=first + more);
            let truth: BTreeSet<u16> = ranges.clone().flatten().collect();
            let set: PortSet = ranges.collect();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), truth.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!((set.len(), set.is_empty()), (truth.len(), truth.is_empty()));
            for port in 0..=400 {
                prop_assert_eq!(set.contains(port), truth.contains(&port));
            }
        }

        #[test]
        fn the_same_ports_make_the_same_set(first in 1..100_u16, middle in 0..50_u16, more in 0..50_u16) {
            let whole = PortSet::from_iter([first..=first + middle + more]);
            let parts = [first + middle..=first + middle + more, first..=first + middle];
            prop_assert_eq!(PortSet::from_iter(parts), whole);
        }
    }

    #[test]
    fn the_last_port_has_no_next() {
        let set = PortSet::from_iter([65535..=65535, 65534..=65535]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [65534, 65535]);
    }
}
