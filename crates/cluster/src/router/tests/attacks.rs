//! A linked target whose certificate an attacker has: what it sends about things that are not its own changes nothing.

use vipa_model::{Epoch, Incarnation, Protocol, Rank, Voters};
use vipa_protocol::{
    Ballot, Beat, Claim, Claims, Connections, Decision, Decisions, Distribution, Entry, Listeners, Matter, Message,
    Owned, Part, Position, Refusal, Refuse, Ruling, Run, SelfCheckReport, Stamp, Standing, Table, Vote, Votes,
};

use super::{
    super::{Event, Note, Output, State, Wait},
    bench::{Bench, VIPA, address, connection, name, service},
};

/// No voter, and a candidate.
const THIEF: &str = "t3";
const HUGE: Epoch = Epoch(u64::MAX);

fn says(bench: &mut Bench, message: &Message) {
    for router in ["r1", "r2"] {
        bench.feed_router(router, Event::Received { peer: name(THIEF), message: message.clone() });
    }
}

fn decision(matter: Matter, ruling: Ruling, count: u64) -> Message {
    let decision = Decision { matter, ruling, stamp: Stamp { count, by: name("r1") }, given: None };
    Message::Decisions(Decisions { decisions: vec![decision] })
}

fn attacks() -> Vec<Message> {
    let (vipa, epoch) = (VIPA, HUGE);
    let next = Epoch(7);
    let list = |epoch| Distribution {
        vipa,
        epoch,
        sender: Standing::Owner,
        ranks: vec![(name(THIEF), Rank(254))],
        services: vec![service(&[THIEF])],
        paths: vec![],
    };
    let owned = |epoch| Beat { sequence: 1, owned: vec![Owned { vipa, epoch, yielding_to: None }] };
    let refuse = |highest| {
        let ballot = Ballot::Real { round: 0 };
        let refuse = Refuse { vipa, epoch: next, ballot, reason: Refusal::Superseded, highest };
        Message::Votes(Votes { votes: vec![Vote::Refuse(refuse)] })
    };
    let entries =
        vec![Entry { connection: connection(1), target: address(THIEF), state: vipa_model::EntryState::HalfOpen }];
    let upto = Position { incarnation: Incarnation(99), sequence: 0 };
    let run = Run::Snapshot { part: Part::Only, connections: vec![] };
    vec![
        Message::Distribution(list(epoch)),
        Message::Distribution(list(next)),
        Message::Beat(owned(epoch)),
        Message::Beat(owned(next)),
        Message::Claims(Claims { claims: vec![Claim { vipa, epoch: next, ballot: Ballot::Real { round: 0 } }] }),
        refuse(next),
        refuse(epoch),
        Message::Table(Table { vipa, epoch: next, entries, part: Part::Only }),
        Message::SelfCheckReport(SelfCheckReport { unfit: Some("it is not".into()) }),
        Message::Connections(Connections { vipa, run, upto, answers: None }),
        decision(Matter::Ownership { vipa, router: name("r1") }, Ruling::Withheld, 1),
        decision(Matter::Ownership { vipa, router: name("r1") }, Ruling::Withheld, u64::MAX),
        decision(Matter::Target { target: address("t1") }, Ruling::Withheld, u64::MAX),
        decision(Matter::Place { vipa }, Ruling::At(name("r2")), 5),
    ]
}

#[test]
fn what_a_stolen_targets_certificate_says_of_others_changes_nothing() {
    for attack in attacks() {
        let mut bench = Bench::settled();
        let before = bench.status("r1");
        let kind = attack.kind();
        says(&mut bench, &attack);
        bench.run_ms(2_000);
        bench.assert_owner("r1");
        let after = bench.status("r1");
        assert_eq!((after.state, after.epoch), (State::Active, before.epoch), "{kind}: {attack:?}");
        assert_eq!((after.resting, after.placed, after.barred), (vec![], None, vec![]), "{kind}: {attack:?}");
        assert_eq!(after.services, before.services, "{kind}: {attack:?}");
        let installed = |(_, output): &(_, Output)| matches!(output, Output::InstallTable { .. });
        assert!(!bench.outputs.iter().any(installed), "{kind}");
        // A takeover works as before.
        bench.kill("r1");
        bench.run_ms(1_000);
        bench.assert_owner("r2");
        assert!(bench.status("r2").epoch <= Epoch(before.epoch.0 + 2), "{kind}");
    }
}

