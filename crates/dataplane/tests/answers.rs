//! Packets that a router answers by itself beside ARP and whole pings: packets that end here, pings in fragments and
//! with options; and what the fragments of a packet, and errors about it, share with it.

mod support;

use std::time::Duration;

use support::*;
use vipa_dataplane::{
    Limits,
    bench::{Bench, CLIENT_MAC, ROUTER, ROUTER_MAC, ROUTER6, target_mac},
};
use vipa_handoff::ForwardingAction;
use vipa_model::{Balance, Stance};
use vipa_packet::{
    Encapsulation, HeapPacket, PacketBuf, TunnelEndpoints,
    build::{Builder, packet},
    icmp, icmp6,
};

const SERVICE6: &str = "[2001:db8::10]:80/tcp";
const CLIENT6: &str = "2001:db8:1::4";
const VIPA6: &str = "2001:db8::10";
const T6: &str = "2001:db8:0:51::21";
const GUE: Encapsulation = Encapsulation::Gue { port: 6080 };

fn segment6(port: u16) -> Builder {
    from_client().ipv6(CLIENT6, VIPA6).tcp(port, 80)
}

/// The error about a packet of the IPv4 client.
fn expired(sent: &Builder) -> Builder {
    let sent = sent.build();
    let quote = &sent.as_ref()[14..sent.as_ref().len().min(14 + 548)];
    to_client(packet().ipv4(ROUTER, CLIENT).traffic_class(0xc0).icmp(icmp::TIME_EXCEEDED, 0, 0).payload(quote))
}

#[test]
fn a_packet_that_ends_here_opens_nothing_and_its_sender_is_told() {
    let mut bench = tunnelled(SERVICE, T0, Encapsulation::Ipip);
    let syn = segment(40_000).syn().ttl(1);
    assert_eq!(bench.turn([&syn]), [expired(&syn)]);
    bench.assert_changed(["received +1", "replied.time-exceeded +1", "sent +1"]);
    assert_eq!(bench.connection(CLIENT, 40_000, 80), None);

    let mut bench = tunnelled(SERVICE6, T6, GUE);
    let syn = segment6(40_000).syn().ttl(1);
    let told = packet().ipv6(ROUTER6, CLIENT6).icmp6_error(icmp6::TIME_EXCEEDED, 0, 0, &syn.build());
    assert_eq!(bench.turn([&syn]), [to_client(told)]);
    bench.assert_changed(["received +1", "replied.time-exceeded +1", "sent +1"]);
    assert_eq!(bench.flows.count().total(), 0);

    let mut bench = tunnelled("192.0.2.10:53/udp", T0, GUE);
    let question = from_client().ipv4(CLIENT, VIPA).ttl(1).udp(40_000, 53);
    assert_eq!(bench.turn([&question]), [expired(&question)]);
    assert_eq!(bench.flows.count().total(), 0);
}

#[test]
fn a_packet_that_ends_here_says_nothing_about_its_connection() {
    let mut bench = tunnelled(SERVICE, T0, GUE);
    bench.confirm(CLIENT, 40_000, 80, 0);
    let before = bench.connection(CLIENT, 40_000, 80);
    for sent in [segment(40_000).rst(), segment(40_000).fin(), segment(40_000).payload(b"data")] {
        let sent = sent.ttl(1);
        assert_eq!(bench.turn([&sent]), [expired(&sent)]);
        assert_eq!(bench.connection(CLIENT, 40_000, 80), before);
    }
    bench.assert_changed(["received +3", "replied.time-exceeded +3", "sent +3"]);
}

#[test]
fn to_a_target_on_this_network_the_last_hop_is_enough() {
    let mut bench = bench();
    let syn = segment(40_000).syn().ttl(1);
    let sent = bench.turn([&syn]);
    assert_eq!(sent, [to_target(target_of(&bench, 40_000), &syn)]);
    bench.assert_changed(["received +1", "flow.opened +1", "forwarded +1", "sent +1"]);
}

#[test]
fn a_connection_is_not_placed_anew_by_a_packet_that_does_not_get_there() {
    let mut bench = Bench::with_service(SERVICE, [T0, T1]);
    bench.serve(Balance::Maglev, &[1]);
    bench.change(|world| {
        let outer = TunnelEndpoints::V4 {
            source: ROUTER.to_bits(),
            destination: T1.parse::<std::net::Ipv4Addr>().unwrap().to_bits(),
        };
        world.targets[1].via = ForwardingAction::Tunnel { outer, how: GUE };
    });
    bench.confirm(CLIENT, 40_000, 80, 0);
    bench.end(CLIENT, 40_000, 80, 0);
    let before = bench.connection(CLIENT, 40_000, 80);
    bench.check_counters();
    let syn = segment(40_000).syn().ttl(1);
    assert_eq!(bench.turn([&syn]), [expired(&syn)]);
    bench.assert_changed(["received +1", "replied.time-exceeded +1", "sent +1"]);
    assert_eq!(bench.connection(CLIENT, 40_000, 80), before);
}

