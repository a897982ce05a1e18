//! The table: find, admit, touch, confirm, remove.
//!
//! A connection may be in one of two buckets, its *primary* or its *secondary* bucket; the keyed hash selects both. It
//! goes to the primary bucket when there is room, so that nearly every packet of a known connection touches one cache
//! line. Both buckets are in one block (`blocks`), so that a walk can name each entry once while entries move.
//!
//! These hold at every moment, whatever the threads do (`tests/loom.rs`):
//! - a lookup never returns the target of another connection;
//! - a connection that is in the table, and stays, is found by every lookup, also while its entry moves;
//! - two concurrent admissions of one connection end in one entry, and both callers get the same target.

use vipa_model::TargetId;

use crate::{
    Counts, FlowState, HashSeed, Key, Key4, MAX_TARGETS, Pages, TableError, Tick,
    atomics::{Ordering, fence},
    blocks::Blocks,
    bucket::{Bucket, SLOTS},
    count::{HeldCounts, TableCounters},
    key::{Packed, PackedKey, sealed::Words},
    memory::Memory,
    place::{Newcomer, Placed, Source},
    rules::RECENT,
    target_set::TargetSet,
    tick::{age, is_stale},
    word::Word,
};

/// Keys that `lookup_batch` has in flight at once.
pub const BATCH: usize = 32;

/// Connections that the table must hold with next to no loss: at that number it is three quarters full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    connections: usize,
}

impl Capacity {
    #[must_use]
    pub const fn connections(connections: usize) -> Self {
        Self { connections }
    }
}

/// The connection table. The [crate](crate)'s page describes it.
pub struct FlowTable<K: Key = Key4> {
    pub(crate) buckets: Memory<K::Words>,
    pub(crate) counters: TableCounters,
    held: HeldCounts,
    pub(crate) blocks: Blocks,
    pub(crate) seed: HashSeed,
    pub(crate) linked: TargetSet,
    /// Targets that have lost a confirmed entry otherwise than by a report.
    pub(crate) diverged: TargetSet,
    capacity: usize,
}

/// A connection that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    pub target: TargetId,
    pub state: FlowState,
    pub slot: SlotRef,
}

/// Slot and word of a found connection, by which [`FlowTable::touch`] finds it again at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SlotRef {
    pub(crate) bucket: u32,
    pub(crate) slot: u8,
    pub(crate) word: Word,
}

/// Hash of a key whose lookup has begun; its primary bucket is being prefetched. Look there with
/// [`FlowTable::find_primary`], and only if that finds nothing, with [`FlowTable::find_secondary`].
#[derive(Clone, Copy, Default)]
pub struct HashedKey {
    hash: u64,
}

/// Result of a probe for a connection: its entry's word.
#[derive(Clone, Copy)]
pub struct ProbeHit(Word);

impl ProbeHit {
    #[inline(always)]
    #[must_use]
    pub fn target(self) -> TargetId {
        self.0.target()
    }

    /// As [`Hit::is_stale`].
    #[inline(always)]
    #[must_use]
    pub fn is_stale(self, now: Tick) -> bool {
        is_stale(now, self.0.tick())
    }
}

/// Result of an admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    Opened,
    /// It was there already, perhaps inserted a moment ago by another thread; nothing changed.
    Existing(Hit),
    /// Opened in the slot of a less valuable connection in this state.
    OpenedEvicting(FlowState),
    /// Both buckets are full of connections that are worth more.
    Full,
}

/// Result of a target's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    New,
    /// New, in the slot of a less valuable connection in this state.
    NewEvicting(FlowState),
    /// Known, with this target.
    Known,
    /// Known, until now with the target named here.
    Replaced(TargetId),
    /// Both buckets are full of connections that are worth as much.
    Full,
}

/// The two buckets of a connection; never the same one.
#[derive(Clone, Copy)]
pub(crate) struct BucketPair {
    pub(crate) primary: usize,
    pub(crate) secondary: usize,
}

