//! Elements shared by several parts of the view.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Row, Table};

use crate::top::column::{Column, Shown};
use crate::top::history::Track;

/// Heads of tables.
pub(super) const HEAD: Style =
    Style::new().add_modifier(Modifier::BOLD.union(Modifier::UNDERLINED));
/// Text of little importance.
pub(super) const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
/// Text that needs attention. The color is never the only sign.
pub(super) const ALARM: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);

const fn style(column: Column) -> Style {
    match column {
        Column::Aborts | Column::Resets => Style::new().fg(Color::Yellow),
        Column::Discarded | Column::Lost | Column::Unread => Style::new().fg(Color::Red),
        Column::Blocked => Style::new().fg(Color::Magenta),
        Column::Unit | Column::Closes | Column::Orphans => Style::new().fg(Color::Cyan),
    }
}

/// Formats a number of a column, right-aligned; a dash if unknown.
pub(super) fn number(column: Column, value: Option<f64>) -> Cell<'static> {
    let is_positive = value.is_some_and(|value| value > 0.0);
    right(column.text(value)).style(if is_positive { style(column) } else { FAINT })
}

pub(super) fn right(text: impl Into<String>) -> Cell<'static> {
    Cell::from(Text::from(text.into()).right_aligned())
}

/// Truncates a name to a width in columns of the terminal.
pub(super) fn fit(name: &str, width: u16) -> String {
    let width = usize::from(width);
    if Line::from(name).width() <= width {
        return name.to_owned();
    }
    // Escaped, a path may have 20,000 characters. All that fit are among the first ones, some of which may be combined.
    let mut cut: String = name.chars().take(4 * width).collect();
    while !cut.is_empty() && Line::from(cut.as_str()).width() >= width {
        cut.pop();
    }
    cut + "…"
}

/// Draws a table without borders, with its head in the style [`HEAD`].
pub(super) fn table<'a>(
    frame: &mut Frame<'_>,
    area: Rect,
    head: Row<'a>,
    rows: impl IntoIterator<Item = Row<'a>>,
    widths: &[u16],
) {
    let widths = widths.iter().map(|&width| Constraint::Length(width));
    let table = Table::new(rows, widths)
        .header(head.style(HEAD))
        .column_spacing(1);
    frame.render_widget(table, area);
}

/// Formats the trend of a column as bars, the newest at the right.
pub(super) fn trend(track: &Track, column: Column, width: u16, height: u16) -> Text<'static> {
    const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let rates = track.trend(column, width.into());
    let highest = rates.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    // Anything above zero is visible, however low.
    let eighths = f64::from(height) * 8.0 / highest;
    let bars: Vec<_> = rates.iter().map(|rate| whole(rate * eighths)).collect();
    let lines = (0..usize::from(height)).rev().map(|line| {
        let bars = bars.iter().map(|bar| bar.saturating_sub(line * 8).min(8));
        bars.map(|eighths| LEVELS[eighths]).collect::<String>()
    });
    let text: Text<'_> = lines.map(Line::from).collect();
    text.right_aligned().style(style(column))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the eighths of a terminal's height"
)]
fn whole(value: f64) -> usize {
    value.ceil() as usize
}

/// Draws the current rate and the trend of the most important columns, side by side.
pub(super) fn tiles(frame: &mut Frame<'_>, area: Rect, track: &Track) {
    const TILES: [(Column, &str); 5] = [
        (Column::Closes, "closes/s"),
        (Column::Aborts, "aborts/s"),
        (Column::Discarded, "disc./s"),
        (Column::Blocked, "block/s"),
        (Column::Lost, "lost/s"),
    ];
    if area.is_empty() {
        return;
    }
    // A tile must not be narrower than a name and a number.
    let count = usize::from(area.width / 15).clamp(1, TILES.len());
    let width = area.width / u16::try_from(count).unwrap_or(1);
    let shown = &TILES[usize::from(count < TILES.len())..][..count];
    for (&(column, name), x) in shown.iter().zip((area.x..).step_by(width.into())) {
        let tile = Rect { x, width, ..area };
        let [tile, _] =
            Layout::horizontal([Constraint::Fill(1), Constraint::Length(1)]).areas(tile);
        let [head, below] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(tile);
        let now = track.figures.number(column, Shown::Rates);
        let line = Line::from(format!("{name} {}", column.text(now)));
        let line = line.style(if now.is_some_and(|now| now > 0.0) {
            style(column).add_modifier(Modifier::BOLD)
        } else {
            FAINT
        });
        frame.render_widget(line, head);
        let trend = trend(track, column, below.width, below.height);
        frame.render_widget(trend, below);
    }
}
