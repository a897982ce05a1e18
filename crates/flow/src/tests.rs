use std::time::Duration;

use vipa_model::{Protocol, TargetId, VipaId};

use super::*;

const NOW: Tick = Tick(1_000_000);
const ONE: TargetId = TargetId(1);
const TWO: TargetId = TargetId(2);

fn table(connections: usize) -> FlowTable {
    FlowTable::new(Capacity::connections(connections), HashSeed::new([1, 2, 3, 4])).unwrap()
}

fn key(client: u32) -> Key4 {
    Key4 { client, client_port: 40_000, vipa_port: 80, vipa: VipaId(0), protocol: Protocol::Tcp }
}

fn found(table: &FlowTable, key: &Key4) -> Option<(TargetId, FlowState)> {
    table.lookup(key).map(|hit| (hit.target, hit.state))
}

#[test]
fn an_admitted_connection_is_found_with_its_target_and_counted() {
    let table = table(100);
    assert_eq!(found(&table, &key(1)), None);
    assert_eq!(table.admit(&key(1), ONE, FlowState::HalfOpen, NOW), Admitted::Opened);
    assert_eq!(found(&table, &key(1)), Some((ONE, FlowState::HalfOpen)));
    assert_eq!(table.count(), Counts { half_open: 1, ..Counts::default() });
}

/// The target that a probe of the primary bucket finds.
fn probed<K: Key>(table: &FlowTable<K>, key: &K) -> Option<TargetId> {
    let packed = PackedKey::new(key);
    table.probe_primary(&packed, table.prefetch_primary(&packed)).map(ProbeHit::target)
}

#[test]
fn one_look_finds_what_is_under_way_at_home_and_nothing_else() {
    let table = table(3_000);
    for n in 0..3_000 {
        let state = FlowState::ALL[n as usize % FlowState::ALL.len()];
        table.admit(&key(n), TargetId(n as u16), state, NOW);
    }
    let mut in_primary = 0;
    for key in (0..4_000).map(key) {
        let packed = PackedKey::new(&key);
        let primary =
            table.find_primary(&packed, table.prefetch_primary(&packed)).filter(|hit| hit.state >= FlowState::Open);
        assert_eq!(probed(&table, &key), primary.map(|hit| hit.target), "{key:?}");
        in_primary += usize::from(primary.is_some());
    }
    assert!(in_primary > 1_500, "{in_primary}");
    table.remove(&key(1), None);
    assert_eq!(probed(&table, &key(1)), None, "its key still stands there");
}

#[test]
fn one_look_takes_no_client_for_another_that_resembles_it() {
    let table = FlowTable::<Key6>::new(Capacity::connections(3_000), HashSeed::new([1, 2, 3, 4])).unwrap();
    // As many keys as here differ only in their networks.
    let key = |network: u16| Key6 {
        client: u128::from(network) << 64 | 1,
        client_port: 40_000,
        vipa_port: 80,
        vipa: VipaId(0),
        protocol: Protocol::Tcp,
    };
    for n in 0..3_000 {
        assert_eq!(table.admit(&key(n), TargetId(n), FlowState::Open, NOW), Admitted::Opened);
    }
    let mut seen = 0;
    for n in 0..4_000 {
        let probe = probed(&table, &key(n));
        assert!(probe.is_none_or(|target| target == TargetId(n) && n < 3_000), "{n}: {probe:?}");
        assert_eq!(table.lookup(&key(n)).map(|hit| hit.target), (n < 3_000).then_some(TargetId(n)));
        seen += usize::from(probe.is_some());
    }
    // About one in each bucket.
    assert!(seen > 500, "{seen}");
}

#[test]
fn every_part_of_the_tuple_tells_connections_apart() {
    let table = table(100);
    let base = key(7);
    let others = [
        Key4 { client: 8, ..base },
        Key4 { client_port: 40_001, ..base },
        Key4 { vipa_port: 81, ..base },
        Key4 { vipa: VipaId(1), ..base },
        Key4 { vipa: VipaId(MAX_VIPAS - 1), ..base },
        Key4 { protocol: Protocol::Udp, ..base },
    ];
    table.admit(&base, TargetId(100), FlowState::Open, NOW);
    for (i, other) in others.iter().enumerate() {
        assert_eq!(table.admit(other, TargetId(i as u16), FlowState::Open, NOW), Admitted::Opened, "{other:?}");
    }
    for (i, other) in others.iter().enumerate() {
        assert_eq!(found(&table, other), Some((TargetId(i as u16), FlowState::Open)), "{other:?}");
    }
    assert_eq!(found(&table, &base), Some((TargetId(100), FlowState::Open)));
}

