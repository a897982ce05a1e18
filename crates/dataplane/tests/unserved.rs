//! New connections that no target serves: silence, or a refusal as a host with a closed port sends it.

mod support;

use std::time::Duration;

use support::*;
use vipa_dataplane::{Limits, bench::Bench};
use vipa_model::{Balance, Moment, Stance, Unserved};
use vipa_packet::{
    HeapPacket, TcpFlags,
    build::{Builder, packet},
    icmp6,
};

const VIPA6: &str = "2001:db8::10";
const CLIENT6: &str = "2001:db8:1::4";

fn refusing(service: &str, target: &str) -> Bench {
    let mut bench = Bench::with_service(service, [target]);
    bench.change(|world| world.unserved = Unserved::Refuse);
    bench
}

fn syn(port: u16) -> Builder {
    from_client().ipv4(CLIENT, VIPA).tcp(40_000, port).syn().sequence(7)
}

/// The answer to it.
fn refusal(port: u16) -> HeapPacket {
    let reset = packet().ipv4(VIPA, CLIENT).dont_fragment().tcp(port, 40_000);
    let mut reset = to_client(reset.flags(TcpFlags::RST.with(TcpFlags::ACK)).acknowledge(8)).build();
    // A reset offers no window.
    vipa_packet::PacketBuf::bytes_mut(&mut reset)[48..50].fill(0);
    reset
}

/// Ports, sequence numbers and flags.
fn told(frame: &HeapPacket) -> (Vec<u8>, u8) {
    let bytes: &[u8] = frame.as_ref();
    (bytes[..46].iter().skip(26).copied().collect(), bytes[47])
}

#[test]
fn a_syn_that_nobody_serves_is_answered_with_a_reset() {
    let mut bench = refusing(SERVICE, T0);
    let answers = bench.turn([&syn(81)]);
    assert_eq!(answers.iter().map(told).collect::<Vec<_>>(), [told(&refusal(81))], "no service");
    bench.serve(Balance::Maglev, &[]);
    let answers = bench.turn([&syn(80)]);
    assert_eq!(answers.iter().map(told).collect::<Vec<_>>(), [told(&refusal(80))], "no listener");
    bench.assert_changed(["received +2", "replied.reset +2", "sent +2"]);
    assert_eq!(bench.flows.count().total(), 0);
}

#[test]
fn a_datagram_that_nobody_serves_is_answered_with_port_unreachable() {
    let mut bench = refusing("192.0.2.10:53/udp", T0);
    let datagram = from_client().ipv4(CLIENT, VIPA).udp(40_000, 54).payload(b"query");
    let quote = datagram.build().as_ref()[14..].to_vec();
    let answer = to_client(packet().ipv4(VIPA, CLIENT).traffic_class(0xc0).icmp(3, 3, 0).payload(quote));
    assert_eq!(bench.turn([&datagram]), [answer]);

    let mut six = refusing("[2001:db8::10]:53/udp", "2001:db8:0:51::21");
    six.serve(Balance::Maglev, &[]);
    let datagram = from_client().ipv6(CLIENT6, VIPA6).udp(40_000, 53).payload(b"query");
    let answer = packet().ipv6(VIPA6, CLIENT6).icmp6_error(icmp6::UNREACHABLE, 4, 0, &datagram.build());
    assert_eq!(six.turn([&datagram]), [to_client(answer)]);
    for bench in [&mut bench, &mut six] {
        bench.assert_changed(["received +1", "replied.unreachable +1", "sent +1"]);
        assert_eq!(bench.flows.count().total(), 0);
    }
}

#[test]
fn a_udp_flow_whose_last_target_stops_serving_is_refused() {
    let mut bench = refusing("192.0.2.10:53/udp", T0);
    let datagram = from_client().ipv4(CLIENT, VIPA).udp(40_000, 53);
    bench.turn([&datagram]);
    bench.serve(Balance::Maglev, &[]);
    bench.check_counters();
    bench.turn([&datagram]);
    bench.assert_changed(["received +1", "replied.unreachable +1", "sent +1"]);
}

#[test]
fn a_segment_to_a_port_without_service_is_refused_but_no_reset() {
    let mut bench = refusing(SERVICE, T0);
    let stray = from_client().ipv4(CLIENT, VIPA).tcp(40_000, 81);
    bench.turn([&stray, &stray.clone().rst()]);
    bench.assert_changed(["received +2", "replied.reset +1", "sent +1", "dropped.no-service +1"]);
}

#[test]
fn by_default_nothing_is_said() {
    let mut bench = bench();
    assert_eq!(bench.turn([&syn(81)]), NOTHING);
    bench.serve(Balance::Maglev, &[]);
    assert_eq!(bench.turn([&syn(80)]), NOTHING);
    bench.assert_changed(["received +2", "dropped.no-service +1", "dropped.no-target +1"]);
}

#[test]
fn only_an_owner_that_knows_who_serves_refuses() {
    let mut bench = refusing(SERVICE, T0);
    for (stance, dropped) in [
        (Stance::Standby, "dropped.standby +1"),
        (Stance::Rebuilding, "dropped.no-service +1"),
        (Stance::Yielding, "dropped.no-service +1"),
    ] {
        bench.stance(stance);
        assert_eq!(bench.turn([&syn(81)]), NOTHING, "{stance:?}");
        bench.assert_changed(["received +1", dropped]);
    }
    let soon = bench.now + Duration::from_millis(100);
    bench.change(|world| (world.stance, world.quiet_until) = (Stance::Active, soon));
    assert_eq!(bench.turn([&syn(81)]), NOTHING, "a late report may name a listener");
    bench.assert_changed(["received +1", "dropped.no-service +1"]);
    bench.change(|world| (world.quiet_until, world.services) = (Moment::ZERO, Vec::new()));
    assert_eq!(bench.turn([&syn(81)]), NOTHING, "no service is known yet");
    bench.assert_changed(["received +1", "dropped.no-service +1"]);
    bench.world.lease.set(Moment::ZERO);
    assert_eq!(bench.turn([&syn(81)]), NOTHING, "fenced");
    bench.assert_changed(["received +1", "dropped.fenced +1"]);
}

#[test]
fn refusals_are_limited_as_other_answers_are() {
    let limits = Limits { answers_per_second: 100, ..Limits::default() };
    let mut bench = Bench::with_limits(SERVICE, [T0], 10_000, limits);
    bench.change(|world| world.unserved = Unserved::Refuse);
    assert_eq!(bench.turn(&vec![syn(81); 50]).len(), 10);
    bench.assert_changed(["received +50", "replied.reset +10", "dropped.answer-limit +40", "sent +10"]);
}
