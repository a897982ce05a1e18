use super::*;
use crate::{
    HeapPacket, PacketBuf, TcpFlags,
    build::{Builder, packet},
    parse,
};

const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const TARGET_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0];
const LINK: EthernetHeader = EthernetHeader { source: ROUTER_MAC, destination: TARGET_MAC, vlan: None };
const ENTROPY: u32 = 0xabcd_1234;
const OUTER4: TunnelEndpoints = TunnelEndpoints::V4 { source: 0xc633_6401, destination: 0xc633_6415 };
const OUTER6: TunnelEndpoints =
    TunnelEndpoints::V6 { source: 0x2001_0db8 << 96 | 1, destination: 0x2001_0db8 << 96 | 0x21 };
const GUE: Encapsulation = Encapsulation::Gue { port: 6080 };

fn segment4() -> Builder {
    packet().ipv4("203.0.113.4", "192.0.2.10").traffic_class(0xb9).dont_fragment().tcp(40_000, 80).payload(b"hello")
}

fn segment6() -> Builder {
    packet().ipv6("2001:db8:1::4", "2001:db8::10").traffic_class(0x2a).tcp(40_000, 80).payload(b"hello")
}

/// The outer packet before it says what it carries.
fn outer4(class: u8) -> Builder {
    packet().macs(ROUTER_MAC, TARGET_MAC).ipv4("198.51.100.1", "198.51.100.21").dont_fragment().traffic_class(class)
}

fn outer6(class: u8) -> Builder {
    let outer = packet().macs(ROUTER_MAC, TARGET_MAC).ipv6("2001:db8::1", "2001:db8::21");
    outer.traffic_class(class).flow_label(ENTROPY & 0xf_ffff)
}

fn wrapped(
    inner: &Builder,
    outer: &TunnelEndpoints,
    encapsulation: Encapsulation,
    link: &EthernetHeader,
) -> HeapPacket {
    let mut frame = inner.build();
    let parsed = parse(frame.bytes()).unwrap();
    assert!(encapsulate(&mut frame, &parsed, outer, encapsulation, ENTROPY, link));
    frame
}

const GUE_SOURCE: u16 = 0xc000 | (ENTROPY as u16 & 0x3fff);

#[test]
fn ip_in_ip_is_the_packet_after_an_outer_header_in_all_four_pairs() {
    for (inner, class) in [(segment4(), 0xb9), (segment6(), 0x2a)] {
        let carried = inner.build();
        assert_eq!(wrapped(&inner, &OUTER4, Encapsulation::Ipip, &LINK), outer4(class).ipip(&carried));
        assert_eq!(wrapped(&inner, &OUTER6, Encapsulation::Ipip, &LINK), outer6(class).ipip(&carried));
    }
}

#[test]
fn gre_says_the_inner_packets_ether_type() {
    for (inner, class) in [(segment4(), 0xb9), (segment6(), 0x2a)] {
        let carried = inner.build();
        assert_eq!(wrapped(&inner, &OUTER4, Encapsulation::Gre, &LINK), outer4(class).gre(&carried));
        assert_eq!(wrapped(&inner, &OUTER6, Encapsulation::Gre, &LINK), outer6(class).gre(&carried));
    }
}

#[test]
fn gue_is_udp_whose_source_port_tells_connections_apart() {
    for (inner, class) in [(segment4(), 0xb9), (segment6(), 0x2a)] {
        let carried = inner.build();
        assert_eq!(wrapped(&inner, &OUTER4, GUE, &LINK), outer4(class).gue(GUE_SOURCE, 6080, &carried));
        assert_eq!(wrapped(&inner, &OUTER6, GUE, &LINK), outer6(class).gue(GUE_SOURCE, 6080, &carried));
    }
}

#[test]
fn padding_and_tags_stay_behind_and_the_links_own_tag_comes() {
    let plain = wrapped(&segment4(), &OUTER4, Encapsulation::Gre, &LINK);
    assert_eq!(wrapped(&segment4().vlan(9).padded(), &OUTER4, Encapsulation::Gre, &LINK), plain);
    let tagged = wrapped(&segment4(), &OUTER4, Encapsulation::Gre, &EthernetHeader { vlan: Some(7), ..LINK });
    assert_eq!(tagged, outer4(0xb9).vlan(7).gre(&segment4().build()));
}

