//! How packets get to their targets, and back: each way of forwarding, in both families, byte for byte.

mod support;

use std::net::IpAddr;

use support::*;
use vipa_dataplane::bench::{Bench, CLIENT_MAC, KERNEL, ROUTER, ROUTER_MAC, ROUTER6, target_mac};
use vipa_handoff::{ForwardingAction, Note, ReturnRoute};
use vipa_model::{Mac, PortId, PortRange, Protocol, TargetId, VipaId};
use vipa_packet::{
    Encapsulation, TcpFlags,
    build::{Builder, packet},
    icmp6::PACKET_TOO_BIG,
};

const SERVICE6: &str = "[2001:db8::10]:80/tcp";
const CLIENT6: &str = "2001:db8:1::4";
const VIPA6: &str = "2001:db8::10";
const T6: &str = "2001:db8:0:51::21";
const GUE: Encapsulation = Encapsulation::Gue { port: 6080 };

fn segment6(port: u16) -> Builder {
    from_client().ipv6(CLIENT6, VIPA6).tcp(port, 80)
}

/// The outer packet from us to the target, without its payload.
fn wrapped(target: &str) -> Builder {
    let frame = packet().macs(ROUTER_MAC, target_mac(0));
    if target.contains(':') { frame.ipv6(ROUTER6, target) } else { frame.ipv4(ROUTER, target).dont_fragment() }
}

/// The inner packet has come a hop further.
fn carried(sent: &Builder) -> vipa_packet::HeapPacket {
    sent.clone().ttl(63).build()
}

#[test]
fn every_tunnel_carries_either_family_to_a_target_of_either() {
    for (service, sent) in [(SERVICE, segment(40_000).syn()), (SERVICE6, segment6(40_000).syn())] {
        for target in [T0, T6] {
            let mut bench = tunnelled(service, target, Encapsulation::Ipip);
            let out = bench.turn([&sent]).remove(0);
            let flow = flow_label(&out);
            assert_eq!(out, label(wrapped(target), target, flow).ipip(&carried(&sent)), "{service} {target}");
            bench.assert_changed(["received +1", "flow.opened +1", "forwarded +1", "sent +1"]);

            let mut bench = tunnelled(service, target, Encapsulation::Gre);
            let out = bench.turn([&sent]).remove(0);
            assert_eq!(out, label(wrapped(target), target, flow).gre(&carried(&sent)));

            let mut bench = tunnelled(service, target, GUE);
            let out = bench.turn([&sent]).remove(0);
            let bytes: &[u8] = out.as_ref();
            let at = if target.contains(':') { 54 } else { 34 };
            let from = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            assert!(from >= 0xc000, "the source port is of the dynamic range: {from}");
            assert_eq!(out, label(wrapped(target), target, flow).gue(from, 6080, &carried(&sent)));
        }
    }
}

fn flow_label(frame: &vipa_packet::HeapPacket) -> u32 {
    let bytes: &[u8] = frame.as_ref();
    u32::from_be_bytes([0, bytes[15] & 0x0f, bytes[16], bytes[17]])
}

fn label(outer: Builder, target: &str, flow: u32) -> Builder {
    if target.contains(':') { outer.flow_label(flow) } else { outer }
}

#[test]
fn an_ipv6_connection_is_admitted_kept_and_returned_to_as_an_ipv4_one_is() {
    let mut bench = Bench::with_service(SERVICE6, [T6, "2001:db8:0:51::22"]);
    let first = bench.turn([&segment6(40_000).syn()]).remove(0);
    let (target, _) = bench.connection(CLIENT6, 40_000, 80).expect("it is in the table");
    assert_eq!(first, to_target(target as u8, &segment6(40_000).syn()));
    let sent = segment6(40_000).payload(b"more");
    assert_eq!(bench.turn([&sent]), [to_target(target as u8, &sent)]);
    bench.assert_changed(["received +2", "flow.opened +1", "forwarded +2", "sent +2"]);
    let stray = segment6(40_001).sequence(5).acknowledge(9);
    let reset = packet().ipv6(VIPA6, CLIENT6).tcp(80, 40_001).rst().sequence(9);
    let answer = bench.turn([&stray]).remove(0);
    assert_eq!(
        vipa_packet::parse(answer.as_ref()).unwrap().body,
        vipa_packet::parse(reset.build().as_ref()).unwrap().body
    );
}

