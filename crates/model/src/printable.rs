//! Text from other nodes, made fit for a log and a terminal.

/// Stands for what has been cut off.
const CUT: char = '…';

/// The text in one line of at most `limit` bytes that says nothing to a terminal: control characters (also those that begin
/// ANSI escape sequences), line separators and characters that change the direction of writing or are invisible are written as
/// `\u{1b}`. A text that is so already stays as it is.
#[must_use]
pub fn printable(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit));
    for character in text.chars() {
        if is_safe(character) {
            out.push(character);
        } else {
            out.extend(character.escape_unicode());
        }
        if out.len() > limit {
            return cut(out, limit);
        }
    }
    out
}

fn is_safe(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

fn cut(mut text: String, limit: usize) -> String {
    let room = limit.saturating_sub(CUT.len_utf8());
    let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    text.truncate(end);
    if limit >= CUT.len_utf8() {
        text.push(CUT);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_terminal_is_told_nothing_and_a_log_has_one_line() {
        assert_eq!(printable("status 500 from Zürich, \"x\\y\"", 100), "status 500 from Zürich, \"x\\y\"");
        assert_eq!(
            printable("\x1b[2J\x1b]0;mine\x07 all is well\r\nfake line", 100),
            "\\u{1b}[2J\\u{1b}]0;mine\\u{7} all is well\\u{d}\\u{a}fake line"
        );
        assert_eq!(
            printable("a\u{9b}31mb\u{202e}c\u{2028}d\u{200b}", 100),
            "a\\u{9b}31mb\\u{202e}c\\u{2028}d\\u{200b}"
        );
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        assert_eq!(printable("0123456789", 10), "0123456789");
        assert_eq!(printable("0123456789a", 10), "0123456…");
        assert_eq!(printable("üüüüüü", 10), "üüü…");
        assert_eq!(printable("abc", 2), "");
        assert_eq!(printable(&"\u{7}".repeat(1_000_000), 20).len(), 20);
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_short_printable_and_the_same_when_said_again(text in "(?s).{0,60}", limit in 0_usize..200) {
            let said = printable(&text, limit);
            prop_assert!(said.len() <= limit);
            prop_assert!(said.chars().all(is_safe));
            prop_assert_eq!(printable(&said, limit), said);
        }
    }
}
