//! Identifiers of VIPAs and paths: the small numbers that the connection table keeps for every connection. There are few of
//! them, so each is given back once nothing names it, and is then given to another VIPA or path.
//!
//! ```text
//!          no list names it            workers have moved on         a walk of the table
//!  in use ─────────────────► Retired ─────────────────────► Drained ────────────────────► Quarantined ─┐
//!    ▲                          │                             │  ▲  met no entry of it        │        │ QUARANTINE
//!    │ named again              │                             │  └─ met one                   │        ▼
//!    └──────────────────────────┴─────────────────────────────┴───────────────────────────────┘    Vacated
//!                                                                                                      │
//!  free ◄── workers have moved on twice more, and every task that began before that has ended ─────────┘
//! ```
//! Up to `Quarantined` an identifier stands for what it always stood for: the connections that it has go on. From `Vacated`
//! on it stands for nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

use vipa_model::{MAX_PATHS, MAX_VIPAS, Moment, TargetId, VipaId};
use vipa_sync::Versions;

/// Between the walk that met no entry and the end of the identifier: what workers remember of a packet, such as where the
/// later fragments of a datagram go, is older than that by then.
pub(crate) const QUARANTINE: Duration = Duration::from_secs(30);

/// What identifiers are made of.
pub(crate) trait Identifier: Copy + Ord {
    /// There are so many.
    const COUNT: usize;
    fn new(index: u16) -> Self;
}

impl Identifier for VipaId {
    const COUNT: usize = MAX_VIPAS;

    fn new(index: u16) -> Self {
        Self(index)
    }
}

impl Identifier for TargetId {
    const COUNT: usize = MAX_PATHS;

    fn new(index: u16) -> Self {
        Self(index)
    }
}

/// The identifiers of one kind.
#[derive(Debug)]
pub(crate) struct Identifiers<I> {
    /// So many have ever been given out: those below this number.
    given: u16,
    free: BTreeSet<I>,
    retired: BTreeMap<I, Stage>,
    /// Some have been drained since the last walk began.
    has_news: bool,
    counts: IdentifierCounts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdentifierCounts {
    pub(crate) retired: u64,
    pub(crate) reused: u64,
    /// None was free.
    pub(crate) exhausted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Workers may still name it, until they have seen this snapshot.
    Retired {
        until: u64,
    },
    Drained,
    /// The walk that is under way began after all workers had moved on.
    HashedKey,
    Quarantined {
        until: Moment,
    },
    /// It stands for nothing; free once the workers have seen this snapshot and tasks up to this one have ended.
    Vacated {
        until: u64,
        task: u64,
    },
}

impl<I> Default for Identifiers<I> {
    fn default() -> Self {
        Self {
            given: 0,
            free: BTreeSet::new(),
            retired: BTreeMap::new(),
            has_news: false,
            counts: IdentifierCounts::default(),
        }
    }
}

impl<I: Identifier> Identifiers<I> {
    /// One that names nothing yet; `None`, and counted, when there is none.
    pub(crate) fn take(&mut self) -> Option<I> {
        if let Some(id) = self.free.pop_first() {
            self.counts.reused += 1;
            return Some(id);
        }
        if usize::from(self.given) >= I::COUNT {
            self.counts.exhausted += 1;
            return None;
        }
        self.given += 1;
        Some(I::new(self.given - 1))
    }

    /// How many can be taken now.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + I::COUNT - usize::from(self.given)
    }

    pub(crate) fn counts(&self) -> IdentifierCounts {
        self.counts
    }

    /// No list names it any more. What is on its way already changes nothing. True if it is news.
    pub(crate) fn retire(&mut self, id: I, snapshots: Versions) -> bool {
        let is_new = !self.retired.contains_key(&id);
        if is_new {
            self.counts.retired += 1;
            self.retired.insert(id, Stage::Retired { until: snapshots.newest + 1 });
        }
        is_new
    }

    /// A list names it again. It must not be vacated.
    pub(crate) fn revive(&mut self, id: I) {
        if !self.retired.is_empty() {
            let stage = self.retired.remove(&id);
            debug_assert!(!matches!(stage, Some(Stage::Vacated { .. })), "it stands for nothing");
        }
    }

