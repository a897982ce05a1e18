//! Fates of a connection's packets.

mod support;

use std::{cell::Cell, collections::HashSet, time::Duration};

use support::*;
use vipa_dataplane::{Limits, bench::Bench};
use vipa_flow::FlowState;
use vipa_handoff::{Count, Fate, Reason};
use vipa_model::{Balance, Moment, Orphans, PortRange, Stance, TargetId};
use vipa_packet::{TcpFlags, build::Builder, icmp};

#[test]
fn a_syn_opens_a_connection_and_goes_to_its_target_and_so_does_what_follows() {
    let mut bench = bench();
    let syn = segment(40_000).syn();
    let sent = bench.turn([&syn]);
    let target = target_of(&bench, 40_000);
    assert_eq!(sent, [to_target(target, &syn)]);
    assert_eq!(bench.connection(CLIENT, 40_000, 80), Some((target.into(), FlowState::HalfOpen)));
    bench.assert_changed(["received +1", "flow.opened +1", "forwarded +1", "sent +1"]);

    let data = segment(40_000).payload(b"GET /");
    assert_eq!(bench.turn([&data]), [to_target(target, &data)]);
    assert_eq!(bench.connection(CLIENT, 40_000, 80), Some((target.into(), FlowState::Open)));
    bench.assert_changed(["received +1", "forwarded +1", "sent +1"]);
}

/// The machine stops the worker for 400 ms under a lease of 100 ms, after `readings` readings of the clock in one turn.
#[test]
fn a_worker_that_is_stopped_within_a_turn_admits_no_further_burst_after_its_lease() {
    // The first reading begins the turn, each further one is for a burst.
    for (readings, admitted) in [(1, 0), (2, 32), (3, 64), (4, 96)] {
        let mut bench = bench();
        let now = bench.now;
        bench.world.lease.set(now + Duration::from_millis(100));
        bench.rx().arriving.extend((0..96).map(|n| segment(40_000 + n).syn().build()));
        let count = Cell::new(0);
        let received = bench.worker.turn(|| {
            count.set(count.get() + 1);
            if count.get() > readings { now + Duration::from_millis(400) } else { now }
        });
        assert_eq!(received, 96);
        let totals = bench.control.totals();
        let opened = totals.count(Count::FlowOpened);
        assert_eq!((opened, totals.fate(Fate::Drop(Reason::Fenced))), (admitted, 96 - admitted), "{readings} readings");
    }
}

#[test]
fn a_worker_that_the_machine_starves_sheds_no_new_connection() {
    let mut bench = bench();
    bench.turn([&segment(1_000).syn(), &segment(1_000)]);
    let mut port = 2_000;
    for _ in 0..10 {
        // More packets have arrived while the worker had no core than a turn takes, and the machine stops it again
        // after the turn.
        let mut packets = vec![segment(1_000)];
        packets.extend((0..399).map(|n| segment(port + n).syn()));
        port += 399;
        bench.rx().arriving.extend(packets.iter().map(Builder::build));
        for _ in 0..2 {
            bench.advance(Duration::from_millis(60));
            let now = bench.now;
            bench.worker.turn(|| now);
        }
    }
    let totals = bench.control.totals();
    assert_eq!((totals.count(Count::Received), totals.fate(Fate::Drop(Reason::Overload))), (4_002, 0));
    assert_eq!(totals.count(Count::FlowOpened), 3_991);
}

#[test]
fn a_fin_or_a_reset_begins_the_end_and_later_packets_still_arrive() {
    for end in [TcpFlags::FIN.with(TcpFlags::ACK), TcpFlags::RST] {
        let mut bench = bench();
        let packets = [segment(40_000).syn(), segment(40_000), segment(40_000).flags(end), segment(40_000)];
        let sent = bench.turn(&packets);
        let target = target_of(&bench, 40_000);
        assert_eq!(sent, packets.each_ref().map(|packet| to_target(target, packet)));
        assert_eq!(bench.connection(CLIENT, 40_000, 80), Some((target.into(), FlowState::Closing)));
        bench.assert_changed(["received +4", "flow.opened +1", "forwarded +4", "sent +4"]);
    }
}

