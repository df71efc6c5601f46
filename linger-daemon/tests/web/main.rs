//! What Prometheus, people and bad clients get from the web endpoints.

mod endpoints;
mod exposition;
mod fixture;
mod limits;
mod server;
