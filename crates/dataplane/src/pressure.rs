//! What a worker that cannot keep up lets go first: new connections.
//!
//! A queue that has given nothing but full bursts for long holds more packets than its worker takes, and loses some, whatever
//! they are. From then on new connections have only so many places in each burst. A SYN beyond is dropped at first sight, for
//! little more than receiving it costs, and will be sent again; packets of established connections get through.
//!
//! ```text
//!  places    32 ──behind──► 16 ──still behind──► 8 ─► 4 … 1
//!             ▲              ▲                   │
//!             └──── kept up ─┴──── one more ─────┘
//! ```
//! How many places are right depends on the machine and on the packets, so they are sought: halved while the queue is behind, one
//! more now and then while it is not. Where a queue brings new connections alone there is nobody to protect, and all are taken.

use std::time::Duration;

use vipa_model::Moment;

use crate::BURST;

/// Full bursts for so long mean that a queue is behind. A full ring that a worker finds after its sleep is worked off sooner,
/// on slow virtual ports too.
const BEHIND: Duration = Duration::from_millis(50);

/// A queue that keeps up has one place more after so long.
const EASE: Duration = Duration::from_millis(100);

/// A queue that has brought no packet of an established connection for so long brings none.
const FORGOTTEN: Duration = Duration::from_secs(1);

const ALL: u32 = BURST as u32;

/// Of one receive queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pressure {
    full_since: Option<Moment>,
    /// When a packet last came that does not open a connection.
    established_at: Option<Moment>,
    places: u32,
    /// When they were last changed.
    changed: Moment,
}

impl Default for Pressure {
    fn default() -> Self {
        Self { full_since: None, established_at: None, places: ALL, changed: Moment::ZERO }
    }
}

impl Pressure {
    /// After a burst of `received` packets: how many of them may open a connection.
    #[inline]
    pub(crate) fn openings(&mut self, received: usize, now: Moment) -> u32 {
        let is_behind = self.is_behind(received, now);
        let protects = self.established_at.is_some_and(|at| now.since(at) < FORGOTTEN);
        if is_behind && protects && now.since(self.changed) >= BEHIND {
            (self.places, self.changed) = ((self.places / 2).max(1), now);
        } else if self.full_since.is_none() && self.places < ALL && now.since(self.changed) >= EASE {
            (self.places, self.changed) = (self.places + 1, now);
        }
        if protects { self.places } else { ALL }
    }

    /// Some of the burst's packets were of connections that are open already.
    #[inline]
    pub(crate) fn saw_established(&mut self, now: Moment) {
        self.established_at = Some(now);
    }

    #[inline]
    fn is_behind(&mut self, received: usize, now: Moment) -> bool {
        if received < BURST {
            self.full_since = None;
            return false;
        }
        now.since(*self.full_since.get_or_insert(now)) >= BEHIND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment(1_000_000_000);

    fn after(milliseconds: u64) -> Moment {
        START + Duration::from_millis(milliseconds)
    }

    /// A queue that has been behind since the start, beside established connections.
    fn behind() -> Pressure {
        let mut pressure = Pressure::default();
        pressure.saw_established(START);
        assert_eq!(pressure.openings(BURST, START), ALL);
        pressure
    }

    #[test]
    fn while_a_queue_is_behind_its_places_are_halved_down_to_one() {
        let mut pressure = behind();
        for (at, places) in [(49, 32), (50, 16), (99, 16), (100, 8), (150, 4), (200, 2), (250, 1), (300, 1)] {
            pressure.saw_established(after(at));
            assert_eq!(pressure.openings(BURST, after(at)), places, "after {at} ms");
        }
    }

    #[test]
    fn a_queue_that_keeps_up_gets_them_back_one_by_one() {
        let mut pressure = behind();
        pressure.saw_established(after(50));
        assert_eq!(pressure.openings(BURST, after(50)), 16);
        for (at, places) in [(51, 16), (149, 16), (150, 17), (249, 17), (250, 18)] {
            pressure.saw_established(after(at));
            assert_eq!(pressure.openings(BURST - 1, after(at)), places, "after {at} ms");
        }
    }

    #[test]
    fn where_nothing_but_new_connections_comes_all_are_taken() {
        let mut pressure = Pressure::default();
        for at in [0, 49, 50, 200] {
            assert_eq!(pressure.openings(BURST, after(at)), ALL, "after {at} ms");
        }
        let mut pressure = behind();
        assert_eq!(pressure.openings(BURST, after(999)), 16);
        assert_eq!(
            pressure.openings(BURST, after(1000)),
            ALL,
            "the last established connection's packet came a second ago"
        );
    }
}
