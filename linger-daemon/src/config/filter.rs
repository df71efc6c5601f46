//! Which closes get a group of their own.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use super::{ports, value};

/// Selects the closes that get a group of their own. All others are counted under `other`, so that sums stay exact.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Every non-empty list here must contain the close…
    pub allow: Lists,
    /// … and none of these lists may.
    pub deny: Lists,
}

impl Filter {
    /// Whether closes of this unit may get a group of their own.
    #[must_use]
    pub fn admits_unit(&self, unit: &str) -> bool {
        let Self { allow, deny } = self;
        (allow.units.is_empty() || allow.has_unit(unit)) && !deny.has_unit(unit)
    }

    /// Whether closes of a process with this name may get a group of their own.
    #[must_use]
    pub fn admits_comm(&self, comm: &str) -> bool {
        let allowed = &self.allow.comms;
        (allowed.is_empty() || allowed.contains(comm)) && !self.deny.comms.contains(comm)
    }

    /// Whether it lists units.
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
    #[serde(deserialize_with = "value::comms")]
    pub comms: BTreeSet<String>,
    /// Local ports of accepted connections.
    #[serde(with = "ports")]
    pub ports: BTreeSet<u16>,
}

impl Lists {
    /// What is in both.
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
    use serde::{Deserializer, Serializer};
    use wildmatch::WildMatch;

    use crate::config::value;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<WildMatch>, D::Error> {
        /// Maximum length of a cgroup path, bytes.
        const LONGEST: usize = 4096;
        const EXPECTED: &str = "a unit or the path of a cgroup, in which * stands for any text and \
                                ? for one character, without any of [ ] { }";
        // Brackets and braces have a special meaning in other kinds of patterns.
        let foreign = |character: char| character.is_control() || "[]{}".contains(character);
        let patterns = value::list(from, EXPECTED, |value| {
            let text = value.as_str()?;
            let valid = (1..=LONGEST).contains(&text.len()) && !text.contains(foreign);
            valid.then(|| WildMatch::new(text).to_string())
        })?;
        Ok(patterns
            .iter()
            .map(|pattern| WildMatch::new(pattern))
            .collect())
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

    fn filter(text: &str) -> Filter {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn an_empty_filter_admits_everything() {
        let filter = Filter::default();
        assert!(!filter.has_units());
        assert!(filter.admits_unit("nginx.service") && filter.admits_unit(""));
        assert!(filter.admits_comm("nginx") && filter.admits_comm(""));
    }

    #[test]
    fn a_list_of_those_allowed_keeps_all_others_out() {
        let filter = filter("allow.units = ['app-*.service', '/docker/*']\nallow.comms = ['web']");
        assert!(filter.has_units());
        assert!(filter.admits_unit("app-7.service"));
        assert!(filter.admits_unit("/docker/0123/init"));
        assert!(!filter.admits_unit("app.service"));
        assert!(!filter.admits_unit("an-app-7.service"));
        assert!(filter.admits_comm("web"));
        assert!(!filter.admits_comm("webber"));
    }

    #[test]
    fn one_that_is_denied_is_out_though_it_is_allowed() {
        let filter = filter(
            "allow.units = ['*.service']\ndeny = { units = ['ssh?.service'], comms = ['cron'] }",
        );
        assert!(filter.admits_unit("ssh.service"));
        assert!(!filter.admits_unit("sshd.service"));
        assert!(filter.admits_comm("sshd"));
        assert!(!filter.admits_comm("cron"));
    }

    #[test]
    fn what_the_patterns_cannot_say_is_refused() {
        let read = |text: &str| patterns::deserialize(toml::Value::from(vec![text]));
        for text in ["", "app-[0-9].service", "{a,b}.service", "a\nb", "\u{7f}"] {
            assert!(read(text).is_err(), "{text:?}");
        }
        assert!(read(&"a".repeat(4097)).is_err());
        assert!(read(r"/system.slice/dev-disk\x2duuid.swap").is_ok());
    }
}