fn nat(service: &str, target: &str, port: Option<u16>) -> Bench {
    let mut bench = Bench::with_service(service, [target]);
    let client: IpAddr = if target.contains(':') { CLIENT6 } else { CLIENT }.parse().unwrap();
    bench.change(|world| {
        world.targets[0].via = ForwardingAction::Nat { port };
        let (ports, vipa_port) = match port {
            Some(port) => (PortRange::one(port), Some(80)),
            None => (PortRange::one(80), None),
        };
        let route = ReturnRoute { protocol: Protocol::Tcp, ports, vipa: VipaId(0), vipa_port, target: TargetId(0) };
        world.returns.insert(target.parse().unwrap(), vec![route]);
        world.neighbours.insert("198.51.100.254".parse().unwrap(), (PortId(0), Mac(CLIENT_MAC)));
        world.neighbours.insert(client, (PortId(0), Mac(CLIENT_MAC)));
    });
    bench
}

fn from_target() -> Builder {
    packet().macs(target_mac(0), ROUTER_MAC)
}

#[test]
fn nat_changes_the_destination_on_the_way_in_and_the_source_on_the_way_back() {
    let mut bench = nat(SERVICE, T0, Some(8080));
    let there = to_target(0, &from_client().ipv4(CLIENT, T0).ttl(63).tcp(40_000, 8080).syn());
    assert_eq!(bench.turn([&segment(40_000).syn()]), [there]);
    let answer = from_target().ipv4(T0, CLIENT).tcp(8080, 40_000).syn_ack();
    let back = to_client(packet().ipv4(VIPA, CLIENT).ttl(63).tcp(80, 40_000).syn_ack());
    assert_eq!(bench.turn([&answer]), [back]);
    bench.assert_changed(["received +2", "flow.opened +1", "forwarded +2", "sent +2", "returned +1"]);
}

#[test]
fn nat_of_ipv6_keeps_the_port_when_the_service_says_none() {
    let mut bench = nat(SERVICE6, T6, None);
    // The client is not on the port's network, and IPv6 has a gateway of its own.
    bench.change(|world| {
        world.port.gateway6 = Some("fe80::1".parse().unwrap());
        world.neighbours.insert("fe80::1".parse().unwrap(), (PortId(0), Mac(CLIENT_MAC)));
    });
    let there = to_target(0, &from_client().ipv6(CLIENT6, T6).ttl(63).tcp(40_000, 80).syn());
    assert_eq!(bench.turn([&segment6(40_000).syn()]), [there]);
    let answer = from_target().ipv6(T6, CLIENT6).tcp(80, 40_000).payload(b"page");
    let back = to_client(packet().ipv6(VIPA6, CLIENT6).ttl(63).tcp(80, 40_000).payload(b"page"));
    assert_eq!(bench.turn([&answer]), [back]);
}

#[test]
fn what_a_target_says_on_no_connection_of_ours_is_not_given_the_vipas_name() {
    let mut bench = nat(SERVICE, T0, Some(8080));
    bench.turn([&from_target().ipv4(T0, CLIENT).tcp(8080, 40_000)]);
    bench.assert_changed(["received +1", "dropped.orphan +1"]);
    bench.turn([&from_target().ipv4(T0, CLIENT).tcp(22, 40_000)]);
    bench.assert_changed(["received +1", "dropped.no-vipa +1"]);
}