#[test]
fn what_is_inherited_takes_the_place_of_what_is_unconfirmed_and_of_an_earlier_ownership() {
    let (before, began, later) = (NOW, Tick(NOW.0 + 40), Tick(NOW.0 + 80));
    for (state, at, since, expected) in [
        (FlowState::Open, before, Some(began), TWO),
        (FlowState::HalfOpen, before, None, TWO),
        (FlowState::Open, later, None, TWO),
        (FlowState::Open, later, Some(began), ONE),
        (FlowState::HalfOpen, began, Some(began), ONE),
        (FlowState::Confirmed, before, Some(began), ONE),
        (FlowState::Confirmed, before, None, ONE),
        (FlowState::Reopened, before, None, ONE),
        (FlowState::Closing, before, None, TWO),
        (FlowState::Ended, later, Some(began), TWO),
    ] {
        let table = table(100);
        assert_eq!(table.admit(&key(1), ONE, state, at), Admitted::Opened);
        table.inherit(&key(1), TWO, FlowState::Open, since, later);
        assert_eq!(table.lookup(&key(1)).unwrap().target, expected, "{state:?} at {at:?}, {since:?}");
        assert_eq!(table.count().total(), 1);
    }
    let table = table(100);
    assert_eq!(table.inherit(&key(1), TWO, FlowState::Open, None, NOW), Admitted::Opened);
    assert_eq!(found(&table, &key(1)), Some((TWO, FlowState::Open)));
    // What a predecessor sends when it yields is newer than what it, or another one, sent when it consented.
    for since in [None, Some(NOW)] {
        assert_eq!(table.inherit(&key(1), ONE, FlowState::Open, since, NOW), Admitted::Opened);
        assert_eq!(found(&table, &key(1)), Some((ONE, FlowState::Open)));
        table.inherit(&key(1), TWO, FlowState::Open, since, NOW);
    }
    // The SYN passed elsewhere: the next end that the target reports is this connection's.
    assert_eq!(table.inherit(&key(2), TWO, FlowState::HalfOpen, None, NOW), Admitted::Opened);
    table.confirm(&key(2), TWO, FlowState::Confirmed, NOW);
    assert_eq!(found(&table, &key(2)), Some((TWO, FlowState::Confirmed)));
}

#[test]
fn what_has_ended_is_inherited_where_nothing_else_is_known_and_there_is_room() {
    let table = table(100);
    assert_eq!(table.inherit(&key(1), ONE, FlowState::Ended, None, NOW), Admitted::Opened);
    assert_eq!(found(&table, &key(1)), Some((ONE, FlowState::Ended)));
    for state in [FlowState::HalfOpen, FlowState::Open, FlowState::Confirmed, FlowState::Ended] {
        let table = self::table(100);
        table.admit(&key(1), ONE, state, NOW);
        assert!(matches!(table.inherit(&key(1), TWO, FlowState::Ended, None, Tick(NOW.0 + 80)), Admitted::Existing(_)));
        assert_eq!(found(&table, &key(1)), Some((ONE, state)));
    }
    // A full table keeps what it has.
    let table = self::table(100);
    let mut clients = 0..100_000;
    while table.admit(&key(clients.next().unwrap()), ONE, FlowState::HalfOpen, NOW) == Admitted::Opened {}
    let evictions = table.evictions();
    for client in clients.take(1_000) {
        table.inherit(&key(client), TWO, FlowState::Ended, None, NOW);
    }
    assert_eq!(table.evictions(), evictions);
}

/// The log states "half-open" before "held" and is read in its order: no SYN that passed here is meant.
#[test]
fn a_half_open_connection_that_its_target_reports_is_no_recent_syn() {
    let table = table(100);
    table.confirm(&key(1), ONE, FlowState::HalfOpen, NOW);
    table.confirm(&key(1), ONE, FlowState::Confirmed, NOW);
    assert_eq!(found(&table, &key(1)), Some((ONE, FlowState::Confirmed)));
    assert!(table.end(&key(1), ONE, NOW));
    assert_eq!(found(&table, &key(1)), Some((ONE, FlowState::Ended)));
    // Where the SYN passed, it remains recent whatever is reported.
    table.admit(&key(2), ONE, FlowState::HalfOpen, NOW);
    table.confirm(&key(2), ONE, FlowState::HalfOpen, NOW);
    table.confirm(&key(2), ONE, FlowState::Confirmed, NOW);
    assert_eq!(found(&table, &key(2)), Some((ONE, FlowState::Reopened)));
}

