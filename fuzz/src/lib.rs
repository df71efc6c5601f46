//! Properties that must hold for any input: checked by the fuzzer, and for the seeds in every test run.

pub mod cgroup_path;
pub mod config;
pub mod request;
pub mod web_config;
