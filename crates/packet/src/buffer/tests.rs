use proptest::prelude::*;

use super::{HEADROOM, HeapPacket, PacketBuf};

#[test]
fn a_new_packet_has_its_bytes_and_full_headroom() {
    let packet = HeapPacket::from(&b"frame"[..]);
    assert_eq!((packet.bytes(), packet.headroom()), (&b"frame"[..], HEADROOM));
}

#[test]
fn what_is_prepended_can_be_trimmed_again() {
    let mut packet = HeapPacket::from(&b"frame"[..]);
    packet.prepend(3).expect("128 bytes of headroom").copy_from_slice(b"ip:");
    assert_eq!((packet.bytes(), packet.headroom()), (&b"ip:frame"[..], HEADROOM - 3));
    assert!(packet.trim_front(3));
    assert_eq!((packet.bytes(), packet.headroom()), (&b"frame"[..], HEADROOM));
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let mut packet = HeapPacket::from(&b"frame"[..]);
    assert!(packet.prepend(HEADROOM + 1).is_none());
    assert!(!packet.trim_front(6));
    assert!(!packet.truncate(6));
    assert!(!packet.refill(b"longer"));
    assert_eq!((packet.bytes(), packet.headroom()), (&b"frame"[..], HEADROOM));
}

#[test]
fn a_refilled_packet_is_as_new() {
    let mut packet = HeapPacket::from(&b"frame"[..]);
    assert!(packet.prepend(20).is_some() && packet.truncate(1) && packet.refill(b"next"));
    assert_eq!(packet, HeapPacket::from(&b"next"[..]));
    assert_eq!(packet.headroom(), HEADROOM);
}

proptest! {
    /// The model: a vector that remembers how much was taken off its front.
    #[test]
    fn any_sequence_of_cuts_and_growths_agrees_with_a_vector(
        frame in prop::collection::vec(any::<u8>(), 0..200),
        steps in prop::collection::vec((0..3u8, 0..300usize), 0..20),
    ) {
        let mut packet = HeapPacket::from(frame.as_slice());
        let (mut model, mut headroom) = (frame, HEADROOM);
        for (step, n) in steps {
            match step {
                0 => {
                    let grown = packet.prepend(n).map(|new| new.fill(7)).is_some();
                    prop_assert_eq!(grown, n <= headroom);
                    if grown {
                        model.splice(..0, std::iter::repeat_n(7, n));
                        headroom -= n;
                    }
                }
                1 => {
                    prop_assert_eq!(packet.trim_front(n), n <= model.len());
                    if n <= model.len() {
                        model.drain(..n);
                        headroom += n;
                    }
                }
                _ => {
                    prop_assert_eq!(packet.truncate(n), n <= model.len());
                    model.truncate(n);
                }
            }
            prop_assert_eq!((packet.bytes(), packet.headroom()), (model.as_slice(), headroom));
        }
    }
}
