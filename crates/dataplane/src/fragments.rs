//! Parts of packets: only the first names the connection, so it teaches where the others go.
//!
//! A small table of what was learnt, and a small room for parts that came before their first one. Both are of fixed size
//! and age fast; in a flood the newest win in the table and wait in vain in the room, and each is counted. All parts of a
//! packet arrive at one worker: receive-side scaling hashes fragments by their addresses alone.

use std::{collections::VecDeque, time::Duration};

use vipa_handoff::Reason;
use vipa_model::{Moment, PortId};

/// What the parts of one packet have in common (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentKey {
    /// IPv4 addresses as their numbers.
    pub(crate) source: u128,
    pub(crate) destination: u128,
    pub(crate) identification: u32,
    pub(crate) protocol: u8,
}

/// Where the parts of a packet go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lesson<V> {
    pub(crate) verdict: V,
    /// Bytes of payload in the first part; one that begins before its end would overwrite it (RFC 1858, RFC 5722).
    pub(crate) first_end: u16,
}

struct Learnt<V> {
    key: FragmentKey,
    lesson: Lesson<V>,
    at: Moment,
}

/// A part that came before its first one.
struct Waiting<B> {
    key: FragmentKey,
    offset: u16,
    packet: B,
    port: PortId,
    since: Moment,
}

/// A part whose first one has come, and where it goes.
pub(crate) struct Released<B, V> {
    pub(crate) packet: B,
    pub(crate) port: PortId,
    pub(crate) verdict: Result<V, Reason>,
}

pub(crate) struct Fragments<B, V> {
    table: Box<[[Option<Learnt<V>>; WAYS]]>,
    waiting: VecDeque<Waiting<B>>,
}

const SETS: usize = 512;
const WAYS: usize = 4;
/// Parts that wait at one worker.
pub(crate) const ROOM: usize = 256;
/// How long a lesson holds; a network delivers the parts of a packet within less.
const LESSON: Duration = Duration::from_secs(2);
/// How long a part waits for its first one.
const PATIENCE: Duration = Duration::from_millis(50);

impl<B, V: Copy + PartialEq> Fragments<B, V> {
    pub(crate) fn new() -> Self {
        let table = (0..SETS).map(|_| [const { None }; WAYS]).collect();
        Self { table, waiting: VecDeque::with_capacity(ROOM) }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Where a later part goes; `None`: its first one has not come yet.
    pub(crate) fn find(&self, key: &FragmentKey, offset: u16, now: Moment) -> Option<Result<V, Reason>> {
        let learnt = self.table[set_of(key)].iter().flatten().find(|learnt| learnt.key == *key)?;
        if now.since(learnt.at) > LESSON {
            return None;
        }
        Some(if offset < learnt.lesson.first_end { Err(Reason::FragmentBad) } else { Ok(learnt.lesson.verdict) })
    }

    /// A first part goes where `lesson` says. False: another first part of the packet went elsewhere, or held less.
    pub(crate) fn learn(&mut self, key: FragmentKey, lesson: Lesson<V>, now: Moment) -> bool {
        let set = &mut self.table[set_of(&key)];
        if let Some(known) = set.iter_mut().flatten().find(|learnt| learnt.key == key) {
            if now.since(known.at) <= LESSON {
                return known.lesson == lesson;
            }
            *known = Learnt { key, lesson, at: now };
            return true;
        }
        let oldest = set.iter_mut().min_by_key(|place| place.as_ref().map_or(Moment::ZERO, |learnt| learnt.at));
        if let Some(place) = oldest {
            *place = Some(Learnt { key, lesson, at: now });
        }
        true
    }

    /// Keeps a part whose first one has not come; gives it back when there is no room.
    pub(crate) fn wait(
        &mut self,
        key: FragmentKey,
        offset: u16,
        packet: B,
        port: PortId,
        now: Moment,
    ) -> Result<(), B> {
        if self.waiting.len() >= ROOM {
            return Err(packet);
        }
        self.waiting.push_back(Waiting { key, offset, packet, port, since: now });
        Ok(())
    }

    /// The next part that waits no longer: its first one has come, or its time is up. `looked` counts those looked at;
    /// begin with 0.
    pub(crate) fn release(&mut self, looked: &mut usize, now: Moment) -> Option<Released<B, V>> {
        while *looked < self.waiting.len() {
            let Waiting { key, offset, since, .. } = &self.waiting[*looked];
            let verdict = match self.find(key, *offset, now) {
                Some(verdict) => verdict,
                None if now.since(*since) > PATIENCE => Err(Reason::Fragment),
                None => {
                    *looked += 1;
                    continue;
                }
            };
            let Waiting { packet, port, .. } = self.waiting.remove(*looked)?;
            return Some(Released { packet, port, verdict });
        }
        None
    }

    /// At the end: all that still wait.
    pub(crate) fn give_up(&mut self) -> usize {
        let count = self.waiting.len();
        self.waiting.clear();
        count
    }
}

/// Whoever floods can fill a set with packets of his own; the addresses and the identification are all there is.
fn set_of(key: &FragmentKey) -> usize {
    let FragmentKey { source, destination, identification, protocol } = *key;
    let addresses = source ^ destination.rotate_left(64);
    let folded = (addresses >> 64) as u64 ^ addresses as u64 ^ u64::from(identification) << 8 ^ u64::from(protocol);
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % SETS
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(9_000_000_000);

    fn key(identification: u32) -> FragmentKey {
        FragmentKey { source: 1, destination: 2, identification, protocol: 17 }
    }

    fn fragments() -> Fragments<&'static str, u8> {
        Fragments::new()
    }

