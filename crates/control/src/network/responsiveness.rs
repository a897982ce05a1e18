//! How much of what is sent to a target is served there: target server responsiveness, as z/OS Sysplex Distributor has it, for
//! each TCP service of each target.
//!
//! ```text
//!   admitted ──reached──► handshake begun ──established──► connection ──accepted──► the application has it
//!   this router counts    the target counts by service, and tells all routers about once a second
//!   by target
//! ```
//! A router counts by target, whatever the service; so whether packets reach it is one figure of the target's, and what its
//! server makes of them is one of each service's. Recent connections count most: what lies `MEMORY` back counts for a third.
//! Both sides' counts are compared one telling late, so that what was on the way is no loss. Too few connections say nothing.

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive, time::Duration};

use vipa_model::{Moment, PortRange};
use vipa_protocol::{
    Served,
    admin::Responsiveness,
    load::{FULL_HEADROOM, MAX_SERVED},
};

/// What lies this long back counts for a third of what happens now.
const MEMORY: Duration = Duration::from_secs(10);
/// Fewer connections than that say nothing.
const ENOUGH: f64 = 8.0;
/// A new level stands at least as long.
const REST: Duration = Duration::from_secs(5);
/// How far beyond the middle of its level a service must be.
const SLACK: f64 = 1.0;

/// A TCP service: its VIPA and its ports.
pub(crate) type Place = (IpAddr, PortRange);

/// Every linked target's account.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    targets: BTreeMap<IpAddr, Account>,
}

#[derive(Debug, Default)]
struct Account {
    /// As the target last told of each service.
    told: BTreeMap<Place, Served>,
    /// Connections admitted to it in this router's life: at the last telling, and between the two before.
    admitted: Option<u64>,
    on_the_way: u64,
    sent: Sent,
    services: BTreeMap<Place, Service>,
    at: Option<Moment>,
}

/// What this router sent and what of it came; counts that fade.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    admitted: f64,
    reached: f64,
}

/// What became of it at the server; counts that fade.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    begun: f64,
    established: f64,
    accepted: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Service {
    recent: Recent,
    level: Option<u8>,
    changed: Option<Moment>,
}

impl Accounts {
    /// Takes in what a target tells. `is_ours`: whether this router sends a service's connections; `admitted`: what it has
    /// sent to this target in its life. Names the services of which its share of new connections follows.
    pub(crate) fn tell(
        &mut self,
        now: Moment,
        target: IpAddr,
        served: &[Served],
        admitted: u64,
        is_ours: impl Fn(Place) -> bool,
    ) -> Vec<Place> {
        self.targets.entry(target).or_default().tell(now, served, admitted, is_ours)
    }

    /// A target that is not linked any more begins anew.
    pub(crate) fn forget(&mut self, target: IpAddr) {
        self.targets.remove(&target);
    }

    /// Of all services of a target together.
    pub(crate) fn of_target(&self, target: IpAddr) -> Responsiveness {
        let Some(account) = self.targets.get(&target) else { return Responsiveness::default() };
        let services = account.services.values();
        percentages(account.sent, services.fold(Recent::default(), |sum, service| sum.and(service.recent)))
    }

    /// Of all services of a VIPA together.
    pub(crate) fn of_vipa(&self, target: IpAddr, vipa: IpAddr) -> Responsiveness {
        let (first, last) = (PortRange { first: 0, last: 0 }, PortRange { first: u16::MAX, last: u16::MAX });
        self.of(target, (vipa, first)..=(vipa, last))
    }

    pub(crate) fn of_service(&self, target: IpAddr, place: Place) -> Responsiveness {
        self.of(target, place..=place)
    }

    fn of(&self, target: IpAddr, places: RangeInclusive<Place>) -> Responsiveness {
        let Some(account) = self.targets.get(&target) else { return Responsiveness::default() };
        let meant = account.services.range(places);
        percentages(account.sent, meant.fold(Recent::default(), |sum, (_, service)| sum.and(service.recent)))
    }

