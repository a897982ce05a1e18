//! Manual pages, for packages: `vipactl` and each of its subcommands, and vipa.toml(5) made of docs/configuration.md, so that
//! the page and the manual say the same.
//!
//! The page uses headings, paragraphs, lists, tables of which each row describes a key, and examples between fences.

use std::{fs, path::Path};

use anyhow::Context;

/// Writes all of them into `folder`.
pub(crate) fn write_all(command: clap::Command, folder: &Path, configuration: &Path) -> anyhow::Result<()> {
    let version = command.get_version().unwrap_or_default().to_owned();
    let pages = clap_mangen::generate_to(command, folder);
    pages.with_context(|| format!("cannot write the manual pages into {}", folder.display()))?;
    let page = fs::read_to_string(configuration);
    let page = page.with_context(|| format!("cannot read {}", configuration.display()))?;
    let path = folder.join("vipa.toml.5");
    fs::write(&path, vipa_toml(&page, &version)).with_context(|| format!("cannot write {}", path.display()))
}

/// The manual page of the configuration file, in roff's man macros.
fn vipa_toml(page: &str, version: &str) -> String {
    let mut out = format!(
        ".TH vipa.toml 5 \"\" \"Vipa {version}\" \"Vipa\"\n.SH NAME\nvipa.toml \\- configuration of vipad and vipa\\-agent\n\
         .SH SYNOPSIS\n/etc/vipa/router.toml\n.br\n/etc/vipa/agent.toml\n.SH DESCRIPTION\n"
    );
    let mut is_example = false;
    for line in page.lines().skip_while(|line| line.is_empty() || line.starts_with("# ")) {
        if line.starts_with("```") {
            is_example = !is_example;
            out += if is_example { ".PP\n.RS 4\n.nf\n" } else { ".fi\n.RE\n" };
        } else if is_example {
            out += &format!("{}\n", literal(line));
        } else if let Some(heading) = line.strip_prefix("### ") {
            out += &format!(".SS {}\n", words(heading));
        } else if let Some(heading) = line.strip_prefix("## ") {
            out += &format!(".SH {}\n", words(heading));
        } else if let Some(row) = line.strip_prefix("| ") {
            out += &key(row);
        } else if let Some(item) = line.strip_prefix("- ") {
            out += &format!(".IP \\(bu 2\n{}\n", words(item));
        } else if line.is_empty() {
            out += ".PP\n";
        } else if !line.starts_with("|-") {
            out += &format!("{}\n", words(line.trim_start()));
        }
    }
    out + ".SH SEE ALSO\n.BR vipad (8),\n.BR vipa\\-agent (8),\n.BR vipactl (1)\n"
}

/// A row of a table: name, default where there is one, meaning. Not the head of the table.
fn key(row: &str) -> String {
    let cells: Vec<_> = row.trim_end().trim_end_matches('|').split(" | ").map(str::trim).collect();
    match &cells[..] {
        ["key" | "counter", ..] | [] => String::new(),
        [name, default, meaning] => {
            let default =
                if *default == "needed" { "needed".to_owned() } else { format!("default: {}", words(default)) };
            format!(".TP\n{} ({default})\n{}\n", words(name), words(meaning))
        }
        [name, meaning @ ..] => format!(".TP\n{}\n{}\n", words(name), words(&meaning.join(" | "))),
    }
}

/// Text with Markdown's code, bold and links.
fn words(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 1 {
            out += &format!("\\fB{}\\fR", escaped(part));
            continue;
        }
        for (index, part) in part.split("**").enumerate() {
            let part = escaped(&without_links(part));
            out += &if index % 2 == 1 { format!("\\fI{part}\\fR") } else { part };
        }
    }
    // A line that begins with one of these would be a request.
    if out.starts_with(['.', '\'']) { format!("\\&{out}") } else { out }
}

/// Keeps what a link says.
fn without_links(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, said, after)) = rest.split_once('[').and_then(|(before, link)| {
        let (said, link) = link.split_once("](")?;
        let (_, after) = link.split_once(')')?;
        Some((before, said, after))
    }) {
        out += before;
        out += said;
        rest = after;
    }
    out + rest
}

fn literal(line: &str) -> String {
    let line = escaped(line);
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('…', "...").replace('→', "to").replace('≤', "<=")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use vipa_model::config::Config;

    use super::*;
    use crate::Arguments;

    fn configuration() -> String {
        vipa_toml(include_str!("../../../docs/configuration.md"), "1.2.3")
    }

    #[test]
    fn the_manual_of_the_configuration_describes_every_key_in_its_section() {
        let page = configuration();
        let sections: Vec<_> = page.split("\n.SH ").collect();
        let section = |name: &str| {
            let headings = [format!("\\fB[{name}]\\fR"), format!("\\fB[[{name}]]\\fR")];
            sections.iter().find(|section| headings.iter().any(|heading| section.starts_with(heading)))
        };
        let keys = Config::keys();
        for key in keys.iter().filter(|key| section(key).is_none()) {
            let (name, key) = key.rsplit_once('.').unwrap_or_else(|| panic!("no section on [{key}]"));
            let section = section(name).unwrap_or_else(|| panic!("no section on [{name}]"));
            assert!(
                section.contains(&format!("\n.TP\n\\fB{key}\\fR (")),
                "vipa.toml(5) does not describe {name}.{key}"
            );
        }
        assert!(keys.len() > 45 && !page.contains("](") && !page.contains("| "), "{page}");
    }

    #[test]
    fn text_cannot_become_a_request_of_roff() {
        assert_eq!(
            words(".so `a-b` and [that](page.md#x) **now** \\"),
            "\\&.so \\fBa\\-b\\fR and that \\fInow\\fR \\e"
        );
        assert_eq!(literal("'quoted"), "\\&'quoted");
    }

    #[test]
    fn every_subcommand_but_the_hidden_one_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let configuration = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
        write_all(Arguments::command(), folder.path(), &configuration).unwrap();
        let pages: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let has = |name: &str| pages.iter().any(|page| page == name);
        for name in ["vipactl.1", "vipactl-status.1", "vipactl-pki-issue.1", "vipactl-vipa-move.1", "vipa.toml.5"] {
            assert!(has(name), "{name}: {pages:?}");
        }
        assert!(!has("vipactl-generate-man.1"), "{pages:?}");
    }
}
