//! Features of the terminal: colors, and characters beyond ASCII.

use std::env;

use ratatui::buffer::Buffer;
use ratatui::style::Color;

/// The features to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) colour: bool,
    pub(super) unicode: bool,
}

impl Features {
    /// Reads the features from the environment: `NO_COLOR` (no-color.org), and the locale.
    pub(super) fn from_environment() -> Self {
        Self {
            colour: !anstyle_query::no_color(),
            unicode: is_utf8(|name| env::var(name).ok()),
        }
    }

    /// Removes from a drawing what the terminal cannot show.
    pub(super) fn apply(self, buffer: &mut Buffer) {
        for cell in &mut buffer.content {
            if !self.colour {
                cell.fg = Color::Reset;
                cell.bg = Color::Reset;
            }
            if !self.unicode && !cell.symbol().is_ascii() {
                let plain = cell.symbol().chars().next().map_or(' ', ascii);
                cell.set_char(plain);
            }
        }
    }

    /// Removes from a line what the terminal cannot show.
    pub(super) fn text(self, line: &str) -> String {
        if self.unicode {
            return line.to_owned();
        }
        line.chars().map(ascii).collect()
    }
}

/// Returns whether the locale uses UTF-8, by the first of its variables that is set.
fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"];
    let mut set = set.iter().filter_map(|name| variable(name));
    set.find(|value| !value.is_empty()).is_some_and(|locale| {
        let locale = locale.to_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// Returns the ASCII replacement of a character.
fn ascii(letter: char) -> char {
    match letter {
        letter if letter.is_ascii() => letter,
        '▁' => '_',
        '▂' => '.',
        '▃' => ':',
        '▄' => '-',
        '▅' => '=',
        '▆' => '+',
        '▇' => '*',
        '█' => '#',
        '▶' => '>',
        '▼' => 'v',
        '▲' => '^',
        '…' => '~',
        '·' => '|',
        'µ' => 'u',
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_of_the_locale_counts() {
        let with = |set: &'static [(&str, &str)]| {
            is_utf8(|name| {
                let found = set.iter().find(|(set, _)| *set == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(with(&[("LANG", "en_GB.UTF-8")]));
        assert!(with(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]));
        assert!(!with(&[("LC_ALL", "C"), ("LANG", "en_GB.UTF-8")]));
        assert!(!with(&[]));
    }
}
