//! Helpers shared by tests and measurements: an HTTP client, a parser of expositions, servers, and Prometheus.

#![forbid(unsafe_code)]
#![expect(
    clippy::must_use_candidate,
    reason = "only tests and measurements call it, and they use the values"
)]

pub mod exposition;
pub mod http;
pub mod prometheus;
pub mod server;
pub mod tools;
