//! Fuzzes the web configuration: it is accepted, or refused in one line.

use std::fs;
use std::path::PathBuf;
use std::process;

use linger_daemon::http::Security;

/// Reads a web configuration.
///
/// # Panics
///
/// If it is refused, and the error is not one printable line.
pub fn check(text: &[u8]) {
    let path = PathBuf::from(format!("/dev/shm/linger-fuzz-web-{}.yml", process::id()));
    fs::write(&path, text).expect("there is memory");
    let loaded = Security::load(&path);
    fs::remove_file(&path).expect("it was written");
    if let Err(error) = loaded {
        let text = error.to_string();
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}
