//! Draws a dashboard as SVG, with its panels where Grafana puts them, readable on light and dark pages.

use std::fmt::Write as _;

use serde_json::Value;

use super::answers::Answers;
use super::plot::{self, Series};
use super::unit::written;
use crate::grafana::{list, text};
use crate::svg::{self, count};

/// Width of one of Grafana's 24 columns, and height of a row.
const COLUMN: f64 = 50.0;
const ROW: f64 = 27.0;
/// Margin around panels.
const GAP: f64 = 4.0;
/// Padding inside panels.
pub(super) const PAD: f64 = 10.0;
/// Height above the first panel.
const HEAD: f64 = 40.0;
/// Maximum width of a letter at 11 pixels.
const LETTER: f64 = 6.1;
/// Number of letters that fit in a title, relative to other texts.
const BOLD: f64 = 0.86;

const STYLE: &str = "text{font:11px system-ui,sans-serif;fill:#57606a}\
.page{fill:#f4f5f5}.panel{fill:#fff;stroke:#d8dce0}.title,.row{font-size:12px;font-weight:600;fill:#24292e}\
.row{font-size:14px}.name{font-size:18px;font-weight:600;fill:#24292e}.value{font-size:24px;font-weight:600}\
.good{fill:#1a7f37}.bad{fill:#c5221f}.line{stroke:#8c959f;stroke-opacity:.3}.series{fill:none;stroke-width:1.3}\
@media(prefers-color-scheme:dark){text{fill:#b1bac4}.page{fill:#111217}.panel{fill:#181b1f;stroke:#2c3235}\
.title,.row,.name{fill:#e6edf3}.good{fill:#56d364}.bad{fill:#ff7b72}}";

/// A box in the picture: left, top, width and height.
#[derive(Clone, Copy)]
pub(super) struct Area {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) w: f64,
    pub(super) h: f64,
}

impl Area {
    pub(super) fn bottom(self) -> f64 {
        self.y + self.h
    }
}

/// Draws a dashboard.
pub(super) fn dashboard(dashboard: &Value, answers: &Answers, name: &str) -> String {
    let panels = list(&dashboard["panels"]);
    let place = |panel: &Value, side: &str| panel["gridPos"][side].as_f64().unwrap_or_default();
    let rows = panels
        .iter()
        .map(|panel| place(panel, "y") + place(panel, "h"));
    let (width, height) = (24.0 * COLUMN, HEAD + ROW * rows.fold(0.0, f64::max) + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <title>{0}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"{width}\" height=\"{height}\"/>\n\
         <text class=\"name\" x=\"{PAD}\" y=\"27\">{0}</text>\n",
        svg::escape(text(&dashboard["title"]))
    );
    for panel in panels {
        let area = Area {
            x: place(panel, "x") * COLUMN + GAP,
            y: HEAD + place(panel, "y") * ROW,
            w: place(panel, "w") * COLUMN - 2.0 * GAP,
            h: place(panel, "h") * ROW - 2.0 * GAP,
        };
        let title = text(&panel["title"]);
        if panel["type"] == "row" {
            svg::text(
                &mut svg,
                "row",
                "start",
                (area.x + 2.0, area.y + 16.0),
                title,
            );
            continue;
        }
        let Area { x, y, w, h } = area;
        let _ = writeln!(
            svg,
            "<g role=\"group\" aria-label=\"{}\">\n<rect class=\"panel\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"2\"/>",
            svg::escape(title)
        );
        let shown = cut(title, (w - PAD) * BOLD);
        svg::text(&mut svg, "title", "start", (x + PAD, y + 17.0), &shown);
        let inner = Area {
            x: x + PAD,
            y: y + 26.0,
            w: w - 2.0 * PAD,
            h: h - 32.0,
        };
        content(&mut svg, panel, answers, name, inner);
        svg += "</g>\n";
    }
    svg + "</svg>\n"
}

fn content(svg: &mut String, panel: &Value, answers: &Answers, name: &str, area: Area) {
    let found = answers.of(name, panel);
    let defaults = &panel["fieldConfig"]["defaults"];
    if found.iter().all(|series| list(series).is_empty()) {
        let none = text(&defaults["noValue"]);
        let middle = (area.x + area.w / 2.0, area.y + area.h / 2.0);
        svg::text(svg, "", "middle", middle, none);
        return;
    }
    let series = all_series(panel, found);
    match text(&panel["type"]) {
        "stat" => stat(svg, panel, &series, answers, area),
        "table" => table(svg, panel, found, answers, area),
        "heatmap" => plot::heatmap(svg, &series, answers, area),
        _ => plot::lines(svg, panel, series, answers, area),
    }
}

/// Returns the series of all queries of a panel, with their names.
fn all_series(panel: &Value, found: &[Value]) -> Vec<Series> {
    let targets = list(&panel["targets"]).iter().zip(found);
    let named = targets.flat_map(|(target, found)| {
        let legend = text(&target["legendFormat"]);
        list(found)
            .iter()
            .map(move |series| Series::new(legend, series))
    });
    named.collect()
}