#[test]
fn an_error_about_a_translated_packet_reaches_who_sent_it_in_either_direction() {
    let mut bench = nat(SERVICE, T0, Some(8080));
    bench.turn([&segment(40_000).syn()]);
    bench.check_counters();
    let seen = packet().ipv4(VIPA, CLIENT).tcp(80, 40_000).build();
    let sent = packet().ipv4(T0, CLIENT).tcp(8080, 40_000).build();
    let error = from_client().ipv4("203.0.113.254", VIPA).icmp_too_big(1400, &seen);
    let expected = to_target(0, &from_client().ipv4("203.0.113.254", T0).ttl(63).icmp_too_big(1400, &sent));
    assert_eq!(bench.turn([&error]), [expected]);

    let seen = packet().ipv4(CLIENT, T0).tcp(40_000, 8080).build();
    let sent = packet().ipv4(CLIENT, VIPA).tcp(40_000, 80).build();
    let error = from_target().ipv4(T0, CLIENT).icmp_unreachable(3, &seen);
    let expected = to_client(packet().ipv4(VIPA, CLIENT).ttl(63).icmp_unreachable(3, &sent));
    assert_eq!(bench.turn([&error]), [expected]);
    bench.assert_changed(["received +2", "forwarded +2", "sent +2", "returned +1"]);
}

#[test]
fn an_answer_waits_while_its_clients_neighbour_is_looked_for() {
    let mut bench = nat(SERVICE, T0, Some(8080));
    bench.turn([&segment(40_000).syn()]);
    let gateway: IpAddr = "198.51.100.254".parse().unwrap();
    bench.change(|world| {
        world.neighbours.remove(&gateway);
    });
    let _ = bench.notes();
    bench.check_counters();
    let answer = from_target().ipv4(T0, CLIENT).tcp(8080, 40_000).syn_ack();
    assert_eq!(bench.turn([&answer]), NOTHING);
    assert_eq!(bench.notes(), [Note::Wanted { port: PortId(0), address: gateway }]);
    bench.change(|world| {
        world.neighbours.insert(gateway, (PortId(0), Mac(CLIENT_MAC)));
    });
    assert_eq!(bench.turn([]).len(), 1);
    bench.assert_changed(["received +1", "held +1", "released +1", "forwarded +1", "sent +1", "returned +1"]);
}

#[test]
fn who_sends_more_than_fits_a_tunnel_is_told_how_much_does() {
    let mut bench = tunnelled(SERVICE, T0, GUE);
    bench.confirm(CLIENT, 40_000, 80, 0);
    let large = segment(40_000).dont_fragment().payload([7; 1460]);
    let quote = &large.build().as_ref()[14..14 + 548].to_vec();
    let told = to_client(packet().ipv4(VIPA, CLIENT).traffic_class(0xc0).icmp(3, 4, 1468).payload(quote));
    assert_eq!(bench.turn([&large]), [told]);
    bench.assert_changed(["received +1", "replied.too-big +1", "sent +1"]);
    bench.turn([&segment(40_000).ip_options(&[1; 4]).payload([7; 1456])]);
    bench.assert_changed(["received +1", "dropped.too-big +1"]);

    let mut bench = tunnelled(SERVICE6, T6, Encapsulation::Ipip);
    bench.confirm(CLIENT6, 40_000, 80, 0);
    let large = segment6(40_000).payload([7; 1440]);
    let told = to_client(packet().ipv6(VIPA6, CLIENT6).icmp6_error(PACKET_TOO_BIG, 0, 1460, &large.build()));
    assert_eq!(bench.turn([&large]), [told]);
    bench.change(|world| world.targets[0].tells_mtu = false);
    bench.check_counters();
    bench.turn([&large]);
    bench.assert_changed(["received +1", "dropped.too-big +1"]);
}

