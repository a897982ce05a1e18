//! Paths to targets that a node's own list does not name.
//!
//! A connection outlives the list by which it was admitted: its target may be on another router's list only, or on none
//! any more. The path to it is therefore remembered apart from the lists, by target and ports.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};
use vipa_model::{Path, PortRange, Protocol, Service, ServicePath, TargetPath};

/// Paths remembered for one VIPA; when there are more, the oldest is forgotten, and counted.
pub(crate) const MAX_LEARNED_PATHS: usize = 1024;
/// Paths taken from one target's report of one VIPA: as many services, and more than any VIPA has.
pub(crate) const MAX_REPORTED_PATHS: usize = 64;

/// One VIPA's lists on the disk, so that a router that restarts while all others are dead has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredLists {
    /// The owner's list, as it was distributed last.
    pub distributed: Option<Vec<Service>>,
    /// The oldest first.
    pub paths: Vec<TargetPath>,
}

/// Paths by target and ports.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LearnedPaths {
    paths: BTreeMap<Place, LearnedPath>,
    /// Number of the newest path.
    order: u64,
    forgotten: u64,
}

/// Target, protocol, first and last port.
type Place = (IpAddr, Protocol, u16, u16);

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct LearnedPath {
    order: u64,
    path: Path,
    /// A router's list has named it, in this router's life; otherwise it is from its target or from the disk.
    #[serde(default)]
    is_listed: bool,
}

impl LearnedPaths {
    pub(crate) fn new(paths: Vec<TargetPath>) -> Self {
        let mut learned = Self::default();
        for TargetPath { target, service } in paths {
            learned.learn_reported(target, service);
        }
        learned.forgotten = 0;
        learned
    }

    /// Records a path of a router's list, which replaces what was recorded before for the same ports. Returns whether
    /// it is new.
    pub(crate) fn learn(&mut self, target: IpAddr, service: ServicePath) -> bool {
        self.learn_from(target, service, true)
    }

    /// As [`learn`](Self::learn), for a path that no list has named: it says how a target is reached, but does not make
    /// it a candidate.
    pub(crate) fn learn_reported(&mut self, target: IpAddr, service: ServicePath) -> bool {
        self.learn_from(target, service, false)
    }

    fn learn_from(&mut self, target: IpAddr, service: ServicePath, is_listed: bool) -> bool {
        let place = place(target, &service);
        let was_listed = self
            .overlapping(target, &service)
            .any(|(known, learned)| learned.is_listed && known.covers_all_of(&service));
        let is_listed = is_listed || was_listed;
        if let Some(known) = self.paths.get(&place)
            && known.path == service.path
            && !self.overlapping(target, &service).any(|(_, other)| other.order > known.order)
        {
            if let Some(known) = self.paths.get_mut(&place) {
                known.is_listed = is_listed;
            }
            return false;
        }
        let covered: Vec<Place> = self
            .overlapping(target, &service)
            .filter(|(known, _)| service.covers_all_of(known))
            .map(|(known, _)| self::place(target, &known))
            .collect();
        for place in covered {
            self.paths.remove(&place);
        }
        self.order += 1;
        self.paths.insert(place, LearnedPath { order: self.order, path: service.path, is_listed });
        // One target's many paths do not displace those of others.
        let exceeds_share = self.of_target(target).count() > MAX_REPORTED_PATHS;
        let may_go = |place: &Place| !exceeds_share || place.0 == target;
        if (exceeds_share || self.paths.len() > MAX_LEARNED_PATHS)
            && let Some((&oldest, _)) =
                self.paths.iter().filter(|(place, _)| may_go(place)).min_by_key(|(_, known)| known.order)
        {
            self.paths.remove(&oldest);
            self.forgotten += 1;
        }
        true
    }

    /// Records a path of which no port is known yet, from an indirect source. Returns whether it is new.
    pub(crate) fn fill(&mut self, target: IpAddr, service: ServicePath) -> bool {
        self.overlapping(target, &service).next().is_none() && self.learn_reported(target, service)
    }

    /// Whether a router's list has named this target for the port.
    pub(crate) fn is_listed(&self, target: IpAddr, (protocol, port): (Protocol, u16)) -> bool {
        let has_port = |known: &ServicePath| known.protocol == protocol && known.ports.contains(port);
        self.of_target(target).any(|(known, learned)| learned.is_listed && has_port(&known))
    }

    /// The paths of one target, the oldest first.
    pub(crate) fn of(&self, target: IpAddr) -> Vec<ServicePath> {
        let mut known: Vec<_> = self.of_target(target).map(|(service, known)| (known.order, service)).collect();
        known.sort_unstable_by_key(|(order, _)| *order);
        known.into_iter().map(|(_, service)| service).collect()
    }

    /// All paths, the oldest first.
    pub(crate) fn all(&self) -> Vec<TargetPath> {
        let mut all: Vec<_> = self.paths.iter().collect();
        all.sort_unstable_by_key(|(_, known)| known.order);
        all.into_iter().map(|(place, known)| TargetPath { target: place.0, service: service(*place, known) }).collect()
    }