#[test]
fn what_is_admitted_twice_keeps_its_first_target() {
    let table = table(100);
    table.admit(&key(1), ONE, FlowState::HalfOpen, NOW);
    let Admitted::Existing(hit) = table.admit(&key(1), TWO, FlowState::Open, NOW) else { panic!("not there") };
    assert_eq!((hit.target, hit.state), (ONE, FlowState::HalfOpen));
    assert_eq!(table.count().total(), 1);
}

#[test]
fn ids_beyond_the_limits_find_no_place() {
    let table = table(100);
    let vipa = Key4 { vipa: VipaId(MAX_VIPAS), ..key(1) };
    assert_eq!(table.admit(&vipa, ONE, FlowState::Open, NOW), Admitted::Full);
    assert_eq!(table.confirm(&vipa, ONE, FlowState::Confirmed, NOW), Confirmed::Full);
    assert_eq!(found(&table, &vipa), None);
    assert_eq!(table.admit(&key(1), TargetId(MAX_TARGETS), FlowState::Open, NOW), Admitted::Full);
    assert_eq!(table.admit(&key(1), TargetId(MAX_TARGETS - 1), FlowState::Open, NOW), Admitted::Opened);
    assert_eq!(found(&table, &key(1)), Some((TargetId(MAX_TARGETS - 1), FlowState::Open)));
}

#[test]
fn a_touch_moves_the_state_on_unless_somebody_else_has() {
    let table = table(100);
    table.admit(&key(1), ONE, FlowState::HalfOpen, NOW);
    let stale = table.lookup(&key(1)).unwrap();
    table.touch(&stale, FlowState::Open, NOW);
    assert_eq!(found(&table, &key(1)), Some((ONE, FlowState::Open)));
    table.confirm(&key(1), ONE, FlowState::Confirmed, NOW);
    table.touch(&stale, FlowState::Open, Tick(NOW.0 + 1));
    assert_eq!(found(&table, &key(1)), Some((ONE, FlowState::Confirmed)));
    assert_eq!(table.count(), Counts { confirmed: 1, ..Counts::default() });
}

#[test]
fn a_touch_of_what_is_gone_changes_nothing() {
    let table = table(100);
    table.admit(&key(1), ONE, FlowState::HalfOpen, NOW);
    let stale = table.lookup(&key(1)).unwrap();
    assert!(table.remove(&key(1), None));
    table.admit(&key(1), TWO, FlowState::HalfOpen, NOW);
    table.touch(&stale, FlowState::Open, NOW);
    assert_eq!(found(&table, &key(1)), Some((TWO, FlowState::HalfOpen)));
}

#[test]
fn the_targets_word_replaces_another_target() {
    let table = table(100);
    assert_eq!(table.confirm(&key(1), ONE, FlowState::Confirmed, NOW), Confirmed::New);
    assert_eq!(table.confirm(&key(1), ONE, FlowState::Confirmed, NOW), Confirmed::Known);
    assert_eq!(table.confirm(&key(1), TWO, FlowState::HalfOpen, NOW), Confirmed::Replaced(ONE));
    assert_eq!(found(&table, &key(1)), Some((TWO, FlowState::HalfOpen)));
    assert_eq!(table.count(), Counts { half_open: 1, ..Counts::default() });
}

#[test]
fn a_late_report_of_half_open_does_not_take_an_open_connection_back() {
    let table = table(100);
    table.admit(&key(1), ONE, FlowState::Open, NOW);
    assert_eq!(table.confirm(&key(1), ONE, FlowState::HalfOpen, NOW), Confirmed::Known);
    assert_eq!(found(&table, &key(1)), Some((ONE, FlowState::Open)));
}

