//! Walks through the table while others use it: ageing bucket by bucket, export block by block.

use std::ops::Range;

use vipa_model::{TargetId, VipaId};

use crate::{
    AgeLimits, Counts, FlowState, FlowTable, Key, Tick,
    blocks::BLOCK,
    bucket::SLOTS,
    key::{Packed, sealed::Words},
    tick::{age, limit_in_ticks, limit_with_refresh},
    word::Word,
};

/// Position of one walker, and the part of the table that it walks.
#[derive(Clone, Debug)]
pub struct Cursor {
    part: usize,
    parts: usize,
    /// Counted from the part's first bucket; for a walk, from its first block.
    next: usize,
}

impl Cursor {
    /// For part number `part` of `parts` equal parts, counted from zero: one for each worker.
    #[must_use]
    pub fn new(part: usize, parts: usize) -> Self {
        assert!(part < parts, "part {part} of {parts}");
        Self { part, parts, next: 0 }
    }

    /// Advances by `count` buckets or blocks of a table that has `all`: which they are, and whether they end the part.
    fn advance(&mut self, count: usize, all: usize) -> (Range<usize>, bool) {
        let start = all * self.part / self.parts;
        let part = all * (self.part + 1) / self.parts - start;
        let (from, to) = (self.next, part.min(self.next + count));
        let finished = to == part;
        self.next = if finished { 0 } else { to };
        (start + from..start + to, finished)
    }
}

impl Default for Cursor {
    fn default() -> Self {
        Self::new(0, 1)
    }
}

/// Result of one stretch of ageing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aged {
    pub removed: Counts,
    /// The walker has reached the end of its part and will begin again.
    pub finished: bool,
}

/// [`AgeLimits`] in ticks. `None`: for ever.
struct Limits {
    by_state: [Option<u16>; FlowState::ALL.len()],
    unreported: Option<u16>,
}

impl Limits {
    fn new(limits: &AgeLimits) -> Self {
        let AgeLimits { half_open, open, confirmed, closing, udp, ended, unreported } = *limits;
        let by_state = FlowState::ALL.map(|state| match state {
            FlowState::Ended => limit_in_ticks(ended),
            FlowState::HalfOpen => limit_in_ticks(half_open),
            FlowState::Open => limit_with_refresh(open),
            FlowState::Reopened | FlowState::Confirmed => limit_with_refresh(confirmed),
            FlowState::Closing => limit_with_refresh(closing),
            FlowState::Udp => limit_in_ticks(udp),
        });
        Self { by_state, unreported: limit_with_refresh(unreported) }
    }
}

impl<K: Key> FlowTable<K> {
    /// Removes entries that have been silent for too long from the next `buckets` buckets, of four entries each.
    pub fn age(&self, cursor: &mut Cursor, buckets: usize, now: Tick, limits: &AgeLimits) -> Aged {
        self.age_without(cursor, buckets, now, limits, |_| false)
    }

    /// [`age`](Self::age) where a confirmed connection of a target that `is_away` has the limit of an open one, because
    /// nobody will report its end.
    pub fn age_without(
        &self,
        cursor: &mut Cursor,
        buckets: usize,
        now: Tick,
        limits: &AgeLimits,
        is_away: impl Fn(TargetId) -> bool,
    ) -> Aged {
        let limits = Limits::new(limits);
        let mut removed = [0; FlowState::ALL.len()];
        let (stretch, finished) = cursor.advance(buckets, self.buckets.len());
        for bucket in stretch {
            self.age_bucket(bucket, now, &limits, &is_away, &mut removed);
        }
        Aged { removed: Counts::of(removed), finished }
    }

    fn age_bucket(
        &self,
        bucket: usize,
        now: Tick,
        limits: &Limits,
        is_away: &impl Fn(TargetId) -> bool,
        removed: &mut [u64; FlowState::ALL.len()],
    ) {
        for slot in 0..SLOTS {
            let word = self.buckets[bucket].word(slot);
            let Some(state) = word.state().filter(|_| !word.is_moving()) else { continue };
            let silent = age(now, word.tick());
            let exceeds = |limit: Option<u16>| limit.is_some_and(|limit| silent > limit);
            let too_old = exceeds(limits.by_state[state.index()])
                || match state {
                    FlowState::Confirmed | FlowState::Reopened => {
                        exceeds(limits.by_state[FlowState::Open.index()]) && is_away(word.target())
                    }
                    FlowState::HalfOpen | FlowState::Open | FlowState::Closing => {
                        exceeds(limits.unreported) && self.is_linked(word.target())
                    }
                    FlowState::Ended | FlowState::Udp => false,
                };
            // The swap fails if the entry was touched in this very moment: then it is not silent.
            if too_old && self.buckets[bucket].swap(slot, word, word.emptied()).is_ok() {
                self.count_ended(bucket, word);
                removed[state.index()] += 1;
                if state.is_held() {
                    self.note_diverged(word.target());
                }
            }
        }
    }

