//! The log: for people on a terminal, plain in a pipe, structured in the journal.

use std::env::{self, VarError};
use std::ffi::OsStr;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;

use nix::sys::stat::fstat;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// The environment variable that says what is logged, unless the flag does.
pub const ENVIRONMENT: &str = "LINGER_LOG";

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The environment variable holds no filter.
    #[error(
        "{ENVIRONMENT}=\"{0}\" is no filter: give a level (error, warn, info, debug or trace), or \
         levels by module as in info,linger_daemon::http=debug"
    )]
    Filter(String),
    /// The environment variable is not UTF-8.
    #[error("{ENVIRONMENT} is not UTF-8: give a level (error, warn, info, debug or trace)")]
    NotUtf8,
    /// There is a log already.
    #[error("the log is set up already")]
    Twice(#[from] TryInitError),
}

/// Sets up the log of this process, on standard error. Call it once.
///
/// What is logged is said by `level` if given, otherwise by [`ENVIRONMENT`], otherwise it is
/// everything from `info` up.
pub fn init(level: Option<Level>) -> Result<(), LogError> {
    let text = match env::var(ENVIRONMENT) {
        Ok(text) => text,
        Err(VarError::NotPresent) => String::new(),
        Err(VarError::NotUnicode(_)) if level.is_some() => String::new(),
        Err(VarError::NotUnicode(_)) => return Err(LogError::NotUtf8),
    };
    let filter = filter(level, &text)?;
    let stderr = io::stderr();
    let (journal, failure) = match journal_layer(&stderr) {
        Some(Ok(layer)) => (Some(layer), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let lines = journal.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(colour(
                stderr.is_terminal(),
                env::var_os("NO_COLOR").as_deref(),
            ))
    });
    tracing_subscriber::registry()
        .with(filter)
        .with(journal)
        .with(lines)
        .try_init()?;
    if let Some(error) = failure {
        tracing::warn!(%error, "the journal takes no structured entries: logging plain lines");
    }
    Ok(())
}

fn filter(level: Option<Level>, text: &str) -> Result<EnvFilter, LogError> {
    if let Some(level) = level {
        return Ok(EnvFilter::default().add_directive(level.into()));
    }
    let text = text.trim();
    let filter = EnvFilter::builder().parse(if text.is_empty() { "info" } else { text });
    match filter {
        Ok(filter) if text.split(',').all(is_plausible) => Ok(filter),
        _ => Err(LogError::Filter(text.to_owned())),
    }
}

/// The parser takes a misspelt level for the name of a module, and would log nothing else.
fn is_plausible(directive: &str) -> bool {
    let directive = directive.trim();
    directive.is_empty()
        || directive.contains(['=', '[', ']', '{', '}'])
        || directive.parse::<LevelFilter>().is_ok()
}

/// Whether to colour: only what a person reads, and unless they declined (no-color.org).
fn colour(terminal: bool, no_color: Option<&OsStr>) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty)
}

/// The journal, if systemd connected standard error to it.
fn journal_layer(stderr: impl AsFd) -> Option<io::Result<tracing_journald::Layer>> {
    let stream = env::var("JOURNAL_STREAM").ok()?;
    is_stream(stderr, &stream).then(|| {
        let layer = tracing_journald::layer()?;
        Ok(layer.with_field_prefix(Some("LINGER".to_owned())))
    })
}

/// Whether `file` is what `JOURNAL_STREAM` names, by device and inode. A child with another
/// standard error inherits the variable all the same.
fn is_stream(file: impl AsFd, stream: &str) -> bool {
    fstat(file).is_ok_and(|status| stream == format!("{}:{}", status.st_dev, status.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_environment() {
        let shown = |level, text| filter(level, text).unwrap().to_string();
        assert_eq!(shown(None, ""), "info");
        assert_eq!(shown(None, " warn "), "warn");
        assert_eq!(
            shown(None, "info,linger_daemon=debug"),
            "linger_daemon=debug,info"
        );
        assert_eq!(shown(Some(Level::TRACE), "warn"), "trace");
        assert_eq!(shown(Some(Level::WARN), "no such level"), "warn");
    }

    #[test]
    fn misspelt_filters_are_refused() {
        for text in ["degub", "info,wran", "linger_daemon=loud", "a=b=c"] {
            let error = filter(None, text).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("LINGER_LOG=\"{text}\"")),
                "{error}"
            );
        }
    }

    #[test]
    fn colour_only_where_a_person_wants_it() {
        assert!(colour(true, None));
        assert!(colour(true, Some(OsStr::new(""))));
        assert!(!colour(true, Some(OsStr::new("1"))));
        assert!(!colour(false, None));
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let status = fstat(&file).unwrap();
        assert!(is_stream(
            &file,
            &format!("{}:{}", status.st_dev, status.st_ino)
        ));
        assert!(!is_stream(
            &file,
            &format!("{}:{}", status.st_dev, status.st_ino + 1)
        ));
        assert!(!is_stream(&file, ""));
    }
}
