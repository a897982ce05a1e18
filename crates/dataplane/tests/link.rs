//! Packets that belong to no connection: ARP, ping, other stations' frames, and malformed ones.

mod support;

use std::{net::IpAddr, sync::Arc};

use support::*;
use vipa_balance::ClusterKey;
use vipa_dataplane::bench::{CLIENT_MAC, ROUTER, ROUTER_MAC, target_mac};
use vipa_handoff::{Frame, Note, Routes};
use vipa_model::{Mac, Moment, PortId, Stance};
use vipa_packet::{HeaderSums, HeapPacket, arp, build::packet};

fn neighbour(address: &str, mac: [u8; 6]) -> Note {
    Note::Neighbour { port: PortId(0), address: address.parse::<IpAddr>().unwrap(), mac: Mac(mac) }
}

#[test]
fn arp_for_an_owned_vipa_and_for_the_port_is_answered_and_the_asker_is_learnt() {
    for stance in [Stance::Active, Stance::Rebuilding] {
        for asked in [VIPA.parse().unwrap(), ROUTER] {
            let mut bench = bench();
            bench.stance(stance);
            let sent = bench.turn([&packet().macs(CLIENT_MAC, CLIENT_MAC).arp_request("198.51.100.9", asked)]);
            assert_eq!(sent, [packet().macs(ROUTER_MAC, CLIENT_MAC).arp_reply(asked, "198.51.100.9")]);
            assert_eq!(bench.notes(), [neighbour("198.51.100.9", CLIENT_MAC)]);
            bench.assert_changed(["received +1", "replied.arp +1", "sent +1"]);
        }
    }
}

#[test]
fn arp_for_a_vipa_is_not_answered_by_a_backup_by_who_yields_or_without_a_lease() {
    let ask = packet().macs(CLIENT_MAC, CLIENT_MAC).arp_request("198.51.100.9", VIPA);
    for stance in [Stance::Standby, Stance::Yielding] {
        let mut bench = bench();
        bench.stance(stance);
        assert_eq!(bench.turn([&ask]), NOTHING);
        bench.assert_changed(["received +1", "dropped.arp-of-others +1"]);
    }
    let mut bench = bench();
    bench.world.lease.set(bench.now);
    assert_eq!(bench.turn([&ask]), NOTHING);
    bench.assert_changed(["received +1", "dropped.arp-of-others +1"]);
}

#[test]
fn replies_to_us_and_whatever_a_target_says_teach_where_they_are_and_other_arp_does_not() {
    let mut bench = bench();
    bench.turn([
        &packet().macs(target_mac(5), ROUTER_MAC).arp_reply("198.51.100.77", ROUTER),
        &packet().macs(target_mac(9), [0; 6]).arp_request(T1, "198.51.100.254"),
        &packet().macs(CLIENT_MAC, [0; 6]).arp_request("198.51.100.9", "198.51.100.254"),
    ]);
    assert_eq!(bench.notes(), [neighbour("198.51.100.77", target_mac(5)), neighbour(T1, target_mac(9))]);
    bench.assert_changed(["received +3", "punted +2", "dropped.arp-of-others +1"]);
}

#[test]
fn another_routers_announcement_of_a_vipa_is_not_answered_by_the_worker() {
    let mut bench = bench();
    let announcement = HeapPacket::from(arp::gratuitous(&CLIENT_MAC, VIPA.parse().unwrap()));
    assert_eq!(bench.turn_frames([announcement]), NOTHING);
    bench.assert_changed(["received +1", "punted +1"]);
}

/// The note that control receives when a station with this MAC claims the VIPA.
fn conflict(mac: [u8; 6]) -> Note {
    Note::Conflict { port: PortId(0), vipa: VIPA.parse().unwrap(), mac: Mac(mac) }
}

