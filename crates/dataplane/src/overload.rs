//! Overload of a worker: new connections are dropped first.
//!
//! A queue that has delivered only full bursts for long holds more packets than its worker takes, and loses some of any
//! kind. From then on a burst may contain only a limited number of new connections. A SYN beyond that is dropped right
//! after it is classified, at little more than the cost of receiving it, and its client will repeat it; packets of
//! established connections get through.
//!
//! ```text
//!  places    32 ──behind──► 16 ──still behind──► 8 ─► 4 … 1
//!             ▲              ▲                   │
//!             └──── kept up ─┴──── one more ─────┘
//! ```
//! The right number of places depends on the machine and on the packets, so it is found by control: halved while the
//! queue is behind, one more now and then while it is not. A queue that delivers only new connections has no
//! established ones to protect, and all are taken.
//!
//! The measure is the time that the worker spends on full bursts, not the time that passes. A worker whose core the
//! machine gives to another process for a while finds full bursts afterwards, however few packets arrive. It must
//! process these, not drop them.

use std::time::Duration;

use vipa_model::Moment;

use crate::BURST;

/// Work on nothing but full bursts after which a queue is behind. A full ring that a worker finds after its sleep is
/// processed sooner, on slow virtual ports too.
const BEHIND: Duration = Duration::from_millis(50);

/// The longest time from one burst of a queue to the next that counts as work: more than eight bursts of each of
/// several slow virtual ports take. In the time beyond it the machine has stopped the worker. So at least 1,600 packets
/// arrive, one full burst after another, before a queue counts as behind.
const LONGEST_STEP: Duration = Duration::from_millis(1);

/// Interval after which a queue that keeps up gets one more place.
const EASE: Duration = Duration::from_millis(100);

/// Time without a packet of an established connection after which a queue counts as having none.
const FORGOTTEN: Duration = Duration::from_secs(1);

const ALL: u32 = BURST as u32;

/// State of one receive queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overload {
    /// Whether the last burst was full.
    is_full: bool,
    /// Nanoseconds of work since the first of the full bursts, or since the places were last halved.
    work: u64,
    /// When the last burst was received.
    received_at: Moment,
    /// When a packet last arrived that does not open a connection.
    established_at: Option<Moment>,
    places: u32,
    /// When the places were last changed.
    changed: Moment,
}

impl Default for Overload {
    fn default() -> Self {
        Self {
            is_full: false,
            work: 0,
            received_at: Moment::ZERO,
            established_at: None,
            places: ALL,
            changed: Moment::ZERO,
        }
    }
}

impl Overload {
    /// How many packets of a burst of `received` may open a connection.
    #[inline]
    pub(crate) fn new_flow_budget(&mut self, received: usize, now: Moment) -> u32 {
        let is_behind = self.is_behind(received, now);
        let protects = self.established_at.is_some_and(|at| now.since(at) < FORGOTTEN);
        if is_behind && protects {
            (self.places, self.changed, self.work) = ((self.places / 2).max(1), now, 0);
        } else if !self.is_full && self.places < ALL && now.since(self.changed) >= EASE {
            (self.places, self.changed) = (self.places + 1, now);
        }
        if protects { self.places } else { ALL }
    }

    /// Records that some of the burst's packets were of established connections.
    #[inline]
    pub(crate) fn saw_established(&mut self, now: Moment) {
        self.established_at = Some(now);
    }

    #[inline]
    fn is_behind(&mut self, received: usize, now: Moment) -> bool {
        const WORK: u64 = BEHIND.as_nanos() as u64;
        const STEP: u64 = LONGEST_STEP.as_nanos() as u64;
        let was_full = std::mem::replace(&mut self.is_full, received == BURST);
        let step = now.0.saturating_sub(self.received_at.0).min(STEP);
        self.received_at = now;
        self.work = if was_full && self.is_full { (self.work + step).min(WORK) } else { 0 };
        self.work == WORK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment(1_000_000_000);

    fn after(milliseconds: u64) -> Moment {
        START + Duration::from_millis(milliseconds)
    }

    /// A queue that has delivered a full burst, beside established connections.
    fn full() -> Overload {
        let mut overload = Overload::default();
        overload.saw_established(START);
        assert_eq!(overload.new_flow_budget(BURST, START), ALL);
        overload
    }

    /// Delivers full bursts, one each half a millisecond; returns the places of the last one.
    fn flood(overload: &mut Overload, milliseconds: std::ops::RangeInclusive<u64>) -> u32 {
        let mut places = 0;
        for at in milliseconds {
            places = overload.new_flow_budget(BURST, after(at));
            overload.new_flow_budget(BURST, after(at) + Duration::from_micros(500));
            overload.saw_established(after(at));
        }
        places
    }

    #[test]
    fn while_a_queue_is_behind_its_places_are_halved_down_to_one() {
        let mut overload = full();
        let mut from = 1;
        for (at, places) in [(49, 32), (50, 16), (99, 16), (100, 8), (150, 4), (200, 2), (250, 1), (300, 1)] {
            assert_eq!(flood(&mut overload, from..=at), places, "after {at} ms");
            from = at + 1;
        }
    }

    #[test]
    fn a_queue_that_keeps_up_gets_them_back_one_by_one() {
        let mut overload = full();
        assert_eq!(flood(&mut overload, 1..=50), 16);
        for (at, places) in [(51, 16), (149, 16), (150, 17), (249, 17), (250, 18)] {
            overload.saw_established(after(at));
            assert_eq!(overload.new_flow_budget(BURST - 1, after(at)), places, "after {at} ms");
        }
    }

    #[test]
    fn where_nothing_but_new_connections_comes_all_are_taken() {
        let mut overload = Overload::default();
        for at in 0..200 {
            assert_eq!(overload.new_flow_budget(BURST, after(at)), ALL, "after {at} ms");
        }
        let mut overload = full();
        assert_eq!(flood(&mut overload, 1..=50), 16);
        assert!(overload.new_flow_budget(BURST, after(1_049)) < ALL);
        assert_eq!(
            overload.new_flow_budget(BURST, after(1_050)),
            ALL,
            "the last established connection's packet came a second ago"
        );
    }

    #[test]
    fn a_worker_that_the_machine_stops_again_and_again_is_not_behind() {
        let mut overload = full();
        // A second's arrivals of a thousand packets, found in full bursts whenever the worker has its core for a
        // moment.
        for at in (60..1_060).step_by(60) {
            overload.saw_established(after(at));
            assert_eq!(overload.new_flow_budget(BURST, after(at)), ALL, "after {at} ms");
            assert_eq!(overload.new_flow_budget(BURST, after(at) + Duration::from_micros(20)), ALL, "after {at} ms");
        }
    }
}