#[test]
fn a_held_packet_that_ends_here_opens_nothing_either() {
    let mut bench = tunnelled(SERVICE, T0, GUE);
    bench.change(|world| world.services[0].orphans = vipa_model::Orphans::Balance);
    bench.stance(Stance::Rebuilding);
    let stray = segment(40_000).ttl(1);
    assert_eq!(bench.turn([&stray]), NOTHING);
    bench.stance(Stance::Active);
    bench.advance(Duration::from_millis(2));
    assert_eq!(bench.turn([]), [expired(&stray)]);
    assert_eq!(bench.flows.count().total(), 0);
}

#[test]
fn word_of_packets_that_end_here_is_limited_as_other_answers_are() {
    let limits = Limits { answers_per_second: 100, ..Limits::default() };
    let mut bench = tunnelled_within(SERVICE, T0, GUE, limits);
    let syns: Vec<_> = (0..50).map(|n| segment(40_000 + n).syn().ttl(1)).collect();
    assert_eq!(bench.turn(&syns).len(), 10);
    bench.assert_changed(["received +50", "replied.time-exceeded +10", "dropped.answer-limit +40", "sent +10"]);
}

#[test]
fn what_may_not_be_answered_ends_here_in_silence() {
    let mut bench = tunnelled(SERVICE, T0, GUE);
    bench.confirm(CLIENT, 40_000, 80, 0);
    let quoted = packet().ipv4(VIPA, CLIENT).tcp(80, 40_000).build();
    bench.turn([&from_client().ipv4("198.51.100.77", VIPA).ttl(1).icmp_unreachable(1, &quoted)]);
    bench.assert_changed(["received +1", "dropped.time-to-live +1"]);
    let part = |ttl| from_client().ipv4(CLIENT, VIPA).identification(9_u16).ttl(ttl);
    let first = part(9).tcp(40_000, 80).payload([0; 4]).first_fragment();
    let last = part(1).protocol(6).payload([0; 8]).last_fragment(24);
    assert_eq!(bench.turn([&first]).len(), 1);
    assert_eq!(bench.turn([&last]), NOTHING);
    bench.assert_changed(["received +2", "forwarded +1", "sent +1", "dropped.time-to-live +1"]);
}

/// The fragments of an echo request of 72 bytes in all, and those of its reply.
fn ping_in_parts(of_ipv6: bool) -> ([Builder; 3], [Builder; 3]) {
    let payload: Vec<u8> = (0..64).collect();
    let (asks, replies) = match of_ipv6 {
        false => (from_client().ipv4(CLIENT, VIPA), to_client(packet().ipv4(VIPA, CLIENT))),
        true => (from_client().ipv6(CLIENT6, VIPA6), to_client(packet().ipv6(VIPA6, CLIENT6))),
    };
    let (request, reply, protocol, l4) = match of_ipv6 {
        false => (asks.clone().icmp_echo(7, 1), replies.clone().icmp_echo_reply(7, 1), 1, 34),
        true => (asks.clone().icmp6_echo(7, 1), replies.clone().icmp6_echo_reply(7, 1), 58, 54),
    };
    let (request, reply) = (request.payload(&payload).build(), reply.payload(&payload).build());
    let parts = |of: &Builder, message: &HeapPacket| {
        [(0, 24), (24, 40), (40, 72)].map(|(start, end): (u16, u16)| {
            let bytes = &message.bytes()[l4 + usize::from(start)..l4 + usize::from(end)];
            of.clone().identification(9_u32).protocol(protocol).payload(bytes).part(start, end < 72)
        })
    };
    (parts(&asks, &request), parts(&replies, &reply))
}

