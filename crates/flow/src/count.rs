//! How many connections there are, by state.

use vipa_model::TargetId;

use crate::{
    atomics::{AtomicU64, Ordering},
    word::{FlowState, MAX_TARGETS},
};

/// Connections in the table, by state. Taken while others write: each number is right at a moment of its own.
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

    /// Connections: all entries but those that outlive theirs for a moment.
    #[must_use]
    pub fn live(&self) -> u64 {
        let Self { ended: _, half_open, reopened, open, confirmed, closing, udp } = *self;
        half_open + reopened + open + confirmed + closing + udp
    }

    /// By number of state.
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

/// So many that two workers rarely meet at one.
const SHARDS: usize = if cfg!(loom) { 1 } else { 64 };

/// One count per state and shard of the table; a connection may come in one and go out of another, so only the sums
/// mean something.
pub(crate) struct TableCounters {
    shards: Box<[Shard]>,
    evicted: Box<[Evicted]>,
}

/// Of one shard, over the life of the table.
#[derive(Default)]
#[repr(align(128))]
struct Evicted(AtomicU64);

/// How many entries each target holds, which its reports have confirmed. Reports come from one thread, and workers change
/// such an entry's target or take it out only when an agent has been away, so one number a target is enough.
pub(crate) struct HeldCounts(Box<[AtomicU64]>);

impl HeldCounts {
    pub(crate) fn new() -> Self {
        // The model checker's work grows with every access; nothing in it depends on these numbers.
        let targets = if cfg!(loom) { 0 } else { usize::from(MAX_TARGETS) };
        Self((0..targets).map(|_| AtomicU64::new(0)).collect())
    }

    // Relaxed, here and below: the numbers carry nothing but themselves.
    #[inline]
    pub(crate) fn came(&self, target: TargetId, state: FlowState) {
        if let Some(held) = self.0.get(usize::from(target.0)).filter(|_| state.is_held()) {
            held.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn went(&self, target: TargetId, state: FlowState) {
        if let Some(held) = self.0.get(usize::from(target.0)).filter(|_| state.is_held()) {
            held.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn of(&self, target: TargetId) -> u64 {
        let held = self.0.get(usize::from(target.0)).map_or(0, |held| held.load(Ordering::Relaxed));
        // A departure may be seen before its arrival.
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

    // Relaxed, here and below: the numbers carry nothing but themselves.
    pub(crate) fn came(&self, bucket: usize, state: FlowState) {
        self.shards[bucket % SHARDS].0[state.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn went(&self, bucket: usize, state: FlowState) {
        self.shards[bucket % SHARDS].0[state.index()].fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn evicted(&self, bucket: usize) {
        self.evicted[bucket % SHARDS].0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn evictions(&self) -> u64 {
        self.evicted.iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn sum(&self) -> Counts {
        Counts::of(FlowState::ALL.map(|state| {
            let sum = |sum: u64, shard: &Shard| sum.wrapping_add(shard.0[state.index()].load(Ordering::Relaxed));
            // A departure may be seen before its arrival.
            (self.shards.iter().fold(0, sum) as i64).max(0) as u64
        }))
    }
}
