//! How much of what is sent to a target is served there: target server responsiveness, as z/OS Sysplex Distributor has it.
//!
//! ```text
//!   admitted ──reached──► handshake begun ──established──► connection ──accepted──► the application has it
//!   this router counts    the target counts, and tells all routers about once a second
//! ```
//! Recent connections count most: what lies `MEMORY` back counts for a third. Both sides' counts are compared one telling late,
//! so that what was on the way is no loss. Too few connections say nothing.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use vipa_model::Moment;
use vipa_protocol::{Served, admin::Responsiveness, load::FULL_HEADROOM};

/// What lies this long back counts for a third of what happens now.
const MEMORY: Duration = Duration::from_secs(10);
/// Fewer connections than that say nothing.
const ENOUGH: f64 = 8.0;
/// A new level stands at least as long.
const REST: Duration = Duration::from_secs(5);
/// How far beyond the middle of its level a target must be.
const SLACK: f64 = 1.0;

/// Every linked target's account.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    targets: BTreeMap<IpAddr, Account>,
}

#[derive(Debug, Default)]
struct Account {
    /// As the target last told of each VIPA.
    told: BTreeMap<IpAddr, Served>,
    /// Connections admitted to it in this router's life: at the last telling, and between the two before.
    admitted: Option<u64>,
    on_the_way: u64,
    recent: Recent,
    at: Option<Moment>,
    level: Option<u8>,
    changed: Option<Moment>,
}

/// Counts that fade.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    admitted: f64,
    reached: f64,
    begun: f64,
    established: f64,
    accepted: f64,
}

impl Accounts {
    /// Takes in what a target tells. `owns`: whether this router sends a VIPA's connections; `admitted`: what it has sent to
    /// this target in its life. Says whether the target's share of new connections follows.
    pub(crate) fn tell(
        &mut self,
        now: Moment,
        target: IpAddr,
        served: &[Served],
        admitted: u64,
        owns: impl Fn(IpAddr) -> bool,
    ) -> bool {
        self.targets.entry(target).or_default().tell(now, served, admitted, owns)
    }

    /// A target that is not linked any more begins anew.
    pub(crate) fn forget(&mut self, target: IpAddr) {
        self.targets.remove(&target);
    }

    pub(crate) fn of(&self, target: IpAddr) -> Responsiveness {
        self.targets.get(&target).map_or_else(Responsiveness::default, |account| account.recent.percentages())
    }

    /// Its share of what it would get, 1 to `FULL_HEADROOM`.
    pub(crate) fn level(&self, target: IpAddr) -> u8 {
        self.targets.get(&target).and_then(|account| account.level).unwrap_or(FULL_HEADROOM)
    }
}

impl Account {
    fn tell(&mut self, now: Moment, served: &[Served], admitted: u64, owns: impl Fn(IpAddr) -> bool) -> bool {
        let is_less = |served: &Served| self.told.get(&served.vipa).is_some_and(|before| served.begun < before.begun);
        if served.iter().any(is_less) {
            // It counts from nothing again.
            *self = Self { level: self.level, changed: self.changed, ..Self::default() };
        }
        let elapsed = self.at.replace(now).map_or(Duration::ZERO, |before| now.since(before));
        self.recent.fade((-elapsed.as_secs_f64() / MEMORY.as_secs_f64()).exp());
        for now in served {
            // Of a VIPA not heard of before only what comes from here on counts.
            let Some(before) = self.told.get(&now.vipa) else { continue };
            let grown = |of: fn(&Served) -> u64| of(now).saturating_sub(of(before)) as f64;
            self.recent.begun += grown(|served| served.begun);
            self.recent.established += grown(|served| served.established);
            self.recent.accepted += grown(|served| served.accepted);
            if owns(now.vipa) {
                self.recent.reached += grown(|served| served.begun);
            }
        }
        self.told = served.iter().map(|served| (served.vipa, *served)).collect();
        self.recent.admitted += self.on_the_way as f64;
        self.on_the_way = self.admitted.replace(admitted).map_or(0, |before| admitted.saturating_sub(before));
        self.follow(now)
    }

    fn follow(&mut self, now: Moment) -> bool {
        let steps = match self.recent.percentages().percent() {
            Some(percent) => f64::from(percent) * f64::from(FULL_HEADROOM) / 100.0,
            None => return false,
        };
        let level = self.level.unwrap_or(FULL_HEADROOM);
        let rested = self.changed.is_none_or(|changed| now.since(changed) >= REST);
        let next = (steps.round() as u8).clamp(1, FULL_HEADROOM);
        let is_clear = (steps - f64::from(level)).abs() > SLACK || (next == FULL_HEADROOM && level < FULL_HEADROOM);
        if !rested || !is_clear {
            return false;
        }
        self.level = Some(next);
        self.changed = Some(now);
        true
    }
}

