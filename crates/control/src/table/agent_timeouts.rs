//! Targets whose agents have been away for long. Nobody will say that what they reported has ended: from then on it ages as if
//! nobody had reported it, and a client that comes again from the same port is placed anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use vipa_model::Moment;

use crate::control::Control;

/// Long enough for a host to be started again, or an agent to be looked after.
const LONG: Duration = Duration::from_secs(600);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(10);

/// Since when each target that is not linked has not been.
#[derive(Debug, Default)]
pub(crate) struct AgentTimeouts {
    since: BTreeMap<IpAddr, Moment>,
    looked: Moment,
}

impl AgentTimeouts {
    pub(crate) fn is_due(&self, now: Moment) -> bool {
        now.since(self.looked) >= LOOK
    }

    /// Every target that is known, and whether it is linked, perhaps more than once. Names those that have been away for long.
    pub(crate) fn look(&mut self, known: impl IntoIterator<Item = (IpAddr, bool)>, now: Moment) -> BTreeSet<IpAddr> {
        let mut linked_anywhere = BTreeMap::new();
        for (target, linked) in known {
            *linked_anywhere.entry(target).or_insert(false) |= linked;
        }
        let missing = linked_anywhere.into_iter().filter(|(_, linked)| !linked).map(|(target, _)| target);
        let since = missing.map(|target| (target, self.since.get(&target).copied().unwrap_or(now))).collect();
        (self.since, self.looked) = (since, now);
        self.since.iter().filter(|(_, since)| now.since(**since) >= LONG).map(|(target, _)| *target).collect()
    }
}

impl Control {
    pub(crate) fn look_for_absent(&mut self, now: Moment) {
        let away = self.agent_timeouts.look(self.cluster.target_links(), now);
        if away != self.routing.away {
            tracing::info!(?away, "targets whose agents have been away for long");
            self.routing.away = away;
            self.routes_stale = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const T1: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));
    const T2: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 22));

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_target_is_away_for_long_when_it_was_not_linked_all_that_time() {
        let mut agent_timeouts = AgentTimeouts::default();
        assert!(agent_timeouts.is_due(at(10)) && agent_timeouts.look([(T1, false), (T2, true)], at(10)).is_empty());
        assert!(!agent_timeouts.is_due(at(19)) && agent_timeouts.is_due(at(20)));
        assert!(agent_timeouts.look([(T1, false), (T2, false)], at(609)).is_empty());
        assert_eq!(agent_timeouts.look([(T1, false), (T2, false)], at(610)), BTreeSet::from([T1]));
        assert!(agent_timeouts.look([(T1, true), (T2, true)], at(620)).is_empty());
        assert!(agent_timeouts.look([(T1, false), (T2, false)], at(1_200)).is_empty(), "it was back");
    }

    #[test]
    fn a_target_of_several_vipas_is_there_when_one_of_them_has_it() {
        let mut agent_timeouts = AgentTimeouts::default();
        agent_timeouts.look([(T1, false), (T1, true)], at(10));
        assert!(agent_timeouts.look([(T1, true), (T1, false)], at(1_000)).is_empty());
    }
}