    /// Takes in how far the workers are. The snapshot that must be published for this to go on, if it has not been yet.
    pub(crate) fn advance(&mut self, snapshots: Versions) -> Option<u64> {
        let mut wanted = None;
        for stage in self.retired.values_mut() {
            match *stage {
                Stage::Retired { until } if until <= snapshots.seen => {
                    *stage = Stage::Drained;
                    self.has_news = true;
                }
                Stage::Retired { until } | Stage::Vacated { until, .. } => wanted = wanted.max(Some(until)),
                Stage::Drained | Stage::HashedKey | Stage::Quarantined { .. } => {}
            }
        }
        wanted.filter(|wanted| *wanted > snapshots.newest)
    }

    /// Whether a walk of the table would tell anything.
    pub(crate) fn has_drained(&self) -> bool {
        self.retired.values().any(|stage| *stage == Stage::Drained)
    }

    /// Whether there are any that no walk has looked for yet.
    pub(crate) fn has_news(&self) -> bool {
        self.has_news
    }

    /// A walk of the table begins now. These are the ones to look for.
    pub(crate) fn begin_walk(&mut self) -> BTreeSet<I> {
        self.has_news = false;
        let drained = self.retired.iter_mut().filter(|(_, stage)| **stage == Stage::Drained);
        drained.map(|(id, stage)| (*id, *stage = Stage::HashedKey).0).collect()
    }

    /// The walk is over; `met` says which identifiers an entry had.
    pub(crate) fn end_walk(&mut self, met: impl Fn(I) -> bool, now: Moment) {
        for (id, stage) in self.retired.iter_mut().filter(|(_, stage)| **stage == Stage::HashedKey) {
            *stage = if met(*id) { Stage::Drained } else { Stage::Quarantined { until: now + QUARANTINE } };
        }
    }

    /// Those whose quarantine is over. Each is to be vacated or kept.
    pub(crate) fn over(&self, now: Moment) -> Vec<I> {
        let is_over = |stage: &Stage| matches!(stage, Stage::Quarantined { until } if *until <= now);
        self.retired.iter().filter(|(_, stage)| is_over(stage)).map(|(id, _)| *id).collect()
    }

    /// It stands for nothing from now on. `task`: the youngest task that may still have it.
    pub(crate) fn vacate(&mut self, id: I, snapshots: Versions, task: u64) {
        self.retired.insert(id, Stage::Vacated { until: snapshots.newest + 2, task });
    }

    /// Something of control names it still.
    pub(crate) fn keep(&mut self, id: I) {
        self.retired.insert(id, Stage::Drained);
    }

    /// Those that become free now: the workers have moved on, and every task before `oldest` has ended.
    pub(crate) fn release(&mut self, snapshots: Versions, oldest: u64) -> Vec<I> {
        let is_free = |stage: &Stage| matches!(stage, Stage::Vacated { until, task } if *until <= snapshots.seen && *task < oldest);
        let freed: Vec<I> = self.retired.iter().filter(|(_, stage)| is_free(stage)).map(|(id, _)| *id).collect();
        for id in &freed {
            self.retired.remove(id);
            self.free.insert(*id);
        }
        freed
    }
}

/// The tasks beside the loop that work with identifiers: each holds a part of the number under which it began.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    current: u64,
    hold: Arc<()>,
    /// Earlier numbers whose tasks go on still, oldest first. There are no more of them than such tasks.
    earlier: Vec<(u64, Weak<()>)>,
}

/// For as long as this lives, no identifier that its owner may have stands for anything else.
#[derive(Clone, Debug)]
pub(crate) struct TaskHold {
    _hold: Arc<()>,
}

impl Tasks {
    /// For a task that begins now.
    pub(crate) fn hold(&self) -> TaskHold {
        TaskHold { _hold: Arc::clone(&self.hold) }
    }

    /// Tasks that begin from now on have a number of their own. The number of those before.
    pub(crate) fn renew(&mut self) -> u64 {
        let before = std::mem::take(&mut self.hold);
        self.earlier.push((self.current, Arc::downgrade(&before)));
        drop(before);
        self.earlier.retain(|(_, hold)| hold.strong_count() > 0);
        self.current += 1;
        self.current - 1
    }

    /// Tasks with lower numbers have ended.
    pub(crate) fn oldest(&self) -> u64 {
        let earlier = self.earlier.iter().find(|(_, hold)| hold.strong_count() > 0);
        earlier.map_or(self.current, |(number, _)| *number)
    }
}

#[cfg(test)]
mod tests;
