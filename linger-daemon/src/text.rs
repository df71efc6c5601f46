//! Formats numbers and names for the terminal: short, and safe to print.

/// Formats a count, or a count per second, in at most six characters: `0`, `0.35`, `1234`, `12.3k`.
pub(crate) fn count(value: f64) -> String {
    if value < 10_000.0 && value.fract() == 0.0 {
        return format!("{value}");
    }
    if value < 1000.0 {
        return digits(value);
    }
    scaled(value, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
}

/// Formats bytes, or bytes per second, in at most seven characters: `1023B`, `1.23MiB`.
pub(crate) fn bytes(value: f64) -> String {
    if value < 1024.0 && value.fract() == 0.0 {
        return format!("{value}B");
    }
    scaled(
        value,
        1024.0,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"],
    )
}

/// Formats a duration in at most seven characters: `350µs`, `12.3ms`, `1.23s`, `12m05s`, `3d04h`.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        ..0.000_999_5 => digits(value * 1e6) + "µs",
        ..0.9995 => digits(value * 1e3) + "ms",
        ..59.95 => digits(value) + "s",
        // Round up to a minute, not to 60.0s.
        _ => long(value.max(60.0)),
    }
}

/// Formats a duration of a minute or more.
fn long(value: f64) -> String {
    let (minutes, hours) = ((value / 60.0).floor(), (value / 3600.0).floor());
    match value {
        ..3600.0 => format!("{minutes}m{:02}s", (value % 60.0).floor()),
        ..86400.0 => format!("{hours}h{:02}m", minutes % 60.0),
        _ => format!("{}d{:02}h", (hours / 24.0).floor(), hours % 24.0),
    }
}

/// Formats a duration or an age in its largest unit: `now`, `12s`, `3m`, `5h`, `9d`.
pub(crate) fn age(seconds: f64) -> String {
    match seconds {
        ..1.0 => "now".to_owned(),
        ..60.0 => format!("{}s", seconds.floor()),
        ..3600.0 => format!("{}m", (seconds / 60.0).floor()),
        ..86400.0 => format!("{}h", (seconds / 3600.0).floor()),
        _ => format!("{}d", (seconds / 86400.0).floor()),
    }
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().unwrap_or(&"");
    // A value that would round up to the next unit is written in that unit.
    while value >= step - 0.5 {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / step, next);
    }
    digits(value) + unit
}

/// Formats a number below 1024 with three digits; one that would round to zero as `<0.01`.
fn digits(value: f64) -> String {
    match value {
        ..=0.0 => "0".to_owned(),
        ..0.01 => "<0.01".to_owned(),
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Escapes the characters of a name that could control the terminal, or change the direction or order of its text.
pub(crate) fn escape_for_terminal(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        if is_harmless(character) {
            text.push(character);
        } else {
            text.extend(character.escape_default());
        }
    }
    text
}

/// Returns whether a character is neither a control nor a format character (direction, joining, tags).
fn is_harmless(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(write: fn(f64) -> String, values: &[f64]) -> String {
        let texts: Vec<_> = values.iter().map(|&value| write(value)).collect();
        texts.join(" ")
    }

    #[test]
    fn counts_take_six_characters() {
        let values = [
            0.0, 0.004, 0.35, 3.5, 12.34, 999.7, 1234.0, 12_345.0, 999_999.0, 1.234e6,
        ];
        let texts = "0 <0.01 0.35 3.50 12.3 1000 1234 12.3k 1.00M 1.23M";
        assert_eq!(all(count, &values), texts);
    }

    #[test]
    fn bytes_take_seven_characters() {
        let values = [
            0.0,
            0.5,
            1023.0,
            1024.0,
            278_312.0,
            1_047_552.0,
            1.3e9,
            1.8e19,
        ];
        let texts = "0B 0.50B 1023B 1.00KiB 272KiB 1023KiB 1.21GiB 15.6EiB";
        assert_eq!(all(bytes, &values), texts);
    }

    #[test]
    fn times_take_seven_characters() {
        let values = [
            0.0, 0.000_35, 0.0123, 0.9996, 1.234, 59.97, 725.0, 19_000.0, 280_000.0,
        ];
        let texts = "0 350µs 12.3ms 1.00s 1.23s 1m00s 12m05s 5h16m 3d05h";
        assert_eq!(all(seconds, &values), texts);
        let ages = [0.2, 59.9, 61.0, 7200.0, 1e6];
        assert_eq!(all(age, &ages), "now 59s 1m 2h 11d");
    }

    #[test]
    fn control_and_format_characters_of_names_are_escaped() {
        for (name, shown) in [
            ("nginx.service", "nginx.service"),
            ("größe/数据", "größe/数据"),
            ("\u{1b}[2J\u{7}x", "\\u{1b}[2J\\u{7}x"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("evil\u{202e}cod", "evil\\u{202e}cod"),
            ("\u{200b}\u{feff}", "\\u{200b}\\u{feff}"),
        ] {
            assert_eq!(escape_for_terminal(name), shown);
        }
    }
}
