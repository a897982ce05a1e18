//! Columns of text, as wide as they must be. The last one, where sentences stand, goes on in further lines when the terminal is too
//! narrow for it.

use std::io::IsTerminal;

/// The narrowest last column.
const NARROW: usize = 24;

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
        self.print_within(out, width());
    }

    /// In lines of at most `width` characters if the columns before the last one leave room; `None`: of any length.
    fn print_within(&self, out: &mut String, limit: Option<usize>) {
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
            let before: usize =
                widths[..widths.len() - 1].iter().map(|width| width + 2).sum::<usize>() + self.indent.len();
            let room = limit.map_or(usize::MAX, |limit| limit.saturating_sub(before).max(NARROW));
            if self.sides.last() != Some(&Side::Left) {
                out.push_str(line.trim_end());
                out.push('\n');
                continue;
            }
            for (index, part) in wrapped(line.trim_end(), before, room).iter().enumerate() {
                if index > 0 {
                    out.push_str(&" ".repeat(before));
                }
                out.push_str(part);
                out.push('\n');
            }
        }
    }
}

/// The width of the terminal, as the shell or the terminal says it; `None`: this is no terminal.
fn width() -> Option<usize> {
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|columns| *columns > 0);
    told.or_else(|| {
        let (terminal_size::Width(columns), _) =
            terminal_size::terminal_size().filter(|_| std::io::stdout().is_terminal())?;
        Some(usize::from(columns))
    })
}

/// The line in parts: what stands after `before` characters is divided between words, so that each part of it has at most `room`.
fn wrapped(line: &str, before: usize, room: usize) -> Vec<String> {
    let Some((begin, _)) = line.char_indices().nth(before) else { return vec![line.to_owned()] };
    let (head, sentence) = line.split_at(begin);
    if sentence.chars().count() <= room {
        return vec![line.to_owned()];
    }
    let (mut parts, mut part) = (Vec::new(), head.to_owned());
    let mut length = 0;
    for word in sentence.split(' ') {
        let word_length = word.chars().count();
        if length > 0 && length + 1 + word_length > room {
            parts.push(std::mem::take(&mut part));
            length = 0;
        }
        if length > 0 {
            part.push(' ');
            length += 1;
        }
        part.push_str(word);
        length += word_length;
    }
    parts.push(part);
    parts
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
    fn a_sentence_in_the_last_column_goes_on_below_itself_where_the_terminal_is_narrow() {
        let mut table = Table::new("  ", &[("name", Side::Left), ("why", Side::Left)]);
        table.row(["10.0.0.31".into(), "its check \"web\" fails: status 503".into()]);
        let within = |limit| {
            let mut out = String::new();
            table.print_within(&mut out, limit);
            out
        };
        let long = "  name       why\n  10.0.0.31  its check \"web\" fails: status 503\n";
        assert_eq!((within(None), within(Some(80))), (long.into(), long.into()));
        let narrow = "  name       why\n  10.0.0.31  its check \"web\" fails:\n             status 503\n";
        assert_eq!((within(Some(40)), within(Some(1))), (narrow.into(), narrow.into()));
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let texts = [0, 7, 999, 1_000, 65_537, 1_000_000].map(grouped);
        assert_eq!(texts, ["0", "7", "999", "1,000", "65,537", "1,000,000"]);
    }
}
