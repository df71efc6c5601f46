//! Valid values: their limits, their descriptions in messages, and their form in the file.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{Config, Lists, PlanChoice, listen_addr};
use crate::attribution::Dimension;

/// Valid numbers of groups.
pub(super) const GROUPS: RangeInclusive<u32> = 1..=65_536;
/// Valid numbers of series.
pub(super) const SERIES: RangeInclusive<u32> = 1_000..=u32::MAX;
/// Valid numbers of orphans.
pub(super) const ORPHANS: RangeInclusive<u32> = 1..=4_194_304;

/// Describes the values that a key, or an entry of its list, accepts.
///
/// # Panics
///
/// If there is no such key.
pub(super) fn expected(key: &str) -> String {
    let whole = |range: &RangeInclusive<u32>| {
        format!("a whole number from {} to {}", range.start(), range.end())
    };
    let text = match key {
        "listen" => listen_addr::EXPECTED,
        "web-config-file" => "the path of a file",
        "live" => "true, false or \"loopback\"",
        "plan" => return one_of::<PlanChoice>(),
        "persist" => "true or false",
        "pins" => "a path that begins with /",
        "log-level" => {
            "a level (error, warn, info, debug or trace), or levels by module as in \
             info,linger_daemon::http=debug"
        }
        "labels" => return one_of::<Dimension>(),
        "max-groups" => return whole(&GROUPS),
        "max-series" => return whole(&SERIES),
        "max-orphans" => return whole(&ORPHANS),
        "retire-after" | "orphan-ttl" => {
            "at least 1s: a number of seconds such as 90, or a time such as \"1h 30m\""
        }
        "allow.units" | "deny.units" => {
            "a unit or the path of a cgroup, in which * stands for any text and ? for one character, \
             without any of [ ] { }"
        }
        "allow.comms" | "deny.comms" => "the name of a process, of 1 to 15 bytes",
        "ports" | "allow.ports" | "deny.ports" => {
            "a port from 1 to 65535, or several in a row such as \"8000-8099\""
        }
        _ => unreachable!("{key} is no key"),
    };
    text.to_owned()
}

fn one_of<T: ValueEnum>() -> String {
    let values = T::value_variants().iter().filter_map(T::to_possible_value);
    let names: Vec<_> = values.map(|value| value.get_name().to_owned()).collect();
    format!("one of {}", names.join(", "))
}

/// Returns whether every value is within its limits.
pub(super) fn is_valid(config: &Config) -> bool {
    /// Maximum length of a process name, bytes.
    const LONGEST: usize = 15;
    let is_comm = |comm: &String| (1..=LONGEST).contains(&comm.len()) && !comm.contains('\0');
    let has_valid_comms = |lists: &Lists| lists.comms.iter().all(is_comm);
    let times = [config.retire_after, config.orphan_ttl];
    !config.listen.is_empty()
        && config.pins.is_absolute()
        && GROUPS.contains(&config.max_groups)
        && SERIES.contains(&config.max_series)
        && ORPHANS.contains(&config.max_orphans)
        && times.iter().all(|time| *time >= Duration::from_secs(1))
        && has_valid_comms(&config.filter.allow)
        && has_valid_comms(&config.filter.deny)
}

/// Parses a value from text.
pub(super) fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
    from: D,
) -> Result<T, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

/// Reads a list, sorts it, and drops duplicates.
pub(super) fn sorted<'de, D: Deserializer<'de>, T: Deserialize<'de> + Ord>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    Ok(BTreeSet::deserialize(from)?.into_iter().collect())
}

/// The path of a file; empty text is `None`.
pub(super) mod optional_path {
    use std::path::PathBuf;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        let path = String::deserialize(from)?;
        if path.contains('\0') {
            return Err(D::Error::custom("not the path of a file"));
        }
        Ok((!path.is_empty()).then(|| path.into()))
    }

    #[expect(clippy::ref_option, reason = "serde passes it so")]
    pub(crate) fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        path.clone().unwrap_or_default().serialize(to)
    }
}

/// A duration; a bare number is in seconds.
pub(super) mod duration {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use toml::Value;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let time = match Value::deserialize(from)? {
            Value::Integer(seconds) => seconds.try_into().ok().map(Duration::from_secs),
            Value::String(text) => humantime::parse_duration(&text).ok(),
            _ => None,
        };
        time.ok_or_else(|| D::Error::custom("not a time"))
    }

    pub(crate) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*time))
    }
}