#[test]
fn a_station_that_says_it_has_an_owned_vipa_is_told_of_however_it_says_so() {
    let other = target_mac(7);
    for said in [
        packet().macs(other, [0xff; 6]).arp_request(VIPA, VIPA),
        packet().macs(other, [0xff; 6]).arp_reply(VIPA, VIPA),
        // It asks for another station, or answers this router's probe.
        packet().macs(other, [0xff; 6]).arp_request(VIPA, "198.51.100.9"),
        packet().macs(other, ROUTER_MAC).arp_reply(VIPA, "0.0.0.0"),
    ] {
        let mut bench = bench();
        assert_eq!(bench.turn([&said]), NOTHING);
        assert_eq!(bench.notes(), [conflict(other)]);
        bench.assert_changed(["received +1", "punted +1"]);
        bench.stance(Stance::Standby);
        bench.turn([&said]);
        assert!(bench.notes().iter().all(|note| *note != conflict(other)), "it is not this router's");
    }
}

#[test]
fn this_routers_own_announcements_and_a_question_whether_the_vipa_is_free_are_no_conflict() {
    let mut bench = bench();
    bench.turn([
        &packet().macs(ROUTER_MAC, [0xff; 6]).arp_request(VIPA, VIPA),
        &packet().macs(CLIENT_MAC, [0xff; 6]).arp_request("0.0.0.0", VIPA),
    ]);
    assert!(bench.notes().iter().all(|note| !matches!(note, Note::Conflict { .. })));
}

#[test]
fn notes_that_find_their_box_full_cost_nothing_but_themselves() {
    let mut bench = bench();
    let asks = vec![packet().macs(CLIENT_MAC, CLIENT_MAC).arp_request("198.51.100.9", VIPA); 3000];
    assert_eq!(bench.turn(&asks).len(), 3000);
    assert_eq!(bench.control.notes_refused() + bench.notes().len() as u64, 3000);
    bench.assert_changed(["received +3000", "replied.arp +3000", "sent +3000"]);
}

#[test]
fn a_ping_to_an_owned_vipa_and_to_the_port_is_answered() {
    let mut bench = bench();
    for pinged in [VIPA.parse().unwrap(), ROUTER] {
        let ping = from_client().ipv4(CLIENT, pinged).icmp_echo(1, 2).payload(b"abc");
        let pong = to_client(packet().ipv4(pinged, CLIENT).icmp_echo_reply(1, 2).payload(b"abc"));
        assert_eq!(bench.turn([&ping]), [pong]);
        bench.assert_changed(["received +1", "replied.icmp-echo +1", "sent +1"]);
    }
}

#[test]
fn a_ping_that_is_not_ours_to_answer_is_not() {
    let mut bench = bench();
    let ping = from_client().ipv4(CLIENT, VIPA).icmp_echo(1, 2);
    bench.turn([&from_client().ipv4(CLIENT, T0).icmp_echo(1, 2)]);
    bench.assert_changed(["received +1", "dropped.no-vipa +1"]);
    bench.world.lease.set(Moment::ZERO);
    bench.turn([&ping]);
    bench.assert_changed(["received +1", "dropped.fenced +1"]);
    bench.stance(Stance::Standby);
    bench.turn([&ping]);
    bench.assert_changed(["received +1", "dropped.standby +1"]);
}

#[test]
fn frames_of_other_stations_and_groups_are_dropped() {
    let mut bench = bench();
    let syn = packet().ipv4(CLIENT, VIPA).tcp(40_000, 80).syn();
    bench.turn([
        &syn.clone().macs(CLIENT_MAC, target_mac(0)),
        &syn.clone().macs(CLIENT_MAC, [0xff; 6]),
        &packet().macs(CLIENT_MAC, [0xff; 6]).ipv4(CLIENT, VIPA).udp(1, 2),
        &packet().macs(CLIENT_MAC, [1, 0, 0x5e, 0, 0, 1]).ether_type(0x88cc),
    ]);
    bench.assert_changed(["received +4", "dropped.not-for-us +1", "dropped.group +2", "dropped.ether-type +1"]);
}

