use std::collections::HashSet;

use super::*;
use crate::{LocalReply, Reason};

#[test]
fn every_cell_has_a_place_and_a_name_of_its_own() {
    let places: Vec<_> = CounterId::all().map(CounterId::index).collect();
    assert_eq!(places, (0..CounterId::COUNT).collect::<Vec<_>>());
    assert_eq!(CounterId::all().map(CounterId::name).collect::<HashSet<_>>().len(), CounterId::COUNT);
}

#[test]
fn totals_sum_the_workers_and_name_every_count() {
    let (one, two) = (Counters::default(), Counters::default());
    one.add(Count::Received, 3);
    one.add(Fate::Forward, 2);
    one.add(Count::Holding, 1);
    two.add(Count::Received, 4);
    two.add(Fate::Drop(Reason::Orphan), 4);
    let mut totals = one.totals();
    totals.add(&two);
    let counted: Vec<_> = totals.iter().filter(|(_, n)| *n > 0).collect();
    assert_eq!(counted, [("received", 7), ("holding", 1), ("forwarded", 2), ("dropped.orphan", 4)]);
    assert!(totals.add_up());
    totals.add(&one);
    two.add(Fate::Local(LocalReply::Arp), 1);
    totals.add(&two);
    assert!(!totals.add_up(), "an answer to nothing");
}

#[test]
fn a_difference_says_what_was_counted_between_two_moments() {
    let counters = Counters::default();
    counters.add(Count::Received, 3);
    counters.add(Count::Holding, 3);
    let before = counters.totals();
    counters.add(Count::Received, 2);
    counters.set(Count::Holding, 2);
    let difference = counters.totals().since(&before);
    assert_eq!((difference.count(Count::Received), difference.count(Count::Holding)), (2, 0));
}

#[test]
fn every_counter_is_documented_and_nothing_else_is() {
    let page = include_str!("../../../../docs/counters.md");
    let (of_packets, _) = page.split_once("\n## Control\n").expect("control's counters come last");
    let documented: Vec<&str> =
        of_packets.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name).collect();
    let counted: HashSet<&str> = CounterId::all().map(CounterId::name).collect();
    let missing: Vec<_> = CounterId::all().map(CounterId::name).filter(|name| !documented.contains(name)).collect();
    assert!(missing.is_empty(), "docs/counters.md does not say what these are: {missing:?}");
    let unknown: Vec<_> = documented.iter().filter(|name| !counted.contains(**name)).collect();
    assert!(unknown.is_empty(), "docs/counters.md has what nobody counts: {unknown:?}");
    assert_eq!(documented.len(), counted.len(), "each once");
}