impl BucketPair {
    pub(crate) fn both(self) -> [usize; 2] {
        [self.primary, self.secondary]
    }
}

impl Hit {
    /// Whether a packet that changes nothing else about the connection must refresh the entry's tick by
    /// [`FlowTable::touch`]: once in sixteen ticks ([`REFRESH_INTERVAL`](crate::REFRESH_INTERVAL)).
    #[inline(always)]
    #[must_use]
    pub fn is_stale(&self, now: Tick) -> bool {
        is_stale(now, self.slot.word.tick())
    }

    /// Ticks since the entry was last written.
    #[inline]
    #[must_use]
    pub fn silence(&self, now: Tick) -> u16 {
        age(now, self.slot.word.tick())
    }
}

/// The tick of an entry that a report or another router makes. The SYN of such a half-open connection passed elsewhere:
/// no SYN here is recent, and the next end that its target reports is this connection's.
fn reported(state: FlowState, now: Tick) -> Tick {
    if state == FlowState::HalfOpen { Tick(now.0.wrapping_sub(RECENT.into())) } else { now }
}

impl<K: Key> FlowTable<K> {
    /// Takes the table's memory and touches all of it.
    pub fn new(capacity: Capacity, seed: HashSeed) -> Result<Self, TableError> {
        let Capacity { connections } = capacity;
        /// 2³¹ connections are 46 GB; bucket numbers are 32 bits.
        const LIMIT: usize = 1 << 31;
        if connections == 0 {
            return Err(TableError::Empty);
        }
        if connections > LIMIT {
            return Err(TableError::TooLarge { connections, limit: LIMIT });
        }
        let buckets = Memory::new((connections * 4).div_ceil(SLOTS * 3).max(2))?;
        let blocks = Blocks::of(buckets.len());
        Ok(Self {
            buckets,
            counters: TableCounters::new(),
            held: HeldCounts::new(),
            blocks,
            seed,
            linked: TargetSet::new(),
            diverged: TargetSet::new(),
            capacity: connections,
        })
    }

    /// The connection's target and state, if it is known. Changes nothing.
    #[inline]
    #[must_use]
    pub fn lookup(&self, key: &K) -> Option<Hit> {
        let packed = key.pack();
        self.find(packed, self.bucket_pair(packed))
    }

    /// [`lookup`](Self::lookup) of each of `keys`, with overlapped memory accesses. `hits` must be as long as `keys`.
    pub fn lookup_batch(&self, keys: &[K], hits: &mut [Option<Hit>]) {
        assert_eq!(keys.len(), hits.len(), "one hit for each key");
        for (keys, hits) in keys.chunks(BATCH).zip(hits.chunks_mut(BATCH)) {
            self.lookup_chunk(keys, hits);
        }
    }

    fn lookup_chunk(&self, keys: &[K], hits: &mut [Option<Hit>]) {
        let mut packed = [Packed::default(); BATCH];
        let mut pair = [BucketPair { primary: 0, secondary: 0 }; BATCH];
        for (i, key) in keys.iter().enumerate() {
            packed[i] = key.pack();
            pair[i] = self.bucket_pair(packed[i]);
            self.buckets[pair[i].primary].prefetch();
        }
        let mut missing = 0_u32;
        for (i, hit) in hits.iter_mut().enumerate() {
            *hit = self.find_in(pair[i].primary, packed[i]);
            if hit.is_none() {
                missing |= 1 << i;
                self.buckets[pair[i].secondary].prefetch();
            }
        }
        // Primary before secondary for each key: a connection only ever moves from its primary to its secondary bucket.
        while missing != 0 {
            let i = missing.trailing_zeros() as usize;
            missing &= missing - 1;
            hits[i] = self.find_in(pair[i].secondary, packed[i]);
        }
    }

