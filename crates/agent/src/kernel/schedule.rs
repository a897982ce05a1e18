//! Schedule of whole looks at the kernel's sockets: as often as their cost allows, and soon after a loss.
//!
//! ```text
//!   begin ──► look ──► finish ──► due after a pause that grows with the look's cost
//!               └─ lose: the pause is that of a look without BPF, because this one may have come too early
//! ```

use std::time::{Duration, Instant};

/// Share of the time that a look may take: one part in `LOOK_SHARE`; for one that only verifies, one in `VERIFY_SHARE`.
const LOOK_SHARE: u32 = 10;
const VERIFY_SHARE: u32 = 200;
/// The longest time between two looks, whatever they cost.
const SLOWEST: Duration = Duration::from_secs(5);
/// The longest and the shortest time between two looks that only verify.
const SLOWEST_TO_VERIFY: Duration = Duration::from_secs(60);
const FASTEST_TO_VERIFY: Duration = Duration::from_secs(1);

/// Purpose of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookKind {
    /// The lists are authoritative.
    Observe,
    /// The ring is authoritative, and the lists confirm it.
    Verify,
}

#[derive(Debug)]
pub(super) struct LookSchedule {
    pace: Duration,
    due: Instant,
    /// An event was lost after the last look began; only a later look finds what it reported.
    incomplete: bool,
}

impl LookSchedule {
    /// `pace` is the shortest time between two looks that were not requested.
    pub(super) fn new(now: Instant, pace: Duration) -> Self {
        Self { pace, due: now, incomplete: false }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Whether an event was lost that no look has made up for.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    pub(super) fn hasten(&mut self, now: Instant) {
        self.due = now;
    }

    /// Records that an event was lost.
    pub(super) fn lose(&mut self, now: Instant) {
        self.incomplete = true;
        self.due = now;
    }

    pub(super) fn begin(&mut self) {
        self.incomplete = false;
    }

    /// The look that was begun last has succeeded.
    pub(super) fn finish(&mut self, now: Instant, took: Duration, kind: LookKind) {
        self.due = now
            + if kind == LookKind::Verify && !self.incomplete {
                (took * VERIFY_SHARE).clamp(FASTEST_TO_VERIFY.max(self.pace), SLOWEST_TO_VERIFY.max(self.pace))
            } else {
                (took * LOOK_SHARE).clamp(self.pace, SLOWEST.max(self.pace))
            };
    }

    /// The look that was begun last has failed.
    pub(super) fn retry(&mut self, now: Instant) {
        self.due = now + self.pace;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Duration = Duration::from_millis(50);
    const COSTLY: Duration = Duration::from_millis(300);

    /// How long after a look the next one is due; `during` happens while the look is under way.
    fn pause(kind: LookKind, took: Duration, during: impl FnOnce(&mut LookSchedule, Instant)) -> Duration {
        let now = Instant::now();
        let mut looks = LookSchedule::new(now, PACE);
        looks.begin();
        during(&mut looks, now);
        looks.finish(now + took, took, kind);
        looks.due().duration_since(now + took)
    }

    #[test]
    fn a_look_takes_at_most_its_share_of_the_time() {
        let nothing = |_: &mut LookSchedule, _| {};
        assert_eq!(pause(LookKind::Observe, COSTLY, nothing), COSTLY * 10);
        assert_eq!(pause(LookKind::Observe, Duration::ZERO, nothing), PACE);
        assert_eq!(pause(LookKind::Observe, COSTLY * 100, nothing), SLOWEST);
        assert_eq!(pause(LookKind::Verify, COSTLY, nothing), SLOWEST_TO_VERIFY);
        assert_eq!(pause(LookKind::Verify, Duration::ZERO, nothing), FASTEST_TO_VERIFY);
    }

    #[test]
    fn a_loss_during_a_look_that_only_verifies_is_looked_for_soon() {
        let lose = |looks: &mut LookSchedule, now| looks.lose(now);
        assert_eq!(pause(LookKind::Verify, COSTLY, lose), COSTLY * 10);
        assert_eq!(pause(LookKind::Verify, Duration::from_millis(1), lose), PACE);
    }

    #[test]
    fn a_loss_between_two_looks_is_looked_for_at_once_and_once() {
        let began = Instant::now();
        let mut looks = LookSchedule::new(began, PACE);
        looks.begin();
        looks.finish(began, COSTLY, LookKind::Verify);
        let later = began + Duration::from_secs(2);
        looks.lose(later);
        assert_eq!((looks.due(), looks.is_incomplete()), (later, true));
        looks.begin();
        assert!(!looks.is_incomplete(), "a look begun after the loss finds it");
        looks.finish(later, Duration::ZERO, LookKind::Verify);
        assert_eq!(looks.due(), later + FASTEST_TO_VERIFY);
    }
}
