//! Every rule finds what it forbids, and only that.

use super::*;

fn package(room: &str, uses: &[&str], tests_use: &[&str]) -> Package {
    let dependency = |for_tests| move |name: &&str| Dependency { name: (*name).to_owned(), for_tests };
    let dependencies = uses.iter().map(dependency(false)).chain(tests_use.iter().map(dependency(true))).collect();
    Package { room: room.to_owned(), folder: format!("crates/{room}"), dependencies, takes_workspace_lints: true }
}

fn house(room: &str, file: &str, text: &str) -> House {
    let source = Source::new(&format!("crates/{room}/{file}"), text);
    House { packages: vec![package(room, &[], &[])], sources: vec![source], ..House::default() }
}

/// The whole plan, built.
fn whole() -> House {
    House { packages: ROOMS.iter().map(|room| package(room.name, &[], &[])).collect(), ..House::default() }
}

#[test]
fn a_room_outside_the_plan_and_one_that_is_missing_are_named() {
    let mut house = whole();
    house.packages.retain(|package| {
        package.room != "cluster"
            && !matches!(package.room.as_str(), "hostile" | "sim" | "lab" | "perf" | "instructions" | "tidy")
    });
    house.packages.push(package("net-utils", &[], &[]));
    let complaints = rooms_are_planned(&house);
    assert!(complaints.contains(&"net-utils is not in the plan (tests/tidy/src/plan.rs)".to_owned()));
    assert!(complaints.contains(&"net-utils: \"utils\" names no noun, so anything would end up there".to_owned()));
    assert!(complaints.contains(&"cluster is in the plan but not in the house".to_owned()));
    house.packages.push(package("cluster", &[], &[]));
    assert!(rooms_are_planned(&house).contains(&"crates/ has 20 rooms; 19 is the ceiling".to_owned()));
}

#[test]
fn a_package_without_the_workspaces_lints_is_named() {
    let mut package = package("packet", &[], &[]);
    package.takes_workspace_lints = false;
    let complaints = rooms_are_planned(&House { packages: vec![package], ..House::default() });
    assert!(complaints.contains(&"packet: its Cargo.toml lacks `[lints] workspace = true`".to_owned()));
}

#[test]
fn a_forbidden_arrow_is_found_also_in_tests() {
    let used = House { packages: vec![package("dataplane", &["vipa-packet", "vipa-dpdk"], &[])], ..House::default() };
    assert_eq!(arrows_are_allowed(&used), ["dataplane may not use dpdk"]);
    let tested = House { packages: vec![package("packet", &["serde"], &["vipa-model"])], ..House::default() };
    assert_eq!(arrows_are_allowed(&tested), ["the tests of packet may not use model"]);
}

#[test]
fn a_row_of_the_page_that_differs_from_the_plan_is_named() {
    let row = |room: &Room, floor: u8| {
        let uses = if room.may_use.is_empty() { "–".to_owned() } else { room.may_use.join(", ") };
        let kind = room.kind.to_string().replace("a shell", "shell").replace("the door", "door");
        format!("| {floor} | `{}` | {kind} | charter | {uses} |\n", room.name)
    };
    let page: String = ROOMS.iter().map(|room| row(room, room.floor)).collect();
    assert!(page_tells_the_plan(&House { page, ..House::default() }).is_empty());
    let page: String = ROOMS.iter().map(|room| row(room, if room.name == "packet" { 7 } else { room.floor })).collect();
    let complaints = page_tells_the_plan(&House { page, ..House::default() });
    assert_eq!(complaints, ["ARCHITECTURE.md has no row `| 0 | `packet` | pure | … | – |`"]);
}

#[test]
fn a_dependency_that_no_source_names_is_found_once_there_is_code() {
    let moved_in = |text: &str| {
        let mut house = house("control", "src/lib.rs", text);
        house.packages = vec![package("control", &["vipa-flow", "tokio"], &["proptest"])];
        house
    };
    let complaints = dependencies_are_used(&moved_in("use vipa_flow::FlowTable; // tokio"));
    assert_eq!(
        complaints,
        ["control depends on tokio and never names it", "control depends on proptest and never names it"]
    );
    assert!(dependencies_are_used(&moved_in("//! control\n")).is_empty());
}

#[test]
fn unsafe_is_found_outside_guarded_rooms_also_in_tests() {
    for file in ["src/lib.rs", "src/a/tests.rs", "tests/a.rs"] {
        let text = "#![forbid(unsafe_code)]\nfn f() { unsafe { g() } }";
        assert_eq!(
            danger_is_confined(&house("packet", file, text)),
            [format!("crates/packet/{file}:2: `unsafe` in packet")]
        );
        assert!(danger_is_confined(&house("dpdk", file, text)).is_empty());
        assert!(danger_is_confined(&house("agent", file, text)).is_empty());
    }
}

