//! Two small words from control to workers: "until then" and "stop".

use vipa_model::Moment;

use crate::atomics::{AtomicBool, AtomicU64, Ordering};

/// A moment up to which something is allowed, such as a lease. Workers compare it with their own reading of the
/// clock, so one that was stopped and wakes up is fenced without anybody having to tell it.
///
/// Starts in the past: nothing is allowed until somebody says so.
pub struct Deadline(AtomicU64);

impl Deadline {
    /// A deadline at `until`; `Moment::ZERO` has always passed.
    #[must_use]
    pub fn new(until: Moment) -> Self {
        Self(AtomicU64::new(until.0))
    }

    /// Moves the deadline, forward or back.
    pub fn set(&self, until: Moment) {
        // Relaxed, here and below: the number is all there is to see. A late reader errs by the time a store takes to
        // arrive, far below the lease's drift margin.
        self.0.store(until.0, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> Moment {
        Moment(self.0.load(Ordering::Relaxed))
    }

    /// True from the deadline on: at the very moment it has passed.
    #[inline]
    #[must_use]
    pub fn passed(&self, now: Moment) -> bool {
        now.0 >= self.0.load(Ordering::Relaxed)
    }
}

impl Default for Deadline {
    fn default() -> Self {
        Self::new(Moment::ZERO)
    }
}

/// Raised once, never lowered.
pub struct Flag(AtomicBool);

impl Flag {
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    pub fn raise(&self) {
        // Release: pairs with the Acquire in is_raised(); who sees the flag sees all that was done before it.
        self.0.store(true, Ordering::Release);
    }

    #[inline]
    #[must_use]
    pub fn is_raised(&self) -> bool {
        // Acquire: pairs with the Release in raise().
        self.0.load(Ordering::Acquire)
    }
}

impl Default for Flag {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_passed_at_its_moment_and_not_before() {
        let deadline = Deadline::new(Moment(100));
        assert_eq!([99, 100, 101].map(|now| deadline.passed(Moment(now))), [false, true, true]);
        assert_eq!(deadline.get(), Moment(100));
    }

    #[test]
    fn nothing_is_allowed_until_somebody_says_so_and_it_can_be_taken_back() {
        let deadline = Deadline::default();
        assert!(deadline.passed(Moment::ZERO));
        deadline.set(Moment(5));
        assert!(!deadline.passed(Moment(4)));
        deadline.set(Moment::ZERO);
        assert!(deadline.passed(Moment(4)));
    }

    #[test]
    fn a_flag_stays_raised() {
        let flag = Flag::default();
        assert!(!flag.is_raised());
        flag.raise();
        flag.raise();
        assert!(flag.is_raised());
    }
}
