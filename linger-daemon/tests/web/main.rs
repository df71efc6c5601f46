//! The web endpoints, as Prometheus, people and bad clients see them.

mod endpoints;
mod exposition;
mod fixture;
mod labels;
mod large;
mod limits;
mod listeners;
mod live;
mod page;
mod passwords;
mod prometheus;
mod secure;
mod series;
mod server;
mod stream;
mod tls;
mod web_config;
