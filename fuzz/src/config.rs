//! Fuzzes the configuration file: it is refused, or its effective settings, written to a file, parse to the same.

use std::fs;
use std::path::PathBuf;
use std::process;

use linger_daemon::config::{self, Config, Invalid, Sources};

fn load(text: &[u8]) -> Result<Config, Invalid> {
    let path = PathBuf::from(format!("/dev/shm/linger-fuzz-{}.toml", process::id()));
    fs::write(&path, text).expect("there is memory");
    let sources = Sources {
        file: Some(path.clone()),
        ..Sources::default()
    };
    let loaded = config::load(&sources).map(|effective| effective.config);
    fs::remove_file(path).expect("it was written");
    loaded
}

/// Reads settings, writes the effective ones, and reads them back.
///
/// # Panics
///
/// If accepted settings do not read back as the same, or if the error of refused ones is not printable.
pub fn check(text: &[u8]) {
    match load(text) {
        Ok(config) => {
            let settings = config.settings().into_iter();
            let lines = settings.map(|(key, value)| format!("{key} = {value}\n"));
            let written: String = lines.collect();
            match load(written.as_bytes()) {
                Ok(again) => assert_eq!(again, config, "{written}"),
                Err(error) => panic!("{written}{error}"),
            }
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty());
            let printable = |character: char| character == '\n' || !character.is_control();
            assert!(text.chars().all(printable), "{text:?}");
        }
    }
}
