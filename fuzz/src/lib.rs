//! What must hold of any input, for a fuzzer to find one of which it does not, and for the seeds in every test run.

pub mod cgroup_path;
pub mod config;
pub mod request;
pub mod web_config;