    /// Its share of what it would get of a service, 1 to `FULL_HEADROOM`.
    pub(crate) fn level(&self, target: IpAddr, place: Place) -> u8 {
        let service = self.targets.get(&target).and_then(|account| account.services.get(&place));
        service.and_then(|service| service.level).unwrap_or(FULL_HEADROOM)
    }
}

impl Account {
    fn tell(&mut self, now: Moment, served: &[Served], admitted: u64, is_ours: impl Fn(Place) -> bool) -> Vec<Place> {
        let place = |served: &Served| (served.vipa, served.ports);
        let is_less = |now: &Served| self.told.get(&place(now)).is_some_and(|before| now.begun < before.begun);
        if served.iter().any(is_less) {
            self.begin_anew();
        }
        let is_first = self.at.is_none();
        let elapsed = self.at.replace(now).map_or(Duration::ZERO, |before| now.since(before));
        self.fade((-elapsed.as_secs_f64() / MEMORY.as_secs_f64()).exp());
        let mut told = BTreeMap::new();
        for now in served {
            let place = place(now);
            let service = self.services.entry(place).or_default();
            let before = match self.told.get(&place) {
                Some(before) => *before,
                // Of what there was before this router heard of the target only what comes from here on counts.
                None if is_first => *now,
                None => Served { begun: 0, established: 0, accepted: 0, ..*now },
            };
            // What waits is counted at another moment than what is established.
            let now = Served { accepted: now.accepted.max(before.accepted), ..*now };
            let grown = |of: fn(&Served) -> u64| of(&now).saturating_sub(of(&before)) as f64;
            let begun = grown(|served| served.begun);
            service.recent.begun += begun;
            service.recent.established += grown(|served| served.established);
            service.recent.accepted += grown(|served| served.accepted);
            if is_ours(place) {
                self.sent.reached += begun;
            }
            told.insert(place, now);
        }
        self.told = told;
        if self.services.len() > MAX_SERVED {
            self.services.retain(|place, _| self.told.contains_key(place));
        }
        self.sent.admitted += self.on_the_way as f64;
        self.on_the_way = self.admitted.replace(admitted).map_or(0, |before| admitted.saturating_sub(before));
        let sent = self.sent;
        let follows = |(place, service): (&Place, &mut Service)| service.follow(now, sent).then_some(*place);
        self.services.iter_mut().filter_map(follows).collect()
    }

    /// The agent counts from nothing again. What has been made of it stands until there is enough to tell.
    fn begin_anew(&mut self) {
        let services = std::mem::take(&mut self.services);
        let bare = |(place, service)| (place, Service { recent: Recent::default(), ..service });
        *self = Self { services: services.into_iter().map(bare).collect(), ..Self::default() };
    }

    fn fade(&mut self, by: f64) {
        let Sent { admitted, reached } = &mut self.sent;
        for count in [admitted, reached] {
            *count *= by;
        }
        for Service { recent: Recent { begun, established, accepted }, .. } in self.services.values_mut() {
            for count in [begun, established, accepted] {
                *count *= by;
            }
        }
    }
}