#[test]
fn connections_spread_over_all_targets_by_either_balance() {
    for balance in [Balance::Maglev, Balance::RoundRobin] {
        let mut bench = bench();
        bench.serve(balance, &[0, 1]);
        let syns: Vec<_> = (0..100).map(|n| segment(40_000 + n).syn()).collect();
        assert_eq!(bench.turn(&syns).len(), 100);
        let at: Vec<_> = (0..100).map(|n| target_of(&bench, 40_000 + n)).collect();
        assert!((30..=70).contains(&at.iter().filter(|n| **n == 0).count()), "{balance:?}: {at:?}");
        bench.assert_changed(["received +100", "flow.opened +100", "forwarded +100", "sent +100"]);
    }
}

#[test]
fn a_syn_sent_again_goes_where_the_first_one_went() {
    for balance in [Balance::Maglev, Balance::RoundRobin] {
        let mut bench = bench();
        bench.serve(balance, &[0, 1]);
        let syn = segment(40_000).syn();
        let sent = bench.turn([&syn, &syn, &syn]);
        assert_eq!(sent.iter().map(|packet| format!("{packet:?}")).collect::<HashSet<_>>().len(), 1);
        bench.assert_changed(["received +3", "flow.opened +1", "forwarded +3", "sent +3"]);
    }
}

#[test]
fn a_syn_whose_target_serves_no_longer_is_placed_anew_unless_the_connection_is_established() {
    let (mut bench, syn, before, other) = after_first_syn();
    bench.flows.set_linked(TargetId(before.into()), true);
    bench.serve(Balance::Maglev, &[other.into()]);
    assert_eq!(bench.turn([&syn]), [to_target(other, &syn)]);
    assert_eq!(bench.connection(CLIENT, 40_000, 80), Some((other.into(), FlowState::HalfOpen)));
    bench.assert_changed(["received +2", "flow.opened +2", "forwarded +2", "sent +2"]);

    bench.turn([&segment(40_000)]);
    bench.serve(Balance::Maglev, &[before.into()]);
    assert_eq!(bench.turn([&syn]), [to_target(other, &syn)], "anybody may have sent this SYN");
    assert_eq!(bench.connection(CLIENT, 40_000, 80), Some((other.into(), FlowState::Open)));
}

/// Its SYN-ACK may have been lost, and is repeated at the time of the second SYN.
#[test]
fn a_second_syn_stays_with_a_target_whose_agent_has_gone_away_while_its_kernel_answers_neighbours() {
    for (silent, on_link, stays) in [(false, true, true), (true, true, false), (false, false, false)] {
        let (mut bench, syn, before, other) = after_first_syn();
        bench.change(|world| {
            let target = &mut world.targets[usize::from(before)];
            (target.silent, target.on_link) = (silent, on_link);
        });
        bench.serve(Balance::Maglev, &[other.into()]);
        bench.advance(Duration::from_secs(1));
        let target = if stays { before } else { other };
        assert_eq!(bench.turn([&syn]), [to_target(target, &syn)], "silent {silent}, on link {on_link}");
    }
}

#[test]
fn a_second_syn_stays_with_a_target_that_has_begun_to_drain() {
    let (mut bench, syn, before, other) = after_first_syn();
    bench.flows.set_linked(TargetId(before.into()), true);
    bench.serve(Balance::Maglev, &[other.into()]);
    bench.drain(&[before.into()]);
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.turn([&syn]), [to_target(before, &syn)]);
    let next = segment(40_001).syn();
    assert_eq!(bench.turn([&next]), [to_target(other, &next)]);
}

