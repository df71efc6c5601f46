//! The layers of the configuration: default, file, environment, flags.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use super::raw_value::{RawValue, Value};
use super::{Config, FileError, Invalid, Key, Origin, Problem, file};
use crate::attribution::Dimension;
use crate::logging::LogFilter;

/// The default file.
pub const DEFAULT_PATH: &str = "/etc/linger/lingerd.toml";

/// The sources of the settings.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, which must exist. If `None`, [`DEFAULT_PATH`], which need not exist.
    pub file: Option<PathBuf>,
    /// The values of flags. For lists, each may have several entries, separated by commas.
    pub flags: BTreeMap<Key, Vec<String>>,
    /// The environment variable of the log level.
    pub environment: Option<OsString>,
}

impl Sources {
    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
    }
}

/// A configuration, with the origins of its values.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The settings.
    pub config: Config,
    /// Whether there is a file.
    pub has_file: bool,
    origins: BTreeMap<Key, Origin>,
}

impl Effective {
    /// The origin of a key's value.
    #[must_use]
    pub fn origin(&self, key: Key) -> &Origin {
        self.origins.get(&key).unwrap_or(&Origin::Default)
    }
}

/// Reads the file, the environment and the flags. Fails with all problems found.
pub fn load(sources: &Sources) -> Result<Effective, Invalid> {
    let mut layers = Layers::default();
    layers.file(sources);
    layers.environment(sources);
    for &key in sources.flags.keys() {
        layers.flag(sources, key);
    }
    layers.finish()
}

/// The folder of pinned programs. Problems with other settings are warnings.
pub fn pins(sources: &Sources) -> Result<PathBuf, Invalid> {
    let mut layers = Layers::default();
    if !sources.flags.contains_key(&Key::Pins) {
        layers.file(sources);
    }
    layers.flag(sources, Key::Pins);
    if layers.bad.contains(&Key::Pins) {
        return Err(Invalid(layers.problems));
    }
    for problem in &layers.problems {
        warn!("{problem}");
    }
    Ok(layers.config.pins)
}

/// The log filter for commands that do not read the file.
pub fn log_level(sources: &Sources) -> Result<LogFilter, Invalid> {
    let mut layers = Layers::default();
    layers.environment(sources);
    layers.flag(sources, Key::LogLevel);
    Ok(layers.finish()?.config.log_level)
}

#[derive(Default)]
struct Layers {
    config: Config,
    has_file: bool,
    origins: BTreeMap<Key, Origin>,
    /// Keys whose value is unknown because of problems.
    bad: BTreeSet<Key>,
    problems: Vec<Problem>,
}

impl Layers {
    fn set(&mut self, raw: RawValue<'_>) {
        match self.config.set(&raw) {
            Ok(()) => drop(self.origins.insert(raw.key, raw.origin)),
            Err(problems) => {
                self.problems.extend(problems);
                self.bad.insert(raw.key);
            }
        }
    }

    fn file(&mut self, sources: &Sources) {
        let path = sources.path();
        match file::text(path) {
            Ok(text) => {
                self.has_file = true;
                let problems = file::each(&text, &Arc::from(path), |raw| self.set(raw));
                if problems
                    .iter()
                    .any(|problem| matches!(problem, Problem::Syntax { .. }))
                {
                    self.bad.extend(Key::ALL);
                }
                self.problems.extend(problems);
            }
            Err(FileError::Read(error))
                if error.kind() == io::ErrorKind::NotFound && sources.file.is_none() => {}
            Err(why) => {
                self.bad.extend(Key::ALL);
                self.problems.push(Problem::File {
                    path: path.to_owned(),
                    why,
                });
            }
        }
    }

    /// Applies the environment variable, unless it is empty or the flag is given.
    fn environment(&mut self, sources: &Sources) {
        let Some(text) = sources.environment.as_deref() else {
            return;
        };
        if sources.flags.contains_key(&Key::LogLevel) {
            return;
        }
        let value = match text.to_str().map(str::trim) {
            Some("") => return,
            Some(text) => Value::Word(text),
            None => Value::Other("what is not UTF-8".to_owned()),
        };
        self.set(RawValue {
            key: Key::LogLevel,
            origin: Origin::Environment,
            value,
        });
    }

    fn flag(&mut self, sources: &Sources, key: Key) {
        let Some(words) = sources.flags.get(&key) else {
            return;
        };
        let raw = |value| RawValue {
            key,
            origin: Origin::Flag(key),
            value,
        };
        if key.is_list() {
            let lists = words.iter().filter(|word| !word.is_empty());
            let entries = lists.flat_map(|word| word.split(',')).map(str::trim);
            let entries = entries.map(|entry| raw(Value::Word(entry)));
            self.set(raw(Value::List(entries.collect())));
        } else if let Some(word) = words.last() {
            self.set(raw(Value::Word(word)));
        }
    }

    fn finish(mut self) -> Result<Effective, Invalid> {
        self.contradictions();
        self.problems.sort_by_key(Problem::line);
        if !self.problems.is_empty() {
            return Err(Invalid(self.problems));
        }
        Ok(Effective {
            config: self.config,
            has_file: self.has_file,
            origins: self.origins,
        })
    }

    /// Finds settings that are valid on their own but contradict each other.
    fn contradictions(&mut self) {
        let Config {
            labels,
            ports,
            max_groups,
            max_series,
            filter,
            ..
        } = self.config.clone();
        let labelled = labels.contains(&Dimension::Port);
        if labelled && ports.is_empty() {
            let why = "port tells nothing apart, expected the ports to tell apart under ports";
            self.contradiction(Key::Labels, Key::Ports, why);
        }
        if !labelled && !ports.is_empty() {
            let why = "without use, expected port among labels";
            self.contradiction(Key::Ports, Key::Labels, why);
        }
        if max_series < max_groups {
            let why = format!("found {max_series}, expected at least max-groups: {max_groups}");
            self.contradiction(Key::MaxSeries, Key::MaxGroups, &why);
        }
        let both = |what: String| format!("{what} is allowed too, expected it in one of the two");
        for pattern in filter.deny.units.iter() {
            if filter.allow.units.iter().any(|allowed| allowed == pattern) {
                let why = both(format!("{:?}", pattern.as_str()));
                self.contradiction(Key::DenyUnits, Key::AllowUnits, &why);
            }
        }
        for comm in filter.deny.comms.intersection(&filter.allow.comms) {
            let why = both(format!("{comm:?}"));
            self.contradiction(Key::DenyComms, Key::AllowComms, &why);
        }
        for range in filter
            .deny
            .ports
            .intersection(&filter.allow.ports)
            .entries()
        {
            self.contradiction(Key::DenyPorts, Key::AllowPorts, &both(range.to_string()));
        }
    }

    /// Reports a contradiction where `key` was set, unless the value of one of the two is unknown.
    fn contradiction(&mut self, key: Key, other: Key, why: &str) {
        if !self.bad.contains(&key) && !self.bad.contains(&other) {
            let origin = self.origins.get(&key).unwrap_or(&Origin::Default);
            let problem = Problem::value(origin, key, why.to_owned());
            self.problems.push(problem);
        }
    }
}
