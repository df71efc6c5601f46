//! Changes of the configuration of a running daemon.

use std::fmt;

use linger_ebpf::keyed;
use toml::Value;

use super::{Config, Key};

/// A setting that the new configuration changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The setting.
    pub key: Key,
    /// The value in effect.
    pub old: Value,
    /// The new value.
    pub new: Value,
    /// Whether it applies without a restart.
    pub applies: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.old, self.new)?;
        if !self.applies {
            f.write_str(" needs a restart")?;
        }
        Ok(())
    }
}

/// The configuration in effect after a daemon that runs with `running` reloads `wanted`.
///
/// Listeners, access, the plan, the labels and the sizes of maps stay until the next start, and so do settings
/// that would contradict them.
#[must_use]
pub fn in_effect(running: &Config, wanted: &Config) -> Config {
    let (tells_ports, would_tell) = (!running.ports.is_empty(), !wanted.ports.is_empty());
    let ports = if tells_ports && would_tell {
        wanted
    } else {
        running
    };
    let max_series = if wanted.max_series < running.max_groups {
        running
    } else {
        wanted
    };
    let mut filter = wanted.filter.clone();
    if running.keyed() & keyed::CGROUP == 0 {
        // The programs do not read cgroups.
        filter.allow.units = running.filter.allow.units.clone();
        filter.deny.units = running.filter.deny.units.clone();
    }
    Config {
        listen: running.listen.clone(),
        web_config_file: running.web_config_file.clone(),
        live: running.live,
        plan: running.plan,
        persist: running.persist,
        pins: running.pins.clone(),
        log_level: wanted.log_level.clone(),
        labels: running.labels.clone(),
        ports: ports.ports.clone(),
        max_groups: running.max_groups,
        max_series: max_series.max_series,
        retire_after: wanted.retire_after,
        max_orphans: running.max_orphans,
        orphan_ttl: wanted.orphan_ttl,
        filter,
    }
}

/// Every setting that `wanted` changes, in the order of the keys.
#[must_use]
pub fn changes(running: &Config, wanted: &Config) -> Vec<Change> {
    let effect = in_effect(running, wanted);
    let changes = Key::ALL.iter().map(|&key| {
        let new = wanted.value(key);
        Change {
            key,
            old: running.value(key),
            applies: effect.value(key) == new,
            new,
        }
    });
    changes.filter(|change| change.old != change.new).collect()
}