#[test]
fn a_redirected_connection_has_the_new_target_unless_it_changed_meanwhile() {
    let table = table(100);
    table.admit(&key(1), ONE, FlowState::Closing, NOW);
    let hit = table.lookup(&key(1)).unwrap();
    assert!(table.redirect(&hit, TWO, FlowState::HalfOpen, NOW));
    assert_eq!(found(&table, &key(1)), Some((TWO, FlowState::HalfOpen)));
    assert!(!table.redirect(&hit, ONE, FlowState::HalfOpen, NOW));
    assert_eq!(table.count(), Counts { half_open: 1, ..Counts::default() });
}

#[test]
fn a_connection_is_removed_only_from_the_target_that_is_named() {
    let table = table(100);
    table.admit(&key(1), ONE, FlowState::Open, NOW);
    assert!(!table.remove(&key(1), Some(TWO)));
    assert!(table.remove(&key(1), Some(ONE)));
    assert!(!table.remove(&key(1), None));
    assert_eq!(table.count(), Counts::default());
}

#[test]
fn a_batch_finds_what_single_lookups_find() {
    let table = table(1_000);
    let keys: Vec<_> = (0..1_500).map(key).collect();
    for (i, key) in keys.iter().enumerate().step_by(2) {
        table.admit(key, TargetId(i as u16), FlowState::Open, NOW);
    }
    let mut hits = vec![None; keys.len()];
    table.lookup_batch(&keys, &mut hits);
    assert!(keys.iter().zip(&hits).all(|(key, hit)| table.lookup(key) == *hit));
    assert_eq!(hits.iter().flatten().count(), 750);
}

#[test]
fn silence_beyond_a_states_limit_ends_a_connection() {
    let table = table(100);
    let limits = AgeLimits {
        half_open: Duration::from_secs(1),
        open: Duration::from_secs(10),
        confirmed: Duration::MAX,
        closing: Duration::from_secs(2),
        udp: Duration::from_secs(3),
        ended: Duration::from_millis(500),
        unreported: Duration::from_secs(1),
    };
    for (client, state) in (0..).zip(FlowState::ALL) {
        table.admit(&key(client), ONE, state, NOW);
    }
    let at = |ms: u32| {
        let aged = table.age(&mut Cursor::default(), usize::MAX / 2, Tick(NOW.0 + ms / 250), &limits);
        assert!(aged.finished);
        aged.removed
    };
    assert_eq!(at(500), Counts::default());
    assert_eq!(at(750), Counts { ended: 1, ..Counts::default() });
    assert_eq!(at(1_000), Counts::default());
    assert_eq!(at(1_250), Counts { half_open: 1, ..Counts::default() });
    assert_eq!(at(3_250), Counts { udp: 1, ..Counts::default() });
    // In these states a packet may have passed without refreshing the tick.
    assert_eq!(at(6_000), Counts::default());
    assert_eq!(at(6_250), Counts { closing: 1, ..Counts::default() });
    assert_eq!(at(14_000_000), Counts { open: 1, ..Counts::default() });
    assert_eq!(table.count(), Counts { confirmed: 1, reopened: 1, ..Counts::default() });
}

#[test]
fn what_is_heard_is_written_down_once_in_four_seconds_and_no_connection_ends_early_for_that() {
    let table = table(100);
    table.admit(&key(1), ONE, FlowState::Open, NOW);
    let limits = AgeLimits { open: Duration::from_secs(1), ..AgeLimits::default() };
    let is_stale = |ticks: u32| table.lookup(&key(1)).unwrap().is_stale(Tick(NOW.0 + ticks));
    assert!(!is_stale(0) && !is_stale(15) && is_stale(16));
    let aged =
        |ticks: u32| table.age(&mut Cursor::default(), usize::MAX / 2, Tick(NOW.0 + ticks), &limits).removed.open;
    // A packet passed at 15 and refreshed nothing; silent for a second since.
    assert_eq!((aged(19), aged(20), aged(21)), (0, 0, 1));
}

#[test]
fn a_touch_from_a_clock_that_is_ahead_is_not_an_age() {
    let table = table(100);
    table.admit(&key(1), ONE, FlowState::HalfOpen, Tick(NOW.0 + 3));
    assert_eq!(table.age(&mut Cursor::default(), 1_000, NOW, &AgeLimits::default()).removed.total(), 0);
}