#[test]
fn what_may_be_cut_goes_through_a_tunnel_in_parts_and_each_fits() {
    for (how, rest) in [(Encapsulation::Ipip, 24), (GUE, 40)] {
        let mut bench = tunnelled("192.0.2.10:53/udp", T0, how);
        let sent = from_client().ipv4(CLIENT, VIPA).identification(9_u16).udp(40_000, 53).payload([7; 1472]);
        let parts = bench.turn([&sent]);
        assert_eq!(parts.len(), 2);
        let mut together = Vec::new();
        for (mut part, more) in parts.into_iter().rev().zip([true, false]) {
            assert!(part.as_ref().len() <= 1514, "{part:?}");
            assert!(vipa_packet::decapsulate(&mut part), "{part:?}");
            let vipa_packet::Body::Ipv4Fragment(fragment) = vipa_packet::parse(part.as_ref()).unwrap().body else {
                panic!("a part: {part:?}")
            };
            let seen = (fragment.identification, usize::from(fragment.offset), fragment.more);
            assert_eq!(seen, (9, together.len(), more), "{how:?}");
            together.extend_from_slice(&part.as_ref()[34..]);
        }
        assert_eq!(together, sent.build().as_ref()[34..]);
        assert!((together.len() - rest).is_multiple_of(8), "parts end where eight bytes do");
        bench.assert_changed(["received +1", "flow.opened +1", "forwarded +1", "part.sent +1", "sent +2"]);
    }
}

#[test]
fn a_port_that_takes_the_further_part_only_has_not_forwarded_the_packet() {
    let mut bench = tunnelled("192.0.2.10:53/udp", T0, GUE);
    bench.tx().room = 1;
    bench.turn([&from_client().ipv4(CLIENT, VIPA).udp(40_000, 53).payload([7; 1472])]);
    bench.assert_changed(["received +1", "flow.opened +1", "part.sent +1", "sent +1", "dropped.tx-refused +1"]);
}

#[test]
fn a_nat_targets_packet_that_is_too_big_for_the_clients_port_is_told_to_the_target() {
    let mut bench = nat(SERVICE, T0, Some(8080));
    bench.turn([&segment(40_000).syn()]);
    bench.change(|world| world.port.mtu = 1400);
    bench.check_counters();
    let large = from_target().ipv4(T0, CLIENT).tcp(8080, 40_000).dont_fragment().payload([7; 1400]);
    let told = bench.turn([&large]).remove(0);
    assert_eq!(told.as_ref()[..6], target_mac(0));
    let vipa_packet::Body::Ipv4Icmp(icmp) = vipa_packet::parse(told.as_ref()).unwrap().body else { panic!("{told:?}") };
    assert_eq!(icmp.destination, T0.parse::<std::net::Ipv4Addr>().unwrap().to_bits());
    bench.assert_changed(["received +1", "replied.too-big +1", "sent +1"]);
}

#[test]
fn a_syn_into_a_tunnel_offers_no_larger_segments_than_fit() {
    let syn = |mss: u16| segment(40_000).syn().tcp_options(&[2, 4, (mss >> 8) as u8, mss as u8]);
    let mut bench = tunnelled(SERVICE, T0, Encapsulation::Ipip);
    let sent = bench.turn([&syn(1460)]);
    assert_eq!(sent, [wrapped(T0).ipip(&carried(&syn(1440)))]);
    bench.assert_changed(["received +1", "flow.opened +1", "forwarded +1", "sent +1", "mss.clamped +1"]);
    bench.change(|world| world.targets[0].clamps_mss = false);
    assert_eq!(bench.turn([&syn(1460)]), [wrapped(T0).ipip(&carried(&syn(1460)))]);
}

#[test]
fn a_packet_whose_time_to_live_ends_here_is_not_forwarded_where_it_would_have_been_routed() {
    let mut bench = tunnelled(SERVICE, T0, Encapsulation::Ipip);
    bench.confirm(CLIENT, 40_000, 80, 0);
    bench.turn([&segment(40_000).ttl(1)]);
    bench.assert_changed(["received +1", "replied.time-exceeded +1", "sent +1"]);
}

