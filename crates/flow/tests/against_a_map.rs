//! The table against a `HashMap`, by random histories.
#![cfg(not(loom))]

use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;
use vipa_flow::{
    Admitted, AgeLimits, Capacity, Confirmed, Counts, Cursor, FlowState, FlowTable, HashSeed, Key4, REFRESH_INTERVAL,
    Tick,
};
use vipa_model::{Protocol, TargetId, VipaId};

#[derive(Clone, Debug)]
enum Step {
    Admit(Key4, TargetId, FlowState),
    Confirm(Key4, TargetId, FlowState),
    Touch(Key4, FlowState),
    Redirect(Key4, TargetId, FlowState),
    Remove(Key4, Option<TargetId>),
    End(Key4, TargetId),
    Pass(u32),
    Age(u32),
}

/// Few keys, so that the same ones occur again and again.
fn keys() -> impl Strategy<Value = Key4> {
    (0..20_u32, 0..2_u16, 0..2_u16, 0..2_u16, any::<bool>()).prop_map(|(client, port, service, vipa, tcp)| Key4 {
        client: 0xcb00_7100 + client,
        client_port: 40_000 + port,
        vipa_port: 80 + service,
        vipa: VipaId(vipa),
        protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
    })
}

fn states() -> impl Strategy<Value = FlowState> {
    proptest::sample::select(FlowState::ALL.as_slice())
}

fn targets() -> impl Strategy<Value = TargetId> {
    (0..4_u16).prop_map(TargetId)
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (keys(), targets(), states()).prop_map(|(key, target, state)| Step::Admit(key, target, state)),
        4 => (keys(), targets(), states()).prop_map(|(key, target, state)| Step::Confirm(key, target, state)),
        4 => (keys(), states()).prop_map(|(key, state)| Step::Touch(key, state)),
        1 => (keys(), targets(), states()).prop_map(|(key, target, state)| Step::Redirect(key, target, state)),
        4 => (keys(), proptest::option::of(targets())).prop_map(|(key, target)| Step::Remove(key, target)),
        4 => (keys(), targets()).prop_map(|(key, target)| Step::End(key, target)),
        1 => (0..100_u32).prop_map(Step::Pass),
        1 => (0..100_u32).prop_map(Step::Age),
    ]
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Entry {
    target: TargetId,
    state: FlowState,
    tick: u32,
}

/// The expected contents of a table that never has to evict.
#[derive(Default)]
struct Model {
    now: u32,
    entries: HashMap<Key4, Entry>,
}

impl Model {
    fn take(&mut self, table: &FlowTable, step: &Step) {
        let now = Tick(self.now);
        match *step {
            Step::Admit(key, target, state) => {
                let admitted = table.admit(&key, target, state, now);
                match self.entries.get(&key) {
                    Some(entry) => {
                        let Admitted::Existing(hit) = admitted else { panic!("{admitted:?}") };
                        assert_eq!((hit.target, hit.state), (entry.target, entry.state));
                    }
                    None => {
                        assert_eq!(admitted, Admitted::Opened);
                        self.entries.insert(key, Entry { target, state, tick: self.now });
                    }
                }
            }
            Step::Confirm(key, target, mut state) => {
                let before = self.entries.get(&key).copied();
                let expected = match before {
                    None => Confirmed::New,
                    Some(entry) if entry.target == target => Confirmed::Known,
                    Some(entry) => Confirmed::Replaced(entry.target),
                };
                assert_eq!(table.confirm(&key, target, state, now), expected);
                if let Some(entry) = before.filter(|entry| entry.target == target) {
                    let is_recent = self.now - entry.tick < u32::from(REFRESH_INTERVAL);
                    state = match (state, entry.state) {
                        (FlowState::HalfOpen, FlowState::Open | FlowState::Confirmed | FlowState::Reopened)
                        | (FlowState::Confirmed, FlowState::Reopened) => entry.state,
                        (FlowState::Confirmed, FlowState::HalfOpen) if is_recent => FlowState::Reopened,
                        _ => state,
                    };
                }
                // A reported half-open connection is no SYN that passes here; one that has passed remains as recent as
                // before.
                let tick = match (state, before) {
                    (FlowState::HalfOpen, Some(Entry { state: FlowState::HalfOpen, tick, .. })) => tick,
                    (FlowState::HalfOpen, _) => self.now - u32::from(REFRESH_INTERVAL),
                    _ => self.now,
                };
                self.entries.insert(key, Entry { target, state, tick });
            }
            Step::Touch(key, state) => {
                if let Some(hit) = table.lookup(&key) {
                    table.touch(&hit, state, now);
                }
                if let Some(entry) = self.entries.get_mut(&key) {
                    *entry = Entry { state, tick: self.now, ..*entry };
                }
            }
            Step::Redirect(key, target, state) => {
                let hit = table.lookup(&key);
                assert_eq!(hit.is_some(), self.entries.contains_key(&key));
                if let Some(hit) = hit {
                    assert!(table.redirect(&hit, target, state, now));
                    self.entries.insert(key, Entry { target, state, tick: self.now });
                }
            }
            Step::Remove(key, target) => {
                let there = self.entries.get(&key).is_some_and(|entry| target.is_none_or(|it| it == entry.target));
                assert_eq!(table.remove(&key, target), there);
                if there {
                    self.entries.remove(&key);
                }
            }
            Step::End(key, target) => {
                let held = self.entries.get_mut(&key).filter(|entry| entry.target == target && entry.state.is_held());
                assert_eq!(table.end(&key, target, now), held.is_some());
                if let Some(entry) = held {
                    let is_next =
                        entry.state == FlowState::Reopened && self.now - entry.tick < u32::from(REFRESH_INTERVAL);
                    let state = if is_next { FlowState::HalfOpen } else { FlowState::Ended };
                    *entry = Entry { state, tick: self.now, ..*entry };
                }
            }
            Step::Pass(ticks) => self.now += ticks,
            Step::Age(limit) => {
                let age = Duration::from_millis(u64::from(limit) * 250);
                let limits = AgeLimits {
                    half_open: age,
                    open: age,
                    confirmed: age,
                    closing: age,
                    udp: age,
                    ended: age,
                    unreported: age,
                };
                let aged = table.age(&mut Cursor::default(), usize::MAX / 2, now, &limits);
                let before = self.entries.len();
                let limit_of = |state| match state {
                    FlowState::Ended | FlowState::HalfOpen | FlowState::Udp => limit,
                    FlowState::Reopened | FlowState::Open | FlowState::Confirmed | FlowState::Closing => {
                        limit + u32::from(REFRESH_INTERVAL)
                    }
                };
                self.entries.retain(|_, entry| self.now - entry.tick <= limit_of(entry.state));
                assert_eq!(aged.removed.total() as usize, before - self.entries.len());
            }
        }
    }