#[test]
fn without_headroom_nothing_changes() {
    let mut frame = segment4().build();
    while frame.headroom() > 0 {
        let all = frame.headroom();
        frame.prepend(all).unwrap();
    }
    let mut cramped = segment4().build();
    let parsed = parse(cramped.bytes()).unwrap();
    let room = cramped.headroom();
    let original: Vec<u8> = cramped.bytes().to_vec();
    cramped.prepend(room).unwrap();
    // A frame whose packet begins where the buffer does.
    let l3 = (room + usize::from(parsed.l3)) as u8;
    let shifted = Parsed { l3, end: parsed.end + room as u32, ..parsed };
    assert!(encapsulate(&mut cramped, &shifted, &OUTER4, Encapsulation::Ipip, 0, &LINK), "what is before it is room");
    let mut none = HeapPacket::from(original.clone());
    let all = none.headroom();
    assert!(none.prepend(all).is_some() && none.headroom() == 0);
    let at_start = Parsed { l3: 0, l4: 20, end: 30, ..parsed };
    assert!(!encapsulate(&mut none, &at_start, &OUTER4, Encapsulation::Ipip, 0, &LINK));
}

#[test]
fn overhead_is_what_a_packet_grows_by() {
    for (encapsulation, outer, ipv6) in [
        (Encapsulation::Ipip, OUTER4, false),
        (Encapsulation::Gre, OUTER4, false),
        (GUE, OUTER4, false),
        (Encapsulation::Ipip, OUTER6, true),
        (Encapsulation::Gre, OUTER6, true),
        (GUE, OUTER6, true),
    ] {
        let grown = wrapped(&segment4(), &outer, encapsulation, &LINK).bytes().len();
        assert_eq!(grown - segment4().build().bytes().len(), encapsulation.overhead(ipv6));
    }
}

#[test]
fn etherparse_agrees_with_every_outer_header_and_its_checksum() {
    for (inner, outer) in [(segment4(), OUTER4), (segment6(), OUTER4), (segment4(), OUTER6), (segment6(), OUTER6)] {
        for encapsulation in [Encapsulation::Ipip, Encapsulation::Gre, GUE] {
            let frame = wrapped(&inner, &outer, encapsulation, &LINK);
            let headers = etherparse::PacketHeaders::from_ethernet_slice(frame.bytes()).expect("well-formed");
            match (headers.net.expect("an IP header"), outer) {
                (etherparse::NetHeaders::Ipv4(header, _), TunnelEndpoints::V4 { source, destination }) => {
                    assert_eq!(header.header_checksum, header.calc_header_checksum());
                    assert_eq!((header.source, header.destination), (source.to_be_bytes(), destination.to_be_bytes()));
                    assert_eq!(usize::from(header.total_len), frame.bytes().len() - 14);
                    assert!(header.dont_fragment && header.time_to_live == 64);
                }
                (etherparse::NetHeaders::Ipv6(header, _), TunnelEndpoints::V6 { source, destination }) => {
                    assert_eq!((header.source, header.destination), (source.to_be_bytes(), destination.to_be_bytes()));
                    assert_eq!(usize::from(header.payload_length), frame.bytes().len() - 54);
                    assert_eq!((header.flow_label.value(), header.hop_limit), (ENTROPY & 0xf_ffff, 64));
                }
                (other, _) => panic!("{other:?}"),
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn what_was_wrapped_comes_out_as_it_went_in(
        payload in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..1400),
        entropy in proptest::prelude::any::<u32>(),
        inner_is_ipv6: bool,
        outer_is_ipv6: bool,
        mode in 0..3_usize,
    ) {
        let inner = if inner_is_ipv6 { segment6() } else { segment4() }.flags(TcpFlags::ACK).payload(&payload);
        let outer = if outer_is_ipv6 { OUTER6 } else { OUTER4 };
        let mut frame = inner.build();
        let parsed = parse(frame.bytes()).unwrap();
        let encapsulation = [Encapsulation::Ipip, Encapsulation::Gre, GUE][mode];
        assert!(encapsulate(&mut frame, &parsed, &outer, encapsulation, entropy, &LINK));
        assert!(decapsulate(&mut frame));
        assert_eq!(frame, inner.macs(ROUTER_MAC, TARGET_MAC));
    }
}

#[test]
fn the_outer_tag_has_the_priority_of_the_inner_one() {
    let sent = packet().ipv4("203.0.113.4", "192.0.2.10").udp(1, 2).vlan(0xb005).build();
    for outer in [
        TunnelEndpoints::V4 { source: 1 << 24, destination: 2 << 24 },
        TunnelEndpoints::V6 { source: 1 << 100, destination: 2 << 100 },
    ] {
        for (vlan, tag) in [(Some(7), &[0x81, 0x00, 0xb0, 0x07][..]), (None, &[])] {
            let mut frame = sent.clone();
            let parsed = parse(frame.bytes()).expect("well-formed");
            let link = EthernetHeader { source: [2; 6], destination: [4; 6], vlan };
            assert!(encapsulate(&mut frame, &parsed, &outer, Encapsulation::Ipip, 0, &link));
            assert_eq!(&frame.bytes()[12..12 + tag.len()], tag);
            assert_eq!(ethernet::ether_type(frame.bytes()).is_some_and(|(tagged, _)| tagged), vlan.is_some());
        }
    }
}
