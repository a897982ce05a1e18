//! Voters are added and removed while a router owns the VIPA.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use vipa_model::{Epoch, Voters};
use vipa_protocol::{Message, Refusal, Vote, Votes};

use super::{
    super::{Output, io::Note},
    bench::{Bench, name},
};
use crate::router::Takeback;

const NODES: [&str; 5] = ["r1", "r2", "t1", "t2", "t3"];

fn list(version: u32, names: &[&str]) -> Voters {
    Voters::new(version, names.iter().map(|voter| name(voter)).collect())
}

fn was_fenced(bench: &Bench) -> bool {
    bench.outputs.iter().any(|(_, output)| matches!(output, Output::Note(Note::Fenced { .. })))
}

fn reload_all(bench: &mut Bench, voters: &Voters) {
    for node in NODES {
        bench.reload_voters(node, voters).unwrap_or_else(|why| panic!("{node}: {why}\n{}", bench.story()));
        bench.run_ms(40);
        bench.assert_owner("r1");
    }
}

#[test]
fn voters_come_and_go_under_an_owner_that_never_lacks_a_lease() {
    let mut bench = Bench::settled();
    for (version, voters) in
        [&["r1", "r2", "t1", "t2"][..], &["r1", "r2", "t1", "t2", "t3"], &["r1", "r2", "t2", "t3"], &["r2", "t2", "t3"]]
            .iter()
            .enumerate()
    {
        reload_all(&mut bench, &list(u32::try_from(version).unwrap() + 2, voters));
        bench.run_ms(300);
    }
    assert!(!was_fenced(&bench), "{}", bench.story());
    bench.kill("r1");
    bench.run_ms(1_000);
    bench.assert_owner("r2");
    assert!(bench.status("r2").epoch >= Epoch(4_000_000_000), "{:?}", bench.status("r2").epoch);
}

#[test]
fn a_change_of_two_voters_or_two_versions_is_refused_by_name() {
    let mut bench = Bench::settled();
    let before = bench.outputs.len();
    let mut refused = |voters: &Voters| bench.reload_voters("r1", voters).unwrap_err();
    assert_eq!(
        refused(&list(2, &["r1", "r2", "t2"])),
        "voters change one at a time, and here t2 would come and t1 would go"
    );
    assert_eq!(
        refused(&list(2, &["r1", "r2", "t1", "t2", "t3"])),
        "voters change one at a time, and here t2, t3 would come"
    );
    assert_eq!(
        refused(&list(3, &["r1", "r2", "t1", "t2"])),
        "voters_version cannot go from 1 to 3: voters change one at a time, and so do versions"
    );
    assert_eq!(
        refused(&list(1, &["r1", "r2", "t1", "t2"])),
        "the voters are others, but their version is 1 still: give the list the next version"
    );
    assert_eq!(bench.outputs.len(), before);
}

#[test]
fn the_next_change_waits_until_the_last_has_reached_a_majority_for_two_leases() {
    let mut bench = Bench::settled();
    let (second, third) = (list(2, &["r1", "r2", "t1", "t2"]), list(3, &["r1", "r2", "t1", "t2", "t3"]));
    bench.reload_voters("r1", &second).unwrap();
    bench.run_ms(1_000);
    assert_eq!(
        bench.reload_voters("r1", &third).unwrap_err(),
        "the change of voters before this one has not reached r2, t1, t2, t3: reload it with version 2 first"
    );
    for node in ["r2", "t1", "t2", "t3"] {
        bench.reload_voters(node, &second).unwrap();
    }
    let soon = "the change of voters before this one is younger than two leases: try again";
    assert_eq!(bench.reload_voters("r1", &third).unwrap_err(), soon);
    bench.run_ms(250);
    bench.reload_voters("r1", &third).unwrap();
    // A later node need not have waited: another one has.
    bench.reload_voters("t3", &third).unwrap();
    let other = list(3, &["r1", "r2", "t2"]);
    assert_eq!(
        bench.reload_voters("r2", &other).unwrap_err(),
        "r1 has another list of voters with version 3: the lists must be the same everywhere"
    );
}

