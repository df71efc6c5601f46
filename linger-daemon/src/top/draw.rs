//! Draws the view, after every reading and key.

mod head;
mod pieces;
mod recent;
mod unit;
mod units;

use std::time::Duration;

use clap::ValueEnum as _;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

use super::column::Column;
use super::features::Features;
use super::history::{History, Row};
use super::state::{KEYS, Keys, Screen, ViewState};
use crate::text::escape_for_terminal;

/// The data to draw.
pub(super) struct Picture<'a> {
    pub(super) history: &'a History,
    /// The units of the history to list.
    pub(super) rows: Vec<Row<'a>>,
    /// The source of the readings, in a few words.
    pub(super) source: &'a str,
    /// Time between two readings.
    pub(super) interval: Duration,
    /// Reason why the latest reading failed.
    pub(super) failure: Option<&'a str>,
    pub(super) features: Features,
}

/// Draws the picture according to the user's choices.
pub(super) fn draw(frame: &mut Frame<'_>, picture: &Picture<'_>, state: &mut ViewState) {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let title = vec![head::title(picture, state), head::health(picture)];
    frame.render_widget(Paragraph::new(title), head);
    if picture.history.live.is_none() {
        frame.render_widget("waiting for the first reading", body);
    } else {
        match state.screen {
            Screen::Units => units::draw(frame, body, picture, state),
            Screen::Unit => unit::draw(frame, body, picture, state),
        }
    }
    frame.render_widget(footer(state), foot);
    if state.keys == Keys::Help {
        frame.render_widget(Clear, frame.area());
        frame.render_widget(help(), frame.area());
    }
    picture.features.apply(frame.buffer_mut());
}

/// Returns the line of keys, or of the filter being typed.
fn footer(state: &ViewState) -> Line<'static> {
    if state.keys == Keys::Filter {
        let filter = escape_for_terminal(&state.filter);
        return format!("/{filter}_  Enter: keep it  Esc: all units").into();
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

/// Returns the help: the effects of keys, and the meaning of columns.
fn help() -> Paragraph<'static> {
    let line = |name: &str, words: &'static str| {
        let name = Span::styled(format!("{name:<14}"), Modifier::BOLD);
        Line::from(vec![name, Span::raw(words)])
    };
    let keys = KEYS.iter().map(|&(key, words)| line(key, words));
    let columns = Column::value_variants().iter().zip(1..);
    let columns =
        columns.map(|(column, digit)| line(&format!("{digit} {}", column.name()), column.words()));
    let block = Block::bordered().title(" lingerd top: any key goes back ");
    Paragraph::new(keys.chain(columns).collect::<Vec<_>>()).block(block)
}
