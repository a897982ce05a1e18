//! Every interleaving of a few threads: `RUSTFLAGS="--cfg loom" cargo test --release -p vipa-sync --test loom`.
#![cfg(loom)]

use std::sync::Arc;

use loom::{cell::UnsafeCell, thread};
use vipa_sync::{Flag, Publish, WorkerCounters};

/// A value whose drop writes into it: loom reports a drop that races with a reader's look.
struct Watched(UnsafeCell<u32>);

impl Watched {
    fn new(n: u32) -> Arc<Self> {
        Arc::new(Self(UnsafeCell::new(n)))
    }

    fn look(&self) -> u32 {
        // SAFETY: nobody writes but drop(), which must not be able to run meanwhile; that is what loom checks here.
        self.0.with(|pointer| unsafe { *pointer })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // SAFETY: `&mut self`; loom checks that it is honest.
        self.0.with_mut(|pointer| unsafe { *pointer = u32::MAX });
    }
}

// SAFETY: shared by readers only, until the one drop.
unsafe impl Send for Watched {}
// SAFETY: as above.
unsafe impl Sync for Watched {}

#[test]
fn a_reader_never_looks_at_a_freed_version() {
    loom::model(|| {
        let (publish, mut readers) = Publish::new(Watched::new(1), 1);
        let mut reader = readers.remove(0);
        let looking = thread::spawn(move || {
            let first = reader.snapshot().look();
            reader.quiescent();
            let second = reader.snapshot().look();
            assert!(first <= second && second <= 3);
        });
        publish.store(Watched::new(2));
        publish.store(Watched::new(3));
        publish.reclaim();
        looking.join().unwrap();
        assert_eq!(publish.reclaim(), 0);
    });
}

#[test]
fn two_readers_are_both_waited_for() {
    // Three threads have too many interleavings; those with up to two preemptions are checked.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let (publish, readers) = Publish::new(Watched::new(1), 2);
        let looking: Vec<_> = readers
            .into_iter()
            .map(|mut reader| {
                thread::spawn(move || {
                    assert!(reader.snapshot().look() <= 2);
                    reader.quiescent();
                })
            })
            .collect();
        publish.store(Watched::new(2));
        publish.reclaim();
        for thread in looking {
            thread.join().unwrap();
        }
    });
}

#[test]
fn once_nothing_is_kept_every_reader_sees_the_newest() {
    loom::model(|| {
        let (publish, mut readers) = Publish::new(Watched::new(1), 1);
        let mut reader = readers.remove(0);
        let done = Arc::new(Flag::new());
        let seen = done.clone();
        let looking = thread::spawn(move || {
            reader.quiescent();
            if seen.is_raised() {
                assert_eq!(reader.snapshot().look(), 2);
            }
        });
        publish.store(Watched::new(2));
        if publish.reclaim() == 0 {
            done.raise();
        }
        looking.join().unwrap();
    });
}

#[test]
fn a_counter_read_meanwhile_is_one_that_was_counted() {
    loom::model(|| {
        let counters = Arc::new(WorkerCounters::<1>::new());
        let counting = counters.clone();
        let worker = thread::spawn(move || {
            counting.add(0, 1);
            counting.add(0, 1);
        });
        let first = counters.read(0);
        let second = counters.read(0);
        assert!(first <= second && second <= 2);
        worker.join().unwrap();
        assert_eq!(counters.read(0), 2);
    });
}
