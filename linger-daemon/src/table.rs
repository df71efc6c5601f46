//! Tables for terminals: cells aligned in columns, two spaces apart.

use std::iter::repeat;

/// Alignment of a column's cells, and the minimum width of the column in characters.
#[derive(Clone, Copy)]
pub(crate) enum Column {
    /// For text.
    Left(usize),
    /// For numbers.
    Right(usize),
}

impl Column {
    fn align(self, cell: &str) -> String {
        match self {
            Self::Left(width) => format!("{cell:<width$}"),
            Self::Right(width) => format!("{cell:>width$}"),
        }
    }
}

/// Formats one row without trailing spaces. Cells beyond the last column are not aligned.
pub(crate) fn row(columns: &[Column], cells: &[impl AsRef<str>]) -> String {
    let columns = columns.iter().copied().chain(repeat(Column::Left(0)));
    let cells = cells.iter().zip(columns);
    let cells = cells.map(|(cell, column)| column.align(cell.as_ref()));
    let row = cells.collect::<Vec<_>>().join("  ");
    row.trim_end().to_owned()
}

/// Formats rows as lines, with each column at least as wide as its widest cell.
pub(crate) fn table(columns: &[Column], rows: &[impl AsRef<[String]>]) -> String {
    let mut columns = columns.to_vec();
    for row in rows {
        for (column, cell) in columns.iter_mut().zip(row.as_ref()) {
            let (Column::Left(width) | Column::Right(width)) = column;
            *width = cell.chars().count().max(*width);
        }
    }
    let lines = rows
        .iter()
        .map(|cells| row(&columns, cells.as_ref()) + "\n");
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_aligned_by_their_columns_without_trailing_spaces() {
        let columns = [Column::Left(4), Column::Right(3)];
        assert_eq!(row(&columns, &["a", "1", "rest"]), "a       1  rest");
        assert_eq!(row(&columns, &["wider", "1234"]), "wider  1234");
        assert_eq!(row(&columns, &["a", ""]), "a");
    }

    #[test]
    fn columns_of_a_table_fit_their_widest_cell() {
        let rows = [["größe", "n"], ["b", "100"]].map(|row| row.map(str::to_owned));
        let columns = [Column::Left(0), Column::Right(0)];
        assert_eq!(table(&columns, &rows), "größe    n\nb      100\n");
    }
}
