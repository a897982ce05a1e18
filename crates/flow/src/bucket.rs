//! One cache line: four entries, and how to read one while others write.
//!
//! The protocol of a slot, all by compare-and-swap of its word:
//!
//! ```text
//! empty(life n) ──claim──► pending(life n+1) ──key written, duplicates ruled out──► live(life n+1)
//!     ▲                         │ lost to another inserter                            │ touched, re-targeted
//!     └─────────────────────────┴──────────────────◄──────────── removed ─────────────┘
//! ```
//!
//! A live slot may also be claimed directly, by eviction. A reader takes word, key, word again: when both words are of
//! one life and the second is live, the key in between is that life's key.

use crate::{
    atomics::{AtomicU64, Ordering},
    key::Packed,
    word::Word,
};

/// Two under the model checker, whose work grows with every load.
pub(crate) const SLOTS: usize = if cfg!(loom) { 2 } else { 4 };

#[repr(align(64))]
pub(crate) struct Bucket {
    keys: [AtomicU64; SLOTS],
    words: [AtomicU64; SLOTS],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Self { keys: zeros(), words: zeros() }
    }

    /// The live entry of `packed`, as of some moment during the call.
    #[inline]
    pub(crate) fn find(&self, packed: Packed) -> Option<(usize, Word)> {
        for slot in 0..SLOTS {
            // Acquire: pairs with the Release in write_key(). Who sees the key of the connection that took a moved
            // one's slot also sees, in the other bucket, the moved one.
            if self.keys[slot].load(Ordering::Acquire) == packed.key
                && let Some(word) = self.read(slot, packed).filter(|word| word.state().is_some())
            {
                return Some((slot, word));
            }
        }
        None
    }

    /// The slot's word if the slot holds `packed`, live or pending. A pending one's key may be its forerunner's.
    #[inline]
    pub(crate) fn read(&self, slot: usize, packed: Packed) -> Option<Word> {
        loop {
            let word = self.word(slot);
            if word.is_empty() || word.service() != packed.service {
                return None;
            }
            // Acquire: pairs with the Release in write_key(); who sees a later life's key sees its word below.
            if self.keys[slot].load(Ordering::Acquire) != packed.key {
                return None;
            }
            // Relaxed: ordered after the key by that Acquire.
            let again = Word(self.words[slot].load(Ordering::Relaxed));
            if again.same_life(word) {
                return if again.is_empty() { None } else { Some(again) };
            }
        }
    }

    /// Whatever live connection the slot holds.
    pub(crate) fn read_any(&self, slot: usize) -> Option<(Packed, Word)> {
        loop {
            let word = self.word(slot);
            word.state()?;
            // Acquire: as in read().
            let key = self.keys[slot].load(Ordering::Acquire);
            let again = Word(self.words[slot].load(Ordering::Relaxed));
            if again.same_life(word) {
                again.state()?;
                return Some((Packed { key, service: again.service() }, again));
            }
        }
    }

    #[inline]
    pub(crate) fn word(&self, slot: usize) -> Word {
        // Acquire: pairs with the Release half of swap(); who sees a life sees its key.
        Word(self.words[slot].load(Ordering::Acquire))
    }

    /// Replaces the slot's word if it is still `from`; else says what it is.
    pub(crate) fn swap(&self, slot: usize, from: Word, to: Word) -> Result<(), Word> {
        // Release: pairs with the Acquire in word(). Acquire: what the forerunner's end told us stays before us.
        self.words[slot].compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire).map(|_| ()).map_err(Word)
    }

    /// Only for who has claimed the slot.
    pub(crate) fn write_key(&self, slot: usize, packed: Packed) {
        // Release: pairs with the Acquires in find() and read(); who sees the key sees the claim before it.
        self.keys[slot].store(packed.key, Ordering::Release);
    }

    /// Ends the life that `word` belongs to, in whatever state it is by now. `Some`: how it was when we ended it;
    /// `None`: somebody else had.
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

    /// Asks for the line before it is needed.
    #[inline]
    pub(crate) fn prefetch(&self) {
        #[cfg(all(target_arch = "x86_64", not(loom)))]
        // SAFETY: a prefetch reads nothing, so any address will do.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(self).cast());
        }
        #[cfg(all(target_arch = "aarch64", not(loom)))]
        // SAFETY: a prefetch reads nothing, so any address will do.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{}]", in(reg) self, options(nostack, readonly, preserves_flags));
        }
    }
}
