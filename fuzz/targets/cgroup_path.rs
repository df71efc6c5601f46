//! The names in any path of a cgroup.
#![no_main]

libfuzzer_sys::fuzz_target!(|path: &str| linger_fuzz::cgroup_path::check(path));
