//! The plan of the house as a test: which room may use which, where danger may live, and what a pure room may not touch.
//!
//! [`plan`] is the plan, as tables. [`House::open`] reads what is really there: `cargo metadata` and the sources, with
//! comments and texts taken out. The rules below compare the two; each returns what is wrong as sentences, and
//! `tests/house.rs` demands that there be none.

#![forbid(unsafe_code)]

mod house;
mod names;
mod pages;
pub mod plan;
mod source;

pub use house::{Dependency, House, Package};
pub use names::{public_types_have_names_of_their_own, replaced_names_stay_away};
pub use pages::{Page, named_files_exist, pages_are_chapters};
pub use source::{Declaration, Part, Source};

use plan::{Kind, ROOMS, Room};

/// What is wrong, one sentence each.
pub type Complaints = Vec<String>;

/// Every package is a room of the plan, and every room exists; none has a name that means "anything".
#[must_use]
pub fn rooms_are_planned(house: &House) -> Complaints {
    let mut complaints = Vec::new();
    for package in &house.packages {
        if plan::room(&package.room).is_none() {
            complaints.push(format!("{} is not in the plan (tests/tidy/src/plan.rs)", package.room));
        }
        for word in package.room.split('-').filter(|word| plan::NAMES_FOR_ANYTHING.contains(word)) {
            complaints.push(format!("{}: {word:?} names no noun, so anything would end up there", package.room));
        }
        if !package.takes_workspace_lints {
            complaints.push(format!("{}: its Cargo.toml lacks `[lints] workspace = true`", package.room));
        }
    }
    for room in ROOMS.iter().filter(|room| !house.packages.iter().any(|package| package.room == room.name)) {
        complaints.push(format!("{} is in the plan but not in the house", room.name));
    }
    let crates = house.packages.iter().filter(|package| package.folder.starts_with("crates/")).count();
    if crates > plan::MOST_ROOMS {
        complaints.push(format!("crates/ has {crates} rooms; {} is the ceiling", plan::MOST_ROOMS));
    }
    complaints
}

/// Arrows between rooms point only where the plan says; those of tests too.
#[must_use]
pub fn arrows_are_allowed(house: &House) -> Complaints {
    let mut complaints = Vec::new();
    for package in &house.packages {
        let Some(room) = plan::room(&package.room) else { continue };
        for Dependency { name, for_tests } in &package.dependencies {
            let Some(to) = name.strip_prefix("vipa-") else { continue };
            if !room.may_use.contains(&to) {
                let whose = if *for_tests { "the tests of " } else { "" };
                complaints.push(format!("{whose}{} may not use {to}", room.name));
            }
        }
    }
    complaints
}

/// A package depends only on crates that its sources name. A room nobody has moved into yet is let be.
#[must_use]
pub fn dependencies_are_used(house: &House) -> Complaints {
    let mut complaints = Vec::new();
    for package in &house.packages {
        let own = || house.sources.iter().filter(|source| source.path.starts_with(&format!("{}/", package.folder)));
        if own().all(Source::is_empty) {
            continue;
        }
        for Dependency { name, .. } in &package.dependencies {
            let named = name.replace('-', "_");
            if !own().any(|source| source.lines_with(Part::All, &[&named]).next().is_some()) {
                complaints.push(format!("{} depends on {name} and never names it", package.room));
            }
        }
    }
    complaints
}

/// The plan itself has no circle: a room's floor is above the floors of all it uses.
#[must_use]
pub fn arrows_point_down() -> Complaints {
    let mut complaints = Vec::new();
    for room in ROOMS {
        for to in room.may_use.iter().filter_map(|name| plan::room(name)) {
            if to.floor > room.floor || (to.floor == room.floor && to.may_use.contains(&room.name)) {
                complaints.push(format!("{} (floor {}) uses {} (floor {})", room.name, room.floor, to.name, to.floor));
            }
        }
    }
    complaints
}

/// ARCHITECTURE.md's table of rooms says what the plan says, row by row.
#[must_use]
pub fn page_tells_the_plan(house: &House) -> Complaints {
    let rows: Vec<Vec<&str>> = house
        .page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|row| row.split(" | ").collect())
        .collect();
    let mut complaints = Vec::new();
    for room in ROOMS {
        let (floor, name, kind) = (room.floor.to_string(), format!("`{}`", room.name), room.kind.to_string());
        let kind = kind.trim_start_matches("a ").trim_start_matches("the ");
        let uses = if room.may_use.is_empty() { "–".to_owned() } else { room.may_use.join(", ") };
        let told = rows
            .iter()
            .any(|row| matches!(row[..], [f, n, k, _, u] if f == floor && n == name && k == kind && u == uses));
        if !told {
            complaints.push(format!("ARCHITECTURE.md has no row `| {floor} | {name} | {kind} | … | {uses} |`"));
        }
    }
    complaints
}

