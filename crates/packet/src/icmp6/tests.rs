use super::*;
use crate::{HeapPacket, build::packet, icmp, parse};

const OURS: MacAddress = [2, 0, 0, 0, 0, 2];
const CLIENT_MAC: MacAddress = [2, 0, 0, 0, 0, 1];
const CLIENT: &str = "2001:db8:1::4";
const VIPA: &str = "2001:db8::10";

#[test]
fn a_ping_is_answered_with_what_it_carried() {
    let mut frame = packet().ipv6(CLIENT, VIPA).ttl(9).icmp6_echo(7, 8).payload(b"abc").build();
    let parsed = parse(frame.bytes()).unwrap();
    assert!(echo_reply(&mut frame, &parsed, &OURS));
    assert_eq!(frame, packet().macs(OURS, CLIENT_MAC).ipv6(VIPA, CLIENT).icmp6_echo_reply(7, 8).payload(b"abc"));
}

fn answered(mut frame: HeapPacket) -> Option<HeapPacket> {
    let (parsed, before) = (parse(frame.bytes()).expect("well-formed"), frame.clone());
    if echo_reply(&mut frame, &parsed, &OURS) {
        return Some(frame);
    }
    assert_eq!(frame, before, "a refusal changes nothing");
    None
}

#[test]
fn a_ping_with_extension_headers_is_answered_without_them() {
    let pong = packet().macs(OURS, CLIENT_MAC).ipv6(VIPA, CLIENT).icmp6_echo_reply(7, 8).payload(b"abc");
    let ping = packet().ipv6(CLIENT, VIPA);
    for ping in [
        ping.clone().extension(0, &[1, 4]),
        ping.clone().extension(60, &[1, 12]).extension(43, &[0, 0]),
        ping.clone().part(0, false),
    ] {
        let ping = ping.icmp6_echo(7, 8).payload(b"abc");
        assert_eq!(answered(ping.build()), Some(pong.build()));
        assert_eq!(answered(ping.vlan(0x6009).build()), Some(pong.clone().vlan(0x6009).build()));
    }
}

#[test]
fn a_ping_in_parts_becomes_its_reply_in_the_same_parts_whichever_comes_first() {
    let payload: Vec<u8> = (0..64).collect();
    let (ping, pong) = (packet().ipv6(CLIENT, VIPA), packet().macs(OURS, CLIENT_MAC).ipv6(VIPA, CLIENT));
    let (ping, pong) = (ping.identification(9_u32), pong.identification(9_u32));
    let whole = ping.clone().icmp6_echo(7, 1).payload(&payload).build();
    let whole_reply = pong.clone().icmp6_echo_reply(7, 1).payload(&payload).build();
    for (offset, end) in [(40, 72), (0, 24), (24, 40)] {
        let part = |of: &crate::build::Builder, message: &HeapPacket| {
            of.clone().protocol(ICMP6).payload(&message.bytes()[54 + offset..54 + end]).part(offset as u16, end < 72)
        };
        let (asked, expected) = (part(&ping, &whole), part(&pong, &whole_reply));
        assert_eq!(answered(asked.build()), Some(expected.build()), "from {offset}");
        assert_eq!(answered(asked.extension(0, &[1, 4]).build()), None, "headers before the part are not sent back");
    }
}

#[test]
fn the_sender_of_a_packet_that_ends_here_is_told_by_us_and_of_a_closed_port_by_who_has_it() {
    let sent = packet().ipv6(CLIENT, VIPA).ttl(1).udp(40_000, 53).payload([7; 1_300]).build();
    let parsed = parse(sent.bytes()).expect("well-formed");
    let told = |source: &str| packet().macs(OURS, CLIENT_MAC).ipv6(source, CLIENT);
    for (ours, source) in [(Some(0x2001_0db8 << 96 | 0xfe), "2001:db8::fe"), (None, VIPA)] {
        let mut expired = sent.clone();
        assert!(time_exceeded(&mut expired, &parsed, ours, &OURS));
        assert_eq!(expired, told(source).icmp6_error(TIME_EXCEEDED, 0, 0, &sent));
    }
    let mut closed = sent.clone();
    assert!(port_unreachable(&mut closed, &parsed, &OURS));
    assert_eq!(closed, told(VIPA).icmp6_error(UNREACHABLE, 4, 0, &sent));
}

#[test]
fn an_error_names_the_connection_it_is_about() {
    let sent = packet().ipv6(VIPA, CLIENT).extension(60, &[]).tcp(80, 40_000).build();
    let error = packet().ipv6("2001:db8:1::fe", VIPA).icmp6_error(PACKET_TOO_BIG, 0, 1280, &sent).build();
    let Body::Ipv6Icmp(Ipv6Icmp { message: Icmp6::Error { quoted, .. }, .. }) = parse(error.bytes()).unwrap().body
    else {
        panic!("an error");
    };
    assert_eq!((quoted.source_port, quoted.destination_port, quoted.protocol), (80, 40_000, TCP));
}

fn told(mut frame: HeapPacket, mtu: u16) -> Option<HeapPacket> {
    let parsed = parse(frame.bytes()).unwrap();
    let six = too_big(&mut frame, &parsed, mtu, &OURS);
    let four = !six && icmp::too_big(&mut frame, &parsed, mtu, &OURS);
    (six || four).then_some(frame)
}

#[test]
fn the_sender_of_a_packet_that_is_too_big_is_told_by_the_address_it_sent_to() {
    let large = packet().ipv6(CLIENT, VIPA).tcp(40_000, 80).payload([5; 1400]).build();
    let expected = packet().macs(OURS, CLIENT_MAC).ipv6(VIPA, CLIENT).icmp6_error(PACKET_TOO_BIG, 0, 1460, &large);
    assert_eq!(told(large, 1460).unwrap(), expected);

    let large = packet().ipv4("203.0.113.4", "192.0.2.10").dont_fragment().tcp(40_000, 80).payload([5; 1400]).build();
    let quote = &large.bytes()[14..14 + 548];
    let expected = packet().macs(OURS, CLIENT_MAC).ipv4("192.0.2.10", "203.0.113.4").traffic_class(0xc0);
    assert_eq!(told(large.clone(), 1480).unwrap(), expected.icmp(3, 4, 1480).payload(quote));
}

#[test]
fn small_and_tagged_packets_are_quoted_whole_and_in_their_vlan() {
    let small = packet().vlan(7).ipv6(CLIENT, VIPA).udp(1, 2).payload([9; 20]).build();
    let expected = packet().vlan(7).macs(OURS, CLIENT_MAC).ipv6(VIPA, CLIENT).icmp6_error(2, 0, 1280, &small);
    assert_eq!(told(small, 1280).unwrap(), expected);
}

#[test]
fn errors_and_later_parts_are_never_answered_with_errors() {
    let sent = packet().ipv6(VIPA, CLIENT).tcp(80, 40_000).build();
    assert_eq!(told(packet().ipv6(CLIENT, VIPA).icmp6_error(1, 0, 0, &sent).build(), 1280), None);
    let sent = packet().ipv4("192.0.2.10", "203.0.113.4").tcp(80, 40_000).build();
    assert_eq!(told(packet().ipv4("203.0.113.4", "192.0.2.10").icmp_unreachable(1, &sent).build(), 1280), None);
    let part = packet().ipv4("203.0.113.4", "192.0.2.10").protocol(17).payload([0; 16]).last_fragment(8);
    assert_eq!(told(part.build(), 1280), None);
}