    /// Names the connections of the next blocks, of `buckets` buckets altogether or a little more. True at the end of
    /// the table, after which the walk begins again. A round of calls names the same connections as one
    /// [`export`](Self::export).
    ///
    /// A cursor is for one table and serves either walks or ageing.
    pub fn walk(&self, cursor: &mut Cursor, buckets: usize, name: &mut dyn FnMut(K, TargetId, FlowState)) -> bool {
        let (stretch, finished) = cursor.advance(buckets.div_ceil(BLOCK).max(1), self.blocks.count());
        stretch.for_each(|block| self.name_block(block, &|_| true, name));
        finished
    }

    /// Names every connection to `vipa` that is in the table during the whole call exactly once, and any other at most
    /// once, whatever moves meanwhile. Reads each entry of the table twice and never begins again.
    pub fn export(&self, vipa: VipaId, name: &mut dyn FnMut(K, TargetId, FlowState)) {
        self.export_where(&|of| of == vipa, name);
    }

    /// [`export`](Self::export) of each VIPA for which `wanted` is true, in one walk.
    pub fn export_where(&self, wanted: &dyn Fn(VipaId) -> bool, name: &mut dyn FnMut(K, TargetId, FlowState)) {
        (0..self.blocks.count()).for_each(|block| self.name_block(block, wanted, name));
    }

    /// Names the connections of one block: first those in their primary buckets, then those in their secondary buckets
    /// that the first pass has not named.
    ///
    /// An entry moves at most once, from its primary to its secondary bucket, and both are in this block. So an entry
    /// that stays is either in its primary bucket when the first pass reads it, which names it; or it has moved before,
    /// and the second pass finds it in its secondary bucket. The second pass skips what the first pass has named,
    /// because such an entry has moved in between.
    fn name_block(&self, block: usize, wanted: &dyn Fn(VipaId) -> bool, name: &mut dyn FnMut(K, TargetId, FlowState)) {
        let range = self.blocks.range(block);
        let start = range.start;
        let mut named_in_primary = Vec::with_capacity(range.len());
        for bucket in range.clone() {
            let mut named = Named::default();
            for (packed, word, state) in self.live_in(bucket, wanted) {
                if self.bucket_pair(packed).primary == bucket && named.add(packed) {
                    name(K::unpack(packed), word.target(), state);
                }
            }
            named_in_primary.push(named);
        }
        for bucket in range {
            let mut named = Named::default();
            for (packed, word, state) in self.live_in(bucket, wanted) {
                let primary = self.bucket_pair(packed).primary;
                if primary != bucket && !named_in_primary[primary - start].has(packed) && named.add(packed) {
                    name(K::unpack(packed), word.target(), state);
                }
            }
        }
    }

    /// The wanted live entries of a bucket, each as of the moment at which it is read.
    fn live_in(
        &self,
        bucket: usize,
        wanted: &dyn Fn(VipaId) -> bool,
    ) -> impl Iterator<Item = (Packed<K::Words>, Word, FlowState)> {
        (0..SLOTS).filter_map(move |slot| {
            let (packed, word) = self.buckets[bucket].read_any(slot)?;
            let state = word.state().filter(|_| wanted(packed.vipa()))?;
            Some((packed, word, state))
        })
    }
}

/// The connections of one bucket that a pass has named.
struct Named<W>([Option<Packed<W>>; SLOTS]);

impl<W: Words> Default for Named<W> {
    fn default() -> Self {
        Self([None; SLOTS])
    }
}

impl<W: Words> Named<W> {
    fn has(&self, packed: Packed<W>) -> bool {
        self.0.iter().flatten().any(|named| *named == packed)
    }

    /// True if it was not there yet: a connection that goes and comes again within a pass is named once.
    fn add(&mut self, packed: Packed<W>) -> bool {
        let is_new = !self.has(packed);
        if is_new && let Some(free) = self.0.iter_mut().find(|named| named.is_none()) {
            *free = Some(packed);
        }
        is_new
    }
}