#[test]
fn a_header_that_the_port_has_verified_is_not_summed_again() {
    let mut bench = bench();
    bench.confirm(CLIENT, 40_000, 80, 0);
    let spoilt = segment(40_000).spoil_ipv4_checksum();
    assert_eq!(bench.turn([&spoilt]).len(), 0);
    bench.assert_changed(["received +1", "dropped.ipv4-checksum +1"]);
    bench.rx().sums = HeaderSums::Verified;
    assert_eq!(bench.turn([&spoilt, &segment(40_000)]).len(), 2);
    let martian = from_client().ipv4("127.0.0.1", VIPA).tcp(40_000, 80);
    assert_eq!(bench.turn([&martian, &segment(40_000).macs(CLIENT_MAC, target_mac(0))]).len(), 0);
    bench.assert_changed(["received +4", "forwarded +2", "sent +2", "dropped.ipv4-source +1", "dropped.not-for-us +1"]);
}

#[test]
fn what_no_service_can_have_is_dropped_by_name() {
    let mut bench = bench();
    bench.turn([
        &from_client().ether_type(0x88a8),
        &segment(40_000).syn().vlan(5),
        &from_client().ipv4(CLIENT, T0).tcp(40_000, 80).syn(),
        &from_client().ipv4(CLIENT, T0).udp(40_000, 80),
        &from_client().ipv4(CLIENT, T0).protocol(47),
        &segment(40_000).payload([0; 4]).first_fragment(),
        &from_client().ipv4(CLIENT, VIPA).protocol(47),
        &segment(40_000).spoil_ipv4_checksum(),
        &from_client().ipv4("127.0.0.1", VIPA).tcp(40_000, 80),
    ]);
    bench.assert_changed([
        "received +9",
        "dropped.ether-type +1",
        "dropped.vlan +1",
        "dropped.no-vipa +3",
        "dropped.orphan +1",
        "dropped.ip-protocol +1",
        "dropped.ipv4-checksum +1",
        "dropped.ipv4-source +1",
    ]);
}

#[test]
fn a_priority_tag_is_no_vlan_and_ends_here() {
    let mut bench = bench();
    let sent = bench.turn([&segment(40_000).syn().vlan(0xe000)]);
    assert_eq!(sent, [to_target(target_of(&bench, 40_000), &segment(40_000).syn())]);
}

#[test]
fn every_malformed_frame_is_counted_by_name_and_changes_nothing_else() {
    let mut bench = bench();
    let syn = segment(40_000).syn().build();
    let cut = |length: usize| HeapPacket::from(&syn.as_ref()[..length]);
    assert_eq!(bench.turn_frames([cut(0), cut(5), cut(13), cut(30), cut(40)]), NOTHING);
    bench.assert_changed([
        "received +5",
        "dropped.not-for-us +2",
        "dropped.too-short +2",
        "dropped.ipv4-total-length +1",
    ]);
    assert_eq!(bench.flows.count().total(), 0);
}

#[test]
fn controls_frames_are_sent_as_they_are_and_a_full_port_refuses_them() {
    let mut bench = bench();
    let frame = arp::gratuitous(&ROUTER_MAC, VIPA.parse().unwrap());
    assert!(bench.control.send(Frame::new(PortId(0), &frame)));
    assert_eq!(bench.turn([]), [HeapPacket::from(frame)]);
    bench.assert_changed(["frame.sent +1", "sent +1"]);
    bench.tx().room = 0;
    assert!(bench.control.send(Frame::new(PortId(0), &frame)));
    assert!(bench.control.send(Frame::new(PortId(9), &frame)));
    bench.turn([]);
    bench.assert_changed(["frame.refused +2"]);
}

#[test]
fn before_control_has_said_anything_nothing_is_ours() {
    let mut bench = bench();
    bench.control.publish(Arc::new(Routes::empty(ClusterKey::new([0; 16]))));
    bench.turn([&segment(40_000).syn()]);
    bench.assert_changed(["received +1", "dropped.not-for-us +1"]);
}

#[test]
fn a_worker_moves_on_to_new_routes_and_lets_the_old_ones_go() {
    let mut bench = bench();
    bench.stance(Stance::Standby);
    assert_eq!(bench.control.reclaim(), 1, "the worker may still look at the old ones");
    bench.turn([]);
    assert_eq!(bench.control.reclaim(), 0);
    let before = bench.control.workers()[0].heartbeat.turns();
    bench.turn([]);
    assert_eq!(bench.control.workers()[0].heartbeat.turns(), before + 1);
}
