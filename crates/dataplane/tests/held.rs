//! Packets that wait while a connection table is rebuilt.

mod support;

use std::{cell::Cell, time::Duration};

use support::*;
use vipa_dataplane::{Limits, bench::Bench};
use vipa_handoff::VipaTotals;
use vipa_model::{Moment, Orphans, PortRange, Stance, VipaId};
use vipa_packet::TcpFlags;

const MS: Duration = Duration::from_millis(1);

fn rebuilding() -> Bench {
    let mut bench = bench();
    bench.stance(Stance::Rebuilding);
    bench
}

#[test]
fn an_unknown_connections_packets_wait_and_are_forwarded_in_order_once_its_target_reports_it() {
    let mut bench = rebuilding();
    let packets: Vec<_> = (0..40).map(|n| segment(40_000).sequence(n)).collect();
    assert_eq!(bench.turn(&packets), NOTHING);
    bench.assert_changed(["received +40", "held +40", "holding +40"]);
    bench.confirm(CLIENT, 40_000, 80, 1);
    bench.advance(MS);
    let expected: Vec<_> = packets.iter().map(|packet| to_target(1, packet).build()).collect();
    assert_eq!(bench.turn([]), expected);
    bench.assert_changed(["released +40", "holding -40", "forwarded +40", "sent +40"]);
}

#[test]
fn what_is_held_released_given_up_and_forwarded_is_counted_for_its_vipa() {
    let mut bench = rebuilding();
    let of_vipa = |bench: &Bench| bench.control.vipa_totals(VipaId(0));
    bench.confirm(CLIENT, 40_000, 80, 1);
    bench.turn([&segment(40_000), &segment(40_000), &segment(40_001), &segment(40_002)]);
    assert_eq!(of_vipa(&bench), VipaTotals { held: 2, forwarded: 2, ..VipaTotals::default() });
    bench.confirm(CLIENT, 40_001, 80, 1);
    bench.advance(MS);
    bench.turn([]);
    let released = VipaTotals { held: 2, released: 1, left: 1, forwarded: 2, ..VipaTotals::default() };
    assert_eq!(of_vipa(&bench), released);
    bench.advance(Duration::from_secs(3));
    bench.turn([]);
    let given_up = VipaTotals { expired: 1, left: 2, ..released };
    assert_eq!(of_vipa(&bench), given_up);
    assert!(of_vipa(&bench).holds_nothing());
    bench.stance(Stance::Active);
    bench.turn([&segment(40_000)]);
    assert_eq!(of_vipa(&bench), given_up, "an active VIPA's packets cost nothing more");
    assert_eq!(bench.control.vipa_totals(VipaId(1)), VipaTotals::default(), "no other VIPA's");
}

#[test]
fn held_packets_go_before_later_ones_of_their_connection() {
    let mut bench = rebuilding();
    let (first, second) = (segment(40_000).sequence(1), segment(40_000).sequence(2));
    bench.turn([&first]);
    bench.confirm(CLIENT, 40_000, 80, 0);
    bench.stance(Stance::Active);
    assert_eq!(bench.turn([&second]), [to_target(0, &first), to_target(0, &second)]);
}

#[test]
fn what_nobody_reports_follows_the_orphan_policy_after_the_quiet_time() {
    let mut bench = rebuilding();
    bench.turn([&segment(40_000)]);
    bench.change(|world| {
        world.stance = Stance::Active;
        world.quiet_until = Moment::ZERO + Duration::from_millis(1_000_200);
    });
    bench.advance(199 * MS);
    assert_eq!(bench.turn([&segment(40_001)]), NOTHING);
    bench.assert_changed(["received +2", "held +2", "holding +2"]);
    bench.advance(MS);
    assert_eq!(bench.turn([]).len(), 2);
    bench.assert_changed(["holding -2", "replied.reset +2", "sent +2"]);
}

