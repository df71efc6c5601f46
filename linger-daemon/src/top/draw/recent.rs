//! The latest closes that lost payload or blocked for long.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row};

use super::pieces::{FAINT, fit, number, right, table};
use crate::live::RecentClose;
use crate::text::{age, escape_for_terminal};
use crate::top::column::{Column, float};

/// Heading, width and content of a cell.
type Part = (&'static str, u16, fn(&RecentClose) -> Cell<'static>);

/// Minimum width for all parts.
const WIDE: u16 = 150;

const PARTS: &[Part] = &[
    ("who", 18, |one| name(&who(one), 18)),
    ("outcome", 18, |one| name(&one.outcome, 18)),
    ("lost", 8, |one| {
        number(
            Column::Lost,
            Some(float(one.unsent + one.unacked + one.unread)),
        )
    }),
    ("blocked", 7, |one| {
        number(Column::Blocked, Some(one.blocked_seconds))
    }),
];

const WIDE_PARTS: &[Part] = &[
    ("unit", 30, |one| name(&one.unit, 30)),
    ("who", 22, |one| name(&who(one), 22)),
    ("outcome", 18, |one| name(&one.outcome, 18)),
    ("unsent", 8, |one| {
        number(Column::Discarded, Some(float(one.unsent)))
    }),
    ("unacked", 8, |one| {
        number(Column::Discarded, Some(float(one.unacked)))
    }),
    ("unread", 8, |one| {
        number(Column::Unread, Some(float(one.unread)))
    }),
    ("blocked", 7, |one| {
        number(Column::Blocked, Some(one.blocked_seconds))
    }),
    ("here", 22, |one| name(&one.local, 22)),
];

fn name(text: &str, width: usize) -> Cell<'static> {
    Cell::from(fit(&escape_for_terminal(text), width))
}

fn who(one: &RecentClose) -> String {
    format!("{}[{}]", one.comm, one.pid)
}

/// Draws as many as there is room for, below a heading; `now` is in Unix seconds.
pub(super) fn draw<'a>(
    frame: &mut Frame<'_>,
    area: Rect,
    now: f64,
    closes: impl Iterator<Item = &'a RecentClose>,
) {
    let parts = if area.width < WIDE { PARTS } else { WIDE_PARTS };
    let mut widths = vec![4];
    widths.extend(parts.iter().map(|(_, width, _)| width));
    let taken = widths.iter().map(|width| width + 1).sum();
    let rest = area.width.saturating_sub(taken);
    widths.push(rest);
    let head = std::iter::once(right("ago"));
    let head = head.chain(parts.iter().map(|&(title, _, _)| match title {
        "who" | "outcome" | "unit" | "here" => Cell::from(title),
        number => right(number),
    }));
    let head = Row::new(head.chain([Cell::from("peer")]));
    let room = usize::from(area.height.saturating_sub(2));
    let mut any = false;
    let rows: Vec<_> = closes
        .take(room)
        .map(|one| {
            any = true;
            let ago = right(age(now - one.at)).style(FAINT);
            let cells = parts.iter().map(|(_, _, cell)| cell(one));
            let peer = name(&one.remote, rest.into());
            Row::new(std::iter::once(ago).chain(cells).chain([peer]))
        })
        .collect();
    let title = Line::from("costly closes: payload lost, or blocked for 100ms and more");
    frame.render_widget(title.style(FAINT), Rect { height: 1, ..area });
    let below = Rect {
        y: area.y + 1,
        height: area.height.saturating_sub(1),
        ..area
    };
    if any {
        table(frame, below, head, rows, &widths);
    } else {
        frame.render_widget(Line::from(" none of late").style(FAINT), below);
    }
}
