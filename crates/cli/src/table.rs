//! Columns of text, as wide as they must be.

/// How a column's cells stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// A table with a heading, two spaces between its columns, each line after `indent`.
pub(crate) struct Table {
    indent: &'static str,
    sides: Vec<Side>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(indent: &'static str, columns: &[(&str, Side)]) -> Self {
        let (heading, sides) = columns.iter().map(|(name, side)| ((*name).to_owned(), *side)).unzip();
        Self { indent, sides, rows: vec![heading] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<_> = cells.into_iter().collect();
        debug_assert_eq!(cells.len(), self.sides.len());
        self.rows.push(cells);
    }

    pub(crate) fn print(&self, out: &mut String) {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.sides.len()).map(width).collect();
        for row in &self.rows {
            let mut line = String::from(self.indent);
            for ((cell, side), width) in row.iter().zip(&self.sides).zip(&widths) {
                let padding = " ".repeat(width - cell.chars().count());
                match side {
                    Side::Left => line.extend([cell, &*padding, "  "]),
                    Side::Right => line.extend([&*padding, cell, "  "]),
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new("  ", &[("name", Side::Left), ("count", Side::Right)]);
        table.row(["a-long-name".into(), "7".into()]);
        table.row(["b".into(), grouped(1_234_567)]);
        let mut out = String::new();
        table.print(&mut out);
        assert_eq!(out, "  name             count\n  a-long-name          7\n  b            1,234,567\n");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let texts = [0, 7, 999, 1_000, 65_537, 1_000_000].map(grouped);
        assert_eq!(texts, ["0", "7", "999", "1,000", "65,537", "1,000,000"]);
    }
}
