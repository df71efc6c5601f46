//! Sets of ports, written in the file as lists of ports and ranges.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde::{Deserializer, Serializer};
use toml::Value;

use super::value;

/// Reads a list of ports and ranges, which may overlap and come in any order.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<u16>, D::Error> {
    value::read(from, |value| {
        let ranges: Option<Vec<_>> = value.as_array()?.iter().map(range).collect();
        Some(ranges?.into_iter().flatten().collect())
    })
}

/// Reads one port, or a range.
fn range(value: &Value) -> Option<RangeInclusive<u16>> {
    let (first, last) = if let Some(port) = value.as_integer() {
        (port.try_into().ok()?, port.try_into().ok()?)
    } else {
        let (first, last) = value.as_str()?.split_once('-')?;
        (first.trim().parse().ok()?, last.trim().parse().ok()?)
    };
    (0 < first && first <= last).then_some(first..=last)
}

/// Writes consecutive ports as one range.
pub(super) fn serialize<S: Serializer>(ports: &BTreeSet<u16>, to: S) -> Result<S::Ok, S::Error> {
    let ports: Vec<_> = ports.iter().copied().collect();
    let ranges = ports.chunk_by(|port, next| port + 1 == *next);
    to.collect_seq(ranges.map(|range| match range {
        [first, .., last] => Value::from(format!("{first}-{last}")),
        one => u32::from(one[0]).into(),
    }))
}
