//! Numbers of connections, by state.

use vipa_model::TargetId;

use crate::{
    atomics::{AtomicU64, Ordering},
    word::{FlowState, MAX_TARGETS},
};

/// Entries in the table, by state. Read while other threads write: each number is right at a moment of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub ended: u64,
    pub half_open: u64,
    pub reopened: u64,
    pub open: u64,
    pub confirmed: u64,
    pub closing: u64,
    pub udp: u64,
}

impl Counts {
    /// All entries.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.live() + self.ended
    }

    /// Connections: all entries but ended ones, which outlive their connections for a moment.
    #[must_use]
    pub fn live(&self) -> u64 {
        let Self { ended: _, half_open, reopened, open, confirmed, closing, udp } = *self;
        half_open + reopened + open + confirmed + closing + udp
    }

    /// From the numbers in the order of [`FlowState::ALL`].
    pub(crate) fn of(by_state: [u64; FlowState::ALL.len()]) -> Self {
        let [ended, half_open, reopened, open, confirmed, closing, udp] = by_state;
        Self { ended, half_open, reopened, open, confirmed, closing, udp }
    }
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            ended: self.ended + other.ended,
            half_open: self.half_open + other.half_open,
            reopened: self.reopened + other.reopened,
            open: self.open + other.open,
            confirmed: self.confirmed + other.confirmed,
            closing: self.closing + other.closing,
            udp: self.udp + other.udp,
        }
    }
}

/// Shards of the counters: enough that two workers rarely write to the same one.
const SHARDS: usize = if cfg!(loom) { 1 } else { 64 };

/// Entries by state, one counter per state and shard. An entry may be added in one shard and removed in another, so
/// only the sums over all shards have a meaning.
pub(crate) struct TableCounters {
    shards: Box<[Shard]>,
    evicted: Box<[Evicted]>,
}

/// Evictions of one shard, over the life of the table.
#[derive(Default)]
#[repr(align(128))]
struct Evicted(AtomicU64);

/// Confirmed entries of each target. One number per target is enough: reports come from one thread, and workers change
/// the target of a confirmed entry or remove it only when an agent has been away.
pub(crate) struct HeldCounts(Box<[AtomicU64]>);

impl HeldCounts {
    pub(crate) fn new() -> Self {
        // Empty under the model checker: its work grows with every access, and nothing in it depends on these numbers.
        let targets = if cfg!(loom) { 0 } else { usize::from(MAX_TARGETS) };
        Self((0..targets).map(|_| AtomicU64::new(0)).collect())
    }

    // Relaxed, here and below: no other memory depends on these numbers.
    #[inline]
    pub(crate) fn add(&self, target: TargetId, state: FlowState) {
        if let Some(held) = self.0.get(usize::from(target.0)).filter(|_| state.is_held()) {
            held.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn remove(&self, target: TargetId, state: FlowState) {
        if let Some(held) = self.0.get(usize::from(target.0)).filter(|_| state.is_held()) {
            held.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn of(&self, target: TargetId) -> u64 {
        let held = self.0.get(usize::from(target.0)).map_or(0, |held| held.load(Ordering::Relaxed));
        // A removal may be seen before its addition.
        (held as i64).max(0) as u64
    }
}

#[repr(align(128))]
struct Shard([AtomicU64; FlowState::ALL.len()]);

impl TableCounters {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard(std::array::from_fn(|_| AtomicU64::new(0)))).collect(),
            evicted: (0..SHARDS).map(|_| Evicted::default()).collect(),
        }
    }

    // Relaxed, here and below: no other memory depends on these numbers.
    pub(crate) fn add(&self, bucket: usize, state: FlowState) {
        self.shards[bucket % SHARDS].0[state.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, bucket: usize, state: FlowState) {
        self.shards[bucket % SHARDS].0[state.index()].fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn add_eviction(&self, bucket: usize) {
        self.evicted[bucket % SHARDS].0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn evictions(&self) -> u64 {
        self.evicted.iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn sum(&self) -> Counts {
        Counts::of(FlowState::ALL.map(|state| {
            let sum = |sum: u64, shard: &Shard| sum.wrapping_add(shard.0[state.index()].load(Ordering::Relaxed));
            // A removal may be seen before its addition.
            (self.shards.iter().fold(0, sum) as i64).max(0) as u64
        }))
    }
}
