//! The layers of the configuration: default, file, environment, flags.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Table;
use tracing::warn;

use super::raw_value::RawValue;
use super::{Config, FileError, Invalid, Origin, Problem, file, keys};
use crate::attribution::Dimension;
use crate::logging::LogFilter;

/// Path of the default file.
pub const DEFAULT_PATH: &str = "/etc/linger/lingerd.toml";

/// The sources of the settings.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Path of the file, which must exist; `None` for [`DEFAULT_PATH`], which need not exist.
    pub file: Option<PathBuf>,
    /// Values of flags by key: text, or an array of texts whose entries are separated by commas.
    pub flags: Table,
    /// Value of the environment variable of the log level.
    pub environment: Option<OsString>,
}

impl Sources {
    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
    }
}

/// A configuration, with the origins of its values.
#[derive(Clone, Debug, Default)]
pub struct Effective {
    /// The settings.
    pub config: Config,
    /// True if there is a file.
    pub has_file: bool,
    origins: BTreeMap<String, Origin>,
}

impl Effective {
    /// Returns the origin of a key's value.
    #[must_use]
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}

/// Reads the file, the environment and the flags. Fails with all problems found.
pub fn load(sources: &Sources) -> Result<Effective, Invalid> {
    let mut layers = Layers::default();
    layers.file(sources);
    layers.environment(sources);
    for key in sources.flags.keys() {
        layers.flag(sources, key);
    }
    layers.finish()
}

/// Returns the directory of pinned programs. Problems with other settings are logged as warnings.
pub fn pins(sources: &Sources) -> Result<PathBuf, Invalid> {
    const PINS: &str = "pins";
    let mut layers = Layers::default();
    if !sources.flags.contains_key(PINS) {
        layers.file(sources);
    }
    layers.flag(sources, PINS);
    if layers.bad.contains(PINS) {
        return Err(Invalid(layers.problems));
    }
    for problem in &layers.problems {
        warn!("{problem}");
    }
    Ok(layers.effective.config.pins)
}

/// Returns the log filter for commands that do not take it from the file.
pub fn log_level(sources: &Sources) -> Result<LogFilter, Invalid> {
    let mut layers = Layers::default();
    layers.environment(sources);
    layers.flag(sources, LOG_LEVEL);
    Ok(layers.finish()?.config.log_level)
}

const LOG_LEVEL: &str = "log-level";

#[derive(Default)]
struct Layers {
    effective: Effective,
    /// Keys whose value is unknown because of problems.
    bad: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Layers {
    fn set(&mut self, key: &str, raw: RawValue) {
        let Effective {
            config, origins, ..
        } = &mut self.effective;
        match raw.check(key) {
            Ok(value) => {
                *config = config.with(key, value).expect("it was checked");
                origins.insert(key.to_owned(), raw.origin);
            }
            Err(problems) => {
                self.problems.extend(problems);
                self.bad.insert(key.to_owned());
            }
        }
    }

    fn file(&mut self, sources: &Sources) {
        let path = sources.path();
        let text = match file::text(path) {
            Ok(text) => text,
            Err(FileError::Read(error))
                if error.kind() == io::ErrorKind::NotFound && sources.file.is_none() =>
            {
                return;
            }
            Err(why) => {
                let text = format!("{}: {why}", path.display());
                return self.unusable([Problem { line: 0, text }]);
            }
        };
        self.effective.has_file = true;
        match file::entries(&text, &Arc::from(path)) {
            Ok(entries) => {
                for entry in entries {
                    match entry {
                        Ok((key, raw)) => self.set(key, raw),
                        Err(problem) => self.problems.push(problem),
                    }
                }
            }
            Err(problems) => self.unusable(problems),
        }
    }

    /// Records the problems of a file whose settings cannot be known.
    fn unusable(&mut self, problems: impl IntoIterator<Item = Problem>) {
        self.bad.extend(keys().iter().cloned());
        self.problems.extend(problems);
    }

    /// Applies the environment variable, unless it is empty or the flag is given.
    fn environment(&mut self, sources: &Sources) {
        let Some(text) = sources.environment.as_deref() else {
            return;
        };
        if sources.flags.contains_key(LOG_LEVEL) {
            return;
        }
        let origin = Origin::Environment;
        let raw = match text.to_str().map(str::trim) {
            Some("") => return,
            Some(text) => RawValue::word(origin, text),
            None => RawValue::one(origin, "what is not UTF-8".to_owned(), Table::new().into()),
        };
        self.set(LOG_LEVEL, raw);
    }

    fn flag(&mut self, sources: &Sources, key: &str) {
        if let Some(value) = sources.flags.get(key) {
            self.set(key, RawValue::flag(key, value));
        }
    }

    fn finish(mut self) -> Result<Effective, Invalid> {
        self.contradictions();
        self.problems.sort_by_key(|problem| problem.line);
        if self.problems.is_empty() {
            Ok(self.effective)
        } else {
            Err(Invalid(self.problems))
        }
    }

    /// Finds settings that are valid on their own but contradict each other.
    fn contradictions(&mut self) {
        let config = self.effective.config.clone();
        let has_label = config.labels.contains(&Dimension::Port);
        if has_label && config.ports.is_empty() {
            let why = "port tells nothing apart, expected the ports to tell apart under ports";
            self.contradiction("labels", "ports", why);
        }
        if !has_label && !config.ports.is_empty() {
            self.contradiction("ports", "labels", "without use, expected port among labels");
        }
        let (series, groups) = (config.max_series, config.max_groups);
        if series < groups {
            let why = format!("found {series}, expected at least max-groups: {groups}");
            self.contradiction("max-series", "max-groups", &why);
        }
        let both = config.filter.deny.intersection(&config.filter.allow);
        for (list, entries) in Table::try_from(&both).expect("lists of text and numbers") {
            for entry in entries.as_array().into_iter().flatten() {
                let why = format!("{entry} is allowed too, expected it in one of the two");
                self.contradiction(&format!("deny.{list}"), &format!("allow.{list}"), &why);
            }
        }
    }

    /// Reports a contradiction at the origin of `key`, unless the value of one of the two keys is unknown.
    fn contradiction(&mut self, key: &str, other: &str, why: &str) {
        if !self.bad.contains(key) && !self.bad.contains(other) {
            let problem = Problem::key(self.effective.origin(key), key, why);
            self.problems.push(problem);
        }
    }
}
