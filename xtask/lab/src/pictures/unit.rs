//! Formats numbers as Grafana does.

/// Formats a value in its unit; points in time are relative to `now`, seconds since 1970.
pub(super) fn written(value: f64, unit: &str, now: f64) -> String {
    match unit {
        "bytes" => scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB"]),
        "Bps" => scaled(value, 1000.0, &["B/s", "kB/s", "MB/s", "GB/s"]),
        "cps" => scaled(value, 1000.0, &["c/s", "Kc/s", "Mc/s"]),
        "pps" => scaled(value, 1000.0, &["p/s", "Kp/s", "Mp/s"]),
        "percentunit" => format!("{}%", digits(value * 100.0)),
        "s" => seconds(value),
        "bool_on_off" => choice(value, "On", "Off"),
        "bool_yes_no" => choice(value, "Yes", "No"),
        "dateTimeFromNow" => format!("{} ago", seconds(now - value / 1000.0)),
        _ => scaled(value, 1000.0, &["", "K", "Mil", "Bil"]),
    }
}

fn choice(value: f64, yes: &str, no: &str) -> String {
    if value == 0.0 { no } else { yes }.to_owned()
}

fn seconds(value: f64) -> String {
    let (factor, name) = match value.abs() {
        0.0 => (1.0, "s"),
        small if small < 1e-3 => (1e6, "µs"),
        small if small < 1.0 => (1e3, "ms"),
        large if large < 120.0 => (1.0, "s"),
        large if large < 7200.0 => (1.0 / 60.0, "min"),
        large if large < 172_800.0 => (1.0 / 3600.0, "h"),
        _ => (1.0 / 86_400.0, "days"),
    };
    format!("{} {name}", digits(value * factor))
}

fn scaled(mut value: f64, step: f64, names: &[&str]) -> String {
    let mut power = 0;
    while value.abs() >= step && power + 1 < names.len() {
        value /= step;
        power += 1;
    }
    format!("{} {}", digits(value), names[power])
        .trim_end()
        .to_owned()
}

/// Formats a number with up to three significant digits, without trailing zeros.
fn digits(value: f64) -> String {
    let steps = [100.0, 10.0, 1.0, 0.1, 0.01, 0.001];
    let decimals = steps.iter().position(|step| value.abs() >= *step);
    let decimals = decimals.unwrap_or(if value == 0.0 { 0 } else { steps.len() });
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[test]
fn numbers_are_short_and_have_their_unit() {
    let written = |value, unit| written(value, unit, 1000.0);
    assert_eq!(written(0.0, "short"), "0");
    assert_eq!(written(0.004_51, "short"), "0.00451");
    assert_eq!(written(1234.0, "short"), "1.23 K");
    assert_eq!(written(2048.0, "bytes"), "2 KiB");
    assert_eq!(written(123_456.0, "Bps"), "123 kB/s");
    assert_eq!(written(0.0421, "percentunit"), "4.21%");
    assert_eq!(written(0.000_25, "s"), "250 µs");
    assert_eq!(written(1.0, "bool_on_off"), "On");
    assert_eq!(written(880_000.0, "dateTimeFromNow"), "2 min ago");
}