#[test]
fn a_pure_room_that_does_not_forbid_unsafe_is_named() {
    let complaints = danger_is_confined(&house("cluster", "src/lib.rs", "//! #![forbid(unsafe_code)]"));
    assert_eq!(complaints, ["crates/cluster/src/lib.rs: a pure room begins with #![forbid(unsafe_code)]"]);
}

#[test]
fn an_atomic_is_found_however_it_is_imported() {
    for text in ["use std::sync::{Arc, atomic};", "static X: AtomicU64 = f();", "use crossbeam::atomic::*;"] {
        assert_eq!(
            atomics_are_confined(&house("control", "src/a.rs", text)),
            ["crates/control/src/a.rs:1: an atomic in control"]
        );
        assert!(atomics_are_confined(&house("flow", "src/a.rs", text)).is_empty());
    }
}

#[test]
fn a_pure_room_is_held_to_it_but_for_its_tests() {
    for text in [
        "let now = Instant::now();",
        "use std::{fmt, net::UdpSocket};",
        "async fn f() {}",
        "tokio::spawn(f)",
        "use std::{fs};",
    ] {
        let complaints = pure_rooms_are_pure(&house("cluster", "src/a.rs", text));
        assert_eq!(complaints, ["crates/cluster/src/a.rs:1: not in cluster, which is pure"], "{text}");
        assert!(pure_rooms_are_pure(&house("cluster", "src/a/tests.rs", text)).is_empty());
        assert!(pure_rooms_are_pure(&house("control", "src/a.rs", text)).is_empty());
    }
    let depends = House { packages: vec![package("model", &["libc"], &["rand"])], ..House::default() };
    assert_eq!(pure_rooms_are_pure(&depends), ["model may not depend on libc"]);
}

#[test]
fn a_lock_or_a_log_line_where_packets_are_is_found() {
    for text in ["use std::sync::{Arc, Mutex};", "tracing::info!(x);", "log::warn!(x);"] {
        assert_eq!(workers_do_not_wait(&house("dataplane", "src/a.rs", text)).len(), 1, "{text}");
        assert!(workers_do_not_wait(&house("control", "src/a.rs", text)).is_empty());
    }
}

#[test]
fn a_rename_that_may_come_before_its_text_is_found() {
    let complaints = |file: &str| replaced_files_are_durable(&house("transport", file, "fn f() { fs::rename(a, b) }"));
    let found = ["crates/transport/src/a.rs:1: renames a file in transport; use transport's durable::replace"];
    assert_eq!(complaints("src/a.rs"), found);
    assert!(complaints("src/durable.rs").is_empty());
}

#[test]
fn a_long_file_is_named_with_its_length() {
    let long = house("control", "src/a.rs", &"\n".repeat(plan::MOST_LINES + 1));
    assert_eq!(
        files_are_short(&long),
        [format!("crates/control/src/a.rs: {} lines; 700 is the limit", plan::MOST_LINES + 1)]
    );
}

fn pages(pages: &[(&str, &str)], files: &[&str]) -> House {
    let names = pages.iter().map(|(name, _)| *name).chain(files.iter().copied());
    let page = |(name, text): &(&str, &str)| Page { name: (*name).to_owned(), text: (*text).to_owned() };
    House { files: names.map(str::to_owned).collect(), pages: pages.iter().map(page).collect(), ..House::default() }
}

#[test]
fn a_page_that_names_a_missing_file_or_heading_is_refused() {
    let text = "See [the plan](ARCHITECTURE.md#where-is-it), [docs](docs/), [RFC](https://example.org/a.rs) and `flow/src/rules.rs`;\n\
                neither [this](docs/lost.md) nor `flow/src/lost.rs` nor [that](ARCHITECTURE.md#lost) exist, `make check` is no file.\n\
                ```\n[no](link)\n```\n";
    let below = "# Keys\nSee [below](#key-vipa) and [above](../ARCHITECTURE.md).\n\n```\n# Lost\n```\n\n## Key `vipa`\nNot [there](#lost).";
    let house = pages(
        &[("README.md", text), ("ARCHITECTURE.md", "# Where is it?"), ("docs/keys.md", below)],
        &["docs", "crates/flow/src/rules.rs"],
    );
    let expected = [
        "README.md names docs/lost.md, which does not exist",
        "README.md links to ARCHITECTURE.md#lost, and that page has no such heading",
        "README.md names flow/src/lost.rs, which does not exist",
        "docs/keys.md links to docs/keys.md#lost, and that page has no such heading",
    ];
    assert_eq!(named_files_exist(&house), expected);
}

