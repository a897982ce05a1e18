//! Counters of each worker, and their sum.
//!
//! Invariant, to the packet, whenever a worker is between two turns: `received = Σ fates + holding`.

use vipa_model::{MAX_VIPAS, VipaId};
use vipa_sync::{WorkerCounterList, WorkerCounters};

use crate::Fate;

/// Counters of a worker beside those of fates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Count {
    /// Packets received from ports.
    Received,
    /// Packets that ports took for transmission: forwarded and answered ones, and control's.
    Sent,
    /// Packets that began to be held.
    Held,
    /// Held packets whose connection became known, or to which the service's orphan policy was applied.
    Released,
    /// Packets held now. The only gauge.
    Holding,
    FlowOpened,
    /// Packets of connections for which the table had no slot, forwarded by hash.
    FlowUnrecorded,
    /// Entries removed because no packet or report refreshed them for long.
    FlowAged,
    /// Forwarded packets that came from a `nat` target on their way back.
    Returned,
    /// SYNs whose maximum segment size was lowered.
    MssClamped,
    /// Further fragments made of IPv4 packets that were too big for their path and may be fragmented.
    PartSent,
    /// Frames of control that were sent, and those that no port took.
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

/// Any counter: of a fate, or of something else.
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

/// One worker's counters: written by that worker alone, read by any thread.
#[derive(Default)]
pub struct Counters {
    cells: WorkerCounters<CELLS>,
}

impl Counters {
    /// Adds `n`. To be called by the owning worker only.
    #[inline]
    pub fn add(&self, cell: impl Into<CounterId>, n: u64) {
        self.cells.add(cell.into().index(), n);
    }

    /// Sets a gauge. To be called by the owning worker only.
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

/// Values of all counters at one moment, of one worker or summed over several.
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
    /// Adds the present values of `counters`.
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

    /// Every counter's name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        CounterId::all().map(|cell| (cell.name(), self.get(cell)))
    }

    /// Whether every received packet has its one fate or is held. True of a worker between two turns; values read
    /// within a turn may miss a burst.
    #[must_use]
    pub fn add_up(&self) -> bool {
        let fates: u64 = Fate::all().map(|fate| self.fate(fate)).sum();
        self.count(Count::Received) == fates + self.count(Count::Holding)
    }

    /// The increase since `earlier`; a gauge that fell shows as 0.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        for (cell, before) in difference.cells.iter_mut().zip(earlier.cells.iter()) {
            *cell = cell.saturating_sub(*before);
        }
        difference
    }
}

/// Counters of a worker for each VIPA, for takeover reports and metrics. Later fragments have no ports and are not counted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum VipaCount {
    /// Packets that began to be held.
    Held,
    /// Held packets that were sent on.
    Released,
    /// Held packets whose time passed.
    Expired,
    /// Held packets that are held no longer, whatever became of them.
    Left,
    /// Packets forwarded while a VIPA of this router was being rebuilt.
    Forwarded,
    /// Connections placed at a target.
    Opened,
}

const VIPA_COUNTS: usize = 6;

/// One worker's counters by VIPA: written by that worker alone, read by any thread.
pub struct VipaCounters {
    cells: WorkerCounterList,
}

impl Default for VipaCounters {
    fn default() -> Self {
        Self { cells: WorkerCounterList::new(MAX_VIPAS * VIPA_COUNTS) }
    }
}

impl VipaCounters {
    /// Adds `n`. To be called by the owning worker only.
    #[inline]
    pub fn add(&self, vipa: VipaId, count: VipaCount, n: u64) {
        self.cells.add(usize::from(vipa.0) * VIPA_COUNTS + count as usize, n);
    }

    pub(crate) fn read(&self, vipa: VipaId, count: VipaCount) -> u64 {
        self.cells.read(usize::from(vipa.0) * VIPA_COUNTS + count as usize)
    }
}

/// Sum of the workers' counters of one VIPA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipaTotals {
    pub held: u64,
    pub released: u64,
    pub expired: u64,
    pub left: u64,
    pub forwarded: u64,
}

impl VipaTotals {
    /// Adds the present values of `counters` for `vipa`.
    pub fn add(&mut self, vipa: VipaId, counters: &VipaCounters) {
        let Self { held, released, expired, left, forwarded } = self;
        *held += counters.read(vipa, VipaCount::Held);
        *released += counters.read(vipa, VipaCount::Released);
        *expired += counters.read(vipa, VipaCount::Expired);
        *left += counters.read(vipa, VipaCount::Left);
        *forwarded += counters.read(vipa, VipaCount::Forwarded);
    }

    /// The increase since `earlier`.
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

    /// Whether no packet of the VIPA is held now.
    #[must_use]
    pub fn holds_nothing(&self) -> bool {
        self.left >= self.held
    }
}

#[cfg(test)]
mod tests;