#[test]
fn parts_of_a_packet_go_where_the_first_one_went_also_when_they_come_before_it() {
    let mut bench = Bench::with_service("192.0.2.10:53/udp", [T0, T1]);
    let part = || from_client().ipv4(CLIENT, VIPA).identification(77_u16);
    let first = part().udp(40_000, 53).payload([1; 24]).first_fragment();
    let last = part().protocol(17).payload([2; 9]).last_fragment(32);
    let sent = bench.turn([&last, &first]);
    let (target, _) = bench.connection(CLIENT, 40_000, 53).expect("it is in the table");
    assert_eq!(sent, [to_target(target as u8, &first), to_target(target as u8, &last)]);
    bench.assert_changed(["received +2", "held +1", "released +1", "flow.opened +1", "forwarded +2", "sent +2"]);
    assert_eq!(bench.turn([&last]), [to_target(target as u8, &last)]);
    let overlapping = part().protocol(17).payload([3; 9]).last_fragment(8);
    bench.check_counters();
    assert_eq!(bench.turn([&overlapping]), NOTHING);
    assert_eq!(bench.turn([&last, &first]), NOTHING, "from then on");
    bench.assert_changed(["received +3", "dropped.fragment-bad +3"]);
}

#[test]
fn of_a_packet_whose_later_parts_overlap_nothing_more_goes_on() {
    let mut bench = Bench::with_service("192.0.2.10:53/udp", [T0]);
    let part = || from_client().ipv4(CLIENT, VIPA).identification(77_u16);
    let later = |at| part().protocol(17).payload([2; 16]).last_fragment(at);
    let first = part().udp(40_000, 53).payload([1; 24]).first_fragment();
    assert_eq!(bench.turn([&first, &later(48)]), [to_target(0, &first), to_target(0, &later(48))]);
    bench.check_counters();
    assert_eq!(bench.turn([&later(40), &later(32), &later(64)]), NOTHING);
    bench.assert_changed(["received +3", "dropped.fragment-bad +3"]);
}

#[test]
fn parts_without_a_first_one_are_given_up_and_ones_too_small_to_say_their_ports_refused() {
    let mut bench = bench();
    let lost = from_client().ipv4(CLIENT, VIPA).identification(78_u16).protocol(17).payload([2; 8]).last_fragment(32);
    bench.turn([&lost]);
    bench.assert_changed(["received +1", "held +1", "holding +1"]);
    bench.advance(std::time::Duration::from_secs(1));
    bench.turn([]);
    bench.assert_changed(["holding -1", "dropped.fragment +1"]);
    let tiny = from_client().ipv4(CLIENT, VIPA).protocol(6).payload([0; 8]).first_fragment();
    bench.turn([&tiny]);
    bench.assert_changed(["received +1", "dropped.fragment-bad +1"]);
}

#[test]
fn parts_of_ipv6_and_of_translated_packets_go_the_same_way() {
    let mut bench = nat(SERVICE6, T6, Some(8080));
    bench.confirm(CLIENT6, 40_000, 80, 0);
    let part = || from_client().ipv6(CLIENT6, VIPA6).identification(5_u32);
    let first = part().tcp(40_000, 80).payload([1; 28]).first_fragment();
    let last = part().protocol(6).payload([2; 7]).last_fragment(48);
    let there = || to_target(0, &from_client().ipv6(CLIENT6, T6).ttl(63).identification(5_u32));
    let expected_first = there().tcp(40_000, 8080).payload([1; 28]).first_fragment();
    let expected_last = there().protocol(6).payload([2; 7]).last_fragment(48);
    assert_eq!(bench.turn([&first, &last]), [expected_first, expected_last]);
}

