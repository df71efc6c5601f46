//! What was measured, for people.

/// One line of a table: what is measured, once in each round.
pub(super) struct Series {
    pub(super) what: String,
    pub(super) decimals: usize,
    pub(super) values: Vec<f64>,
}

/// Prints a Markdown table with the median of each line, and between what the middle half of its
/// values lies.
pub(super) fn print_spread(table: &[Series]) {
    let rows = table.iter().map(|series| {
        let spread = spread(&series.values).map(|value| format!("{value:.*}", series.decimals));
        [vec![series.what.clone()], spread.to_vec()].concat()
    });
    print(
        &["", "median", "lower quarter", "upper quarter"],
        &rows.collect::<Vec<_>>(),
    );
}

/// Prints a Markdown table. The first column is text, the others are numbers.
pub(super) fn print(head: &[&str], rows: &[Vec<String>]) {
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let lines = || [&head].into_iter().chain(rows);
    let width = |column: usize| lines().map(|line| line[column].chars().count()).max();
    let widths: Vec<_> = (0..head.len())
        .map(|column| width(column).unwrap_or(0).max(4))
        .collect();
    for (number, line) in lines().enumerate() {
        print_line(line, &widths);
        if number == 0 {
            let dashes = widths.iter().enumerate().map(|(column, &width)| {
                let (length, end) = if column == 0 {
                    (width, "")
                } else {
                    (width - 1, ":")
                };
                "-".repeat(length) + end
            });
            print_line(&dashes.collect::<Vec<_>>(), &widths);
        }
    }
}

fn print_line(line: &[String], widths: &[usize]) {
    for (column, (cell, &width)) in line.iter().zip(widths).enumerate() {
        if column == 0 {
            print!("| {cell:width$} |");
        } else {
            print!(" {cell:>width$} |");
        }
    }
    println!();
}

/// The median, and the quarters; of an even number of values the upper of two.
pub(super) fn spread(values: &[f64]) -> [f64; 3] {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_sorts() {
        let spread = |values: &[f64]| <(f64, f64, f64)>::from(spread(values));
        assert_eq!(spread(&[3.0, 1.0, 2.0, 5.0, 4.0]), (3.0, 2.0, 4.0));
        assert_eq!(spread(&[5.0]), (5.0, 5.0, 5.0));
        assert!(spread(&[]).0.is_nan());
    }
}
