//! Unparsed values, and how each kind of key parses them.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use toml::de::DeInteger;

use super::{Access, Key, ListenAddr, Origin, Pattern, Patterns, PlanChoice, PortSet, Problem};
use crate::attribution::Dimension;
use crate::logging::LogFilter;

/// An unparsed value of a key, or an entry of its list.
pub(super) struct RawValue<'a> {
    pub(super) key: Key,
    pub(super) origin: Origin,
    pub(super) value: Value<'a>,
}

/// A value of any type.
pub(super) enum Value<'a> {
    /// From the command line or the environment: text, or a number.
    Word(&'a str),
    /// Text in the file.
    Text(&'a str),
    /// A number in the file.
    Integer(&'a DeInteger<'a>),
    /// A boolean in the file.
    Boolean(bool),
    /// A list.
    List(Vec<RawValue<'a>>),
    /// A description of a value that no key accepts.
    Other(String),
}

impl Value<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Word(text) | Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn integer(&self) -> Option<u64> {
        match self {
            Self::Word(text) => text.parse().ok(),
            Self::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
            _ => None,
        }
    }
}

impl fmt::Display for Value<'_> {
    /// Quotes text, and truncates it if it is long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 60;
        match self {
            Self::Word(text) | Self::Text(text) if text.chars().count() > LONGEST => {
                let start: String = text.chars().take(LONGEST).collect();
                write!(f, "{start:?}…")
            }
            Self::Word(text) | Self::Text(text) => write!(f, "{text:?}"),
            Self::Integer(integer) => write!(f, "{integer}"),
            Self::Boolean(boolean) => write!(f, "{boolean}"),
            Self::List(_) => f.write_str("a list"),
            Self::Other(other) => f.write_str(other),
        }
    }
}

// Descriptions of valid values.
const PLACE: &str = "an address with its port such as 127.0.0.1:10546 or [::]:10546, unix: and the \
                     path of a socket, or a list of these";
const LOG_FILTER: &str = "a level (error, warn, info, debug or trace), or levels by module as in \
                          info,linger_daemon::http=debug";
const DURATION: &str = "at least 1s: a number of seconds such as 90, or a time such as \"1h 30m\"";
const PORTS: &str = "a port from 1 to 65535, or several in a row such as \"8000-8099\"";
const PATTERN: &str = "a unit or the path of a cgroup, in which * stands for any text and ? for \
                       one character, without any of [ ] { }";
/// Maximum length of a process name, bytes.
const MAX_COMM: usize = 15;
const COMM: &str = "the name of a process, of 1 to 15 bytes";

