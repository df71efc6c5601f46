//! Tables in Markdown, and the statistics in their cells.

/// Formats a table in Markdown. The first column is text, the others are numbers.
pub(crate) fn markdown(head: &[impl AsRef<str>], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|cell| cell.as_ref().to_owned()).collect();
    let lines = || [&head].into_iter().chain(rows);
    let width = |column: usize| lines().map(|line| line[column].chars().count()).max();
    let widths: Vec<_> = (0..head.len())
        .map(|column| width(column).unwrap_or(0).max(4))
        .collect();
    let dashes: Vec<String> = widths
        .iter()
        .enumerate()
        .map(|(column, &width)| match column {
            0 => "-".repeat(width),
            _ => "-".repeat(width - 1) + ":",
        })
        .collect();
    let mut text = String::new();
    for line in [&head, &dashes].into_iter().chain(rows) {
        text += &markdown_line(line, &widths);
    }
    text
}

fn markdown_line(line: &[String], widths: &[usize]) -> String {
    let cells = line.iter().zip(widths).enumerate();
    let cells = cells.map(|(column, (cell, &width))| match column {
        0 => format!(" {cell:width$} |"),
        _ => format!(" {cell:>width$} |"),
    });
    format!("|{}\n", cells.collect::<String>())
}

/// Formats the median and, in brackets, the range of the middle half of the values; empty without values.
pub(crate) fn cell(values: &[f64], decimals: usize) -> String {
    let [median, lower, upper] = spread(values);
    match values {
        [] => String::new(),
        [_] => format!("{median:.decimals$}"),
        _ => format!("{median:.decimals$} ({lower:.decimals$} to {upper:.decimals$})"),
    }
}

/// Formats the median of values; empty without values.
pub(crate) fn median(values: &[f64], decimals: usize) -> String {
    match values {
        [] => String::new(),
        _ => format!("{:.decimals$}", spread(values)[0]),
    }
}

/// Returns the median, and the bounds of the middle half. Of an even number of values, the median is the upper of the
/// two in the middle. NaN without values.
pub(crate) fn spread(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let quarter = sorted.len() / 4;
    [
        at(sorted.len() / 2),
        at(quarter),
        at((sorted.len() - quarter).saturating_sub(1)),
    ]
}

/// Returns a count to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_sorts() {
        let spread = |values: &[f64]| <(f64, f64, f64)>::from(spread(values));
        assert_eq!(spread(&[3.0, 1.0, 2.0, 5.0, 4.0]), (3.0, 2.0, 4.0));
        assert_eq!(spread(&[5.0]), (5.0, 5.0, 5.0));
        assert_eq!(spread(&[2.0, 1.0]), (2.0, 1.0, 2.0));
        assert!(spread(&[]).0.is_nan());
    }

    #[test]
    fn a_table_is_aligned() {
        let rows = [vec!["a".to_owned(), "12345".to_owned()]];
        assert_eq!(
            markdown(&["", "what"], &rows),
            "|      |  what |\n| ---- | ----: |\n| a    | 12345 |\n"
        );
    }

    #[test]
    fn a_cell_shows_the_spread_of_several_values() {
        assert_eq!(cell(&[], 1), "");
        assert_eq!(cell(&[2.0], 1), "2.0");
        assert_eq!(cell(&[3.0, 1.0, 2.0, 5.0, 4.0], 0), "3 (2 to 4)");
    }
}
