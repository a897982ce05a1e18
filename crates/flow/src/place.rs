//! Insertion of a connection: without a lock, and without the connection ever being in the table twice.
//!
//! 1. *Claim* a slot, from the first of these that succeeds: an empty slot of the primary bucket; an empty slot of the
//!    secondary bucket; a half-open entry's slot where half-open entries crowd; a slot freed by moving an entry from
//!    its primary to its own secondary bucket, after another entry has moved on from there if need be; the slot of the
//!    least valuable entry; a slot freed by moving an entry to the slot of a less valuable one in its secondary bucket;
//!    a slot freed by three moves, one after another.
//! 2. *Announce*: write the key, then publish that it is there. The entry is pending: lookups skip it, other inserters
//!    see it.
//! 3. *Settle*: check all other slots that the key may be in. If another thread's entry is live, ours ends. Of two
//!    pending entries the one in the later slot ends, and the inserter of the earlier one ends it; an inserter waits
//!    for an earlier one, but not for ever. If no other entry is left, ours goes live, unless another thread has ended
//!    it meanwhile.
//!
//! Two inserters of one key cannot both go live. Each announces before it checks, so one of the two sees the other; and
//! an inserter that sees another entry goes live only after it has seen that entry's end.

use vipa_model::TargetId;

use crate::{
    FlowState, FlowTable, Key, Tick,
    atomics::{Ordering, fence, spin_loop},
    bucket::SLOTS,
    key::Packed,
    table::BucketPair,
    tick::age,
    word::Word,
};

/// Origin of the evidence that a connection exists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Traffic,
    Target,
}

/// A connection that is being inserted.
pub(crate) struct Newcomer<W> {
    pub(crate) packed: Packed<W>,
    pub(crate) pair: BucketPair,
    pub(crate) target: TargetId,
    pub(crate) state: FlowState,
    pub(crate) source: Source,
}

pub(crate) enum Placed {
    /// Live; `Some`: in the slot of an evicted connection in this state.
    Live(Option<FlowState>),
    Full,
    /// Another thread inserts or has inserted the same connection: look it up again.
    Contested,
}

/// A slot that this inserter alone owns.
struct Claim {
    bucket: usize,
    slot: usize,
    word: Word,
    evicted: Option<FlowState>,
}

/// Reads of an earlier inserter's pending entry before that inserter is taken for stuck: some microseconds.
const PENDING_READS: u32 = if cfg!(loom) { 1 } else { 256 };

/// Silence after which an open connection may give way to a new one: one minute.
const IDLE_TICKS: u16 = 240;

/// Silence after which a connection that its linked target has not reported gives way like a closing one: two seconds,
/// many times what a report takes.
const UNREPORTED_TICKS: u16 = 8;

/// Age from which an ended entry gives way before any other entry is moved: one second. It outlives its connection for
/// late segments.
const ENDED_TICKS: u16 = 4;

/// Half-open entries among eight neighbours from which on they count as a flood's, so that moving other entries for one
/// of them is not worth it. With one entry in fifty half-open, as in ordinary traffic, one newcomer in two thousand
/// meets this many.
const CROWD: usize = 3;

/// Victims or free slots that are tried at most, because other threads may take each of them first.
const ATTEMPTS: usize = 4;

impl<K: Key> FlowTable<K> {
    pub(crate) fn place(&self, newcomer: &Newcomer<K::Words>, now: Tick) -> Placed {
        let Some(claim) = self.claim(newcomer, now) else { return Placed::Full };
        let pending = self.buckets[claim.bucket].announce(claim.slot, claim.word, newcomer.packed);
        // SeqCst: pairs with itself in the other inserter; of two that announce and then look, one sees the other.
        fence(Ordering::SeqCst);
        if !self.is_alone(newcomer, &claim) {
            self.buckets[claim.bucket].end_life(claim.slot, pending);
            return Placed::Contested;
        }
        match self.buckets[claim.bucket].swap(claim.slot, pending, pending.with_state(newcomer.state)) {
            Ok(()) => {
                self.count_added(claim.bucket, newcomer.target, newcomer.state);
                Placed::Live(claim.evicted.filter(|state| *state != FlowState::Ended))
            }
            Err(_) => Placed::Contested,
        }
    }

    /// Ends every other pending entry of the key; false if there is a live one.
    fn is_alone(&self, newcomer: &Newcomer<K::Words>, claim: &Claim) -> bool {
        let mut reads_left = PENDING_READS;
        // Entries in slots before ours have precedence.
        let mut ours_passed = false;
        for bucket in newcomer.pair.both() {
            for slot in 0..SLOTS {
                if (bucket, slot) == (claim.bucket, claim.slot) {
                    ours_passed = true;
                    continue;
                }
                while let Some(other) = self.buckets[bucket].read(slot, newcomer.packed) {
                    if !other.is_pending() {
                        return false;
                    }
                    if !ours_passed && reads_left > 0 {
                        reads_left -= 1;
                        spin_loop();
                    } else if self.buckets[bucket].swap(slot, other, other.emptied()).is_ok() {
                        break;
                    }
                }
            }
        }
        true
    }