#[test]
fn a_confirmed_connection_goes_to_the_target_that_holds_it_in_every_stance_lease_or_not() {
    let stances = [Stance::Standby, Stance::Rebuilding, Stance::Active, Stance::Yielding];
    for (stance, lease) in stances.into_iter().flat_map(|stance| [(stance, Moment::ZERO), (stance, Moment(u64::MAX))]) {
        let mut bench = bench();
        bench.confirm(CLIENT, 40_000, 80, 1);
        // Neither serving nor listed: an established connection stays at its target.
        bench.change(|world| (world.stance, world.services) = (stance, Vec::new()));
        bench.world.lease.set(lease);
        let (data, syn) = (segment(40_000).payload(b"data"), segment(40_000).syn());
        assert_eq!(bench.turn([&data]), [to_target(1, &data)], "{stance:?}");
        bench.assert_changed(["received +1", "forwarded +1", "sent +1"]);
        // The SYN ends nothing: the target holds the connection and answers it.
        if stance != Stance::Standby && lease != Moment::ZERO {
            assert_eq!(bench.turn([&syn]), [to_target(1, &syn)], "{stance:?}");
            assert_eq!(bench.connection(CLIENT, 40_000, 80), Some((1, FlowState::Reopened)));
        }
    }
}

/// Nothing has been reported about the target's connections for a while: the client may have ended this one and begun
/// the next at a target that has not reported it yet.
#[test]
fn what_a_target_said_before_its_agent_was_lost_waits_while_the_others_report() {
    for (linked, away, silent_ms, waits) in [
        (false, false, 1_100, true),
        (false, false, 200, false),
        (true, false, 1_100, false),
        (false, true, 1_100, false),
    ] {
        let mut bench = bench();
        bench.confirm(CLIENT, 40_000, 80, 1);
        bench.flows.set_linked(TargetId(1), linked);
        bench.advance(Duration::from_millis(silent_ms));
        bench.change(|world| (world.stance, world.targets[1].away) = (Stance::Rebuilding, away));
        let data = segment(40_000).payload(b"data");
        let sent = bench.turn([&data]);
        if !waits {
            assert_eq!(sent, [to_target(1, &data)], "linked {linked}, away {away}, {silent_ms} ms");
            continue;
        }
        assert_eq!(sent, NOTHING);
        bench.confirm(CLIENT, 40_000, 80, 0);
        assert_eq!(bench.turn([]), [to_target(0, &data)]);
        // Where no target reports it, it stays at its target.
        bench.confirm(CLIENT, 40_001, 80, 1);
        bench.advance(Duration::from_millis(1_100));
        let data = segment(40_001).payload(b"data");
        assert_eq!(bench.turn([&data]), NOTHING);
        bench.stance(Stance::Active);
        assert_eq!(bench.turn([]), [to_target(1, &data)]);
    }
}

/// A SYN may begin the next connection of its addresses and ports, and another router places that. A router that was
/// stopped for a while finds such SYNs in its queues: forwarded, they begin a connection that the owner does not know.
#[test]
fn a_router_that_does_not_own_forwards_no_syn_whatever_it_knows_of_the_connection() {
    use FlowState::{Closing, Confirmed, Ended, HalfOpen, Open};
    let syn = segment(40_000).syn();
    for state in [HalfOpen, Open, Confirmed, Closing, Ended] {
        for (stance, lease, dropped) in [
            (Stance::Standby, Moment(u64::MAX), "dropped.standby +1"),
            (Stance::Rebuilding, Moment::ZERO, "dropped.fenced +1"),
            (Stance::Active, Moment::ZERO, "dropped.fenced +1"),
            (Stance::Yielding, Moment::ZERO, "dropped.fenced +1"),
        ] {
            let mut bench = bench();
            bench.admit(CLIENT, 40_000, 80, 1, state);
            bench.change(|world| world.stance = stance);
            bench.world.lease.set(lease);
            assert_eq!(bench.turn([&syn]), NOTHING, "{state:?}, {stance:?}");
            bench.assert_changed(["received +1", dropped]);
            assert_eq!(bench.connection(CLIENT, 40_000, 80), Some((1, state)));
        }
    }
}

