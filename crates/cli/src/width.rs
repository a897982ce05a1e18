//! Sentences in lines no wider than the terminal.

use std::io::IsTerminal;

/// Narrower terminals get lines of this width all the same, columns.
const NARROWEST: usize = 40;
/// Where nobody says how wide the terminal is: a file, or a pipe.
const UNKNOWN: usize = 200;

/// Columns of the terminal: `COLUMNS` if that is a number, else what the terminal says.
pub(crate) fn of_terminal() -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let told = || {
        std::io::stdout()
            .is_terminal()
            .then(ratatui::crossterm::terminal::size)?
            .ok()
            .map(|(columns, _)| columns.into())
    };
    asked.or_else(told).unwrap_or(UNKNOWN).max(NARROWEST)
}

/// A label, and a sentence in lines of at most `width` columns that stand one below the other.
pub(crate) fn labelled(out: &mut String, label: &str, text: &str, width: usize) {
    const INDENT: usize = 12;
    let mut head = format!("{label:<INDENT$}");
    for line in wrap(text, width.saturating_sub(INDENT)) {
        out.push_str(format!("{head}{line}").trim_end());
        out.push('\n');
        head = " ".repeat(INDENT);
    }
}

/// Lines of at most `width` columns, but for words that are longer.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("never empty");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.extend([" ", word]);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_break_between_words() {
        assert_eq!(wrap("a packet of 1,500 bytes", 11), ["a packet of", "1,500 bytes"]);
        assert_eq!(wrap("unbreakable", 4), ["unbreakable"]);
        assert_eq!(wrap("", 4), [""]);
        let mut out = String::new();
        labelled(&mut out, "fate", "dropped because nobody listens", 32);
        assert_eq!(out, "fate        dropped because\n            nobody listens\n");
    }
}