impl Recent {
    fn fade(&mut self, by: f64) {
        let Self { admitted, reached, begun, established, accepted } = self;
        for count in [admitted, reached, begun, established, accepted] {
            *count *= by;
        }
    }

    fn percentages(&self) -> Responsiveness {
        let Self { admitted, reached, begun, established, accepted } = *self;
        let percent =
            |part: f64, whole: f64| (whole >= ENOUGH).then(|| (part / whole * 100.0).round().min(100.0) as u8);
        Responsiveness {
            reached: percent(reached, admitted),
            established: percent(established, begun),
            accepted: percent(accepted, established),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const T1: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));
    const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11));

    #[derive(Default)]
    struct Bench {
        accounts: Accounts,
        second: u64,
        admitted: u64,
        served: [u64; 3],
    }

    impl Bench {
        /// A second in which so many are admitted, and so many of them begun, established and accepted.
        fn second(&mut self, admitted: u64, served: [u64; 3]) -> bool {
            self.second += 1;
            self.admitted += admitted;
            self.served.iter_mut().zip(served).for_each(|(all, new)| *all += new);
            let [begun, established, accepted] = self.served;
            let served = [
                Served { vipa: VIPA, begun, established, accepted },
                Served { vipa: OTHER, begun: 0, established: 0, accepted: 0 },
            ];
            let now = Moment(self.second * 1_000_000_000);
            self.accounts.tell(now, T1, &served, self.admitted, |vipa| vipa == VIPA)
        }

        fn told(&self) -> [Option<u8>; 4] {
            let told = self.accounts.of(T1);
            [told.reached, told.established, told.accepted, told.percent()]
        }
    }

    #[test]
    fn each_step_from_syn_to_server_has_its_percentage_and_the_product_is_the_whole() {
        let mut bench = Bench::default();
        assert_eq!(bench.told(), [None; 4], "nobody has come");
        for _ in 0..60 {
            bench.second(100, [100, 100, 100]);
        }
        assert_eq!((bench.told(), bench.accounts.level(T1)), ([Some(100); 4], FULL_HEADROOM));
        for _ in 0..60 {
            bench.second(100, [80, 60, 30]);
        }
        assert_eq!(bench.told(), [Some(80), Some(75), Some(50), Some(30)]);
        assert!((4..=6).contains(&bench.accounts.level(T1)), "{}", bench.accounts.level(T1));
        for _ in 0..90 {
            bench.second(100, [100, 100, 100]);
        }
        assert_eq!((bench.told(), bench.accounts.level(T1)), ([Some(100); 4], FULL_HEADROOM));
    }

    #[test]
    fn a_burst_on_its_way_and_a_few_lost_connections_lower_nobody_s_share() {
        let mut bench = Bench::default();
        assert!(!bench.second(0, [0, 0, 0]));
        // Admitted just before the target told of what it had then.
        assert!(!bench.second(500, [20, 20, 20]));
        assert!(!bench.second(0, [480, 480, 480]));
        assert_eq!(bench.told()[3], Some(100));
        assert!(!bench.second(3, [0, 0, 0]) && !bench.second(0, [0, 0, 0]));
        assert_eq!(bench.accounts.level(T1), FULL_HEADROOM);
    }

    #[test]
    fn what_an_agent_counted_before_its_restart_and_what_others_send_is_not_ours() {
        let mut bench = Bench::default();
        for _ in 0..10 {
            bench.second(100, [100, 100, 100]);
        }
        bench.served = [0, 0, 0];
        assert!(!bench.second(0, [10, 10, 10]), "it counts from nothing again");
        assert_eq!(bench.told(), [None; 4]);
        let told = |accounts: &mut Accounts, second: u64, begun: u64| {
            let served = [Served { vipa: OTHER, begun, established: begun, accepted: begun }];
            accounts.tell(Moment(second * 1_000_000_000), T1, &served, 1_000, |vipa| vipa == VIPA);
        };
        let mut accounts = Accounts::default();
        told(&mut accounts, 1, 0);
        told(&mut accounts, 2, 900);
        let Responsiveness { reached, established, .. } = accounts.of(T1);
        assert_eq!((reached, established), (None, Some(100)), "another router sends those");
    }
}
