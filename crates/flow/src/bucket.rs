//! A bucket: four entries in one cache line of IPv4 or two of IPv6, and how to read an entry while other threads write.
//!
//! States of a slot; each transition is a compare-and-swap of the slot's word:
//!
//! ```text
//! empty(life n) ──claim──► claimed(n+1) ──key written──► pending(n+1) ──duplicates ruled out──► live(n+1)
//!     ▲                                                      │ lost to another inserter           │ touched,
//!     └──────────────────────────────────────────────────────┴─────────────◄────────── removed ───┘ re-targeted
//! ```
//!
//! A live slot may also be claimed directly: by eviction, or when its entry has moved. A claimed slot belongs to its
//! claimant alone; otherwise a slow claimant's key could be written under another entry's word. A reader loads the
//! word, the key, and the word again: when both words are of one life and have a key, the key between them is that
//! life's.

use std::hint::select_unpredictable;

use crate::{
    atomics::{AtomicU64, Ordering},
    key::{
        Packed,
        sealed::{AtomicWords, Words},
    },
    word::Word,
};

/// Slots of a bucket. Two under the model checker, whose work grows with every load.
pub(crate) const SLOTS: usize = if cfg!(loom) { 2 } else { 4 };

#[repr(align(64))]
pub(crate) struct Bucket<W: Words> {
    keys: [W::AtomicWords; SLOTS],
    words: [AtomicU64; SLOTS],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket<u64>>() == 64 && size_of::<Bucket<[u64; 3]>>() == 128);

impl<W: Words> Bucket<W> {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            keys: std::array::from_fn(|_| W::AtomicWords::zero()),
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// The live entry of `packed`, as of some moment during the call.
    #[inline(always)]
    pub(crate) fn find(&self, packed: Packed<W>) -> Option<(usize, Word)> {
        // The matching slot is unpredictable: all four are compared, so that there is no branch to mispredict.
        let mut equal = 0_u32;
        for slot in 0..SLOTS {
            // Acquire: pairs with the Release in announce(). A thread that sees the key of the connection that took a
            // moved entry's slot also sees the moved entry in the secondary bucket.
            equal |= u32::from(self.keys[slot].load(Ordering::Acquire).same(packed.key)) << slot;
        }
        while equal != 0 {
            let slot = equal.trailing_zeros() as usize;
            equal &= equal - 1;
            if let Some(word) = self.read_still(slot, packed).or_else(|| self.read_live(slot, packed)) {
                return Some((slot, word));
            }
        }
        None
    }

    /// [`find`](Self::find) with a single read, for an established connection. `None` means that there is none, or that
    /// a second read is needed: the slot is being written to, or another slot holds the rest of an earlier life of the
    /// same key, or a key that resembles it.
    #[inline(always)]
    pub(crate) fn probe(&self, packed: Packed<W>) -> Option<Word> {
        // The matching slot is unpredictable: a select instead of a branch.
        let mut slot = 0;
        for (other, key) in self.keys.iter().enumerate().skip(1) {
            // Acquire: as in find().
            slot = select_unpredictable(key.resembles(packed.key, Ordering::Acquire), other, slot);
        }
        let slot = slot % SLOTS;
        let word = self.word(slot);
        // Acquire and Relaxed: as in read().
        let is_same = self.keys[slot].load(Ordering::Acquire).same(packed.key);
        let again = Word(self.words[slot].load(Ordering::Relaxed));
        (is_same && again == word && word.is_under_way(packed.service)).then_some(word)
    }

    /// [`read_live`](Self::read_live) for the usual case that no thread writes to the slot meanwhile.
    #[inline(always)]
    fn read_still(&self, slot: usize, packed: Packed<W>) -> Option<Word> {
        let word = self.word(slot);
        // Acquire and Relaxed: as in read().
        let is_same = self.keys[slot].load(Ordering::Acquire).same(packed.key);
        let again = Word(self.words[slot].load(Ordering::Relaxed));
        (again == word && is_same && word.is_live_of(packed.service)).then_some(word)
    }

    #[cold]
    #[inline(never)]
    fn read_live(&self, slot: usize, packed: Packed<W>) -> Option<Word> {
        self.read(slot, packed).filter(|word| word.state().is_some())
    }