#[test]
fn workers_that_age_a_part_each_age_everything_in_small_steps() {
    let table = table(1_000);
    for client in 0..500 {
        table.admit(&key(client), ONE, FlowState::HalfOpen, NOW);
    }
    let removed: u64 = (0..3)
        .map(|part| {
            let (mut cursor, mut removed) = (Cursor::new(part, 3), 0);
            loop {
                let aged = table.age(&mut cursor, 7, Tick(NOW.0 + 1_000), &AgeLimits::default());
                removed += aged.removed.total();
                if aged.finished {
                    return removed;
                }
            }
        })
        .sum();
    assert_eq!((removed, table.count().total()), (500, 0));
}

#[test]
fn an_export_names_the_connections_of_one_vipa() {
    let table = table(100);
    let other = Key4 { vipa: VipaId(3), ..key(1) };
    table.admit(&key(1), ONE, FlowState::Open, NOW);
    table.admit(&key(2), TWO, FlowState::Closing, NOW);
    table.admit(&other, ONE, FlowState::Open, NOW);
    let mut named = Vec::new();
    table.export(VipaId(0), &mut |key, target, state| named.push((key, target, state)));
    named.sort();
    assert_eq!(named, [(key(1), ONE, FlowState::Open), (key(2), TWO, FlowState::Closing)]);
    let mut named = Vec::new();
    table.export(VipaId(3), &mut |key, target, state| named.push((key, target, state)));
    assert_eq!(named, [(other, ONE, FlowState::Open)]);
}

/// Connections that are inserted, and move others, between any two names of a walk.
#[test]
fn a_walk_names_what_stays_once_although_much_moves_between_its_names() {
    const CONNECTIONS: u32 = 60_000;
    for seed in 0..4 {
        let table = FlowTable::new(Capacity::connections(CONNECTIONS as usize), HashSeed::new([seed; 4])).unwrap();
        let client = |n: u32| key(n.wrapping_mul(0x9e37_79b9));
        let displaced = || {
            (0..CONNECTIONS).filter(|n| {
                let packed = PackedKey::new(&client(*n));
                table.find_primary(&packed, table.prefetch_primary(&packed)).is_none()
            })
        };
        for n in 0..CONNECTIONS {
            assert_eq!(table.confirm(&client(n), ONE, FlowState::Confirmed, NOW), Confirmed::New);
        }
        let before = displaced().count();
        let mut next = CONNECTIONS;
        let mut named = vec![0; CONNECTIONS as usize * 2];
        let number = |key: Key4| key.client.wrapping_mul(0x144c_bc89) as usize;
        table.export(VipaId(0), &mut |key, _, _| {
            named[number(key)] += 1;
            if next < CONNECTIONS / 8 * 9 {
                table.confirm(&client(next), TWO, FlowState::Confirmed, NOW);
                next += 1;
            }
        });
        assert!(displaced().count() > before + 500, "hardly anything moved");
        assert!(named[..CONNECTIONS as usize].iter().all(|times| *times == 1));
        assert!(named.iter().all(|times| *times <= 1));
    }
}

#[test]
fn a_walk_in_stretches_names_each_connection_once_and_begins_again() {
    for (connections, blocks) in [(1, 1), (4_000, 1), (60_000, 4)] {
        let table = table(connections);
        let all = connections as u32 / 2 + 1;
        for n in 0..all {
            table.admit(&key(n), ONE, FlowState::Open, NOW);
        }
        let mut cursor = Cursor::default();
        for _ in 0..2 {
            let (mut named, mut calls) = (vec![0; all as usize], 1);
            while !table.walk(&mut cursor, 1, &mut |key, _, _| named[key.client as usize] += 1) {
                calls += 1;
            }
            assert!(named.iter().all(|times| *times == 1));
            assert_eq!(calls, blocks);
        }
    }
}

#[test]
fn the_least_valuable_gives_way_and_the_confirmed_never_does() {
    let table = table(1);
    let slots = table.slots() as u32;
    for client in 0..slots - 3 {
        table.confirm(&key(client), ONE, FlowState::Confirmed, NOW);
    }
    let [closing, half_open, open] = [slots - 3, slots - 2, slots - 1].map(key);
    table.admit(&closing, ONE, FlowState::Closing, NOW);
    table.admit(&half_open, ONE, FlowState::HalfOpen, NOW);
    table.admit(&open, ONE, FlowState::Open, NOW);
    assert_eq!(table.count().total(), u64::from(slots));
    let late = Tick(NOW.0 + 4 * 60);
    assert_eq!(table.admit(&key(101), ONE, FlowState::Open, NOW), Admitted::OpenedEvicting(FlowState::HalfOpen));
    assert_eq!(table.admit(&key(102), ONE, FlowState::Open, NOW), Admitted::OpenedEvicting(FlowState::Closing));
    assert_eq!(table.admit(&key(103), ONE, FlowState::Open, NOW), Admitted::Full, "nobody has been silent for long");
    assert_eq!(table.confirm(&key(104), ONE, FlowState::Confirmed, NOW), Confirmed::NewEvicting(FlowState::Open));
    assert_eq!(table.admit(&key(105), ONE, FlowState::HalfOpen, late), Admitted::OpenedEvicting(FlowState::Open));
    assert_eq!(table.count(), Counts { confirmed: u64::from(slots) - 2, open: 1, half_open: 1, ..Counts::default() });
    assert!((0..slots - 3).all(|client| found(&table, &key(client)) == Some((ONE, FlowState::Confirmed))));
}

