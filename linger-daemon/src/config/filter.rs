//! Which closes get a group of their own.

use std::collections::{BTreeMap, BTreeSet};

use wildmatch::WildMatch;

use super::PortSet;

/// Selects the closes that get a group of their own. All others are counted under `other`, so that sums stay exact.
#[derive(Clone, Debug, Default, PartialEq)]
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
        let allowed = &self.allow.units;
        (allowed.is_empty() || allowed.matches(unit)) && !self.deny.units.matches(unit)
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lists {
    /// Values of the label `unit`.
    pub units: Patterns,
    /// Process names of 1 to 15 bytes.
    pub comms: BTreeSet<String>,
    /// Local ports of accepted connections.
    pub ports: PortSet,
}

/// Patterns of units.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patterns(BTreeMap<Pattern, WildMatch>);

impl Patterns {
    /// Whether one of them matches.
    #[must_use]
    pub fn matches(&self, unit: &str) -> bool {
        self.0.values().any(|matcher| matcher.matches(unit))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.0.keys()
    }
}

impl FromIterator<Pattern> for Patterns {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Self {
        let compiled = patterns.into_iter().map(|pattern| {
            let matcher = WildMatch::new(&pattern.0);
            (pattern, matcher)
        });
        Self(compiled.collect())
    }
}

/// A pattern of units: `*` stands for any text, `?` for one character, all else for itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(String);

impl Pattern {
    /// Maximum length of a cgroup path, bytes.
    const LONGEST: usize = 4096;

    /// Parses a pattern; `None` if it is empty, too long for a path, or contains a control character or one with a
    /// special meaning in other kinds of patterns: `[`, `]`, `{`, `}`.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let foreign = |character: char| character.is_control() || "[]{}".contains(character);
        let valid = (1..=Self::LONGEST).contains(&text.len()) && !text.contains(foreign);
        valid.then(|| Self(text.to_owned()))
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(units: &[&str], comms: &[&str]) -> Lists {
        Lists {
            units: units.iter().filter_map(|text| Pattern::new(text)).collect(),
            comms: comms.iter().map(|&comm| comm.to_owned()).collect(),
            ports: PortSet::default(),
        }
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
        let filter = Filter {
            allow: lists(&["app-*.service", "/docker/*"], &["web"]),
            deny: Lists::default(),
        };
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
        let filter = Filter {
            allow: lists(&["*.service"], &[]),
            deny: lists(&["ssh?.service"], &["cron"]),
        };
        assert!(filter.admits_unit("ssh.service"));
        assert!(!filter.admits_unit("sshd.service"));
        assert!(filter.admits_comm("sshd"));
        assert!(!filter.admits_comm("cron"));
    }

    #[test]
    fn what_the_patterns_cannot_say_is_refused() {
        for text in ["", "app-[0-9].service", "{a,b}.service", "a\nb", "\u{7f}"] {
            assert!(Pattern::new(text).is_none(), "{text:?}");
        }
        assert!(Pattern::new(&"a".repeat(4097)).is_none());
        assert!(Pattern::new(r"/system.slice/dev-disk\x2duuid.swap").is_some());
    }
}
