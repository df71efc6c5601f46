//! Sets of ports, as the file writes them: lists of ports and ranges.

use std::collections::BTreeSet;

use serde::{Deserializer, Serializer};
use toml::Value;

use super::value;

/// Ranges may overlap and come in any order.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<u16>, D::Error> {
    const EXPECTED: &str = "a port from 1 to 65535, or several in a row such as \"8000-8099\"";
    let ranges = value::list(from, EXPECTED, |value| {
        let (first, last) = if let Some(port) = value.as_integer() {
            (port.try_into().ok()?, port.try_into().ok()?)
        } else {
            let (first, last) = value.as_str()?.split_once('-')?;
            (first.trim().parse().ok()?, last.trim().parse().ok()?)
        };
        (0 < first && first <= last).then_some((first, last))
    })?;
    let ports = ranges.into_iter().flat_map(|(first, last)| first..=last);
    Ok(ports.collect())
}

/// Writes ports in a row as one range.
pub(super) fn serialize<S: Serializer>(ports: &BTreeSet<u16>, to: S) -> Result<S::Ok, S::Error> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for &port in ports {
        match ranges.last_mut() {
            Some((_, last)) if *last == port - 1 => *last = port,
            _ => ranges.push((port, port)),
        }
    }
    to.collect_seq(ranges.into_iter().map(|(first, last)| {
        if first == last {
            Value::from(i64::from(first))
        } else {
            format!("{first}-{last}").into()
        }
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toml::Value;

    use super::*;

    proptest! {
        #[test]
        fn is_the_set_of_its_ranges(ranges in proptest::collection::btree_set((1..300_u16, 0..40_u16), 0..12)) {
            let list: Vec<_> = ranges.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect();
            let set: BTreeSet<u16> = ranges.into_iter().flat_map(|(first, more)| first..=first + more).collect();
            prop_assert_eq!(deserialize(Value::from(list)).unwrap(), set);
        }
    }

    #[test]
    fn the_last_port_has_no_next() {
        let set = deserialize(Value::from(vec!["65535-65535", "65534-65535"])).unwrap();
        assert_eq!(set, [65534, 65535].into());
    }
}