#[test]
fn a_ports_vlan_is_the_only_one_it_hears_and_the_one_it_speaks() {
    let mut bench = bench();
    bench.change(|world| {
        world.port.vlan = Some(7);
        for target in &mut world.targets {
            if let Some(hop) = &mut target.next_hop {
                hop.link.vlan = Some(7);
            }
        }
    });
    let sent = bench.turn([&segment(40_000).syn().vlan(7), &segment(40_001).syn(), &segment(40_002).syn().vlan(8)]);
    assert_eq!(sent, [to_target(target_of(&bench, 40_000), &segment(40_000).syn().vlan(7))]);
    bench.assert_changed(["received +3", "flow.opened +1", "forwarded +1", "sent +1", "dropped.vlan +2"]);
}

fn with_kernel(mut bench: Bench) -> Bench {
    bench.change(|world| world.port.kernel = Some(KERNEL));
    bench
}

#[test]
fn what_is_for_no_vipa_is_the_kernels_and_what_the_kernel_sends_leaves_by_the_port() {
    let mut bench = with_kernel(bench());
    let ssh = from_client().ipv4(CLIENT, ROUTER).tcp(50_000, 22).syn();
    let ping = from_client().ipv4(CLIENT, ROUTER).icmp_echo(1, 1);
    let hello = packet().macs(CLIENT_MAC, [1, 0x80, 0xc2, 0, 0, 0x0e]).ether_type(0x88cc);
    assert_eq!(bench.turn([&ssh, &ping, &hello, &segment(40_000).syn()]).len(), 1, "the VIPA's packet goes on");
    assert_eq!(bench.kernel(), [ssh, ping, hello]);
    bench.assert_changed(["received +4", "kernel.to +3", "flow.opened +1", "forwarded +1", "sent +4"]);
    let answer = packet().macs(ROUTER_MAC, CLIENT_MAC).ipv4(ROUTER, CLIENT).tcp(22, 50_000).syn_ack();
    assert_eq!(bench.from_kernel([answer.build()]), [answer]);
    bench.assert_changed(["received +1", "kernel.from +1", "sent +1"]);
}

#[test]
fn the_kernel_hears_no_tag_and_its_packets_get_the_ports() {
    let mut bench = with_kernel(bench());
    bench.change(|world| world.port.vlan = Some(7));
    let ssh = from_client().ipv4(CLIENT, ROUTER).tcp(50_000, 22).syn();
    bench.turn([&ssh.clone().vlan(7)]);
    assert_eq!(bench.kernel(), [ssh]);
    let answer = packet().macs(ROUTER_MAC, CLIENT_MAC).ipv4(ROUTER, CLIENT).tcp(22, 50_000);
    assert_eq!(bench.from_kernel([answer.build()]), [answer.vlan(7)]);
}

/// The router is a target itself.
fn own_target(bench: &mut Bench) {
    bench.change(|world| {
        world.port.kernel = Some(KERNEL);
        let link = vipa_packet::EthernetHeader { source: ROUTER_MAC, destination: ROUTER_MAC, vlan: None };
        world.targets[0].via = ForwardingAction::Local;
        world.targets[0].next_hop = Some(vipa_handoff::NextHop { port: KERNEL, link });
    });
}

#[test]
fn a_connection_of_the_routers_own_target_goes_to_its_kernel() {
    let mut bench = Bench::with_service(SERVICE, [T0]);
    own_target(&mut bench);
    assert_eq!(bench.turn([&segment(40_000).syn()]), NOTHING);
    assert_eq!(bench.kernel(), [segment(40_000).macs(ROUTER_MAC, ROUTER_MAC).syn()]);
    bench.assert_changed(["received +1", "flow.opened +1", "forwarded +1", "sent +1"]);
}

