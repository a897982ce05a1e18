//! Pages of documentation name files and link to each other; everything that they name exists.

use crate::{Complaints, House};

/// A page of documentation.
#[derive(Clone, Debug)]
pub struct Page {
    /// From the root of the repository.
    pub name: String,
    pub text: String,
}

/// Every file that a page links to, or names as `room/src/file.rs`, exists, and so does the heading that a link ends with.
/// Links start at the page's own folder; named sources at the root or in `crates/`.
#[must_use]
pub fn named_files_exist(house: &House) -> Complaints {
    let mut complaints = Vec::new();
    for Page { name, text } in &house.pages {
        for link in links(text) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let path = if path.is_empty() { name.clone() } else { below_folder_of(name, path) };
            if !house.files.contains(&path) {
                complaints.push(format!("{name} names {path}, which does not exist"));
            } else if !heading.is_empty() && !has_heading(house, &path, heading) {
                complaints.push(format!("{name} links to {path}#{heading}, and that page has no such heading"));
            }
        }
        for path in source_files(text) {
            if !house.files.contains(path) && !house.files.contains(&format!("crates/{path}")) {
                complaints.push(format!("{name} names {path}, which does not exist"));
            }
        }
    }
    complaints
}

/// The book's contents name every page in docs/.
#[must_use]
pub fn pages_are_chapters(house: &House) -> Complaints {
    const CONTENTS: &str = "docs/book/SUMMARY.md";
    let Some(contents) = house.pages.iter().find(|page| page.name == CONTENTS) else {
        return vec![format!("{CONTENTS} does not exist")];
    };
    let chapters: Vec<String> = links(&contents.text).map(|link| below_folder_of(CONTENTS, link)).collect();
    let is_forgotten =
        |page: &&Page| page.name.starts_with("docs/") && page.name != CONTENTS && !chapters.contains(&page.name);
    let forgotten = house.pages.iter().filter(is_forgotten);
    forgotten.map(|page| format!("{} is no chapter of the book: add it to {CONTENTS}", page.name)).collect()
}

/// Targets of `[text](target)` in this repository, outside of blocks of code.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let blocks = text.split("\n```").step_by(2);
    blocks
        .flat_map(|prose| prose.split("](").skip(1))
        .filter_map(|rest| rest.split_once(')'))
        .map(|(link, _)| link)
        .filter(|link| !link.contains("://") && !link.is_empty())
}

/// Where a link of a page leads, from the root.
fn below_folder_of(page: &str, link: &str) -> String {
    let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut path: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(path.pop()),
            _ => path.push(part),
        }
    }
    path.join("/")
}

fn has_heading(house: &House, path: &str, heading: &str) -> bool {
    let page = house.pages.iter().find(|page| page.name == path);
    let prose = page.into_iter().flat_map(|page| page.text.split("\n```").step_by(2));
    prose.flat_map(str::lines).filter(|line| line.starts_with('#')).any(|line| anchor(line) == heading)
}

/// What a heading is called in links, by GitHub and by mdbook.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|character| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_'));
    kept.map(|character| if character == ' ' { '-' } else { character }).collect()
}

/// Paths of Rust and C files between backticks.
fn source_files(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|word| word.contains('/') && !word.contains(' ') && (word.ends_with(".rs") || word.ends_with(".c")))
}
