//! Draws series over time.

use std::fmt::Write as _;

use serde_json::Value;

use super::answers::Answers;
use super::draw::{Area, cut};
use super::unit::written;
use crate::grafana::text;
use crate::svg::{self, count};

/// Colours that most people can distinguish, on light and dark backgrounds.
const COLOURS: [&str; 10] = [
    "#4c8bf5", "#e8710a", "#1e9e6a", "#d6408b", "#8e63ce", "#a88c00", "#0aa5b8", "#c5493c",
    "#6b7bd6", "#7a8b4f",
];
/// Width left of the plot, for the numbers of the axis.
const LEFT: f64 = 62.0;
/// Height above the plot, below the title.
const ABOVE: f64 = 8.0;
/// Height below the plot, for times.
const BELOW: f64 = 18.0;
/// Height of a line of the legend.
const LINE: f64 = 14.0;
/// Maximum lines of the legend, which has two columns.
const LINES: usize = 4;

/// A series: a name, and values over time.
pub(super) struct Series {
    pub(super) name: String,
    points: Vec<(f64, f64)>,
}

impl Series {
    /// Reads a series from Prometheus's answer; `legend` has names of labels in double braces.
    pub(super) fn new(legend: &str, series: &Value) -> Self {
        let mut name = legend.to_owned();
        for (label, value) in series["metric"].as_object().into_iter().flatten() {
            name = name.replace(&format!("{{{{{label}}}}}"), text(value));
        }
        let single = [series["value"].clone()];
        let points = match &series["values"] {
            Value::Array(values) => values,
            _ => &single[..],
        };
        let point = |point: &Value| Some((point[0].as_f64()?, text(&point[1]).parse().ok()?));
        let points = points.iter().filter_map(point);
        Self {
            name,
            points: points
                .filter(|(_, value): &(f64, f64)| value.is_finite())
                .collect(),
        }
    }

    pub(super) fn last(&self) -> f64 {
        self.points.last().map_or(0.0, |(_, value)| *value)
    }

    fn most(&self) -> f64 {
        self.points
            .iter()
            .map(|(_, value)| *value)
            .fold(0.0, f64::max)
    }

    fn at(&self, time: f64) -> Option<f64> {
        let mut points = self.points.iter();
        points
            .find(|(at, _)| (at - time).abs() < 0.5)
            .map(|(_, value)| *value)
    }
}

/// Draws lines or stacked areas, with a legend.
pub(super) fn lines(
    svg: &mut String,
    panel: &Value,
    mut all: Vec<Series>,
    answers: &Answers,
    area: Area,
) {
    let defaults = &panel["fieldConfig"]["defaults"];
    let unit = text(&defaults["unit"]);
    let is_stacked = defaults["custom"]["stacking"]["mode"] == "normal";
    all.sort_by(|one, other| other.most().total_cmp(&one.most()));
    let rows = all.len().div_ceil(2).min(LINES);
    let plot = Area {
        x: area.x + LEFT,
        w: area.w - LEFT,
        y: area.y + ABOVE,
        h: area.h - ABOVE - BELOW - LINE * count(rows) - 6.0,
    };
    let times = times(&all);
    let sum = |time: &f64| {
        all.iter()
            .filter_map(|series| series.at(*time))
            .sum::<f64>()
    };
    let highest = if is_stacked {
        times.iter().map(sum).fold(0.0, f64::max)
    } else {
        all.iter().map(Series::most).fold(0.0, f64::max)
    };
    let top = nice(highest, unit);
    axes(svg, plot, answers, |part| {
        // There is nothing between on and off.
        if unit.starts_with("bool") && part.fract() != 0.0 {
            return String::new();
        }
        written(top * part, unit, answers.end)
    });
    let place = |time: f64, value: f64| {
        let y = plot.bottom() - plot.h * value / top;
        (x_of(plot, answers, time), y)
    };
    if is_stacked {
        areas(svg, &all, &times, place);
    } else {
        paths(svg, &all, place);
    }
    legend(
        svg,
        &all,
        unit,
        answers,
        Area {
            y: area.bottom() - LINE * count(rows),
            ..area
        },
    );
}

