//! A panel: its kind, its words, and its queries.

use serde_json::{Value, json};

/// What stands for parts of queries that many have in common.
const SHORT: [(&str, &str); 7] = [
    // Of what other programs have as well: a choice of all jobs has those, too.
    (
        "@lingerd",
        "and on (job, instance) linger_build_info{@hosts}",
    ),
    ("@hosts", r#"job=~"$job",instance=~"$instance""#),
    // Of what is recorded over all hosts.
    ("@jobs", r#"job=~"$job""#),
    // What happens now: what is retired was counted when it happened.
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
    (
        "@lost",
        r#"cause=~"destroyed|late_data|orphan_resources|peer_reset|timed_out|unknown""#,
    ),
];

/// A query with what is short written out.
pub(super) fn expression(text: &str) -> String {
    let replaced = |text: String, (short, long): &(&str, &str)| text.replace(short, long);
    SHORT.iter().fold(text.to_owned(), replaced)
}

/// Where the data comes from: what the variable says.
pub(super) fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// To *Unit in depth*, with what is chosen here, for the unit in this field.
fn unit_link(unit: &str) -> Value {
    let url = format!(
        "/d/linger-unit-in-depth/unit-in-depth?${{__url_time_range}}&${{datasource:queryparam}}\
         &${{job:queryparam}}&${{instance:queryparam}}&var-unit=${{{unit}}}"
    );
    json!([{ "title": "Unit in depth", "url": url, "targetBlank": false }])
}

/// What a panel draws.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One number, with what is worth a look from here on: `f64` cannot be compared, so in thousandths.
    Stat { alarming: Option<u32> },
    /// Lines over time.
    Lines { stacked: bool },
    /// How often which time was met, over time.
    Heatmap,
    /// A row for each group, and a column for each query.
    Table { by_unit: bool },
}

/// A query, and what it is called.
struct Query {
    expression: String,
    legend: &'static str,
    /// Of a column of a table.
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
    /// Whether a line leads to its unit.
    links: bool,
    /// Columns of 24.
    pub(super) width: usize,
    /// In units of Grafana, of 30 pixels.
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

    /// One number.
    pub(super) fn stat(title: &'static str, unit: &'static str, description: &str) -> Self {
        Self::new(Kind::Stat { alarming: None }, title, unit, description)
    }

    /// Lines over time.
    pub(super) fn lines(title: &'static str, unit: &'static str, description: &str) -> Self {
        Self::new(Kind::Lines { stacked: false }, title, unit, description)
    }

    /// Areas over time, on top of each other.
    pub(super) fn areas(title: &'static str, unit: &'static str, description: &str) -> Self {
        Self::new(Kind::Lines { stacked: true }, title, unit, description)
    }

    /// Times over time.
    pub(super) fn heatmap(title: &'static str, description: &str) -> Self {
        Self::new(Kind::Heatmap, title, "s", description)
    }

    /// A table of units, each of which leads to its own dashboard.
    pub(super) fn units(title: &'static str, description: &str) -> Self {
        Self::new(Kind::Table { by_unit: true }, title, "short", description)
    }

    /// A table of something else.
    pub(super) fn table(title: &'static str, description: &str) -> Self {
        Self::new(Kind::Table { by_unit: false }, title, "short", description)
    }

    /// With this query, of which every series is called so.
    pub(super) fn query(self, legend: &'static str, text: &str) -> Self {
        let unit = self.unit;
        self.column(legend, unit, text)
    }

    /// With this query, as a column of this name and unit.
    pub(super) fn column(mut self, legend: &'static str, unit: &'static str, text: &str) -> Self {
        self.queries.push(Query {
            expression: expression(text),
            legend,
            unit,
        });
        self
    }

    /// Worth a look from this many thousandths on.
    pub(super) fn alarming(mut self, thousandths: u32) -> Self {
        self.kind = Kind::Stat {
            alarming: Some(thousandths),
        };
        self
    }

    /// Says this where there is nothing to show.
    pub(super) fn or_says(mut self, text: &'static str) -> Self {
        self.no_value = text;
        self
    }

    /// Each line is of a unit, and leads to it.
    pub(super) fn leads_to_unit(mut self) -> Self {
        self.links = true;
        self
    }

    /// This many columns wide.
    pub(super) fn wide(mut self, width: usize) -> Self {
        self.width = width;
        self
    }

    /// This high.
    pub(super) fn high(mut self, height: usize) -> Self {
        self.height = height;
        self
    }

    /// As Grafana has it, with this number, in this place.
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
                // What is of the whole range has one value.
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

    /// The columns of a table: their names stand for the queries.
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
                // What never happened has no colour.
                "filterValues": { "le": 1e-9 },
                "legend": { "show": true },
                "rowsFrame": { "layout": "auto" },
                // Grafana knows `show` until 10.2, and `mode` from then on.
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

    /// One table of all queries.
    fn transformations(&self) -> Value {
        let columns = self.queries.iter().zip('A'..).map(|(query, id)| {
            // The only query's column has no letter.
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