    pub(crate) fn any(&self, mut wanted: impl FnMut(&Path) -> bool) -> bool {
        self.paths.values().any(|known| wanted(&known.path))
    }

    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn of_target(&self, target: IpAddr) -> impl Iterator<Item = (ServicePath, LearnedPath)> {
        let (first, last) = ((target, Protocol::Tcp, 0, 0), (target, Protocol::Udp, u16::MAX, u16::MAX));
        self.paths.range(first..=last).map(|(place, known)| (service(*place, known), *known))
    }

    fn overlapping(&self, target: IpAddr, with: &ServicePath) -> impl Iterator<Item = (ServicePath, LearnedPath)> {
        let with = *with;
        self.of_target(target).filter(move |(known, _)| {
            known.protocol == with.protocol
                && known.ports.first <= with.ports.last
                && with.ports.first <= known.ports.last
        })
    }
}

fn place(target: IpAddr, service: &ServicePath) -> Place {
    (target, service.protocol, service.ports.first, service.ports.last)
}

fn service((_, protocol, first, last): Place, known: &LearnedPath) -> ServicePath {
    ServicePath { protocol, ports: PortRange { first, last }, path: known.path }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use vipa_model::{Delivery, Forwarding};

    use super::*;

    fn target(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(0xc633_6400 + number))
    }

    fn ipip(first: u16, last: u16) -> ServicePath {
        to(Forwarding::Ipip, first, last)
    }

    fn to(forwarding: Forwarding, first: u16, last: u16) -> ServicePath {
        let path = Delivery { forwarding, ..Delivery::default() }.path_to(target(1));
        ServicePath { protocol: Protocol::Tcp, ports: PortRange { first, last }, path }
    }

    #[test]
    fn the_newest_word_of_a_port_comes_last_and_replaces_what_it_covers() {
        let mut learned = LearnedPaths::default();
        assert!(learned.learn(target(1), ipip(80, 80)));
        assert!(!learned.learn(target(1), ipip(80, 80)), "known");
        assert!(learned.learn(target(1), to(Forwarding::Gre, 1, 100)));
        assert_eq!(learned.of(target(1)), [to(Forwarding::Gre, 1, 100)]);
        assert!(learned.learn(target(1), ipip(80, 80)));
        assert_eq!(learned.of(target(1)), [to(Forwarding::Gre, 1, 100), ipip(80, 80)]);
        assert!(learned.learn(target(1), to(Forwarding::Gre, 1, 100)), "the older of two is said again");
        assert_eq!(learned.of(target(1)), [to(Forwarding::Gre, 1, 100)]);
        assert_eq!(learned.of(target(2)), []);
    }

    #[test]
    fn hearsay_fills_gaps_and_replaces_nothing() {
        let mut learned = LearnedPaths::default();
        assert!(learned.fill(target(1), ipip(80, 89)));
        assert!(!learned.fill(target(1), to(Forwarding::Gue, 85, 95)));
        assert!(learned.fill(target(1), to(Forwarding::Gue, 90, 95)));
        assert!(learned.fill(target(2), to(Forwarding::Gue, 85, 95)));
        assert_eq!(learned.of(target(1)), [ipip(80, 89), to(Forwarding::Gue, 90, 95)]);
    }

    #[test]
    fn a_path_that_only_its_target_tells_makes_it_nobodys_candidate() {
        let mut learned = LearnedPaths::default();
        let web = (Protocol::Tcp, 85);
        learned.learn_reported(target(1), ipip(80, 89));
        learned.fill(target(2), ipip(80, 89));
        learned.learn(target(3), ipip(80, 89));
        assert_eq!([1, 2, 3].map(|number| learned.is_listed(target(number), web)), [false, false, true]);
        assert!(
            !learned.is_listed(target(3), (Protocol::Udp, 85)) && !learned.is_listed(target(3), (Protocol::Tcp, 90))
        );
        assert!(!learned.learn(target(1), ipip(80, 89)), "known, and from a list now");
        assert!(learned.is_listed(target(1), web));
        learned.learn_reported(target(3), to(Forwarding::Gre, 85, 85));
        assert!(learned.is_listed(target(3), web), "it may say how it is reached");
        let again = LearnedPaths::new(learned.all());
        assert!(!again.is_listed(target(3), web), "the disk does not tell who said it");
    }

    #[test]
    fn one_targets_many_paths_cost_the_others_none() {
        let mut learned = LearnedPaths::default();
        learned.learn(target(1), ipip(80, 80));
        for port in 1..=u16::try_from(2 * MAX_LEARNED_PATHS).unwrap() {
            learned.learn_reported(target(2), ipip(port, port));
        }
        assert_eq!((learned.of(target(1)).len(), learned.of(target(2)).len()), (1, MAX_REPORTED_PATHS));
    }

    #[test]
    fn what_is_beyond_the_limit_costs_the_oldest_and_is_counted() {
        let mut learned = LearnedPaths::default();
        let limit = u32::try_from(MAX_LEARNED_PATHS).unwrap();
        for number in 0..limit + 2 {
            assert!(learned.learn(target(number), ipip(80, 80)));
        }
        assert_eq!((learned.all().len(), learned.forgotten()), (MAX_LEARNED_PATHS, 2));
        assert_eq!(learned.all()[0].target, target(2));
        let again = LearnedPaths::new(learned.all());
        assert_eq!((again.all(), again.forgotten()), (learned.all(), 0));
    }
}