#[test]
fn a_voter_that_was_removed_votes_no_more_and_one_ahead_answers_no_laggard() {
    let mut bench = Bench::settled();
    reload_all(&mut bench, &list(2, &["r1", "r2", "t1", "t2"]));
    bench.run_ms(300);
    let third = list(3, &["r1", "r2", "t2"]);
    for node in ["r1", "t1", "t2", "t3"] {
        bench.reload_voters(node, &third).unwrap();
    }
    bench.run_ms(300);
    bench.wire.clear();
    bench.kill("r1");
    bench.run_ms(500);
    assert_eq!(bench.owners(), [""; 0]);
    let refusals = |from: &str| {
        let votes = bench.wire.iter().filter_map(|(sender, _, message)| match message {
            Message::Votes(Votes { votes }) if *sender == name(from) => Some(votes),
            _ => None,
        });
        let refusal = |vote: &Vote| match vote {
            Vote::Refuse(refuse) => Some(refuse.reason),
            Vote::Grant(_) => None,
        };
        votes.flatten().filter_map(refusal).collect::<Vec<_>>()
    };
    assert!(!refusals("t2").is_empty() && refusals("t2").iter().all(|reason| *reason == Refusal::Voters));
    let voted = |(from, _, message): &(_, _, Message)| {
        *from == name("t1") && matches!(message, Message::BeatAck(_) | Message::Votes(_))
    };
    assert!(!bench.wire.iter().any(voted));
    // Named, for the operator to see, and well as soon as the late node has the list too.
    assert!(bench.story().contains("r2: t2: its voters are r1, r2, t2, version 3, and not those of this node"));
    bench.reload_voters("r2", &third).unwrap();
    bench.run_ms(2_000);
    bench.assert_owner("r2");
}

#[test]
fn a_node_that_knows_no_voters_yet_takes_a_later_list_only_from_others() {
    let mut bench = Bench::settled();
    reload_all(&mut bench, &list(2, &["r1", "r2", "t1", "t2"]));
    bench.run_ms(300);
    bench.knows_no_voters("r3");
    bench.start("r3");
    let third = list(3, &["r1", "r2", "r3", "t1", "t2"]);
    assert_eq!(
        bench.reload_voters("r3", &third).unwrap_err(),
        "this node has no list of voters yet, and nobody it is linked to has version 3: reload the others first"
    );
    bench.kill("r1");
    bench.run_ms(600);
    bench.assert_owner("r2");
    for node in ["r2", "t1", "t2", "t3", "r3"] {
        bench.reload_voters(node, &third).unwrap();
    }
    bench.run_ms(300);
    bench.kill("r2");
    bench.run_ms(2_000);
    bench.assert_owner("r3");
}

#[test]
fn a_node_left_behind_is_refused_until_it_has_the_list_of_the_others() {
    let mut bench = Bench::settled();
    bench.part("t3", "r1");
    bench.part("t3", "r2");
    bench.kill("t3");
    for (version, voters) in [(2, &["r1", "r2", "t1", "t2"][..]), (3, &["r1", "r2", "t2"])] {
        for node in ["r1", "r2", "t1", "t2"] {
            bench.reload_voters(node, &list(version, voters)).unwrap();
        }
        bench.run_ms(300);
    }
    bench.start("t3");
    assert!(bench.story().contains(
        "r1: t3: not listened to, because its voters are r1, r2, t1, version 1, and this node's r1, r2, t2, \
         version 3: one change apart at most they may be"
    ));
    let listens =
        |bench: &Bench| bench.status("r1").targets.iter().any(|target| target.node == name("t3") && target.linked);
    assert!(!listens(&bench));
    bench.reload_voters("t3", &list(3, &["r1", "r2", "t2"])).unwrap();
    bench.run_ms(100);
    assert!(listens(&bench), "{}", bench.story());
}

