//! Several threads at full speed on a table that is nearly full, so that entries are removed, moved and replaced all
//! the time while others read them.
#![cfg(not(loom))]

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use vipa_flow::{Admitted, AgeLimits, Capacity, Cursor, FlowState, FlowTable, HashSeed, Key4, Tick};
use vipa_model::{Protocol, TargetId, VipaId};

const STABLE: u32 = 2_000;
const WRITERS: u32 = 3;
const CHURN: u32 = 700;
const ROUNDS: u32 = 60;

fn key(client: u32) -> Key4 {
    Key4 { client, client_port: 1_024, vipa_port: 443, vipa: VipaId(7), protocol: Protocol::Tcp }
}

/// The one right target of a connection, for ever: any other answer is wrong.
fn target_of(client: u32) -> TargetId {
    TargetId((client.wrapping_mul(0x9e37_79b9) >> 18) as u16)
}

#[test]
fn what_stays_is_always_found_and_nobody_ever_gets_a_wrong_target() {
    let table = &FlowTable::new(Capacity::connections(4_000), HashSeed::random()).unwrap();
    let done = &AtomicBool::new(false);
    let stable: Vec<u32> = (0..STABLE)
        .filter(|client| {
            let admitted = table.admit(&key(*client), target_of(*client), FlowState::Confirmed, Tick(0));
            admitted == Admitted::Opened
        })
        .collect();
    assert_eq!(stable.len() as u32, STABLE);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        look_at_all(table, &stable);
                    }
                })
            })
            .collect();
        let ageing = scope.spawn(|| {
            let mut cursor = Cursor::default();
            while !done.load(Ordering::Relaxed) {
                table.age(&mut cursor, 64, Tick(100), &AgeLimits::default());
            }
        });
        let walkers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        walk_through_all(table);
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || churn(table, writer))).collect();
        // All writers finish before the result is checked: a failed test must not hang.
        let written: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(written.iter().all(Result::is_ok), "a writer failed");
        for reader in readers.into_iter().chain(walkers) {
            reader.join().unwrap();
        }
        ageing.join().unwrap();
    });
    let left = table.count();
    assert_eq!((left.confirmed, left.total()), (u64::from(STABLE), u64::from(STABLE)));
}

fn look_at_all(table: &FlowTable, stable: &[u32]) {
    let mut hits = [None; 32];
    for clients in stable.chunks(32) {
        let keys: Vec<_> = clients.iter().copied().map(key).collect();
        table.lookup_batch(&keys, &mut hits[..keys.len()]);
        for (client, hit) in clients.iter().zip(&hits) {
            let hit = hit.unwrap_or_else(|| panic!("{client} was not found"));
            assert_eq!(hit.target, target_of(*client));
            table.touch(&hit, FlowState::Confirmed, Tick(hit.target.0.into()));
        }
    }
    for client in STABLE..STABLE + (WRITERS + 1) * CHURN {
        if let Some(hit) = table.lookup(&key(client)) {
            assert_eq!(hit.target, target_of(client));
        }
    }
}

/// Checks that every walk names what stays once, and nothing twice.
fn walk_through_all(table: &FlowTable) {
    let mut named = vec![0_u8; (STABLE + (WRITERS + 1) * CHURN) as usize];
    table.export(VipaId(7), &mut |key, target, _| {
        assert_eq!(target, target_of(key.client));
        named[key.client as usize] += 1;
    });
    let (stable, others) = named.split_at(STABLE as usize);
    assert!(stable.iter().all(|times| *times == 1), "what stays is named once");
    assert!(others.iter().all(|times| *times <= 1), "what comes and goes is named once at most");
}

/// Adds and removes connections: some of its own clients, and some that all writers compete for.
fn churn(table: &FlowTable, writer: u32) {
    let own = STABLE + (writer + 1) * CHURN;
    let shared = STABLE;
    for round in 0..ROUNDS {
        for i in 0..CHURN {
            for client in [own + i, shared + (i + writer * 7) % CHURN] {
                let state = [FlowState::HalfOpen, FlowState::Open][(round % 2) as usize];
                match table.admit(&key(client), target_of(client), state, Tick(100)) {
                    Admitted::Existing(hit) => assert_eq!(hit.target, target_of(client)),
                    Admitted::OpenedEvicting(state) => assert_ne!(state, FlowState::Confirmed),
                    Admitted::Opened | Admitted::Full => {}
                }
            }
        }
        for i in 0..CHURN {
            table.confirm(&key(shared + i), target_of(shared + i), FlowState::Open, Tick(100));
            table.remove(&key(shared + i), None);
            table.remove(&key(own + i), Some(target_of(own + i)));
            assert_eq!(table.lookup(&key(own + i)), None, "nobody else opens this one");
        }
    }
}