/// The target that holds the next connection of these addresses and ports may not have reported it yet.
#[test]
fn segments_of_what_has_ended_are_held_for_as_long_as_unknown_ones_are_after_a_takeover() {
    let mut bench = bench();
    let quiet_until = bench.now + Duration::from_millis(200);
    bench.change(|world| world.quiet_until = quiet_until);
    bench.confirm(CLIENT, 40_000, 80, 1);
    bench.end(CLIENT, 40_000, 80, 1);
    let data = segment(40_000).payload(b"data");
    assert_eq!(bench.turn([&data]), NOTHING);
    bench.confirm(CLIENT, 40_000, 80, 0);
    assert_eq!(bench.turn([&data]), [to_target(0, &data), to_target(0, &data)]);
}

/// Anybody may send a segment of any connection, with any flags.
#[test]
fn no_segment_takes_back_what_a_linked_target_has_reported() {
    for flags in ["fin", "rst", "syn", "rst, syn", "syn, fin"] {
        let mut bench = bench();
        bench.flows.set_linked(TargetId(1), true);
        bench.confirm(CLIENT, 40_000, 80, 1);
        for flag in flags.split(", ") {
            let forged = match flag {
                "fin" => segment(40_000).fin(),
                "rst" => segment(40_000).flags(TcpFlags::RST),
                _ => segment(40_000).syn(),
            };
            assert_eq!(bench.turn([&forged]), [to_target(1, &forged)], "{flags}");
        }
        let (_, state) = bench.connection(CLIENT, 40_000, 80).unwrap();
        assert!(state.is_held(), "{flags}: {state:?}");
        bench.advance(Duration::from_secs(13_000));
        let late = segment(40_000).payload(b"late");
        assert_eq!(bench.turn([&late]), [to_target(1, &late)], "{flags}");
        assert_eq!(bench.connection(CLIENT, 40_000, 80), Some((1, FlowState::Confirmed)), "{flags}");
    }
}

#[test]
fn while_a_vipa_changes_hands_a_syn_that_is_sent_again_goes_where_the_first_went() {
    let target = |stance, quiet_until, turns: u16| {
        let mut bench = bench();
        bench.serve(Balance::RoundRobin, &[0, 1]);
        for port in 0..turns {
            bench.turn([&segment(30_000 + port).syn()]);
        }
        bench.change(|world| (world.stance, world.quiet_until) = (stance, quiet_until));
        (0..16)
            .map(|port| {
                bench.turn([&segment(40_000 + port).syn()]);
                target_of(&bench, 40_000 + port)
            })
            .collect::<Vec<_>>()
    };
    let now = bench().now;
    let expected = target(Stance::Yielding, Moment::ZERO, 0);
    assert!(expected.contains(&0) && expected.contains(&1));
    assert_eq!(target(Stance::Yielding, Moment::ZERO, 1), expected);
    assert_eq!(target(Stance::Rebuilding, now + Duration::from_secs(1), 1), expected);
    assert_eq!(target(Stance::Active, now + Duration::from_secs(1), 1), expected);
    let by_turns = target(Stance::Active, Moment::ZERO, 0);
    assert!(by_turns.chunks(2).all(|pair| pair[0] != pair[1]), "{by_turns:?}");
}

#[test]
fn what_a_target_reported_is_kept_while_it_is_there_and_ages_when_it_has_been_away_for_long() {
    let mut bench = bench();
    bench.confirm(CLIENT, 40_000, 80, 0);
    bench.confirm(CLIENT, 40_001, 80, 1);
    bench.change(|world| world.targets[1].away = true);
    bench.turn([]);
    bench.check_counters();
    bench.advance(Duration::from_secs(3_700));
    for _ in 0..20 {
        bench.advance(Duration::from_secs(1));
        bench.turn([]);
    }
    assert_eq!(bench.connection(CLIENT, 40_000, 80), Some((0, FlowState::Confirmed)));
    assert_eq!(bench.connection(CLIENT, 40_001, 80), None);
    bench.assert_changed(["flow.aged +1"]);
}

#[test]
fn new_connections_are_admitted_while_rebuilding_and_yielding() {
    for stance in [Stance::Rebuilding, Stance::Yielding] {
        let mut bench = bench();
        bench.stance(stance);
        bench.turn([&segment(40_000).syn()]);
        bench.assert_changed(["received +1", "flow.opened +1", "forwarded +1", "sent +1"]);
    }
}

