//! Divides an IPv4 packet into fragments for a path of smaller MTU (RFC 791 §3.2). Only senders fragment IPv6 packets.
//!
//! ```text
//!  ┌────┬────┬──────────────────────────────┐        ┌────┬────┬──────────┐  ┌────┬────┬──────────┐  ┌────┬────┬─────┐
//!  │ eth│ ip │ payload                      │   ──►  │ eth│ ip'│ step     │  │ eth│ ip'│ step     │  │ eth│ ip'│ rest│
//!  └────┴────┴──────────────────────────────┘        └────┴────┴──────────┘  └────┴────┴──────────┘  └────┴────┴─────┘
//! ```
//! A packet that is itself a fragment is divided in the same way.

use crate::{PacketBuf, Parsed, checksum, view};

const HEADER: usize = 20;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE: u16 = 0x2000;

/// How one packet is to be divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragmenter {
    l3: usize,
    /// Where the packet ends.
    end: usize,
    /// Bytes of payload in each fragment but the last.
    payload_size: usize,
    /// The packet's own flags and fragment offset: the IPv4 header's fourth word.
    flags_and_offset: u16,
}

impl Fragmenter {
    /// For a path that takes `mtu` bytes of IP. `None`: the packet is not IPv4, or says "do not fragment", or has options, some of which
    /// belong in the first fragment only and some in all.
    #[must_use]
    pub fn new(frame: &[u8], parsed: &Parsed, mtu: u16) -> Option<Self> {
        let (l3, end) = (usize::from(parsed.l3), parsed.end as usize);
        let header: &[u8; HEADER] = view::chunk(frame, l3)?;
        let flags_and_offset = u16::from_be_bytes([header[6], header[7]]);
        let payload_size = usize::from(mtu).checked_sub(HEADER)? & !7;
        let may = header[0] == 0x45 && flags_and_offset & DONT_FRAGMENT == 0 && payload_size > 0 && end >= l3 + HEADER;
        may.then_some(Self { l3, end, payload_size, flags_and_offset })
    }

    /// Writes the frame of the `n`-th fragment, counted from 0, to the beginning of `out`, and returns its length. `None`: there is no such
    /// fragment, or `out` is too short.
    #[must_use]
    pub fn write(&self, frame: &[u8], n: usize, out: &mut [u8]) -> Option<usize> {
        let payload = self.l3 + HEADER;
        let from = payload + n * self.payload_size;
        if from >= self.end {
            return None;
        }
        let fragment = frame.get(from..self.end.min(from + self.payload_size))?;
        let out = out.get_mut(..payload + fragment.len())?;
        let (head, body) = out.split_at_mut(payload);
        head.copy_from_slice(frame.get(..payload)?);
        body.copy_from_slice(fragment);
        self.set_fragment_fields(&mut head[self.l3..], n, fragment.len());
        Some(out.len())
    }

    /// Truncates the packet to its first fragment. False, and nothing changed, when it is shorter than the packet that was to be divided.
    #[must_use]
    pub fn keep_first(&self, packet: &mut impl PacketBuf) -> bool {
        let payload = self.l3 + HEADER;
        let length = self.payload_size.min(self.end - payload);
        if packet.bytes().len() < self.end || !packet.truncate(payload + length) {
            return false;
        }
        self.set_fragment_fields(&mut packet.bytes_mut()[self.l3..payload], 0, length);
        true
    }

