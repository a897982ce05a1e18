//! The clock that leases are kept by.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use vipa_model::Moment;

/// This node's monotonic clock as `Moment`s, from its start. Workers read the same clock, so leases mean the same to both.
/// It goes on while the machine is suspended: who sleeps through its lease wakes without it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Duration,
}

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        Self { origin: since_boot() }
    }

    #[must_use]
    pub fn now(&self) -> Moment {
        Moment(u64::try_from((since_boot() - self.origin).as_nanos()).unwrap_or(u64::MAX))
    }

    /// For timers, whose clock may have missed some of it: they are set anew with every event.
    pub(crate) fn instant(&self, moment: Moment) -> tokio::time::Instant {
        tokio::time::Instant::now() + moment.since(self.now())
    }
}

/// CLOCK_BOOTTIME of clock_gettime(2).
fn since_boot() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every Linux has this clock"))
}
