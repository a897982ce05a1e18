//! Every phase answers every input: the whole transition table, written out.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use vipa_model::{Epoch, Incarnation, Moment, NodeName, Rank};
use vipa_protocol::{Ballot, Refusal, Refuse, Role, Trigger};

use super::{
    super::{
        Context, Groups, Peer, RouterView, Settings, Takeback, Timing, VipaSettings,
        beats::Beats,
        election::Candidacy,
        ownership::{Consent, Ownership},
        vipa::{
            Input, Phase,
            State::{self, Active, Claiming, Rebuilding, Standby, Suspecting, Yielding},
            Vipa,
        },
    },
    bench::{LEASE, VIPA, name, report},
};
use crate::{Output, StoredLists, ballots::Ballots, decision_log::DecisionLog};

const NOW: Moment = Moment(10_000_000_000);

/// State of the router: r2 of three, epoch 4 known to be r3's, epoch 5 its own claim or ownership.
fn machine(state: State) -> (Vipa, Settings) {
    let settings = VipaSettings {
        address: VIPA,
        ranks: vec![(name("r1"), Rank(200)), (name("r2"), Rank(150)), (name("r3"), Rank(100))],
        services: None,
        activate: true,
        takeback: Takeback::Immediate,
        takeback_delay: Duration::ZERO,
        group: None,
    };
    let all = Settings {
        cluster: "lab".into(),
        key: vipa_protocol::KeyDigest::default(),
        me: name("r2"),
        addresses: vec![],
        incarnation: Incarnation(1),
        voters: vec![name("r1"), name("r2"), name("r3")].into(),
        timing: Timing::of_lease(LEASE),
        vipas: vec![settings.clone()],
    };
    let mut vipa = Vipa::new(settings, StoredLists::default(), NOW);
    vipa.epoch = Epoch(4);
    vipa.owner = Some(name("r3"));
    let mut candidacy = Candidacy::new(Epoch(5), NOW, Trigger::Failure, NOW);
    candidacy.grant(name("r2"));
    let granted = [name("r1"), name("r2")].into();
    let ownership = Ownership::new(granted, (0, NOW), NOW, &all, report(Epoch(5)));
    vipa.phase = match state {
        Standby => Phase::Standby,
        Suspecting => Phase::Suspecting(candidacy),
        Claiming => Phase::Claiming(candidacy),
        Rebuilding => Phase::Rebuilding(ownership),
        Active => Phase::Active(ownership),
        Yielding => Phase::Yielding { until: NOW + LEASE, to: name("r1") },
    };
    if matches!(state, Rebuilding | Active) {
        vipa.epoch = Epoch(5);
        vipa.owner = Some(name("r2"));
    }
    (vipa, all)
}

fn after(state: State, input: Input, prepare: impl FnOnce(&mut Vipa)) -> State {
    outcome(state, input, prepare).0
}

fn outcome(state: State, input: Input, prepare: impl FnOnce(&mut Vipa)) -> (State, Vec<Output>) {
    let (mut vipa, settings) = machine(state);
    prepare(&mut vipa);
    let peers = ["r1", "r3"]
        .map(|router| (name(router), Peer { role: Role::Router, incarnation: Incarnation(1), unfit: None }))
        .into();
    let (decision_log, groups) = (DecisionLog::default(), Groups::new());
    let (mut out, mut local, mut beats) = (Vec::new(), VecDeque::new(), Beats::default());
    let mut ballots = Ballots::default();
    let cx = &mut Context {
        now: NOW,
        settings: &settings,
        peers: &peers,
        decision_log: &decision_log,
        groups: &groups,
        unfit: false,
        stopping: matches!(input, Input::Stop),
        out: &mut out,
        local: &mut local,
        ballots: &mut ballots,
        beats: &mut beats,
    };
    vipa.step(input, cx);
    let sent = ballots.take().into_iter().filter(|(to, _)| peers.contains_key(to));
    out.extend(sent.map(|(to, message)| Output::Send { to, message }));
    (vipa.state(), out)
}

fn heard(from: &str, epoch: u64, yielding_to: Option<&str>) -> Input {
    Input::Beat { from: name(from), epoch: Epoch(epoch), yielding_to: yielding_to.map(name), sequence: 9 }
}

const REAL: Ballot = Ballot::Real { round: 0 };

fn granted(ballot: Ballot) -> Input {
    Input::Granted { from: name("r1"), epoch: Epoch(5), ballot }
}

fn refused(reason: Refusal, highest: u64) -> Input {
    let (epoch, ballot, highest) = (Epoch(5), REAL, Epoch(highest));
    Input::Refused { from: name("r1"), refuse: Refuse { vipa: VIPA, epoch, ballot, reason, highest } }
}

fn superseded(voter: &str) -> Input {
    Input::Superseded { voter: name(voter), mine: Epoch(5), epoch: Epoch(6), holder: name("r1") }
}

