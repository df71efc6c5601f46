//! Whose closes get a group of their own.

use std::collections::{BTreeMap, BTreeSet};

use wildmatch::WildMatch;

use super::PortSet;

/// What is counted by itself. Everything else is counted under `other`, so that sums stay exact.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Each of these lists that is not empty must contain a close…
    pub allow: Lists,
    /// … and none of these may.
    pub deny: Lists,
}

impl Filter {
    /// Whether a close of this unit and process name gets a group of its own. `port` is the local
    /// port of an accepted connection; a close without is in no list of ports.
    #[must_use]
    pub fn admits(&self, unit: &str, comm: &str, port: Option<u16>) -> bool {
        let Lists {
            units,
            comms,
            ports,
        } = &self.allow;
        (units.is_empty() || units.matches(unit))
            && (comms.is_empty() || comms.contains(comm))
            && (ports.is_empty() || ports_contain(ports, port))
            && !self.deny.units.matches(unit)
            && !self.deny.comms.contains(comm)
            && !ports_contain(&self.deny.ports, port)
    }

    /// Whether it admits everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}

fn ports_contain(ports: &PortSet, port: Option<u16>) -> bool {
    port.is_some_and(|port| ports.contains(port))
}

/// What `[allow]` or `[deny]` lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lists {
    /// By the label `unit`.
    pub units: Patterns,
    /// By process name, of 1 to 15 bytes.
    pub comms: BTreeSet<String>,
    /// By local port of accepted connections.
    pub ports: PortSet,
}

impl Lists {
    /// Whether nothing is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.comms.is_empty() && self.ports.is_empty()
    }
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

    /// Whether there is none.
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
    /// Longest path of a cgroup, bytes.
    const LONGEST: usize = 4096;

    /// The pattern; none if it is empty or too long for a path, or holds a control character or
    /// one that means more in other kinds of patterns: `[`, `]`, `{`, `}`.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let foreign = |character: char| character.is_control() || "[]{}".contains(character);
        let valid = (1..=Self::LONGEST).contains(&text.len()) && !text.contains(foreign);
        valid.then(|| Self(text.to_owned()))
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(units: &[&str], comms: &[&str], ports: &[u16]) -> Lists {
        Lists {
            units: units.iter().filter_map(|text| Pattern::new(text)).collect(),
            comms: comms.iter().map(|&comm| comm.to_owned()).collect(),
            ports: ports.iter().map(|&port| port..=port).collect(),
        }
    }

    #[test]
    fn an_empty_filter_admits_everything() {
        let filter = Filter::default();
        assert!(filter.is_empty());
        assert!(filter.admits("nginx.service", "nginx", Some(443)));
        assert!(filter.admits("", "", None));
    }

    #[test]
    fn every_allow_list_in_use_must_contain_a_close() {
        let filter = Filter {
            allow: lists(&["app-*.service", "/docker/*"], &["web"], &[443]),
            deny: Lists::default(),
        };
        assert!(!filter.is_empty());
        assert!(filter.admits("app-7.service", "web", Some(443)));
        assert!(filter.admits("/docker/0123/init", "web", Some(443)));
        assert!(!filter.admits("app.service", "web", Some(443)));
        assert!(!filter.admits("an-app-7.service", "web", Some(443)));
        assert!(!filter.admits("app-7.service", "webber", Some(443)));
        assert!(!filter.admits("app-7.service", "web", Some(80)));
        assert!(!filter.admits("app-7.service", "web", None));
    }

    #[test]
    fn one_deny_list_is_enough_to_keep_a_close_out() {
        let filter = Filter {
            allow: lists(&["*.service"], &[], &[]),
            deny: lists(&["ssh?.service"], &["cron"], &[22]),
        };
        assert!(filter.admits("web.service", "web", None));
        assert!(filter.admits("ssh.service", "sshd", None));
        assert!(!filter.admits("sshd.service", "sshd", None));
        assert!(!filter.admits("web.service", "cron", None));
        assert!(!filter.admits("web.service", "web", Some(22)));
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
