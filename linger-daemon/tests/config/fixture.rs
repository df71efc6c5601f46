//! Configuration files for the tests.

use std::fs;
use std::path::PathBuf;

use clap::Parser as _;
use linger_daemon::cli::{Cli, Command};
use linger_daemon::config::{self, Config, Effective, Sources};
use tempfile::TempDir;

/// A directory with one configuration file.
pub(crate) struct Dir(TempDir);

impl Dir {
    pub(crate) fn with(bytes: impl AsRef<[u8]>) -> Self {
        let dir = Self(TempDir::new().unwrap());
        fs::write(dir.file(), bytes).unwrap();
        dir
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.path().join("lingerd.toml")
    }

    pub(crate) fn sources(&self) -> Sources {
        Sources {
            file: Some(self.file()),
            ..Sources::default()
        }
    }

    /// Returns the sources for these arguments of `lingerd run`, with this file.
    pub(crate) fn told(&self, arguments: &[&str]) -> Sources {
        let file = self.file();
        let command = ["lingerd", "run", "--config", file.to_str().unwrap()];
        let cli = Cli::parse_from(command.iter().chain(arguments));
        let Command::Run(settings) = &cli.command else {
            panic!("{cli:?}");
        };
        Sources {
            environment: None,
            ..cli.sources(settings)
        }
    }

    /// Loads the settings. Returns the lines of the error otherwise, with the file's name alone.
    pub(crate) fn load(&self, sources: &Sources) -> Result<Effective, Vec<String>> {
        let directory = format!("{}/", self.0.path().display());
        config::load(sources).map_err(|invalid| {
            let text = invalid.to_string().replace(&directory, "");
            text.lines().map(str::to_owned).collect()
        })
    }
}

/// Loads a file. Returns the lines of the error otherwise.
pub(crate) fn load(bytes: impl AsRef<[u8]>) -> Result<Effective, Vec<String>> {
    let dir = Dir::with(bytes);
    dir.load(&dir.sources())
}

/// Loads a valid file.
pub(crate) fn config(text: &str) -> Config {
    load(text).unwrap().config
}

/// Returns a file that sets every key.
pub(crate) fn written(config: &Config) -> String {
    let settings = config.settings().into_iter();
    let lines = settings.map(|(key, value)| format!("{key} = {value}\n"));
    lines.collect()
}