    /// The slot's word if the slot holds `packed`, live or pending.
    #[inline]
    pub(crate) fn read(&self, slot: usize, packed: Packed<W>) -> Option<Word> {
        loop {
            let word = self.word(slot);
            if !word.has_key() || word.service() != packed.service {
                return None;
            }
            // Acquire: pairs with the Release in announce(); a thread that sees a later life's key sees its word below.
            if !self.keys[slot].load(Ordering::Acquire).same(packed.key) {
                return None;
            }
            // Relaxed: ordered after the key by that Acquire.
            let again = Word(self.words[slot].load(Ordering::Relaxed));
            if again.same_life(word) {
                return Some(again).filter(|again| again.has_key());
            }
        }
    }

    /// The live connection that the slot holds, if any.
    pub(crate) fn read_any(&self, slot: usize) -> Option<(Packed<W>, Word)> {
        loop {
            let word = self.word(slot);
            word.state()?;
            // Acquire: as in read().
            let key = self.keys[slot].load(Ordering::Acquire);
            // Acquire: a thread that sees that the entry has moved away also sees it in its secondary bucket.
            let again = self.word(slot);
            if again.same_life(word) {
                again.state()?;
                return Some((Packed { key, service: again.service() }, again));
            }
        }
    }

    #[inline]
    pub(crate) fn word(&self, slot: usize) -> Word {
        // Acquire: pairs with the Release half of swap(); a thread that sees a life sees its key.
        Word(self.words[slot].load(Ordering::Acquire))
    }

    /// Replaces the slot's word if it is still `from`; the error is the word found instead.
    pub(crate) fn swap(&self, slot: usize, from: Word, to: Word) -> Result<(), Word> {
        // Release: pairs with the Acquire in word(). Acquire: what the end of the previous life published is ordered
        // before us.
        self.words[slot].compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire).map(|_| ()).map_err(Word)
    }

    /// Writes the key of a slot that we have claimed as `word` and makes it visible to other inserters; returns the new
    /// word.
    pub(crate) fn announce(&self, slot: usize, word: Word, packed: Packed<W>) -> Word {
        // Release: pairs with the Acquires in find() and read(); a thread that sees the key sees the claim before it.
        self.keys[slot].store(packed.key, Ordering::Release);
        // Release: pairs with the Acquire in word(); a thread that sees that there is a key sees the key. A plain store
        // is enough: no other thread changes a claimed word.
        self.words[slot].store(word.announced().0, Ordering::Release);
        word.announced()
    }

    /// Ends the life that `word` belongs to, whatever its state is by now. `Some`: the word at that moment; `None`:
    /// another thread has ended that life.
    pub(crate) fn end_life(&self, slot: usize, word: Word) -> Option<Word> {
        let mut word = word;
        loop {
            match self.swap(slot, word, word.emptied()) {
                Ok(()) => return Some(word),
                Err(now) if now.same_life(word) && !now.is_empty() => word = now,
                Err(_) => return None,
            }
        }
    }

    /// Clears the moving mark of the life that `word` belongs to, if that life still lasts.
    pub(crate) fn end_move(&self, slot: usize, word: Word) {
        let mut now = self.word(slot);
        while now.same_life(word) && now.is_moving() {
            match self.swap(slot, now, now.settled()) {
                Ok(()) => return,
                Err(changed) => now = changed,
            }
        }
    }

    /// Prefetches the bucket's cache lines.
    #[inline]
    pub(crate) fn prefetch(&self) {
        for line in 0..size_of::<Self>() / LINE {
            prefetch(std::ptr::from_ref(self).cast::<u8>().wrapping_add(line * LINE));
        }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

#[inline(always)]
fn prefetch(line: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    // SAFETY: a prefetch reads nothing, so any address is allowed.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.cast());
    }
    #[cfg(all(target_arch = "aarch64", not(loom)))]
    // SAFETY: a prefetch reads nothing, so any address is allowed.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) line, options(nostack, readonly, preserves_flags));
    }
    #[cfg(any(loom, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = line;
}
