//! Fragments: only the first one of a packet names the connection, so it decides where the later ones go.
//!
//! There is a small table of the mappings that first fragments make, and a small queue for fragments that arrive before
//! their first one. Both have a fixed size and age fast. In a flood the newest mappings replace older ones, and held
//! fragments expire; both are counted. All fragments of a packet arrive at one worker: receive-side scaling hashes
//! fragments by their addresses alone.
//!
//! Fragments are forwarded as they arrive. One that overlaps another is dropped, and so are all that follow of that
//! packet (RFC 5722 §4); those already forwarded cannot be recalled. A fragment that lies wholly within what has
//! arrived is a duplicate (RFC 8200 §4.5) and is forwarded too. Of a packet with more than [`GAPS`] gaps at a time some
//! fragments are not recorded, and the target has to find an overlap with these.

use std::{collections::VecDeque, time::Duration};

use arrayvec::ArrayVec;
use vipa_handoff::Reason;
use vipa_model::{Moment, PortId};

/// What all fragments of one packet have in common (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentKey {
    /// IPv4 addresses as their numbers.
    pub(crate) source: u128,
    pub(crate) destination: u128,
    pub(crate) identification: u32,
    pub(crate) protocol: u8,
}

/// A fragment's bytes of the packet's payload: from `start` up to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u16,
    pub(crate) end: u16,
}

impl Span {
    /// Saturates: `parse` has checked that a fragment ends where a packet may.
    pub(crate) fn of(start: u16, bytes: usize) -> Self {
        Self { start, end: start.saturating_add(u16::try_from(bytes).unwrap_or(u16::MAX)) }
    }
}

/// What a first fragment contributes to its packet's mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FirstPart {
    pub(crate) key: FragmentKey,
    /// End of its payload, in bytes.
    pub(crate) end: u16,
    /// Its connection's entropy for outer headers, which the later fragments share.
    pub(crate) entropy: u32,
}

/// Where the fragments of a packet go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentMapping<V> {
    pub(crate) verdict: V,
    /// Bytes of payload in the first fragment; one that begins before its end would overwrite it (RFC 1858, RFC 5722).
    pub(crate) first_end: u16,
}

struct FragmentEntry<V> {
    key: FragmentKey,
    mapping: FragmentMapping<V>,
    at: Moment,
    /// The later fragments; `None`: fragments overlapped, and no more are forwarded.
    seen: Option<Seen>,
}

/// The later fragments of a packet that were forwarded, adjacent ones joined.
#[derive(Default)]
struct Seen(ArrayVec<Span, GAPS>);

/// A fragment that arrived before its first one.
struct HeldFragment<B> {
    key: FragmentKey,
    span: Span,
    packet: B,
    port: PortId,
    since: Moment,
}

/// A held fragment whose first one has arrived, or whose time has passed, and what becomes of it.
pub(crate) struct ReleasedFragment<B, V> {
    pub(crate) packet: B,
    pub(crate) port: PortId,
    pub(crate) verdict: Result<V, Reason>,
}

pub(crate) struct Fragments<B, V> {
    table: Box<[[Option<FragmentEntry<V>>; WAYS]]>,
    waiting: VecDeque<HeldFragment<B>>,
}

const SETS: usize = 512;
const WAYS: usize = 4;
/// Ranges kept of what has arrived of a packet; in order it is one.
const GAPS: usize = 8;
/// Fragments held at one worker.
pub(crate) const HELD_FRAGMENTS: usize = 256;
/// Lifetime of a mapping; a network delivers the fragments of a packet within less.
const MAPPING_LIFETIME: Duration = Duration::from_secs(2);
/// How long a fragment waits for its first one.
const HOLD_TIME: Duration = Duration::from_millis(50);

