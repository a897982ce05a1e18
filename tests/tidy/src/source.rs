//! A source file as the rules see it: without comments and texts, with grouped imports written out, and with its tests
//! told from what is shipped.

/// Which part of the sources a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    All,
    /// Not tests, examples and benchmarks.
    Shipped,
}

/// A name that shipped code gives to a type, function or module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declaration<'a> {
    /// Counted from 1.
    pub line: usize,
    /// `struct`, `enum`, `trait`, `type`, `union`, `fn` or `mod`.
    pub keyword: &'a str,
    pub name: &'a str,
    /// `pub`, and not `pub(crate)` or the like.
    pub is_public: bool,
}

const DECLARING: &[&str] = &["struct", "enum", "trait", "type", "union", "fn", "mod"];

/// A Rust source file.
#[derive(Clone, Debug)]
pub struct Source {
    /// From the root of the repository, with `/`.
    pub path: String,
    /// The text with every comment and every character of a literal replaced by a space; lines stay where they were.
    pub code: String,
    shipped: String,
}

impl Source {
    #[must_use]
    pub fn new(path: &str, text: &str) -> Self {
        let code = blank_comments_and_literals(text);
        let shipped = if is_test_file(path) { String::new() } else { blank_test_items(&code) };
        Self { path: path.to_owned(), code, shipped }
    }

    #[must_use]
    pub fn lines(&self) -> usize {
        self.code.lines().count()
    }

    /// Whether there is nothing but comments and an empty `main`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let code: String = self.code.split_whitespace().collect();
        code.is_empty() || code == "fnmain(){}"
    }

    /// Places (`path:line`), each once, where one of `patterns` occurs: a word, or words joined by `::`; a trailing `*`
    /// stands for the rest of a word. Imports count as if each were written out.
    pub fn lines_with(&self, part: Part, patterns: &[&str]) -> impl Iterator<Item = String> {
        let code = match part {
            Part::All => &self.code,
            Part::Shipped => &self.shipped,
        };
        let mut lines: Vec<usize> = code
            .lines()
            .enumerate()
            .filter(|(_, line)| patterns.iter().any(|pattern| contains(line, pattern)))
            .map(|(index, _)| index + 1)
            .collect();
        let imports = imports(code).into_iter();
        lines.extend(imports.filter(|(_, path)| patterns.iter().any(|p| contains(path, p))).map(|(line, _)| line));
        lines.sort_unstable();
        lines.dedup();
        let path = self.path.clone();
        lines.into_iter().map(move |line| format!("{path}:{line}"))
    }

    /// The types, functions and modules that shipped code declares; associated types are left out.
    pub fn declarations(&self) -> impl Iterator<Item = Declaration<'_>> {
        self.shipped.lines().enumerate().filter_map(|(index, line)| declaration(line, index + 1))
    }
}

/// The declaration on a line, if there is one; formatted code has at most one.
fn declaration(text: &str, line: usize) -> Option<Declaration<'_>> {
    let mut words = text.split_whitespace().peekable();
    let visibility = words.next_if(|word| *word == "pub" || word.starts_with("pub("));
    let keyword = words.find(|word| !matches!(*word, "const" | "async" | "unsafe" | "extern"))?;
    let rest = words.next().filter(|_| DECLARING.contains(&keyword))?;
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())?;
    let is_associated = keyword == "type" && text.starts_with(' ');
    (!is_associated).then_some(Declaration { line, keyword, name, is_public: visibility == Some("pub") })
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs")
        || ["/tests/", "/examples/", "/benches/"].iter().any(|folder| path.contains(folder) && !path.contains("/src/"))
        || path.contains("/src/") && path.rsplit_once("/src/").is_some_and(|(_, inner)| inner.contains("tests/"))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn contains(text: &str, pattern: &str) -> bool {
    let (stem, open_end) = pattern.strip_suffix('*').map_or((pattern, false), |stem| (stem, true));
    text.match_indices(stem).any(|(at, _)| {
        let before = text.as_bytes()[..at].last();
        let after = text.as_bytes().get(at + stem.len());
        !before.is_some_and(|byte| is_word(*byte)) && (open_end || !after.is_some_and(|byte| is_word(*byte)))
    })
}