#[test]
fn a_table_holds_what_it_was_made_for_and_a_sixth_more() {
    const CONNECTIONS: u32 = 200_000;
    let table = table(CONNECTIONS as usize);
    let client = |n: u32| key(n.wrapping_mul(0x9e37_79b9));
    let taken_in = CONNECTIONS / 6 * 7;
    for n in 0..taken_in {
        assert_eq!(table.confirm(&client(n), ONE, FlowState::Confirmed, NOW), Confirmed::New, "the {n}th");
    }
    assert_eq!(table.count().total(), u64::from(taken_in));
    assert!((0..taken_in).all(|n| table.lookup(&client(n)).is_some()), "whoever moved is still found");
    assert!(table.bytes() < 22 * CONNECTIONS as usize, "{} bytes", table.bytes());
}

#[test]
fn what_a_target_confirmed_that_is_away_ages_like_an_open_connection() {
    let table = table(100);
    table.confirm(&key(1), ONE, FlowState::Confirmed, NOW);
    table.confirm(&key(2), TWO, FlowState::Confirmed, NOW);
    let limits = AgeLimits { open: Duration::from_secs(60), ..AgeLimits::default() };
    let aged = |seconds: u32| {
        let now = Tick(NOW.0 + seconds * 4);
        table.age_without(&mut Cursor::default(), usize::MAX / 2, now, &limits, |target| target == ONE).removed
    };
    assert_eq!(aged(64), Counts::default());
    assert_eq!(aged(65), Counts { confirmed: 1, ..Counts::default() });
    assert_eq!((found(&table, &key(1)), found(&table, &key(2))), (None, Some((TWO, FlowState::Confirmed))));
    assert_eq!(aged(10_000), Counts::default());
}

#[test]
fn in_a_table_full_of_half_open_connections_what_a_target_reports_finds_room_as_in_an_empty_one() {
    const CONNECTIONS: u32 = 20_000;
    let table = table(CONNECTIONS as usize);
    let half_open = |client: u32| key(0x8000_0000 | client.wrapping_mul(0x9e37_79b9) >> 1);
    for client in 0..10 * CONNECTIONS {
        table.admit(&half_open(client), ONE, FlowState::HalfOpen, NOW);
    }
    let reported = |client: u32| key(client.wrapping_mul(0x9e37_79b9) >> 1);
    let refused = (0..CONNECTIONS)
        .filter(|&client| table.confirm(&reported(client), TWO, FlowState::Confirmed, NOW) == Confirmed::Full)
        .count();
    assert!(refused * 2_000 < CONNECTIONS as usize, "{refused} of {CONNECTIONS} found no place");
    for client in 10 * CONNECTIONS..20 * CONNECTIONS {
        table.admit(&half_open(client), ONE, FlowState::HalfOpen, NOW);
    }
    let lost = (0..CONNECTIONS).filter(|&client| table.lookup(&reported(client)).is_none()).count();
    assert_eq!(lost, refused, "whoever moved is still found, and nobody went");
}

