//! The dashboards, rules and alerts in `dashboards/`: by the rules of Grafana's dashboard-linter, by Grafana's own
//! types, by promtool, and against a real Prometheus that scrapes a real lingerd.
//!
//! These tests need promtool, prometheus and Grafana's types, which `cargo xtask setup --for test` installs; the last
//! one needs root, and a kernel on which lingerd works.

mod files;
mod lint;
mod live;
mod prometheus;
mod rules;
mod sdk;
mod selector;
