//! Draws the view, after every reading and key.

mod head;
mod help;
mod pieces;
mod recent;
mod unit;
mod units;

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};

use super::features::Features;
use super::history::History;
use super::rows::rows;
use super::state::{Keys, Screen, ViewState};
use crate::text::escape_for_terminal;

/// Everything that is drawn.
pub(super) struct Picture<'a> {
    pub(super) history: &'a History,
    /// The source of the readings, in a few words.
    pub(super) source: &'a str,
    /// Time between two readings.
    pub(super) interval: Duration,
    /// Why the latest reading failed.
    pub(super) failure: Option<&'a str>,
    pub(super) features: Features,
}

/// Draws it as chosen by the user.
pub(super) fn draw(frame: &mut Frame<'_>, picture: &Picture<'_>, state: &mut ViewState) {
    let rows = rows(picture.history, state);
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    head::draw(frame, head, picture, state);
    if picture.history.live.is_none() {
        let wait = Line::from("waiting for the first reading");
        frame.render_widget(wait, body);
    } else {
        match state.screen {
            Screen::Units => units::draw(frame, body, picture, &rows, state),
            Screen::Unit => unit::draw(frame, body, picture, &rows, state),
        }
    }
    frame.render_widget(footer(state), foot);
    if state.keys == Keys::Help {
        help::draw(frame, frame.area());
    }
    picture.features.apply(frame.buffer_mut());
}

/// The keys, or the filter being typed.
fn footer(state: &ViewState) -> Line<'static> {
    if state.keys == Keys::Filter {
        let text = format!(
            "/{}_  Enter: keep it  Esc: all units",
            escape_for_terminal(&state.filter)
        );
        return Line::from(text);
    }
    let keys: &[(&str, &str)] = match state.screen {
        Screen::Units => &[
            ("q", "quit"),
            ("?", "help"),
            ("Enter", "unit"),
            ("/", "filter"),
            ("<>", "sort"),
            ("t", "totals"),
            ("space", "pause"),
            ("r", "reverse"),
        ],
        Screen::Unit => &[
            ("q", "quit"),
            ("?", "help"),
            ("Esc", "back"),
            ("Up/Down", "other unit"),
            ("PgDn", "scroll"),
            ("space", "pause"),
        ],
    };
    let spans = keys.iter().flat_map(|(key, what)| {
        [
            Span::styled(*key, Modifier::BOLD),
            Span::raw(format!(" {what}  ")),
        ]
    });
    spans.collect()
}

/// Splits an area into rows; the last one gets the rest.
fn stack<const N: usize>(area: Rect, heights: [u16; N]) -> [Rect; N] {
    let mut rest = area;
    let mut index = 0;
    heights.map(|height| {
        index += 1;
        let height = if index == N {
            rest.height
        } else {
            height.min(rest.height)
        };
        let part = Rect { height, ..rest };
        rest.y += height;
        rest.height -= height;
        part
    })
}
