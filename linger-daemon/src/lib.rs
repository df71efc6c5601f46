//! The daemon `lingerd`: loads the programs of `linger-ebpf`, reads what they count and serves it
//! to Prometheus.

pub mod attribution;
pub mod check;
pub mod cli;
pub mod config;
pub mod event;
pub mod exercise;
pub mod host;
pub mod http;
pub mod ledger;
pub mod live;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod notify;
pub mod privileges;
pub mod probe;
pub mod run;
pub mod stdout;
mod sys;
mod text;
pub mod top;
pub mod version;
pub mod watch;
