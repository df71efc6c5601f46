//! The latest closes that lost payload or blocked for long.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row};

use super::pieces::{FAINT, fit, number, right, table};
use crate::live::RecentClose;
use crate::text::{age, escape_for_terminal};
use crate::top::column::{Column, float};

/// Minimum width for all columns.
const WIDE: u16 = 150;

/// Headings and widths of the columns; one more for the peer takes the remaining width.
const COLUMNS: &[(&str, u16)] = &[
    ("ago", 4),
    ("who", 18),
    ("outcome", 18),
    ("lost", 8),
    ("blocked", 7),
];
const WIDE_COLUMNS: &[(&str, u16)] = &[
    ("ago", 4),
    ("unit", 30),
    ("who", 22),
    ("outcome", 18),
    ("unsent", 8),
    ("unacked", 8),
    ("unread", 8),
    ("blocked", 7),
    ("here", 22),
];

/// Returns the cell of a close below a heading.
fn cell(one: &RecentClose, heading: &str, width: u16, now: f64) -> Cell<'static> {
    let text = |text: &str| Cell::from(fit(&escape_for_terminal(text), width));
    let bytes = |column, bytes| number(column, Some(float(bytes)));
    match heading {
        "ago" => right(age(now - one.at)).style(FAINT),
        "unit" => text(&one.unit),
        "who" => text(&format!("{}[{}]", one.comm, one.pid)),
        "outcome" => text(&one.outcome),
        "lost" => bytes(Column::Lost, one.unsent + one.unacked + one.unread),
        "unsent" => bytes(Column::Discarded, one.unsent),
        "unacked" => bytes(Column::Discarded, one.unacked),
        "unread" => bytes(Column::Unread, one.unread),
        "blocked" => number(Column::Blocked, one.blocked_seconds),
        "here" => text(&one.local),
        _ => text(&one.remote),
    }
}

/// Draws as many closes as fit, below a heading; `now` is in Unix seconds.
pub(super) fn draw<'a>(
    frame: &mut Frame<'_>,
    area: Rect,
    now: f64,
    closes: impl Iterator<Item = &'a RecentClose>,
) {
    let [title, below] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    let heading = "costly closes: payload lost, or blocked for 100ms and more";
    frame.render_widget(Line::from(heading).style(FAINT), title);
    let columns = if area.width < WIDE {
        COLUMNS
    } else {
        WIDE_COLUMNS
    };
    let mut columns = columns.to_vec();
    let taken = columns.iter().map(|(_, width)| width + 1).sum();
    columns.push(("peer", area.width.saturating_sub(taken)));
    let head = columns.iter().map(|&(heading, _)| match heading {
        "who" | "outcome" | "unit" | "here" | "peer" => Cell::from(heading),
        number => right(number),
    });
    let rows: Vec<_> = closes
        .take(below.height.saturating_sub(1).into())
        .map(|one| {
            let columns = columns.iter();
            Row::new(columns.map(|&(heading, width)| cell(one, heading, width, now)))
        })
        .collect();
    if rows.is_empty() {
        frame.render_widget(Line::from(" none of late").style(FAINT), below);
    } else {
        let widths: Vec<_> = columns.iter().map(|&(_, width)| width).collect();
        table(frame, below, Row::new(head), rows, &widths);
    }
}
