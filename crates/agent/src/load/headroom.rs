//! Headroom: a host's share of new connections, from its own measurements, in a few steps that change slowly. Pure.
//!
//! A share that follows every fluctuation of the host moves clients for nothing, and makes the targets' shares
//! oscillate against each other. So measurements are smoothed over some seconds; a step changes only once the smoothed
//! value is clearly beyond it, and not again for a while.

use std::time::Duration;

use vipa_model::Moment;
use vipa_protocol::{HostLoad, load::FULL_HEADROOM};

/// Age at which a measurement counts for a third of a present one.
const MEMORY: Duration = Duration::from_secs(5);
/// Shortest time for which a new step stands.
const REST: Duration = Duration::from_secs(5);
/// How far beyond the middle of its step a smoothed value must be, in steps.
const SLACK: f64 = 1.0;

#[derive(Debug)]
pub(crate) struct Headroom {
    smoothed_permille: f64,
    level: u8,
    measured: Option<Moment>,
    changed: Option<Moment>,
}

impl Default for Headroom {
    fn default() -> Self {
        Self { smoothed_permille: 1000.0, level: FULL_HEADROOM, measured: None, changed: None }
    }
}

impl Headroom {
    /// Applies a measurement; returns the resulting step.
    pub(crate) fn measure(&mut self, now: Moment, permille: u16) -> u8 {
        let elapsed = self.measured.map_or(Duration::ZERO, |before| now.since(before));
        self.measured = Some(now);
        let weight = 1.0 - (-elapsed.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        self.smoothed_permille += (f64::from(permille) - self.smoothed_permille) * weight;
        let steps = self.smoothed_permille * f64::from(FULL_HEADROOM) / 1000.0;
        let rested = self.changed.is_none_or(|changed| now.since(changed) >= REST);
        if rested && (steps - f64::from(self.level)).abs() > SLACK {
            self.level = (steps.round() as u8).clamp(1, FULL_HEADROOM);
            self.changed = Some(now);
        }
        self.level
    }
}

/// What a host has left, in thousandths: the least of what its processors, its run queue and its fullest accept queue
/// have left.
pub(crate) fn left_permille(host: &HostLoad, fullest_queue_permille: u16) -> u16 {
    let idle = 1000_u16.saturating_sub(host.cpu_permille);
    // When all processors are busy, their run queue still distinguishes a busy host from an overloaded one.
    let by_run_queue = (100 * 250 / host.runnable_percent.max(100)) as u16;
    // Waiting for a processor alone never takes more than three quarters.
    let by_pressure = 1000_u16.saturating_sub((u32::from(host.pressure_permille) * 3 / 4) as u16);
    let by_accept_queue = 1000_u16.saturating_sub(fullest_queue_permille);
    idle.max(by_run_queue).min(by_pressure.max(by_run_queue)).min(by_accept_queue)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(cpu_permille: u16, runnable_percent: u32) -> HostLoad {
        HostLoad { cpu_permille, runnable_percent, ..HostLoad::default() }
    }

    #[test]
    fn an_idle_host_has_all_a_busy_one_a_quarter_and_a_drowning_one_less() {
        assert_eq!(left_permille(&host(0, 20), 0), 1000);
        assert_eq!(left_permille(&host(400, 60), 0), 600);
        assert_eq!(left_permille(&host(1000, 100), 0), 250);
        assert_eq!(left_permille(&host(1000, 500), 0), 50);
    }

    #[test]
    fn processes_that_wait_and_a_filling_accept_queue_take_from_what_is_left() {
        assert_eq!(left_permille(&HostLoad { pressure_permille: 400, ..host(300, 90) }, 0), 700);
        assert_eq!(left_permille(&HostLoad { pressure_permille: 800, ..host(300, 90) }, 0), 400);
        assert_eq!(left_permille(&host(0, 0), 900), 100);
    }

    /// The steps reported when a value is measured once a second.
    fn told(headroom: &mut Headroom, seconds: std::ops::Range<u64>, permille: impl Fn(u64) -> u16) -> Vec<u8> {
        let mut told: Vec<u8> = seconds.map(|s| headroom.measure(Moment(s * 1_000_000_000), permille(s))).collect();
        told.dedup();
        told
    }

    #[test]
    fn a_lasting_load_is_followed_within_seconds_and_in_few_steps() {
        let mut headroom = Headroom::default();
        assert_eq!(told(&mut headroom, 0..10, |_| 1000), [16]);
        let steps = told(&mut headroom, 10..60, |_| 250);
        assert!(steps.len() <= 5 && *steps.last().unwrap() <= 5, "{steps:?}");
        let steps = told(&mut headroom, 60..120, |_| 1000);
        assert!(steps.len() <= 5 && *steps.last().unwrap() >= 15, "{steps:?}");
    }

    #[test]
    fn a_load_that_swings_from_second_to_second_moves_nothing() {
        let mut headroom = Headroom::default();
        told(&mut headroom, 0..60, |_| 500);
        let steps = told(&mut headroom, 60..360, |second| if second % 2 == 0 { 400 } else { 600 });
        assert_eq!(steps.len(), 1, "{steps:?}");
    }
}