impl Service {
    fn follow(&mut self, now: Moment, sent: Sent) -> bool {
        let steps = match percentages(sent, self.recent).percent() {
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
    fn and(self, other: Self) -> Self {
        let Self { begun, established, accepted } = other;
        Self {
            begun: self.begun + begun,
            established: self.established + established,
            accepted: self.accepted + accepted,
        }
    }
}

fn percentages(sent: Sent, recent: Recent) -> Responsiveness {
    let Sent { admitted, reached } = sent;
    let Recent { begun, established, accepted } = recent;
    let percent = |part: f64, whole: f64| (whole >= ENOUGH).then(|| (part / whole * 100.0).round().min(100.0) as u8);
    Responsiveness {
        reached: percent(reached, admitted),
        established: percent(established, begun),
        accepted: percent(accepted, established),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const T1: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));
    const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
    const WEB: Place = (VIPA, PortRange::one(80));
    const MAIL: Place = (VIPA, PortRange::one(25));
    const OTHER: Place = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11)), PortRange::ALL);

    fn told_of((vipa, ports): Place, [begun, established, accepted]: [u64; 3]) -> Served {
        Served { vipa, ports, begun, established, accepted }
    }

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
            let served = [told_of(WEB, self.served), told_of(OTHER, [0; 3])];
            let now = Moment(self.second * 1_000_000_000);
            !self.accounts.tell(now, T1, &served, self.admitted, |place| place == WEB).is_empty()
        }

        fn told(&self) -> [Option<u8>; 4] {
            told(self.accounts.of_service(T1, WEB))
        }

        fn level(&self) -> u8 {
            self.accounts.level(T1, WEB)
        }
    }

    fn told(told: Responsiveness) -> [Option<u8>; 4] {
        [told.reached, told.established, told.accepted, told.percent()]
    }

    #[test]
    fn each_step_from_syn_to_server_has_its_percentage_and_the_product_is_the_whole() {
        let mut bench = Bench::default();
        assert_eq!(bench.told(), [None; 4], "nobody has come");
        for _ in 0..60 {
            bench.second(100, [100, 100, 100]);
        }
        assert_eq!((bench.told(), bench.level()), ([Some(100); 4], FULL_HEADROOM));
        for _ in 0..60 {
            bench.second(100, [80, 60, 30]);
        }
        assert_eq!(bench.told(), [Some(80), Some(75), Some(50), Some(30)]);
        assert!((4..=6).contains(&bench.level()), "{}", bench.level());
        for _ in 0..90 {
            bench.second(100, [100, 100, 100]);
        }
        assert_eq!((bench.told(), bench.level()), ([Some(100); 4], FULL_HEADROOM));
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
        assert_eq!(bench.level(), FULL_HEADROOM);
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
            let served = [told_of(OTHER, [begun; 3])];
            accounts.tell(Moment(second * 1_000_000_000), T1, &served, 1_000, |place| place == WEB);
        };
        let mut accounts = Accounts::default();
        told(&mut accounts, 1, 0);
        told(&mut accounts, 2, 900);
        let Responsiveness { reached, established, .. } = accounts.of_service(T1, OTHER);
        assert_eq!((reached, established), (None, Some(100)), "another router sends those");
    }

    #[test]
    fn the_first_connections_of_a_service_count_and_those_before_this_router_came_do_not() {
        let mut accounts = Accounts::default();
        let mut tell = |second: u64, served: &[Served], sent| {
            accounts.tell(Moment(second * 1_000_000_000), T1, served, sent, |_| true);
            [WEB, MAIL].map(|place| accounts.of_service(T1, place))
        };
        tell(1, &[told_of(MAIL, [900, 900, 0])], 0);
        tell(2, &[told_of(MAIL, [900, 900, 0]), told_of(WEB, [20, 20, 5])], 20);
        let [web, mail] = tell(3, &[told_of(MAIL, [900, 900, 0]), told_of(WEB, [20, 20, 5])], 20);
        assert!(web.reached.is_some_and(|percent| percent >= 90), "{web:?}");
        assert_eq!((web.established, web.accepted), (Some(100), Some(25)));
        assert_eq!((mail.established, mail.accepted), (None, None));
    }

    #[test]
    fn a_server_that_does_not_serve_costs_its_target_no_other_service() {
        let mut accounts = Accounts::default();
        let mut followed = Vec::new();
        for second in 0..30 {
            let sent = second * 100;
            let served = [told_of(WEB, [sent / 2; 3]), told_of(MAIL, [sent / 2, sent / 2, 0])];
            let now = Moment(second * 1_000_000_000);
            followed.extend(accounts.tell(now, T1, &served, sent, |_| true));
        }
        assert_eq!(followed, [MAIL]);
        assert_eq!(told(accounts.of_service(T1, WEB)), [Some(100); 4]);
        assert_eq!(told(accounts.of_service(T1, MAIL)), [Some(100), Some(100), Some(0), Some(0)]);
        assert_eq!(told(accounts.of_vipa(T1, VIPA)), [Some(100), Some(100), Some(50), Some(50)]);
        assert_eq!((accounts.level(T1, WEB), accounts.level(T1, MAIL)), (FULL_HEADROOM, 1));
    }
}
