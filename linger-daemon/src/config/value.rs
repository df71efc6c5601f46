//! Valid values: their limits, their descriptions in messages, and their form in the file.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::Value;

use super::{Config, Filter, PlanChoice};
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
        "listen" => {
            "an address with its port such as 127.0.0.1:10546 or [::]:10546, unix: and the path of \
             a socket, or a list of these"
        }
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
    let Filter { allow, deny } = &config.filter;
    let times = [config.retire_after, config.orphan_ttl];
    !config.listen.is_empty()
        && config.pins.is_absolute()
        && GROUPS.contains(&config.max_groups)
        && SERIES.contains(&config.max_series)
        && ORPHANS.contains(&config.max_orphans)
        && times.iter().all(|time| *time >= Duration::from_secs(1))
        && allow.comms.iter().chain(&deny.comms).all(is_comm)
}

/// Reads a value by a function that returns `None` for one that is not valid.
pub(super) fn read<'de, D: Deserializer<'de>, T>(
    from: D,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<T, D::Error> {
    read(&Value::deserialize(from)?).ok_or_else(|| D::Error::custom("not valid"))
}

pub(super) fn parsed<'de, D: Deserializer<'de>, T: FromStr>(from: D) -> Result<T, D::Error> {
    read(from, |value| value.as_str()?.parse().ok())
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

    use serde::{Deserializer, Serialize as _, Serializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        super::read(from, |value| {
            let path = value.as_str().filter(|path| !path.contains('\0'))?;
            Some((!path.is_empty()).then(|| path.into()))
        })
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

    use serde::{Deserializer, Serializer};
    use toml::Value;

    /// Parses text.
    pub(crate) fn parse(text: &str) -> Result<Duration, &'static str> {
        let time = match text.parse() {
            Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
            Err(_) => humantime::parse_duration(text).ok(),
        };
        time.ok_or("expected a number of seconds such as 90, or a time such as 1h 30m")
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        super::read(from, |value| match value {
            Value::Integer(seconds) => (*seconds).try_into().ok().map(Duration::from_secs),
            value => parse(value.as_str()?).ok(),
        })
    }

    pub(crate) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*time))
    }
}