#[test]
fn a_backup_admits_nothing() {
    let mut bench = bench();
    bench.stance(Stance::Standby);
    assert_eq!(bench.turn([&segment(40_000).syn(), &segment(40_001)]), NOTHING);
    bench.assert_changed(["received +2", "dropped.standby +2"]);
}

#[test]
fn nothing_new_is_admitted_or_answered_from_the_moment_the_lease_passes() {
    let mut bench = bench();
    bench.world.lease.set(bench.now + Duration::from_nanos(1));
    bench.turn([&segment(40_000).syn()]);
    bench.assert_changed(["received +1", "flow.opened +1", "forwarded +1", "sent +1"]);
    bench.advance(Duration::from_nanos(1));
    assert_eq!(bench.turn([&segment(40_001).syn(), &segment(40_002)]), NOTHING);
    bench.assert_changed(["received +2", "dropped.fenced +2"]);
}

#[test]
fn an_orphan_of_an_active_vipa_is_answered_with_a_reset() {
    let mut bench = bench();
    let orphan = segment(40_000).sequence(7).acknowledge(1000).payload(b"hello");
    let reset = from_client().ipv4(VIPA, CLIENT).tcp(80, 40_000).flags(TcpFlags::RST).sequence(1000);
    let sent = bench.turn([&orphan]);
    assert_eq!(sent.len(), 1);
    let parsed = vipa_packet::parse(sent[0].as_ref()).unwrap();
    let expected = vipa_packet::parse(to_client(reset).build().as_ref()).unwrap();
    assert_eq!(parsed, expected);
    bench.assert_changed(["received +1", "replied.reset +1", "sent +1"]);
}

#[test]
fn a_reset_without_a_connection_is_never_answered() {
    let mut bench = bench();
    assert_eq!(bench.turn([&segment(40_000).flags(TcpFlags::RST)]), NOTHING);
    bench.assert_changed(["received +1", "dropped.orphan +1"]);
}

#[test]
fn an_orphan_is_dropped_or_placed_when_its_service_says_so_and_left_to_the_successor_when_yielding() {
    let mut bench = bench();
    bench.change(|world| world.services[0].orphans = Orphans::Drop);
    assert_eq!(bench.turn([&segment(40_000)]), NOTHING);
    bench.assert_changed(["received +1", "dropped.orphan +1"]);
    bench.change(|world| world.services[0].orphans = Orphans::Balance);
    assert_eq!(bench.turn([&segment(40_000)]).len(), 1);
    assert_eq!(bench.connection(CLIENT, 40_000, 80).unwrap().1, FlowState::Open);
    bench.assert_changed(["received +1", "flow.opened +1", "forwarded +1", "sent +1"]);
    bench.stance(Stance::Yielding);
    assert_eq!(bench.turn([&segment(40_001)]), NOTHING);
    bench.assert_changed(["received +1", "dropped.orphan +1"]);
}

#[test]
fn a_port_without_service_and_a_service_without_target_admit_nothing() {
    let mut bench = bench();
    let elsewhere = from_client().ipv4(CLIENT, VIPA).tcp(40_000, 81);
    assert_eq!(bench.turn([&elsewhere.clone().syn(), &elsewhere]), NOTHING);
    bench.assert_changed(["received +2", "dropped.no-service +2"]);
    bench.serve(Balance::Maglev, &[]);
    assert_eq!(bench.turn([&segment(40_000).syn()]), NOTHING);
    bench.assert_changed(["received +1", "dropped.no-target +1"]);
}

#[test]
fn a_service_may_span_ports() {
    let mut bench = bench();
    bench.change(|world| world.services[0].ports = PortRange { first: 8000, last: 8099 });
    let to = |port| from_client().ipv4(CLIENT, VIPA).tcp(40_000, port).syn();
    bench.turn([&to(7999), &to(8000), &to(8099), &to(8100)]);
    bench.assert_changed(["received +4", "dropped.no-service +2", "flow.opened +2", "forwarded +2", "sent +2"]);
}