    /// Begins a lookup, the first of three steps for callers with several in flight; prefetches the primary bucket.
    #[inline(always)]
    #[must_use]
    pub fn prefetch_primary(&self, key: &PackedKey<K>) -> HashedKey {
        let hash = self.seed.hash(key.0);
        self.buckets.at(hash as u32).1.prefetch();
        HashedKey { hash }
    }

    /// Searches the primary bucket, where nearly every connection is.
    #[inline(always)]
    #[must_use]
    pub fn find_primary(&self, key: &PackedKey<K>, hashed: HashedKey) -> Option<Hit> {
        let (number, bucket) = self.buckets.at(hashed.hash as u32);
        hit_in(bucket, number, key.0)
    }

    /// [`find_primary`](Self::find_primary) with a single read, of a connection that is more than half-open: nearly
    /// always enough. `None` is no answer; call [`find_primary`](Self::find_primary) then.
    #[inline(always)]
    #[must_use]
    pub fn probe_primary(&self, key: &PackedKey<K>, hashed: HashedKey) -> Option<ProbeHit> {
        self.buckets.at(hashed.hash as u32).1.probe(key.0).map(ProbeHit)
    }

    /// Prefetches the secondary bucket.
    #[inline]
    pub fn prefetch_secondary(&self, hashed: HashedKey) {
        self.buckets[self.bucket_pair_of(hashed.hash).secondary].prefetch();
    }

    /// Searches the secondary bucket. To be called after [`find_primary`](Self::find_primary), because a connection
    /// only ever moves from its primary to its secondary bucket.
    #[inline]
    #[must_use]
    pub fn find_secondary(&self, key: &PackedKey<K>, hashed: HashedKey) -> Option<Hit> {
        self.find_in(self.bucket_pair_of(hashed.hash).secondary, key.0)
    }

    /// Prefetches the memory that a call about `key` will need: for callers with many calls to make, some calls ahead.
    #[inline]
    pub fn prefetch(&self, key: &K) {
        for bucket in self.bucket_pair(key.pack()).both() {
            self.buckets[bucket].prefetch();
        }
    }

    /// Inserts a new connection. Where there is no free slot, the least valuable of eight entries gives way (ended
    /// before half-open before closing before not reported by a linked target before idle). Never evicts what a target
    /// holds.
    pub fn admit(&self, key: &K, target: TargetId, state: FlowState, now: Tick) -> Admitted {
        let packed = key.pack();
        if !packed.fits() || target.0 >= MAX_TARGETS {
            return Admitted::Full;
        }
        let newcomer =
            Newcomer { packed, pair: self.bucket_pair_prefetched(packed), target, state, source: Source::Traffic };
        loop {
            if let Some(hit) = self.find(packed, newcomer.pair) {
                return Admitted::Existing(hit);
            }
            match self.place(&newcomer, now) {
                Placed::Live(None) => return Admitted::Opened,
                Placed::Live(Some(evicted)) => return Admitted::OpenedEvicting(evicted),
                Placed::Full => return Admitted::Full,
                Placed::Contested => {}
            }
        }
    }

    /// Records that a packet of `hit`'s connection has passed and that the connection is now in `state`. If another
    /// thread has changed the state meanwhile, its change stands. Writes nothing if nothing changes within this tick.
    #[inline]
    pub fn touch(&self, hit: &Hit, state: FlowState, now: Tick) {
        let seen = hit.slot.word;
        if seen.with_state(state).with_tick(now) != seen {
            self.touch_slow((hit.slot.bucket, hit.slot.slot), seen, state, now);
        }
    }

    #[inline(never)]
    fn touch_slow(&self, (bucket, slot): (u32, u8), seen: Word, state: FlowState, now: Tick) {
        let (bucket, slot) = (bucket as usize, usize::from(slot));
        let mut word = seen;
        // A moving entry is about to be elsewhere: the connection's next packet finds it there.
        while let Some(before) = word.state().filter(|_| !word.is_moving()) {
            let after = if seen.state() == Some(before) { state } else { before };
            match self.buckets[bucket].swap(slot, word, word.with_state(after).with_tick(now)) {
                Ok(()) => return self.count_changed(bucket, (word.target(), before), (word.target(), after)),
                Err(current) if current.same_life(seen) => word = current,
                Err(_) => return,
            }
        }
    }

