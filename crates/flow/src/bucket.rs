//! One cache line of IPv4, two of IPv6: four entries, and how to read one while others write.
//!
//! The protocol of a slot, all by compare-and-swap of its word:
//!
//! ```text
//! empty(life n) ──claim──► claimed(n+1) ──key written──► pending(n+1) ──duplicates ruled out──► live(n+1)
//!     ▲                                                      │ lost to another inserter           │ touched,
//!     └──────────────────────────────────────────────────────┴─────────────◄────────── removed ───┘ re-targeted
//! ```
//!
//! A live slot may also be claimed directly, by eviction or when its entry has moved. A claimed slot is its claimant's
//! alone, or a slow claimant's key would be written under somebody else's word. A reader takes word, key, word again:
//! when both words are of one life and have a key, it is the key in between.

use std::hint::select_unpredictable;

use crate::{
    atomics::{AtomicU64, Ordering},
    key::{
        Packed,
        sealed::{AtomicWords, Words},
    },
    word::Word,
};

/// Two under the model checker, whose work grows with every load.
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
        // Which of the four is a coin thrown anew for each connection: compare all, so that no branch guesses it.
        let mut equal = 0_u32;
        for slot in 0..SLOTS {
            // Acquire: pairs with the Release in announce(). Who sees the key of the connection that took a moved
            // one's slot also sees, in the secondary bucket, the moved one.
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

    /// [`find`](Self::find) in one look, for a connection that is under way. None: there is none, or it takes a second look: the
    /// slot is being written to, or another holds what is left of an earlier life of the same key, or one that resembles it.
    #[inline(always)]
    pub(crate) fn probe(&self, packed: Packed<W>) -> Option<Word> {
        // Which slot has this key, no branch can guess.
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

    /// [`read_live`](Self::read_live) where nobody writes meanwhile, as nearly always.
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
            // Acquire: pairs with the Release in announce(); who sees a later life's key sees its word below.
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

    /// Whatever live connection the slot holds.
    pub(crate) fn read_any(&self, slot: usize) -> Option<(Packed<W>, Word)> {
        loop {
            let word = self.word(slot);
            word.state()?;
            // Acquire: as in read().
            let key = self.keys[slot].load(Ordering::Acquire);
            // Acquire: who sees that the entry has moved away also sees it in its secondary bucket.
            let again = self.word(slot);
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

    /// Writes the key of a slot we have claimed as `word`, and shows it to other inserters; returns the word after.
    pub(crate) fn announce(&self, slot: usize, word: Word, packed: Packed<W>) -> Word {
        // Release: pairs with the Acquires in find() and read(); who sees the key sees the claim before it.
        self.keys[slot].store(packed.key, Ordering::Release);
        // Release: pairs with the Acquire in word(); who sees that there is a key sees the key. A store will do: nobody
        // else changes a claimed word.
        self.words[slot].store(word.announced().0, Ordering::Release);
        word.announced()
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

    /// Takes the mark of moving from the life that `word` belongs to, if it goes on.
    pub(crate) fn end_move(&self, slot: usize, word: Word) {
        let mut now = self.word(slot);
        while now.same_life(word) && now.is_moving() {
            match self.swap(slot, now, now.settled()) {
                Ok(()) => return,
                Err(changed) => now = changed,
            }
        }
    }

    /// Asks for its lines before they are needed.
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
    // SAFETY: a prefetch reads nothing, so any address will do.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.cast());
    }
    #[cfg(all(target_arch = "aarch64", not(loom)))]
    // SAFETY: a prefetch reads nothing, so any address will do.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) line, options(nostack, readonly, preserves_flags));
    }
    #[cfg(any(loom, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = line;
}