impl<B, V: Copy + PartialEq> Fragments<B, V> {
    pub(crate) fn new() -> Self {
        let table = (0..SETS).map(|_| [const { None }; WAYS]).collect();
        Self { table, waiting: VecDeque::with_capacity(HELD_FRAGMENTS) }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Where a later fragment goes; `None`: its first one has not arrived yet.
    pub(crate) fn find(&mut self, key: &FragmentKey, span: Span, now: Moment) -> Option<Result<V, Reason>> {
        let entry = self.table[set_of(key)].iter_mut().flatten().find(|entry| entry.key == *key)?;
        if now.since(entry.at) > MAPPING_LIFETIME {
            return None;
        }
        let first_end = entry.mapping.first_end;
        entry.seen = entry.seen.take().filter(|_| span.start >= first_end).and_then(|seen| seen.with(span));
        Some(entry.seen.as_ref().map(|_| entry.mapping.verdict).ok_or(Reason::FragmentBad))
    }

    /// Records that a first fragment goes where `mapping` says. False: another first fragment of the packet went
    /// elsewhere, or was shorter, or fragments overlapped.
    pub(crate) fn record(&mut self, key: FragmentKey, mapping: FragmentMapping<V>, now: Moment) -> bool {
        let set = &mut self.table[set_of(&key)];
        let new = FragmentEntry { key, mapping, at: now, seen: Some(Seen::default()) };
        if let Some(known) = set.iter_mut().flatten().find(|entry| entry.key == key) {
            if now.since(known.at) <= MAPPING_LIFETIME {
                known.seen = known.seen.take().filter(|_| known.mapping == mapping);
                return known.seen.is_some();
            }
            *known = new;
            return true;
        }
        let oldest = set.iter_mut().min_by_key(|slot| slot.as_ref().map_or(Moment::ZERO, |entry| entry.at));
        if let Some(slot) = oldest {
            *slot = Some(new);
        }
        true
    }

    /// Holds a fragment whose first one has not arrived; returns it when there is no room.
    pub(crate) fn wait(&mut self, key: FragmentKey, span: Span, packet: B, port: PortId, now: Moment) -> Result<(), B> {
        if self.waiting.len() >= HELD_FRAGMENTS {
            return Err(packet);
        }
        self.waiting.push_back(HeldFragment { key, span, packet, port, since: now });
        Ok(())
    }

    /// The next fragment that waits no longer: its first one has arrived, or its time has passed. `looked` counts the
    /// fragments examined; begin with 0.
    pub(crate) fn release(&mut self, looked: &mut usize, now: Moment) -> Option<ReleasedFragment<B, V>> {
        while *looked < self.waiting.len() {
            let HeldFragment { key, span, since, .. } = self.waiting[*looked];
            let verdict = match self.find(&key, span, now) {
                Some(verdict) => verdict,
                None if now.since(since) > HOLD_TIME => Err(Reason::Fragment),
                None => {
                    *looked += 1;
                    continue;
                }
            };
            let HeldFragment { packet, port, .. } = self.waiting.remove(*looked)?;
            return Some(ReleasedFragment { packet, port, verdict });
        }
        None
    }

    /// Drops all held fragments, at the end; returns their number.
    pub(crate) fn give_up(&mut self) -> usize {
        let count = self.waiting.len();
        self.waiting.clear();
        count
    }
}

impl Seen {
    /// Adds one fragment; `None`: it overlaps what has arrived.
    fn with(mut self, part: Span) -> Option<Self> {
        let Self(spans) = &mut self;
        if part.start == part.end || spans.iter().any(|seen| seen.start <= part.start && part.end <= seen.end) {
            return Some(self);
        }
        if spans.iter().any(|seen| seen.start < part.end && part.start < seen.end) {
            return None;
        }
        let mut joined = part;
        spans.retain(|seen| {
            let apart = seen.end != part.start && part.end != seen.start;
            if !apart {
                joined = Span { start: joined.start.min(seen.start), end: joined.end.max(seen.end) };
            }
            apart
        });
        // Without room for one more gap the fragment is forwarded unrecorded.
        let _ = spans.try_push(joined);
        Some(self)
    }
}

/// The set of a packet. A flooder can fill a set with his own packets: the addresses and the identification are all
/// there is to hash.
fn set_of(key: &FragmentKey) -> usize {
    let FragmentKey { source, destination, identification, protocol } = *key;
    let addresses = source ^ destination.rotate_left(64);
    let folded = (addresses >> 64) as u64 ^ addresses as u64 ^ u64::from(identification) << 8 ^ u64::from(protocol);
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % SETS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Moment = Moment(9_000_000_000);

    fn key(identification: u32) -> FragmentKey {
        FragmentKey { source: 1, destination: 2, identification, protocol: 17 }
    }

    fn fragments() -> Fragments<&'static str, u8> {
        Fragments::new()
    }

    fn span(start: u16, end: u16) -> Span {
        Span { start, end }
    }

    const LAST: Span = Span { start: 1480, end: 1500 };
    const REFUSED: Option<Result<u8, Reason>> = Some(Err(Reason::FragmentBad));

    fn mapping(verdict: u8) -> FragmentMapping<u8> {
        FragmentMapping { verdict, first_end: 1480 }
    }

    #[test]
    fn the_first_part_teaches_where_the_others_go_for_a_while() {
        let mut fragments = fragments();
        assert_eq!(fragments.find(&key(7), LAST, NOW), None);
        assert!(fragments.record(key(7), mapping(3), NOW));
        assert_eq!(fragments.find(&key(7), LAST, NOW), Some(Ok(3)));
        assert_eq!(fragments.find(&key(8), LAST, NOW), None);
        assert_eq!(fragments.find(&key(7), LAST, NOW + MAPPING_LIFETIME + Duration::from_millis(1)), None);
    }

    #[test]
    fn after_a_part_that_would_overwrite_the_first_one_nothing_of_the_packet_goes_on() {
        let mut fragments = fragments();
        assert!(fragments.record(key(7), mapping(3), NOW));
        assert!(fragments.record(key(8), mapping(3), NOW));
        assert_eq!(fragments.find(&key(7), span(8, 16), NOW), REFUSED);
        assert_eq!(fragments.find(&key(7), LAST, NOW), REFUSED);
        assert!(!fragments.record(key(7), mapping(3), NOW), "the first one again");
        assert_eq!(fragments.find(&key(8), LAST, NOW), Some(Ok(3)), "another packet");
        let later = NOW + MAPPING_LIFETIME + Duration::from_millis(1);
        assert!(fragments.record(key(7), mapping(3), later), "another one of this name");
        assert_eq!(fragments.find(&key(7), LAST, later), Some(Ok(3)));
    }

