//! Names: no two public types share one, and a name that has been replaced does not come back.
//!
//! Both rules look at declarations (`struct`, `enum`, `trait`, `type`, `union`, and for replaced names `fn` and `mod` too), so that a
//! local variable, or a type of the standard library, may be called anything. What is not right yet is listed in [`plan`], and an entry of
//! those lists that is no longer needed is refused: the lists can only get shorter.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Complaints, House, Source, plan, source::Declaration, sources};

const TYPES: &[&str] = &["struct", "enum", "trait", "type", "union"];

/// No two public types of the workspace have one name: a reader who knows one of them would take the other for it.
#[must_use]
pub fn public_types_have_names_of_their_own(house: &House) -> Complaints {
    public_types_but(house, plan::DOUBLED_TYPES)
}

/// The rule, with `doubled` as the list of names that stand for that many types.
pub(crate) fn public_types_but(house: &House, doubled: &[(&str, usize)]) -> Complaints {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (_, source) in sources(house) {
        for Declaration { name, line, .. } in types(source).filter(|declaration| declaration.is_public) {
            places.entry(name).or_default().push(format!("{}:{line}", source.path));
        }
    }
    let mut complaints = Vec::new();
    for (name, places) in &places {
        let allowed = doubled.iter().find(|(doubled, _)| doubled == name).map_or(1, |(_, count)| *count);
        if places.len() > allowed {
            complaints.push(format!("{} public types are called {name}: {}", places.len(), places.join(", ")));
        }
    }
    for (name, count) in doubled {
        let found = places.get(name).map_or(0, Vec::len);
        if found < *count {
            let rest = if found > 1 { format!("say {found}") } else { "take it out".to_owned() };
            complaints.push(format!(
                "{name} stands for {found} public types, not {count}: {rest} in DOUBLED_TYPES (tests/tidy/src/plan.rs)"
            ));
        }
    }
    complaints
}

/// A type, function or module does not get a name that has been replaced by a better one.
#[must_use]
pub fn replaced_names_stay_away(house: &House) -> Complaints {
    replaced_names_but(house, plan::NOT_RENAMED_YET)
}

/// The rule, with `pending` as the list of rooms that still have such names.
pub(crate) fn replaced_names_but(house: &House, pending: &[&str]) -> Complaints {
    let (mut complaints, mut still) = (Vec::new(), BTreeSet::new());
    for (room, source) in sources(house) {
        for Declaration { name, line, .. } in source.declarations() {
            let Some((_, instead)) = plan::REPLACED_NAMES.iter().find(|(replaced, _)| *replaced == name) else {
                continue;
            };
            if pending.contains(&room.name) {
                still.insert(room.name);
            } else {
                complaints.push(format!("{}:{line}: {name} has been replaced by {instead}", source.path));
            }
        }
    }
    let done = pending.iter().filter(|room| !still.contains(*room));
    complaints.extend(done.map(|room| {
        format!("{room} has no replaced name left: take it out of NOT_RENAMED_YET (tests/tidy/src/plan.rs)")
    }));
    complaints
}

fn types(source: &Source) -> impl Iterator<Item = Declaration<'_>> {
    source.declarations().filter(|declaration| TYPES.contains(&declaration.keyword))
}