/// Replaces what is no code by spaces.
fn blank_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let previous_is_word = at > 0 && is_word(bytes[at - 1]);
        let length = if rest.starts_with(b"//") {
            rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest).filter(|_| !previous_is_word) {
            length
        } else if rest[0] == b'"' {
            quoted(rest, b'"')
        } else if rest[0] == b'\'' {
            character(rest)
        } else {
            at += 1;
            continue;
        };
        for byte in &mut code[at..at + length] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length.max(1);
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// Length of a block comment; they nest.
fn block_comment(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Length of `r"…"`, `r#"…"#`, `br"…"`, `cr"…"`, if `text` begins with one.
fn raw_string(text: &[u8]) -> Option<usize> {
    let prefix = if text.starts_with(b"br") || text.starts_with(b"cr") { 2 } else { 1 };
    if text.get(prefix - 1) != Some(&b'r') {
        return None;
    }
    let hashes = text[prefix..].iter().take_while(|byte| **byte == b'#').count();
    let open = prefix + hashes;
    if text.get(open) != Some(&b'"') {
        return None;
    }
    let end = [&b"\""[..], &vec![b'#'; hashes]].concat();
    let length = text[open + 1..].windows(end.len()).position(|window| window == end);
    Some(length.map_or(text.len(), |length| open + 1 + length + end.len()))
}

/// Length of a literal that ends with the quote it begins with.
fn quoted(text: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != quote {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// Length of a character literal; 1 for the quote of a lifetime or label.
fn character(text: &[u8]) -> usize {
    match text.get(1) {
        Some(b'\\') => quoted(text, b'\''),
        // One character, of up to four bytes in UTF-8.
        Some(first) => {
            let width = match first {
                0xf0.. => 4,
                0xe0.. => 3,
                0xc0.. => 2,
                _ => 1,
            };
            if text.get(1 + width) == Some(&b'\'') { width + 2 } else { 1 }
        }
        None => 1,
    }
}

/// Replaces every item under `#[cfg(test)]` by spaces.
fn blank_test_items(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut bytes = code.as_bytes().to_vec();
    for (start, _) in code.match_indices(MARK) {
        let mut depth = 0usize;
        let end = code.as_bytes()[start + MARK.len()..].iter().position(|byte| {
            match byte {
                b'{' | b'[' | b'(' => depth += 1,
                b'}' | b']' | b')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && matches!(byte, b'}' | b';')
        });
        let end = end.map_or(bytes.len(), |length| start + MARK.len() + length + 1);
        for byte in bytes[start..end].iter_mut().filter(|byte| **byte != b'\n') {
            *byte = b' ';
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Every imported path with the line its `use` stands on, groups written out: `use std::{fs, net::*}` is `std::fs` and
/// `std::net::*`.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let before = code.as_bytes()[..at].last();
        if before.is_some_and(|byte| is_word(*byte)) {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let tree: String = code[at + 4..].chars().take_while(|c| *c != ';').filter(|c| !c.is_whitespace()).collect();
        let mut paths = Vec::new();
        write_out("", &tree, &mut paths);
        found.extend(paths.into_iter().map(|path| (line, path)));
    }
    found
}

fn write_out(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let Some((head, group)) = tree.split_once('{') else {
        paths.push(format!("{prefix}{tree}"));
        return;
    };
    let prefix = format!("{prefix}{head}");
    let (mut depth, mut branch) = (0usize, String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                write_out(&prefix, &std::mem::take(&mut branch), paths);
                continue;
            }
            _ => {}
        }
        branch.push(c);
    }
    if !branch.is_empty() {
        write_out(&prefix, &branch, paths);
    }
}

#[cfg(test)]
mod tests;
