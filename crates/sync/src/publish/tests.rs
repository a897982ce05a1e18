use std::{
    sync::{Arc, Weak},
    thread,
};

use super::*;

#[test]
fn a_reader_sees_what_was_stored_last() {
    let (publish, mut readers) = Publish::new(Arc::new(1), 1);
    assert_eq!(*readers[0].snapshot(), 1);
    publish.store(Arc::new(2));
    publish.store(Arc::new(3));
    assert_eq!(*readers[0].snapshot(), 3);
    assert_eq!(*publish.current(), 3);
}

#[test]
fn a_replaced_version_lives_until_every_reader_has_been_quiescent() {
    let first = Arc::new(1);
    let watched: Weak<i32> = Arc::downgrade(&first);
    let (publish, mut readers) = Publish::new(first, 2);
    publish.store(Arc::new(2));
    assert_eq!(publish.reclaim(), 1);
    readers[0].quiescent();
    assert_eq!(publish.reclaim(), 1);
    assert!(watched.upgrade().is_some());
    readers[1].quiescent();
    assert_eq!(publish.reclaim(), 0);
    assert!(watched.upgrade().is_none());
}

#[test]
fn a_reader_that_is_gone_keeps_nothing_alive() {
    let (publish, mut readers) = Publish::new(Arc::new(1), 2);
    publish.store(Arc::new(2));
    readers.remove(0);
    readers[0].quiescent();
    assert_eq!(publish.reclaim(), 0);
}

#[test]
fn without_readers_a_replaced_version_is_freed_at_once() {
    let first = Arc::new(1);
    let watched = Arc::downgrade(&first);
    let (publish, _) = Publish::new(first, 0);
    publish.store(Arc::new(2));
    assert!(watched.upgrade().is_none());
}

#[test]
fn a_reader_outlives_its_writer() {
    let (publish, mut readers) = Publish::new(Arc::new(String::from("old")), 1);
    publish.store(Arc::new(String::from("new")));
    drop(publish);
    assert_eq!(readers[0].snapshot(), "new");
}

#[test]
fn readers_at_full_speed_never_see_a_torn_or_freed_version() {
    const VERSIONS: u64 = 20_000;
    let version = |n: u64| Arc::new((n, vec![n; 16]));
    let (publish, readers) = Publish::new(version(0), 3);
    thread::scope(|scope| {
        for mut reader in readers {
            scope.spawn(move || {
                let mut last = 0;
                while last < VERSIONS {
                    let (n, copies) = reader.snapshot();
                    assert!(*n >= last && copies.iter().all(|copy| copy == n));
                    last = *n;
                    reader.quiescent();
                }
            });
        }
        for n in 1..=VERSIONS {
            publish.store(version(n));
        }
    });
    assert_eq!(publish.reclaim(), 0);
}
