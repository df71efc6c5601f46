//! Help for keys and columns.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

use crate::top::column::Column;
use crate::top::state::KEYS;

/// Draws it in place of everything else.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect) {
    let line = |name: &str, words: &'static str| {
        Line::from(vec![
            Span::styled(format!("{name:<14}"), Modifier::BOLD),
            Span::raw(words),
        ])
    };
    let keys = KEYS.iter().map(|&(key, words)| line(key, words));
    let columns = Column::ALL
        .iter()
        .zip(1..)
        .map(|(&column, digit)| line(&format!("{digit} {}", column.name()), column.words()));
    let block = Block::bordered().title(" lingerd top: any key goes back ");
    frame.render_widget(Clear, area);
    let lines: Vec<_> = keys.chain(columns).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}