    /// Gives `hit`'s connection another target and state, unless another thread has changed it since it was found. True
    /// if done.
    pub fn redirect(&self, hit: &Hit, target: TargetId, state: FlowState, now: Tick) -> bool {
        let SlotRef { bucket, slot, word } = hit.slot;
        if word.is_moving() || target.0 >= MAX_TARGETS {
            return false;
        }
        let done = word.with_target(target).with_state(state).with_tick(now);
        let swapped = self.buckets[bucket as usize].swap(slot as usize, word, done).is_ok();
        if swapped {
            self.count_changed(bucket as usize, (hit.target, hit.state), (target, state));
            if hit.state.is_held() {
                self.note_diverged(hit.target);
            }
        }
        swapped
    }

    /// Applies a target's report that it holds the connection, `HalfOpen` or `Confirmed`. The report replaces another
    /// target. It does not return a connection with later segments of its client to half-open.
    pub fn confirm(&self, key: &K, target: TargetId, state: FlowState, now: Tick) -> Confirmed {
        let packed = key.pack();
        if !packed.fits() || target.0 >= MAX_TARGETS {
            return Confirmed::Full;
        }
        let newcomer =
            Newcomer { packed, pair: self.bucket_pair_prefetched(packed), target, state, source: Source::Target };
        loop {
            if let Some(hit) = self.find(packed, newcomer.pair) {
                if self.confirm_at(&hit, &newcomer, now) {
                    let known = hit.target == target;
                    return if known { Confirmed::Known } else { Confirmed::Replaced(hit.target) };
                }
                continue;
            }
            match self.place(&newcomer, reported(state, now)) {
                Placed::Live(None) => return Confirmed::New,
                Placed::Live(Some(evicted)) => return Confirmed::NewEvicting(evicted),
                Placed::Full => {
                    self.note_diverged(target);
                    return Confirmed::Full;
                }
                Placed::Contested => {}
            }
        }
    }

    fn confirm_at(&self, hit: &Hit, newcomer: &Newcomer<K::Words>, now: Tick) -> bool {
        let SlotRef { bucket, slot, word } = hit.slot;
        let state = if hit.target == newcomer.target {
            hit.state.after_report(newcomer.state, age(now, word.tick()))
        } else {
            newcomer.state
        };
        // A moving entry keeps its mark: the thread that moves it finds it changed, withdraws the copy and leaves the
        // entry here.
        let done = word.with_target(newcomer.target).with_state(state);
        let done = match (state, hit.state) {
            // A SYN that passed here remains as recent as it is.
            (FlowState::HalfOpen, FlowState::HalfOpen) => done,
            _ => done.with_tick(reported(state, now)),
        };
        if done == word {
            return true;
        }
        let swapped = self.buckets[bucket as usize].swap(slot as usize, word, done).is_ok();
        if swapped {
            self.count_changed(bucket as usize, (hit.target, hit.state), (newcomer.target, state));
            if hit.state.is_held() && hit.target != newcomer.target {
                self.note_diverged(hit.target);
            }
        }
        swapped
    }

    /// Applies a target's report that it no longer holds the connection. Ends only an entry that its reports made
    /// ([`rules`](crate::FlowState)). True if there was one.
    pub fn end(&self, key: &K, target: TargetId, now: Tick) -> bool {
        let packed = key.pack();
        let pair = self.bucket_pair(packed);
        while let Some(hit) = self.find(packed, pair).filter(|hit| hit.target == target) {
            let SlotRef { bucket, slot, word } = hit.slot;
            let state = hit.state.after_end(age(now, word.tick()));
            if state == hit.state {
                return false;
            }
            // As in confirm_at(): a moving entry keeps its mark.
            let done = word.with_state(state).with_tick(now);
            if self.buckets[bucket as usize].swap(slot as usize, word, done).is_ok() {
                self.count_changed(bucket as usize, (target, hit.state), (target, state));
                return true;
            }
        }
        false
    }

