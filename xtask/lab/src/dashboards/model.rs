//! A dashboard: its variables, links, and the layout of its panels.

use serde_json::{Value, json};

use super::panel::{Panel, expression, source};

/// The variable that selects units, and the query for its values.
const UNITS: (&str, &str) = (
    "unit",
    r#"label_values(linger_closes_total{job=~"$job",instance=~"$instance"}, unit)"#,
);

/// A dashboard.
pub(crate) struct Dashboard {
    /// The name of its file, also part of its uid, which must never change.
    pub(crate) name: &'static str,
    /// Its title.
    pub(crate) title: &'static str,
    /// Its purpose.
    pub(crate) description: &'static str,
    /// Whether it has the variable that selects units.
    pub(crate) by_unit: bool,
    /// Its rows, each with a heading.
    pub(crate) rows: Vec<(&'static str, Vec<Panel>)>,
}

impl Dashboard {
    /// Returns the JSON that Grafana imports.
    pub(crate) fn json(&self) -> Value {
        json!({
            "uid": format!("linger-{}", self.name),
            "title": self.title,
            "description": self.description,
            "tags": ["linger"],
            "schemaVersion": 38,
            "version": 1,
            "editable": false,
            "graphTooltip": 1,
            "refresh": "1m",
            "time": { "from": "now-3h", "to": "now" },
            "timezone": "",
            "annotations": { "list": [] },
            "links": [link()],
            "templating": { "list": self.variables() },
            "panels": self.panels(),
        })
    }

    fn variables(&self) -> Vec<Value> {
        let mut all = vec![
            json!({
                "name": "datasource", "label": "Data source", "type": "datasource",
                "query": "prometheus", "refresh": 1, "hide": 0,
            }),
            variable("job", "label_values(linger_build_info, job)", ".+"),
            variable(
                "instance",
                r#"label_values(linger_build_info{job=~"$job"}, instance)"#,
                ".+",
            ),
        ];
        if self.by_unit {
            // `.*`, since the label is empty where units are not distinguished.
            all.push(variable(UNITS.0, UNITS.1, ".*"));
        }
        all
    }

    /// Lays the panels out from left to right in 24 columns, and starts a new line where one does not fit.
    fn panels(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let mut y = 0;
        for (heading, panels) in &self.rows {
            let id = all.len() + 1;
            all.push(json!({
                "id": id, "type": "row", "title": heading, "collapsed": false, "panels": [],
                "gridPos": { "x": 0, "y": y, "w": 24, "h": 1 },
            }));
            y += 1;
            let (mut x, mut height) = (0, 0);
            for panel in panels {
                if x + panel.width > 24 {
                    (x, y, height) = (0, y + height, 0);
                }
                let place = json!({ "x": x, "y": y, "w": panel.width, "h": panel.height });
                all.push(panel.json(all.len() + 1, &place));
                x += panel.width;
                height = height.max(panel.height);
            }
            y += height;
        }
        all
    }
}

/// Returns a variable with the values that a query finds.
fn variable(name: &str, query: &str, all: &str) -> Value {
    let mut label = name.to_owned();
    label[..1].make_ascii_uppercase();
    json!({
        "name": name, "label": label, "type": "query", "datasource": source(),
        "query": { "query": expression(query), "refId": name },
        // On every change of the time range, since values that have gone are found only in the past.
        "refresh": 2,
        "sort": 1, "hide": 0, "multi": true, "includeAll": true, "allValue": all,
        "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
    })
}

/// Returns a link to the other dashboards that keeps the values of the variables.
fn link() -> Value {
    json!({
        "title": "linger", "type": "dashboards", "tags": ["linger"], "asDropdown": false,
        "keepTime": true, "includeVars": true, "targetBlank": false, "icon": "external link",
        "tooltip": "", "url": "",
    })
}