    fn claim(&self, newcomer: &Newcomer<K::Words>, now: Tick) -> Option<Claim> {
        let mut before = self.words_of(newcomer.pair);
        for _ in 0..ATTEMPTS {
            let claim = self
                .claim_empty(newcomer, now)
                .or_else(|| self.claim_ended(newcomer, now))
                .or_else(|| self.claim_in_crowd(newcomer, now))
                .or_else(|| self.claim_by_moving(newcomer, now, Room::Spare))
                .or_else(|| self.claim_by_moving(newcomer, now, Room::Freed { moves: 1 }))
                .or_else(|| self.claim_by_evicting(newcomer, now))
                .or_else(|| self.claim_by_moving(newcomer, now, Room::Made));
            if claim.is_some() {
                return claim;
            }
            // No other thread has changed these buckets: the same search would end the same way.
            let after = self.words_of(newcomer.pair);
            if std::mem::replace(&mut before, after) == after {
                break;
            }
        }
        self.claim_by_moving(newcomer, now, Room::Freed { moves: 2 })
    }

    /// All words of both buckets.
    fn words_of(&self, pair: BucketPair) -> [[Word; SLOTS]; 2] {
        pair.both().map(|bucket| std::array::from_fn(|slot| self.buckets[bucket].word(slot)))
    }

    fn claim_empty(&self, newcomer: &Newcomer<K::Words>, now: Tick) -> Option<Claim> {
        let BucketPair { primary, secondary } = newcomer.pair;
        (0..SLOTS)
            .find_map(|slot| self.claim_if_empty(primary, slot, newcomer, now))
            // Displaced entries fill a bucket from its last slot, so a free first slot means that the bucket holds few
            // of them.
            .or_else(|| (1..SLOTS).rev().find_map(|slot| self.claim_if_empty(secondary, slot, newcomer, now)))
            .or_else(|| if self.buckets[secondary].word(0).is_empty() { self.claim_first(newcomer, now) } else { None })
    }

    #[inline(always)]
    fn claim_if_empty(&self, bucket: usize, slot: usize, newcomer: &Newcomer<K::Words>, now: Tick) -> Option<Claim> {
        let before = self.buckets[bucket].word(slot);
        if !before.is_empty() {
            return None;
        }
        let word = before.claimed(&newcomer.packed, newcomer.target, now);
        self.buckets[bucket].swap(slot, before, word).ok()?;
        Some(Claim { bucket, slot, word, evicted: None })
    }

    /// The first slot of the secondary bucket; where that is a [last resort](Self::is_last_resort), rather a slot freed
    /// by moving.
    #[cold]
    fn claim_first(&self, newcomer: &Newcomer<K::Words>, now: Tick) -> Option<Claim> {
        let secondary = newcomer.pair.secondary;
        let spared =
            self.is_last_resort(secondary, 0).then(|| self.claim_by_moving(newcomer, now, Room::Spare)).flatten();
        spared.or_else(|| self.claim_if_empty(secondary, 0, newcomer, now))
    }

    /// Whether `slot` is the first one and all other slots of `bucket` hold displaced connections. These cannot move,
    /// and a newcomer whose two buckets are both full of them gets no slot, so the last slot stays free for connections
    /// whose primary bucket this is.
    fn is_last_resort(&self, bucket: usize, slot: usize) -> bool {
        let is_away = |(packed, _)| self.bucket_pair(packed).primary != bucket;
        slot == 0 && (1..SLOTS).all(|slot| self.buckets[bucket].read_any(slot).is_some_and(is_away))
    }

    /// Moves one of the eight neighbours from its primary to its secondary bucket and claims the slot that it leaves.
    #[cold]
    fn claim_by_moving(&self, newcomer: &Newcomer<K::Words>, now: Tick, room: Room) -> Option<Claim> {
        let mut movable = [const { None }; 2 * SLOTS];
        let mut free = movable.iter_mut();
        for bucket in newcomer.pair.both() {
            for slot in 0..SLOTS {
                let Some((packed, word)) = self.buckets[bucket].read_any(slot) else { continue };
                let BucketPair { primary, secondary } = self.bucket_pair(packed);
                if primary == bucket && !word.is_moving() {
                    // All of them are prefetched first, so that the memory accesses overlap.
                    self.buckets[secondary].prefetch();
                    if let Some(free) = free.next() {
                        *free = Some(Resident { bucket, slot, packed, word, secondary });
                    }
                }
            }
        }
        movable.iter().flatten().find_map(|resident| {
            let word = resident.word.claimed(&newcomer.packed, newcomer.target, now);
            let copy_slot = self.claim_copy_slot(resident, newcomer.source, now, room)?;
            self.replace_by_moving(resident, &copy_slot, word)?;
            Some(Claim { bucket: resident.bucket, slot: resident.slot, word, evicted: copy_slot.evicted })
        })
    }