#[test]
fn all_attacks_at_once_are_counted_and_each_kind_is_noted_once() {
    let mut bench = Bench::settled();
    bench.outputs.clear();
    for attack in attacks().into_iter().chain(attacks()) {
        says(&mut bench, &attack);
    }
    let noted = |(node, output): &&(vipa_model::NodeName, Output)| {
        node.as_str() == "r1" && matches!(output, Output::Note(Note::Denied { peer, .. }) if peer.as_str() == THIEF)
    };
    let kinds = bench.outputs.iter().filter(noted).count();
    // Distribution, Beat, Claim, Refuse, Table, SelfCheckReport, Connections, Decisions.
    assert_eq!(kinds, 8);
    bench.run_ms(1_000);
    bench.assert_owner("r1");
}

#[test]
fn voters_that_a_target_makes_up_keep_nobody_from_changing_them() {
    let mut bench = Bench::settled();
    let made_up = Voters::new(2, ["r1", "r2", THIEF].map(name).to_vec());
    says(&mut bench, &Message::Voters(made_up.clone()));
    assert!(
        bench.reload_voters("r1", &made_up).is_err(),
        "two changes at once stay two, whoever says that they were made"
    );
    let next = Voters::new(2, ["r1", "r2", "t1", "t2"].map(name).to_vec());
    bench.reload_voters("r1", &next).unwrap();
}

#[test]
fn one_target_has_one_node_at_a_time() {
    let mut bench = Bench::settled();
    let mut hello = bench.hello(&name(THIEF));
    hello.node = name("t9");
    bench.outputs.clear();
    bench.feed_router("r1", Event::Connected { peer: name("t9"), hello: hello.clone() });
    let refused =
        |(_, output): &(_, Output)| matches!(output, Output::Note(Note::Refused { peer, .. }) if *peer == name("t9"));
    assert!(bench.outputs.iter().any(refused));
    bench.kill(THIEF);
    bench.feed_router("r1", Event::Disconnected { peer: name(THIEF) });
    bench.outputs.clear();
    bench.feed_router("r1", Event::Connected { peer: name("t9"), hello });
    assert!(!bench.outputs.iter().any(refused), "its successor is welcome");
}

/// A link to t3 is up at this router, and t3 sends nothing on it.
fn link_silent_target(bench: &mut Bench, router: &str) {
    let mut hello = bench.hello(&name("t1"));
    hello.node = name(THIEF);
    hello.role = vipa_protocol::Role::Target { address: address(THIEF) };
    bench.feed_router(router, Event::Connected { peer: name(THIEF), hello });
}

#[test]
fn a_linked_candidate_that_answers_nobody_holds_up_neither_a_takeover_nor_a_takeback() {
    let mut bench = Bench::new(&[("r1", Some(&["t1", "t2", THIEF])), ("r2", None)], &["t1", "t2"]);
    link_silent_target(&mut bench, "r1");
    link_silent_target(&mut bench, "r2");
    bench.run_ms(2_000);
    bench.assert_owner("r1");
    bench.kill("r1");
    bench.run_ms(2_000);
    bench.assert_owner("r2");
    bench.start("r1");
    link_silent_target(&mut bench, "r1");
    bench.run_ms(1_900);
    bench.assert_owner("r2");
    // Twice the rebuilding's deadline for the silent one, and that deadline once more for the rebuilding itself.
    bench.run_ms(1_400);
    bench.assert_owner("r1");
    let linked = &bench.status("r1").targets;
    assert!(
        linked.iter().any(|target| target.node.as_str() == THIEF && target.linked && !target.complete),
        "{linked:?}"
    );
}

#[test]
fn a_linked_candidate_that_answers_the_owner_only_is_waited_for_and_named() {
    let mut bench = Bench::settled();
    bench.kill("r1");
    bench.run_ms(300);
    bench.cut("r1", THIEF);
    bench.start("r1");
    link_silent_target(&mut bench, "r1");
    bench.run_ms(10_000);
    bench.assert_owner("r2");
    let waits_for = bench.status("r1").takeback;
    assert_eq!(waits_for, Some(Wait::Unfollowed { targets: vec![name(THIEF)] }));
}

