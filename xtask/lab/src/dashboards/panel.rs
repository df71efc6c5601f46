//! A panel: its kind, texts and queries.

use serde_json::{Value, json};

/// Abbreviations for parts that many queries share.
const SHORT: [(&str, &str); 9] = [
    // For metrics that other programs have, too, which a selection of all jobs includes.
    (
        "@lingerd",
        "and on (job, instance) linger_build_info{@hosts}",
    ),
    ("@hosts", r#"job=~"$job",instance=~"$instance""#),
    // For metrics recorded over all hosts.
    ("@jobs", r#"job=~"$job""#),
    // For current events: those of retired groups were counted when they happened.
    (
        "@now",
        r#"job=~"$job",instance=~"$instance",unit!="retired""#,
    ),
    (
        "@unit",
        r#"job=~"$job",instance=~"$instance",unit=~"$unit",unit!="retired""#,
    ),
    (
        "@abort",
        r#"outcome=~"linger_aborted|unread_aborted|linger2_aborted|memory_aborted""#,
    ),
    // Outcomes of what was a connection.
    (
        "@connection",
        r#"outcome!~"connect_aborted|listener|not_connected|repaired""#,
    ),
    // Causes by which a close itself throws data away.
    ("@by_close", r#"cause=~".*_aborted|linger_failed""#),
    (
        "@lost",
        r#"cause=~"destroyed|late_data|orphan_resources|peer_reset|timed_out|unknown""#,
    ),
];

/// Expands the abbreviations in a query.
pub(super) fn expression(text: &str) -> String {
    let replaced = |text: String, (short, long): &(&str, &str)| text.replace(short, long);
    SHORT.iter().fold(text.to_owned(), replaced)
}

/// Returns the data source that is selected by the variable.
pub(super) fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// Returns a link to *Unit in depth* for the unit in this field, which keeps the other variables.
fn unit_link(unit: &str) -> Value {
    let url = format!(
        "/d/linger-unit-in-depth/unit-in-depth?${{__url_time_range}}&${{datasource:queryparam}}\
         &${{job:queryparam}}&${{instance:queryparam}}&var-unit=${{{unit}}}"
    );
    json!([{ "title": "Unit in depth", "url": url, "targetBlank": false }])
}

/// The kind of a panel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One number, red from a threshold on, which is in thousandths since `f64` is not `Eq`.
    Stat { alarming: Option<u32> },
    /// Lines over time.
    Lines { stacked: bool },
    /// A histogram over time.
    Heatmap,
    /// A row for each group, and a column for each query.
    Table { by_unit: bool },
}

/// A query, with its legend.
struct Query {
    expression: String,
    legend: &'static str,
    /// The unit of its column in a table.
    unit: &'static str,
}

/// A panel.
pub(super) struct Panel {
    kind: Kind,
    title: &'static str,
    unit: &'static str,
    description: String,
    queries: Vec<Query>,
    no_value: &'static str,
    /// Whether a line links to its unit.
    links: bool,
    /// Width in columns, of 24.
    pub(super) width: usize,
    /// Height in Grafana's units of 30 pixels.
    pub(super) height: usize,
}

impl Panel {
    fn new(kind: Kind, title: &'static str, unit: &'static str, description: &str) -> Self {
        let (width, height) = match kind {
            Kind::Stat { .. } => (4, 4),
            Kind::Lines { .. } | Kind::Heatmap => (12, 9),
            Kind::Table { .. } => (24, 10),
        };
        Self {
            kind,
            title,
            unit,
            description: description.to_owned(),
            queries: Vec::new(),
            no_value: "none seen",
            links: false,
            width,
            height,
        }
    }

    /// A panel with one number.
    pub(super) fn stat(title: &'static str, unit: &'static str, description: &str) -> Self {
        Self::new(Kind::Stat { alarming: None }, title, unit, description)
    }

    /// A panel with lines over time.
    pub(super) fn lines(title: &'static str, unit: &'static str, description: &str) -> Self {
        Self::new(Kind::Lines { stacked: false }, title, unit, description)
    }

    /// A panel with stacked areas over time.
    pub(super) fn areas(title: &'static str, unit: &'static str, description: &str) -> Self {
        Self::new(Kind::Lines { stacked: true }, title, unit, description)
    }

    /// A panel with a histogram of times over time.
    pub(super) fn heatmap(title: &'static str, description: &str) -> Self {
        Self::new(Kind::Heatmap, title, "s", description)
    }

    /// A table of units, each with a link to *Unit in depth*.
    pub(super) fn units(title: &'static str, description: &str) -> Self {
        Self::new(Kind::Table { by_unit: true }, title, "short", description)
    }

    /// A table of anything but units.
    pub(super) fn table(title: &'static str, description: &str) -> Self {
        Self::new(Kind::Table { by_unit: false }, title, "short", description)
    }

    /// Adds a query whose series have this legend.
    pub(super) fn query(self, legend: &'static str, text: &str) -> Self {
        let unit = self.unit;
        self.column(legend, unit, text)
    }

    /// Adds a query for the ten units of which an expression is most; their lines link to them.
    pub(super) fn top_units(self, expression: &str) -> Self {
        let text = format!("topk(10, sum by (unit) ({expression}) > 0)");
        self.query("{{unit}}", &text).leads_to_unit()
    }

    /// Adds a query as a column with this name and unit.
    pub(super) fn column(mut self, legend: &'static str, unit: &'static str, text: &str) -> Self {
        self.queries.push(Query {
            expression: expression(text),
            legend,
            unit,
        });
        self
    }

    /// Sets the threshold from which the number is red, in thousandths.
    pub(super) fn alarming(mut self, thousandths: u32) -> Self {
        self.kind = Kind::Stat {
            alarming: Some(thousandths),
        };
        self
    }

    /// Sets the text shown where there is no value.
    pub(super) fn or_says(mut self, text: &'static str) -> Self {
        self.no_value = text;
        self
    }

    /// Links each line to its unit.
    pub(super) fn leads_to_unit(mut self) -> Self {
        self.links = true;
        self
    }

    /// Sets the width in columns, of 24.
    pub(super) fn wide(mut self, width: usize) -> Self {
        self.width = width;
        self
    }

    /// Sets the height in Grafana's units.
    pub(super) fn high(mut self, height: usize) -> Self {
        self.height = height;
        self
    }

    /// Returns Grafana's JSON, with this id and position.
    pub(super) fn json(&self, id: usize, place: &Value) -> Value {
        let mut panel = json!({
            "id": id, "gridPos": place, "type": self.type_name(), "title": self.title,
            "description": self.description, "datasource": source(),
            "targets": self.targets(),
            "fieldConfig": { "defaults": self.defaults(), "overrides": self.overrides() },
            "options": self.options(),
        });
        if matches!(self.kind, Kind::Table { .. }) {
            panel["transformations"] = self.transformations();
        }
        panel
    }

    fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Stat { .. } => "stat",
            Kind::Lines { .. } => "timeseries",
            Kind::Heatmap => "heatmap",
            Kind::Table { .. } => "table",
        }
    }

    fn targets(&self) -> Vec<Value> {
        let queries = self.queries.iter().zip('A'..);
        let targets = queries.map(|(query, id)| {
            let (format, instant) = match self.kind {
                // A query over the whole range has one value.
                Kind::Stat { .. } => ("time_series", query.expression.contains("[$__range]")),
                Kind::Lines { .. } => ("time_series", false),
                Kind::Heatmap => ("heatmap", false),
                Kind::Table { .. } => ("table", true),
            };
            json!({
                "refId": id.to_string(), "datasource": source(), "expr": query.expression,
                "legendFormat": query.legend, "format": format, "instant": instant,
                "range": !instant,
            })
        });
        targets.collect()
    }

    fn defaults(&self) -> Value {
        let mut defaults = json!({
            "unit": self.unit, "noValue": self.no_value, "color": { "mode": "palette-classic" },
        });
        if self.links {
            defaults["links"] = unit_link("__field.labels.unit");
        }
        match self.kind {
            Kind::Stat { alarming } => {
                let mut steps = vec![json!({ "color": "green", "value": null })];
                steps.extend(alarming.map(|thousandths| {
                    json!({ "color": "red", "value": f64::from(thousandths) / 1000.0 })
                }));
                defaults["thresholds"] = json!({ "mode": "absolute", "steps": steps });
                defaults["color"] = json!({ "mode": "thresholds" });
            }
            Kind::Lines { stacked } => {
                defaults["min"] = json!(0);
                defaults["custom"] = json!({
                    "drawStyle": "line", "lineWidth": 1, "showPoints": "auto", "spanNulls": false,
                    "fillOpacity": if stacked { 40 } else { 8 },
                    "stacking": { "mode": if stacked { "normal" } else { "none" }, "group": "A" },
                });
            }
            Kind::Heatmap => {
                defaults["custom"] = json!({ "scaleDistribution": { "type": "linear" } });
            }
            Kind::Table { .. } => {
                defaults["custom"] = json!({ "align": "auto", "filterable": true });
            }
        }
        defaults
    }

    /// Returns the settings of a table's columns, which are named after the queries.
    fn overrides(&self) -> Vec<Value> {
        let Kind::Table { by_unit } = self.kind else {
            return Vec::new();
        };
        let columns = self.queries.iter().map(|query| {
            json!({
                "matcher": { "id": "byName", "options": query.legend },
                "properties": [{ "id": "unit", "value": query.unit }],
            })
        });
        let link = json!({
            "matcher": { "id": "byName", "options": "unit" },
            "properties": [
                { "id": "links", "value": unit_link("__data.fields.unit") },
                { "id": "custom.minWidth", "value": 240 },
            ],
        });
        columns.chain(by_unit.then_some(link)).collect()
    }

    fn options(&self) -> Value {
        match self.kind {
            Kind::Stat { alarming } => json!({
                "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
                "colorMode": if alarming.is_some() { "background" } else { "value" },
                "graphMode": "area", "justifyMode": "auto", "orientation": "auto",
                "textMode": if self.queries.iter().any(|query| query.legend.contains("{{")) {
                    "value_and_name"
                } else {
                    "value"
                },
            }),
            Kind::Lines { .. } => json!({
                "legend": {
                    "showLegend": true, "displayMode": "table", "placement": "bottom",
                    "calcs": ["lastNotNull", "max"], "sortBy": "Max", "sortDesc": true,
                },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
            Kind::Heatmap => json!({
                "calculate": false, "cellGap": 1,
                "color": {
                    "mode": "scheme", "scheme": "Oranges", "scale": "exponential",
                    "exponent": 0.5, "steps": 64, "reverse": false, "fill": "dark-orange",
                },
                "exemplars": { "color": "rgba(255,0,255,0.7)" },
                // Empty buckets have no colour.
                "filterValues": { "le": 1e-9 },
                "legend": { "show": true },
                "rowsFrame": { "layout": "auto" },
                // Grafana reads `show` before 10.2, and `mode` since.
                "tooltip": { "show": true, "mode": "single", "yHistogram": true },
                "yAxis": { "axisPlacement": "left", "unit": "s", "reverse": false },
            }),
            Kind::Table { .. } => {
                let most = self.queries.first().map_or("", |query| query.legend);
                json!({
                    "showHeader": true, "cellHeight": "sm",
                    "sortBy": [{ "displayName": most, "desc": true }],
                })
            }
        }
    }

    /// Returns the transformations that merge all queries into one table.
    fn transformations(&self) -> Value {
        let columns = self.queries.iter().zip('A'..).map(|(query, id)| {
            // The column of a single query has no letter.
            let value = match self.queries.len() {
                1 => "Value".to_owned(),
                _ => format!("Value #{id}"),
            };
            (value, json!(query.legend))
        });
        let names: serde_json::Map<_, _> = columns.collect();
        json!([
            { "id": "merge", "options": {} },
            {
                "id": "organize",
                "options": {
                    "excludeByName": { "Time": true }, "indexByName": {}, "renameByName": names,
                },
            },
        ])
    }
}
