//! Selection of the closes that get a group of their own.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use super::ports;

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
    /// Patterns for values of the label `unit`.
    #[serde(with = "patterns")]
    pub units: Vec<WildMatch>,
    /// Process names of 1 to 15 bytes.
    pub comms: BTreeSet<String>,
    /// Local ports of accepted connections.
    #[serde(with = "ports")]
    pub ports: BTreeSet<u16>,
}

impl Lists {
    /// Returns the entries that are in both.
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

/// Patterns of units, in alphabetical order: `*` stands for any text, `?` for one character, all else for itself.
mod patterns {
    use std::collections::BTreeSet;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use wildmatch::WildMatch;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<WildMatch>, D::Error> {
        let patterns = Vec::<String>::deserialize(from)?;
        if !patterns.iter().all(|pattern| is_valid(pattern)) {
            return Err(D::Error::custom("not a list of patterns"));
        }
        let patterns = patterns.iter().map(|text| WildMatch::new(text).to_string());
        let patterns: BTreeSet<_> = patterns.collect();
        Ok(patterns.iter().map(|text| WildMatch::new(text)).collect())
    }

    fn is_valid(pattern: &str) -> bool {
        /// Maximum length of a cgroup path, bytes.
        const LONGEST: usize = 4096;
        // Brackets and braces have a special meaning in other kinds of patterns.
        let foreign = |character: char| character.is_control() || "[]{}".contains(character);
        (1..=LONGEST).contains(&pattern.len()) && !pattern.contains(foreign)
    }

    pub(super) fn serialize<S: Serializer>(
        patterns: &[WildMatch],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(patterns.iter().map(ToString::to_string))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_must_be_in_every_allowed_list_and_in_no_denied_one() {
        let allowed = "allow.units = ['app-*.service', '/docker/*']\nallow.comms = ['web']";
        let denied =
            "allow.units = ['*.service']\ndeny = { units = ['ssh?.service'], comms = ['cron'] }";
        for (text, units, other_units, comms, other_comms) in [
            (
                "",
                &["nginx.service", ""][..],
                &[][..],
                &["nginx", ""][..],
                &[][..],
            ),
            (
                allowed,
                &["app-7.service", "/docker/0123/init"],
                &["app.service", "an-app-7.service"],
                &["web"],
                &["webber"],
            ),
            (
                denied,
                &["ssh.service"],
                &["sshd.service"],
                &["sshd"],
                &["cron"],
            ),
        ] {
            let filter: Filter = toml::from_str(text).unwrap();
            assert_eq!(filter.has_units(), !text.is_empty());
            assert!(units.iter().all(|unit| filter.admits_unit(unit)), "{text}");
            assert!(
                !other_units.iter().any(|unit| filter.admits_unit(unit)),
                "{text}"
            );
            assert!(comms.iter().all(|comm| filter.admits_comm(comm)), "{text}");
            assert!(
                !other_comms.iter().any(|comm| filter.admits_comm(comm)),
                "{text}"
            );
        }
    }

    #[test]
    fn unsupported_patterns_are_refused() {
        let read = |text: &str| patterns::deserialize(toml::Value::from(vec![text]));
        for text in ["", "app-[0-9].service", "{a,b}.service", "a\nb", "\u{7f}"] {
            assert!(read(text).is_err(), "{text:?}");
        }
        assert!(read(&"a".repeat(4097)).is_err());
        assert!(read(r"/system.slice/dev-disk\x2duuid.swap").is_ok());
    }
}
