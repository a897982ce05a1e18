//! Whatever parses can be rewritten: each rewrite succeeds and leaves a packet, or fails and leaves the frame; what was
//! translated or wrapped comes back as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vipa_packet::{
    Body, Encapsulation, Endpoint, Fragment, HeapPacket, Icmp6, EthernetHeader, MacAddress, Malformed, TunnelEndpoints, PacketBuf, Parsed,
    arp, decapsulate, decrement_ttl, encapsulate, icmp, icmp6, fix_checksums, nat, nd, parse, tcp,
};

const US: MacAddress = [2, 0, 0, 0, 0, 2];
const LINK: EthernetHeader = EthernetHeader { source: US, destination: [2, 0, 0, 0, 0, 3], vlan: None };
const ELSEWHERE4: u32 = 0x0a00_001f;
const ELSEWHERE6: u128 = 0x2001_0db8_0000_0051 << 64 | 0x1f;

// The first eight bytes of an input are its choices.
fuzz_target!(init: vipa_fuzz::plant("rewrite", vipa_fuzz::frames(&[2, 80, 1, 2, 3, 4, 0, 0])), |input: &[u8]| {
    let [choice, port, numbers @ .., _, _] = *input.first_chunk::<8>().unwrap_or(&[0; 8]);
    let mut frame = input.get(8..).unwrap_or_default().to_vec();
    fix_checksums(&mut frame);
    let Ok(parsed) = parse(&frame) else { return };
    let frame = HeapPacket::from(frame);
    let (number, port) = (u32::from_be_bytes(numbers), u16::from_be_bytes([port, choice]));
    translate(&frame, &parsed, port);
    wrap(&frame, &parsed, choice, number);
    answer(&frame, &parsed, number as u16);
});

/// The frame after `rewrite`, which parses; `None` when it refused, and then it changed nothing.
fn rewritten(frame: &HeapPacket, rewrite: impl FnOnce(&mut HeapPacket) -> bool) -> Option<(HeapPacket, Parsed)> {
    let mut after = frame.clone();
    if !rewrite(&mut after) {
        assert_eq!(&after, frame, "a refusal changes nothing");
        return None;
    }
    let parsed = parse(after.bytes()).unwrap_or_else(|malformed| panic!("{malformed:?} after a rewrite of {frame:?}"));
    Some((after, parsed))
}

/// Two frames the same but for a checksum that was one of the two zeros of ones' complement (RFC 1624 §3) and is the other: at
/// most IPv4's, and the transport's or ICMP's and a quoted IPv4's.
fn assert_same_but_for_zeros(ours: &HeapPacket, theirs: &HeapPacket) {
    assert_eq!(ours.bytes().len(), theirs.bytes().len());
    let differing: Vec<_> = ours.bytes().iter().zip(theirs.bytes()).filter(|(a, b)| a != b).collect();
    let zeros = differing.iter().all(|(a, b)| matches!((**a, **b), (0, 0xff) | (0xff, 0)));
    assert!(zeros && differing.len() <= 6, "{ours:?} was {theirs:?}");
}

fn translate(frame: &HeapPacket, parsed: &Parsed, port: u16) {
    type Nat = fn(&mut [u8], &Parsed, Endpoint) -> bool;
    let Some((elsewhere, [source, destination])) = ends(&parsed.body, port) else { return };
    let whole: [(Nat, Endpoint); 2] = [(nat::to_target, destination), (nat::from_target, source)];
    for (way, back) in whole {
        let Some((there, seen)) = rewritten(frame, |packet| way(packet.bytes_mut(), parsed, elsewhere)) else {
            continue;
        };
        assert_eq!((seen.l3, seen.l4, seen.end), (parsed.l3, parsed.l4, parsed.end));
        let (again, _) = rewritten(&there, |packet| way(packet.bytes_mut(), &seen, back)).expect("back again");
        assert_same_but_for_zeros(&again, frame);
    }
    // Of an error nothing but what it quotes tells the way back, so only that it stays one is looked at.
    for way in [nat::error_to_target as Nat, nat::error_from_target] {
        if let Some((_, seen)) = rewritten(frame, |packet| way(packet.bytes_mut(), parsed, elsewhere)) {
            assert_eq!((seen.l3, seen.l4, seen.end), (parsed.l3, parsed.l4, parsed.end));
            let error = |body: &Body| match body {
                Body::Ipv4Icmp(icmp) => matches!(icmp.message, icmp::Icmp::Error { .. }),
                Body::Ipv6Icmp(icmp) => matches!(icmp.message, Icmp6::Error { .. }),
                _ => false,
            };
            assert!(error(&parsed.body) && error(&seen.body));
        }
    }
    // Neighbour discovery that has crossed a router is none (RFC 4861 §7.1), and nobody forwards it.
    let of_the_link = matches!(parsed.body, Body::Ipv6Icmp(icmp)
        if matches!(icmp.message, Icmp6::Solicitation(_) | Icmp6::Advertisement(_)));
    if !of_the_link && let Some((_, seen)) = rewritten(frame, |packet| decrement_ttl(packet.bytes_mut(), parsed)) {
        assert!(seen == *parsed);
    }
}

