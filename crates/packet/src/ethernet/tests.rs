use super::*;
use crate::{PacketBuf, build::packet};

const US: MacAddress = [2, 0, 0, 0, 0, 1];
const THEM: MacAddress = [2, 0, 0, 0, 0, 2];

#[test]
fn the_filter_tells_ours_from_the_groups_and_the_neighbours() {
    let to = |destination| packet().macs(THEM, destination).build();
    assert_eq!(l2_destination(to(US).bytes(), &US), L2Destination::Ours);
    assert_eq!(l2_destination(to(BROADCAST).bytes(), &US), L2Destination::Group);
    assert_eq!(l2_destination(to([1, 0, 0x5e, 0, 0, 1]).bytes(), &US), L2Destination::Group);
    assert_eq!(l2_destination(to([2, 0, 0, 0, 0, 3]).bytes(), &US), L2Destination::Foreign);
    assert_eq!(l2_destination(&US[..5], &US), L2Destination::Foreign);
}

#[test]
fn new_addresses_change_twelve_bytes_and_old_ones_undo_it() {
    let before = packet().macs(THEM, US).ipv4("203.0.113.4", "192.0.2.10").tcp(40_000, 80).syn().build();
    let mut frame = before.clone();
    set_macs(frame.bytes_mut(), &[9; 6], &[8; 6]);
    assert_eq!(frame.bytes()[..12], [9, 9, 9, 9, 9, 9, 8, 8, 8, 8, 8, 8]);
    assert_eq!(frame.bytes()[12..], before.bytes()[12..]);
    set_macs(frame.bytes_mut(), &US, &THEM);
    assert_eq!(frame, before);
}

#[test]
fn addresses_are_written_side_by_side_where_there_is_no_tag() {
    let plain = packet().ipv4("203.0.113.4", "192.0.2.10").tcp(1, 2);
    let mut frame = plain.build();
    assert!(is_untagged(frame.bytes()));
    rewrite_macs(frame.bytes_mut(), &[9, 9, 9, 9, 9, 9, 8, 8, 8, 8, 8, 8]);
    assert_eq!(frame, plain.clone().macs([8; 6], [9; 6]).build());
    assert!(!is_untagged(plain.vlan(5).build().bytes()));
    assert!(!is_untagged(&[7; 13]), "no EtherType");
}

#[test]
fn a_frame_too_short_for_addresses_is_left_alone() {
    let mut stub = [7; 11];
    rewrite_macs(&mut stub, &[9; 12]);
    set_macs(&mut stub, &US, &THEM);
    return_to_sender(&mut stub, &US);
    assert_eq!(stub, [7; 11]);
}

#[test]
fn a_station_has_neither_a_groups_address_nor_none() {
    assert!(is_station(&US));
    assert!(!is_station(&BROADCAST) && !is_station(&[1, 0, 0x5e, 0, 0, 1]) && !is_station(&[0; 6]));
}

#[test]
fn a_tag_keeps_the_priority_of_the_tag_before_it_and_an_untagged_frame_has_none() {
    let link = |vlan| EthernetHeader { source: [2; 6], destination: [4; 6], vlan };
    let relinked = |frame: crate::build::Builder, vlan| {
        let mut frame = frame.build();
        let l3 = usize::from(crate::parse(frame.bytes()).expect("well-formed").l3);
        assert!(replace_ethernet_header(&mut frame, l3, TYPE_IPV4, &link(vlan)));
        frame
    };
    let sent = packet().ipv4("203.0.113.4", "192.0.2.10").udp(1, 2);
    let moved = sent.clone().macs([2; 6], [4; 6]);
    assert_eq!(relinked(sent.clone().vlan(0xb005), Some(7)), moved.clone().vlan(0xb007));
    assert_eq!(relinked(sent.clone().vlan(0xe000), Some(0x123)), moved.clone().vlan(0xe123));
    assert_eq!(relinked(sent.clone(), Some(7)), moved.clone().vlan(7));
    assert_eq!(relinked(sent.vlan(0xb005), None), moved);
}
