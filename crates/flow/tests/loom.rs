//! Interleavings of two threads with up to two or three preemptions, on a table of few buckets with two slots each:
//! `RUSTFLAGS="--cfg loom" cargo test --release -p vipa-flow --test loom`.
#![cfg(loom)]

use std::time::Duration;

use loom::{sync::Arc, thread};
use vipa_flow::{
    Admitted, AgeLimits, Capacity, Confirmed, Cursor, FlowState, FlowTable, HashSeed, Key4, PackedKey, ProbeHit, Tick,
};
use vipa_model::{Protocol, TargetId, VipaId};

const NOW: Tick = Tick(1_000);
const ONE: TargetId = TargetId(1);
const TWO: TargetId = TargetId(2);

fn check(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.max_branches = 20_000;
    // One of the races has more interleavings than can be run in an acceptable time.
    model.max_duration = Some(std::time::Duration::from_secs(15));
    model.check(test);
}

/// A table of two buckets.
fn small() -> Arc<FlowTable> {
    Arc::new(FlowTable::new(Capacity::connections(1), HashSeed::new([1, 2, 3, 4])).unwrap())
}

/// A table of three buckets: both of the newcomer's are full, and the first key of the first bucket may move to the
/// third.
struct Crowded {
    table: FlowTable,
    movable: Key4,
    newcomer: Key4,
}

fn crowded() -> Arc<Crowded> {
    crowded_with(FlowState::Open)
}

/// `crowded` with the movable connection in this state.
fn crowded_with(movable_state: FlowState) -> Arc<Crowded> {
    let table = FlowTable::new(Capacity::connections(4), HashSeed::new([1, 2, 3, 4])).unwrap();
    let mut clients = 0..;
    let mut key_of = |primary, other| {
        clients.by_ref().map(key).find(|key| table.buckets_of(key) == [primary, other]).expect("some key lives there")
    };
    let movable = key_of(0, 2);
    let fixed = [key_of(0, 1), key_of(1, 0), key_of(1, 0)];
    let newcomer = key_of(0, 1);
    assert_eq!(table.admit(&movable, ONE, movable_state, NOW), Admitted::Opened);
    for key in &fixed {
        assert_eq!(table.admit(key, ONE, FlowState::Open, NOW), Admitted::Opened);
    }
    Arc::new(Crowded { table, movable, newcomer })
}

fn key(client: u32) -> Key4 {
    Key4 { client, client_port: 40_000, vipa_port: 80, vipa: VipaId(0), protocol: Protocol::Tcp }
}

fn target(table: &FlowTable, key: &Key4) -> Option<TargetId> {
    table.lookup(key).map(|hit| hit.target)
}

/// The target that a probe finds, which may miss an entry that is there.
fn probed(table: &FlowTable, key: &Key4) -> Option<TargetId> {
    let packed = PackedKey::new(key);
    table.probe_primary(&packed, table.prefetch_primary(&packed)).map(ProbeHit::target)
}

/// Another connection whose primary bucket is that of connection 1.
fn next(table: &FlowTable) -> Key4 {
    let first = table.buckets_of(&key(1))[0];
    (2..).map(key).find(|key| table.buckets_of(key)[0] == first).expect("some key lives there")
}

/// The target to which the admitting worker sends its packet.
fn admit(table: &FlowTable, key: &Key4, wanted: TargetId) -> TargetId {
    match table.admit(key, wanted, FlowState::HalfOpen, NOW) {
        Admitted::Opened => wanted,
        Admitted::Existing(hit) => hit.target,
        other => panic!("{other:?}"),
    }
}

/// Runs `here` and `there` at once, started in both orders. Loom forgets a thread's read of a location once another
/// thread has read it too, so the thread that runs first by default must not always be the same.
fn race<S, A, B>(
    preemptions: usize,
    setup: impl Fn() -> Arc<S> + Copy + Send + Sync + 'static,
    here: impl Fn(&S) -> A + Copy + Send + Sync + 'static,
    there: impl Fn(&S) -> B + Copy + Send + Sync + 'static,
    judge: impl Fn(&S, A, B) + Copy + Send + Sync + 'static,
) where
    S: Send + Sync + 'static,
    A: Send + 'static,
    B: Send + 'static,
{
    check(preemptions, move || {
        let shared = setup();
        let theirs = shared.clone();
        let other = thread::spawn(move || there(&theirs));
        let a = here(&shared);
        let b = other.join().unwrap();
        judge(&shared, a, b);
    });
    check(preemptions, move || {
        let shared = setup();
        let theirs = shared.clone();
        let other = thread::spawn(move || here(&theirs));
        let b = there(&shared);
        let a = other.join().unwrap();
        judge(&shared, a, b);
    });
}

