//! Fates of new connections when the table has no slot for them.

mod support;

use std::time::Duration;

use support::*;
use vipa_dataplane::{Limits, bench::Bench};
use vipa_handoff::{Count, Fate, ForwardingAction, LocalReply, Reason};
use vipa_model::{Balance, Stance, TargetId};
use vipa_packet::{
    TcpFlags,
    build::{Builder, packet},
};

/// A table full of connections that the targets hold.
fn full() -> Bench {
    full_of(SERVICE, 80)
}

/// [`full`] with this service on this port.
fn full_of(service: &str, vipa_port: u16) -> Bench {
    let mut bench = Bench::with_limits(service, [T0, T1], 8, Limits::default());
    (1..200).for_each(|port| bench.confirm(CLIENT, port, vipa_port, 0));
    bench.check_counters();
    bench
}

#[test]
fn a_connection_without_a_place_goes_by_hash_to_one_target_from_its_first_segment_to_its_last() {
    let mut bench = full();
    // As an empty table has it.
    let mut empty = Bench::with_service(SERVICE, [T0, T1]);
    let mut targets = std::collections::BTreeSet::new();
    for port in 40_000..40_020 {
        empty.turn([&segment(port).syn()]);
        let target = target_of(&empty, port);
        targets.insert(target);
        for packet in [
            segment(port).syn(),
            segment(port).syn(),
            segment(port).payload(b"GET /"),
            segment(port).flags(TcpFlags::FIN),
            segment(port).flags(TcpFlags::RST),
        ] {
            assert_eq!(bench.turn([&packet]), [to_target(target, &packet)]);
            assert_eq!(bench.connection(CLIENT, port, 80), None);
            bench.assert_changed(["received +1", "flow.unrecorded +1", "forwarded +1", "sent +1"]);
        }
        bench.advance(Duration::from_millis(100));
    }
    assert_eq!(targets.len(), 2);
}

#[test]
fn a_minute_after_the_last_one_unknown_segments_meet_the_services_policy_again() {
    let mut bench = full();
    let stray = segment(50_000).payload(b"stray");
    assert_eq!(bench.turn([&stray]).len(), 1, "a reset: there was a place for each so far");
    bench.assert_changed(["received +1", "replied.reset +1", "sent +1"]);
    bench.turn([&segment(40_000).syn()]);
    bench.advance(Duration::from_secs(59));
    bench.turn([&stray]);
    assert_eq!(bench.control.totals().count(Count::FlowUnrecorded), 2);
    bench.advance(Duration::from_secs(2));
    bench.turn([&stray]);
    let totals = bench.control.totals();
    assert_eq!((totals.count(Count::FlowUnrecorded), totals.fate(Fate::Local(LocalReply::Reset))), (2, 2));
}

fn datagram(port: u16) -> Builder {
    from_client().ipv4(CLIENT, VIPA).udp(port, 53).payload(b"?")
}

#[test]
fn a_udp_flow_without_a_place_passes_the_limits_on_new_ones_once() {
    let mut bench = full_of("192.0.2.10:53/udp", 53);
    // One new flow at a time, and the next one in a second.
    bench.change(|world| world.new_per_second = Some(1));
    // The worker takes the limit at the end of a turn.
    bench.turn([]);
    bench.turn([&datagram(40_000)]);
    bench.assert_changed(["received +1", "flow.unrecorded +1", "forwarded +1", "sent +1"]);
    let mut empty = Bench::with_service("192.0.2.10:53/udp", [T0, T1]);
    empty.turn([&datagram(40_000)]);
    let target = empty.connection(CLIENT, 40_000, 53).expect("it is in the table").0 as u8;
    for _ in 0..5 {
        assert_eq!(bench.turn([&datagram(40_000)]), [to_target(target, &datagram(40_000))]);
        bench.assert_changed(["received +1", "flow.unrecorded +1", "forwarded +1", "sent +1"]);
    }
    assert_eq!(bench.turn([&datagram(40_001)]), NOTHING, "another flow waits for the limit");
    bench.assert_changed(["received +1", "dropped.vipa-limit +1"]);
    // The packets of the first flow have cost the second one nothing.
    bench.advance(Duration::from_secs(1));
    bench.turn([&datagram(40_000), &datagram(40_001), &datagram(40_001)]);
    bench.assert_changed(["received +3", "flow.unrecorded +3", "forwarded +3", "sent +3"]);
}