#[test]
fn a_packet_is_held_for_so_long_and_no_longer() {
    let mut bench = rebuilding();
    bench.turn([&segment(40_000)]);
    bench.advance(Duration::from_secs(3) - MS);
    bench.turn([]);
    bench.assert_changed(["received +1", "held +1", "holding +1"]);
    bench.advance(MS);
    assert_eq!(bench.turn([]), NOTHING);
    bench.assert_changed(["holding -1", "dropped.hold-expired +1"]);
}

#[test]
fn only_so_many_packets_are_held() {
    let limits = Limits { held_packets: 40, ..Limits::default() };
    let mut bench = Bench::with_limits(SERVICE, [T0, T1], 1000, limits);
    bench.stance(Stance::Rebuilding);
    let packets: Vec<_> = (0..100).map(|n| segment(40_000 + n)).collect();
    bench.turn(&packets);
    bench.assert_changed(["received +100", "held +40", "holding +40", "dropped.hold-full +60"]);
}

#[test]
fn what_is_held_when_the_vipa_goes_to_another_router_is_dropped() {
    let mut bench = rebuilding();
    bench.turn([&segment(40_000)]);
    bench.stance(Stance::Standby);
    assert_eq!(bench.turn([]), NOTHING);
    bench.assert_changed(["received +1", "held +1", "dropped.standby +1"]);
}

#[test]
fn an_orphan_is_not_answered_once_the_lease_has_passed_but_may_still_be_reported() {
    let mut bench = rebuilding();
    bench.turn([&segment(40_000), &segment(40_001)]);
    bench.world.lease.set(bench.now);
    bench.confirm(CLIENT, 40_000, 80, 0);
    bench.stance(Stance::Active);
    assert_eq!(bench.turn([]), [to_target(0, &segment(40_000))]);
    bench.assert_changed(["received +2", "held +2", "released +1", "forwarded +1", "sent +1", "dropped.fenced +1"]);
}

#[test]
fn a_worker_that_is_stopped_while_it_releases_held_packets_admits_no_further_ones_after_its_lease() {
    let mut bench = rebuilding();
    let packets: Vec<_> = (0..96).map(|n| segment(40_000 + n)).collect();
    bench.turn(&packets);
    bench.assert_changed(["received +96", "held +96", "holding +96"]);
    let now = bench.now;
    bench.world.lease.set(now + Duration::from_millis(100));
    bench.change(|world| (world.stance, world.services[0].orphans) = (Stance::Active, Orphans::Balance));
    let readings = Cell::new(0);
    bench.worker.turn(|| {
        readings.set(readings.get() + 1);
        if readings.get() > 1 { now + Duration::from_millis(400) } else { now }
    });
    bench.assert_changed([
        "released +32",
        "holding -96",
        "flow.opened +32",
        "forwarded +32",
        "sent +32",
        "dropped.fenced +64",
    ]);
}

#[test]
fn packets_wait_for_a_target_whose_ethernet_address_is_not_known_yet() {
    let mut bench = bench();
    bench.confirm(CLIENT, 40_000, 80, 1);
    bench.change(|world| world.targets[1].next_hop = None);
    assert_eq!(bench.turn([&segment(40_000)]), NOTHING);
    bench.assert_changed(["received +1", "held +1", "holding +1"]);
    let hop = bench.world.targets[0].next_hop.map(|hop| {
        let link = vipa_packet::EthernetHeader { destination: vipa_dataplane::bench::target_mac(1), ..hop.link };
        vipa_handoff::NextHop { link, ..hop }
    });
    bench.change(|world| world.targets[1].next_hop = hop);
    assert_eq!(bench.turn([]), [to_target(1, &segment(40_000))]);
    bench.assert_changed(["released +1", "holding -1", "forwarded +1", "sent +1"]);
}

