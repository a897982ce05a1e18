use proptest::prelude::*;

use super::*;
use crate::{HeapPacket, ICMP, Icmp, PacketBuf, Station, build::packet, fix_checksums};

const VIPA: &str = "192.0.2.10";
const CLIENT: &str = "203.0.113.4";
const SOURCE: u32 = 0xcb00_7104;
const DESTINATION: u32 = 0xc000_020a;

fn parsed(frame: &HeapPacket) -> Parsed {
    parse(frame.bytes()).expect("well-formed")
}

fn with(frame: &HeapPacket, at: usize, byte: u8) -> HeapPacket {
    let mut frame = frame.clone();
    frame.bytes_mut()[at] = byte;
    frame
}

/// Changes an IPv4 header at 14 and updates its checksum.
fn with_ip(frame: &HeapPacket, at: usize, byte: u8) -> HeapPacket {
    let mut frame = with(frame, 14 + at, byte);
    let header = &mut frame.bytes_mut()[14..34];
    header[10..12].fill(0);
    let sum = checksum::of(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn a_syn_written_byte_by_byte_is_read_field_by_field() {
    #[rustfmt::skip]
    let frame = [
        0x02, 0x00, 0x00, 0x00, 0x00, 0x02, 0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x08, 0x00,
        0x45, 0x00, 0x00, 0x2c, 0x1c, 0x46, 0x40, 0x00, 0x40, 0x06, 0x20, 0x77, 203, 0, 113, 4, 192, 0, 2, 10,
        0x9c, 0x40, 0x00, 0x50, 0x00, 0x00, 0x00, 0x63, 0, 0, 0, 0, 0x60, 0x02, 0xff, 0xff, 0, 0, 0, 0,
        0x02, 0x04, 0x05, 0xb4, 0x00, 0x00,
    ];
    let flags = TcpFlags::SYN;
    let tcp = Ipv4Tcp { source: SOURCE, destination: DESTINATION, source_port: 40_000, destination_port: 80, flags };
    assert_eq!(
        parsed(&HeapPacket::from(frame)),
        Parsed { vlan: None, l3: 14, l4: 34, end: 58, body: Body::Ipv4Tcp(tcp) }
    );
}

#[test]
fn tcp_is_the_same_with_options_with_a_tag_and_with_padding() {
    let plain = packet().ipv4(CLIENT, VIPA).tcp(40_000, 80).syn();
    let flags = TcpFlags::SYN;
    let tcp = Ipv4Tcp { source: SOURCE, destination: DESTINATION, source_port: 40_000, destination_port: 80, flags };
    let expected = Parsed { vlan: None, l3: 14, l4: 34, end: 54, body: Body::Ipv4Tcp(tcp) };
    assert_eq!(parsed(&plain.build()), expected);
    assert_eq!(parsed(&plain.clone().padded().build()), expected);
    assert_eq!(parsed(&plain.clone().dont_fragment().build()), expected);
    assert_eq!(parsed(&plain.clone().tcp_options(&[1; 40]).build()), Parsed { end: 94, ..expected });
    assert_eq!(parsed(&plain.clone().ip_options(&[1; 40]).build()), Parsed { l4: 74, end: 94, ..expected });
    let tagged = Parsed { vlan: Some(5), l3: 18, l4: 38, end: 58, ..expected };
    assert_eq!(parsed(&plain.clone().vlan(5).build()), tagged);
    assert_eq!(parsed(&plain.clone().vlan(0xe005).build()), tagged, "priority is no part of the identifier");
    assert_eq!(parsed(&plain.vlan(0x2000).build()), Parsed { vlan: Some(0), ..tagged });
}

#[test]
fn udp_and_ping_are_read() {
    let udp = Ipv4Udp { source: SOURCE, destination: DESTINATION, source_port: 40_000, destination_port: 53 };
    let frame = packet().ipv4(CLIENT, VIPA).udp(40_000, 53).payload(b"query").build();
    assert_eq!(parsed(&frame), Parsed { vlan: None, l3: 14, l4: 34, end: 47, body: Body::Ipv4Udp(udp) });
    let icmp = Ipv4Icmp { source: SOURCE, destination: DESTINATION, message: Icmp::EchoRequest };
    let frame = packet().ipv4(CLIENT, VIPA).icmp_echo(1, 2).build();
    assert_eq!(parsed(&frame), Parsed { vlan: None, l3: 14, l4: 34, end: 42, body: Body::Ipv4Icmp(icmp) });
}

#[test]
fn only_the_first_part_of_a_packet_has_ports() {
    let tcp = packet().ipv4(CLIENT, VIPA).identification(7_u16).tcp(40_000, 80).payload([0; 20]);
    let head = FragmentHead { source_port: 40_000, destination_port: 80, flags: Some(TcpFlags::ACK) };
    for (part, offset, more, head) in
        [(tcp.clone().first_fragment(), 0, true, Some(head)), (tcp.last_fragment(1_480), 1_480, false, None)]
    {
        let (source, destination, protocol, identification) = (SOURCE, DESTINATION, TCP, 7);
        let fragment =
            Fragment { source, destination, protocol, identification, offset, more, head, is_echo_request: false };
        assert_eq!(parsed(&part.build()).body, Body::Ipv4Fragment(fragment));
    }
}

const CLIENT6: &str = "2001:db8:1::4";
const VIPA6: &str = "2001:db8::10";
const SOURCE6: u128 = 0x2001_0db8_0001 << 80 | 4;
const DESTINATION6: u128 = 0x2001_0db8 << 96 | 0x10;

#[test]
fn ipv6_is_read_as_ipv4_is() {
    let tcp = Tcp {
        source: SOURCE6,
        destination: DESTINATION6,
        source_port: 40_000,
        destination_port: 80,
        flags: TcpFlags::SYN,
    };
    let syn = packet().ipv6(CLIENT6, VIPA6).tcp(40_000, 80).syn();
    let expected = Parsed { vlan: None, l3: 14, l4: 54, end: 74, body: Body::Ipv6Tcp(tcp) };
    assert_eq!(parsed(&syn.build()), expected);
    assert_eq!(alone(&syn.build()), Some(Body::Ipv6Tcp(tcp)));
    let tagged = Parsed { vlan: Some(5), l3: 18, l4: 58, end: 78, body: Body::Ipv6Tcp(tcp) };
    assert_eq!(parsed(&syn.clone().vlan(5).build()), tagged);
    let extended = syn.extension(0, &[1, 4]).extension(60, &[1, 12]).build();
    assert_eq!((parsed(&extended).l4, parsed(&extended).body), (54 + 8 + 8, Body::Ipv6Tcp(tcp)));
    assert_eq!(alone(&extended), None);
    let udp = packet().ipv6(CLIENT6, VIPA6).udp(53, 53).payload([1, 2, 3]).build();
    assert!(matches!(parsed(&udp).body, Body::Ipv6Udp(Udp { source_port: 53, .. })));
}

#[test]
fn parts_of_ipv6_packets_say_so_in_a_header_of_their_own() {
    let udp = packet().ipv6(CLIENT6, VIPA6).identification(0xdead_beef_u32).udp(40_000, 53).payload([0; 16]);
    let Body::Ipv6Fragment(first) = parsed(&udp.clone().first_fragment().build()).body else { panic!("a part") };
    let head = FragmentHead { source_port: 40_000, destination_port: 53, flags: None };
    assert_eq!((first.identification, first.offset, first.more, first.head), (0xdead_beef, 0, true, Some(head)));
    let Body::Ipv6Fragment(last) = parsed(&udp.last_fragment(1_232).build()).body else { panic!("a part") };
    assert_eq!((last.identification, last.offset, last.more, last.head), (0xdead_beef, 1_232, false, None));
}

#[test]
fn parts_of_one_packet_agree_in_protocol_whatever_headers_the_first_one_has() {
    // Destination options of 8 bytes, then UDP: only the first part shows what follows them.
    let options_then_udp = [&[UDP, 0, 1, 4, 0, 0, 0, 0][..], &[0x9c, 0x40, 0, 53, 0, 40, 0, 0], &[7; 8]].concat();
    let packet = packet().ipv6(CLIENT6, VIPA6).identification(7_u32).protocol(60);
    let Body::Ipv6Fragment(first) = parsed(&packet.clone().payload(options_then_udp).first_fragment().build()).body
    else {
        panic!("a part")
    };
    let head = FragmentHead { source_port: 40_000, destination_port: 53, flags: None };
    assert_eq!((first.protocol, first.head), (60, Some(head)));
    let Body::Ipv6Fragment(last) = parsed(&packet.payload([7; 8]).last_fragment(24).build()).body else {
        panic!("a part")
    };
    assert_eq!((last.protocol, last.head), (60, None));
}

#[test]
fn every_fault_of_ipv6_has_its_name() {
    let tcp = packet().ipv6(CLIENT6, VIPA6).tcp(40_000, 80);
    let from = |source: &str| packet().ipv6(source, VIPA6).tcp(40_000, 80).build();
    let many = (0..9).fold(tcp.clone(), |packet, _| packet.extension(60, &[]));
    let too_long = with(&tcp.build(), 19, 200);
    for (frame, reason) in [
        (with(&tcp.build(), 14, 0x40), Malformed::Ipv6Version),
        (too_long, Malformed::Ipv6PayloadLength),
        (from("ff02::1"), Malformed::Ipv6Source),
        (from("::1"), Malformed::Ipv6Source),
        (from("::"), Malformed::Ipv6Source),
        (from("::ffff:10.0.0.1"), Malformed::Ipv6Source),
        (tcp.clone().extension(60, &[]).extension(0, &[]).build(), Malformed::Ipv6HopByHop),
        (tcp.clone().extension(43, &[0, 1]).build(), Malformed::SourceRoute),
        (many.build(), Malformed::Ipv6TooManyHeaders),
        (with(&tcp.clone().extension(60, &[]).build(), 55, 200), Malformed::Ipv6ExtensionHeader),
        (tcp.payload([0; 3]).first_fragment().build(), Malformed::Ipv6Fragment),
        (packet().ipv6(CLIENT6, VIPA6).protocol(crate::ICMP6).payload([1; 7]).build(), Malformed::Icmp6TooShort),
        (packet().ipv6(CLIENT6, VIPA6).icmp(1, 0, 0).payload([0x60; 39]).build(), Malformed::Icmp6Quote),
    ] {
        assert_eq!(parse(frame.bytes()), Err(reason), "{frame:?}");
    }
}

#[test]
fn only_the_first_part_of_a_ping_says_that_it_is_one() {
    let is_ping = |frame: crate::build::Builder| match parsed(&frame.build()).body {
        Body::Ipv4Fragment(part) => part.is_echo_request,
        Body::Ipv6Fragment(part) => part.is_echo_request,
        other => panic!("{other:?}"),
    };
    let (four, six) = (packet().ipv4(CLIENT, VIPA), packet().ipv6(CLIENT6, VIPA6));
    assert!(is_ping(four.clone().icmp_echo(1, 2).payload([0; 8]).first_fragment()));
    assert!(is_ping(six.clone().icmp6_echo(1, 2).payload([0; 8]).first_fragment()));
    for other in [
        four.clone().icmp_echo_reply(1, 2).payload([0; 8]).first_fragment(),
        six.clone().icmp6_echo_reply(1, 2).payload([0; 8]).first_fragment(),
        four.clone().protocol(crate::ICMP).payload([8, 0, 0, 0, 0, 0, 0, 0]).last_fragment(8),
        four.protocol(UDP).payload([8, 0, 0, 0, 0, 0, 0, 0]).first_fragment(),
    ] {
        assert!(!is_ping(other.clone()), "{other:?}");
    }
}

#[test]
fn a_source_route_is_refused_until_it_is_at_its_end() {
    let ping = packet().ipv4(CLIENT, VIPA);
    let segment = |options: &[u8]| ping.clone().ip_options(options).tcp(40_000, 80).build();
    for kind in [131, 137] {
        for refused in [
            &[kind, 7, 4, 192, 0, 2, 1][..],
            &[1, 1, kind, 7, 4, 192, 0, 2, 1],
            &[7, 3, 4, kind, 11, 8, 192, 0, 2, 1, 192, 0, 2, 2],
            &[1, 1, 1, kind],
            &[1, 1, kind, 3],
            &[kind, 40, 41, 0],
        ] {
            assert_eq!(parse(segment(refused).bytes()), Err(Malformed::SourceRoute), "{refused:?}");
        }
        for taken in [&[kind, 7, 8, 192, 0, 2, 1][..], &[0, kind, 7, 4], &[7, 7, kind, 4, 0, 0, 0], &[148, 4, 0, 0]] {
            assert!(parse(segment(taken).bytes()).is_ok(), "{taken:?}");
        }
    }
}

#[test]
fn a_fragment_too_small_for_its_transport_header_is_still_a_fragment() {
    let part = packet().ipv4(CLIENT, VIPA).protocol(TCP).payload(b"tail").last_fragment(8).build();
    assert!(matches!(parsed(&part).body, Body::Ipv4Fragment { .. }));
}

#[test]
fn what_is_neither_arp_nor_ip_says_its_type() {
    for ether_type in [0x9000, 0x88a8, 0x0026] {
        let frame = packet().ether_type(ether_type).payload([0; 40]).build();
        assert_eq!(parsed(&frame).body, Body::OtherEtherType(ether_type));
        let tagged = packet().ether_type(ether_type).payload([0; 40]).vlan(7).build();
        assert_eq!(parsed(&tagged).body, Body::OtherEtherType(ether_type));
    }
    let twice = packet().ether_type(TYPE_VLAN).payload([0; 40]).vlan(7).build();
    assert_eq!(parsed(&twice).body, Body::OtherEtherType(TYPE_VLAN), "only one tag is looked through");
    let sctp = packet().ipv4(CLIENT, VIPA).protocol(132).payload([0; 40]).build();
    let other = Body::Ipv4Other { source: SOURCE, destination: DESTINATION, protocol: 132 };
    assert_eq!(parsed(&sctp).body, other);
}

#[test]
fn every_damage_has_its_name() {
    let tcp = packet().ipv4(CLIENT, VIPA).tcp(40_000, 80).payload(b"data").build();
    let udp = packet().ipv4(CLIENT, VIPA).udp(40_000, 80).payload(b"data").build();
    let ip = packet().ipv4(CLIENT, VIPA);
    for (frame, reason) in [
        (HeapPacket::from([0; 13]), Malformed::TooShort),
        (HeapPacket::from(&packet().vlan(1).build().bytes()[..17]), Malformed::TooShort),
        (HeapPacket::from(&tcp.bytes()[..33]), Malformed::TooShort),
        (with(&tcp, 14, 0x65), Malformed::Ipv4Version),
        (with(&tcp, 14, 0x44), Malformed::Ipv4HeaderLength),
        (with_ip(&with(&ip.build(), 14, 0x46), 0, 0x46), Malformed::Ipv4HeaderLength),
        (with_ip(&tcp, 3, 19), Malformed::Ipv4TotalLength),
        (with_ip(&tcp, 3, 45), Malformed::Ipv4TotalLength),
        (ip.clone().spoil_ipv4_checksum().tcp(40_000, 80).build(), Malformed::Ipv4Checksum),
        (with(&tcp, 22, 63), Malformed::Ipv4Checksum),
        (packet().ipv4("224.0.0.5", VIPA).tcp(40_000, 80).build(), Malformed::Ipv4Source),
        (packet().ipv4("127.0.0.1", VIPA).udp(40_000, 80).build(), Malformed::Ipv4Source),
        (with_ip(&tcp, 3, 39), Malformed::TcpHeader),
        (with(&tcp, 46, 0x40), Malformed::TcpHeader),
        (with(&tcp, 46, 0x70), Malformed::TcpHeader),
        (with_ip(&udp, 3, 27), Malformed::UdpLength),
        (with(&udp, 39, 7), Malformed::UdpLength),
        (with(&udp, 39, 13), Malformed::UdpLength),
        (ip.clone().protocol(ICMP).payload([8, 0, 0, 0, 0, 0, 0]).build(), Malformed::IcmpTooShort),
        (ip.clone().icmp(3, 0, 0).payload([0x44; 27]).build(), Malformed::IcmpQuote),
        (packet().ether_type(TYPE_ARP).payload([0; 27]).build(), Malformed::Arp),
    ] {
        assert_eq!(parse(frame.bytes()), Err(reason), "{frame:?}");
    }
}

#[test]
fn reasons_are_dense_and_their_names_differ() {
    for (index, reason) in Malformed::ALL.into_iter().enumerate() {
        assert_eq!(reason.index(), index);
        assert_eq!(Malformed::ALL.iter().filter(|other| other.name() == reason.name()).count(), 1);
    }
}

#[test]
fn a_martian_is_told_by_its_first_byte() {
    for first in 0..=255u32 {
        let martian = matches!(first, 0 | 127 | 224..=239 | 255);
        assert_eq!(is_martian(first << 24 | 0x0001_0203), martian, "{first}.1.2.3");
    }
}

/// Frames that are almost right: one that the builder made, then some bytes changed and perhaps the end cut.
fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
    let kind = (0..10u8, prop::option::of(any::<u16>()), any::<bool>(), prop::collection::vec(any::<u8>(), 0..80));
    let damage = prop::collection::vec((0..90usize, any::<u8>()), 0..4);
    (kind, damage, any::<bool>(), 0..200usize).prop_map(|((kind, vlan, padded, payload), damage, fix, len)| {
        let ip = packet().ipv4(CLIENT, VIPA);
        let mut frame = match kind {
            0 | 1 => ip.tcp(40_000, 80),
            2 => ip.udp(40_000, 80),
            3 => ip.icmp_echo(1, 1),
            4 => ip.icmp(3, 4, 0),
            5 => ip.tcp(40_000, 80).ip_options(&[1; 8]),
            6 => ip.tcp(40_000, 80).first_fragment(),
            7 => packet().ipv6(CLIENT6, VIPA6).tcp(40_000, 80),
            8 => packet().ipv6(CLIENT6, VIPA6).udp(40_000, 80),
            _ => packet().arp_request(CLIENT, VIPA),
        };
        frame = frame.payload(payload);
        frame = if let Some(vlan) = vlan { frame.vlan(vlan) } else { frame };
        let mut frame = if padded { frame.padded() } else { frame }.build();
        for (at, byte) in damage {
            if let Some(place) = frame.bytes_mut().get_mut(at) {
                *place = byte;
            }
        }
        if fix && kind < 7 && frame.bytes().len() >= 34 {
            let ttl = frame.bytes()[22];
            frame = with_ip(&frame, 8, ttl);
        }
        frame.truncate(len);
        frame.bytes().to_vec()
    })
}

/// The station that a frame is for.
fn called_by(frame: &HeapPacket) -> Station {
    Station::new(frame.bytes().first_chunk().expect("a frame has an address"))
}

fn check(frame: &[u8]) -> Result<(), TestCaseError> {
    let verdict = parse(frame);
    prop_assert_eq!(verdict, parse_any(frame), "the short way says what the long way says");
    let station = Station::new(&frame.first_chunk().copied().unwrap_or_default());
    let mut fixed = frame.to_vec();
    fix_checksums(&mut fixed);
    let [verified, right] = [(frame, HeaderSums::Verified), (&fixed, HeaderSums::Unverified)]
        .map(|(frame, sums)| side_by_side(&[frame.to_vec()], station, sums)[0]);
    prop_assert_eq!(verified, right, "nothing but the sum is taken on trust");
    if let Some(body) = side_by_side(&[frame.to_vec()], station, HeaderSums::Unverified)[0] {
        let (l4, end) = verdict.map(|parsed| (parsed.l4, parsed.end)).unwrap_or_default();
        prop_assert_eq!(verdict, Ok(Parsed { vlan: None, l3: 14, l4, end, body }), "and so does the shortest");
    }
    if let Ok(Parsed { l3, l4, end, .. }) = verdict {
        prop_assert!(usize::from(l3) <= usize::from(l4) && u32::from(l4) <= end && end as usize <= frame.len());
        let padded = [frame, &[0xaa; 7]].concat();
        if !matches!(verdict, Ok(Parsed { body: Body::OtherEtherType(_), .. })) {
            prop_assert_eq!(parse(&padded), verdict, "padding is no part of the packet");
            prop_assert_eq!(parse(&frame[..end as usize]), verdict);
        }
    }
    Ok(())
}

/// What is found of a frame, by the station that it is for.
fn alone(frame: &HeapPacket) -> Option<Body> {
    side_by_side(&[frame.bytes().to_vec()], called_by(frame), HeaderSums::Unverified)[0]
}

/// What is found of each of the frames, after a burst of others.
fn side_by_side(frames: &[Vec<u8>], station: Station, sums: HeaderSums) -> Vec<Option<Body>> {
    let mut columns = HeaderColumns::default();
    let mut note = |place, frame: &[u8]| {
        columns.load(place, frame);
        columns.load_ipv6(place, frame);
    };
    for place in 0..HEADER_ROWS {
        let ends = packet().macs([2; 6], [4; 6]);
        let other =
            if place % 2 == 0 { ends.ipv4(CLIENT, VIPA).tcp(1, 2) } else { ends.ipv6(CLIENT6, VIPA6).tcp(1, 2) };
        note(place, other.build().bytes());
    }
    for (place, frame) in frames.iter().enumerate() {
        note(place, frame);
    }
    let of_ipv6 = columns.ipv6();
    let Ipv4Segments { plain, mid_stream, .. } = *columns.segments(station, sums);
    let Ipv6Segments { plain: plain6, mid_stream: mid_stream6, .. } = *columns.segments6(station);
    assert_eq!(plain & plain6, 0);
    let has = |places: u32, place: usize| places >> place & 1 != 0;
    let segment = |place: usize| {
        assert_eq!(has(of_ipv6, place), columns.is_ipv6(place));
        let (found, is_mid_stream) = if has(plain, place) {
            let segment = columns.segment(place);
            (Body::Ipv4Tcp(segment), (segment.flags.is_mid_stream(), has(mid_stream, place)))
        } else if has(plain6, place) {
            assert!(has(of_ipv6, place));
            let segment = columns.segment6(place);
            (Body::Ipv6Tcp(segment), (segment.flags.is_mid_stream(), has(mid_stream6, place)))
        } else {
            return None;
        };
        assert_eq!(is_mid_stream.0, is_mid_stream.1, "{found:?}");
        Some(found)
    };
    (0..frames.len()).map(segment).collect()
}

#[test]
fn an_address_is_as_martian_by_calculation_as_by_the_table() {
    for first in 0..=255 {
        assert_eq!(ipv4::is_martian_octet(first), is_martian((first as u32) << 24), "{first}");
    }
}

#[test]
fn a_source_of_ipv6_is_as_martian_among_others_as_alone() {
    for (address, is_one) in [
        (0, true),
        (1, true),
        (2, false),
        (0xffff << 32, true),
        (0xffff << 32 | 0xcb00_7104, true),
        (0xfffe << 32, false),
        (0x1_ffff << 32, false),
        (1 << 64, false),
        (1 << 64 | 1, false),
        (0xfe80 << 112 | 1, false),
        (0xff02 << 112 | 1, true),
        (SOURCE6, false),
    ] {
        assert_eq!(ipv6::is_martian(address), is_one, "{address:x}");
        let frame = packet().ipv6(address, VIPA6).tcp(40_000, 80).build();
        assert_eq!(alone(&frame).is_none(), is_one, "{address:x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn frames_side_by_side_are_what_each_is_by_itself(frames in prop::collection::vec(nearly_right(), 1..=HEADER_ROWS)) {
        let station = Station::new(frames[0].first_chunk().unwrap_or(&[0; 6]));
        for (frame, found) in frames.iter().zip(side_by_side(&frames, station, HeaderSums::Unverified)) {
            let whole = match parse(frame) {
                Ok(Parsed { vlan: None, l4: 34, body: body @ Body::Ipv4Tcp(_), .. }) => Some(body),
                Ok(Parsed { vlan: None, l4: 54, body: body @ Body::Ipv6Tcp(_), .. }) => Some(body),
                _ => None,
            };
            let is_ours = frame.first_chunk::<6>() == frames[0].first_chunk();
            prop_assert_eq!(found, whole.filter(|_| is_ours));
        }
    }

    #[test]
    fn arbitrary_bytes_get_a_verdict(frame in prop::collection::vec(any::<u8>(), 0..120)) {
        check(&frame)?;
    }

    #[test]
    fn nearly_right_frames_get_a_verdict(frame in nearly_right()) {
        check(&frame)?;
    }

    #[test]
    fn the_short_way_takes_every_plain_segment_and_datagram(
        ends in any::<(u16, u16)>(), destination in any::<u32>(), bits in any::<u8>(), ttl in any::<u8>(),
        payload in prop::collection::vec(any::<u8>(), 0..100), options in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let frame = packet().ipv4(CLIENT, destination).ttl(ttl).tcp(ends.0, ends.1).flags(TcpFlags(bits))
            .tcp_options(&options).payload(&payload).build();
        prop_assert!(parse_plain(frame.bytes()).is_some());
        let found = |station| side_by_side(&[frame.bytes().to_vec()], station, HeaderSums::Unverified);
        prop_assert!(found(called_by(&frame))[0].is_some());
        prop_assert_eq!(found(Station::new(&[2, 0, 0, 0, 9, 9])), [None], "another station's");
        let six = packet().ipv6(CLIENT6, VIPA6).ttl(ttl).tcp(ends.0, ends.1).flags(TcpFlags(bits))
            .tcp_options(&options).payload(&payload).build();
        prop_assert!(alone(&six).is_some());
        let frame = packet().ipv4(CLIENT, destination).ttl(ttl).udp(ends.0, ends.1).payload(&payload).build();
        prop_assert!(parse_plain(frame.bytes()).is_some());
    }
}
