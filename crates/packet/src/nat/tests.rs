use super::*;
use crate::{
    HeapPacket, PacketBuf,
    build::{Builder, packet},
    parse,
};

const TARGET4: Endpoint = Endpoint::V4(0x0a00_001f, 8080);
const VIPA4: Endpoint = Endpoint::V4(0xc000_020a, 80);
const TARGET6: Endpoint = Endpoint::V6(0x2001_0db8_0000_0051 << 64 | 0x1f, 8080);
const VIPA6: Endpoint = Endpoint::V6(0x2001_0db8 << 96 | 0x10, 80);

fn changed(frame: &Builder, change: impl FnOnce(&mut [u8], &Parsed) -> bool) -> HeapPacket {
    let mut frame = frame.build();
    let parsed = parse(frame.bytes()).unwrap();
    assert!(change(frame.bytes_mut(), &parsed), "{frame:?}");
    frame
}

fn client4() -> Builder {
    packet().ipv4("203.0.113.4", "192.0.2.10")
}

fn client6() -> Builder {
    packet().ipv6("2001:db8:1::4", "2001:db8::10")
}

#[test]
fn a_packet_to_the_vipa_becomes_one_to_the_target() {
    let sent = |to: Builder| to.tcp(40_000, 80).payload(b"request");
    let expected = packet().ipv4("203.0.113.4", "10.0.0.31").tcp(40_000, 8080).payload(b"request");
    assert_eq!(changed(&sent(client4()), |frame, parsed| to_target(frame, parsed, TARGET4)), expected);
    let expected = packet().ipv6("2001:db8:1::4", "2001:db8:0:51::1f").tcp(40_000, 8080).payload(b"request");
    assert_eq!(changed(&sent(client6()), |frame, parsed| to_target(frame, parsed, TARGET6)), expected);
    let expected = packet().ipv4("203.0.113.4", "10.0.0.31").udp(40_000, 8080).payload(b"odd");
    let datagram = client4().udp(40_000, 80).payload(b"odd");
    assert_eq!(changed(&datagram, |frame, parsed| to_target(frame, parsed, TARGET4)), expected);
}

#[test]
fn the_targets_answer_becomes_the_vipas() {
    let answer = packet().ipv4("10.0.0.31", "203.0.113.4").tcp(8080, 40_000).syn_ack();
    let expected = packet().ipv4("192.0.2.10", "203.0.113.4").tcp(80, 40_000).syn_ack();
    assert_eq!(changed(&answer, |frame, parsed| from_target(frame, parsed, VIPA4)), expected);
    let answer = packet().ipv6("2001:db8:0:51::1f", "2001:db8:1::4").udp(8080, 40_000).payload([7; 9]);
    let expected = packet().ipv6("2001:db8::10", "2001:db8:1::4").udp(80, 40_000).payload([7; 9]);
    assert_eq!(changed(&answer, |frame, parsed| from_target(frame, parsed, VIPA6)), expected);
}

#[test]
fn a_datagram_without_checksum_stays_without_and_none_becomes_one_without() {
    let mut frame = client4().udp(40_000, 80).payload(b"x").build();
    frame.bytes_mut()[40..42].fill(0);
    let parsed = parse(frame.bytes()).unwrap();
    assert!(to_target(frame.bytes_mut(), &parsed, TARGET4));
    assert_eq!(frame.bytes()[40..42], [0, 0]);
    for port in 0..=u16::MAX {
        let mut frame = client4().udp(40_000, 80).payload(b"x").build();
        let parsed = parse(frame.bytes()).unwrap();
        assert!(to_target(frame.bytes_mut(), &parsed, Endpoint::V4(0x0a00_001f, port)));
        assert_ne!(frame.bytes()[40..42], [0, 0]);
    }
}

#[test]
fn later_parts_keep_their_bytes_and_first_ones_get_the_port() {
    let part = client4().identification(9_u16).udp(40_000, 80).payload([1; 16]);
    let expected = packet().ipv4("203.0.113.4", "10.0.0.31").identification(9_u16);
    let rewritten = changed(&part.clone().first_fragment(), |frame, parsed| to_target(frame, parsed, TARGET4));
    assert_eq!(rewritten, expected.clone().udp(40_000, 8080).payload([1; 16]).first_fragment());
    let raw = client4().identification(9_u16).protocol(UDP).payload([1; 16]).last_fragment(24);
    let rewritten = changed(&raw, |frame, parsed| to_target(frame, parsed, TARGET4));
    assert_eq!(rewritten, expected.protocol(UDP).payload([1; 16]).last_fragment(24));
}

#[test]
fn a_first_part_without_its_whole_header_and_parts_of_the_other_family_are_refused() {
    let cut4 = client4().protocol(TCP).payload([0; 16]).first_fragment();
    let cut6 = client6().part(0, true).protocol(TCP).payload([0; 16]);
    let family = client6().part(0, true).udp(40_000, 80).payload([0; 8]);
    for (frame, endpoint) in [(cut4, TARGET4), (cut6, TARGET6), (family, TARGET4)] {
        let mut rewritten = frame.build();
        let parsed = parse(rewritten.bytes()).unwrap();
        assert!(matches!(parsed.body, Body::Ipv4Fragment(_) | Body::Ipv6Fragment(_)), "{parsed:?}");
        assert!(!to_target(rewritten.bytes_mut(), &parsed, endpoint));
        assert_eq!(rewritten, frame);
    }
}

