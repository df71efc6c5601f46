//! What tests and measurements share: asking over HTTP, reading an exposition, running servers and a Prometheus.

#![forbid(unsafe_code)]
#![expect(
    clippy::must_use_candidate,
    reason = "tests call it, which use what they ask for"
)]

pub mod exposition;
pub mod http;
pub mod prometheus;
pub mod server;
pub mod tools;
