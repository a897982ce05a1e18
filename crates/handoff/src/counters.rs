//! What each worker counts, and their sum.
//!
//! Always `received = Σ fates + holding`, to the packet, whenever a worker is between two turns.

use vipa_model::{MAX_VIPAS, VipaId};
use vipa_sync::{WorkerCounterList, WorkerCounters};

use crate::Fate;

/// What a worker counts beside fates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Count {
    /// Packets the ports gave us.
    Received,
    /// Packets the ports took from us: forwarded and answered ones, and control's.
    Sent,
    /// Packets that began to be held.
    Held,
    /// Held packets whose connection became known, or whose service's orphan policy came to apply.
    Released,
    /// Packets held now. The only one that falls.
    Holding,
    FlowOpened,
    /// Packets of connections for which the table had no place, forwarded by hash.
    FlowUnrecorded,
    /// Entries removed because nothing was heard of them for long.
    FlowAged,
    /// Of the forwarded: those that came back from a `nat` target.
    Returned,
    /// SYNs whose maximum segment size was lowered.
    MssClamped,
    /// Further parts made of IPv4 packets that were too big for their way and may be cut.
    PartSent,
    /// Control's frames that were sent, and that no port took.
    FrameSent,
    FrameRefused,
}

impl Count {
    pub const ALL: [Self; 13] = [
        Self::Received,
        Self::Sent,
        Self::Held,
        Self::Released,
        Self::Holding,
        Self::FlowOpened,
        Self::FlowUnrecorded,
        Self::FlowAged,
        Self::Returned,
        Self::MssClamped,
        Self::PartSent,
        Self::FrameSent,
        Self::FrameRefused,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Sent => "sent",
            Self::Held => "held",
            Self::Released => "released",
            Self::Holding => "holding",
            Self::FlowOpened => "flow.opened",
            Self::FlowUnrecorded => "flow.unrecorded",
            Self::FlowAged => "flow.aged",
            Self::Returned => "returned",
            Self::MssClamped => "mss.clamped",
            Self::PartSent => "part.sent",
            Self::FrameSent => "frame.sent",
            Self::FrameRefused => "frame.refused",
        }
    }
}

const CELLS: usize = Count::ALL.len() + Fate::COUNT;

/// Anything that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CounterId {
    Count(Count),
    Fate(Fate),
}

impl CounterId {
    pub const COUNT: usize = CELLS;

    #[inline]
    const fn index(self) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Fate(fate) => Count::ALL.len() + fate.index(),
        }
    }

    pub fn all() -> impl Iterator<Item = Self> {
        Count::ALL.into_iter().map(Self::Count).chain(Fate::all().map(Self::Fate))
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count(count) => count.name(),
            Self::Fate(fate) => fate.name(),
        }
    }
}

impl From<Count> for CounterId {
    fn from(count: Count) -> Self {
        Self::Count(count)
    }
}

impl From<Fate> for CounterId {
    fn from(fate: Fate) -> Self {
        Self::Fate(fate)
    }
}

/// One worker's counters: written by it alone, read by anybody.
#[derive(Default)]
pub struct Counters {
    cells: WorkerCounters<CELLS>,
}

impl Counters {
    /// The owning worker only.
    #[inline]
    pub fn add(&self, cell: impl Into<CounterId>, n: u64) {
        self.cells.add(cell.into().index(), n);
    }

    /// For what can fall. The owning worker only.
    #[inline]
    pub fn set(&self, cell: impl Into<CounterId>, n: u64) {
        self.cells.set(cell.into().index(), n);
    }

    #[must_use]
    pub fn read(&self, cell: impl Into<CounterId>) -> u64 {
        self.cells.read(cell.into().index())
    }

    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        totals.add(self);
        totals
    }
}

/// All counters at one moment, of one worker or summed over several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    cells: Box<[u64; CELLS]>,
}

impl Default for Totals {
    fn default() -> Self {
        Self { cells: Box::new([0; CELLS]) }
    }
}

impl Totals {
    /// Adds what `counters` says now.
    pub fn add(&mut self, counters: &Counters) {
        for (i, cell) in self.cells.iter_mut().enumerate() {
            *cell = cell.wrapping_add(counters.cells.read(i));
        }
    }

    #[must_use]
    pub fn get(&self, cell: impl Into<CounterId>) -> u64 {
        self.cells[cell.into().index()]
    }

    #[must_use]
    pub fn fate(&self, fate: Fate) -> u64 {
        self.get(fate)
    }

    #[must_use]
    pub fn count(&self, count: Count) -> u64 {
        self.get(count)
    }

    /// Everything that was counted, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        CounterId::all().map(|cell| (cell.name(), self.get(cell)))
    }

    /// Whether every received packet has its one fate or is held. True of a worker between two turns; a moment caught
    /// within a turn may miss a burst.
    #[must_use]
    pub fn add_up(&self) -> bool {
        let fates: u64 = Fate::all().map(|fate| self.fate(fate)).sum();
        self.count(Count::Received) == fates + self.count(Count::Holding)
    }

    /// What was counted since `earlier`; a gauge that fell shows as 0.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        for (cell, before) in difference.cells.iter_mut().zip(earlier.cells.iter()) {
            *cell = cell.saturating_sub(*before);
        }
        difference
    }
}

/// What a worker counts for each VIPA, for takeover reports. Packets' later parts bear no ports and are not counted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum VipaCount {
    /// Packets that began to be held.
    Held,
    /// Held packets that were sent on.
    Released,
    /// Held packets whose time was over.
    Expired,
    /// Held packets that are held no longer, whatever became of them.
    Left,
    /// Packets forwarded while a VIPA of this router was being rebuilt.
    Forwarded,
}

const VIPA_COUNTS: usize = 5;

/// One worker's counters by VIPA: written by it alone, read by anybody.
pub struct VipaCounters {
    cells: WorkerCounterList,
}

impl Default for VipaCounters {
    fn default() -> Self {
        Self { cells: WorkerCounterList::new(MAX_VIPAS * VIPA_COUNTS) }
    }
}

impl VipaCounters {
    /// The owning worker only.
    #[inline]
    pub fn add(&self, vipa: VipaId, count: VipaCount, n: u64) {
        self.cells.add(usize::from(vipa.0) * VIPA_COUNTS + count as usize, n);
    }

    fn read(&self, vipa: VipaId, count: VipaCount) -> u64 {
        self.cells.read(usize::from(vipa.0) * VIPA_COUNTS + count as usize)
    }
}

/// What the workers have counted for one VIPA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipaTotals {
    pub held: u64,
    pub released: u64,
    pub expired: u64,
    pub left: u64,
    pub forwarded: u64,
}

impl VipaTotals {
    /// Adds what `counters` says now of `vipa`.
    pub fn add(&mut self, vipa: VipaId, counters: &VipaCounters) {
        let Self { held, released, expired, left, forwarded } = self;
        *held += counters.read(vipa, VipaCount::Held);
        *released += counters.read(vipa, VipaCount::Released);
        *expired += counters.read(vipa, VipaCount::Expired);
        *left += counters.read(vipa, VipaCount::Left);
        *forwarded += counters.read(vipa, VipaCount::Forwarded);
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let Self { held, released, expired, left, forwarded } = *self;
        Self {
            held: held - earlier.held,
            released: released - earlier.released,
            expired: expired - earlier.expired,
            left: left - earlier.left,
            forwarded: forwarded - earlier.forwarded,
        }
    }

    /// Whether no packet is held now.
    #[must_use]
    pub fn holds_nothing(&self) -> bool {
        self.left >= self.held
    }
}

#[cfg(test)]
mod tests;
