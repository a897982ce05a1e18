use std::net::Ipv4Addr;

use super::*;
use crate::{Body, PacketBuf, build::packet, parse};

const US: MacAddress = [2, 0, 0, 0, 0, 1];
const THEM: MacAddress = [2, 0, 0, 0, 0, 2];
const VIPA: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 4);

fn arp(frame: &[u8]) -> Arp {
    match parse(frame).expect("well-formed").body {
        Body::Arp(arp) => arp,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_for_the_vipa_becomes_the_reply_that_says_it_is_here() {
    for vlan in [None, Some(5)] {
        let mut request = packet().macs(THEM, BROADCAST).arp_request(CLIENT, VIPA).padded();
        let mut reply_to_them = packet().macs(US, THEM).arp_reply(VIPA, CLIENT).padded();
        if let Some(vlan) = vlan {
            (request, reply_to_them) = (request.vlan(vlan), reply_to_them.vlan(vlan));
        }
        let mut frame = request.build();
        let l3 = parse(frame.bytes()).expect("well-formed").l3;
        assert!(reply(frame.bytes_mut(), l3, &US));
        assert_eq!(frame, reply_to_them);
    }
}

#[test]
fn a_reply_is_not_answered() {
    let before = packet().macs(THEM, US).arp_reply(CLIENT, VIPA).build();
    let mut frame = before.clone();
    assert!(!reply(frame.bytes_mut(), 14, &US));
    assert_eq!(frame, before);
}

#[test]
fn an_answer_to_bytes_that_are_no_request_is_refused_and_changes_nothing() {
    for len in 0..42 {
        let mut stub = vec![0; len];
        assert!(!reply(&mut stub, 14, &US));
        assert!(stub.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn our_request_is_a_padded_broadcast_that_reads_back() {
    let frame = request(&US, CLIENT, VIPA);
    assert_eq!(packet().macs(US, BROADCAST).arp_request(CLIENT, VIPA).padded().build().bytes(), frame);
    let (operation, sender_mac) = (Operation::Request, US);
    assert_eq!(arp(&frame), Arp { operation, sender_mac, sender: CLIENT, target: VIPA });
}

#[test]
fn an_announcement_is_a_request_from_and_for_the_same_address() {
    let frame = gratuitous(&US, VIPA);
    #[rustfmt::skip]
    let golden = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06,
        0, 1, 0x08, 0x00, 6, 4, 0, 1,
        2, 0, 0, 0, 0, 1, 192, 0, 2, 10,
        0, 0, 0, 0, 0, 0, 192, 0, 2, 10,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(frame, golden);
    assert!(arp(&frame).is_announcement());
}

#[test]
fn our_probe_asks_for_our_own_address_as_nobody() {
    let (operation, sender_mac) = (Operation::Request, US);
    assert_eq!(arp(&probe(&US, VIPA)), Arp { operation, sender_mac, sender: Ipv4Addr::UNSPECIFIED, target: VIPA });
}

#[test]
fn a_probe_introduces_nobody_and_a_request_introduces_its_sender() {
    let from = |sender: Ipv4Addr| arp(packet().macs(THEM, BROADCAST).arp_request(sender, VIPA).build().bytes());
    assert_eq!(from(CLIENT).neighbour(), Some((CLIENT, THEM)));
    for nobody in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
        assert_eq!(from(nobody.parse().expect("an address")).neighbour(), None, "{nobody}");
    }
}

#[test]
fn arp_that_is_not_ipv4_over_ethernet_from_a_station_is_malformed() {
    let good = packet().macs(THEM, BROADCAST).arp_request(CLIENT, VIPA).build();
    let places = [("hardware type", 15), ("protocol type", 16), ("hardware length", 18), ("protocol length", 19)];
    for (what, at) in places.into_iter().chain([("operation", 21), ("group sender", 22)]) {
        let mut frame = good.clone();
        frame.bytes_mut()[at] ^= 0x11;
        assert_eq!(parse(frame.bytes()), Err(Malformed::Arp), "{what}");
    }
    for len in 14..42 {
        assert_eq!(parse(&good.bytes()[..len]), Err(Malformed::Arp), "cut to {len} bytes");
    }
}
