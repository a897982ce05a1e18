//! Makes the checksums of random frames right, so that a fuzzer reaches the code behind the checks.

use crate::{ICMP6, checksum, ethernet, icmp6};

/// Writes the right checksum of the IPv4 header, and of an ICMPv6 message, where `frame` has one. A fuzzer that had to guess them would find
/// nothing behind the checks.
pub fn fix_checksums(frame: &mut [u8]) {
    let Some((tagged, ether_type)) = ethernet::ether_type(frame) else { return };
    let l3 = ethernet::HEADER + if tagged { ethernet::VLAN_TAG } else { 0 };
    let packet = &mut frame[l3..];
    match ether_type {
        ethernet::TYPE_IPV4 => fix_ipv4(packet),
        ethernet::TYPE_IPV6 => fix_icmp6(packet),
        _ => {}
    }
}

fn fix_ipv4(packet: &mut [u8]) {
    let length = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    if let Some(header) = packet.get_mut(..length).filter(|header| header.len() >= 20) {
        header[10..12].fill(0);
        let sum = checksum::of(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Only directly after the fixed header: neighbour discovery is accepted nowhere else.
fn fix_icmp6(packet: &mut [u8]) {
    let Some((header, rest)) = packet.split_first_chunk_mut::<40>() else { return };
    let length = u16::from_be_bytes([header[4], header[5]]);
    let Some(message) = rest.get_mut(..usize::from(length)) else { return };
    if header[6] != ICMP6 || message.len() < icmp6::HEADER {
        return;
    }
    message[2..4].fill(0);
    let [source, destination] =
        [8, 24].map(|at| u128::from_be_bytes(header[at..at + 16].try_into().expect("sixteen bytes")));
    let sum = checksum::pseudo_header6(source, destination, ICMP6, length).bytes(message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}
