//! Draws stacked columns as SVG, readable on light and dark pages.

use std::fmt::Write as _;

use super::film::Axis;
use crate::svg::{self, count};

const WIDTH: f64 = 760.0;
/// Height of the plot.
const HEIGHT: f64 = 160.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 34.0;
/// Space between panels.
const GAP: f64 = 24.0;
/// Height of a line of the legend.
const LINE: f64 = 20.0;

/// Colours of normal events. Most people can distinguish all these colours, on light and dark backgrounds.
const COOL: [&str; 4] = ["#4c8bf5", "#1e9e6a", "#8e63ce", "#0aa5b8"];
/// Colours of aborts, resets, losses and blocking closes.
const WARM: [&str; 4] = ["#e8710a", "#d6408b", "#c5493c", "#a88c00"];
/// The colour of listeners, which only mark a time.
const GREY: &str = "#8c959f";

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#57606a}\
                     .line{stroke:#8c959f;stroke-opacity:.4}\
                     @media(prefers-color-scheme:dark){text{fill:#b1bac4}}";

/// A picture: panels side by side, with a common scale.
pub(super) struct Chart {
    unit: &'static str,
    source: String,
    axis: Axis,
    /// Names of all series, in the order of their colours.
    names: Vec<String>,
    panels: Vec<Panel>,
}

/// A panel of stacked columns.
struct Panel {
    title: String,
    stacks: Vec<(usize, Vec<f64>)>,
}

impl Chart {
    /// Makes a picture of series, each given as the title of its panel, its name and its columns. Adds up series with
    /// the same title and name.
    pub(super) fn new(
        unit: &'static str,
        source: String,
        axis: Axis,
        series: impl Iterator<Item = (String, String, Vec<f64>)>,
    ) -> Self {
        let mut chart = Self {
            unit,
            source,
            axis,
            names: Vec::new(),
            panels: Vec::new(),
        };
        for (title, name, columns) in series {
            if columns.iter().any(|value| *value > 0.0) {
                let colour = chart.colour(name);
                chart.panel(title).add(colour, columns);
            }
        }
        chart
    }

    pub(super) fn is_empty(&self) -> bool {
        self.panels.is_empty()
    }

    fn colour(&mut self, name: String) -> usize {
        let known = self.names.iter().position(|one| *one == name);
        known.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        })
    }

    fn panel(&mut self, title: String) -> &mut Panel {
        let known = self.panels.iter().position(|one| one.title == title);
        let place = known.unwrap_or_else(|| {
            self.panels.push(Panel {
                title,
                stacks: Vec::new(),
            });
            self.panels.len() - 1
        });
        &mut self.panels[place]
    }

    /// Returns the colour of a series: the next free one of its palette.
    fn paint(&self, number: usize) -> &'static str {
        let name = |number: usize| self.names[number].rsplit(" · ").next();
        let before = |palette: Palette| {
            let others = 0..number;
            others
                .filter(|one| Palette::of(name(*one)) == palette)
                .count()
        };
        match Palette::of(name(number)) {
            Palette::Grey => GREY,
            Palette::Cool => COOL[before(Palette::Cool) % COOL.len()],
            Palette::Warm => WARM[before(Palette::Warm) % WARM.len()],
        }
    }

    /// Draws the picture.
    pub(super) fn svg(&self) -> String {
        let legend = TOP + HEIGHT + 52.0;
        let rows = self.names.len().div_ceil(3);
        let height = legend + LINE * count(rows);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
             <title>{}</title>\n<desc>{}</desc>\n<style>{STYLE}</style>\n",
            svg::escape(self.unit),
            svg::escape(&self.source)
        );
        let top = nice(self.panels.iter().map(Panel::highest).fold(0.0, f64::max));
        let panels = count(self.panels.len());
        let width = (WIDTH - LEFT - GAP * panels) / panels;
        for part in 0..=4 {
            let value = top * f64::from(part) / 4.0;
            let y = TOP + HEIGHT - HEIGHT * f64::from(part) / 4.0;
            svg::text(&mut svg, "", "end", (LEFT - 8.0, y + 4.0), &short(value));
            let (from, to) = (LEFT, WIDTH - GAP);
            let _ = writeln!(svg, "<path class=\"line\" d=\"M{from} {y:.1}H{to}\"/>");
        }
        svg::text(&mut svg, "", "start", (4.0, 14.0), self.unit);
        for (number, panel) in self.panels.iter().enumerate() {
            let x = LEFT + (width + GAP) * count(number);
            let middle = x + width / 2.0;
            svg::text(&mut svg, "", "middle", (middle, 26.0), &panel.title);
            panel.draw(&mut svg, (x, width), top, |number| self.paint(number));
            for (part, tick) in &self.axis.ticks {
                let place = (x + part * width, TOP + HEIGHT + 16.0);
                svg::text(&mut svg, "", "middle", place, tick);
            }
            let place = (middle, TOP + HEIGHT + 34.0);
            svg::text(&mut svg, "", "middle", place, self.axis.unit);
        }
        for (number, name) in self.names.iter().enumerate() {
            let x = LEFT + (WIDTH - LEFT) / 3.0 * count(number % 3);
            let y = legend + LINE * count(number / 3);
            let colour = self.paint(number);
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>",
                y - 9.0
            );
            svg::text(&mut svg, "", "start", (x + 16.0, y), name);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// The palette of a series.
#[derive(Clone, Copy, PartialEq)]
enum Palette {
    Cool,
    Warm,
    Grey,
}

impl Palette {
    /// Chooses by the last part of the name: an outcome, a cause, a fate, whether closes waited, or a unit.
    fn of(name: Option<&str>) -> Self {
        match name.unwrap_or_default() {
            "listener" => Self::Grey,
            "linger_timeout" | "peer_reset" | "late_data" | "keepalive" | "waited" => Self::Warm,
            name if name.ends_with("_aborted") => Self::Warm,
            _ => Self::Cool,
        }
    }
}

impl Panel {
    fn add(&mut self, colour: usize, columns: Vec<f64>) {
        match self.stacks.iter_mut().find(|(one, _)| *one == colour) {
            Some((_, sums)) => {
                for (sum, value) in sums.iter_mut().zip(columns) {
                    *sum += value;
                }
            }
            None => self.stacks.push((colour, columns)),
        }
    }

    fn columns(&self) -> usize {
        self.stacks.first().map_or(0, |(_, columns)| columns.len())
    }

    /// Returns the height of the highest column.
    fn highest(&self) -> f64 {
        let sum = |column| -> f64 { self.stacks.iter().map(|(_, values)| values[column]).sum() };
        (0..self.columns()).map(sum).fold(0.0, f64::max)
    }

    fn draw(
        &self,
        svg: &mut String,
        (left, width): (f64, f64),
        top: f64,
        paint: impl Fn(usize) -> &'static str,
    ) {
        let each = width / count(self.columns());
        for column in 0..self.columns() {
            let mut y = TOP + HEIGHT;
            for (colour, values) in &self.stacks {
                let height = HEIGHT * values[column] / top;
                if height > 0.0 {
                    y -= height;
                    let colour = paint(*colour);
                    let x = left + each * count(column);
                    let wide = each - 1.0;
                    let _ = writeln!(
                        svg,
                        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
                    );
                }
            }
        }
    }
}

/// Returns an upper end of the scale, at least `value`, a quarter of which is round.
fn nice(value: f64) -> f64 {
    let mut scale = 1.0;
    loop {
        let steps = (1..10).map(|quarter| 4.0 * f64::from(quarter) * scale);
        if let Some(step) = steps.into_iter().find(|step| value <= *step) {
            return step;
        }
        scale *= 10.0;
    }
}

/// Formats a number in few characters.
fn short(value: f64) -> String {
    if value >= 10_000.0 {
        format!("{} k", value / 1000.0)
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(series: &[(&str, &str, &[f64])]) -> Chart {
        let axis = Axis {
            unit: "seconds",
            ticks: vec![(0.0, "0".into())],
        };
        let series = series.iter().map(|(panel, name, columns)| {
            ((*panel).to_owned(), (*name).to_owned(), columns.to_vec())
        });
        Chart::new("closes", "by a test".into(), axis, series)
    }

    #[test]
    fn series_with_the_same_name_are_added_up() {
        let chart = chart(&[("", "a", &[1.0, 0.0]), ("", "a", &[2.0, 5.0])]);
        assert_eq!(chart.names, ["a"]);
        assert_eq!(chart.panels[0].stacks, [(0, vec![3.0, 5.0])]);
    }

    #[test]
    fn a_series_has_one_colour_in_all_panels() {
        let chart = chart(&[("x", "a", &[1.0]), ("y", "b", &[1.0]), ("y", "a", &[4.0])]);
        let colours = |panel: usize| -> Vec<usize> {
            let stacks = chart.panels[panel].stacks.iter();
            stacks.map(|(colour, _)| *colour).collect()
        };
        assert_eq!((colours(0), colours(1)), (vec![0], vec![1, 0]));
        let svg = chart.svg();
        assert_eq!(
            svg.matches(COOL[0]).count(),
            3,
            "two columns and the legend"
        );
    }

    #[test]
    fn heights_are_in_proportion() {
        let svg = chart(&[("", "a", &[4.0, 1.0])]).svg();
        assert!(
            svg.contains("height=\"160.0\"") && svg.contains("height=\"40.0\""),
            "{svg}"
        );
    }

    #[test]
    fn losses_have_warm_colours() {
        let names = [
            "graceful",
            "u · unread_aborted",
            "listener",
            "u · peer_reset",
        ];
        let chart = chart(&names.map(|name| ("", name, &[1.0][..])));
        let colours = [0, 1, 2, 3].map(|number| chart.paint(number));
        assert_eq!(colours, [COOL[0], WARM[0], GREY, WARM[1]]);
    }

    #[test]
    fn names_cannot_break_the_picture() {
        let svg = chart(&[("<x>", "a&b", &[1.0])]).svg();
        assert!(svg.contains("&lt;x>") && svg.contains("a&amp;b"));
    }

    #[test]
    fn a_chart_of_zeros_is_empty() {
        assert!(chart(&[("", "a", &[0.0])]).is_empty());
    }

    #[test]
    fn the_scale_ends_at_four_round_quarters() {
        let scales = [3.0, 20.0, 21.0, 130.0].map(|value| nice(value).to_string());
        assert_eq!(scales, ["4", "20", "24", "160"]);
    }
}