/// Events while voters change.
#[derive(Clone, Debug)]
enum Step {
    /// At every node of the set, as far as it may.
    Reload(u8),
    /// Messages between the nodes of the set and the others vanish.
    Split(u8),
    Heal,
    Kill(usize),
    Start(usize),
    Pass(u64),
}

const ALL: [&str; 7] = ["r1", "r2", "r3", "t1", "t2", "t3", "t4"];

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..ALL.len();
    prop_oneof![
        6 => any::<u8>().prop_map(Step::Reload),
        2 => any::<u8>().prop_map(Step::Split),
        1 => Just(Step::Heal),
        1 => node().prop_map(Step::Kill),
        2 => node().prop_map(Step::Start),
        4 => (1..250_u64).prop_map(Step::Pass),
    ]
}

fn is_in(set: u8, node: &str) -> bool {
    ALL.iter().position(|known| *known == node).is_some_and(|place| set >> place & 1 == 1)
}

fn pairs() -> impl Iterator<Item = (&'static str, &'static str)> {
    ALL.iter().flat_map(|one| ALL.iter().filter(move |other| one < *other).map(move |other| (*one, *other)))
}

fn heal(bench: &mut Bench) {
    for (one, other) in pairs() {
        if bench.is_up(one) && bench.is_up(other) && !bench.is_linked(one, other) {
            bench.join(one, other);
        }
    }
}

/// Lists that each differ from the one before by one voter, of three to five.
fn lists(toggles: &[usize]) -> Vec<Voters> {
    let mut lists = vec![list(1, &["r1", "r2", "t1"])];
    for &toggle in toggles {
        let last = lists.last().expect("there is a first");
        let node = name(ALL[toggle]);
        let mut names = last.names.clone();
        match last.contain(&node) {
            true if names.len() > 3 => names.retain(|voter| *voter != node),
            false if names.len() < 5 => names.push(node),
            _ => continue,
        }
        lists.push(Voters::new(last.version + 1, names));
    }
    lists
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn old_and_new_voters_side_by_side_never_make_two_owners(
        toggles in vec(0..ALL.len(), 4..10),
        steps in vec(step(), 20..90),
    ) {
        let lists = lists(&toggles);
        let targets = ["t1", "t2", "t3", "t4"];
        let mut bench = Bench::new(&[("r1", Some(&targets)), ("r2", Some(&targets)), ("r3", Some(&targets))], &targets);
        bench.takeback = Takeback::Manual;
        bench.run_ms(400);
        let mut owned = BTreeMap::new();
        for step in steps {
            match step {
                Step::Reload(set) => {
                    for node in ALL {
                        if is_in(set, node)
                            && bench.is_up(node)
                            && let Some(next) = lists.get(bench.goes_by(node).version as usize)
                        {
                            let _ = bench.reload_voters(node, next);
                        }
                    }
                }
                Step::Split(set) => {
                    heal(&mut bench);
                    for (one, other) in pairs().filter(|(one, other)| is_in(set, one) != is_in(set, other)) {
                        bench.mute(one, other);
                        bench.mute(other, one);
                    }
                }
                Step::Heal => heal(&mut bench),
                Step::Kill(node) => bench.kill(ALL[node]),
                Step::Start(node) if !bench.is_up(ALL[node]) => bench.start(ALL[node]),
                Step::Start(_) => {}
                Step::Pass(span) => {
                    for _ in 0..span.div_ceil(5) {
                        bench.run_ms(5);
                        let owners = bench.owners();
                        let admitting: Vec<_> =
                            owners.iter().filter(|router| bench.status(router).yielding_to.is_none()).collect();
                        prop_assert!(admitting.len() <= 1, "{admitting:?} own it at once\n{}", bench.story());
                        for router in owners {
                            let epoch = bench.status(&router).epoch;
                            let first = owned.entry(epoch).or_insert_with(|| router.clone());
                            prop_assert_eq!(&*first, &router, "epoch {} is owned twice\n{}", epoch, bench.story());
                        }
                    }
                }
            }
        }
    }
}
