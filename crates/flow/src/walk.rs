//! Going through the table bucket by bucket, while others use it: ageing and export.

use std::ops::Range;

use vipa_model::{TargetId, VipaId};

use crate::{
    AgeLimits, Counts, FlowState, FlowTable, Key, Tick,
    atomics::Ordering,
    bucket::SLOTS,
    tick::{age, limit_in_ticks, limit_where_news},
};

/// Where one walker's ageing stands, and which part of the table is its own.
#[derive(Clone, Debug)]
pub struct Cursor {
    part: usize,
    parts: usize,
    /// Counted from the part's first bucket.
    next: usize,
}

impl Cursor {
    /// The `part`-th of `parts` equal parts, counted from zero: one for each worker.
    #[must_use]
    pub fn new(part: usize, parts: usize) -> Self {
        assert!(part < parts, "part {part} of {parts}");
        Self { part, parts, next: 0 }
    }

    /// Goes on by `buckets` of a table that has `all`: which they are, and whether they end the part.
    fn advance(&mut self, buckets: usize, all: usize) -> (Range<usize>, bool) {
        let start = all * self.part / self.parts;
        let part = all * (self.part + 1) / self.parts - start;
        let (from, to) = (self.next, part.min(self.next + buckets));
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

/// What a stretch of ageing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aged {
    pub removed: Counts,
    /// The walker has come to the end of its part and will begin again.
    pub finished: bool,
}

/// How often export goes through the table again because connections moved meanwhile.
const ROUNDS: usize = 4;

impl<K: Key> FlowTable<K> {
    /// Removes what has been silent for too long from the next `buckets` buckets, of four entries each.
    pub fn age(&self, cursor: &mut Cursor, buckets: usize, now: Tick, limits: &AgeLimits) -> Aged {
        self.age_without(cursor, buckets, now, limits, |_| false)
    }

    /// The same; a connection that a target has confirmed who `is_away` counts as one that is merely open: nobody will say that
    /// it has ended.
    pub fn age_without(
        &self,
        cursor: &mut Cursor,
        buckets: usize,
        now: Tick,
        limits: &AgeLimits,
        is_away: impl Fn(TargetId) -> bool,
    ) -> Aged {
        let AgeLimits { half_open, open, confirmed, closing, udp } = *limits;
        let limits = [
            limit_in_ticks(half_open),
            limit_where_news(open),
            limit_where_news(confirmed),
            limit_where_news(closing),
            limit_in_ticks(udp),
        ];
        let mut removed = [0; FlowState::ALL.len()];
        let (stretch, finished) = cursor.advance(buckets, self.buckets.len());
        for bucket in stretch {
            self.age_bucket(bucket, now, &limits, &is_away, &mut removed);
        }
        let [half_open, open, confirmed, closing, udp] = removed;
        Aged { removed: Counts { half_open, open, confirmed, closing, udp }, finished }
    }

    fn age_bucket(
        &self,
        bucket: usize,
        now: Tick,
        limits: &[Option<u16>; 5],
        is_away: &impl Fn(TargetId) -> bool,
        removed: &mut [u64; 5],
    ) {
        for slot in 0..SLOTS {
            let word = self.buckets[bucket].word(slot);
            let Some(state) = word.state().filter(|_| !word.is_moving()) else { continue };
            let silent = age(now, word.tick());
            let exceeds = |state: FlowState| limits[state.index()].is_some_and(|limit| silent > limit);
            let unclaimed = || state == FlowState::Confirmed && exceeds(FlowState::Open) && is_away(word.target());
            let too_old = exceeds(state) || unclaimed();
            // Touched in this very moment: then it is not silent.
            if too_old && self.buckets[bucket].swap(slot, word, word.emptied()).is_ok() {
                self.ended(bucket, word);
                removed[state.index()] += 1;
            }
        }
    }

    /// Names what is in the next `buckets` buckets, of four entries each; whether that was the end, and the walker will
    /// begin again. What moves meanwhile from ahead of the walker to behind it is not named.
    pub fn walk(&self, cursor: &mut Cursor, buckets: usize, name: &mut dyn FnMut(K, TargetId, FlowState)) -> bool {
        let (stretch, finished) = cursor.advance(buckets, self.buckets.len());
        stretch.for_each(|bucket| self.name_all(bucket, &|_| true, name));
        finished
    }

    fn name_all(&self, bucket: usize, wanted: &dyn Fn(VipaId) -> bool, name: &mut dyn FnMut(K, TargetId, FlowState)) {
        for slot in 0..SLOTS {
            if let Some((packed, word)) = self.buckets[bucket].read_any(slot)
                && let Some(state) = word.state()
                && wanted(packed.vipa())
            {
                name(K::unpack(packed), word.target(), state);
            }
        }
    }

    /// Names every connection to `vipa` that is in the table during the whole call, and perhaps others. One that moves
    /// or changes meanwhile may be named more than once, its newest state last.
    pub fn export(&self, vipa: VipaId, name: &mut dyn FnMut(K, TargetId, FlowState)) {
        self.export_where(&|of| of == vipa, name);
    }

    /// The same for each VIPA that is wanted, in one walk.
    pub fn export_where(&self, wanted: &dyn Fn(VipaId) -> bool, name: &mut dyn FnMut(K, TargetId, FlowState)) {
        for _ in 0..ROUNDS {
            // Acquire: pairs with the Release where a move is counted.
            let moves = self.moves.load(Ordering::Acquire);
            (0..self.buckets.len()).for_each(|bucket| self.name_all(bucket, wanted, name));
            if self.moves.load(Ordering::Acquire) == moves {
                return;
            }
        }
    }
}
