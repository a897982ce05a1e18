//! P4: the connection table alone. Lookups are batches of 32 random known connections, the packets of an established
//! load, at three quarters full; no key is looked up twice in a round.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use vipa_flow::{BATCH, Capacity, Confirmed, FlowState, FlowTable, HashSeed, Key4, Pages, Tick};
use vipa_model::{Protocol, TargetId, VipaId};

use crate::{
    figure::{Case, Owed, median},
    machine::{Machine, on_core},
};

const NOW: Tick = Tick(1_000);
const ROUNDS: usize = 5;
/// Of one round.
const LOOKUPS: usize = 4 << 20;
/// Connections ahead for which memory is asked, as control does when it takes reports in.
const AHEAD: usize = 8;

/// Connections, and lookups a second owed, in millions.
const SIZES: [(usize, f64, &str); 3] =
    [(1_000_000, 40.0, "1 M"), (10_000_000, 30.0, "10 M"), (100_000_000, 20.0, "100 M")];

/// Bytes of a connection in use at three quarters full.
const OWED_BYTES: f64 = 22.0;

pub(crate) fn measure(machine: &Machine) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (connections, owed, name) in SIZES {
        cases.extend(on_core(machine.measured, || measure_size(connections, owed, name))?);
    }
    Ok(cases)
}

fn measure_size(connections: usize, owed: f64, name: &str) -> anyhow::Result<Vec<Case>> {
    let table = FlowTable::new(Capacity::connections(connections), HashSeed::random())?;
    let filling = Instant::now();
    let lost = fill(&table, connections);
    let filled = filling.elapsed().as_secs_f64();
    let rates: Vec<f64> =
        (0..ROUNDS).map(|round| lookups_per_second(&table, connections, round as u64) / 1e6).collect();
    let in_use = table.count().total() as f64;
    let hugepages = f64::from(u8::from(table.pages() == Pages::Huge));
    Ok(vec![
        Case::new(format!("lookups, {name} connections"), median(&rates), "M/s", Owed::AtLeast(owed))
            .beside("connections", in_use)
            .beside("reserved_hugepages", hugepages)
            .beside("confirmed_mps", connections as f64 / filled / 1e6),
        Case::new(
            format!("memory, {name} connections"),
            table.bytes() as f64 / in_use,
            "bytes",
            Owed::AtMost(OWED_BYTES),
        )
        .beside("load", in_use / table.slots() as f64),
        Case::new(format!("refused, filled to {name} exactly"), lost as f64, "connections", Owed::AtMost(0.0)),
    ])
}

/// Says how many found no place.
fn fill(table: &FlowTable, connections: usize) -> usize {
    let mut lost = 0;
    for n in 0..connections {
        table.prefetch(&key((n + AHEAD) as u64));
        let confirmed = table.confirm(&key(n as u64), TargetId((n % 64) as u16), FlowState::Confirmed, NOW);
        lost += usize::from(confirmed != Confirmed::New);
    }
    lost
}

fn lookups_per_second(table: &FlowTable, connections: usize, round: u64) -> f64 {
    let mut random = Random::new(round);
    // Beforehand, so that making keys is not measured; read in order, as packets are.
    let keys: Vec<Key4> = (0..LOOKUPS).map(|_| key(random.below(connections as u64))).collect();
    let mut hits = [None; BATCH];
    let (mut found, start) = (0, Instant::now());
    for keys in keys.chunks_exact(BATCH) {
        table.lookup_batch(keys, &mut hits);
        found += black_box(&hits).iter().flatten().count();
    }
    let elapsed: Duration = start.elapsed();
    assert!(found * 1_000 >= LOOKUPS * 999, "{found} of {LOOKUPS} found");
    LOOKUPS as f64 / elapsed.as_secs_f64()
}

/// The `n`-th connection: clients as they come, not in any order that suits the table.
fn key(n: u64) -> Key4 {
    let scattered = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32;
    Key4 {
        client: scattered,
        client_port: 1_024 + (n % 50_000) as u16,
        vipa_port: 80,
        vipa: VipaId(1),
        protocol: Protocol::Tcp,
    }
}

/// xorshift64* (Vigna 2016).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(drawn) * u128::from(limit)) >> 64) as u64
    }
}
