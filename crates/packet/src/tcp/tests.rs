use super::*;
use crate::{
    HeapPacket,
    build::{Builder, packet},
    parse,
};

const US: MacAddress = [2, 0, 0, 0, 0, 1];
const THEM: MacAddress = [2, 0, 0, 0, 0, 2];
const VIPA: &str = "192.0.2.10";
const CLIENT: &str = "203.0.113.4";

fn segment() -> Builder {
    packet().macs(THEM, US).ipv4(CLIENT, VIPA).tcp(40_000, 80)
}

fn answer() -> Builder {
    packet().macs(US, THEM).ipv4(VIPA, CLIENT).dont_fragment().tcp(80, 40_000)
}

/// The builder's window is full; a reset's is empty and its checksum says so.
fn with_empty_window(builder: &Builder) -> HeapPacket {
    let mut frame = builder.build();
    let l4 = usize::from(parse(frame.bytes()).expect("well-formed").l4);
    let tcp = &mut frame.bytes_mut()[l4..];
    tcp[14..16].fill(0);
    let old = u16::from_be_bytes([tcp[16], tcp[17]]);
    let new = checksum::update(old, 0xffff, 0);
    tcp[16..18].copy_from_slice(&new.to_be_bytes());
    frame
}

fn answered(segment: &Builder) -> Option<HeapPacket> {
    let mut frame = segment.build();
    let parsed = parse(frame.bytes()).expect("well-formed");
    if reset(&mut frame, &parsed, &US) {
        return Some(frame);
    }
    assert_eq!(frame, *segment, "a refusal changes nothing");
    None
}

