//! What a worker does between two turns without packets.

use std::time::Duration;

/// How a worker waits for packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdlePolicy {
    /// Never sleeps: all of its core, the least latency.
    Spin,
    /// Executes a pause instruction, which saves power and spares a sibling thread; still all of the core.
    Pause,
    /// Sleeps after a while without packets, longer and longer up to `max`: little of the core. While this router owns
    /// a VIPA, sleeps no longer than [`LONGEST_AS_OWNER`] until nothing has arrived for about a tenth of a second.
    Sleep { max: Duration },
}

/// Longest sleep of an owner between its clients' packets, because they wait for it. A sleep costs about 20 µs of core
/// on the lab's machine when that is busy, so no worker sleeps this shortly when there is no traffic at all.
pub const LONGEST_AS_OWNER: Duration = Duration::from_micros(200);
/// Sleeps in a row after which there is no traffic, rather than a pause in it.
const LULL: u32 = 500;
/// First sleep; doubles from here.
const SHORTEST: Duration = Duration::from_micros(10);
/// Empty turns before the first sleep: the next packet of a series comes sooner than a sleep would end.
const EMPTY_TURNS: u32 = 64;

/// What to do before the next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    None,
    Pause,
    Sleep(Duration),
}

/// Counter of empty turns.
pub(crate) struct Idle {
    policy: IdlePolicy,
    empty: u32,
}

/// Whether this router owns a VIPA now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    Owner,
    Backup,
}

impl Idle {
    pub(crate) fn new(policy: IdlePolicy) -> Self {
        Self { policy, empty: 0 }
    }

    /// After a turn that received `received` packets.
    #[inline]
    pub(crate) fn after(&mut self, received: usize, duty: Duty) -> Rest {
        if received > 0 {
            self.empty = 0;
            return Rest::None;
        }
        self.empty = self.empty.saturating_add(1);
        match self.policy {
            IdlePolicy::Spin => Rest::None,
            IdlePolicy::Pause => Rest::Pause,
            IdlePolicy::Sleep { .. } if self.empty <= EMPTY_TURNS => Rest::Pause,
            IdlePolicy::Sleep { max } => {
                let slept = self.empty - EMPTY_TURNS - 1;
                let max = if duty == Duty::Owner && slept < LULL { max.min(LONGEST_AS_OWNER) } else { max };
                let doublings = slept.min(16);
                Rest::Sleep((SHORTEST * (1 << doublings)).min(max))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rests(policy: IdlePolicy, duty: Duty, turns: usize) -> Vec<Rest> {
        let mut idle = Idle::new(policy);
        (0..turns).map(|_| idle.after(0, duty)).collect()
    }

    #[test]
    fn spinning_never_rests_and_pausing_always_pauses() {
        assert!(rests(IdlePolicy::Spin, Duty::Owner, 1000).iter().all(|rest| *rest == Rest::None));
        assert!(rests(IdlePolicy::Pause, Duty::Owner, 1000).iter().all(|rest| *rest == Rest::Pause));
    }

    #[test]
    fn sleeps_begin_after_a_while_double_and_stay_below_the_limit() {
        let max = Duration::from_millis(1);
        let rests = rests(IdlePolicy::Sleep { max }, Duty::Backup, 1_000_000);
        let (awake, asleep) = rests.split_at(EMPTY_TURNS as usize);
        assert!(awake.iter().all(|rest| *rest == Rest::Pause));
        let first: Vec<_> =
            [10, 20, 40, 80, 160, 320, 640, 1000, 1000].map(|micros| Rest::Sleep(Duration::from_micros(micros))).into();
        assert_eq!(asleep[..9], first);
        assert_eq!(asleep.last(), Some(&Rest::Sleep(max)));
    }

    #[test]
    fn an_owner_sleeps_shorter_between_packets_and_as_long_as_others_when_there_are_none() {
        let max = Duration::from_millis(1);
        let rests = rests(IdlePolicy::Sleep { max }, Duty::Owner, (EMPTY_TURNS + LULL) as usize + 1);
        let (pause_in_traffic, no_traffic) = rests.split_at((EMPTY_TURNS + LULL) as usize);
        assert_eq!(pause_in_traffic.last(), Some(&Rest::Sleep(LONGEST_AS_OWNER)));
        assert_eq!(no_traffic, [Rest::Sleep(max)]);
    }

    #[test]
    fn a_packet_ends_all_sleep() {
        let mut idle = Idle::new(IdlePolicy::Sleep { max: Duration::from_secs(1) });
        for _ in 0..1000 {
            idle.after(0, Duty::Owner);
        }
        assert_eq!(idle.after(1, Duty::Owner), Rest::None);
        assert_eq!(idle.after(0, Duty::Owner), Rest::Pause);
    }
}