#[test]
fn a_full_table_drops_new_connections_or_gives_up_half_open_ones() {
    let mut bench = Bench::with_limits(SERVICE, [T0, T1], 8, Limits::default());
    let syns: Vec<_> = (0..200).map(|n| segment(40_000 + n).syn()).collect();
    bench.turn(&syns);
    let totals = bench.control.totals();
    let count = |name| totals.iter().find(|(counter, _)| *counter == name).unwrap().1;
    assert_eq!(count("flow.opened") + count("dropped.table-full"), 200);
    assert!(bench.flows.evictions() + count("dropped.table-full") > 150);
    assert_eq!(count("flow.opened") - bench.flows.evictions(), bench.flows.count().total());
}

#[test]
fn what_was_silent_for_too_long_leaves_the_table() {
    let mut bench = bench();
    bench.turn([&segment(40_000).syn()]);
    bench.check_counters();
    for _ in 0..60 {
        bench.advance(Duration::from_secs(1));
        bench.turn([]);
    }
    assert_eq!(bench.connection(CLIENT, 40_000, 80), None);
    bench.assert_changed(["flow.aged +1"]);
}

#[test]
fn an_icmp_error_about_a_connection_goes_to_its_target() {
    let mut bench = bench();
    bench.confirm(CLIENT, 40_000, 80, 1);
    let from_vipa = from_client().ipv4(VIPA, CLIENT).tcp(80, 40_000).payload([0; 1400]).build();
    let too_big = from_client().ipv4("198.51.100.77", VIPA).icmp_too_big(1280, &from_vipa);
    assert_eq!(bench.turn([&too_big]), [to_target(1, &too_big)]);
    bench.assert_changed(["received +1", "forwarded +1", "sent +1"]);

    let unknown = from_client().ipv4(VIPA, CLIENT).tcp(80, 40_001).build();
    let lying = from_client().ipv4("192.0.2.99", CLIENT).tcp(80, 40_000).build();
    let source = "198.51.100.77";
    bench.turn([
        &from_client().ipv4(source, VIPA).icmp_unreachable(1, &unknown),
        &from_client().ipv4(source, VIPA).icmp_unreachable(1, &lying),
        &from_client().ipv4(source, VIPA).icmp(icmp::ECHO_REPLY, 0, 0),
    ]);
    bench.assert_changed(["received +3", "dropped.icmp-orphan +1", "dropped.icmp +2"]);
}

#[test]
fn udp_goes_to_one_target_as_long_as_it_serves() {
    let mut bench = Bench::with_service("192.0.2.10:53/udp", [T0, T1]);
    let query = from_client().ipv4(CLIENT, VIPA).udp(40_000, 53).payload(b"?");
    let sent = bench.turn([&query, &query]);
    let (target, state) = bench.connection(CLIENT, 40_000, 53).unwrap();
    assert_eq!(state, FlowState::Udp);
    assert_eq!(sent, [to_target(target as u8, &query), to_target(target as u8, &query)]);
    bench.assert_changed(["received +2", "flow.opened +1", "forwarded +2", "sent +2"]);

    bench.serve(Balance::Maglev, &[1 - target]);
    assert_eq!(bench.turn([&query]), [to_target(1 - target as u8, &query)]);
    bench.assert_changed(["received +1", "flow.opened +1", "forwarded +1", "sent +1"]);
    bench.stance(Stance::Standby);
    bench.serve(Balance::Maglev, &[target]);
    assert_eq!(bench.turn([&query]), [to_target(1 - target as u8, &query)], "a backup places nothing");
    bench.assert_changed(["received +1", "forwarded +1", "sent +1"]);
}

