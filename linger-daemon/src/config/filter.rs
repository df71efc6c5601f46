//! Selection of the closes that get a group of their own.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize};
use wildmatch::WildMatch;

use super::{ports, value};

/// Selects the closes that get a group of their own. All others are counted under `other`, so that sums stay exact.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Every non-empty list here must contain the close.
    pub allow: Lists,
    /// None of these lists may contain it.
    pub deny: Lists,
}

impl Filter {
    /// Returns whether closes of this unit may get a group of their own.
    #[must_use]
    pub fn admits_unit(&self, unit: &str) -> bool {
        let Self { allow, deny } = self;
        (allow.units.is_empty() || allow.has_unit(unit)) && !deny.has_unit(unit)
    }

    /// Returns whether closes of a process with this name may get a group of their own.
    #[must_use]
    pub fn admits_comm(&self, comm: &str) -> bool {
        let allowed = &self.allow.comms;
        (allowed.is_empty() || allowed.contains(comm)) && !self.deny.comms.contains(comm)
    }

    /// Returns whether the filter lists units.
    #[must_use]
    pub fn has_units(&self) -> bool {
        !self.allow.units.is_empty() || !self.deny.units.is_empty()
    }
}

/// The lists of `[allow]` or `[deny]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lists {
    /// Patterns for values of the label `unit`: `*` stands for any text, `?` for one character, all else for itself.
    #[serde(with = "patterns")]
    pub units: Vec<WildMatch>,
    /// Process names of 1 to 15 bytes.
    pub comms: BTreeSet<String>,
    /// Local ports of accepted connections.
    #[serde(with = "ports")]
    pub ports: BTreeSet<u16>,
}

impl Lists {
    pub(super) fn intersection(&self, other: &Self) -> Self {
        let units = self.units.iter().filter(|unit| other.units.contains(unit));
        Self {
            units: units.cloned().collect(),
            comms: &self.comms & &other.comms,
            ports: &self.ports & &other.ports,
        }
    }

    fn has_unit(&self, unit: &str) -> bool {
        self.units.iter().any(|pattern| pattern.matches(unit))
    }
}

/// Patterns in alphabetical order, without duplicates.
mod patterns {
    use super::{BTreeSet, Deserializer, WildMatch, value};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<WildMatch>, D::Error> {
        let patterns: BTreeSet<String> = value::read(from, |value| {
            let patterns = value.as_array()?.iter().map(|pattern| {
                let text = pattern.as_str().filter(|text| is_valid(text))?;
                // Equal ones are written alike: `a**` as `a*`.
                Some(WildMatch::new(text).to_string())
            });
            patterns.collect()
        })?;
        Ok(patterns.iter().map(|text| WildMatch::new(text)).collect())
    }

    fn is_valid(text: &str) -> bool {
        /// Maximum length of a cgroup path, bytes.
        const LONGEST: usize = 4096;
        // Brackets and braces have a special meaning in other kinds of patterns.
        let foreign = |character: char| character.is_control() || "[]{}".contains(character);
        (1..=LONGEST).contains(&text.len()) && !text.contains(foreign)
    }

    pub(super) fn serialize<S: serde::Serializer>(
        patterns: &[WildMatch],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(patterns.iter().map(ToString::to_string))
    }
}
