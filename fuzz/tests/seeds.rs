//! Replays the seeds of the fuzzer: its initial inputs, and every input that once broke something.

use std::fs;
use std::path::Path;

use linger_fuzz::{cgroup_path, config, request, web_config};

/// Passes each seed of a target to its check; fails if there is none.
fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the target has seeds") {
        let path = entry.expect("the folder is readable").path();
        println!("{}", path.display());
        check(&fs::read(&path).expect("the seed is readable"));
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

#[test]
fn cgroup_paths() {
    replay("cgroup_path", |bytes| {
        cgroup_path::check(&String::from_utf8_lossy(bytes));
    });
}

#[test]
fn settings() {
    replay("config", config::check);
}

#[test]
fn requests() {
    replay("request", request::check);
}

#[test]
fn web_configurations() {
    replay("web_config", web_config::check);
}