    /// [`admit`](Self::admit) of a connection in `state` that the VIPA's previous owner has sent and that no report has
    /// confirmed here. An existing entry stays if a target holds it, or if it is not older than this router's own
    /// ownership; an unconfirmed entry from before that gives way. `since`: when this router's ownership began, if it
    /// has.
    pub fn inherit(&self, key: &K, target: TargetId, state: FlowState, since: Option<Tick>, now: Tick) -> Admitted {
        if state == FlowState::Ended {
            return self.inherit_ended(key, target, now);
        }
        if let Some(hit) = self.lookup(key) {
            let silence = age(now, hit.slot.word.tick());
            let older = since.is_none_or(|since| silence > age(now, since.0 as u16));
            if hit.state == FlowState::Ended || hit.target != target && !hit.state.is_held() && older {
                self.remove(key, Some(hit.target));
            }
        }
        // Its segments passed elsewhere, and before now: what a later predecessor sends wins.
        let last_seen = if state == FlowState::HalfOpen { reported(state, now) } else { Tick(now.0.wrapping_sub(1)) };
        self.admit(key, target, state, last_seen)
    }

    /// An ended entry takes no slot from another, and says nothing about an existing entry.
    fn inherit_ended(&self, key: &K, target: TargetId, now: Tick) -> Admitted {
        let is_empty = |bucket: usize| (0..SLOTS).any(|slot| self.buckets[bucket].word(slot).is_empty());
        match self.lookup(key) {
            Some(hit) => Admitted::Existing(hit),
            None if self.bucket_pair(key.pack()).both().into_iter().any(is_empty) => {
                self.admit(key, target, FlowState::Ended, now)
            }
            None => Admitted::Full,
        }
    }

    /// Records that the table lacks something that this target has reported and does not repeat: its log must be read
    /// again from the start.
    pub fn note_diverged(&self, target: TargetId) {
        if !self.diverged.has(target) {
            self.diverged.set(target, true);
        }
    }

    /// Whether [`note_diverged`](Self::note_diverged) was called for this target since the last
    /// [`forget_diverged`](Self::forget_diverged).
    #[must_use]
    pub fn has_diverged(&self, target: TargetId) -> bool {
        self.diverged.has(target)
    }

    /// Clears the record: this target's log is being read again.
    pub fn forget_diverged(&self, target: TargetId) {
        self.diverged.set(target, false);
    }

    /// Sets whether this target's agent is linked, so that it reports every connection that it holds.
    pub fn set_linked(&self, target: TargetId, linked: bool) {
        if self.linked.has(target) != linked {
            self.linked.set(target, linked);
        }
    }

    /// Whether this target's agent is linked.
    #[inline]
    #[must_use]
    pub fn is_linked(&self, target: TargetId) -> bool {
        self.linked.has(target)
    }

    /// Removes a connection; with a target, only if it is that target's. True if it was there.
    pub fn remove(&self, key: &K, target: Option<TargetId>) -> bool {
        let packed = key.pack();
        let pair = self.bucket_pair(packed);
        let mut removed = false;
        for bucket in pair.both() {
            for slot in 0..SLOTS {
                while let Some(word) = self.buckets[bucket].read(slot, packed) {
                    if target.is_some_and(|target| target != word.target()) {
                        break;
                    }
                    if self.buckets[bucket].swap(slot, word, word.emptied()).is_ok() {
                        removed |= self.count_ended(bucket, word);
                        break;
                    }
                }
            }
            // SeqCst: pairs with the fence in replace_by_moving(); either the mover sees that the original is gone, or
            // we see the copy.
            fence(Ordering::SeqCst);
        }
        removed
    }

    /// Entries in the table, by state.
    #[must_use]
    pub fn count(&self) -> Counts {
        self.counters.sum()
    }

