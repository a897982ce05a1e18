//! What each counter means and what to do about it. docs/counters.md is the one source: its tables are read here.

use std::fmt::Write;

const PAGE: &str = include_str!("../../../docs/counters.md");

/// A counter's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    pub counts: String,
    /// Empty: nothing.
    pub remedy: String,
}

/// The row of the counter with this name.
#[must_use]
pub fn meaning_of(counter: &str) -> Option<Meaning> {
    let mut before = String::new();
    for line in PAGE.lines() {
        let Some(row) = line.strip_prefix("| `") else { continue };
        let Some((name, rest)) = row.split_once("` |") else { continue };
        let mut cells = rest.trim_end_matches('|').split(" | ").map(plain);
        let counts = cells.next().unwrap_or_default();
        let mut remedy = cells.next().unwrap_or_default();
        // A row may point to the one above it or to another counter.
        if remedy == "as above" {
            remedy.clone_from(&before);
        }
        if name == counter {
            return Some(match remedy.strip_prefix("as ").filter(|other| other.contains('.') && *other != name) {
                Some(other) => Meaning { counts, remedy: own_remedy(other).unwrap_or_default() },
                None => Meaning { counts, remedy },
            });
        }
        before = remedy;
    }
    None
}

/// What stands in the row of this counter itself: a row that others point to points to none.
fn own_remedy(counter: &str) -> Option<String> {
    let start = format!("| `{counter}` |");
    let row = PAGE.lines().find_map(|line| line.strip_prefix(&start))?;
    row.trim_end_matches('|').split(" | ").nth(1).map(plain)
}

/// Markdown as plain text: no code marks, and a link's text with its page.
fn plain(cell: &str) -> String {
    let mut text = String::new();
    let mut rest = cell.trim();
    while let Some((before, after)) = rest.split_once('[') {
        let Some((label, end)) = after.split_once("](").and_then(|(label, end)| Some((label, end.split_once(')')?)))
        else {
            break;
        };
        let _ = write!(text, "{before}docs/{label}");
        rest = end.1;
    }
    text.push_str(rest);
    text.replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_as_plain_text() {
        let expected = Meaning {
            counts: "new connections of a service of which no candidate listens".into(),
            remedy: "start the application; see vipactl distribution".into(),
        };
        assert_eq!(meaning_of("dropped.no-target"), Some(expected));
        assert_eq!(meaning_of("dropped.nothing"), None);
    }

    #[test]
    fn rows_that_point_to_others_have_their_remedy() {
        let remedy = |name: &str| meaning_of(name).unwrap().remedy;
        assert_eq!(remedy("dropped.hold-expired"), remedy("dropped.hold-full"));
        assert_eq!(remedy("dropped.orphan"), remedy("replied.reset"));
        assert_eq!(remedy("replied.unreachable"), remedy("dropped.no-target"));
    }

    #[test]
    fn every_row_of_the_page_is_found_and_none_points_to_one_that_points_on() {
        for line in PAGE.lines().filter_map(|line| line.strip_prefix("| `")) {
            let (name, _) = line.split_once("` |").unwrap();
            let meaning = meaning_of(name).unwrap();
            assert!(!meaning.counts.is_empty() && !meaning.remedy.starts_with("as "), "{name}: {meaning:?}");
        }
    }

    #[test]
    fn links_name_their_page() {
        assert_eq!(plain("see [operations.md](operations.md) and `x`"), "see docs/operations.md and x");
        assert_eq!(plain(" a [b "), "a [b");
    }
}