#[test]
fn the_reported_end_of_a_connection_ends_its_entry_and_no_younger_one() {
    let table = table(100);
    let state = |n: u32| table.lookup(&key(n)).map(|hit| hit.state);
    for (n, before, silent_ticks, after) in [
        (1, FlowState::Confirmed, 0, FlowState::Ended),
        (2, FlowState::Reopened, 15, FlowState::HalfOpen),
        (3, FlowState::Reopened, 16, FlowState::Ended),
        // No report has named these: they are younger than the end.
        (4, FlowState::HalfOpen, 100, FlowState::HalfOpen),
        (5, FlowState::Open, 100, FlowState::Open),
        (6, FlowState::Closing, 100, FlowState::Closing),
        (7, FlowState::Ended, 100, FlowState::Ended),
    ] {
        table.admit(&key(n), ONE, before, NOW);
        let now = Tick(NOW.0 + silent_ticks);
        assert!(!table.end(&key(n), TWO, now), "another target's word");
        assert_eq!(table.end(&key(n), ONE, now), before != after);
        assert_eq!(state(n), Some(after), "{before:?} after {silent_ticks}");
    }
    assert!(!table.end(&key(99), ONE, NOW));
}

#[test]
fn a_report_on_a_connection_whose_syn_has_just_passed_may_be_of_the_one_before() {
    let table = table(100);
    for (n, silent_ticks, expected) in [(1, 15, FlowState::Reopened), (2, 16, FlowState::Confirmed)] {
        table.admit(&key(n), ONE, FlowState::HalfOpen, NOW);
        table.confirm(&key(n), ONE, FlowState::Confirmed, Tick(NOW.0 + silent_ticks));
        assert_eq!(found(&table, &key(n)), Some((ONE, expected)));
    }
    // The end of the previous connection comes first, then the report of the next one.
    table.end(&key(1), ONE, Tick(NOW.0 + 16));
    assert_eq!(found(&table, &key(1)), Some((ONE, FlowState::HalfOpen)));
    let hit = table.lookup(&key(1)).unwrap();
    table.touch(&hit, hit.state.after_segment(false, false), Tick(NOW.0 + 16));
    table.confirm(&key(1), ONE, FlowState::Confirmed, Tick(NOW.0 + 17));
    assert_eq!(found(&table, &key(1)), Some((ONE, FlowState::Confirmed)));
}

#[test]
fn what_a_linked_target_does_not_report_goes_after_a_grace_and_what_it_holds_never() {
    let table = table(100);
    table.set_linked(ONE, true);
    for (n, target, state) in [
        (1, ONE, FlowState::Open),
        (2, TWO, FlowState::Open),
        (3, ONE, FlowState::Closing),
        (4, ONE, FlowState::Confirmed),
        (5, ONE, FlowState::HalfOpen),
    ] {
        table.admit(&key(n), target, state, NOW);
    }
    let limits = AgeLimits { half_open: Duration::from_secs(60), ..AgeLimits::default() };
    let aged = |seconds: u32| {
        let now = Tick(NOW.0 + seconds * 4);
        table.age(&mut Cursor::default(), usize::MAX / 2, now, &limits).removed
    };
    // Four seconds more than the grace, because not every segment refreshes the tick.
    assert_eq!(aged(24), Counts::default());
    assert_eq!(aged(25), Counts { half_open: 1, open: 1, closing: 1, ..Counts::default() });
    assert_eq!((found(&table, &key(1)), found(&table, &key(2))), (None, Some((TWO, FlowState::Open))));
    table.set_linked(ONE, false);
    table.admit(&key(1), ONE, FlowState::Open, Tick(NOW.0 + 80));
    assert_eq!(aged(61), Counts::default());
    assert_eq!(found(&table, &key(1)), Some((ONE, FlowState::Open)));
}

#[test]
fn in_a_full_table_what_has_ended_gives_way_first_and_what_a_linked_target_has_not_reported_next() {
    let table = table(1);
    let slots = table.slots() as u32;
    table.set_linked(ONE, true);
    for client in 2..slots {
        table.confirm(&key(client), ONE, FlowState::Confirmed, NOW);
    }
    table.admit(&key(0), ONE, FlowState::Ended, NOW);
    table.admit(&key(1), ONE, FlowState::Open, NOW);
    assert_eq!(table.admit(&key(100), TWO, FlowState::Open, NOW), Admitted::Opened, "nobody is evicted");
    assert_eq!(found(&table, &key(0)), None);
    assert_eq!(
        table.admit(&key(101), TWO, FlowState::Open, NOW),
        Admitted::OpenedEvicting(FlowState::Open),
        "a linked target reports what it holds, so that a client's ACK counts for nothing"
    );
    assert_eq!(table.admit(&key(102), TWO, FlowState::Open, NOW), Admitted::Full, "nobody speaks for TWO");
    assert!((2..slots).all(|client| found(&table, &key(client)) == Some((ONE, FlowState::Confirmed))));
}

