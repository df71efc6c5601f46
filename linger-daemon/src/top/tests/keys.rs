//! Keys, and how they change what is shown.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::top::column::{Column, Shown};
use crate::top::state::{Action, Keys, Screen, ViewState};

const UNITS: &[&str] = &["a", "b", "c", "d", "e"];

/// Presses keys, separated by spaces: letters, `^` with a letter for Ctrl, and the names of others.
fn press(state: &mut ViewState, keys: &str) -> Action {
    let mut action = Action::Draw;
    for key in keys.split_terminator(' ') {
        let (code, modifiers) = match key.chars().collect::<Vec<_>>()[..] {
            [letter] => (KeyCode::Char(letter), KeyModifiers::NONE),
            ['^', letter] => (KeyCode::Char(letter), KeyModifiers::CONTROL),
            _ => (named(key), KeyModifiers::NONE),
        };
        action = state.key(KeyEvent::new(code, modifiers), UNITS);
    }
    action
}

fn named(key: &str) -> KeyCode {
    match key {
        "Space" => KeyCode::Char(' '),
        "Up" => KeyCode::Up,
        "Down" => KeyCode::Down,
        "Left" => KeyCode::Left,
        "Right" => KeyCode::Right,
        "Home" => KeyCode::Home,
        "End" => KeyCode::End,
        "PageUp" => KeyCode::PageUp,
        "PageDown" => KeyCode::PageDown,
        "Enter" => KeyCode::Enter,
        "Esc" => KeyCode::Esc,
        "Backspace" => KeyCode::Backspace,
        _ => panic!("no key {key}"),
    }
}

fn state() -> ViewState {
    ViewState::new(Column::Aborts)
}

#[test]
fn keys_quit_and_suspend() {
    for (keys, expected) in [
        ("q", Action::Quit),
        ("l q", Action::Quit),
        ("? q", Action::Quit),
        ("/ q", Action::Draw),
        ("^c", Action::Quit),
        ("? ^c", Action::Quit),
        ("/ q ^c", Action::Quit),
        ("^z", Action::Suspend),
    ] {
        assert_eq!(press(&mut state(), keys), expected, "{keys}");
    }
}

#[test]
fn arrows_and_letters_walk_and_stay_within_the_units() {
    let mut state = state();
    state.page = 3;
    for (keys, expected) in [
        ("Up", 0),
        ("Down j", 2),
        ("k", 1),
        ("End Down", 4),
        ("g", 0),
        ("G", 4),
        ("Home", 0),
        ("PageDown", 3),
        ("PageDown", 4),
        ("PageUp", 1),
    ] {
        press(&mut state, keys);
        assert_eq!(state.row(UNITS), expected, "{keys}");
    }
    // The selection follows its unit when rows move.
    assert_eq!(state.row(&["e", "d", "c", "b", "a"]), 3);
    assert_eq!(state.row(&["x", "y"]), 0, "it is gone");
}

#[test]
fn a_unit_is_entered_and_left() {
    for (enter, leave) in [("Enter", "Esc"), ("Right", "Left"), ("l", "h")] {
        let mut state = state();
        press(&mut state, "Down");
        press(&mut state, enter);
        assert_eq!(state.screen, Screen::Unit);
        assert_eq!(state.selected.as_deref(), Some("b"));
        press(&mut state, "PageDown");
        assert_eq!((state.row(UNITS), state.scroll), (1, 1));
        press(&mut state, "Down");
        assert_eq!((state.row(UNITS), state.scroll), (2, 0), "the next unit");
        press(&mut state, leave);
        assert_eq!((state.screen, state.row(UNITS)), (Screen::Units, 2));
    }
    let mut state = state();
    state.key(KeyEvent::from(KeyCode::Enter), &[]);
    assert_eq!(state.screen, Screen::Units, "there is none to enter");
}

#[test]
fn digits_and_angles_choose_the_column() {
    let mut state = state();
    for (keys, expected) in [
        ("1", Column::Unit),
        ("4", Column::Discarded),
        ("9", Column::Resets),
        (">", Column::Unit),
        ("< <", Column::Unread),
        ("0", Column::Unread),
    ] {
        press(&mut state, keys);
        assert_eq!(state.sort, expected, "{keys}");
    }
}

#[test]
fn the_filter_is_written_kept_and_dropped() {
    let mut state = state();
    for (keys, filter, meaning) in [
        ("/ q j Space x", "qj x", Keys::Filter),
        ("Backspace Enter", "qj ", Keys::Navigate),
        ("Esc", "", Keys::Navigate),
        ("/ a b c ^u d", "d", Keys::Filter),
        ("Esc", "", Keys::Navigate),
    ] {
        press(&mut state, keys);
        assert_eq!((state.filter.as_str(), state.keys), (filter, meaning));
    }
}

#[test]
fn help_pause_totals_and_order_are_toggled() {
    let mut state = state();
    press(&mut state, "?");
    assert_eq!(state.keys, Keys::Help);
    press(&mut state, "Space");
    let left = (state.keys, state.paused);
    assert_eq!(left, (Keys::Navigate, false), "the key ends the help only");
    for (is_set, shown) in [(true, Shown::Totals), (false, Shown::Rates)] {
        press(&mut state, "Space t r");
        let toggled = (state.paused, state.reverse, state.shown);
        assert_eq!(toggled, (is_set, is_set, shown));
    }
}
