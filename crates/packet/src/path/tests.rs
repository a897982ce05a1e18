use super::*;
use crate::{HeapPacket, PacketBuf, build::packet, parse};

const US: &str = "198.51.100.1";
const TARGET: &str = "198.51.100.21";
const HOP: &str = "203.0.113.254";
const US6: &str = "2001:db8::1";
const TARGET6: &str = "2001:db8::21";
const HOP6: &str = "2001:db8:9::fe";
const GUE: u16 = 6_080;

fn read(frame: &HeapPacket) -> Option<PacketTooBig> {
    PacketTooBig::read(frame.bytes(), &parse(frame.bytes()).expect("well-formed"), GUE)
}

fn found(source: &str, destination: &str, mtu: u16) -> Option<PacketTooBig> {
    let [source, destination] = [source, destination].map(|address| address.parse().expect("an address"));
    Some(PacketTooBig { source, destination, mtu })
}

/// Full packets in every kind of tunnel.
fn wrapped() -> (Vec<HeapPacket>, Vec<HeapPacket>) {
    let four = packet().ipv4("203.0.113.4", "192.0.2.10").tcp(40_000, 80).payload([7; 1_420]).build();
    let six = packet().ipv6("2001:db8:1::4", "2001:db8::10").tcp(40_000, 80).payload([7; 1_380]).build();
    let (outer, outer6) = (packet().ipv4(US, TARGET).dont_fragment(), packet().ipv6(US6, TARGET6));
    let in_all = |outer: &crate::build::Builder| {
        let inner = [&four, &six];
        inner
            .into_iter()
            .flat_map(|inner| {
                let kinds =
                    [outer.clone().ipip(inner), outer.clone().gre(inner), outer.clone().gue(50_000, GUE, inner)];
                kinds.map(|frame| frame.build())
            })
            .collect()
    };
    (in_all(&outer), in_all(&outer6))
}

#[test]
fn an_error_about_a_tunnels_packet_says_what_its_path_takes() {
    let (four, six) = wrapped();
    for sent in four {
        let error = packet().ipv4(HOP, US).icmp_too_big(1_400, &sent);
        assert_eq!(read(&error.clone().build()), found(US, TARGET, 1_400), "{sent:?}");
        assert_eq!(read(&error.vlan(7).padded().build()), found(US, TARGET, 1_400));
    }
    for sent in six {
        let error = packet().ipv6(HOP6, US6).icmp6_error(PACKET_TOO_BIG, 0, 1_300, &sent);
        assert_eq!(read(&error.build()), found(US6, TARGET6, 1_300), "{sent:?}");
    }
}

#[test]
fn a_router_that_does_not_say_how_much_fits_is_taken_to_mean_the_next_usual_size() {
    let (four, _) = wrapped();
    let length = u16::from_be_bytes([four[0].bytes()[16], four[0].bytes()[17]]);
    assert!(length > 1_006 && length <= 1_492, "{length}");
    assert_eq!(read(&packet().ipv4(HOP, US).icmp_too_big(0, &four[0]).build()), found(US, TARGET, 1_006));
    let large = packet().ipv4(US, TARGET).protocol(4).payload([0x45; 1_480]).build();
    assert_eq!(read(&packet().ipv4(HOP, US).icmp_too_big(0, &large).build()), found(US, TARGET, 1_492));
}

#[test]
fn nothing_is_learnt_from_what_is_no_such_error_or_contradicts_itself() {
    let (four, six) = wrapped();
    let (sent, sent6) = (&four[0], &six[0]);
    let too_big = packet().ipv4(HOP, US).icmp_too_big(1_400, sent).build();
    let spoiled = |mut frame: HeapPacket| {
        frame.bytes_mut()[60] ^= 1;
        frame
    };
    for (what, frame) in [
        ("another code", packet().ipv4(HOP, US).icmp_unreachable(1, sent).build()),
        ("another type", packet().ipv4(HOP, US).icmp_error(11, 4, 1_400, sent).build()),
        ("larger than the packet", packet().ipv4(HOP, US).icmp_too_big(1_500, sent).build()),
        ("a damaged message", spoiled(too_big)),
        (
            "a client's packet",
            packet()
                .ipv4(HOP, US)
                .icmp_too_big(1_000, &packet().ipv4(US, TARGET).tcp(1, 2).payload([0; 1_400]).build())
                .build(),
        ),
        (
            "another UDP port",
            packet()
                .ipv4(HOP, US)
                .icmp_too_big(1_000, &packet().ipv4(US, TARGET).udp(50_000, GUE + 1).payload([0; 1_400]).build())
                .build(),
        ),
        ("not an error", packet().ipv4(HOP, US).icmp_echo(1, 2).build()),
        ("another type of IPv6", packet().ipv6(HOP6, US6).icmp6_error(1, 0, 1_300, sent6).build()),
        ("larger than any packet", packet().ipv6(HOP6, US6).icmp6_error(PACKET_TOO_BIG, 0, 70_000, sent6).build()),
        ("a damaged message of IPv6", spoiled(packet().ipv6(HOP6, US6).icmp6_error(2, 0, 1_300, sent6).build())),
    ] {
        assert_eq!(read(&frame), None, "{what}");
    }
}
