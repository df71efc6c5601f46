//! The options of `lingerd top`.
#![expect(
    clippy::doc_markdown,
    reason = "these comments are help for a terminal"
)]

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use super::column::Column;
use crate::config::parse_duration;

/// Options of `lingerd top`.
#[derive(Debug, clap::Args)]
pub struct Top {
    /// The lingerd to read: http://web1:10546, https://web1:10546, unix:/run/lingerd/lingerd.sock
    /// [default: where the configuration file has it listen]
    #[arg(long, value_name = "URL", conflicts_with = "own")]
    pub(super) url: Option<String>,
    /// The user to authenticate as; the password comes from LINGER_PASSWORD or --password-file
    #[arg(long, value_name = "NAME")]
    pub(super) user: Option<String>,
    /// The file whose first line is the password
    #[arg(long, value_name = "PATH", requires = "user")]
    pub(super) password_file: Option<PathBuf>,
    /// The authorities to trust for https, as PEM [default: those of the host]
    #[arg(long, value_name = "PATH")]
    pub(super) ca_file: Option<PathBuf>,
    /// Attach probes of its own even if a lingerd runs, and count from now on; needs root
    #[arg(long)]
    pub(super) own: bool,
    /// The configuration file: where lingerd listens, or how to count [default: /etc/linger/lingerd.toml,
    /// if it exists]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Time between two readings: 2s, 500ms, or a number of seconds
    #[arg(short = 'd', long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    pub(super) interval: Duration,
    /// The column to sort by initially
    #[arg(long, value_enum, value_name = "COLUMN", default_value_t = Column::Aborts)]
    pub(super) sort: Column,
    /// Print one table, made from two readings, and exit
    #[arg(long)]
    pub(super) once: bool,
    /// Print it as JSON
    #[arg(long, requires = "once")]
    pub(super) json: bool,
}

impl Top {
    pub(super) fn password(&self) -> Result<String> {
        let Some(file) = &self.password_file else {
            return env::var("LINGER_PASSWORD")
                .ok()
                .context("--user needs a password, in $LINGER_PASSWORD or --password-file");
        };
        let text = fs::read_to_string(file);
        let text = text.with_context(|| format!("cannot read {}", file.display()))?;
        let line = text.lines().next();
        let line = line.with_context(|| format!("{}: no password", file.display()))?;
        Ok(line.to_owned())
    }
}

/// Parses the time between two readings, 100 ms to 1 h.
fn interval(text: &str) -> Result<Duration> {
    let time = parse_duration(text).map_err(|why| anyhow!(why))?;
    let bounds = Duration::from_millis(100)..=Duration::from_secs(3600);
    if bounds.contains(&time) {
        Ok(time)
    } else {
        Err(anyhow!("expected 100ms to 1h"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_times_or_seconds() {
        for (text, milliseconds) in [("2s", 2000), ("2", 2000), ("0.5", 500), ("1m", 60_000)] {
            assert_eq!(interval(text).unwrap(), Duration::from_millis(milliseconds));
        }
        for text in ["", "0", "99ms", "2h", "-1", "nan", "inf", "x"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
