//! What a worker that cannot keep up lets go first: new connections.
//!
//! A queue that gives full bursts again and again holds more packets than its worker takes, and is about to lose some, whatever
//! they are. From then on new connections have only so many places in each burst. A SYN beyond is dropped at first sight, for
//! little more than receiving it costs, and will be sent again; packets of established connections get through.

use crate::BURST;

/// Full bursts in a row after which a queue is behind: half of an ordinary ring of 1,024 packets.
const BEHIND: u32 = 16;

/// New connections in a burst of a queue that is behind. With these a core that takes ten million packets a second opens as
/// many connections as it can, and no more (perf/results/README.md).
const OPENINGS: u32 = 10;

/// Of one receive queue.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pressure {
    full_bursts: u32,
}

impl Pressure {
    /// After a burst of `received` packets: how many of them may open a connection.
    #[inline]
    pub(crate) fn openings(&mut self, received: usize) -> u32 {
        self.full_bursts = if received == BURST { self.full_bursts.saturating_add(1) } else { 0 };
        if self.full_bursts > BEHIND { OPENINGS } else { BURST as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_behind_after_many_full_bursts_and_until_one_is_not() {
        let mut pressure = Pressure::default();
        let openings: Vec<_> = (0..BEHIND + 1).map(|_| pressure.openings(BURST)).collect();
        let (before, behind) = openings.split_at(BEHIND as usize);
        assert!(before.iter().all(|openings| *openings == BURST as u32));
        assert_eq!(behind, [OPENINGS]);
        assert_eq!(pressure.openings(BURST - 1), BURST as u32);
        assert_eq!(pressure.openings(BURST), BURST as u32);
    }
}
