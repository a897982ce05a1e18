use super::*;
use crate::{HeapPacket, PacketBuf, build::packet, parse};

const US: MacAddress = [2, 0, 0, 0, 0, 1];
const THEM: MacAddress = [2, 0, 0, 0, 0, 2];
const VIPA: &str = "192.0.2.10";
const CLIENT: &str = "203.0.113.4";
const ROUTER: &str = "198.51.100.1";

fn message(frame: &HeapPacket) -> Icmp {
    match parse(frame.bytes()).expect("well-formed").body {
        Body::Ipv4Icmp(icmp) => icmp.message,
        other => panic!("{other:?}"),
    }
}

fn answered(mut frame: HeapPacket) -> Option<HeapPacket> {
    let parsed = parse(frame.bytes()).expect("well-formed");
    let before = frame.clone();
    if echo_reply(frame.bytes_mut(), &parsed, &US) {
        return Some(frame);
    }
    assert_eq!(frame, before, "a refusal changes nothing");
    None
}

#[test]
fn a_ping_becomes_its_reply_with_the_same_payload() {
    for (payload, ttl) in [(&b""[..], 64), (b"odd", 1), (&[0xff; 1_400], 255)] {
        let ping =
            packet().macs(THEM, US).ipv4(CLIENT, VIPA).ttl(ttl).icmp_echo(7, 1).payload(payload).vlan(9).padded();
        let pong = packet().macs(US, THEM).ipv4(VIPA, CLIENT).icmp_echo_reply(7, 1).payload(payload).vlan(9).padded();
        assert_eq!(answered(ping.build()), Some(pong.build()));
    }
}

#[test]
fn every_identifier_and_sequence_gets_the_checksum_that_recomputation_gives() {
    for number in 0..=u16::MAX {
        let mut ping = packet().macs(THEM, US).ipv4(CLIENT, VIPA).icmp_echo(number, !number).build();
        let parsed = parse(ping.bytes()).expect("well-formed");
        assert!(echo_reply(ping.bytes_mut(), &parsed, &US));
        let message = &ping.bytes()[34..];
        assert!(checksum::is_valid(message), "identifier {number}");
    }
}

#[test]
fn a_damaged_ping_gets_a_damaged_reply() {
    let mut ping = packet().macs(THEM, US).ipv4(CLIENT, VIPA).icmp_echo(7, 1).payload(b"payload").build();
    ping.bytes_mut()[45] ^= 0x10;
    let pong = answered(ping).expect("the router does not look at the payload");
    assert!(!checksum::is_valid(&pong.bytes()[34..]));
}

#[test]
fn a_reply_of_zeros_has_the_checksum_that_receivers_take() {
    for length in [0, 1, 2, 7, 56, 1_400] {
        let ping = packet().macs(THEM, US).ipv4(CLIENT, VIPA).icmp_echo(0, 0).payload(vec![0; length]);
        let pong = answered(ping.build()).expect("a ping");
        assert_eq!(pong.bytes()[34..38], [0, 0, 0xff, 0xff], "{length} bytes of payload");
        assert!(checksum::is_valid(&pong.bytes()[34..]));
    }
    let first = packet().macs(THEM, US).ipv4(CLIENT, VIPA).icmp_echo(0, 0).payload([0; 16]).first_fragment();
    assert_eq!(answered(first.build()).expect("a ping").bytes()[36..38], [0xff, 0xff], "also of a ping in parts");
}

#[test]
fn a_ping_in_parts_becomes_its_reply_in_the_same_parts_whichever_comes_first() {
    let payload: Vec<u8> = (0..64).collect();
    let (ping, pong) = (packet().macs(THEM, US).ipv4(CLIENT, VIPA), packet().macs(US, THEM).ipv4(VIPA, CLIENT));
    let (ping, pong) = (ping.identification(9_u16), pong.identification(9_u16));
    let whole = ping.clone().icmp_echo(7, 1).payload(&payload).build();
    let whole_reply = pong.clone().icmp_echo_reply(7, 1).payload(&payload).build();
    for (offset, end) in [(40, 72), (0, 24), (24, 40)] {
        let part = |of: &crate::build::Builder, message: &HeapPacket| {
            of.clone().protocol(ICMP).payload(&message.bytes()[34 + offset..34 + end]).part(offset as u16, end < 72)
        };
        let (asked, expected) = (part(&ping, &whole), part(&pong, &whole_reply));
        assert_eq!(answered(asked.build()), Some(expected.build()), "from {offset}");
    }
}

#[test]
fn a_ping_with_ip_options_is_answered_and_they_stay() {
    let record_route = [7, 7, 4, 0, 0, 0, 0];
    let ping = packet().macs(THEM, US).ipv4(CLIENT, VIPA).ttl(3).ip_options(&record_route).icmp_echo(7, 1);
    let pong = packet().macs(US, THEM).ipv4(VIPA, CLIENT).ip_options(&record_route).icmp_echo_reply(7, 1);
    assert_eq!(answered(ping.payload(b"odd").build()), Some(pong.payload(b"odd").build()));
}

