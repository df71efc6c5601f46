//! Sets of ports, written in the file as lists of ports and ranges.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serializer};
use toml::Value;

/// Reads a list of ports and ranges, which may overlap and come in any order.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<u16>, D::Error> {
    let ranges = Vec::<Value>::deserialize(from)?;
    let ranges: Option<Vec<_>> = ranges.iter().map(range).collect();
    let ranges = ranges.ok_or_else(|| D::Error::custom("not a list of ports"))?;
    Ok(ranges.into_iter().flatten().collect())
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