#[test]
fn a_backup_that_is_a_target_takes_the_connections_that_the_owner_sends_it() {
    let mut bench = bench();
    own_target(&mut bench);
    bench.stance(vipa_model::Stance::Standby);
    let packets = [segment(40_000).syn(), segment(40_000).payload(b"data")];
    assert_eq!(bench.turn(&packets), NOTHING);
    assert_eq!(bench.kernel(), packets.map(|packet| packet.macs(ROUTER_MAC, ROUTER_MAC)));
    bench.assert_changed(["received +2", "flow.opened +1", "forwarded +2", "sent +2"]);
    bench.turn([&segment(40_001)]);
    bench.assert_changed(["received +1", "dropped.standby +1"]);
    bench.serve(vipa_model::Balance::Maglev, &[1]);
    bench.turn([&segment(40_002).syn()]);
    bench.assert_changed(["received +1", "dropped.standby +1"]);
}

#[test]
fn the_kernel_gets_its_share_and_no_more() {
    let mut bench = with_kernel(bench());
    let stray = from_client().ipv4(CLIENT, ROUTER).udp(1, 2);
    let flood = vec![stray; 500];
    bench.turn(&flood);
    assert_eq!(bench.kernel().len(), 100, "a tenth of a second's 1,000");
    bench.assert_changed(["received +500", "kernel.to +100", "sent +100", "dropped.kernel-limit +400"]);
}

#[test]
fn a_neighbour_is_told_where_the_vipa_is_and_who_says_where_it_is_is_heard() {
    let mut bench = Bench::with_service(SERVICE6, [T6]);
    let vipa = VIPA6.parse().unwrap();
    let question = vipa_packet::nd::solicitation(&CLIENT_MAC, "2001:db8:0:51::99".parse().unwrap(), vipa);
    let answer = bench.turn_frames([question.into()]).remove(0);
    let vipa_packet::Body::Ipv6Icmp(icmp) = vipa_packet::parse(answer.as_ref()).unwrap().body else { panic!("ICMPv6") };
    assert!(matches!(icmp.message, vipa_packet::Icmp6::Advertisement(told) if told.mac == Some(ROUTER_MAC)));
    bench.assert_changed(["received +1", "replied.neighbour +1", "sent +1"]);
    let asker =
        Note::Neighbour { port: PortId(0), address: "2001:db8:0:51::99".parse().unwrap(), mac: Mac(CLIENT_MAC) };
    assert_eq!(bench.notes(), [asker]);

    let here = vipa_packet::nd::unsolicited(&target_mac(0), T6.parse().unwrap());
    bench.turn_frames([here.into()]);
    let told = Note::Neighbour { port: PortId(0), address: T6.parse().unwrap(), mac: Mac(target_mac(0)) };
    assert_eq!(bench.notes(), [told]);
    bench.assert_changed(["received +1", "punted +1"]);
    bench.stance(vipa_model::Stance::Standby);
    assert_eq!(bench.turn_frames([question.into()]), NOTHING);
}

#[test]
fn a_station_that_says_it_has_an_owned_ipv6_vipa_or_asks_to_have_it_is_told_of() {
    let vipa: std::net::Ipv6Addr = VIPA6.parse().unwrap();
    let other = target_mac(7);
    let bare = || {
        let ends = packet().macs(other, [0x33, 0x33, 0, 0, 0, 1]).ipv6(VIPA6, "ff02::1").ttl(255);
        ends.icmp(vipa_packet::nd::ADVERTISEMENT, 0, 0).payload(vipa.octets()).build()
    };
    let said: [vipa_packet::HeapPacket; 4] = [
        vipa_packet::nd::unsolicited(&other, vipa).into(),
        vipa_packet::nd::solicitation(&other, vipa, T6.parse().unwrap()).into(),
        vipa_packet::nd::probe(&other, vipa).into(),
        bare(),
    ];
    for frame in said {
        let mut bench = Bench::with_service(SERVICE6, [T6]);
        bench.turn_frames([frame]);
        let told = Note::Conflict { port: PortId(0), vipa: vipa.into(), mac: Mac(other) };
        assert_eq!(bench.notes(), [told]);
    }
    let mut bench = Bench::with_service(SERVICE6, [T6]);
    bench.turn_frames([vipa_packet::nd::unsolicited(&ROUTER_MAC, vipa).into()]);
    assert!(bench.notes().iter().all(|note| !matches!(note, Note::Conflict { .. })), "this router's own");
}

