//! A dashboard as a whole: variables, links, and where its panels stand.

use serde_json::{Value, json};

use super::panel::{Panel, expression, source};

/// The variable by which units are chosen, and how its choices are found.
const UNITS: (&str, &str) = (
    "unit",
    r#"label_values(linger_closes_total{job=~"$job",instance=~"$instance"}, unit)"#,
);

/// A dashboard.
pub(crate) struct Dashboard {
    /// The name of its file, and what it is found by: never to be changed.
    pub(crate) name: &'static str,
    /// What it is called.
    pub(crate) title: &'static str,
    /// What it is for.
    pub(crate) description: &'static str,
    /// Whether units are chosen.
    pub(crate) by_unit: bool,
    /// Its parts, each with its heading.
    pub(crate) rows: Vec<(&'static str, Vec<Panel>)>,
}

impl Dashboard {
    /// As Grafana imports it.
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
            // The label is empty where units are not told apart.
            all.push(variable(UNITS.0, UNITS.1, ".*"));
        }
        all
    }

    /// From left to right in 24 columns, below each other as there is no room.
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

/// A variable with the values that a query finds.
fn variable(name: &str, query: &str, all: &str) -> Value {
    let mut label = name.to_owned();
    label[..1].make_ascii_uppercase();
    json!({
        "name": name, "label": label, "type": "query", "datasource": source(),
        "query": { "query": expression(query), "refId": name },
        // Whenever the time range changes: what has gone is found in the past only.
        "refresh": 2,
        "sort": 1, "hide": 0, "multi": true, "includeAll": true, "allValue": all,
        "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
    })
}

/// To the other dashboards, with what is chosen in this one.
fn link() -> Value {
    json!({
        "title": "linger", "type": "dashboards", "tags": ["linger"], "asDropdown": false,
        "keepTime": true, "includeVars": true, "targetBlank": false, "icon": "external link",
        "tooltip": "", "url": "",
    })
}
