//! The names of the settings, and where their values come from.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::logging;

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Where the metrics are served.
    Listen,
    /// The file that says who may ask for them.
    WebConfigFile,
    /// Who may see what is live.
    Live,
    /// The hooks to use.
    Plan,
    /// Whether counts outlive the daemon.
    Persist,
    /// Where they are kept.
    Pins,
    /// What is logged.
    LogLevel,
    /// What tells groups apart.
    Labels,
    /// What the label `port` tells apart.
    Ports,
    /// Groups at a time.
    MaxGroups,
    /// Series at most.
    MaxSeries,
    /// How long an idle group is kept.
    RetireAfter,
    /// Orphans at a time.
    MaxOrphans,
    /// Age at which an orphan is given up.
    OrphanTtl,
    /// Units that get groups of their own.
    AllowUnits,
    /// Process names that do.
    AllowComms,
    /// Local ports that do.
    AllowPorts,
    /// Units that do not.
    DenyUnits,
    /// Process names that do not.
    DenyComms,
    /// Local ports that do not.
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

    /// Its name in the file, after that of its table if it stands in one.
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

    /// The table it stands in, with the dot that follows (empty if in none), and its name there.
    #[must_use]
    pub(super) fn place(self) -> (&'static str, &'static str) {
        let name = self.name();
        name.split_at(name.find('.').map_or(0, |dot| dot + 1))
    }

    /// The flag that wins over the file: for lists that of one entry, `--allow-unit`.
    #[must_use]
    pub fn flag(self) -> String {
        match self.place() {
            // As with all exporters.
            ("", "web-config-file") => "--web.config.file".to_owned(),
            ("", name) => format!("--{name}"),
            (table, list) => {
                let (table, entry) = (table.trim_end_matches('.'), list.trim_end_matches('s'));
                format!("--{table}-{entry}")
            }
        }
    }

    /// Whether its value may be a list; in a flag the entries stand between commas.
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

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody said anything else.
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