#[test]
fn the_sender_of_a_packet_that_ends_here_is_told_by_us_and_of_a_closed_port_by_who_has_it() {
    let sent = packet().macs(THEM, US).ipv4(CLIENT, VIPA).ttl(1).udp(40_000, 53).payload([7; 600]).vlan(0x6009).build();
    let quote = &sent.bytes()[18..18 + 548];
    let told = |source: &str| packet().macs(US, THEM).ipv4(source, CLIENT).traffic_class(0xc0).vlan(0x6009);
    let mut expired = sent.clone();
    let parsed = parse(sent.bytes()).expect("well-formed");
    assert!(time_exceeded(&mut expired, &parsed, 0xc633_6401, &US));
    assert_eq!(expired, told(ROUTER).icmp(TIME_EXCEEDED, 0, 0).payload(quote).build());
    let mut closed = sent.clone();
    assert!(port_unreachable(&mut closed, &parsed, &US));
    assert_eq!(closed, told(VIPA).icmp(UNREACHABLE, 3, 0).payload(quote).build());

    let error = packet().ipv4(ROUTER, VIPA).icmp_unreachable(1, &packet().ipv4(VIPA, CLIENT).udp(1, 2).build()).build();
    for silent in [error, packet().ipv4(CLIENT, VIPA).protocol(UDP).payload([0; 8]).last_fragment(8).build()] {
        let mut frame = silent.clone();
        let parsed = parse(silent.bytes()).expect("well-formed");
        assert!(!time_exceeded(&mut frame, &parsed, 1, &US) && !port_unreachable(&mut frame, &parsed, &US));
        assert_eq!(frame, silent, "an error is never answered, nor is a later part");
    }
}

#[test]
fn replies_errors_and_other_protocols_are_not_answered() {
    let ip = packet().macs(THEM, US).ipv4(CLIENT, VIPA);
    let segment = ip.clone().tcp(40_000, 80).build();
    for other in [
        ip.clone().icmp_echo_reply(7, 1),
        ip.clone().icmp_echo_reply(7, 1).payload([0; 8]).first_fragment(),
        ip.clone().icmp_unreachable(1, &segment),
        ip.clone().icmp(ECHO_REQUEST, 1, 0),
        ip.clone().udp(7, 7),
    ] {
        assert_eq!(answered(other.build()), None);
    }
}

#[test]
fn an_error_names_the_connection_whose_packet_it_quotes() {
    let (source, destination) = (0xc000_020a, 0xcb00_7104);
    let sent = packet().ipv4(VIPA, CLIENT);
    for (quote, protocol) in [
        (sent.clone().tcp(80, 40_000).payload([1; 100]), TCP),
        (sent.clone().udp(80, 40_000), UDP),
        (sent.clone().ip_options(&[1; 40]).tcp(80, 40_000), TCP),
        (sent.clone().tcp(80, 40_000).vlan(3), TCP),
        (sent.clone().spoil_ipv4_checksum().tcp(80, 40_000), TCP),
        (sent.clone().tcp(80, 40_000).first_fragment(), TCP),
    ] {
        let quoted = Quoted { source, destination, protocol, source_port: 80, destination_port: 40_000 };
        let quote = quote.build();
        let too_big = packet().ipv4(ROUTER, VIPA).icmp_too_big(1_400, &quote).build();
        assert_eq!(message(&too_big), Icmp::Error { kind: UNREACHABLE, code: FRAGMENTATION_NEEDED, quoted });
        for kind in [TIME_EXCEEDED, PARAMETER_PROBLEM] {
            let error = packet().ipv4(ROUTER, VIPA).icmp_error(kind, 0, 0, &quote).build();
            assert_eq!(message(&error), Icmp::Error { kind, code: 0, quoted });
        }
    }
}

#[test]
fn an_error_about_a_packet_without_ports_names_nobody() {
    let sent = packet().ipv4(VIPA, CLIENT);
    for quote in [sent.clone().icmp_echo(1, 1), sent.clone().protocol(50), sent.clone().tcp(80, 1).last_fragment(1_480)]
    {
        let error = packet().ipv4(ROUTER, VIPA).icmp_unreachable(1, &quote.build()).build();
        assert_eq!(message(&error), Icmp::Other(UNREACHABLE));
    }
}

#[test]
fn a_redirect_and_a_source_quench_are_nothing_to_act_on() {
    let quote = packet().ipv4(VIPA, CLIENT).tcp(80, 40_000).build();
    for kind in [4, 5] {
        assert_eq!(message(&packet().ipv4(ROUTER, VIPA).icmp_error(kind, 0, 0, &quote).build()), Icmp::Other(kind));
    }
}

#[test]
fn a_quote_cut_before_its_ports_is_malformed() {
    let quote = packet().ipv4(VIPA, CLIENT).ip_options(&[1; 4]).tcp(80, 40_000).build();
    let error = packet().ipv4(ROUTER, VIPA).icmp(UNREACHABLE, 1, 0);
    for len in 0..28 {
        let cut = error.clone().payload(&quote.bytes()[14..14 + len]).build();
        assert_eq!(parse(cut.bytes()), Err(Malformed::IcmpQuote), "{len} bytes of quote");
    }
    let enough = error.payload(&quote.bytes()[14..14 + 28]).build();
    assert!(matches!(message(&enough), Icmp::Error { .. }));
}