/// Draws areas, each on top of those before it.
fn areas(svg: &mut String, all: &[Series], times: &[f64], place: impl Fn(f64, f64) -> (f64, f64)) {
    let mut below = vec![0.0; times.len()];
    for (series, colour) in all.iter().zip(COLOURS.iter().cycle()) {
        let own = |time: &f64| series.at(*time).unwrap_or(0.0);
        let over = below.iter().zip(times).map(|(sum, time)| sum + own(time));
        let over: Vec<f64> = over.collect();
        let there = times.iter().zip(&over);
        let back = times.iter().zip(&below).rev();
        let points = there.chain(back).map(|(time, value)| {
            let (x, y) = place(*time, *value);
            format!("{x:.0} {y:.1}")
        });
        let _ = writeln!(
            svg,
            "<polygon points=\"{}\" fill=\"{colour}\" fill-opacity=\".75\"/>",
            points.collect::<Vec<_>>().join(" ")
        );
        below = over;
    }
}

/// Draws lines, each interrupted where a point is missing.
fn paths(svg: &mut String, all: &[Series], place: impl Fn(f64, f64) -> (f64, f64)) {
    for (series, colour) in all.iter().zip(COLOURS.iter().cycle()) {
        let mut path = String::new();
        let mut before = f64::NEG_INFINITY;
        for (time, value) in &series.points {
            let step = if time - before < 6.0 { 'L' } else { 'M' };
            let (x, y) = place(*time, *value);
            let _ = write!(path, "{step}{x:.0} {y:.1}");
            before = *time;
        }
        let _ = writeln!(
            svg,
            "<path class=\"series\" stroke=\"{colour}\" d=\"{path}\"/>"
        );
    }
}

/// Returns where a time is in a plot, from left to right.
fn x_of(plot: Area, answers: &Answers, time: f64) -> f64 {
    plot.x + plot.w * (time - answers.start) / (answers.end - answers.start)
}

/// Draws the names with their colours and last values, in two columns; counts those that do not fit.
fn legend(svg: &mut String, all: &[Series], unit: &str, answers: &Answers, area: Area) {
    let width = area.w / 2.0;
    let rows = all.len().div_ceil(2).min(LINES);
    let left_over = all.len().saturating_sub(2 * LINES);
    for (number, series) in all.iter().take(2 * LINES).enumerate() {
        let (x, y) = (
            area.x + width * count(number / rows),
            area.y + LINE * count(number % rows) + 11.0,
        );
        let right = x + width - 14.0;
        if left_over > 0 && number + 1 == 2 * LINES {
            svg::text(
                svg,
                "",
                "start",
                (x + 14.0, y),
                &format!("and {} more", left_over + 1),
            );
            return;
        }
        let colour = COLOURS[number % COLOURS.len()];
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"9\" height=\"3\" fill=\"{colour}\"/>",
            y - 5.0
        );
        svg::text(
            svg,
            "",
            "start",
            (x + 14.0, y),
            &cut(&series.name, width - 100.0),
        );
        svg::text(
            svg,
            "",
            "end",
            (right, y),
            &written(series.last(), unit, answers.end),
        );
    }
}

/// Draws the rate of each bucket of a histogram over time.
pub(super) fn heatmap(svg: &mut String, all: &[Series], answers: &Answers, area: Area) {
    let bound = |series: &Series| series.name.parse().unwrap_or(f64::INFINITY);
    let mut buckets: Vec<_> = all.iter().collect();
    buckets.sort_by(|one, other| bound(one).total_cmp(&bound(other)));
    let plot = Area {
        x: area.x + LEFT,
        w: area.w - LEFT,
        y: area.y + ABOVE,
        h: area.h - ABOVE - BELOW - 4.0,
    };
    let each = plot.h / count(buckets.len());
    let times = times(all);
    let cell = |bucket: usize, time: f64| {
        let value = buckets[bucket].at(time).unwrap_or(0.0);
        let below = bucket
            .checked_sub(1)
            .and_then(|below| buckets[below].at(time));
        (value - below.unwrap_or(0.0)).max(0.0)
    };
    let cells = (0..buckets.len()).flat_map(|bucket| times.iter().map(move |time| (bucket, *time)));
    let most = cells
        .clone()
        .map(|(bucket, time)| cell(bucket, time))
        .fold(0.0, f64::max);
    axes(svg, plot, answers, |_| String::new());
    let width = plot.w * 5.0 / (answers.end - answers.start);
    for (bucket, time) in cells {
        let value = cell(bucket, time);
        if value > 1e-9 {
            let x = x_of(plot, answers, time);
            let y = plot.bottom() - each * count(bucket + 1);
            let strength = 0.12 + 0.88 * (value / most).sqrt();
            let _ = writeln!(
                svg,
                "<path fill=\"#d9480f\" fill-opacity=\"{strength:.2}\" d=\"M{:.1} {:.1}h{width:.1}v{:.1}h-{width:.1}z\"/>",
                (x - width).max(plot.x),
                y + 0.5,
                each - 1.0
            );
        }
    }
    for (number, series) in buckets.iter().enumerate() {
        let y = plot.bottom() - each * count(number) - each / 2.0 + 4.0;
        let le = match bound(series) {
            le if le.is_finite() => format!("≤ {}", written(le, "s", 0.0)),
            _ => "more".to_owned(),
        };
        svg::text(svg, "", "end", (plot.x - 6.0, y), &le);
    }
}

