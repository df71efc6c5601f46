//! Any web configuration: it is taken, or refused in one line.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::process;

use libfuzzer_sys::fuzz_target;
use linger_daemon::http::Security;

fuzz_target!(|text: &[u8]| {
    let path = PathBuf::from(format!("/dev/shm/linger-fuzz-{}.yml", process::id()));
    fs::write(&path, text).expect("there is memory");
    if let Err(error) = Security::load(&path) {
        let text = error.to_string();
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
});
