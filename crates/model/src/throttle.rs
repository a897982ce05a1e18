//! Bounds the share of the loop's time that one kind of work takes.

use std::time::Duration;

use crate::Moment;

/// Other work gets at least so many times as long as this work took last.
const REST: u32 = 3;
/// Work that takes less is never put off.
const SHORT: Duration = Duration::from_millis(1);
/// No work is put off for longer.
const LONGEST: Duration = Duration::from_millis(50);

/// When a kind of work was done last, and how long that took.
#[derive(Debug, Default)]
pub struct Throttle {
    rest_until: Moment,
}

impl Throttle {
    #[must_use]
    pub fn is_due(&self, now: Moment) -> bool {
        now >= self.rest_until
    }

    /// When the work may be done again.
    #[must_use]
    pub fn due(&self) -> Moment {
        self.rest_until
    }

    /// The work was done, and took so long.
    pub fn took(&mut self, began: Moment, ended: Moment) {
        let cost = ended.since(began);
        self.rest_until = if cost < SHORT { ended } else { ended + (cost * REST).min(LONGEST) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_work_leaves_time_for_other_work_and_short_work_is_done_at_once() {
        let at = |us| Moment::ZERO + Duration::from_micros(us);
        let mut throttle = Throttle::default();
        assert!(throttle.is_due(at(0)));
        throttle.took(at(0), at(500));
        assert!(throttle.is_due(at(500)));
        throttle.took(at(1_000), at(5_000));
        assert!(!throttle.is_due(at(16_999)));
        assert!(throttle.is_due(at(17_000)));
        throttle.took(at(20_000), at(120_000));
        assert!(!throttle.is_due(at(169_999)));
        assert!(throttle.is_due(at(170_000)), "however long it takes");
    }
}