    /// Entries that this target's reports have confirmed and not ended.
    #[must_use]
    pub fn held(&self, target: TargetId) -> u64 {
        self.held.of(target)
    }

    /// Connections that have given way to others, over the life of the table. Each is counted when it is evicted: the
    /// connection that it gave way to may turn out to be elsewhere in the table.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.counters.evictions()
    }

    /// Connections that the table was made for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Entries that the table has slots for: four thirds of the capacity.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.buckets.len() * SLOTS
    }

    /// Memory taken, in bytes: what the entries need, in pages of 4 kB.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buckets.bytes()
    }

    /// Kind of pages of that memory.
    #[must_use]
    pub fn pages(&self) -> Pages {
        self.buckets.pages()
    }

    /// The two buckets of `key`, primary first: the model checker's tests arrange collisions with it.
    #[cfg(loom)]
    #[must_use]
    pub fn buckets_of(&self, key: &K) -> [usize; 2] {
        self.bucket_pair(key.pack()).both()
    }

    #[inline]
    pub(crate) fn bucket_pair(&self, packed: Packed<K::Words>) -> BucketPair {
        self.bucket_pair_of(self.seed.hash(packed))
    }

    /// One half of the hash selects the primary bucket, the other half the secondary bucket of the same block.
    #[inline]
    fn bucket_pair_of(&self, hash: u64) -> BucketPair {
        let primary = self.buckets.at(hash as u32).0;
        BucketPair { primary, secondary: self.blocks.secondary(primary, (hash >> 32) as u32) }
    }

    /// As `bucket_pair`, for calls that will look at both buckets.
    fn bucket_pair_prefetched(&self, packed: Packed<K::Words>) -> BucketPair {
        let pair = self.bucket_pair(packed);
        self.buckets[pair.secondary].prefetch();
        pair
    }

    #[inline]
    fn find(&self, packed: Packed<K::Words>, pair: BucketPair) -> Option<Hit> {
        // In this order: a connection only ever moves from its primary to its secondary bucket, and is in both
        // meanwhile.
        self.find_in(pair.primary, packed).or_else(|| self.find_in(pair.secondary, packed))
    }

    #[inline(always)]
    fn find_in(&self, bucket: usize, packed: Packed<K::Words>) -> Option<Hit> {
        hit_in(&self.buckets[bucket], bucket, packed)
    }

    fn count_changed(&self, bucket: usize, before: (TargetId, FlowState), after: (TargetId, FlowState)) {
        if before != after {
            self.count_added(bucket, after.0, after.1);
            self.count_removed(bucket, before.0, before.1);
        }
    }

    /// Counts an entry that is live from now on.
    pub(crate) fn count_added(&self, bucket: usize, target: TargetId, state: FlowState) {
        self.counters.add(bucket, state);
        self.held.add(target, state);
    }

    fn count_removed(&self, bucket: usize, target: TargetId, state: FlowState) {
        self.counters.remove(bucket, state);
        self.held.remove(target, state);
    }

    /// Counts the end of a life that was last seen as `word`, if it was live; returns whether it was.
    pub(crate) fn count_ended(&self, bucket: usize, word: Word) -> bool {
        let state = word.state();
        if let Some(state) = state {
            self.count_removed(bucket, word.target(), state);
        }
        state.is_some()
    }
}

/// The connection in `bucket`, whose number in the table is `number`.
#[inline(always)]
fn hit_in<W: Words>(bucket: &Bucket<W>, number: usize, packed: Packed<W>) -> Option<Hit> {
    let (slot, word) = bucket.find(packed)?;
    let state = word.state()?;
    Some(Hit { target: word.target(), state, slot: SlotRef { bucket: number as u32, slot: slot as u8, word } })
}

impl std::fmt::Debug for SlotRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.bucket, self.slot)
    }
}

impl<K: Key> std::fmt::Debug for FlowTable<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowTable").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}