    fn assert_equals(&self, table: &FlowTable) {
        let of = |state| self.entries.values().filter(|entry| entry.state == state).count() as u64;
        let [ended, half_open, reopened, open, confirmed, closing, udp] = FlowState::ALL.map(of);
        assert_eq!(table.count(), Counts { ended, half_open, reopened, open, confirmed, closing, udp });
        for target in self.entries.values().map(|entry| entry.target) {
            let is_held = |entry: &&Entry| entry.target == target && entry.state.is_held();
            assert_eq!(table.held(target), self.entries.values().filter(is_held).count() as u64);
        }
        let keys: Vec<_> = self.entries.keys().copied().collect();
        let mut hits = vec![None; keys.len()];
        table.lookup_batch(&keys, &mut hits);
        for (key, hit) in keys.iter().zip(hits) {
            let entry = self.entries[key];
            assert_eq!(hit.map(|hit| (hit.target, hit.state)), Some((entry.target, entry.state)), "{key:?}");
        }
        let mut named = 0;
        for vipa in 0..2 {
            table.export(VipaId(vipa), &mut |key, target, state| {
                assert_eq!(key.vipa, VipaId(vipa));
                assert_eq!(self.entries.get(&key).map(|entry| (entry.target, entry.state)), Some((target, state)));
                named += 1;
            });
        }
        assert_eq!(named, self.entries.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_table_with_room_is_a_map(seed: [u64; 4], steps in proptest::collection::vec(steps(), 1..300)) {
        let table = FlowTable::new(Capacity::connections(2_000), HashSeed::new(seed)).unwrap();
        let mut model = Model { now: 60_000, ..Model::default() };
        for step in &steps {
            model.take(&table, step);
        }
        model.assert_equals(&table);
    }

    /// A table that must evict still never finds a wrong entry, and its counts are right.
    #[test]
    fn a_crowded_table_forgets_but_never_lies(
        seed: [u64; 4],
        admissions in proptest::collection::vec((keys(), targets(), states(), any::<bool>()), 1..400),
    ) {
        let table = FlowTable::new(Capacity::connections(30), HashSeed::new(seed)).unwrap();
        let mut last = HashMap::new();
        for (i, &(key, target, state, reported)) in admissions.iter().enumerate() {
            let now = Tick(i as u32 * 10);
            let there = if reported {
                table.confirm(&key, target, state, now) != Confirmed::Full
            } else {
                let admitted = table.admit(&key, target, state, now);
                matches!(admitted, Admitted::Opened | Admitted::OpenedEvicting(_))
            };
            if there {
                last.insert(key, target);
            }
        }
        let found = last.iter().filter_map(|(key, target)| Some((target, table.lookup(key)?.target)));
        let found: Vec<_> = found.collect();
        prop_assert!(found.iter().all(|(told, found)| **told == *found));
        prop_assert_eq!(found.len() as u64, table.count().total());
    }

    #[test]
    fn no_two_keys_are_taken_for_one(seed: [u64; 4], a in any::<(u32, u16, u16, u16, bool)>(), bit in 0..77_u32) {
        let key = |(client, client_port, vipa_port, vipa, tcp): (u32, u16, u16, u16, bool)| Key4 {
            client, client_port, vipa_port, vipa: VipaId(vipa % vipa_flow::MAX_VIPAS),
            protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
        };
        let mut b = a;
        match bit {
            0..32 => b.0 ^= 1 << bit,
            32..48 => b.1 ^= 1 << (bit - 32),
            48..64 => b.2 ^= 1 << (bit - 48),
            64..76 => b.3 ^= 1 << (bit - 64),
            _ => b.4 = !b.4,
        }
        let table = FlowTable::new(Capacity::connections(1), HashSeed::new(seed)).unwrap();
        table.admit(&key(a), TargetId(1), FlowState::Open, Tick(0));
        prop_assert!(table.lookup(&key(a)).is_some());
        prop_assert_eq!(table.lookup(&key(b)), None);
    }
}
