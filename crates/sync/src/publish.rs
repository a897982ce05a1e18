//! One value, replaced whole by a writer, read by workers that never wait.
//!
//! Reclamation by quiescent states: a replaced version is kept until every reader has said, after the replacement,
//! that it holds no reference into any version.
//!
//! ```text
//! writer   store(B): pointer := B, version := 2, keep A until all have seen 2 ........ reclaim(): A freed
//! reader 0      snapshot() = A ── quiescent(): seen 2 ── snapshot() = B ─────────────────────────────────►
//! reader 1           snapshot() = A ─────────────────────── quiescent(): seen 2 ── snapshot() = B ───────►
//! ```
//!
//! The borrow checker does the readers' part: `snapshot` and `quiescent` both take `&mut self`, so no reference into a
//! version can outlive the moment at which its reader says that it has none.

use std::sync::{Arc as StdArc, PoisonError};

use crossbeam::utils::CachePadded;

use crate::atomics::{Arc, AtomicPtr, AtomicU64, Mutex, Ordering};

/// The writer's end. May be shared: writers take turns at a lock that no reader ever touches.
pub struct Publish<T> {
    shared: Arc<Shared<T>>,
}

/// One reader's end: exactly one thread's.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    index: usize,
}

struct Shared<T> {
    /// Points into `retained.current`.
    pointer: CachePadded<AtomicPtr<T>>,
    /// Of the value `pointer` shows; 1 at first.
    version: CachePadded<AtomicU64>,
    /// Per reader, the version that was current when it last held nothing.
    seen: Box<[CachePadded<AtomicU64>]>,
    retained: Mutex<Retained<T>>,
}

/// How far writer and readers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub newest: u64,
    pub seen: u64,
}

/// What keeps alive whatever a reader may be looking at.
struct Retained<T> {
    current: StdArc<T>,
    version: u64,
    /// Replaced values, oldest first, each with the version that replaced it.
    replaced: Vec<(u64, StdArc<T>)>,
}

/// What a reader that is gone has seen: everything that will ever be.
const GONE: u64 = u64::MAX;

impl<T> Publish<T> {
    /// Publishes `initial` to `readers` readers, which are handed out here and nowhere else.
    pub fn new(initial: StdArc<T>, readers: usize) -> (Self, Vec<Reader<T>>) {
        let shared = Arc::new(Shared {
            pointer: CachePadded::new(AtomicPtr::new(StdArc::as_ptr(&initial).cast_mut())),
            version: CachePadded::new(AtomicU64::new(1)),
            seen: (0..readers).map(|_| CachePadded::new(AtomicU64::new(1))).collect(),
            retained: Mutex::new(Retained { current: initial, version: 1, replaced: Vec::new() }),
        });
        let ends = (0..readers).map(|index| Reader { shared: shared.clone(), index }).collect();
        (Self { shared }, ends)
    }

    /// Replaces the value; every `snapshot` from now on shows `next`. Frees what it can of what was there before.
    pub fn store(&self, next: StdArc<T>) {
        let freed;
        {
            let mut retained = self.shared.lock();
            let version = retained.version + 1;
            // Release: pairs with the Acquire in snapshot(); who sees the pointer sees what it points to.
            self.shared.pointer.store(StdArc::as_ptr(&next).cast_mut(), Ordering::Release);
            // Release: pairs with the Acquire in quiescent(); who sees the version can no longer see an older pointer.
            self.shared.version.store(version, Ordering::Release);
            let before = std::mem::replace(&mut retained.current, next);
            retained.version = version;
            retained.replaced.push((version, before));
            freed = self.shared.take_unreachable(&mut retained);
        }
        drop(freed);
    }

    /// Frees every replaced version that no reader can hold any more; says how many are still kept. Call it now and
    /// then: nothing else frees the last replaced version. Zero also means that every reader has moved on to the
    /// newest value.
    pub fn reclaim(&self) -> usize {
        let (freed, left) = {
            let mut retained = self.shared.lock();
            let freed = self.shared.take_unreachable(&mut retained);
            (freed, retained.replaced.len())
        };
        drop(freed);
        left
    }

    /// How often a value has been published, the first one included, and the version that every reader has moved on to: none
    /// holds a reference into an older one.
    #[must_use]
    pub fn versions(&self) -> Versions {
        let newest = self.shared.lock().version;
        Versions { newest, seen: self.shared.oldest_seen().min(newest) }
    }

    /// The newest value, for the writer's side.
    #[must_use]
    pub fn current(&self) -> StdArc<T> {
        self.shared.lock().current.clone()
    }
}

impl<T> Reader<T> {
    /// The newest value. Wait-free: one load.
    #[inline]
    pub fn snapshot(&mut self) -> &T {
        // Acquire: pairs with the Release in store().
        let pointer = self.shared.pointer.load(Ordering::Acquire);
        // SAFETY: `pointer` comes from an Arc that `retained` holds until this reader's `seen` reaches the version that
        // replaced it; that needs quiescent() or drop, which the returned borrow of `self` excludes.
        unsafe { &*pointer }
    }

    /// Says that this reader holds nothing, so that older versions may be freed. A reader that does not say so now
    /// and then keeps every version alive.
    #[inline]
    pub fn quiescent(&mut self) {
        // Acquire: pairs with the Release in store(); the next snapshot() is of this version or a newer one.
        let version = self.shared.version.load(Ordering::Acquire);
        // Release: pairs with the Acquire in take_unreachable(); our last look at an older version comes before it.
        self.shared.seen[self.index].store(version, Ordering::Release);
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        // Release: as in quiescent().
        self.shared.seen[self.index].store(GONE, Ordering::Release);
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> impl std::ops::DerefMut<Target = Retained<T>> + '_ {
        // A panic of a writer leaves `retained` consistent: it is changed last and by moves only.
        self.retained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn oldest_seen(&self) -> u64 {
        // Acquire: pairs with the Release in quiescent().
        self.seen.iter().map(|seen| seen.load(Ordering::Acquire)).min().unwrap_or(GONE)
    }

    /// Takes out what no reader can hold. Dropped by the caller outside the lock: a large value takes its time.
    fn take_unreachable(&self, retained: &mut Retained<T>) -> Vec<StdArc<T>> {
        let oldest = self.oldest_seen();
        let count = retained.replaced.iter().take_while(|(replaced_by, _)| *replaced_by <= oldest).count();
        retained.replaced.drain(..count).map(|(_, value)| value).collect()
    }
}

// SAFETY: threads share `&T` through the pointer and may drop the last Arc<T> on any of them, which is what
// Arc<T>: Send + Sync asks of T; all else in Shared is atomics, a mutex and counts.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

#[cfg(all(test, not(loom)))]
mod tests;