/// Returns the times of all points, in order.
fn times(all: &[Series]) -> Vec<f64> {
    let mut times: Vec<f64> = all
        .iter()
        .flat_map(|series| series.points.iter().map(|(time, _)| *time))
        .collect();
    times.sort_by(f64::total_cmp);
    times.dedup();
    times
}

/// Draws five horizontal lines with their labels, and times below.
fn axes(svg: &mut String, plot: Area, answers: &Answers, label: impl Fn(f64) -> String) {
    for quarter in 0..=4 {
        let part = f64::from(quarter) / 4.0;
        let y = plot.bottom() - plot.h * part;
        let (from, to) = (plot.x, plot.x + plot.w);
        let _ = writeln!(
            svg,
            "<path class=\"line\" d=\"M{from:.1} {y:.1}H{to:.1}\"/>"
        );
        let label = label(part);
        if !label.is_empty() {
            svg::text(svg, "", "end", (plot.x - 6.0, y + 4.0), &label);
        }
    }
    let span = answers.end - answers.start;
    let steps = [60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
    let step = steps
        .into_iter()
        .find(|step| span / step <= 6.0)
        .unwrap_or(span);
    let mut time = (answers.start / step).ceil() * step;
    while time <= answers.end {
        #[expect(clippy::cast_possible_truncation, reason = "minutes of a day")]
        let minutes = (time / 60.0).rem_euclid(1440.0) as i64;
        let clock = format!("{:02}:{:02}", minutes / 60, minutes % 60);
        // Keeps the text inside the plot at either end.
        let x = x_of(plot, answers, time).clamp(plot.x + 14.0, plot.x + plot.w - 14.0);
        svg::text(svg, "", "middle", (x, plot.bottom() + 14.0), &clock);
        time += step;
    }
}

/// Returns an upper end of the scale, at least `value`, a quarter of which is round in its unit.
fn nice(value: f64, unit: &str) -> f64 {
    if value <= 0.0 || unit.starts_with("bool") {
        return 1.0;
    }
    let mut scale = match unit {
        "bytes" => 1024_f64.powf((value.ln() / 1024_f64.ln()).floor().max(0.0)) / 1000.0,
        _ => 1e-9,
    };
    loop {
        let quarters =
            [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5].map(|quarter| 4.0 * quarter * scale);
        if let Some(top) = quarters.into_iter().find(|top| value <= *top) {
            return top;
        }
        scale *= 10.0;
    }
}

#[test]
fn names_contain_labels_and_nan_is_left_out() {
    let series = serde_json::json!({
        "metric": { "unit": "nginx.service" },
        "values": [[5.0, "1"], [10.0, "NaN"], [15.0, "3"]],
    });
    let series = Series::new("of {{unit}}", &series);
    assert_eq!(series.name, "of nginx.service");
    assert_eq!(series.points, [(5.0, 1.0), (15.0, 3.0)]);
    assert!(series.at(10.0).is_none());
}

#[test]
fn the_scale_ends_at_four_round_quarters() {
    assert_eq!(
        [3.0, 23.0].map(|value| nice(value, "short").round().to_string()),
        ["3", "30"]
    );
}
