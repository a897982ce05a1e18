//! Mistakes in a configuration and their places.

use std::{fmt, ops::Range};

/// All mistakes of one file; prints as one line each, `file:line:column: what is wrong and what would be right`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    pub file: String,
    /// At least one, in the order of the file.
    pub problems: Vec<Problem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    pub message: String,
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { line, column, message }) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{line}:{column}: {message}", self.file)?;
        }
        Ok(())
    }
}

/// Where mistakes are gathered while reading goes on.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<(Range<usize>, String)>,
    /// Every key that was asked for.
    pub(super) keys: Vec<String>,
}

impl Problems {
    /// Notes a mistake at the bytes `span`. Returns `None`, so that a reader can end with it.
    pub(super) fn add<T>(&mut self, span: Range<usize>, message: impl Into<String>) -> Option<T> {
        self.found.push((span, message.into()));
        None
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn into_errors(mut self, file: &str, text: &str) -> ConfigErrors {
        self.found.sort_by_key(|(span, _)| span.start);
        self.found.dedup();
        let place = |(span, message): (Range<usize>, String)| {
            let before = text.get(..span.start).unwrap_or(text);
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            Problem {
                line: before.matches('\n').count() + 1,
                column: before[line_start..].chars().count() + 1,
                message,
            }
        };
        ConfigErrors { file: file.into(), problems: self.found.into_iter().map(place).collect() }
    }
}