#[test]
fn udp_flows_of_a_draining_target_stay_there_and_new_ones_go_elsewhere() {
    let mut bench = Bench::with_service("192.0.2.10:53/udp", [T0, T1]);
    let datagram = |port| from_client().ipv4(CLIENT, VIPA).udp(port, 53).payload(b"?");
    bench.turn([&datagram(40_000)]);
    let (target, _) = bench.connection(CLIENT, 40_000, 53).unwrap();
    let other = 1 - target;
    bench.check_counters();

    bench.serve(Balance::Maglev, &[other]);
    bench.drain(&[target]);
    assert_eq!(bench.turn([&datagram(40_000)]), [to_target(target as u8, &datagram(40_000))]);
    bench.assert_changed(["received +1", "forwarded +1", "sent +1"]);
    let new: Vec<_> = (50_000..50_020).map(datagram).collect();
    let expected: Vec<_> = new.iter().map(|datagram| to_target(other as u8, datagram).build()).collect();
    assert_eq!(bench.turn(&new), expected);
    bench.assert_changed(["received +20", "flow.opened +20", "forwarded +20", "sent +20"]);

    // There is no other target: the flow stays, and nothing new is placed.
    bench.serve(Balance::Maglev, &[]);
    assert_eq!(bench.turn([&datagram(40_000), &datagram(50_050)]), [to_target(target as u8, &datagram(40_000))]);
    bench.assert_changed(["received +2", "forwarded +1", "sent +1", "dropped.no-target +1"]);

    // The target stops serving.
    bench.drain(&[]);
    bench.serve(Balance::Maglev, &[other]);
    assert_eq!(bench.turn([&datagram(40_000)]), [to_target(other as u8, &datagram(40_000))]);
    bench.assert_changed(["received +1", "flow.opened +1", "forwarded +1", "sent +1"]);
}

#[test]
fn what_a_port_refuses_is_counted_and_not_sent_again() {
    let mut bench = bench();
    bench.tx().room = 2;
    let syns: Vec<_> = (0..5).map(|n| segment(40_000 + n).syn()).collect();
    assert_eq!(bench.turn(&syns).len(), 2);
    bench.assert_changed(["received +5", "flow.opened +5", "forwarded +2", "sent +2", "dropped.tx-refused +3"]);
    bench.tx().room = usize::MAX;
    assert_eq!(bench.turn([]), NOTHING);
    bench.assert_changed([]);
}

#[test]
fn more_than_a_burst_is_forwarded_in_order() {
    let mut bench = bench();
    bench.confirm(CLIENT, 40_000, 80, 0);
    let packets: Vec<_> = (0..100).map(|n| segment(40_000).sequence(n)).collect();
    let expected: Vec<_> = packets.iter().map(|packet| to_target(0, packet).build()).collect();
    assert_eq!(bench.turn(&packets), expected);
}

#[test]
fn what_a_port_refuses_of_a_whole_burst_is_counted_and_not_sent_again() {
    let mut bench = bench();
    bench.confirm(CLIENT, 40_000, 80, 0);
    bench.confirm(CLIENT, 40_001, 80, 1);
    bench.tx().room = 20;
    let segments: Vec<_> = (0..32).map(|n| segment(40_000 + n % 2).sequence(n.into())).collect();
    let expected: Vec<_> = (0..20).map(|n| to_target(n as u8 % 2, &segments[n]).build()).collect();
    assert_eq!(bench.turn(&segments), expected);
    bench.assert_changed(["received +32", "forwarded +20", "sent +20", "dropped.tx-refused +12"]);
    bench.tx().room = usize::MAX;
    assert_eq!(bench.turn([]), NOTHING);
    bench.assert_changed([]);
}

#[test]
fn a_packet_that_is_no_segment_of_a_connection_stops_those_before_and_after_it_not() {
    for odd in [0, 13, 31] {
        let mut bench = bench();
        bench.confirm(CLIENT, 40_000, 80, 0);
        let mut packets: Vec<_> = (0..32).map(|n| segment(40_000).sequence(n)).collect();
        packets[odd] = from_client().ipv4(CLIENT, VIPA).icmp_echo(7, 1);
        let mut expected: Vec<_> = packets.iter().map(|packet| to_target(0, packet).build()).collect();
        let sent = bench.turn(&packets);
        expected[odd] = sent[odd].clone();
        assert_eq!(sent, expected, "{odd}");
        bench.assert_changed(["received +32", "forwarded +31", "replied.icmp-echo +1", "sent +32"]);
    }
}