#[test]
fn a_segment_with_ack_gets_a_reset_at_the_sequence_it_acknowledges() {
    let reset = with_empty_window(&answer().rst().sequence(5_000));
    let data = segment().sequence(77).acknowledge(5_000).payload(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(answered(&data), Some(reset.clone()));
    assert_eq!(answered(&segment().fin().acknowledge(5_000)), Some(reset.clone()));
    assert_eq!(answered(&segment().syn_ack().acknowledge(5_000)), Some(reset));
}

#[test]
fn a_segment_without_ack_gets_a_reset_that_acknowledges_all_of_it() {
    let reset = |acknowledged| Some(with_empty_window(&answer().rst().sequence(0).acknowledge(acknowledged)));
    assert_eq!(answered(&segment().syn().sequence(99)), reset(100));
    assert_eq!(answered(&segment().syn().sequence(99).payload(b"early")), reset(105));
    assert_eq!(answered(&segment().flags(TcpFlags::FIN).sequence(99).payload(b"bye")), reset(103));
    assert_eq!(answered(&segment().flags(TcpFlags::PSH).sequence(u32::MAX).payload(b"wraps")), reset(4));
}

#[test]
fn options_payload_and_padding_go_and_the_vlan_tag_stays() {
    let bare = segment().acknowledge(1).vlan(0x6005);
    let reset = with_empty_window(&answer().rst().sequence(1).vlan(0x6005));
    assert_eq!(answered(&bare.clone().padded()), Some(reset.clone()));
    let laden = bare.ip_options(&[1; 40]).tcp_options(&[1; 40]).payload([7; 1_300]);
    assert_eq!(answered(&laden), Some(reset));
}

#[test]
fn padding_counts_as_no_sequence_space() {
    let padded = segment().syn().sequence(99).padded();
    assert_eq!(padded.build().bytes().len(), 60);
    assert_eq!(answered(&padded), Some(with_empty_window(&answer().rst().acknowledge(100))));
}

#[test]
fn a_reset_and_what_is_not_tcp_are_never_answered() {
    assert_eq!(answered(&segment().rst()), None);
    assert_eq!(answered(&segment().flags(TcpFlags::RST.with(TcpFlags::ACK))), None);
    assert_eq!(answered(&packet().ipv4(CLIENT, VIPA).udp(1, 2)), None);
    assert_eq!(answered(&packet().ipv4(CLIENT, VIPA).tcp(1, 2).payload([0; 4]).first_fragment()), None);
}

#[test]
fn only_a_lone_syn_opens_and_fin_or_rst_closes() {
    for bits in 0..=u8::MAX {
        let flags = TcpFlags(bits);
        let [fin, syn, rst, ack] = [1, 2, 4, 16].map(|bit| bits & bit != 0);
        assert_eq!(flags.opens(), syn && !fin && !rst && !ack, "{flags:?}");
        assert_eq!(flags.closes(), fin || rst, "{flags:?}");
    }
}

#[test]
fn flags_print_as_their_names() {
    assert_eq!(format!("{:?}", TcpFlags::SYN.with(TcpFlags::ACK)), "SYN+ACK");
    assert_eq!(format!("{:?}", TcpFlags::default()), "none");
}

#[test]
fn a_reset_answers_ipv6_as_it_does_ipv4() {
    let segment = packet().ipv6("2001:db8:1::4", "2001:db8::10").tcp(40_000, 80).sequence(7).acknowledge(9);
    let mut frame = segment.payload(b"stray").build();
    let parsed = parse(frame.bytes()).unwrap();
    assert!(reset(&mut frame, &parsed, &[2, 0, 0, 0, 0, 2]));
    let expected = packet().macs([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]).ipv6("2001:db8::10", "2001:db8:1::4");
    let mut expected = expected.tcp(80, 40_000).rst().sequence(9).build();
    // A reset offers no window.
    expected.bytes_mut()[54 + 14..54 + 16].fill(0);
    expected.bytes_mut()[54 + 16..54 + 18].copy_from_slice(&frame.bytes()[54 + 16..54 + 18]);
    assert_eq!(frame, expected);
    let sum = checksum::pseudo_header6(0x2001_0db8 << 96 | 0x10, 0x2001_0db8_0001 << 80 | 4, TCP, 20);
    assert_eq!(sum.bytes(&frame.bytes()[54..]).fold(), 0xffff);
}

#[test]
fn an_offered_segment_size_is_lowered_wherever_it_stands() {
    for options in [&[2, 4, 0x05, 0xb4][..], &[1, 2, 4, 0x05, 0xb4, 1, 1, 0], &[4, 2, 2, 4, 0x05, 0xb4, 0, 0]] {
        let mut lowered = options.to_vec();
        let at = options.windows(2).position(|pair| pair == [0x05, 0xb4]).unwrap();
        lowered[at..at + 2].copy_from_slice(&1400_u16.to_be_bytes());
        let syn =
            |options: &[u8]| packet().ipv4("203.0.113.4", "192.0.2.10").tcp(40_000, 80).syn().tcp_options(options);
        let mut frame = syn(options).build();
        let parsed = parse(frame.bytes()).unwrap();
        assert!(clamp_mss(frame.bytes_mut(), &parsed, 1400));
        assert_eq!(frame, syn(&lowered));
        assert!(!clamp_mss(frame.bytes_mut(), &parsed, 1400), "it fits now");
    }
}

#[test]
fn options_that_are_cut_short_or_absent_are_left_alone() {
    for options in [&[][..], &[2, 3, 0, 0], &[2, 4], &[3, 0, 0, 0], &[8, 200, 0, 0], &[0, 2, 4, 9, 9]] {
        let syn = packet().ipv4("203.0.113.4", "192.0.2.10").tcp(40_000, 80).syn().tcp_options(options);
        let mut frame = syn.build();
        let parsed = parse(frame.bytes()).unwrap();
        assert!(!clamp_mss(frame.bytes_mut(), &parsed, 1));
        assert_eq!(frame, syn);
    }
}

#[test]
fn only_a_syns_offer_is_lowered_and_a_datagram_is_no_segment() {
    let offer = [2, 4, 0x05, 0xb4];
    let segment = packet().ipv6("2001:db8:1::4", "2001:db8::10").tcp(40_000, 80).tcp_options(&offer);
    // Read as a segment, this datagram would be a SYN whose header ends with an offer.
    let like_a_segment = [&[0; 4][..], &[0x60, 2], &[0; 6], &offer].concat();
    let datagram = packet().ipv4(CLIENT, VIPA).udp(40_000, 80).payload(like_a_segment);
    for frame in [segment.clone().acknowledge(1), datagram] {
        let mut clamped = frame.build();
        let parsed = parse(clamped.bytes()).unwrap();
        assert!(!clamp_mss(clamped.bytes_mut(), &parsed, 1_000));
        assert_eq!(clamped, frame);
    }
    let mut syn_ack = segment.clone().syn_ack().build();
    let parsed = parse(syn_ack.bytes()).unwrap();
    assert!(clamp_mss(syn_ack.bytes_mut(), &parsed, 1_000));
    assert_eq!(syn_ack, segment.syn_ack().tcp_options(&[2, 4, 0x03, 0xe8]));
}
