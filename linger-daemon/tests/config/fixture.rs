//! Files to read settings from.

use std::fs;
use std::path::PathBuf;

use clap::Parser as _;
use linger_daemon::cli::{Cli, Command};
use linger_daemon::config::{self, Config, Effective, Sources};
use tempfile::TempDir;

/// A directory with one file of settings.
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

    /// The sources that these arguments of `lingerd run` make, with this file.
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

    /// What the settings come to, or the lines that say what is wrong, with the file's name alone.
    pub(crate) fn load(&self, sources: &Sources) -> Result<Effective, Vec<String>> {
        let directory = format!("{}/", self.0.path().display());
        config::load(sources).map_err(|invalid| {
            let text = invalid.to_string().replace(&directory, "");
            text.lines().map(str::to_owned).collect()
        })
    }
}

/// What a file comes to, or the lines that say what is wrong with it.
pub(crate) fn load(bytes: impl AsRef<[u8]>) -> Result<Effective, Vec<String>> {
    let dir = Dir::with(bytes);
    dir.load(&dir.sources())
}

/// What a file that nothing is wrong with comes to.
pub(crate) fn config(text: &str) -> Config {
    load(text).unwrap().config
}

/// A file that says every key.
pub(crate) fn written(config: &Config) -> String {
    let settings = config.settings().into_iter();
    let lines = settings.map(|(key, value)| format!("{key} = {value}\n"));
    lines.collect()
}
