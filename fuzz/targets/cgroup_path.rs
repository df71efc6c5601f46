//! Fuzzes the extraction of names from a cgroup's path.
#![no_main]

libfuzzer_sys::fuzz_target!(|path: &str| linger_fuzz::cgroup_path::check(path));
