//! How busy a worker is.

use std::time::Duration;

use vipa_sync::WorkerCounters;

/// What a worker measures of itself: written by it alone, read by anybody.
#[derive(Default)]
pub struct WorkerLoad {
    cells: WorkerCounters<2>,
}

const BUSY_NS: usize = 0;
const BUSY_TURNS: usize = 1;

impl WorkerLoad {
    /// A turn that brought `received` packets was over after `took`, when the next one began. The owning worker only.
    ///
    /// It has no branch: a turn without packets adds 0.
    #[inline]
    pub fn add(&self, received: usize, took: Duration) {
        let busy = u64::from(received > 0);
        self.cells.add(BUSY_NS, (took.as_nanos() as u64) * busy);
        self.cells.add(BUSY_TURNS, busy);
    }

    /// Time in turns that brought packets.
    #[must_use]
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.cells.read(BUSY_NS))
    }

    /// Turns that brought packets.
    #[must_use]
    pub fn busy_turns(&self) -> u64 {
        self.cells.read(BUSY_TURNS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_turns_with_packets_are_busy() {
        let load = WorkerLoad::default();
        load.add(3, Duration::from_micros(20));
        load.add(0, Duration::from_secs(1));
        load.add(1, Duration::from_micros(5));
        assert_eq!((load.busy(), load.busy_turns()), (Duration::from_micros(25), 2));
    }
}
