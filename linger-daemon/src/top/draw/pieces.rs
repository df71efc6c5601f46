//! Elements shared by several parts of the view.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Row, Sparkline, Table};

use crate::top::column::Column;
use crate::top::history::Track;

/// Heads of tables.
pub(super) const HEAD: Style =
    Style::new().add_modifier(Modifier::BOLD.union(Modifier::UNDERLINED));
/// Of little importance.
pub(super) const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
/// Needs attention. The color is never the only sign.
pub(super) const ALARM: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);

/// The style of a column's numbers.
pub(super) const fn style(column: Column) -> Style {
    match column {
        Column::Aborts | Column::Resets => Style::new().fg(Color::Yellow),
        Column::Discarded | Column::Lost | Column::Unread => Style::new().fg(Color::Red),
        Column::Blocked => Style::new().fg(Color::Magenta),
        Column::Unit | Column::Closes | Column::Orphans => Style::new().fg(Color::Cyan),
    }
}

/// A number of a column, right-aligned; a dash if unknown.
pub(super) fn number(column: Column, value: Option<f64>) -> Cell<'static> {
    let (text, style) = match value {
        None => ("-".to_owned(), FAINT),
        Some(value) if value > 0.0 => (column.text(value), style(column)),
        Some(value) => (column.text(value), FAINT),
    };
    right(text).style(style)
}

/// Right-aligned text.
pub(super) fn right(text: impl Into<String>) -> Cell<'static> {
    Cell::from(Text::from(text.into()).alignment(Alignment::Right))
}

/// A name, truncated to the room for it.
pub(super) fn fit(name: &str, width: usize) -> String {
    if Line::from(name).width() <= width {
        return name.to_owned();
    }
    let mut cut = String::new();
    for letter in name.chars() {
        cut.push(letter);
        if Line::from(cut.as_str()).width() >= width {
            cut.pop();
            break;
        }
    }
    cut.push('…');
    cut
}

/// A table without lines, its head in bold.
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

/// The trend of a column, as wide as the area.
pub(super) fn trend(
    frame: &mut Frame<'_>,
    area: Rect,
    track: &Track,
    column: Column,
    window: usize,
) {
    let steps = usize::from(area.width);
    let trend = track.trend(column, window, steps);
    let highest = trend.iter().copied().fold(0.0, f64::max);
    if highest <= 0.0 || area.is_empty() {
        return;
    }
    let eighths = f64::from(area.height) * 8.0;
    // Anything above zero is visible, however low.
    let bars = trend.iter().map(|value| whole(value / highest * eighths));
    let bars: Vec<u64> = std::iter::repeat_n(0, steps - trend.len())
        .chain(bars)
        .collect();
    let sparkline = Sparkline::default()
        .data(bars)
        .max(u64::from(area.height) * 8)
        .style(style(column));
    frame.render_widget(sparkline, area);
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the eighths of a terminal's height"
)]
fn whole(value: f64) -> u64 {
    value.ceil() as u64
}

/// The name of its rate above its trend, where both have 15 columns.
fn head(column: Column) -> String {
    match column {
        Column::Discarded => "disc./s".to_owned(),
        other => other.head(true),
    }
}

/// Current rate and trend of the most important columns, side by side.
pub(super) fn tiles(frame: &mut Frame<'_>, area: Rect, track: &Track, window: usize) {
    const TILES: &[Column] = &[
        Column::Closes,
        Column::Aborts,
        Column::Discarded,
        Column::Blocked,
        Column::Lost,
    ];
    // No narrower than a name and a number.
    let count = usize::from(area.width / 15).clamp(1, TILES.len());
    let width = area.width / u16::try_from(count).unwrap_or(1);
    let shown = &TILES[usize::from(count < TILES.len())..][..count];
    for (&column, x) in shown.iter().zip((area.x..).step_by(width.into())) {
        let tile = Rect {
            x,
            width: width - 1,
            ..area
        };
        let now = track.rate.as_ref().map(|rate| rate[column]);
        let number = now.map_or("-".to_owned(), |now| column.text(now));
        let line = Line::from(format!("{} {number}", head(column)));
        let line = line.style(if now.is_some_and(|now| now > 0.0) {
            style(column).add_modifier(Modifier::BOLD)
        } else {
            FAINT
        });
        frame.render_widget(line, Rect { height: 1, ..tile });
        let below = Rect {
            y: tile.y + 1,
            height: tile.height.saturating_sub(1),
            ..tile
        };
        trend(frame, below, track, column, window);
    }
}
