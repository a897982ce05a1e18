//! The next connection of the same addresses and ports.

mod support;

use std::time::Duration;

use support::*;
use vipa_dataplane::bench::Bench;
use vipa_flow::FlowState;
use vipa_model::{Balance, Moment, Orphans, TargetId};

#[test]
fn a_port_used_again_opens_a_new_connection_in_the_place_of_the_one_that_ended() {
    let mut bench = bench();
    bench.turn([&segment(40_000).syn(), &segment(40_000), &segment(40_000).fin()]);
    let target = target_of(&bench, 40_000);
    bench.turn([&segment(40_000).syn()]);
    assert_eq!(bench.connection(CLIENT, 40_000, 80), Some((target.into(), FlowState::HalfOpen)));
    bench.assert_changed(["received +4", "flow.opened +1", "forwarded +4", "sent +4"]);
}

#[test]
fn the_end_that_is_reported_late_leaves_the_next_connection_of_the_same_port_behind() {
    let mut bench = bench();
    bench.flows.set_linked(TargetId(1), true);
    bench.confirm(CLIENT, 40_000, 80, 1);
    let (syn, data) = (segment(40_000).syn(), segment(40_000).payload(b"next"));
    bench.turn([&syn, &data]);
    bench.end(CLIENT, 40_000, 80, 1);
    assert_eq!(bench.turn([&data]), [to_target(1, &data)]);
    assert_eq!(bench.connection(CLIENT, 40_000, 80), Some((1, FlowState::Open)));
    // Nor does an end take what no report has confirmed.
    bench.end(CLIENT, 40_000, 80, 1);
    assert_eq!(bench.connection(CLIENT, 40_000, 80), Some((1, FlowState::Open)));
}

#[test]
fn late_segments_of_what_has_ended_go_to_its_target_and_a_syn_begins_the_next_connection() {
    let mut bench = bench();
    bench.confirm(CLIENT, 40_000, 80, 1);
    bench.end(CLIENT, 40_000, 80, 1);
    let (late, syn) = (segment(40_000).fin(), segment(40_000).syn());
    assert_eq!(bench.turn([&late]), [to_target(1, &late)]);
    assert_eq!(bench.connection(CLIENT, 40_000, 80), Some((1, FlowState::Ended)));
    bench.serve(Balance::Maglev, &[1]);
    assert_eq!(bench.turn([&syn]), [to_target(1, &syn)]);
    assert_eq!(bench.connection(CLIENT, 40_000, 80), Some((1, FlowState::HalfOpen)));
    // Its target takes no new connections any more.
    bench.confirm(CLIENT, 40_001, 80, 1);
    bench.end(CLIENT, 40_001, 80, 1);
    bench.serve(Balance::Maglev, &[0]);
    let syn = segment(40_001).syn();
    assert_eq!(bench.turn([&syn]), [to_target(0, &syn)]);
    bench.end(CLIENT, 40_001, 80, 0);
    bench.advance(Duration::from_secs(3));
    assert!(bench.connection(CLIENT, 40_001, 80).is_some(), "that end is not this connection's");
}

/// The acknowledgement of a client's FIN may be lost for long, and its target answers from TIME-WAIT. Other segments, so late, are
/// of a connection that this router does not know.
#[test]
fn seconds_after_the_end_a_fin_goes_to_the_target_and_what_is_not_of_that_connection_does_not() {
    let mut bench = bench();
    bench.change(|world| world.services[0].orphans = Orphans::Drop);
    bench.serve(Balance::Maglev, &[0, 1]);
    let (data, fin, syn) = (segment(40_000).payload(b"hello"), segment(40_000).fin(), segment(40_000).syn());
    let end = |bench: &mut Bench| {
        bench.confirm(CLIENT, 40_000, 80, 1);
        bench.end(CLIENT, 40_000, 80, 1);
    };
    end(&mut bench);
    bench.advance(Duration::from_millis(1_500));
    assert_eq!(bench.turn([&data]), [to_target(1, &data)]);
    end(&mut bench);
    bench.advance(Duration::from_secs(10));
    assert_eq!(bench.turn([&data]), NOTHING);
    bench.assert_changed(["received +2", "sent +1", "forwarded +1", "dropped.orphan +1"]);
    assert_eq!(bench.turn([&fin]), [to_target(1, &fin)]);
    // The next connection is placed as any other.
    end(&mut bench);
    bench.serve(Balance::Maglev, &[0]);
    bench.serve(Balance::Maglev, &[0, 1]);
    bench.advance(Duration::from_secs(10));
    let placed = bench.turn([&syn]);
    let mut fresh = self::bench();
    fresh.serve(Balance::Maglev, &[0, 1]);
    assert_eq!(placed, fresh.turn([&syn]));
}