#[test]
fn a_ping_in_parts_is_answered_in_parts_in_whatever_order_they_come() {
    for (service, of_ipv6) in [(SERVICE, false), (SERVICE6, true)] {
        let ([first, second, last], [to_first, to_second, to_last]) = ping_in_parts(of_ipv6);
        let mut bench = Bench::with_service(service, [if of_ipv6 { T6 } else { T0 }]);
        assert_eq!(bench.turn([&first]), std::slice::from_ref(&to_first));
        assert_eq!(bench.turn([&second, &last]), [to_second.clone(), to_last.clone()]);
        bench.assert_changed(["received +3", "replied.icmp-echo +3", "sent +3"]);

        let mut bench = Bench::with_service(service, [if of_ipv6 { T6 } else { T0 }]);
        assert_eq!(bench.turn([&last, &second]), NOTHING);
        bench.assert_changed(["received +2", "held +2", "holding +2"]);
        assert_eq!(bench.turn([&first]), [to_first, to_last, to_second]);
        bench.assert_changed(["received +1", "holding -2", "replied.icmp-echo +3", "sent +3"]);
    }
}

#[test]
fn a_ping_in_parts_to_the_port_is_answered_and_one_to_others_is_not() {
    let mut bench = bench();
    let part = |to: std::net::Ipv4Addr| from_client().ipv4(CLIENT, to).icmp_echo(1, 2).payload([0; 8]).first_fragment();
    let pong = to_client(packet().ipv4(ROUTER, CLIENT).icmp_echo_reply(1, 2).payload([0; 8]).first_fragment());
    assert_eq!(bench.turn([&part(ROUTER)]), [pong]);
    assert_eq!(bench.turn([&part(T0.parse().unwrap())]), NOTHING);
    bench.assert_changed(["received +2", "replied.icmp-echo +1", "sent +1", "dropped.no-vipa +1"]);
}

#[test]
fn parts_of_other_messages_and_protocols_are_no_attack() {
    let mut bench = bench();
    let to_vipa = from_client().ipv4(CLIENT, VIPA);
    bench.turn([
        &to_vipa.clone().icmp_echo_reply(1, 2).payload([0; 8]).first_fragment(),
        &to_vipa.clone().protocol(47).payload([0; 16]).first_fragment(),
        &to_vipa.protocol(17).payload([0; 0]).first_fragment(),
    ]);
    bench.assert_changed(["received +3", "dropped.icmp +1", "dropped.ip-protocol +1", "dropped.fragment-bad +1"]);
}

#[test]
fn a_backup_answers_no_ping_in_parts() {
    let mut bench = bench();
    bench.stance(Stance::Standby);
    let ([first, second, last], _) = ping_in_parts(false);
    assert_eq!(bench.turn([&first, &second, &last]), NOTHING);
    bench.advance(Duration::from_millis(100));
    assert_eq!(bench.turn([]), NOTHING);
    bench.assert_changed(["received +3", "held +2", "dropped.standby +1", "dropped.fragment +2"]);
}

#[test]
fn a_ping_with_options_is_answered_and_source_routes_of_both_families_meet_one_fate() {
    let mut bench = bench();
    let record_route = [7, 7, 4, 0, 0, 0, 0];
    let ping = from_client().ipv4(CLIENT, VIPA).ip_options(&record_route).icmp_echo(1, 2);
    let pong = to_client(packet().ipv4(VIPA, CLIENT).ip_options(&record_route).icmp_echo_reply(1, 2));
    assert_eq!(bench.turn([&ping]), [pong]);
    bench.turn([
        &from_client().ipv4(CLIENT, VIPA).ip_options(&[131, 7, 4, 192, 0, 2, 1]).icmp_echo(1, 2),
        &segment(40_000).ip_options(&[137, 7, 4, 192, 0, 2, 1]).syn(),
        &segment6(40_000).extension(43, &[0, 1]).syn(),
    ]);
    bench.assert_changed(["received +4", "replied.icmp-echo +1", "sent +1", "dropped.source-route +3"]);
}

#[test]
fn on_a_tagged_port_answers_and_forwarded_frames_keep_their_priority() {
    let mut bench = bench();
    bench.change(|world| {
        world.port.vlan = Some(7);
        for (n, target) in world.targets.iter_mut().enumerate() {
            target.next_hop = Some(vipa_handoff::NextHop {
                port: vipa_model::PortId(0),
                link: vipa_packet::EthernetHeader {
                    source: ROUTER_MAC,
                    destination: target_mac(n as u8),
                    vlan: Some(7),
                },
            });
        }
    });
    let ping = from_client().vlan(0xa007).ipv4(CLIENT, VIPA).icmp_echo(1, 2);
    assert_eq!(bench.turn([&ping]), [to_client(packet().vlan(0xa007).ipv4(VIPA, CLIENT).icmp_echo_reply(1, 2))]);
    let syn = segment(40_000).syn().vlan(0xa007);
    let sent = bench.turn([&syn]);
    assert_eq!(sent, [to_target(target_of(&bench, 40_000), &syn)]);
    let data = segment(40_000).payload(b"data").vlan(0x7007);
    assert_eq!(bench.turn([&data]), [to_target(target_of(&bench, 40_000), &data)]);
}