    fn lesson(verdict: u8) -> Lesson<u8> {
        Lesson { verdict, first_end: 1480 }
    }

    #[test]
    fn the_first_part_teaches_where_the_others_go_for_a_while() {
        let mut fragments = fragments();
        assert_eq!(fragments.find(&key(7), 1480, NOW), None);
        assert!(fragments.learn(key(7), lesson(3), NOW));
        assert_eq!(fragments.find(&key(7), 1480, NOW), Some(Ok(3)));
        assert_eq!(fragments.find(&key(8), 1480, NOW), None);
        assert_eq!(fragments.find(&key(7), 1480, NOW + LESSON + Duration::from_millis(1)), None);
    }

    #[test]
    fn a_part_that_would_overwrite_the_first_one_is_refused_and_so_is_a_second_first_one() {
        let mut fragments = fragments();
        assert!(fragments.learn(key(7), lesson(3), NOW));
        assert_eq!(fragments.find(&key(7), 8, NOW), Some(Err(Reason::FragmentBad)));
        assert!(fragments.learn(key(7), lesson(3), NOW), "the same again");
        assert!(!fragments.learn(key(7), lesson(4), NOW), "to another target");
    }

    #[test]
    fn parts_that_came_early_wait_for_their_first_one_but_not_for_ever() {
        let mut fragments = fragments();
        fragments.wait(key(1), 1480, "one", PortId(0), NOW).unwrap();
        fragments.wait(key(2), 1480, "two", PortId(0), NOW).unwrap();
        assert!(fragments.release(&mut 0, NOW).is_none());
        fragments.learn(key(2), lesson(5), NOW);
        let released = fragments.release(&mut 0, NOW).unwrap();
        assert_eq!((released.packet, released.verdict), ("two", Ok(5)));
        let late = fragments.release(&mut 0, NOW + PATIENCE + Duration::from_millis(1)).unwrap();
        assert_eq!((late.packet, late.verdict), ("one", Err(Reason::Fragment)));
        assert_eq!(fragments.waiting(), 0);
    }

    #[test]
    fn a_flood_of_parts_fills_the_room_and_no_more() {
        let mut fragments = fragments();
        let refused = (0..1000).filter(|id| fragments.wait(key(*id), 8, "part", PortId(0), NOW).is_err()).count();
        assert_eq!((refused, fragments.waiting()), (1000 - ROOM, ROOM));
        assert_eq!(fragments.give_up(), ROOM);
    }
}
