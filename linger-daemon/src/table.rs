//! Tables for people: cells aligned in columns, two blanks apart.

use std::iter::repeat;

/// The side to which a column's cells are aligned, and the column's least width in characters.
#[derive(Clone, Copy)]
pub(crate) enum Column {
    /// Words.
    Left(usize),
    /// Numbers.
    Right(usize),
}

impl Column {
    /// This column, wide enough for a cell.
    fn widened(self, cell: &str) -> Self {
        let width = cell.chars().count();
        match self {
            Self::Left(least) => Self::Left(least.max(width)),
            Self::Right(least) => Self::Right(least.max(width)),
        }
    }

    fn align(self, cell: &str) -> String {
        match self {
            Self::Left(width) => format!("{cell:<width$}"),
            Self::Right(width) => format!("{cell:>width$}"),
        }
    }
}

/// Aligns the cells of one row. Cells beyond the last column stay as they are.
pub(crate) fn row(columns: &[Column], cells: &[impl AsRef<str>]) -> String {
    let columns = columns.iter().copied().chain(repeat(Column::Left(0)));
    let cells = cells.iter().zip(columns);
    let cells = cells.map(|(cell, column)| column.align(cell.as_ref()));
    let row = cells.collect::<Vec<_>>().join("  ");
    row.trim_end().to_owned()
}

/// Lines of rows whose columns are as wide as their widest cell.
pub(crate) fn table(columns: &[Column], rows: &[impl AsRef<[String]>]) -> String {
    let mut columns = columns.to_vec();
    for row in rows {
        for (column, cell) in columns.iter_mut().zip(row.as_ref()) {
            *column = column.widened(cell);
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
    fn rows_align_what_has_a_column_and_end_without_blanks() {
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
