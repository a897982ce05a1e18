//! Sets of targets, one bit for each: targets with linked agents, and targets whose entries differ from their reports.

use vipa_model::TargetId;

use crate::{
    atomics::{AtomicU64, Ordering},
    word::MAX_TARGETS,
};

/// Words of a set. One under the model checker, whose work grows with every load.
const WORDS: usize = if cfg!(loom) { 1 } else { MAX_TARGETS as usize / 64 };

/// One bit for each [`TargetId`].
pub(crate) struct TargetSet(Box<[AtomicU64]>);

impl TargetSet {
    pub(crate) fn new() -> Self {
        Self((0..WORDS).map(|_| AtomicU64::new(0)).collect())
    }

    // Relaxed, here and below: no other memory depends on a bit.
    pub(crate) fn set(&self, target: TargetId, member: bool) {
        let (word, bit) = self.place(target);
        if member {
            word.fetch_or(bit, Ordering::Relaxed);
        } else {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn has(&self, target: TargetId) -> bool {
        let (word, bit) = self.place(target);
        word.load(Ordering::Relaxed) & bit != 0
    }

    #[inline]
    fn place(&self, target: TargetId) -> (&AtomicU64, u64) {
        (&self.0[usize::from(target.0 / 64) % WORDS], 1 << (target.0 % 64))
    }
}
