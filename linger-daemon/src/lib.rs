//! The daemon `lingerd`: loads the programs of `linger-ebpf`, reads their counts and serves them to Prometheus.

#[forbid(unsafe_code)]
pub mod attribution;
#[forbid(unsafe_code)]
pub mod check;
#[forbid(unsafe_code)]
pub mod cli;
#[forbid(unsafe_code)]
pub mod config;
#[forbid(unsafe_code)]
pub mod event;
pub mod exercise;
pub mod host;
pub mod http;
pub mod ledger;
#[forbid(unsafe_code)]
pub mod live;
#[forbid(unsafe_code)]
pub mod logging;
pub mod memory;
#[forbid(unsafe_code)]
pub mod metrics;
#[forbid(unsafe_code)]
pub mod notify;
#[forbid(unsafe_code)]
pub mod privileges;
pub mod probe;
#[forbid(unsafe_code)]
pub mod run;
#[forbid(unsafe_code)]
pub mod stdout;
#[forbid(unsafe_code)]
mod sync;
mod sys;
#[forbid(unsafe_code)]
mod table;
#[forbid(unsafe_code)]
mod text;
#[forbid(unsafe_code)]
pub mod top;
#[forbid(unsafe_code)]
pub mod version;
pub mod watch;