/// Draws the last value of each series, side by side.
fn stat(svg: &mut String, panel: &Value, series: &[Series], answers: &Answers, area: Area) {
    let defaults = &panel["fieldConfig"]["defaults"];
    let alarming = list(&defaults["thresholds"]["steps"])
        .iter()
        .find_map(|step| step["value"].as_f64());
    let is_named = panel["options"]["textMode"] == "value_and_name";
    let each = area.w / count(series.len());
    for (number, series) in series.iter().enumerate() {
        let x = area.x + each * (count(number) + 0.5);
        let value = series.last();
        let class = match alarming {
            Some(from) if value >= from => "value bad",
            _ => "value good",
        };
        let number = written(value, text(&defaults["unit"]), answers.end);
        svg::text(
            svg,
            class,
            "middle",
            (x, area.y + area.h / 2.0 + 6.0),
            &number,
        );
        if is_named {
            svg::text(svg, "", "middle", (x, area.bottom() - 6.0), &series.name);
        }
    }
}

/// A row of a table: the values of its labels, and of its queries.
type Row<'a> = (Vec<&'a str>, Vec<Option<f64>>);

/// Returns the names of all labels of these series, in the order in which they appear.
fn labels(found: &[Value]) -> Vec<&str> {
    let mut labels: Vec<&str> = Vec::new();
    for series in found.iter().flat_map(list) {
        let metric = series["metric"].as_object();
        for label in metric.into_iter().flatten().map(|(label, _)| label) {
            if !labels.contains(&label.as_str()) {
                labels.push(label);
            }
        }
    }
    labels
}

/// Returns a row for each set of labels, the one with the highest value first.
fn rows<'a>(found: &'a [Value], labels: &[&str]) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for (column, series) in found.iter().enumerate() {
        for series in list(series) {
            let key = labels.iter().map(|label| series["metric"][label].as_str());
            let key: Vec<_> = key.collect();
            // A label that the query lacks matches any value.
            let fits = |(row, _): &Row<'_>| {
                let mut pairs = key.iter().zip(row);
                pairs.all(|(one, other)| one.is_none_or(|one| one == *other))
            };
            let place = rows.iter().position(fits).unwrap_or_else(|| {
                let key = key.iter().copied().map(Option::unwrap_or_default);
                rows.push((key.collect(), vec![None; found.len()]));
                rows.len() - 1
            });
            rows[place].1[column] = Some(Series::new("", series).last());
        }
    }
    rows.sort_by(|(_, one), (_, other)| {
        other[0]
            .partial_cmp(&one[0])
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    rows
}

/// Draws one row for each set of labels, with a column for each query.
fn table(svg: &mut String, panel: &Value, found: &[Value], answers: &Answers, area: Area) {
    let targets = list(&panel["targets"]);
    let labels = labels(found);
    let unit = |name: &str| {
        let mut overrides = list(&panel["fieldConfig"]["overrides"]).iter();
        let own = overrides.find(|one| one["matcher"]["options"] == name);
        own.map_or("short", |one| text(&one["properties"][0]["value"]))
    };
    let names = targets.iter().map(|target| text(&target["legendFormat"]));
    let header = labels.iter().copied().chain(names.clone());
    let (first, rest) = (190.0_f64, labels.len() + targets.len());
    let each = (area.w - first) / count((rest - 1).max(1));
    let left = |column: usize| match column {
        0 => area.x,
        _ => area.x + first + each * count(column - 1),
    };
    let width = |column: usize| if column == 0 { first } else { each };
    for (column, name) in header.enumerate() {
        let place = (left(column), area.y + 12.0);
        svg::text(
            svg,
            "title",
            "start",
            place,
            &cut(name, (width(column) - 6.0) * BOLD),
        );
    }
    let mut y = area.y + 12.0;
    for (key, values) in rows(found, &labels) {
        y += 19.0;
        if y > area.bottom() {
            break;
        }
        let (from, to) = (area.x, area.x + area.w);
        let _ = writeln!(
            svg,
            "<path class=\"line\" d=\"M{from} {:.1}H{to}\"/>",
            y - 13.0
        );
        let values = values.iter().zip(names.clone()).map(|(value, name)| {
            value.map_or(String::new(), |value| {
                written(value, unit(name), answers.end)
            })
        });
        let cells = key.into_iter().map(str::to_owned).chain(values);
        for (column, cell) in cells.enumerate() {
            svg::text(
                svg,
                "",
                "start",
                (left(column), y),
                &cut(&cell, width(column) - 8.0),
            );
        }
    }
}

/// Truncates a text to a width.
pub(super) fn cut(text: &str, width: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a width of some hundred"
    )]
    let room = (width / LETTER).max(1.0) as usize;
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let start: String = text.chars().take(room - 1).collect();
    start + "…"
}