/// Another place of the same family, and both ends of a packet.
fn ends(body: &Body, port: u16) -> Option<(Endpoint, [Endpoint; 2])> {
    let four = |source, from, destination, to| {
        (Endpoint::V4(ELSEWHERE4, port), [Endpoint::V4(source, from), Endpoint::V4(destination, to)])
    };
    let six = |source, from, destination, to| {
        (Endpoint::V6(ELSEWHERE6, port), [Endpoint::V6(source, from), Endpoint::V6(destination, to)])
    };
    let ports =
        |head: Option<vipa_packet::FragmentHead>| head.map_or((0, 0), |head| (head.source_port, head.destination_port));
    Some(match *body {
        Body::Ipv4Tcp(tcp) => four(tcp.source, tcp.source_port, tcp.destination, tcp.destination_port),
        Body::Ipv4Udp(udp) => four(udp.source, udp.source_port, udp.destination, udp.destination_port),
        Body::Ipv6Tcp(tcp) => six(tcp.source, tcp.source_port, tcp.destination, tcp.destination_port),
        Body::Ipv6Udp(udp) => six(udp.source, udp.source_port, udp.destination, udp.destination_port),
        Body::Ipv4Icmp(icmp) => four(icmp.source, 0, icmp.destination, 0),
        Body::Ipv6Icmp(icmp) => six(icmp.source, 0, icmp.destination, 0),
        Body::Ipv4Fragment(Fragment { source, destination, head, .. }) => {
            let (from, to) = ports(head);
            four(source, from, destination, to)
        }
        Body::Ipv6Fragment(Fragment { source, destination, head, .. }) => {
            let (from, to) = ports(head);
            six(source, from, destination, to)
        }
        Body::Ipv4Other { source, destination, .. } => four(source, 0, destination, 0),
        Body::Ipv6Other { source, destination, .. } => six(source, 0, destination, 0),
        Body::Arp(_) | Body::OtherEtherType(_) => return None,
    })
}

fn wrap(frame: &HeapPacket, parsed: &Parsed, choice: u8, entropy: u32) {
    let outer = match choice & 1 {
        0 => TunnelEndpoints::V4 { source: 0xc633_6401, destination: ELSEWHERE4 },
        _ => TunnelEndpoints::V6 { source: 0x2001_0db8 << 96 | 1, destination: ELSEWHERE6 },
    };
    let how =
        [Encapsulation::Ipip, Encapsulation::Gre, Encapsulation::Gue { port: 6080 }][usize::from(choice >> 1) % 3];
    let link = EthernetHeader { vlan: (choice & 0x80 != 0).then_some(7), ..LINK };
    let wrapped = rewritten(frame, |packet| encapsulate(packet, parsed, &outer, how, entropy, &link));
    let Some((mut wrapped, seen)) = wrapped else { return };
    let inner = &frame.bytes()[usize::from(parsed.l3)..parsed.end as usize];
    assert_eq!(seen.end as usize, wrapped.bytes().len());
    assert_eq!(wrapped.bytes().len(), link.length() + how.overhead(choice & 1 == 1) + inner.len());
    assert!(decapsulate(&mut wrapped));
    assert_eq!(wrapped.bytes().get(14..), Some(inner));
}

/// Only what was sent to an address that a router can own is ever answered.
fn answer(frame: &HeapPacket, parsed: &Parsed, most: u16) {
    let ours = match ends(&parsed.body, 0) {
        Some((_, [_, Endpoint::V4(address, _)])) => !matches!(address >> 24, 0 | 127 | 224..=239 | 255),
        Some((_, [_, Endpoint::V6(address, _)])) => address > 1 && address >> 120 != 0xff && address >> 32 != 0xffff,
        None => true,
    };
    let asked = matches!(parsed.body, Body::Ipv6Icmp(icmp)
        if matches!(icmp.message, Icmp6::Solicitation(nd::Solicitation { target, .. })
            if target > 1 && target >> 32 != 0xffff));
    if asked {
        let _ = rewritten(frame, |packet| nd::advertise(packet, parsed, &US));
    }
    if !ours {
        return;
    }
    let _ = rewritten(frame, |packet| tcp::reset(packet, parsed, &US));
    let _ = rewritten(frame, |packet| tcp::clamp_mss(packet.bytes_mut(), parsed, most));
    let _ = rewritten(frame, |packet| icmp::echo_reply(packet.bytes_mut(), parsed, &US));
    let _ = rewritten(frame, |packet| icmp6::echo_reply(packet, parsed, &US));
    tell(frame, |packet| icmp::too_big(packet, parsed, most, &US));
    tell(frame, |packet| icmp6::too_big(packet, parsed, most, &US));
    tell(frame, |packet| icmp::time_exceeded(packet, parsed, 0xc633_6401, &US));
    tell(frame, |packet| icmp6::time_exceeded(packet, parsed, None, &US));
    tell(frame, |packet| icmp::port_unreachable(packet, parsed, &US));
    tell(frame, |packet| icmp6::port_unreachable(packet, parsed, &US));
    let _ = rewritten(frame, |packet| arp::reply(packet.bytes_mut(), parsed.l3, &US));
}

/// An error about `frame`, whose sender knows what he sent: ports that the packet has not, or has so late that the quote ends
/// before them, he does not miss.
fn tell(frame: &HeapPacket, too_big: impl FnOnce(&mut HeapPacket) -> bool) {
    let mut error = frame.clone();
    if too_big(&mut error) {
        let verdict = parse(error.bytes());
        let read = matches!(verdict, Ok(_) | Err(Malformed::IcmpQuote | Malformed::Icmp6Quote));
        assert!(read, "{verdict:?} about {frame:?}");
        assert!(error.bytes().len() <= 18 + 1_280);
    } else {
        assert_eq!(&error, frame, "a refusal changes nothing");
    }
}
