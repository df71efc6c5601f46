//! The keys of the settings, and the origins of their values.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::logging;

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Addresses that serve the metrics.
    Listen,
    /// The file that says who may read them.
    WebConfigFile,
    /// Who may read the live figures.
    Live,
    /// The plan to use.
    Plan,
    /// Whether counts outlive the daemon.
    Persist,
    /// Where they are pinned.
    Pins,
    /// What to log.
    LogLevel,
    /// The labels of groups.
    Labels,
    /// The ports that the label `port` distinguishes.
    Ports,
    /// Maximum number of groups.
    MaxGroups,
    /// Maximum number of series.
    MaxSeries,
    /// How long to keep an idle group.
    RetireAfter,
    /// Maximum number of orphans followed.
    MaxOrphans,
    /// How long to follow an orphan.
    OrphanTtl,
    /// Units that get groups of their own.
    AllowUnits,
    /// Process names that get groups of their own.
    AllowComms,
    /// Local ports that get groups of their own.
    AllowPorts,
    /// Units that get no groups of their own.
    DenyUnits,
    /// Process names that get no groups of their own.
    DenyComms,
    /// Local ports that get no groups of their own.
    DenyPorts,
}

impl Key {
    /// Every key, in the order of the file.
    pub const ALL: &[Self] = &[
        Self::Listen,
        Self::WebConfigFile,
        Self::Live,
        Self::Plan,
        Self::Persist,
        Self::Pins,
        Self::LogLevel,
        Self::Labels,
        Self::Ports,
        Self::MaxGroups,
        Self::MaxSeries,
        Self::RetireAfter,
        Self::MaxOrphans,
        Self::OrphanTtl,
        Self::AllowUnits,
        Self::AllowComms,
        Self::AllowPorts,
        Self::DenyUnits,
        Self::DenyComms,
        Self::DenyPorts,
    ];

    /// Its name in the file, with its table if it is in one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::WebConfigFile => "web-config-file",
            Self::Live => "live",
            Self::Plan => "plan",
            Self::Persist => "persist",
            Self::Pins => "pins",
            Self::LogLevel => "log-level",
            Self::Labels => "labels",
            Self::Ports => "ports",
            Self::MaxGroups => "max-groups",
            Self::MaxSeries => "max-series",
            Self::RetireAfter => "retire-after",
            Self::MaxOrphans => "max-orphans",
            Self::OrphanTtl => "orphan-ttl",
            Self::AllowUnits => "allow.units",
            Self::AllowComms => "allow.comms",
            Self::AllowPorts => "allow.ports",
            Self::DenyUnits => "deny.units",
            Self::DenyComms => "deny.comms",
            Self::DenyPorts => "deny.ports",
        }
    }

    /// Its table with the following dot (empty if none), and its name in the table.
    #[must_use]
    pub(super) fn place(self) -> (&'static str, &'static str) {
        let name = self.name();
        name.split_at(name.find('.').map_or(0, |dot| dot + 1))
    }

    /// The flag that overrides the file; in the singular for lists in a table: `--allow-unit`.
    #[must_use]
    pub fn flag(self) -> String {
        match self.place() {
            // As in all exporters.
            ("", "web-config-file") => "--web.config.file".to_owned(),
            ("", name) => format!("--{name}"),
            (table, list) => {
                let (table, entry) = (table.trim_end_matches('.'), list.trim_end_matches('s'));
                format!("--{table}-{entry}")
            }
        }
    }

    /// Whether its value may be a list; in a flag, commas separate the entries.
    #[must_use]
    pub fn is_list(self) -> bool {
        matches!(self, Self::Listen | Self::Labels | Self::Ports) || !self.place().0.is_empty()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The default.
    Default,
    /// A line of the file, from 1.
    Line(Arc<Path>, usize),
    /// The environment variable of the log level.
    Environment,
    /// The flag of this key.
    Flag(Key),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Line(file, line) => write!(f, "{}:{line}", file.display()),
            Self::Environment => write!(f, "${}", logging::ENVIRONMENT),
            Self::Flag(key) => f.write_str(&key.flag()),
        }
    }
}
