//! An ICMP error of a router on a tunnel's path about our outer packet reaches control, if it is plausible.

mod support;

use support::*;
use vipa_dataplane::bench::{Bench, KERNEL, ROUTER, ROUTER6};
use vipa_handoff::Note;
use vipa_packet::{
    Encapsulation, HeapPacket,
    build::{Builder, packet},
    icmp6::PACKET_TOO_BIG,
};

const SERVICE6: &str = "[2001:db8::10]:80/tcp";
const T6: &str = "2001:db8:0:51::21";
const HOP: &str = "203.0.113.254";
const HOP6: &str = "2001:db8:9::fe";

/// The outer packet that the bench sends to its target.
fn sent(bench: &mut Bench) -> HeapPacket {
    bench.confirm(CLIENT, 40_000, 80, 0);
    let sent = bench.turn([&segment(40_000).payload([7; 1_400])]).remove(0);
    bench.check_counters();
    sent
}

fn narrow(target: &str, mtu: u16) -> [Note; 1] {
    [Note::NarrowPath { target: target.parse().unwrap(), mtu }]
}

fn too_big(mtu: u16, sent: &HeapPacket) -> Builder {
    from_client().ipv4(HOP, ROUTER).icmp_too_big(mtu, sent)
}

#[test]
fn word_about_every_kind_of_tunnel_reaches_control() {
    for how in [Encapsulation::Ipip, Encapsulation::Gre, Encapsulation::Gue { port: 6080 }] {
        let mut bench = tunnelled(SERVICE, T0, how);
        let outer = sent(&mut bench);
        assert_eq!(bench.turn([&too_big(1_400, &outer)]), NOTHING);
        assert_eq!(bench.notes(), narrow(T0, 1_400), "{how:?}");
        bench.assert_changed(["received +1", "punted +1"]);

        let mut bench = tunnelled(SERVICE, T6, how);
        let outer = sent(&mut bench);
        let word = from_client().ipv6(HOP6, ROUTER6).icmp6_error(PACKET_TOO_BIG, 0, 1_400, &outer);
        assert_eq!(bench.turn([&word]), NOTHING);
        assert_eq!(bench.notes(), narrow(T6, 1_400), "{how:?} over IPv6");
        bench.assert_changed(["received +1", "punted +1"]);
    }
}

#[test]
fn a_kernel_behind_the_port_does_not_hear_of_our_packets() {
    let mut bench = tunnelled(SERVICE, T0, Encapsulation::Ipip);
    bench.change(|world| world.port.kernel = Some(KERNEL));
    let outer = sent(&mut bench);
    let of_the_kernel = packet().ipv4(ROUTER, T0).udp(40_000, 53).payload([0; 1_400]).build();
    bench.turn([&too_big(1_400, &outer), &too_big(1_300, &of_the_kernel)]);
    assert_eq!(bench.notes(), narrow(T0, 1_400));
    assert_eq!(bench.kernel(), [too_big(1_300, &of_the_kernel)]);
}

#[test]
fn what_is_known_already_is_not_told_again() {
    let mut bench = tunnelled(SERVICE, T0, Encapsulation::Ipip);
    bench.change(|world| world.targets[0].path_mtu = 1_400);
    let outer = sent(&mut bench);
    bench.turn([&too_big(1_400, &outer), &too_big(1_420, &outer)]);
    bench.assert_changed(["received +2", "punted +2"]);
    assert_eq!(bench.notes(), []);
    bench.turn([&too_big(1_399, &outer)]);
    assert_eq!(bench.notes(), narrow(T0, 1_399));
}

#[test]
fn word_about_packets_that_we_cannot_have_sent_is_not_heeded() {
    let mut bench = tunnelled(SERVICE, T0, Encapsulation::Ipip);
    let inner = segment(40_000).payload([7; 1_400]).build();
    let about =
        |source: &str, destination: &str| too_big(1_300, &packet().ipv4(source, destination).ipip(&inner).build());
    bench.turn([
        &about("198.51.100.2", T0),
        &about("198.51.100.1", "198.51.100.99"),
        &too_big(1_300, &packet().ipv4(ROUTER, T0).tcp(1, 2).payload([0; 1_400]).build()),
        &too_big(1_480, &packet().ipv4(ROUTER, T0).ipip(&inner).build()),
    ]);
    bench.assert_changed(["received +4", "dropped.no-vipa +4"]);
    assert_eq!(bench.notes(), []);
}

#[test]
fn an_ipv6_target_of_an_ipv6_vipa_is_heard_of_too() {
    let mut bench = tunnelled(SERVICE6, T6, Encapsulation::Ipip);
    let client = || from_client().ipv6("2001:db8:1::4", "2001:db8::10").tcp(40_000, 80);
    bench.turn([&client().syn()]);
    let outer = bench.turn([&client().payload([7; 1_300])]).remove(0);
    let word = from_client().ipv6(HOP6, ROUTER6).icmp6_error(PACKET_TOO_BIG, 0, 1_280, &outer);
    bench.turn([&word]);
    assert_eq!(bench.notes(), narrow(T6, 1_280));
}
