//! Changes to the configuration of a running daemon.

use std::fmt;

use linger_ebpf::key_field;
use toml::Value;

use super::{Config, Filter};

/// A setting that the new configuration changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    key: String,
    old: Value,
    new: Value,
    /// True if it applies without a restart.
    pub applies: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let restart = if self.applies { "" } else { " needs a restart" };
        write!(f, "{}: {} -> {}{restart}", self.key, self.old, self.new)
    }
}

/// Returns the configuration in effect after a daemon that runs with `running` reloads `wanted`.
///
/// Listeners, access, the plan, the labels and the sizes of maps stay until the next start, and so do settings
/// that would contradict them.
#[must_use]
pub fn in_effect(running: &Config, wanted: &Config) -> Config {
    let mut effect = Config {
        log_level: wanted.log_level.clone(),
        retire_after: wanted.retire_after,
        orphan_ttl: wanted.orphan_ttl,
        filter: wanted.filter.clone(),
        ..running.clone()
    };
    if !running.ports.is_empty() && !wanted.ports.is_empty() {
        effect.ports.clone_from(&wanted.ports);
    }
    if wanted.max_series >= running.max_groups {
        effect.max_series = wanted.max_series;
    }
    if running.key_fields() & key_field::CGROUP == 0 {
        // The attached programs do not read cgroups.
        let Filter { allow, deny } = &running.filter;
        effect.filter.allow.units.clone_from(&allow.units);
        effect.filter.deny.units.clone_from(&deny.units);
    }
    effect
}

/// Returns every setting that `wanted` changes, in the order of the keys.
#[must_use]
pub fn changes(running: &Config, wanted: &Config) -> Vec<Change> {
    let effect = in_effect(running, wanted);
    let settings = running.settings().into_iter().zip(wanted.settings());
    let changes = settings.filter(|((_, old), (_, new))| old != new);
    let changes = changes.map(|((key, old), (_, new))| Change {
        applies: effect.value(&key).as_ref() == Some(&new),
        key,
        old,
        new,
    });
    changes.collect()
}
