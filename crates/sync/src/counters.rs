//! Numbers that one side counts and another reads. They carry nothing but themselves: all orderings are Relaxed, and a
//! reader may see two of them at slightly different moments.

use crossbeam::utils::CachePadded;

use crate::atomics::{AtomicU64, Ordering};

/// `N` counters of one worker, on cache lines that no other worker writes.
///
/// Only the owning worker may call [`add`](Self::add), which spares the bus-locked instruction: of two writers' counts
/// at the same moment, one would be lost.
pub struct WorkerCounters<const N: usize> {
    cells: CachePadded<[AtomicU64; N]>,
}

impl<const N: usize> WorkerCounters<N> {
    #[must_use]
    pub fn new() -> Self {
        Self { cells: CachePadded::new(std::array::from_fn(|_| AtomicU64::new(0))) }
    }

    /// Adds `n` to counter `i`. Owner only.
    #[inline]
    pub fn add(&self, i: usize, n: u64) {
        let cell = &self.cells[i];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Makes counter `i` be `n`: for what can fall. Owner only.
    #[inline]
    pub fn set(&self, i: usize, n: u64) {
        self.cells[i].store(n, Ordering::Relaxed);
    }

    /// Counter `i`, from any thread.
    #[inline]
    #[must_use]
    pub fn read(&self, i: usize) -> u64 {
        self.cells[i].load(Ordering::Relaxed)
    }
}

impl<const N: usize> Default for WorkerCounters<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// As [`WorkerCounters`], as many as are asked for: for counts that are rare and many.
pub struct WorkerCounterList {
    cells: CachePadded<Box<[AtomicU64]>>,
}

impl WorkerCounterList {
    #[must_use]
    pub fn new(length: usize) -> Self {
        Self { cells: CachePadded::new((0..length).map(|_| AtomicU64::new(0)).collect()) }
    }

    /// Adds `n` to counter `i`; one that there is not is not counted. Owner only.
    #[inline]
    pub fn add(&self, i: usize, n: u64) {
        if let Some(cell) = self.cells.get(i) {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    /// Counter `i`, from any thread; 0 when there is none.
    #[must_use]
    pub fn read(&self, i: usize) -> u64 {
        self.cells.get(i).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}

/// A count that several threads add to.
#[derive(Debug)]
pub struct Counter(CachePadded<AtomicU64>);

impl Counter {
    #[must_use]
    pub fn new() -> Self {
        Self(CachePadded::new(AtomicU64::new(0)))
    }

    #[inline]
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds one, and says what the count was: no two threads are told the same.
    #[inline]
    #[must_use]
    pub fn take(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    #[inline]
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

/// A number that rises and falls; the last one set is what is read.
pub struct Gauge(CachePadded<AtomicU64>);

impl Gauge {
    #[must_use]
    pub fn new(n: u64) -> Self {
        Self(CachePadded::new(AtomicU64::new(n)))
    }

    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    #[inline]
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Gauge {
    fn default() -> Self {
        Self::new(0)
    }
}

/// How often a worker has gone round its loop: who sees it stand still knows that the worker is stuck.
pub struct Heartbeat(CachePadded<AtomicU64>);

impl Heartbeat {
    #[must_use]
    pub fn new() -> Self {
        Self(CachePadded::new(AtomicU64::new(0)))
    }

    /// One more turn. The owning worker only, as with [`WorkerCounters`].
    #[inline]
    pub fn beat(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    #[inline]
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_worker_counts_each_of_its_counters_apart() {
        let counters = WorkerCounters::<3>::new();
        counters.add(0, 2);
        counters.add(0, 3);
        counters.add(2, 1);
        counters.set(1, 9);
        counters.set(1, 4);
        assert_eq!([0, 1, 2].map(|i| counters.read(i)), [5, 4, 1]);
    }

    #[test]
    fn a_list_counts_each_and_nothing_beyond_its_end() {
        let counters = WorkerCounterList::new(2);
        for (i, n) in [(0, 2), (1, 5), (0, 1), (2, 9)] {
            counters.add(i, n);
        }
        assert_eq!([0, 1, 2].map(|i| counters.read(i)), [3, 5, 0]);
    }

    #[test]
    fn counters_of_two_workers_share_no_cache_line() {
        let counters: [WorkerCounters<1>; 2] = Default::default();
        let gap = (&raw const counters[1]).addr() - (&raw const counters[0]).addr();
        assert!(gap >= 64, "{gap} bytes apart");
    }

    #[test]
    fn no_count_is_lost_when_several_threads_add() {
        let counter = Counter::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| counter.add(1)));
            }
        });
        assert_eq!(counter.read(), 40_000);
    }

    #[test]
    fn a_gauge_rises_and_falls_and_a_heartbeat_only_rises() {
        let (gauge, heart) = (Gauge::default(), Heartbeat::default());
        gauge.set(7);
        gauge.set(3);
        heart.beat();
        heart.beat();
        assert_eq!((gauge.read(), heart.turns()), (3, 2));
    }
}
