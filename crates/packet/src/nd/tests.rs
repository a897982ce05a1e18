use super::*;
use crate::{HeapPacket, PacketBuf, build::packet, parse};

const OURS: MacAddress = [2, 0, 0, 0, 0, 2];
const ASKER: MacAddress = [2, 0, 0, 0, 0, 9];
const VIPA: &str = "2001:db8::10";
const TARGET: u128 = 0x2001_0db8 << 96 | 0x10;

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn icmp(frame: &HeapPacket) -> Ipv6Icmp {
    match parse(frame.bytes()).unwrap().body {
        Body::Ipv6Icmp(icmp) => icmp,
        other => panic!("{other:?}"),
    }
}

fn answered(mut frame: HeapPacket) -> HeapPacket {
    let parsed = parse(frame.bytes()).unwrap();
    assert!(advertise(&mut frame, &parsed, &OURS));
    frame
}

#[test]
fn a_question_goes_to_the_few_who_may_have_the_address() {
    let frame = HeapPacket::from(solicitation(&ASKER, address("2001:db8::9"), address(VIPA)));
    assert_eq!(frame.bytes()[..6], [0x33, 0x33, 0xff, 0, 0, 0x10]);
    assert_eq!(frame.bytes()[..6], solicited_node_mac(TARGET));
    let message = Icmp6::Solicitation(Solicitation { target: TARGET, source_mac: Some(ASKER) });
    let (source, destination) = (TARGET - 0x10 + 9, SOLICITED_NODE | 0x10);
    assert_eq!(icmp(&frame), Ipv6Icmp { source, destination, message });
}

#[test]
fn the_answer_says_our_mac_to_the_asker() {
    let answer = answered(HeapPacket::from(solicitation(&ASKER, address("2001:db8::9"), address(VIPA))));
    assert_eq!((&answer.bytes()[..6], &answer.bytes()[6..12]), (&ASKER[..], &OURS[..]));
    let message =
        Icmp6::Advertisement(Advertisement { target: TARGET, mac: Some(OURS), solicited: true, overrides: true });
    assert_eq!(icmp(&answer), Ipv6Icmp { source: TARGET, destination: TARGET - 0x10 + 9, message });
}

#[test]
fn who_asks_whether_an_address_is_free_is_told_with_all_others() {
    // Without an option the question is shorter than its answer.
    let group = address("ff02::1:ff00:10");
    let mut question = packet().macs(ASKER, group_mac(group.to_bits())).ipv6("::", group).ttl(255);
    question = question.icmp(SOLICITATION, 0, 0).payload(TARGET.to_be_bytes());
    let answer = answered(question.build());
    assert_eq!(answer.bytes()[..6], [0x33, 0x33, 0, 0, 0, 1]);
    let message =
        Icmp6::Advertisement(Advertisement { target: TARGET, mac: Some(OURS), solicited: false, overrides: true });
    assert_eq!(icmp(&answer), Ipv6Icmp { source: TARGET, destination: ALL_NODES, message });
    let tagged = answered(question.vlan(7).build());
    assert_eq!(parse(tagged.bytes()).unwrap().vlan, Some(7), "the answer stays in the question's VLAN");
}

#[test]
fn an_announcement_is_an_answer_nobody_asked_for() {
    let frame = HeapPacket::from(unsolicited(&OURS, address(VIPA)));
    let message =
        Icmp6::Advertisement(Advertisement { target: TARGET, mac: Some(OURS), solicited: false, overrides: true });
    assert_eq!(icmp(&frame), Ipv6Icmp { source: TARGET, destination: ALL_NODES, message });
}

#[test]
fn a_probe_says_nothing_of_who_asks() {
    let frame = HeapPacket::from(probe(&OURS, address(VIPA)));
    assert_eq!((&frame.bytes()[..6], &frame.bytes()[6..12]), (&solicited_node_mac(TARGET)[..], &OURS[..]));
    let message = Icmp6::Solicitation(Solicitation { target: TARGET, source_mac: None });
    assert_eq!(icmp(&frame), Ipv6Icmp { source: 0, destination: SOLICITED_NODE | 0x10, message });
}

#[test]
fn what_crossed_a_router_is_damaged_or_malformed_is_nothing() {
    let question = |ttl| packet().ipv6("2001:db8::9", VIPA).ttl(ttl).icmp(SOLICITATION, 0, 0);
    let good = question(255).payload(TARGET.to_be_bytes());
    assert!(parse(good.build().bytes()).is_ok());
    let mut damaged = good.build();
    damaged.bytes_mut()[60] ^= 1;
    let option = |bytes: &[u8]| question(255).payload([&TARGET.to_be_bytes()[..], bytes].concat()).build();
    for (frame, reason) in [
        (question(64).payload(TARGET.to_be_bytes()).build(), Malformed::NdHopLimit),
        (damaged, Malformed::NdChecksum),
        (question(255).payload([0; 8]).build(), Malformed::NdMessage),
        (question(255).payload([0xff; 16]).build(), Malformed::NdMessage),
        (option(&[SOURCE_MAC, 0, 0, 0, 0, 0, 0, 0]), Malformed::NdMessage),
        (option(&[SOURCE_MAC, 1, 2, 0, 0, 0, 0, 1, 14, 0, 0, 0, 0, 0, 0, 0]), Malformed::NdMessage),
        (option(&[SOURCE_MAC, 2, 0, 0, 0, 0, 0, 0]), Malformed::NdMessage),
        (option(&[SOURCE_MAC, 1, 0xff, 0, 0, 0, 0, 0]), Malformed::NdMessage),
    ] {
        assert_eq!(parse(frame.bytes()), Err(reason), "{frame:?}");
    }
}
