//! The state of the view, and how keys change it.

use std::cmp::Ordering;

use clap::ValueEnum as _;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::column::{Column, Figures, Shown};

/// The current screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Screen {
    Units,
    /// The selected unit.
    Unit,
}

/// The current meaning of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// Navigation and commands.
    Navigate,
    /// Typing the filter.
    Filter,
    /// Closing the help.
    Help,
}

/// The action that a key requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Draw,
    Quit,
    /// Suspend, until the shell continues it.
    Suspend,
}

/// The choices of the user.
#[derive(Clone, Debug)]
pub(super) struct ViewState {
    pub(super) screen: Screen,
    pub(super) keys: Keys,
    pub(super) shown: Shown,
    pub(super) sort: Column,
    /// Ascending; names from Z to A.
    pub(super) reverse: bool,
    /// Only units that contain this, ignoring case.
    pub(super) filter: String,
    /// True if the view is paused.
    pub(super) paused: bool,
    /// The selected unit; the first if `None`.
    pub(super) selected: Option<String>,
    /// Number of rows by which the lists of the selected unit are scrolled.
    pub(super) scroll: usize,
    /// Number of rows that fitted into the last drawing.
    pub(super) page: usize,
}

impl ViewState {
    /// Creates the state that shows all units, sorted by this column.
    pub(super) fn new(sort: Column) -> Self {
        Self {
            screen: Screen::Units,
            keys: Keys::Navigate,
            shown: Shown::Rates,
            sort,
            reverse: false,
            filter: String::new(),
            paused: false,
            selected: None,
            scroll: 0,
            page: 1,
        }
    }

    /// Compares two units, or two groups, each a name with its figures, in the order in which they are listed.
    pub(super) fn order(&self, a: (&str, &Figures), b: (&str, &Figures)) -> Ordering {
        let order = match self.sort {
            Column::Unit => a.0.cmp(b.0),
            column => b.1.compare(a.1, column, self.shown),
        };
        if self.reverse { order.reverse() } else { order }
    }

    /// Handles a key while these units are shown, in this order.
    pub(super) fn key(&mut self, key: KeyEvent, units: &[&str]) -> Action {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match (key.code, self.keys) {
            (KeyCode::Char('c'), _) if is_control => return Action::Quit,
            (KeyCode::Char('z'), _) if is_control => return Action::Suspend,
            (KeyCode::Char('u'), Keys::Filter) if is_control => self.filter.clear(),
            _ if is_control => {}
            (code, Keys::Filter) => self.edit(code),
            (KeyCode::Char('q'), _) => return Action::Quit,
            (_, Keys::Help) => self.keys = Keys::Navigate,
            (code, Keys::Navigate) => self.choose(code, units),
        }
        Action::Draw
    }

    /// Changes what is shown.
    fn choose(&mut self, code: KeyCode, units: &[&str]) {
        match code {
            KeyCode::Char('?') | KeyCode::F(1) => self.keys = Keys::Help,
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('t') => {
                self.shown = match self.shown {
                    Shown::Rates => Shown::Totals,
                    Shown::Totals => Shown::Rates,
                };
            }
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('<' | ',') => self.sort_by_neighbour(-1),
            KeyCode::Char('>' | '.') => self.sort_by_neighbour(1),
            KeyCode::Char(digit @ '1'..='9') => {
                let columns = Column::value_variants().iter().zip('1'..);
                let mut chosen = columns.filter(|&(_, key)| key == digit);
                self.sort = chosen.next().map_or(self.sort, |(&column, _)| column);
            }
            code => self.navigate(code, units),
        }
    }

    fn edit(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.keys = Keys::Navigate,
            KeyCode::Esc => {
                self.keys = Keys::Navigate;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            // A filter longer than any unit name is useless.
            KeyCode::Char(letter) if self.filter.len() < 255 && !letter.is_control() => {
                self.filter.push(letter);
            }
            _ => {}
        }
    }

    /// Moves between units, and into one and back.
    fn navigate(&mut self, code: KeyCode, units: &[&str]) {
        let (row, last) = (self.row(units), units.len().saturating_sub(1));
        let page = self.page.max(1);
        let in_unit = self.screen == Screen::Unit;
        match code {
            KeyCode::Up | KeyCode::Char('k') => self.select(units, row.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(units, row + 1),
            KeyCode::PageUp if in_unit => self.scroll = self.scroll.saturating_sub(page),
            KeyCode::PageDown if in_unit => self.scroll = self.scroll.saturating_add(page),
            KeyCode::PageUp => self.select(units, row.saturating_sub(page)),
            KeyCode::PageDown => self.select(units, row + page),
            KeyCode::Home | KeyCode::Char('g') => self.select(units, 0),
            KeyCode::End | KeyCode::Char('G') => self.select(units, last),
            KeyCode::Enter | KeyCode::Right | KeyCode::Char('l') if !units.is_empty() => {
                self.select(units, row);
                self.screen = Screen::Unit;
            }
            KeyCode::Esc if !in_unit => self.filter.clear(),
            KeyCode::Esc | KeyCode::Left | KeyCode::Char('h') => self.screen = Screen::Units,
            KeyCode::Char('/') => {
                self.screen = Screen::Units;
                self.keys = Keys::Filter;
            }
            _ => {}
        }
    }

    /// Returns the row of the selected unit, or the first if it is not among these.
    pub(super) fn row(&self, units: &[&str]) -> usize {
        let selected = self.selected.as_deref();
        let row = units.iter().position(|unit| Some(*unit) == selected);
        row.unwrap_or(0)
    }

    fn select(&mut self, units: &[&str], row: usize) {
        let row = row.min(units.len().saturating_sub(1));
        if let Some(unit) = units.get(row) {
            self.selected = Some((*unit).to_owned());
            self.scroll = 0;
        }
    }

    fn sort_by_neighbour(&mut self, step: isize) {
        let columns = Column::value_variants();
        let next = (self.sort as usize).checked_add_signed(step);
        let next = next.unwrap_or(columns.len() - 1) % columns.len();
        self.sort = columns[next];
    }
}

/// The keys and their effects, for the help.
pub(super) const KEYS: &[(&str, &str)] = &[
    ("q, Ctrl-C", "quit"),
    ("Up Down k j", "select the previous or next unit"),
    ("PgUp PgDn", "move by a page; in a unit, scroll"),
    ("Home End g G", "select the first or last unit"),
    ("Enter Right l", "open the unit"),
    ("Esc Left h", "go back; Esc also clears the filter"),
    ("/", "show only units whose names contain..."),
    ("1 to 9, < >", "sort by another column"),
    ("r", "reverse the order"),
    ("t", "show rates, or totals since the start"),
    ("space", "pause, or continue"),
    ("Ctrl-Z", "suspend, until fg"),
];