#[test]
fn a_udp_flow_without_a_place_gets_the_next_one() {
    let mut bench = full_of("192.0.2.10:53/udp", 53);
    bench.change(|world| world.new_per_second = Some(1));
    let before = bench.turn([&datagram(40_000)]);
    (1..200).for_each(|port| bench.end(CLIENT, port, 53, 0));
    assert_eq!(bench.turn([&datagram(40_000)]), before);
    assert!(bench.connection(CLIENT, 40_000, 53).is_some());
    assert_eq!(bench.control.totals().count(Count::FlowUnrecorded), 1);
}

#[test]
fn icmp_errors_reach_connections_without_a_place() {
    let quoted = |port| packet().ipv4(VIPA, CLIENT).tcp(80, port).build();
    let error = |port| from_client().ipv4("203.0.113.254", VIPA).icmp_too_big(1_400, &quoted(port));
    let mut bench = full();
    assert_eq!(bench.turn([&error(40_000)]), NOTHING, "there was a place for each so far");
    bench.assert_changed(["received +1", "dropped.icmp-orphan +1"]);
    let mut empty = Bench::with_service(SERVICE, [T0, T1]);
    for port in 40_000..40_010 {
        empty.turn([&segment(port).syn()]);
        bench.turn([&segment(port).syn()]);
        bench.assert_changed(["received +1", "flow.unrecorded +1", "forwarded +1", "sent +1"]);
        assert_eq!(bench.turn([&error(port)]), [to_target(target_of(&empty, port), &error(port))]);
        bench.assert_changed(["received +1", "flow.unrecorded +1", "forwarded +1", "sent +1"]);
        bench.advance(Duration::from_millis(100));
    }
    bench.advance(Duration::from_secs(60));
    assert_eq!(bench.turn([&error(40_000)]), NOTHING);
    bench.stance(Stance::Standby);
    bench.turn([&error(40_000)]);
    assert_eq!(bench.control.totals().fate(Fate::Drop(Reason::IcmpOrphan)), 3);
}

#[test]
fn what_is_chosen_by_turns_or_translated_is_refused_where_there_is_no_place() {
    let by_turns: fn(&mut Bench) = |bench| bench.serve(Balance::RoundRobin, &[0, 1]);
    let translated: fn(&mut Bench) = |bench| {
        bench.change(|world| {
            for target in &mut world.targets {
                target.via = ForwardingAction::Nat { port: None };
            }
        });
    };
    for change in [by_turns, translated] {
        let mut bench = full();
        change(&mut bench);
        assert!(bench.turn([&segment(40_000).syn()]).is_empty());
        bench.assert_changed(["received +1", "dropped.table-full +1"]);
    }
}

#[test]
fn spoofed_handshakes_keep_no_connection_out_where_agents_are_linked() {
    let mut bench = Bench::with_limits(SERVICE, [T0, T1], 1_000, Limits::default());
    for target in [0, 1] {
        bench.flows.set_linked(TargetId(target), true);
    }
    for client in 0..10_000_u32 {
        let from = || from_client().ipv4(0xc612_0000 | client, VIPA).tcp(7, 80);
        bench.turn([&from().syn(), &from().payload(b"")]);
    }
    let before = bench.control.totals();
    for port in 40_000..40_500 {
        bench.turn([&segment(port).syn()]);
        let target = target_of(&bench, port);
        bench.confirm(CLIENT, port, 80, target.into());
    }
    let totals = bench.control.totals();
    assert_eq!(totals.count(Count::FlowUnrecorded), before.count(Count::FlowUnrecorded), "each had an entry");
    assert_eq!(totals.fate(Fate::Drop(Reason::TableFull)), 0);
    for port in 40_000..40_500 {
        assert!(bench.connection(CLIENT, port, 80).is_some_and(|(_, state)| state.is_held()));
    }
}
