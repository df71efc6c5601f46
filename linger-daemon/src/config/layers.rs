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

/// The file that is read unless another is given.
pub const DEFAULT_PATH: &str = "/etc/linger/lingerd.toml";

/// Where settings are looked for.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, which must exist. If none is given, [`DEFAULT_PATH`], which need not.
    pub file: Option<PathBuf>,
    /// The values of flags. Those of lists may be several entries each, between commas.
    pub flags: BTreeMap<Key, Vec<String>>,
    /// The environment variable of the log level.
    pub environment: Option<OsString>,
}

impl Sources {
    /// The file that is read if it exists.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
    }
}

/// A configuration, and where it comes from.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The settings.
    pub config: Config,
    /// Whether there is a file.
    pub has_file: bool,
    origins: BTreeMap<Key, Origin>,
}

impl Effective {
    /// Where the value of a key comes from.
    #[must_use]
    pub fn origin(&self, key: Key) -> &Origin {
        self.origins.get(&key).unwrap_or(&Origin::Default)
    }
}

/// Reads the file, the environment and the flags, or tells all that is wrong with them.
pub fn load(sources: &Sources) -> Result<Effective, Invalid> {
    let mut layers = Layers::default();
    layers.file(sources);
    layers.environment(sources);
    for &key in sources.flags.keys() {
        layers.flag(sources, key);
    }
    layers.finish()
}

/// Where programs are kept. What is wrong with other settings is a warning.
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

/// What is logged, of what works without the file.
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
    /// Keys of which it is not known what the problems leave of them.
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

    /// The variable counts unless it is empty, or the flag is given.
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

    /// Settings that are right by themselves, and wrong together.
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

    /// Tells of it where `key` was set, unless what one of the two says is not known.
    fn contradiction(&mut self, key: Key, other: Key, why: &str) {
        if !self.bad.contains(&key) && !self.bad.contains(&other) {
            let origin = self.origins.get(&key).unwrap_or(&Origin::Default);
            let problem = Problem::value(origin, key, why.to_owned());
            self.problems.push(problem);
        }
    }
}
