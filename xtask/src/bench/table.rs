//! What was measured, for people.

/// One line of the table: what is measured, once for each pair.
pub(super) struct Series {
    pub(super) what: String,
    pub(super) decimals: usize,
    pub(super) values: Vec<f64>,
}

impl Series {
    /// A line without values yet.
    pub(super) fn new(what: impl Into<String>, decimals: usize) -> Self {
        Self {
            what: what.into(),
            decimals,
            values: Vec::new(),
        }
    }
}

/// Prints a Markdown table.
pub(super) fn print(table: &[Series]) {
    let width = table
        .iter()
        .map(|series| series.what.chars().count())
        .max()
        .unwrap_or(0);
    println!("| {:width$} |  median |  lowest | highest |", "");
    println!("| {:-<width$} | ------: | ------: | ------: |", "");
    for series in table {
        let (low, median, high) = spread(&series.values);
        let decimals = series.decimals;
        println!(
            "| {:width$} | {median:7.decimals$} | {low:7.decimals$} | {high:7.decimals$} |",
            series.what
        );
    }
}

/// The lowest, the middle and the highest of some values; of an even number the upper middle.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    (
        at(0),
        at(sorted.len() / 2),
        at(sorted.len().saturating_sub(1)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_sorts() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), (1.0, 2.0, 3.0));
        assert_eq!(spread(&[5.0]), (5.0, 5.0, 5.0));
    }
}