/// Seed 418 of `make chaos`: a target's agent died, connections of that time ended unreported, and their ports were used again while the
/// owner handed over. The owner placed the new connections at another target; the successor sent them to the old one.
#[test]
fn while_a_vipa_changes_hands_a_port_used_again_stays_at_a_target_that_answers() {
    let moved = |hands_over: bool, change: fn(&mut Bench, u8, u8)| {
        let (mut bench, syn, before, other) = after_first_syn();
        bench.turn([&segment(40_000)]);
        bench.turn([&segment(40_000).rst()]);
        assert_eq!(bench.connection(CLIENT, 40_000, 80), Some((before.into(), FlowState::Closing)));
        change(&mut bench, before, other);
        let quiet_until = if hands_over { bench.now + Duration::from_secs(1) } else { Moment::ZERO };
        bench.change(|world| world.quiet_until = quiet_until);
        let sent = bench.turn([&syn]);
        assert!(sent == [to_target(before, &syn)] || sent == [to_target(other, &syn)], "{sent:?}");
        sent == [to_target(other, &syn)]
    };
    let lost_its_agent = |bench: &mut Bench, before: u8, other: u8| {
        bench.change(|world| world.targets[usize::from(before)].on_link = true);
        bench.serve(Balance::Maglev, &[other.into()]);
    };
    assert!(!moved(true, lost_its_agent));
    assert!(moved(false, lost_its_agent), "who has time places it where agents are linked");
    let drains = |bench: &mut Bench, before: u8, other: u8| {
        bench.flows.set_linked(TargetId(before.into()), true);
        bench.serve(Balance::Maglev, &[other.into()]);
        bench.drain(&[before.into()]);
    };
    assert!(!moved(true, drains));
    assert!(moved(false, drains));
    let is_silent = |bench: &mut Bench, before: u8, other: u8| {
        bench.change(|world| {
            let target = &mut world.targets[usize::from(before)];
            (target.on_link, target.silent) = (true, true);
        });
        bench.serve(Balance::Maglev, &[other.into()]);
    };
    assert!(moved(true, is_silent), "nobody would answer there");
    let serves_no_longer = |bench: &mut Bench, before: u8, other: u8| {
        bench.flows.set_linked(TargetId(before.into()), true);
        bench.serve(Balance::Maglev, &[other.into()]);
    };
    assert!(moved(true, serves_no_longer), "its server would refuse it");
}

#[test]
fn a_client_that_comes_again_is_placed_anew_when_its_target_has_been_away_for_long() {
    let mut bench = bench();
    bench.confirm(CLIENT, 40_000, 80, 1);
    bench.change(|world| world.targets[1].away = true);
    let (data, syn) = (segment(40_000).payload(b"data"), segment(40_000).syn());
    assert_eq!(bench.turn([&data]), [to_target(1, &data)], "it may be there all the same");
    bench.serve(Balance::Maglev, &[0]);
    assert_eq!(bench.turn([&data, &syn]), [to_target(1, &data), to_target(0, &syn)]);
    assert_eq!(bench.connection(CLIENT, 40_000, 80), Some((0, FlowState::HalfOpen)));
    bench.assert_changed(["received +3", "forwarded +3", "sent +3", "flow.opened +1"]);
}

/// Its client comes again from the same port, as a SIP trunk or a replica does, and nobody else will say what became of it.
#[test]
fn a_connection_whose_target_is_gone_is_placed_anew_at_once_and_one_of_which_nobody_knows_at_the_second_syn() {
    let syn = segment(40_000).syn();
    for (linked, silent, on_link, first, second) in [
        (false, true, true, 0, 0),
        (false, false, false, 1, 0),
        // Its kernel runs, and answers a SYN, too.
        (false, false, true, 1, 1),
        (true, true, true, 1, 1),
    ] {
        let mut bench = bench();
        bench.flows.set_linked(TargetId(1), linked);
        bench.confirm(CLIENT, 40_000, 80, 1);
        bench.change(|world| (world.targets[1].silent, world.targets[1].on_link) = (silent, on_link));
        bench.serve(Balance::Maglev, &[0]);
        assert_eq!(bench.turn([&syn]), [to_target(first, &syn)], "linked {linked}, silent {silent}");
        bench.advance(Duration::from_millis(200));
        if first == 1 {
            assert_eq!(bench.turn([&syn]), [to_target(1, &syn)], "the network may have doubled it");
            bench.advance(Duration::from_millis(1_000));
            assert_eq!(bench.turn([&syn]), [to_target(second, &syn)], "linked {linked}, silent {silent}");
        }
    }
    // Between the two the client went on: the target has answered.
    let mut bench = bench();
    bench.confirm(CLIENT, 40_000, 80, 1);
    bench.change(|world| world.targets[1].on_link = false);
    bench.serve(Balance::Maglev, &[0]);
    bench.turn([&syn]);
    bench.turn([&segment(40_000).payload(b"data")]);
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.turn([&syn]), [to_target(1, &syn)]);
}