#[test]
fn a_silent_target_takes_half_of_the_room_for_held_packets_at_most_and_its_packets_expire() {
    let limits = Limits { held_packets: 40, ..Limits::default() };
    let mut bench = Bench::with_limits(SERVICE, [T0, T1], 1000, limits);
    bench.confirm(CLIENT, 40_000, 80, 1);
    bench.flows.set_linked(vipa_model::TargetId(1), true);
    bench.change(|world| (world.targets[1].next_hop, world.stance) = (None, Stance::Rebuilding));
    let packets = vec![segment(40_000); 50];
    bench.turn(&packets);
    bench.assert_changed(["received +50", "held +20", "holding +20", "dropped.no-neighbour +30"]);
    bench.turn([&segment(40_001)]);
    bench.assert_changed(["received +1", "held +1", "holding +1"]);
    bench.advance(Duration::from_secs(3));
    bench.turn([]);
    bench.assert_changed(["holding -21", "dropped.no-neighbour +20", "dropped.hold-expired +1"]);
}

#[test]
fn a_target_that_the_routes_do_not_name_yet_is_waited_for() {
    let mut bench = bench();
    bench.confirm(CLIENT, 40_000, 80, 2);
    assert_eq!(bench.turn([&segment(40_000)]), NOTHING);
    bench.assert_changed(["received +1", "held +1", "holding +1"]);
    bench.change(|world| world.targets.push(world.targets[0]));
    assert_eq!(bench.turn([]), [to_target(0, &segment(40_000))]);
    bench.assert_changed(["released +1", "holding -1", "forwarded +1", "sent +1"]);
}

/// A server's answer to a connection that a target opens with the VIPA as its source.
fn syn_ack(to_port: u16) -> vipa_packet::build::Builder {
    from_client().ipv4(CLIENT, VIPA).tcp(443, to_port).flags(TcpFlags::SYN.with(TcpFlags::ACK)).acknowledge(7)
}

#[test]
fn a_syn_ack_that_comes_before_the_targets_report_waits_for_it() {
    let mut bench = bench();
    assert_eq!(bench.turn([&syn_ack(50_000)]), NOTHING);
    bench.assert_changed(["received +1", "held +1", "holding +1"]);
    bench.confirm(CLIENT, 443, 50_000, 1);
    bench.advance(MS);
    assert_eq!(bench.turn([]), [to_target(1, &syn_ack(50_000))]);
    bench.assert_changed(["released +1", "holding -1", "forwarded +1", "sent +1"]);
    // Later segments belong to a connection like any other, although its port is no service's.
    let data = from_client().ipv4(CLIENT, VIPA).tcp(443, 50_000).payload(b"hello");
    assert_eq!(bench.turn([&data]), [to_target(1, &data)]);
    bench.assert_changed(["received +1", "forwarded +1", "sent +1"]);
}

#[test]
fn no_policy_answers_a_syn_ack_of_an_unknown_connection() {
    for orphans in [Orphans::Reset, Orphans::Drop, Orphans::Balance] {
        let mut bench = bench();
        bench.change(|world| {
            world.services[0].orphans = orphans;
            world.services[0].ports = PortRange::ALL;
        });
        assert_eq!(bench.turn([&syn_ack(50_000)]), NOTHING);
        bench.advance(Duration::from_millis(299));
        bench.turn([]);
        bench.assert_changed(["received +1", "held +1", "holding +1"]);
        bench.advance(MS);
        assert_eq!(bench.turn([]), NOTHING);
        bench.assert_changed(["holding -1", "dropped.syn-ack +1"]);
        assert_eq!(bench.flows.count().total(), 0);
    }
}

#[test]
fn a_flood_of_syn_acks_takes_an_eighth_of_the_room_and_a_backup_holds_none() {
    let limits = Limits { held_packets: 80, ..Limits::default() };
    let mut bench = Bench::with_limits(SERVICE, [T0, T1], 1000, limits);
    let flood: Vec<_> = (0..100).map(|n| syn_ack(50_000 + n)).collect();
    bench.turn(&flood);
    bench.assert_changed(["received +100", "held +10", "holding +10", "dropped.syn-ack +90"]);
    bench.stance(Stance::Standby);
    bench.turn([&syn_ack(60_000)]);
    bench.assert_changed(["received +1", "holding -10", "dropped.standby +11"]);
}
