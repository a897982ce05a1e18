//! The pages at the root of the repository name files; every file that they name exists.

use crate::{Complaints, House};

/// A page of documentation.
#[derive(Clone, Debug)]
pub struct Page {
    /// From the root of the repository.
    pub name: String,
    pub text: String,
}

/// Every file that a page links to, or names as `room/src/file.rs`, exists. Paths start at the root or in `crates/`.
#[must_use]
pub fn named_files_exist(house: &House) -> Complaints {
    let mut complaints = Vec::new();
    for Page { name, text } in &house.pages {
        for path in links(text).chain(source_files(text)) {
            let exists = |path: &str| house.files.contains(path);
            if !exists(path) && !exists(&format!("crates/{path}")) {
                complaints.push(format!("{name} names {path}, which does not exist"));
            }
        }
    }
    complaints
}

/// Targets of `[text](target)` in this repository, without their anchors.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(link, _)| link)
        .filter(|link| !link.contains("://"))
        .filter_map(|link| link.split('#').next())
        .map(|link| link.trim_end_matches('/'))
        .filter(|link| !link.is_empty())
}

/// Paths of Rust and C files between backticks.
fn source_files(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|word| word.contains('/') && !word.contains(' ') && (word.ends_with(".rs") || word.ends_with(".c")))
}
