//! The queries of the dashboards to Prometheus, with all values of the variables.

use anyhow::Result;
use serde_json::Value;

use crate::grafana::{self, Times, filled_in, list, text};

/// The values of job, instance and unit if all are selected.
const ALL: [&str; 3] = [".+", ".+", ".*"];

/// A query.
#[derive(Clone, Debug)]
pub(super) enum Query {
    /// The query of a table, or of a number over the whole time range, at the current time.
    Instant(String),
    /// The query of a graph.
    Range(String),
    /// The query of a variable, for the values of a label.
    Labels { label: String, selector: String },
}

/// A query, with its dashboard and panel.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) dashboard: String,
    pub(super) panel: String,
    pub(super) query: Query,
}

/// Reads all queries of all dashboards.
pub(super) fn all(times: Times) -> Result<Vec<Named>> {
    let dashboards = grafana::dashboards()?.into_iter();
    let queries = dashboards.flat_map(|(_, dashboard)| of_dashboard(&dashboard, times));
    Ok(queries.collect())
}

fn of_dashboard(dashboard: &Value, times: Times) -> Vec<Named> {
    let title = text(&dashboard["title"]).trim_start_matches("linger / ");
    let named = |panel: String, query| Named {
        dashboard: title.to_owned(),
        panel,
        query,
    };
    let variables = list(&dashboard["templating"]["list"]).iter();
    let variables = variables.filter_map(|variable| {
        let query = of_variable(text(&variable["query"]["query"]), times)?;
        Some(named(
            format!("variable {}", text(&variable["name"])),
            query,
        ))
    });
    let panels = list(&dashboard["panels"]).iter().flat_map(|panel| {
        list(&panel["targets"]).iter().map(move |target| {
            let title = text(&panel["title"]);
            let panel = match text(&target["legendFormat"]) {
                legend if legend.contains('{') => title.to_owned(),
                legend => format!("{title}: {legend}"),
            };
            (panel, target)
        })
    });
    let panels = panels.map(|(panel, target)| {
        let expression = filled_in(text(&target["expr"]), times, ALL);
        let query = match target["instant"].as_bool() {
            Some(true) => Query::Instant(expression),
            _ => Query::Range(expression),
        };
        named(panel, query)
    });
    variables.chain(panels).collect()
}

/// Parses `label_values(selector, label)`; returns `None` for any other query.
fn of_variable(query: &str, times: Times) -> Option<Query> {
    let arguments = query.strip_prefix("label_values(")?.strip_suffix(')')?;
    let (selector, label) = arguments.rsplit_once(", ")?;
    Some(Query::Labels {
        label: label.to_owned(),
        selector: filled_in(selector, times, ALL),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_variable_is_left_in_a_query() {
        let times = Times {
            interval: Duration::from_secs(15),
            range: Duration::from_secs(3600),
        };
        let queries = all(times).unwrap();
        assert!(queries.len() > 90, "{}", queries.len());
        let labels = queries
            .iter()
            .filter(|named| matches!(named.query, Query::Labels { .. }));
        assert!(labels.count() > 7);
        assert!(
            queries
                .iter()
                .all(|named| !format!("{:?}", named.query).contains('$'))
        );
    }
}
