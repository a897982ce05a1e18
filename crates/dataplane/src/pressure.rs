//! What a worker that cannot keep up lets go first: new connections.
//!
//! A queue that has given nothing but full bursts for long holds more packets than its worker takes, and loses some, whatever
//! they are. From then on new connections have only so many places in each burst. A SYN beyond is dropped at first sight, for
//! little more than receiving it costs, and will be sent again; packets of established connections get through.

use std::time::Duration;

use vipa_model::Moment;

use crate::BURST;

/// Full bursts for so long mean that a queue is behind. A full ring that a worker finds after its sleep is worked off sooner,
/// on slow virtual ports too.
const BEHIND: Duration = Duration::from_millis(50);

/// New connections in a burst of a queue that is behind.
const OPENINGS: u32 = 10;

/// Of one receive queue.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pressure {
    full_since: Option<Moment>,
}

impl Pressure {
    /// After a burst of `received` packets: how many of them may open a connection.
    #[inline]
    pub(crate) fn openings(&mut self, received: usize, now: Moment) -> u32 {
        if received < BURST {
            self.full_since = None;
            return BURST as u32;
        }
        let since = *self.full_since.get_or_insert(now);
        if now.since(since) >= BEHIND { OPENINGS } else { BURST as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_behind_after_long_with_full_bursts_and_until_one_is_not() {
        let (start, all) = (Moment::ZERO + Duration::from_secs(1), BURST as u32);
        let mut pressure = Pressure::default();
        assert_eq!(pressure.openings(BURST, start), all);
        assert_eq!(pressure.openings(BURST, start + Duration::from_millis(49)), all);
        assert_eq!(pressure.openings(BURST, start + BEHIND), OPENINGS);
        assert_eq!(pressure.openings(BURST - 1, start + BEHIND), all);
        assert_eq!(pressure.openings(BURST, start + BEHIND), all);
    }
}