fn small_with_one(state: FlowState) -> Arc<FlowTable> {
    let table = small();
    table.admit(&key(1), ONE, state, NOW);
    table
}

#[test]
fn two_admissions_of_one_connection_end_in_one_entry_and_one_target() {
    race(
        3,
        small,
        |table| admit(table, &key(1), ONE),
        |table| admit(table, &key(1), TWO),
        |table, one, other| {
            assert_eq!(one, other);
            assert_eq!(target(table, &key(1)), Some(one));
            assert_eq!(table.count().total(), 1);
            assert!(table.remove(&key(1), None));
            assert_eq!(target(table, &key(1)), None);
        },
    );
}

#[test]
fn an_eviction_is_counted_also_when_somebody_else_places_the_connection_first() {
    race(
        2,
        || {
            let table = small();
            for client in 1..5 {
                assert_eq!(table.admit(&key(client), ONE, FlowState::HalfOpen, NOW), Admitted::Opened);
            }
            table
        },
        |table| table.confirm(&key(9), ONE, FlowState::Open, NOW),
        |table| table.confirm(&key(9), ONE, FlowState::Open, NOW),
        |table, _, _| {
            assert_eq!(target(table, &key(9)), Some(ONE));
            assert_eq!(table.count().total() + table.evictions(), 5);
        },
    );
}

#[test]
fn a_targets_report_wins_over_an_admission_at_the_same_time() {
    race(
        3,
        small,
        |table| admit(table, &key(1), ONE),
        |table| table.confirm(&key(1), TWO, FlowState::Confirmed, NOW),
        |table, _, _| {
            assert_eq!(target(table, &key(1)), Some(TWO));
            assert_eq!((table.count().confirmed, table.count().total()), (1, 1));
        },
    );
}

#[test]
fn a_lookup_never_returns_the_target_of_the_slots_next_connection() {
    race(
        3,
        || small_with_one(FlowState::Open),
        |table| {
            table.remove(&key(1), None);
            for client in 2..4 {
                table.admit(&key(client), TWO, FlowState::Open, NOW);
            }
        },
        |table| {
            assert!(matches!(target(table, &key(1)), None | Some(ONE)));
            assert!(matches!(target(table, &key(2)), None | Some(TWO)));
        },
        |table, (), ()| assert_eq!(table.count().total(), 2),
    );
}

#[test]
fn nor_does_one_look_at_the_slot() {
    race(
        3,
        || small_with_one(FlowState::Open),
        |table| {
            table.remove(&key(1), None);
            table.admit(&next(table), TWO, FlowState::Open, NOW);
        },
        |table| {
            assert!(matches!(probed(table, &next(table)), None | Some(TWO)));
            assert!(matches!(probed(table, &key(1)), None | Some(ONE)));
        },
        |table, (), ()| assert_eq!(probed(table, &next(table)), Some(TWO)),
    );
}

#[test]
fn a_touch_does_not_reach_the_slots_next_connection() {
    race(
        3,
        || small_with_one(FlowState::HalfOpen),
        |table| {
            table.remove(&key(1), None);
            table.admit(&key(1), TWO, FlowState::HalfOpen, NOW);
        },
        |table| {
            if let Some(hit) = table.lookup(&key(1)).filter(|hit| hit.target == ONE) {
                table.touch(&hit, FlowState::Open, NOW);
            }
        },
        |table, (), ()| {
            let hit = table.lookup(&key(1)).unwrap();
            assert_eq!((hit.target, hit.state), (TWO, FlowState::HalfOpen));
            assert_eq!((table.count().half_open, table.count().total()), (1, 1));
        },
    );
}

#[test]
fn a_slow_inserter_writes_no_key_into_a_slot_that_is_no_longer_its_own() {
    race(
        3,
        || {
            // Leaves its key in the slot that will be claimed first.
            let table = small_with_one(FlowState::Open);
            table.remove(&key(1), None);
            table
        },
        |table| admit(table, &key(2), TWO),
        |table| {
            admit(table, &key(1), ONE);
            admit(table, &key(3), TargetId(3));
        },
        |table, _, ()| {
            for client in 1..4 {
                assert_eq!(target(table, &key(client)), Some(TargetId(client as u16)));
            }
        },
    );
}

fn move_away(crowded: &Crowded) -> Admitted {
    crowded.table.admit(&crowded.newcomer, TWO, FlowState::Open, NOW)
}