    /// Claims a slot in a resident's secondary bucket for its copy.
    fn claim_copy_slot(
        &self,
        resident: &Resident<K::Words>,
        source: Source,
        now: Tick,
        room: Room,
    ) -> Option<CopySlot> {
        let there = &self.buckets[resident.secondary];
        let empty = || {
            (0..SLOTS).rev().find_map(|at| {
                let before = there.word(at);
                let copy = before.claimed_like(resident.word);
                let wanted = before.is_empty() && !(room == Room::Spare && self.is_last_resort(resident.secondary, at));
                let taken = wanted && there.swap(at, before, copy).is_ok();
                taken.then_some(CopySlot { at, copy, evicted: None })
            })
        };
        match room {
            Room::Spare => empty(),
            Room::Freed { moves } => empty().or_else(|| {
                self.move_on(resident.secondary, source, now, moves)?;
                empty()
            }),
            Room::Made => {
                let (_, at, before, state) = (0..SLOTS)
                    .filter_map(|at| {
                        let word = there.word(at);
                        let state = word.state().filter(|_| !word.is_moving())?;
                        let is_linked = || self.is_linked(word.target());
                        Some((worth(state, age(now, word.tick()), source, is_linked)?, at, word, state))
                    })
                    .min_by_key(|(worth, ..)| *worth)?;
                let copy = before.claimed_like(resident.word);
                there.swap(at, before, copy).ok()?;
                self.count_displaced(resident.secondary, before);
                Some(CopySlot { at, copy, evicted: Some(state) })
            }
        }
    }

    /// Moves one entry out of a full bucket, its primary one, to its own secondary bucket, in at most `moves` moves.
    fn move_on(&self, bucket: usize, source: Source, now: Tick, moves: usize) -> Option<()> {
        // Two moves are one move twice, and multiply the model checker's work.
        let slots = if cfg!(loom) { 0 } else { SLOTS };
        let room = Room::Freed { moves: moves.checked_sub(1)? };
        (0..slots).find_map(|slot| {
            let (packed, word) = self.buckets[bucket].read_any(slot)?;
            let BucketPair { primary, secondary } = self.bucket_pair(packed);
            if primary != bucket || word.is_moving() {
                return None;
            }
            let resident = Resident { bucket, slot, packed, word, secondary };
            let copy_slot = self.claim_copy_slot(&resident, source, now, room)?;
            self.replace_by_moving(&resident, &copy_slot, word.emptied())
        })
    }

    /// Moves `resident` to `copy_slot` in its secondary bucket and sets its old slot to `next`. For a moment the entry is
    /// live in both.
    ///
    /// While the original is marked as moving, only remove(), confirm() and end() change it; in that case the copy is
    /// withdrawn. Until the copy is withdrawn or the original replaced, lookups find the original first, and no other
    /// thread can move it.
    fn replace_by_moving(&self, resident: &Resident<K::Words>, copy_slot: &CopySlot, next: Word) -> Option<()> {
        let Resident { bucket, slot, packed, word, secondary } = *resident;
        let (here, there) = (&self.buckets[bucket], &self.buckets[secondary]);
        let CopySlot { at, copy, .. } = *copy_slot;
        if here.swap(slot, word, word.moving()).is_err() {
            there.end_life(at, copy);
            return None;
        }
        let copy = there.announce(at, copy, packed);
        // SeqCst: pairs with the fence in remove(); either that thread sees the copy and ends it, or we see that the
        // original is gone.
        fence(Ordering::SeqCst);
        let state = word.state()?;
        let unchanged = here.word(slot) == word.moving();
        if unchanged && there.swap(at, copy, copy.with_state(state)).is_ok() {
            self.count_added(secondary, word.target(), state);
            if here.swap(slot, word.moving(), next).is_ok() {
                self.count_ended(bucket, word);
                return Some(());
            }
        }
        if let Some(ended) = there.end_life(at, copy) {
            self.count_ended(secondary, ended);
        }
        here.end_move(slot, word);
        None
    }