/// Entropy of the connection in an outer header: GUE's source port, and over IPv6 the flow label.
fn entropy(frame: &HeapPacket) -> (u16, u32) {
    let bytes = frame.bytes();
    let of_ipv6 = bytes[14] >> 4 == 6;
    let at = if of_ipv6 { 54 } else { 34 };
    let label = if of_ipv6 { u32::from_be_bytes([0, bytes[15] & 0x0f, bytes[16], bytes[17]]) } else { 0 };
    (u16::from_be_bytes([bytes[at], bytes[at + 1]]), label)
}

#[test]
fn parts_and_errors_share_the_outer_header_of_their_connection() {
    for target in [T0, T6] {
        let mut bench = tunnelled("192.0.2.10:53/udp", target, GUE);
        let client = from_client().ipv4(CLIENT, VIPA).identification(9_u16);
        let whole = entropy(&bench.turn([&client.clone().udp(40_000, 53)])[0]);
        let first = client.clone().udp(40_000, 53).payload([1; 24]).first_fragment();
        let last = client.clone().protocol(17).payload([2; 24]).last_fragment(32);
        let sent: Vec<_> = bench.turn([&first, &last]).iter().map(entropy).collect();
        assert_eq!(sent, [whole; 2], "in order");

        let (first, last) = (first.identification(10_u16), last.identification(10_u16));
        assert_eq!(bench.turn([&last]), NOTHING);
        let sent: Vec<_> = bench.turn([&first]).iter().map(entropy).collect();
        assert_eq!(sent, [whole; 2], "out of order");

        // Fragmented here: only the first fragment has ports.
        let large = client.clone().udp(40_000, 53).payload([7; 1_472]);
        let sent: Vec<_> = bench.turn([&large]).iter().map(entropy).collect();
        assert_eq!(sent, [whole; 2], "cut here");

        let quoted = packet().ipv4(VIPA, CLIENT).udp(53, 40_000).build();
        let error = from_client().ipv4("203.0.113.254", VIPA).icmp_too_big(1_400, &quoted);
        assert_eq!(entropy(&bench.turn([&error])[0]), whole, "an error");

        let other = entropy(&bench.turn([&client.udp(40_001, 53)])[0]);
        assert_ne!(other, whole, "another connection");
    }
}

#[test]
fn parts_and_errors_of_ipv6_share_it_too() {
    let mut bench = tunnelled("[2001:db8::10]:53/udp", T6, GUE);
    let client = from_client().ipv6(CLIENT6, VIPA6).identification(9_u32);
    let whole = entropy(&bench.turn([&client.clone().udp(40_000, 53)])[0]);
    let first = client.clone().udp(40_000, 53).payload([1; 24]).first_fragment();
    let last = client.protocol(17).payload([2; 24]).last_fragment(32);
    let sent: Vec<_> = bench.turn([&first, &last]).iter().map(entropy).collect();
    assert_eq!(sent, [whole; 2]);
    let quoted = packet().ipv6(VIPA6, CLIENT6).udp(53, 40_000).build();
    let error = packet().macs(CLIENT_MAC, ROUTER_MAC).ipv6("2001:db8:9::fe", VIPA6).icmp6_error(1, 0, 0, &quoted);
    assert_eq!(entropy(&bench.turn([&error])[0]), whole);
}

#[test]
fn a_first_part_that_was_held_teaches_its_connections_outer_header() {
    let mut bench = tunnelled(SERVICE, T0, GUE);
    bench.stance(Stance::Rebuilding);
    let client = from_client().ipv4(CLIENT, VIPA).identification(9_u16);
    let first = client.clone().tcp(40_000, 80).payload([1; 4]).first_fragment();
    let last = client.protocol(6).payload([2; 24]).last_fragment(24);
    assert_eq!(bench.turn([&first]), NOTHING);
    bench.confirm(CLIENT, 40_000, 80, 0);
    bench.advance(Duration::from_millis(2));
    let held = entropy(&bench.turn([])[0]);
    assert_eq!(entropy(&bench.turn([&last])[0]), held);
    assert_eq!(entropy(&bench.turn([&segment(40_000)])[0]), held);
}