#[test]
fn a_connection_is_found_also_while_it_moves() {
    race(
        3,
        crowded,
        move_away,
        |Crowded { table, movable, .. }| {
            let hit = table.lookup(movable).expect("it is always there");
            assert_eq!(hit.target, ONE);
        },
        |Crowded { table, movable, newcomer }, admitted, ()| {
            assert_eq!(admitted, Admitted::Opened);
            assert_eq!(target(table, movable), Some(ONE));
            assert_eq!(target(table, newcomer), Some(TWO));
            assert_eq!(table.count().total(), 5);
        },
    );
}

#[test]
fn a_connection_that_is_removed_while_it_moves_is_gone() {
    race(
        3,
        crowded,
        move_away,
        |Crowded { table, movable, .. }| {
            assert!(table.remove(movable, Some(ONE)));
            assert_eq!(target(table, movable), None);
        },
        |Crowded { table, movable, .. }, admitted, ()| {
            assert_eq!(admitted, Admitted::Opened);
            assert_eq!(target(table, movable), None);
            assert_eq!(table.count().total(), 4);
        },
    );
}

#[test]
fn a_report_about_a_connection_that_moves_is_not_lost() {
    race(
        3,
        crowded,
        move_away,
        |Crowded { table, movable, .. }| {
            let confirmed = table.confirm(movable, TWO, FlowState::Confirmed, NOW);
            assert_eq!(confirmed, Confirmed::Replaced(ONE));
            assert_eq!(target(table, movable), Some(TWO));
        },
        |Crowded { table, movable, .. }, admitted, ()| {
            let placed = admitted == Admitted::Opened;
            assert_eq!(target(table, movable), Some(TWO));
            assert_eq!(table.count().total(), 4 + u64::from(placed));
            assert_eq!(table.count().confirmed, 1);
            // The moving mark is gone: the entry can be removed and touched again.
            let hit = table.lookup(movable).unwrap();
            table.touch(&hit, FlowState::Closing, NOW);
            assert_eq!(table.lookup(movable).unwrap().state, FlowState::Closing);
        },
    );
}

#[test]
fn the_end_of_a_connection_that_moves_is_not_lost() {
    race(
        3,
        || {
            let crowded = crowded();
            crowded.table.confirm(&crowded.movable, ONE, FlowState::Confirmed, NOW);
            crowded
        },
        move_away,
        |Crowded { table, movable, .. }| assert!(table.end(movable, ONE, NOW)),
        |Crowded { table, movable, .. }, _, ()| {
            assert_eq!(table.lookup(movable).map(|hit| hit.state), Some(FlowState::Ended));
            assert_eq!((table.count().confirmed, table.count().ended), (0, 1));
        },
    );
}

#[test]
fn an_end_never_takes_the_connection_that_a_syn_has_begun() {
    race(
        3,
        || {
            let table = small();
            table.confirm(&key(1), ONE, FlowState::Confirmed, NOW);
            table
        },
        |table| table.end(&key(1), ONE, NOW),
        |table| {
            let hit = table.lookup(&key(1)).expect("an end leaves its entry for late segments");
            table.touch(&hit, hit.state.after_syn(), NOW);
            hit.state
        },
        |table, ended, seen| {
            // The SYN came before the end or after it. Only where the end came between the SYN's lookup and its mark is
            // the SYN not remembered, and even then its segments find the target.
            assert!(ended);
            let state = table.lookup(&key(1)).map(|hit| hit.state);
            let expected = [FlowState::HalfOpen, FlowState::Ended];
            assert!(state.is_some_and(|state| expected.contains(&state)), "{state:?} after {seen:?}");
        },
    );
}

#[test]
fn a_connection_is_placed_once_while_its_neighbour_moves() {
    race(
        2,
        crowded,
        move_away,
        |crowded| crowded.table.confirm(&crowded.newcomer, ONE, FlowState::Confirmed, NOW),
        |Crowded { table, newcomer, .. }, _, confirmed| {
            assert_ne!(confirmed, Confirmed::Full);
            assert_eq!(target(table, newcomer), Some(ONE));
            let mut named = Vec::new();
            table.export(VipaId(0), &mut |key, _, _| named.push(key));
            assert_eq!(named.len() as u64, table.count().total());
            assert_eq!(named.iter().filter(|key| *key == newcomer).count(), 1);
        },
    );
}

/// All names of a walk; none occurs twice.
fn walk(table: &FlowTable) -> Vec<(Key4, TargetId)> {
    let mut named = Vec::new();
    table.export(VipaId(0), &mut |key, target, _| {
        assert!(named.iter().all(|(other, _)| *other != key), "{key:?} is named twice");
        named.push((key, target));
    });
    named
}

