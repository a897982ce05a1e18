//! IPv4 packets cut into parts for a way that takes less at once (RFC 791 §3.2). IPv6's are cut by their senders alone.
//!
//! ```text
//!  ┌────┬────┬──────────────────────────────┐        ┌────┬────┬──────────┐  ┌────┬────┬──────────┐  ┌────┬────┬─────┐
//!  │ eth│ ip │ payload                      │   ──►  │ eth│ ip'│ step     │  │ eth│ ip'│ step     │  │ eth│ ip'│ rest│
//!  └────┴────┴──────────────────────────────┘        └────┴────┴──────────┘  └────┴────┴──────────┘  └────┴────┴─────┘
//! ```
//! A packet that is a part itself is cut further in the same way.

use crate::{PacketBuf, Parsed, checksum, view};

const HEADER: usize = 20;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE: u16 = 0x2000;

/// How a packet is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    l3: usize,
    /// Where the packet ends.
    end: usize,
    /// Bytes of payload in each part but the last.
    step: usize,
    /// The packet's own flags and offset.
    place: u16,
}

impl Cut {
    /// For a way that takes `mtu` bytes of IP. `None`: the packet is not IPv4, or must not be cut, or has options, some of which
    /// belong into the first part and some into all.
    #[must_use]
    pub fn new(frame: &[u8], parsed: &Parsed, mtu: u16) -> Option<Self> {
        let (l3, end) = (usize::from(parsed.l3), parsed.end as usize);
        let header: &[u8; HEADER] = view::chunk(frame, l3)?;
        let place = u16::from_be_bytes([header[6], header[7]]);
        let step = usize::from(mtu).checked_sub(HEADER)? & !7;
        let may = header[0] == 0x45 && place & DONT_FRAGMENT == 0 && step > 0 && end >= l3 + HEADER;
        may.then_some(Self { l3, end, step, place })
    }

    /// Writes the frame of the `n`-th part, counted from 0, to the beginning of `out`; its length. `None`: there is no such part,
    /// or no room.
    #[must_use]
    pub fn write(&self, frame: &[u8], n: usize, out: &mut [u8]) -> Option<usize> {
        let payload = self.l3 + HEADER;
        let from = payload + n * self.step;
        if from >= self.end {
            return None;
        }
        let part = frame.get(from..self.end.min(from + self.step))?;
        let out = out.get_mut(..payload + part.len())?;
        let (head, body) = out.split_at_mut(payload);
        head.copy_from_slice(frame.get(..payload)?);
        body.copy_from_slice(part);
        self.number(&mut head[self.l3..], n, part.len());
        Some(out.len())
    }

    /// Makes a packet its own first part; false, and nothing changed, when it is not the one that was to be cut.
    #[must_use]
    pub fn keep_first(&self, packet: &mut impl PacketBuf) -> bool {
        let payload = self.l3 + HEADER;
        let length = self.step.min(self.end - payload);
        if packet.bytes().len() < self.end || !packet.truncate(payload + length) {
            return false;
        }
        self.number(&mut packet.bytes_mut()[self.l3..payload], 0, length);
        true
    }

    /// Makes a header say that it is the `n`-th part's.
    fn number(&self, header: &mut [u8], n: usize, length: usize) {
        let is_last = self.l3 + HEADER + n * self.step + length >= self.end;
        let more = if is_last { self.place & MORE } else { MORE };
        let place = self.place & !MORE | more;
        // Both fit: a packet's last byte is at most the 65,535th.
        let place = place.wrapping_add((n * self.step / 8) as u16);
        header[2..4].copy_from_slice(&((HEADER + length) as u16).to_be_bytes());
        header[6..8].copy_from_slice(&place.to_be_bytes());
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

    /// All parts, the first made of the packet itself.
    fn parts(frame: &HeapPacket, mtu: u16) -> Vec<HeapPacket> {
        let parsed = parse(frame.bytes()).unwrap();
        let cut = Cut::new(frame.bytes(), &parsed, mtu).expect("it may be cut");
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
        let part = || packet().ipv4("203.0.113.4", "192.0.2.10").identification(7_u16);
        let first = part().udp(1, 2).payload([5; 1_448]).part(0, true).build();
        let last = part().protocol(17).payload([5; 24]).last_fragment(1_456).build();
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
            assert_eq!(Cut::new(frame.bytes(), &parsed, 1_280), None, "{frame:?}");
        }
        let frame = udp.build();
        assert_eq!(Cut::new(frame.bytes(), &parse(frame.bytes()).unwrap(), 27), None, "not even eight bytes fit");
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
            for (n, part) in all.iter().enumerate() {
                let parsed = parse(part.bytes()).expect("well-formed");
                prop_assert!(parsed.end as usize - l3 <= usize::from(mtu) && parsed.end as usize == part.bytes().len());
                let is_last = n + 1 == all.len();
                match parsed.body {
                    Body::Ipv4Fragment(fragment) => {
                        prop_assert_eq!((usize::from(fragment.offset), fragment.more), (at, !is_last || more));
                    }
                    _ => prop_assert!(all.len() == 1 && offset == 0 && !more, "whole, so one part"),
                }
                at += part.bytes().len() - l3 - 20;
                together.extend_from_slice(&part.bytes()[l3 + 20..]);
            }
            prop_assert_eq!(together, payload);
        }
    }
}