#[test]
fn a_ping_to_an_ipv6_vipa_is_answered() {
    let mut bench = Bench::with_service(SERVICE6, [T6]);
    let ping = from_client().ipv6(CLIENT6, VIPA6).icmp6_echo(3, 4).payload(b"abc");
    let pong = to_client(packet().ipv6(VIPA6, CLIENT6).icmp6_echo_reply(3, 4).payload(b"abc"));
    assert_eq!(bench.turn([&ping]), [pong]);
}

#[test]
fn answers_that_anybody_can_ask_for_are_limited() {
    let mut bench = bench();
    let pings = vec![from_client().ipv4(CLIENT, VIPA).icmp_echo(1, 1); 3000];
    assert_eq!(bench.turn(&pings).len(), 1000, "a tenth of a second's 10,000");
    bench.assert_changed(["received +3000", "replied.icmp-echo +1000", "sent +1000", "dropped.answer-limit +2000"]);
}

#[test]
fn a_vipas_limit_and_a_sources_hold_back_new_connections_alone() {
    let mut bench = bench();
    bench.change(|world| world.new_per_second = Some(100));
    // Limits are taken between turns.
    bench.turn([]);
    bench.advance(std::time::Duration::from_secs(1));
    bench.turn([]);
    bench.confirm(CLIENT, 39_999, 80, 0);
    let syns: Vec<_> = (40_000..40_050).map(|port| segment(port).syn()).collect();
    assert_eq!(bench.turn(&syns).len(), 10, "a tenth of a second's 100");
    bench.assert_changed(["received +50", "flow.opened +10", "forwarded +10", "sent +10", "dropped.vipa-limit +40"]);
    assert_eq!(bench.turn([&segment(39_999).flags(TcpFlags::ACK)]).len(), 1, "an established one is not held back");
}

#[test]
fn clients_that_are_not_admitted_get_no_new_connection() {
    let mut bench = bench();
    let sources = vipa_model::Sources {
        deny: vec!["203.0.113.0/24".parse().unwrap()],
        new_per_second: Some(50),
        ..vipa_model::Sources::default()
    };
    bench.change(|world| {
        world.services[0].sources = vipa_handoff::SourceRule::build(&sources).map(std::sync::Arc::new);
    });
    bench.turn([&segment(40_000).syn()]);
    bench.assert_changed(["received +1", "dropped.denied +1"]);
    let other = |client: &str, port| from_client().ipv4(client, VIPA).tcp(port, 80).syn();
    let one: Vec<_> = (1000..1020).map(|port| other("198.18.0.1", port)).collect();
    assert_eq!(bench.turn(&one).len(), 5, "a tenth of a second's 50");
    assert_eq!(bench.turn([&other("198.18.0.2", 1000)]).len(), 1, "another client");
    bench.assert_changed(["received +21", "flow.opened +6", "forwarded +6", "sent +6", "dropped.source-limit +15"]);
}

#[test]
fn a_packet_that_waits_for_its_targets_neighbour_has_control_ask_for_it() {
    let mut bench = Bench::with_service(SERVICE, [T0]);
    bench.confirm(CLIENT, 40_000, 80, 0);
    let mut next_hop = None;
    bench.change(|world| next_hop = world.targets[0].next_hop.take());
    let _ = bench.notes();
    assert_eq!(bench.turn([&segment(40_000)]), NOTHING);
    assert_eq!(bench.notes(), [Note::Wanted { port: PortId(0), address: T0.parse().unwrap() }]);
    bench.change(|world| world.targets[0].next_hop = next_hop);
    assert_eq!(bench.turn([]).len(), 1);
    bench.assert_changed(["received +1", "held +1", "released +1", "forwarded +1", "sent +1"]);
}
