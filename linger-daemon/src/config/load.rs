//! The layers of the configuration: default, file, environment, flags.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use linger_ebpf::MAX_COMMS;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table};
use tracing::warn;

use super::key::{self, keys, keys_within};
use super::validate::{self, validate, word};
use super::value::expected;
use super::{Config, FileError, Filter, Invalid, Origin, Problem, file};
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
    if !layers.is_known(PINS) {
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
    problems: Vec<Problem>,
}

impl Layers {
    fn file(&mut self, sources: &Sources) {
        let path: Arc<Path> = sources.path().into();
        let unusable = |line, text| Problem {
            key: None,
            line,
            text,
        };
        let text = match file::text(&path) {
            Ok(text) => text,
            Err(FileError::Read(error))
                if error.kind() == io::ErrorKind::NotFound && sources.file.is_none() =>
            {
                return;
            }
            Err(why) => {
                let text = format!("{}: {why}", path.display());
                return self.problems.push(unusable(0, text));
            }
        };
        self.effective.has_file = true;
        let newlines: Vec<_> = text.match_indices('\n').map(|(at, _)| at).collect();
        let line = |at| newlines.partition_point(|&newline| newline < at) + 1;
        let origin = |at| Origin::Line(Arc::clone(&path), line(at));
        let (document, errors) = DeTable::parse_recoverable(&text);
        if !errors.is_empty() {
            let problems = errors.iter().map(|error| {
                let at = error.span().map_or(text.len(), |span| span.start);
                let text = format!("{}: invalid TOML: {}", origin(at), error.message());
                unusable(line(at), text)
            });
            return self.problems.extend(problems);
        }
        for (name, value) in document.into_inner() {
            let table = format!("{}.", name.get_ref());
            match value.into_inner() {
                DeValue::Table(entries) if !keys_within(&table).is_empty() => {
                    for (name, value) in entries {
                        self.entry(&table, &name, value.into_inner(), &origin);
                    }
                }
                value => self.entry("", &name, value, &origin),
            }
        }
    }

    /// Applies an entry of `table`, which is empty or ends in a dot.
    fn entry(
        &mut self,
        table: &str,
        name: &Spanned<Cow<'_, str>>,
        value: DeValue<'_>,
        origin: &dyn Fn(usize) -> Origin,
    ) {
        let at = name.span();
        let name = key::quote(name.get_ref());
        let key = format!("{table}{name}");
        if keys().contains(&key) {
            return self.set(&key, &Spanned::new(at, value), origin);
        }
        let inner = keys_within(&format!("{key}."));
        let why = if inner.is_empty() {
            format!("unknown key, {}", key::hint(table, &name))
        } else {
            let (found, inner) = (validate::found(&value), inner.join(", "));
            format!("found {found}, expected a table with {inner}")
        };
        let problem = Problem::new(&origin(at.start), &key, &why);
        self.problems.push(problem);
    }

    /// Applies the environment variable, unless it is empty or the flag is given.
    fn environment(&mut self, sources: &Sources) {
        let Some(text) = &sources.environment else {
            return;
        };
        if sources.flags.contains_key(LOG_LEVEL) {
            return;
        }
        match text.to_str().map(str::trim) {
            Some("") => {}
            Some(text) => self.set(LOG_LEVEL, &word(text), &|_| Origin::Environment),
            None => {
                let why = format!("found what is not UTF-8, expected {}", expected(LOG_LEVEL));
                let problem = Problem::new(&Origin::Environment, LOG_LEVEL, &why);
                self.problems.push(problem);
            }
        }
    }

    fn flag(&mut self, sources: &Sources, key: &str) {
        if let Some(value) = sources.flags.get(key) {
            let origin = Origin::Flag(key.to_owned());
            self.set(key, &validate::flag(value), &|_| origin.clone());
        }
    }

    /// Sets a key. `origin` returns the origin of a value by its offset in the file.
    fn set(&mut self, key: &str, raw: &Spanned<DeValue<'_>>, origin: &dyn Fn(usize) -> Origin) {
        let Effective {
            config, origins, ..
        } = &mut self.effective;
        match validate(key, raw, origin) {
            Ok(value) => {
                *config = config.with(key, value).expect("it was validated");
                origins.insert(key.to_owned(), origin(raw.span().start));
            }
            Err(problems) => self.problems.extend(problems),
        }
    }

    fn is_known(&self, key: &str) -> bool {
        let mut bad = self.problems.iter().map(|problem| problem.key.as_deref());
        bad.all(|bad| bad.is_some_and(|bad| bad != key))
    }

    fn finish(mut self) -> Result<Effective, Invalid> {
        let contradictions = self.contradictions();
        self.problems.extend(contradictions);
        self.problems.sort_by_key(|problem| problem.line);
        if self.problems.is_empty() {
            Ok(self.effective)
        } else {
            Err(Invalid(self.problems))
        }
    }

    /// Returns settings that are valid on their own but contradict each other. Each is reported at the origin of its
    /// first key, unless the value of one of its two keys is unknown.
    fn contradictions(&self) -> Vec<Problem> {
        let config = &self.effective.config;
        let mut contradictions = Vec::new();
        let mut report = |key: &str, other: &str, whys: Vec<String>| {
            if self.is_known(key) && self.is_known(other) {
                let origin = self.effective.origin(key);
                contradictions.extend(whys.iter().map(|why| Problem::new(origin, key, why)));
            }
        };
        let has_label = config.labels.contains(&Dimension::Port);
        if has_label && config.ports.is_empty() {
            let why =
                "port has no effect without ports, expected the ports to distinguish in ports";
            report("labels", "ports", vec![why.to_owned()]);
        }
        if !has_label && !config.ports.is_empty() {
            let why = "no effect without the label port, expected port among labels";
            report("ports", "labels", vec![why.to_owned()]);
        }
        let (series, groups) = (config.max_series, config.max_groups);
        if series < groups {
            let why = format!("found {series}, expected at least max-groups: {groups}");
            report("max-series", "max-groups", vec![why]);
        }
        let Filter { allow, deny } = &config.filter;
        let comms = allow.comms.len() + deny.comms.len();
        if comms > MAX_COMMS as usize {
            let mut keys = ["allow.comms", "deny.comms"];
            if deny.comms.len() > allow.comms.len() {
                keys.reverse();
            }
            let [key, other] = keys;
            let why = format!("found {comms} names with {other}, expected at most {MAX_COMMS}");
            report(key, other, vec![why]);
        }
        let both = deny.intersection(allow);
        for (list, entries) in Table::try_from(&both).expect("lists of text and numbers") {
            let entries = entries.as_array().into_iter().flatten();
            let whys = entries.map(|entry| {
                format!("{entry} is both allowed and denied, expected it in one of the two")
            });
            report(
                &format!("deny.{list}"),
                &format!("allow.{list}"),
                whys.collect(),
            );
        }
        contradictions
    }
}