#[test]
fn in_a_table_full_of_handshakes_that_no_target_reports_new_connections_find_room_and_keep_it_once_reported() {
    const CONNECTIONS: u32 = 20_000;
    let table = table(CONNECTIONS as usize);
    table.set_linked(ONE, true);
    // A SYN and an ACK, each from another client.
    let spoofed = |client: u32| key(0x8000_0000 | client.wrapping_mul(0x9e37_79b9) >> 1);
    let flood = |clients: std::ops::Range<u32>| {
        for client in clients {
            table.admit(&spoofed(client), ONE, FlowState::HalfOpen, NOW);
            if let Some(hit) = table.lookup(&spoofed(client)) {
                table.touch(&hit, hit.state.after_segment(false, true), NOW);
            }
        }
    };
    flood(0..5 * CONNECTIONS);
    let real = |client: u32| key(client.wrapping_mul(0x9e37_79b9) >> 1);
    for client in 0..1_000 {
        let admitted = table.admit(&real(client), ONE, FlowState::HalfOpen, NOW);
        assert!(matches!(admitted, Admitted::Opened | Admitted::OpenedEvicting(_)), "{client}: {admitted:?}");
        table.confirm(&real(client), ONE, FlowState::Confirmed, NOW);
    }
    flood(5 * CONNECTIONS..10 * CONNECTIONS);
    assert!((0..1_000).all(|client| table.lookup(&real(client)).is_some_and(|hit| hit.state.is_held())));
}

#[test]
fn a_table_of_no_connections_or_too_many_is_refused_with_a_reason() {
    let refused = |n| FlowTable::<Key4>::new(Capacity::connections(n), HashSeed::random()).err().unwrap().to_string();
    assert!(refused(0).contains("at least one connection"));
    assert!(refused(1 << 40).contains("beyond the limit"));
    assert!(refused(1 << 31).contains("MB"), "{}", refused(1 << 31));
}

fn key6(client: u128, client_port: u16) -> Key6 {
    Key6 { client, client_port, vipa_port: 443, vipa: VipaId(1), protocol: Protocol::Tcp }
}

#[test]
fn ipv6_connections_are_told_apart_by_every_part_of_their_key() {
    let table = FlowTable::<Key6>::new(Capacity::connections(1000), HashSeed::new([1, 2, 3, 4])).unwrap();
    let key = key6(0x2001_0db8 << 96 | 1, 40_000);
    assert_eq!(table.admit(&key, TargetId(7), FlowState::HalfOpen, Tick(1)), Admitted::Opened);
    assert_eq!(table.lookup(&key).map(|hit| hit.target), Some(TargetId(7)));
    let others = [
        key6(0x2001_0db8 << 96 | 2, 40_000),
        key6(0x2001_0db9 << 96 | 1, 40_000),
        key6(0x2001_0db8 << 96 | 1, 40_001),
        Key6 { vipa_port: 444, ..key },
        Key6 { vipa: VipaId(2), ..key },
        Key6 { protocol: Protocol::Udp, ..key },
    ];
    assert!(others.iter().all(|other| table.lookup(other).is_none()));
    let mut exported = Vec::new();
    table.export(VipaId(1), &mut |key, target, state| exported.push((key, target, state)));
    assert_eq!(exported, [(key, TargetId(7), FlowState::HalfOpen)]);
    assert!(table.remove(&key, Some(TargetId(7))) && table.lookup(&key).is_none());
}

#[test]
fn an_ipv6_table_holds_what_it_was_made_for() {
    const CONNECTIONS: u128 = 50_000;
    let seed = HashSeed::new([5, 6, 7, 8]);
    let table = FlowTable::<Key6>::new(Capacity::connections(CONNECTIONS as usize), seed).unwrap();
    let target = |client: u128| TargetId((client % 64) as u16);
    let keys: Vec<_> = (0..CONNECTIONS).map(|client| key6(client, 1)).collect();
    for key in &keys {
        assert_eq!(table.confirm(key, target(key.client), FlowState::Confirmed, Tick(1)), Confirmed::New);
    }
    let mut hits = vec![None; keys.len()];
    table.lookup_batch(&keys, &mut hits);
    let right = |(key, hit): (&Key6, &Option<Hit>)| hit.is_some_and(|hit| hit.target == target(key.client));
    assert!(keys.iter().zip(&hits).all(right));
}
