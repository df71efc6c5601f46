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
            unicode: is_utf8(&LOCALE.map(|name| env::var(name).unwrap_or_default())),
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

/// The environment variables of the locale: the first that is set counts.
const LOCALE: [&str; 3] = ["LC_ALL", "LC_CTYPE", "LANG"];

/// Returns whether the locale given by these values uses UTF-8.
fn is_utf8(values: &[String; 3]) -> bool {
    let mut set = values.iter().filter(|value| !value.is_empty());
    set.next().is_some_and(|locale| {
        let locale = locale.to_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// The characters beyond ASCII that the view uses, and below each the one to show instead.
const UNICODE: &str = "▁▂▃▄▅▆▇█▶▼▲…·µ";
const REPLACEMENTS: &str = "_.:-=+*#>v^~|u";

/// Returns the ASCII replacement of a character.
fn ascii(letter: char) -> char {
    if letter.is_ascii() {
        return letter;
    }
    let mut pairs = UNICODE.chars().zip(REPLACEMENTS.chars());
    let pair = pairs.find(|(unicode, _)| *unicode == letter);
    pair.map_or('?', |(_, replacement)| replacement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_of_the_locale_counts() {
        for (values, expected) in [
            (["", "", "en_GB.UTF-8"], true),
            (["", "C.utf8", ""], true),
            (["C", "", "en_GB.UTF-8"], false),
            (["", "", ""], false),
        ] {
            assert_eq!(is_utf8(&values.map(str::to_owned)), expected, "{values:?}");
        }
    }
}