    #[test]
    fn a_second_first_one_is_a_duplicate_or_refused_with_all_that_follows() {
        let mut fragments = fragments();
        assert!(fragments.record(key(7), mapping(3), NOW));
        assert!(fragments.record(key(7), mapping(3), NOW), "the same again");
        assert!(!fragments.record(key(7), mapping(4), NOW), "to another target");
        assert_eq!(fragments.find(&key(7), LAST, NOW), REFUSED);
    }

    #[test]
    fn later_parts_that_overlap_end_the_packet_and_duplicates_do_not() {
        let mut fragments = fragments();
        assert!(fragments.record(key(7), mapping(3), NOW));
        for part in [span(1480, 2960), span(4440, 5000), span(2960, 4440), span(1480, 2960), span(4440, 5000)] {
            assert_eq!(fragments.find(&key(7), part, NOW), Some(Ok(3)), "{part:?}");
        }
        assert_eq!(fragments.find(&key(7), span(4992, 5008), NOW), REFUSED);
        assert_eq!(fragments.find(&key(7), span(5000, 6000), NOW), REFUSED, "from then on all of it");
    }

    #[test]
    fn what_waited_is_looked_at_for_overlap_when_it_goes_on() {
        let mut fragments = fragments();
        for (part, packet) in [(span(1480, 2960), "a"), (span(2952, 4000), "b"), (span(4000, 4008), "c")] {
            fragments.wait(key(7), part, packet, PortId(0), NOW).unwrap();
        }
        fragments.record(key(7), mapping(5), NOW);
        let released = std::iter::from_fn(|| fragments.release(&mut 0, NOW));
        let verdicts: Vec<_> = released.map(|released| (released.packet, released.verdict)).collect();
        let refused = Err(Reason::FragmentBad);
        assert_eq!(verdicts, [("a", Ok(5)), ("b", refused), ("c", refused)]);
    }

    proptest! {
        /// Against a map of units of eight bytes, of which two belong to the first fragment.
        #[test]
        fn a_part_goes_on_when_it_is_all_new_or_all_known(parts in prop::collection::vec((0_u16..24, 0_u16..6), 0..=GAPS)) {
            let mut fragments = fragments();
            fragments.record(key(7), FragmentMapping { verdict: 3, first_end: 16 }, NOW);
            let (mut known, mut overlapped) = ([false; 32], false);
            for (start, length) in parts {
                let units = &mut known[usize::from(start)..usize::from(start + length)];
                let mixed = units.contains(&true) && units.contains(&false);
                overlapped |= start < 2 || mixed;
                units.fill(true);
                let expected = if overlapped { REFUSED } else { Some(Ok(3)) };
                let part = span(start * 8, (start + length) * 8);
                prop_assert_eq!(fragments.find(&key(7), part, NOW), expected);
            }
        }

        #[test]
        fn parts_that_do_not_overlap_go_on_in_any_order(order in Just((2_u16..40).collect::<Vec<_>>()).prop_shuffle()) {
            let mut fragments = fragments();
            fragments.record(key(7), FragmentMapping { verdict: 3, first_end: 16 }, NOW);
            for n in order {
                prop_assert_eq!(fragments.find(&key(7), span(n * 8, n * 8 + 8), NOW), Some(Ok(3)));
            }
        }
    }

    #[test]
    fn parts_that_came_early_wait_for_their_first_one_but_not_for_ever() {
        let mut fragments = fragments();
        fragments.wait(key(1), LAST, "one", PortId(0), NOW).unwrap();
        fragments.wait(key(2), LAST, "two", PortId(0), NOW).unwrap();
        assert!(fragments.release(&mut 0, NOW).is_none());
        fragments.record(key(2), mapping(5), NOW);
        let released = fragments.release(&mut 0, NOW).unwrap();
        assert_eq!((released.packet, released.verdict), ("two", Ok(5)));
        let late = fragments.release(&mut 0, NOW + HOLD_TIME + Duration::from_millis(1)).unwrap();
        assert_eq!((late.packet, late.verdict), ("one", Err(Reason::Fragment)));
        assert_eq!(fragments.waiting(), 0);
    }

    #[test]
    fn a_flood_of_parts_fills_the_room_and_no_more() {
        let mut fragments = fragments();
        let refused = (0..1000).filter(|id| fragments.wait(key(*id), LAST, "part", PortId(0), NOW).is_err()).count();
        assert_eq!((refused, fragments.waiting()), (1000 - HELD_FRAGMENTS, HELD_FRAGMENTS));
        assert_eq!(fragments.give_up(), HELD_FRAGMENTS);
    }
}