impl RawValue<'_> {
    pub(super) fn places(&self) -> Result<Vec<ListenAddr>, Vec<Problem>> {
        let place = |entry: &Self| entry.read(PLACE, |value| value.text()?.parse().ok());
        match &self.value {
            Value::List(entries) if entries.is_empty() => {
                let why = format!("found an empty list, expected {PLACE}");
                Err(vec![self.problem(&why)])
            }
            Value::List(_) => Ok(self.list(place)?.into_iter().collect()),
            _ => Ok(vec![place(self)?]),
        }
    }

    pub(super) fn boolean(&self) -> Result<bool, Problem> {
        self.read("true or false", |value| match value {
            Value::Boolean(boolean) => Some(*boolean),
            Value::Word(text) => text.parse().ok(),
            _ => None,
        })
    }

    pub(super) fn access(&self) -> Result<Access, Problem> {
        self.read("true, false or \"loopback\"", |value| match value {
            Value::Boolean(true) => Some(Access::Yes),
            Value::Boolean(false) => Some(Access::No),
            Value::Word(text) => text.parse().ok(),
            Value::Text(text) => text
                .parse()
                .ok()
                .filter(|access| *access == Access::Loopback),
            _ => None,
        })
    }

    /// The path of a folder.
    pub(super) fn path(&self) -> Result<PathBuf, Problem> {
        self.read("a path that begins with /", |value| {
            let path = PathBuf::from(value.text()?);
            path.is_absolute().then_some(path)
        })
    }

    /// The path of a file; `None` if the text is empty.
    pub(super) fn file(&self) -> Result<Option<PathBuf>, Problem> {
        self.read("the path of a file", |value| {
            let path = value.text().filter(|path| !path.contains('\0'))?;
            Some((!path.is_empty()).then(|| path.into()))
        })
    }

    pub(super) fn plan(&self) -> Result<PlanChoice, Problem> {
        self.choice()
    }

    pub(super) fn log_filter(&self) -> Result<LogFilter, Problem> {
        self.read(LOG_FILTER, |value| value.text()?.parse().ok())
    }

    pub(super) fn whole(&self, range: RangeInclusive<u32>) -> Result<u32, Problem> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(&expected, |value| {
            let number = value.integer()?.try_into().ok()?;
            range.contains(&number).then_some(number)
        })
    }

    /// A duration; a bare number is in seconds.
    pub(super) fn duration(&self) -> Result<Duration, Problem> {
        self.read(DURATION, |value| {
            let time = match value.integer() {
                Some(seconds) => Duration::from_secs(seconds),
                None => humantime::parse_duration(value.text()?).ok()?,
            };
            (time >= Duration::from_secs(1)).then_some(time)
        })
    }

    pub(super) fn dimensions(&self) -> Result<Vec<Dimension>, Vec<Problem>> {
        Ok(self.list(RawValue::choice)?.into_iter().collect())
    }

    pub(super) fn ports(&self) -> Result<PortSet, Vec<Problem>> {
        let ranges = self.list(RawValue::range)?.into_iter();
        Ok(ranges.map(|(first, last)| first..=last).collect())
    }

    pub(super) fn patterns(&self) -> Result<Patterns, Vec<Problem>> {
        let pattern = |entry: &Self| entry.read(PATTERN, |value| Pattern::new(value.text()?));
        Ok(self.list(pattern)?.into_iter().collect())
    }

    pub(super) fn comms(&self) -> Result<BTreeSet<String>, Vec<Problem>> {
        self.list(RawValue::comm)
    }

    fn comm(&self) -> Result<String, Problem> {
        self.read(COMM, |value| {
            let comm = value.text()?;
            let valid = (1..=MAX_COMM).contains(&comm.len()) && !comm.contains('\0');
            valid.then(|| comm.to_owned())
        })
    }

    /// The first and last port of a range.
    fn range(&self) -> Result<(u16, u16), Problem> {
        self.read(PORTS, |value| {
            let (first, last) = if let Some(port) = value.integer() {
                (port.try_into().ok()?, port.try_into().ok()?)
            } else {
                let (first, last) = value.text()?.split_once('-')?;
                (first.trim().parse().ok()?, last.trim().parse().ok()?)
            };
            (0 < first && first <= last).then_some((first, last))
        })
    }

    /// One of the names known to the command line.
    fn choice<T: ValueEnum>(&self) -> Result<T, Problem> {
        let choices = T::value_variants().iter();
        let names: Vec<_> = choices
            .filter_map(|choice| Some(choice.to_possible_value()?.get_name().to_owned()))
            .collect();
        let expected = format!("one of {}", names.join(", "));
        self.read(&expected, |value| T::from_str(value.text()?, false).ok())
    }

    /// Parses the value by `read`; `expected` describes valid values.
    fn read<T>(
        &self,
        expected: &str,
        read: impl FnOnce(&Value<'_>) -> Option<T>,
    ) -> Result<T, Problem> {
        read(&self.value)
            .ok_or_else(|| self.problem(&format!("found {}, expected {expected}", self.value)))
    }

    /// Parses the entries of a list by `read`, or returns all problems with them.
    fn list<T: Ord>(
        &self,
        read: impl Fn(&Self) -> Result<T, Problem>,
    ) -> Result<BTreeSet<T>, Vec<Problem>> {
        let Value::List(entries) = &self.value else {
            let why = format!("found {}, expected a list in [ ]", self.value);
            return Err(vec![self.problem(&why)]);
        };
        let (mut list, mut problems) = (BTreeSet::new(), Vec::new());
        for entry in entries {
            match read(entry) {
                Ok(value) => {
                    if !list.insert(value) {
                        let why = format!("found {} again, expected it once", entry.value);
                        problems.push(entry.problem(&why));
                    }
                }
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            Ok(list)
        } else {
            Err(problems)
        }
    }

    fn problem(&self, why: &str) -> Problem {
        Problem::value(&self.origin, self.key, why.to_owned())
    }
}