    /// Makes a header that of the `n`-th fragment: total length, flags, offset and checksum.
    fn set_fragment_fields(&self, header: &mut [u8], n: usize, length: usize) {
        let is_last = self.l3 + HEADER + n * self.payload_size + length >= self.end;
        let more = if is_last { self.flags_and_offset & MORE } else { MORE };
        let flags_and_offset = self.flags_and_offset & !MORE | more;
        // Both fit: a packet's last byte is at most the 65,535th.
        let flags_and_offset = flags_and_offset.wrapping_add((n * self.payload_size / 8) as u16);
        header[2..4].copy_from_slice(&((HEADER + length) as u16).to_be_bytes());
        header[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum::of(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Body, HeapPacket, build::packet, parse};

    /// All fragments, the first made of the packet itself.
    fn parts(frame: &HeapPacket, mtu: u16) -> Vec<HeapPacket> {
        let parsed = parse(frame.bytes()).unwrap();
        let cut = Fragmenter::new(frame.bytes(), &parsed, mtu).expect("it may be cut");
        let mut first = frame.clone();
        assert!(cut.keep_first(&mut first));
        let mut parts = vec![first];
        let mut room = [0; 10_000];
        for n in 1.. {
            let Some(length) = cut.write(frame.bytes(), n, &mut room) else { break };
            parts.push(HeapPacket::from(&room[..length]));
        }
        let length = cut.write(frame.bytes(), 0, &mut room).unwrap();
        assert_eq!(parts[0], HeapPacket::from(&room[..length]), "the first part is alike either way");
        parts
    }

    #[test]
    fn a_datagram_is_cut_where_eight_bytes_end_and_each_part_says_where_it_belongs() {
        let whole = packet().ipv4("203.0.113.4", "192.0.2.10").identification(7_u16).udp(1, 2).payload([5; 1_472]);
        let fragment = || packet().ipv4("203.0.113.4", "192.0.2.10").identification(7_u16);
        let first = fragment().udp(1, 2).payload([5; 1_448]).part(0, true).build();
        let last = fragment().protocol(17).payload([5; 24]).last_fragment(1_456).build();
        let cut = parts(&whole.build(), 1_480);
        assert_eq!(cut[1], last);
        // The builder's datagram is shorter than what the header of the cut one says.
        assert_eq!(cut[0].bytes()[..34], first.bytes()[..34]);
        assert_eq!(cut[0].bytes()[34..], whole.build().bytes()[34..34 + 1_456]);
    }

    #[test]
    fn what_must_not_be_cut_or_is_not_plain_ipv4_is_left_alone() {
        let udp = packet().ipv4("203.0.113.4", "192.0.2.10").udp(1, 2).payload([5; 1_472]);
        let six = packet().ipv6("2001:db8::1", "2001:db8::2").udp(1, 2).payload([5; 1_452]);
        for frame in [udp.clone().dont_fragment(), udp.clone().ip_options(&[1; 4]), six] {
            let frame = frame.build();
            let parsed = parse(frame.bytes()).unwrap();
            assert_eq!(Fragmenter::new(frame.bytes(), &parsed, 1_280), None, "{frame:?}");
        }
        let frame = udp.build();
        assert_eq!(
            Fragmenter::new(frame.bytes(), &parse(frame.bytes()).unwrap(), 27),
            None,
            "not even eight bytes fit"
        );
    }

    proptest! {
        #[test]
        fn parts_fit_follow_each_other_and_are_the_packet_again_when_put_together(
            size in 8..9_000_usize, mtu in 68..1_600_u16, offset in 0..2_000_u16, more in any::<bool>(), tag in any::<bool>(),
        ) {
            let size = if more { size & !7 } else { size };
            let payload: Vec<u8> = (0..size).map(|at| at as u8).collect();
            let whole = packet().ipv4("203.0.113.4", "192.0.2.10").identification(9_u16).protocol(17).payload(&payload);
            let whole = if offset > 0 || more { whole.part(offset * 8, more) } else { whole.protocol(50) };
            let whole = if tag { whole.vlan(7) } else { whole }.build();
            let l3 = if tag { 18 } else { 14 };
            let mut at = usize::from(offset) * 8;
            let mut together = Vec::new();
            let all = parts(&whole, mtu);
            for (n, fragment) in all.iter().enumerate() {
                let parsed = parse(fragment.bytes()).expect("well-formed");
                prop_assert!(parsed.end as usize - l3 <= usize::from(mtu) && parsed.end as usize == fragment.bytes().len());
                let is_last = n + 1 == all.len();
                match parsed.body {
                    Body::Ipv4Fragment(fragment) => {
                        prop_assert_eq!((usize::from(fragment.offset), fragment.more), (at, !is_last || more));
                    }
                    _ => prop_assert!(all.len() == 1 && offset == 0 && !more, "whole, so one part"),
                }
                at += fragment.bytes().len() - l3 - 20;
                together.extend_from_slice(&fragment.bytes()[l3 + 20..]);
            }
            prop_assert_eq!(together, payload);
        }
    }
}