#[test]
fn the_other_family_and_other_protocols_are_left_alone() {
    for (frame, endpoint) in [
        (client4().tcp(1, 2), TARGET6),
        (client6().tcp(1, 2), TARGET4),
        (client4().protocol(99).payload([0; 20]), TARGET4),
        (client4().icmp_echo(1, 1), TARGET4),
    ] {
        let mut packet = frame.build();
        let parsed = parse(packet.bytes()).unwrap();
        assert!(!to_target(packet.bytes_mut(), &parsed, endpoint));
        assert_eq!(packet, frame);
    }
}

#[test]
fn an_error_about_a_packet_of_the_vipa_reaches_the_target_as_about_its_own() {
    // What the target sent, as the client's side saw it and as the target remembers it.
    let seen = packet().ipv4("192.0.2.10", "203.0.113.4").tcp(80, 40_000).build();
    let sent = packet().ipv4("10.0.0.31", "203.0.113.4").tcp(8080, 40_000).build();
    let error = packet().ipv4("203.0.113.254", "192.0.2.10").icmp_too_big(1400, &seen);
    let expected = packet().ipv4("203.0.113.254", "10.0.0.31").icmp_too_big(1400, &sent);
    let (_, ours) = (error.clone(), changed(&error, |frame, parsed| error_to_target(frame, parsed, TARGET4)));
    assert_eq!(ours, expected);

    let seen = packet().ipv6("2001:db8::10", "2001:db8:1::4").udp(80, 40_000).payload([0; 8]).build();
    let mut sent = packet().ipv6("2001:db8:0:51::1f", "2001:db8:1::4").udp(8080, 40_000).payload([0; 8]).build();
    // The quoted datagram's own checksum is left as it was seen.
    let sum: [u8; 2] = *seen.bytes()[60..62].first_chunk().unwrap();
    sent.bytes_mut()[60..62].copy_from_slice(&sum);
    let error = packet().ipv6("2001:db8:1::fe", "2001:db8::10").icmp6_error(2, 0, 1300, &seen);
    let expected = packet().ipv6("2001:db8:1::fe", "2001:db8:0:51::1f").icmp6_error(2, 0, 1300, &sent);
    assert_eq!(changed(&error, |frame, parsed| error_to_target(frame, parsed, TARGET6)), expected);
}

#[test]
fn an_error_of_the_target_or_on_the_way_to_it_reaches_the_client_as_about_the_vipa() {
    let seen = packet().ipv4("203.0.113.4", "10.0.0.31").tcp(40_000, 8080).build();
    let sent = packet().ipv4("203.0.113.4", "192.0.2.10").tcp(40_000, 80).build();
    for (from, to) in [("10.0.0.31", "192.0.2.10"), ("10.0.0.254", "10.0.0.254")] {
        let error = packet().ipv4(from, "203.0.113.4").icmp_unreachable(3, &seen);
        let expected = packet().ipv4(to, "203.0.113.4").icmp_unreachable(3, &sent);
        assert_eq!(changed(&error, |frame, parsed| error_from_target(frame, parsed, VIPA4)), expected);
    }
}

#[test]
fn a_hop_is_counted_and_the_last_one_is_refused() {
    let segment = |ttl| client4().ttl(ttl).tcp(1, 2);
    assert_eq!(changed(&segment(64), decrement_ttl), segment(63));
    assert_eq!(changed(&client6().ttl(2).tcp(1, 2), decrement_ttl), client6().ttl(1).tcp(1, 2));
    let mut last = segment(1).build();
    let parsed = parse(last.bytes()).unwrap();
    assert!(!decrement_ttl(last.bytes_mut(), &parsed));
    assert_eq!(last, segment(1));
}

proptest::proptest! {
    #[test]
    fn what_was_translated_and_back_is_what_it_was(
        ports: (u16, u16),
        address: u32,
        port: u16,
        payload in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        is_udp: bool,
    ) {
        let segment = if is_udp { client4().udp(ports.0, ports.1) } else { client4().tcp(ports.0, ports.1) };
        let segment = segment.payload(payload);
        let mut frame = segment.build();
        let parsed = parse(frame.bytes()).unwrap();
        assert!(to_target(frame.bytes_mut(), &parsed, Endpoint::V4(address, port)));
        assert!(to_target(frame.bytes_mut(), &parsed, Endpoint::V4(0xc000_020a, ports.1)));
        assert_eq!(frame, segment);
    }

    #[test]
    fn a_translated_packet_has_valid_checksums(address: u128, port: u16, payload in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let mut frame = client6().tcp(40_000, 80).payload(payload).build();
        let parsed = parse(frame.bytes()).unwrap();
        assert!(to_target(frame.bytes_mut(), &parsed, Endpoint::V6(address, port)));
        let bytes = frame.bytes();
        let length = (bytes.len() - 54) as u16;
        let sum = checksum::pseudo_header6(0x2001_0db8_0001 << 80 | 4, address, TCP, length).bytes(&bytes[54..]);
        assert_eq!(sum.fold(), 0xffff);
    }
}