#[test]
fn every_phase_answers_every_cue_as_the_table_says() {
    let acknowledged = Input::Acknowledged { voter: name("r1"), epoch: Epoch(5), sent: NOW };
    let asked = Input::Asked { by: name("r1"), epoch: Epoch(5), follows: Vec::new() };
    let all = [Standby, Suspecting, Claiming, Rebuilding, Active, Yielding];
    // No target is expected here, so that any completed report ends the rebuilding.
    #[rustfmt::skip]
    let table: [(&str, Input, [State; 6]); 16] = [
        // in:                                      Standby     Suspecting  Claiming    Rebuilding  Active   Yielding
        ("time passes",     Input::Due,              [Standby,    Suspecting, Claiming,   Active,     Active,  Yielding]),
        ("known owner",     heard("r3", 4, None),  [Standby,    Standby,    Claiming,   Rebuilding, Active,  Yielding]),
        ("old owner",       heard("r1", 3, None),  [Standby,    Suspecting, Claiming,   Rebuilding, Active,  Yielding]),
        ("rival of 5",      heard("r1", 5, None),  [Standby,    Standby,    Standby,    Rebuilding, Active,  Yielding]),
        ("owner of 6",      heard("r1", 6, None),  [Standby,    Standby,    Standby,    Standby,    Standby, Yielding]),
        ("consent to us",   heard("r3", 4, Some("r2")),
                                                   [Standby,    Suspecting, Claiming,   Rebuilding, Active,  Yielding]),
        ("would grant",     granted(Ballot::Trial),[Standby,    Claiming,   Claiming,   Rebuilding, Active,  Yielding]),
        ("grants",          granted(REAL), [Standby,    Suspecting, Active,     Rebuilding, Active,  Yielding]),
        ("one refuses",     refused(Refusal::OwnerAlive, 4),
                                                   [Standby,    Suspecting, Claiming,   Rebuilding, Active,  Yielding]),
        ("one supersedes",  refused(Refusal::Superseded, 6),
                                                   [Standby,    Suspecting, Claiming,   Rebuilding, Active,  Yielding]),
        ("acknowledged",    acknowledged,          [Standby,    Suspecting, Claiming,   Rebuilding, Active,  Yielding]),
        ("superseded",      superseded("r1"),      [Standby,    Suspecting, Claiming,   Rebuilding, Active,  Yielding]),
        ("reported",        Input::Reported,         [Standby,    Suspecting, Claiming,   Active,     Active,  Yielding]),
        ("asked",           asked,                 [Standby,    Suspecting, Claiming,   Rebuilding, Active,  Yielding]),
        ("reordered",       Input::Reordered,        [Standby,    Suspecting, Claiming,   Rebuilding, Active,  Yielding]),
        ("stop",            Input::Stop,             [Standby,    Standby,    Standby,    Rebuilding, Active,  Yielding]),
    ];
    for (what, input, expected) in table {
        for (state, expected) in all.into_iter().zip(expected) {
            assert_eq!(after(state, input.clone(), |_| {}), expected, "{state}: {what}");
        }
    }
}

#[test]
fn a_majority_that_refuses_ends_a_ballot() {
    for state in [Suspecting, Claiming] {
        let refuse = |vipa: &mut Vipa| {
            let (Phase::Suspecting(candidacy) | Phase::Claiming(candidacy)) = &mut vipa.phase else { return };
            candidacy.refuse(name("r3"), Refusal::Recovering);
        };
        assert_eq!(after(state, refused(Refusal::OwnerAlive, 4), refuse), Standby);
    }
}

#[test]
fn an_owner_with_a_majority_outlives_one_voter_that_knows_better_but_not_two() {
    let two = |vipa: &mut Vipa| {
        let (Phase::Rebuilding(ownership) | Phase::Active(ownership)) = &mut vipa.phase else { return };
        ownership.superseded.insert(name("r3"));
    };
    assert_eq!(after(Active, superseded("r1"), two), Standby);
    assert_eq!(after(Active, refused(Refusal::Superseded, 6), two), Standby);
    assert_eq!(after(Rebuilding, superseded("r1"), two), Standby);
}

#[test]
fn an_owner_that_consented_yields_to_the_higher_epoch() {
    let consent = |to: &'static str| {
        move |vipa: &mut Vipa| {
            let (Phase::Rebuilding(ownership) | Phase::Active(ownership)) = &mut vipa.phase else { return };
            ownership.consent = Some(Consent { to: name(to), since: NOW, until: NOW + LEASE });
        }
    };
    assert_eq!(after(Active, heard("r1", 6, None), consent("r1")), Yielding);
    assert_eq!(after(Rebuilding, heard("r1", 6, None), consent("r1")), Yielding);
}

#[test]
fn an_owner_that_yields_sends_what_has_changed_since_its_consent_and_all_to_another_than_it_consented_to() {
    let consented = Moment(NOW.0 - 1_000_000);
    for (to, sent) in [("r1", Some(consented)), ("r3", None)] {
        let consent = |vipa: &mut Vipa| {
            let Phase::Active(ownership) = &mut vipa.phase else { return };
            ownership.consent = Some(Consent { to: name(to), since: consented, until: NOW + LEASE });
            ownership.lease = NOW + LEASE;
        };
        let (_, outputs) = outcome(Active, heard("r1", 6, None), consent);
        let table = |output: Output| match output {
            Output::SendTable { to, since, .. } => Some((to, since)),
            _ => None,
        };
        let tables: Vec<_> = outputs.into_iter().filter_map(table).collect();
        assert_eq!(tables, [(name("r1"), sent)], "consented to {to}");
    }
    let (_, outputs) = outcome(Active, heard("r1", 6, None), |_| {});
    assert!(!outputs.iter().any(|output| matches!(output, Output::SendTable { .. })), "it never consented");
}

#[test]
fn ranked_names_are_what_the_table_assumes() {
    let (vipa, settings) = machine(Standby);
    let (peers, decision_log, groups) = (BTreeMap::new(), DecisionLog::default(), Groups::new());
    let overview = RouterView {
        now: NOW,
        settings: &settings,
        peers: &peers,
        decision_log: &decision_log,
        groups: &groups,
        unfit: false,
        stopping: false,
    };
    let above: Vec<&NodeName> = vipa.before_me(&overview).collect();
    assert_eq!(above, [&name("r1")]);
}