/// Whether the walk names `movable` once, and everything else that stays.
fn assert_all_named(crowded: &Crowded, named: &[(Key4, TargetId)], movable: bool) {
    let has = |key: &Key4| named.iter().any(|(other, _)| other == key);
    assert_eq!(has(&crowded.movable), movable);
    let others = named.iter().filter(|(key, _)| *key != crowded.movable && *key != crowded.newcomer);
    assert_eq!(others.count(), 3);
}

#[test]
fn a_walk_names_each_connection_that_stays_once_while_one_moves() {
    race(
        3,
        crowded,
        move_away,
        |crowded| assert_all_named(crowded, &walk(&crowded.table), true),
        |_, admitted, ()| assert_eq!(admitted, Admitted::Opened),
    );
}

#[test]
fn a_walk_names_a_connection_that_moves_at_most_once_while_it_is_removed() {
    race(
        2,
        crowded,
        |crowded| {
            move_away(crowded);
            assert!(crowded.table.remove(&crowded.movable, None));
        },
        |crowded| {
            let named = walk(&crowded.table);
            assert!(named.len() >= 3, "{named:?}");
        },
        |crowded, (), ()| assert_all_named(crowded, &walk(&crowded.table), false),
    );
}

#[test]
fn a_walk_names_each_connection_that_stays_once_while_others_age() {
    race(
        2,
        crowded,
        |crowded| {
            crowded.table.admit(&crowded.newcomer, TWO, FlowState::HalfOpen, NOW);
            age(&crowded.table);
        },
        |crowded| assert_all_named(crowded, &walk(&crowded.table), true),
        |crowded, (), ()| {
            assert_all_named(crowded, &walk(&crowded.table), true);
            assert_eq!(target(&crowded.table, &crowded.newcomer), None);
        },
    );
}

#[test]
fn a_walk_never_names_a_connection_with_the_target_of_the_slots_next_one() {
    race(
        3,
        || small_with_one(FlowState::Open),
        |table| {
            table.remove(&key(1), None);
            assert_eq!(admit(table, &next(table), TWO), TWO);
        },
        |table| {
            let truths = [(key(1), ONE), (next(table), TWO)];
            let named = walk(table);
            assert!(named.iter().all(|name| truths.contains(name)), "{named:?}");
        },
        |table, (), ()| assert_eq!(walk(table), [(next(table), TWO)]),
    );
}

/// When [`age`] runs: half-open entries of `NOW` are too old then, all others are not.
const LATER: Tick = Tick(NOW.0 + 100);

/// Ages the whole table; returns how many entries were removed.
fn age(table: &FlowTable) -> u64 {
    let limits = AgeLimits { half_open: Duration::from_secs(1), ..AgeLimits::default() };
    table.age(&mut Cursor::default(), 3, LATER, &limits).removed.total()
}

#[test]
fn a_connection_that_ages_while_it_moves_goes_once_or_stays() {
    race(
        3,
        || crowded_with(FlowState::HalfOpen),
        move_away,
        |crowded| age(&crowded.table),
        |Crowded { table, movable, newcomer }, admitted, aged| {
            let stays = u64::from(target(table, movable).is_some());
            assert_eq!((admitted, aged + stays), (Admitted::Opened, 1));
            assert_eq!(target(table, newcomer), Some(TWO));
            assert_eq!((table.count().total(), table.count().half_open), (4 + stays, stays));
            // Where it stays it is an ordinary entry again: the next round removes it.
            assert_eq!((age(table), target(table, movable)), (stays, None));
        },
    );
}

#[test]
fn a_connection_that_is_reported_while_it_ages_is_in_the_table_afterwards() {
    race(
        3,
        || small_with_one(FlowState::HalfOpen),
        |table| age(table),
        |table| table.confirm(&key(1), ONE, FlowState::Confirmed, LATER),
        |table, aged, confirmed| {
            assert_eq!(confirmed, if aged == 1 { Confirmed::New } else { Confirmed::Known });
            assert_eq!(target(table, &key(1)), Some(ONE));
            assert_eq!((table.count().confirmed, table.count().total()), (1, 1));
        },
    );
}

#[test]
fn a_connection_whose_segment_comes_while_it_ages_goes_before_it_or_stays() {
    race(
        3,
        || small_with_one(FlowState::HalfOpen),
        |table| age(table),
        |table| table.lookup(&key(1)).inspect(|hit| table.touch(hit, FlowState::Open, LATER)).is_some(),
        |table, aged, found| {
            let state = table.lookup(&key(1)).map(|hit| hit.state);
            assert_eq!(state, (aged == 0).then_some(FlowState::Open));
            assert!(found || aged == 1);
            assert_eq!(table.count().total(), 1 - aged);
        },
    );
}
