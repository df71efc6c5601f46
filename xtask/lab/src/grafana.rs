//! Reads the dashboards, and fills in their queries as Grafana does.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use linger_xtask::shell::root;
use serde_json::Value;

/// The times that Grafana fills in.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    /// The scrape interval that is set in the data source.
    pub(crate) interval: Duration,
    /// The time range of the dashboards.
    pub(crate) range: Duration,
}

/// Reads all dashboards; returns each with the stem of its file name.
pub(crate) fn dashboards() -> Result<Vec<(String, Value)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(root().join("dashboards"))? {
        let file = entry?.path();
        if file.extension().is_some_and(|ending| ending == "json") {
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            let dashboard = serde_json::from_str(&fs::read_to_string(&file)?)
                .with_context(|| format!("read {}", file.display()))?;
            all.push((name.into_owned(), dashboard));
        }
    }
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(all)
}

/// Replaces variables in a query; those that select series have these values.
pub(crate) fn filled_in(query: &str, times: Times, [job, instance, unit]: [&str; 3]) -> String {
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    query
        .replace("$__rate_interval", &seconds(4 * times.interval))
        .replace("$__range", &seconds(times.range))
        .replace("$job", job)
        .replace("$instance", instance)
        .replace("$unit", unit)
}

/// Returns the elements of an array; none if the value is not an array.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Returns the text of a string; empty if the value is not a string.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
