//! The log: coloured on a terminal, plain in a pipe, structured in the journal.

use std::env;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;
use std::str::FromStr;

use nix::sys::stat::fstat;
use serde::Serialize;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Environment variable of the log filter, which the flag overrides.
pub const ENVIRONMENT: &str = "LINGER_LOG";

/// A log filter: a level, or levels by module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogFilter(String);

impl LogFilter {
    /// Returns the filter as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogFilter {
    /// Logs everything from `info` up.
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromStr for LogFilter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let valid = !text.is_empty() && text.split(',').all(is_plausible);
        match EnvFilter::builder().parse(text) {
            Ok(_) if valid => Ok(Self(text.to_owned())),
            _ => Err("neither a level nor levels by module"),
        }
    }
}

impl From<&LogFilter> for EnvFilter {
    fn from(filter: &LogFilter) -> Self {
        let filter = Self::builder().parse(&filter.0);
        filter.expect("it was parsed before")
    }
}

/// The log of this process.
pub struct Log(reload::Handle<EnvFilter, Registry>);

impl Log {
    /// Sets up the log, on standard error or its journal. Call it once.
    pub fn init(filter: &LogFilter) -> Result<Self, TryInitError> {
        let stderr = io::stderr();
        let (journal, failure) = match journal_layer(&stderr).transpose() {
            Ok(layer) => (layer, None),
            Err(error) => (None, Some(error)),
        };
        let lines = journal.is_none().then(|| {
            tracing_subscriber::fmt::layer()
                .with_writer(io::stderr)
                .with_ansi(stderr.is_terminal() && !anstyle_query::no_color())
        });
        let (filter, handle) = reload::Layer::new(filter.into());
        tracing_subscriber::registry()
            .with(filter)
            .with(journal)
            .with(lines)
            .try_init()?;
        if let Some(error) = failure {
            tracing::warn!(%error, "the journal takes no structured entries: logging plain lines");
        }
        Ok(Self(handle))
    }

    /// Replaces the filter.
    pub fn set(&self, filter: &LogFilter) {
        // Fails only once the subscriber is gone, which lives as long as the process.
        let _ = self.0.reload(EnvFilter::from(filter));
    }
}

/// Returns whether a directive is a level, or names a module or a span explicitly. The parser would take a misspelt
/// level for the name of a module, and log nothing else.
fn is_plausible(directive: &str) -> bool {
    let directive = directive.trim();
    directive.is_empty()
        || directive.contains(['=', '[', ']', '{', '}'])
        || directive.parse::<LevelFilter>().is_ok()
}

/// Returns a layer for the journal if systemd connected standard error to it.
fn journal_layer(stderr: impl AsFd) -> Option<io::Result<tracing_journald::Layer>> {
    let stream = env::var("JOURNAL_STREAM").ok()?;
    is_stream(stderr, &stream).then(|| {
        let layer = tracing_journald::layer()?;
        Ok(layer.with_field_prefix(Some("LINGER".to_owned())))
    })
}

/// Returns whether `file` has the device and inode of `JOURNAL_STREAM`: children inherit the variable even if
/// their standard error is another file.
fn is_stream(file: impl AsFd, stream: &str) -> bool {
    fstat(file).is_ok_and(|status| stream == format!("{}:{}", status.st_dev, status.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_levels_by_module() {
        for (text, means) in [
            (" warn ", "warn"),
            ("info,linger_daemon=debug", "linger_daemon=debug,info"),
        ] {
            let filter: LogFilter = text.parse().unwrap();
            assert_eq!(filter.as_str(), text.trim());
            assert_eq!(EnvFilter::from(&filter).to_string(), means);
        }
        assert_eq!(EnvFilter::from(&LogFilter::default()).to_string(), "info");
    }

    #[test]
    fn the_journal_is_identified_by_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let status = fstat(&file).unwrap();
        let stream = |inode| format!("{}:{inode}", status.st_dev);
        assert!(is_stream(&file, &stream(status.st_ino)));
        assert!(!is_stream(&file, &stream(status.st_ino + 1)));
        assert!(!is_stream(&file, ""));
    }
}