    #[cold]
    fn claim_by_evicting(&self, newcomer: &Newcomer<K::Words>, now: Tick) -> Option<Claim> {
        let slots = newcomer.pair.both().into_iter().flat_map(|bucket| (0..SLOTS).map(move |slot| (bucket, slot)));
        let (_, bucket, slot, before, state) = slots
            .filter_map(|(bucket, slot)| {
                let word = self.buckets[bucket].word(slot);
                let state = word.state().filter(|_| !word.is_moving())?;
                let worth = worth(state, age(now, word.tick()), newcomer.source, || self.is_linked(word.target()))?;
                Some((worth, bucket, slot, word, state))
            })
            .min_by_key(|(worth, ..)| *worth)?;
        self.evict(newcomer, (bucket, slot, before, state), now)
    }

    /// Claims the slot of an entry whose connection has ended a while ago.
    #[cold]
    fn claim_ended(&self, newcomer: &Newcomer<K::Words>, now: Tick) -> Option<Claim> {
        newcomer.pair.both().into_iter().find_map(|bucket| {
            (0..SLOTS).find_map(|slot| {
                let word = self.buckets[bucket].word(slot);
                let is_over = word.state() == Some(FlowState::Ended) && !word.is_moving();
                if !is_over || age(now, word.tick()) < ENDED_TICKS {
                    return None;
                }
                self.evict(newcomer, (bucket, slot, word, FlowState::Ended), now)
            })
        })
    }

    /// Claims the slot of the longest silent one of many half-open neighbours: the newcomers of a flood replace one
    /// another.
    #[cold]
    fn claim_in_crowd(&self, newcomer: &Newcomer<K::Words>, now: Tick) -> Option<Claim> {
        let (mut crowd, mut oldest) = (0, None::<(u16, usize, usize, Word)>);
        for bucket in newcomer.pair.both() {
            for slot in 0..SLOTS {
                let word = self.buckets[bucket].word(slot);
                if word.state() == Some(FlowState::HalfOpen) && !word.is_moving() {
                    crowd += 1;
                    let age = age(now, word.tick());
                    if oldest.is_none_or(|(oldest, ..)| age > oldest) {
                        oldest = Some((age, bucket, slot, word));
                    }
                }
            }
        }
        let (_, bucket, slot, before) = oldest.filter(|_| crowd >= CROWD)?;
        self.evict(newcomer, (bucket, slot, before, FlowState::HalfOpen), now)
    }

    fn evict(
        &self,
        newcomer: &Newcomer<K::Words>,
        (bucket, slot, before, state): (usize, usize, Word, FlowState),
        now: Tick,
    ) -> Option<Claim> {
        let word = before.claimed(&newcomer.packed, newcomer.target, now);
        self.buckets[bucket].swap(slot, before, word).ok()?;
        self.count_displaced(bucket, before);
        Some(Claim { bucket, slot, word, evicted: Some(state) })
    }

    /// Counts that an entry last seen as `word` has lost its slot to another: an eviction, unless its connection had
    /// ended.
    fn count_displaced(&self, bucket: usize, word: Word) {
        self.count_ended(bucket, word);
        if word.state() != Some(FlowState::Ended) {
            self.counters.add_eviction(bucket);
        }
    }
}

/// An entry in its primary bucket that may be moved.
struct Resident<W> {
    bucket: usize,
    slot: usize,
    packed: Packed<W>,
    word: Word,
    secondary: usize,
}

/// Which slot of its secondary bucket a moved entry may take.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    /// An empty one that is no [last resort](FlowTable::is_last_resort).
    Spare,
    /// An empty one; if need be after another entry has moved on from there, which may need a further move: `moves` at
    /// most.
    Freed { moves: usize },
    /// The slot of an entry that is worth less than the newcomer.
    Made,
}

/// A slot that is claimed for the copy of a moving entry, and the entry that was evicted for it.
struct CopySlot {
    at: usize,
    copy: Word,
    evicted: Option<FlowState>,
}

/// Order in which entries give way: the least first, and of one kind the longest silent. `None`: the entry does not
/// give way to this newcomer. `is_linked`: the target's agent reports what it holds, so an entry that it has not
/// reported is worth little, whatever a client has sent: anybody can send a SYN and an ACK. After a while it is
/// nobody's connection.
fn worth(
    state: FlowState,
    age: u16,
    newcomer: Source,
    is_linked: impl FnOnce() -> bool,
) -> Option<(u8, std::cmp::Reverse<u16>)> {
    let is_linked = state == FlowState::Open && is_linked();
    let kind = match state {
        FlowState::Ended => 0,
        FlowState::HalfOpen => 1,
        FlowState::Closing => 2,
        FlowState::Open if is_linked && age >= UNREPORTED_TICKS => 2,
        FlowState::Open if is_linked => 3,
        FlowState::Open | FlowState::Udp if age >= IDLE_TICKS => 4,
        FlowState::Open | FlowState::Udp if newcomer == Source::Target => 5,
        FlowState::Open | FlowState::Udp | FlowState::Confirmed | FlowState::Reopened => return None,
    };
    Some((kind, std::cmp::Reverse(age)))
}