#[test]
fn a_greeting_from_a_life_that_cannot_be_is_refused() {
    let mut bench = Bench::settled();
    let mut hello = bench.hello(&name("r2"));
    hello.incarnation = Incarnation(u64::MAX);
    bench.feed_router("r1", Event::Connected { peer: name("r2"), hello: hello.clone() });
    assert!(bench.story().contains("r2: not listened to, because it cannot be in its life 18446744073709551615"));
    bench.outputs.clear();
    hello.incarnation = Incarnation::LAST;
    bench.feed_router("r1", Event::Connected { peer: name("r2"), hello });
    assert!(bench.story().contains("r1: r2: linked\n"), "{}", bench.story());
}

#[test]
fn a_target_is_listed_by_routers_and_not_by_its_own_word() {
    let mut bench = Bench::settled();
    let web = (Protocol::Tcp, 80);
    let is_listed = |bench: &Bench, target| ["r1", "r2"].map(|router| bench.is_listed(router, target));
    assert_eq!(is_listed(&bench, "t1"), [true, true]);
    assert_eq!(is_listed(&bench, "t9"), [false, false]);
    let paths = service(&["t9"]).path_to(address("t9")).into_iter().collect();
    let mut hello = bench.hello(&name(THIEF));
    hello.node = name("t9");
    hello.role = vipa_protocol::Role::Target { address: address("t9") };
    for router in ["r1", "r2"] {
        bench.feed_router(router, Event::Connected { peer: name("t9"), hello: hello.clone() });
        let listeners = Listeners { vipa: VIPA, listening: vec![web], paths: Vec::clone(&paths) };
        bench.feed_router(router, Event::Received { peer: name("t9"), message: Message::Listeners(listeners) });
    }
    assert_eq!(is_listed(&bench, "t9"), [false, false]);
}

#[test]
fn one_voters_word_ends_no_ownership() {
    let mut bench = Bench::settled();
    let before = bench.status("r1");
    let (epoch, highest) = (before.epoch, Epoch(before.epoch.0 + 1));
    let voter = || name("t1");
    assert!(bench.status("r1").state == State::Active);
    for round in 0..4 {
        let (ballot, reason) = (Ballot::Real { round }, Refusal::Superseded);
        let refuse = Vote::Refuse(Refuse { vipa: VIPA, epoch, ballot, reason, highest });
        let refuse = Message::Votes(Votes { votes: vec![refuse] });
        bench.feed_router("r1", Event::Received { peer: voter(), message: refuse });
        let superseded = vec![vipa_protocol::Superseded { vipa: VIPA, epoch: highest, holder: name("r2") }];
        for sequence in 0..200 {
            let ack = Message::BeatAck(vipa_protocol::BeatAck { sequence, superseded: superseded.clone() });
            bench.feed_router("r1", Event::Received { peer: voter(), message: ack });
        }
        bench.run_ms(500);
    }
    bench.assert_owner("r1");
    assert_eq!(bench.status("r1").epoch, epoch);
}

#[test]
fn one_voter_cannot_drive_the_epochs_to_their_end() {
    let mut bench = Bench::settled();
    let epoch = bench.status("r1").epoch;
    // Also past the end of the epochs that the first version of the voters has.
    for round in 1..4_000 {
        let highest = Epoch(epoch.0 + 400_000 * round);
        let refuse = Refuse { vipa: VIPA, epoch, ballot: Ballot::Trial, reason: Refusal::Granted, highest };
        let votes = Message::Votes(Votes { votes: vec![Vote::Refuse(refuse)] });
        for router in ["r1", "r2"] {
            bench.feed_router(router, Event::Received { peer: name("t1"), message: votes.clone() });
        }
    }
    bench.kill("r1");
    bench.run_ms(1_000);
    bench.assert_owner("r2");
    let next = bench.status("r2").epoch;
    assert!(next.0 <= epoch.0 + 500_001, "{epoch} → {next}");
}