#[test]
fn a_page_that_is_no_chapter_is_named() {
    let contents = ("docs/book/SUMMARY.md", "- [Keys](../keys.md)\n- [Plan](plan.md)");
    let house = pages(&[contents, ("docs/keys.md", ""), ("docs/book/plan.md", ""), ("docs/lost.md", "")], &[]);
    assert_eq!(pages_are_chapters(&house), ["docs/lost.md is no chapter of the book: add it to docs/book/SUMMARY.md"]);
    assert_eq!(pages_are_chapters(&House::default()), ["docs/book/SUMMARY.md does not exist"]);
}

fn two_sources(one: &str, other: &str) -> House {
    let sources = vec![Source::new("crates/packet/src/a.rs", one), Source::new("crates/model/src/b.rs", other)];
    House { packages: vec![package("packet", &[], &[]), package("model", &[], &[])], sources, ..House::default() }
}

#[test]
fn two_public_types_of_one_name_are_found_and_private_ones_and_those_of_tests_are_not() {
    let complaints = |one, other, doubled: &[(&str, usize)]| names::public_types_but(&two_sources(one, other), doubled);
    let both = ["2 public types are called Link: crates/packet/src/a.rs:1, crates/model/src/b.rs:2"];
    for (one, other) in [
        ("pub struct Link;", "\npub enum Link {}"),
        ("pub trait Link {", "\npub type Link<T> = T;"),
        ("pub struct Link<T>(T);", "\n    pub union Link {"),
    ] {
        assert_eq!(complaints(one, other, &[]), both, "{one} {other}");
        assert!(complaints(one, other, &[("Link", 2)]).is_empty());
    }
    for other in [
        "pub(crate) struct Link;",
        "struct Link;",
        "// pub struct Link;",
        "#[cfg(test)]\nmod tests { pub struct Link; }",
    ] {
        assert!(complaints("pub struct Link;", other, &[]).is_empty(), "{other}");
    }
    let associated = "impl Iterator for A {\n    type Item = u8;\n}";
    assert!(complaints(associated, associated, &[]).is_empty());
}

#[test]
fn a_name_that_is_no_longer_doubled_must_leave_the_list() {
    let house = two_sources("pub struct Link;", "pub struct Link;");
    let complaints = names::public_types_but(&house, &[("Link", 3), ("Port", 2)]);
    assert_eq!(
        complaints,
        [
            "Link stands for 2 public types, not 3: say 2 in DOUBLED_TYPES (tests/tidy/src/plan.rs)",
            "Port stands for 0 public types, not 2: take it out in DOUBLED_TYPES (tests/tidy/src/plan.rs)",
        ]
    );
}

#[test]
fn a_replaced_name_is_found_where_it_is_declared_and_only_there() {
    for text in ["struct Scene;", "pub enum Scene {", "type Scene = u8;"] {
        let found = names::replaced_names_but(&house("packet", "src/a.rs", text), &[]);
        assert_eq!(found, ["crates/packet/src/a.rs:1: Scene has been replaced by TurnContext"], "{text}");
    }
    for text in ["    pub(crate) const fn seek(&self) {}", "fn seek<K>(key: K) {}", "async fn seek() {}"] {
        let found = names::replaced_names_but(&house("packet", "src/a.rs", text), &[]);
        assert_eq!(found, ["crates/packet/src/a.rs:1: seek has been replaced by prefetch"], "{text}");
    }
    for text in
        ["let door = file.seek(at);", "use std::cell::Cell;", "// struct Scene;", "fn scenes() {}", "struct Scenery;"]
    {
        assert!(names::replaced_names_but(&house("packet", "src/a.rs", text), &[]).is_empty(), "{text}");
    }
    let module = names::replaced_names_but(&house("packet", "src/a.rs", "mod door;"), &[]);
    assert_eq!(module, ["crates/packet/src/a.rs:1: door has been replaced by channel"]);
}

#[test]
fn a_room_that_is_renamed_must_leave_the_list() {
    let renamed = names::replaced_names_but(&house("packet", "src/a.rs", "struct TurnContext;"), &["packet"]);
    assert_eq!(renamed, ["packet has no replaced name left: take it out of NOT_RENAMED_YET (tests/tidy/src/plan.rs)"]);
    assert!(names::replaced_names_but(&house("packet", "src/a.rs", "struct Scene;"), &["packet"]).is_empty());
}