/// `unsafe` stands in guarded rooms, and where the plan argues for it; pure rooms forbid it themselves.
#[must_use]
pub fn danger_is_confined(house: &House) -> Complaints {
    let mut complaints = Vec::new();
    for (room, source) in sources(house) {
        if room.kind != Kind::Guarded && plan::MAY_BE_UNSAFE.iter().all(|(name, _)| *name != room.name) {
            complaints
                .extend(source.lines_with(Part::All, &["unsafe"]).map(|at| format!("{at}: `unsafe` in {}", room.name)));
        }
        let is_root = source.path.ends_with("/src/lib.rs");
        if room.kind == Kind::Pure && is_root && !source.code.contains("#![forbid(unsafe_code)]") {
            complaints.push(format!("{}: a pure room begins with #![forbid(unsafe_code)]", source.path));
        }
    }
    complaints
}

/// Atomics are named in `sync` and `flow` only.
#[must_use]
pub fn atomics_are_confined(house: &House) -> Complaints {
    let mut complaints = Vec::new();
    for (room, source) in sources(house).filter(|(room, _)| !plan::MAY_NAME_ATOMICS.contains(&room.name)) {
        let found = source.lines_with(Part::All, plan::ATOMICS);
        complaints.extend(found.map(|at| format!("{at}: an atomic in {}", room.name)));
    }
    complaints
}

/// A pure room waits for nothing and asks nobody: no clock, chance, socket, file, thread or runtime outside its tests.
#[must_use]
pub fn pure_rooms_are_pure(house: &House) -> Complaints {
    forbid(house, |room| room.kind == Kind::Pure, plan::NOT_PURE, plan::NOT_PURE_CRATES)
}

/// A worker never locks, logs, reads a file or waits for a runtime.
#[must_use]
pub fn workers_do_not_wait(house: &House) -> Complaints {
    let is_worker = |room: &Room| plan::WORKERS.contains(&room.name);
    let mut complaints = forbid(house, is_worker, plan::NOT_IN_WORKERS, plan::NOT_IN_WORKERS_CRATES);
    complaints.retain(|complaint| plan::BEFORE_PACKETS.iter().all(|(path, _)| !complaint.starts_with(path)));
    complaints
}

/// A file is replaced by what syncs it before it renames it, so that a power failure leaves no half of one.
#[must_use]
pub fn replaced_files_are_durable(house: &House) -> Complaints {
    let mut complaints = Vec::new();
    for (room, source) in sources(house).filter(|(room, _)| room.kind != Kind::Dev) {
        if plan::MAY_RENAME.iter().any(|(path, _)| source.path == *path) {
            continue;
        }
        let found = source.lines_with(Part::Shipped, &["fs::rename"]);
        complaints
            .extend(found.map(|at| format!("{at}: renames a file in {}; use transport's durable::replace", room.name)));
    }
    complaints
}

/// Files stay short enough to be one story.
#[must_use]
pub fn files_are_short(house: &House) -> Complaints {
    let long = house.sources.iter().filter(|source| source.lines() > plan::MOST_LINES);
    long.map(|source| format!("{}: {} lines; {} is the limit", source.path, source.lines(), plan::MOST_LINES)).collect()
}

fn forbid(house: &House, applies: impl Fn(&Room) -> bool, words: &[&str], crates: &[&str]) -> Complaints {
    let mut complaints = Vec::new();
    for (room, source) in sources(house).filter(|(room, _)| applies(room)) {
        let found = source.lines_with(Part::Shipped, words);
        complaints.extend(found.map(|at| format!("{at}: not in {}, which is {}", room.name, room.kind)));
    }
    for package in &house.packages {
        let shipped = package.dependencies.iter().filter(|dependency| !dependency.for_tests);
        for Dependency { name, .. } in shipped.filter(|dependency| crates.contains(&dependency.name.as_str())) {
            if plan::room(&package.room).is_some_and(&applies) {
                complaints.push(format!("{} may not depend on {name}", package.room));
            }
        }
    }
    complaints
}

/// The sources of planned rooms, each with its room.
fn sources(house: &House) -> impl Iterator<Item = (&'static Room, &Source)> {
    house.sources.iter().filter_map(|source| {
        let package = house.packages.iter().find(|package| source.path.starts_with(&format!("{}/", package.folder)))?;
        Some((plan::room(&package.room)?, source))
    })
}

#[cfg(test)]
mod tests;
