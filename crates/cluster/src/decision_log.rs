//! Decisions of operators at one node: for each matter the decision with the highest stamp.
//!
//! Every node merges the decisions that it receives, so that all nodes reach the same state by whatever path and in
//! whatever order decisions travel. A ruling is never forgotten while there is room, nor is a withdrawn one: it must
//! win over an older one that comes late.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};
use vipa_model::{NodeName, Protocol, Service};
use vipa_protocol::{Decision, Given, Matter, Ruling, Stamp};

/// Matters with a decision. When there are more, the oldest decisions that equal the configuration are forgotten,
/// others never.
pub(crate) const MOST_MATTERS: usize = 4096;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DecisionLog {
    decisions: BTreeMap<Matter, Recorded>,
}

/// What was decided about a matter.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Recorded {
    ruling: Ruling,
    stamp: Stamp,
    given: Option<Given>,
}

impl DecisionLog {
    /// From the file of decisions. A file of an earlier release may have stamps that no honest node can have made:
    /// these are left out.
    pub(crate) fn new(stored: Vec<Decision>) -> Self {
        let mut decision_log = Self::default();
        for decision in stored.into_iter().filter(|decision| decision.stamp.count < u64::MAX / 2) {
            decision_log.merge(decision);
        }
        decision_log
    }

    /// The decision that `by` would make now; it is in force once it is merged.
    pub(crate) fn propose(&self, matter: Matter, ruling: Ruling, by: &NodeName, given: Option<Given>) -> Decision {
        Decision { matter, ruling, stamp: Stamp { count: self.highest_stamp() + 1, by: by.clone() }, given }
    }

    pub(crate) fn highest_stamp(&self) -> u64 {
        self.decisions.values().map(|recorded| recorded.stamp.count).max().unwrap_or_default()
    }

    pub(crate) fn is_new(&self, decision: &Decision) -> bool {
        self.decisions.get(&decision.matter).is_none_or(|known| known.stamp < decision.stamp)
    }

    /// Merges a decision; returns whether it was new.
    pub(crate) fn merge(&mut self, decision: Decision) -> bool {
        let Decision { matter, ruling, stamp, given } = decision;
        if self.decisions.get(&matter).is_some_and(|known| known.stamp >= stamp) {
            return false;
        }
        if self.decisions.len() >= MOST_MATTERS && !self.decisions.contains_key(&matter) && !self.make_room() {
            return false;
        }
        self.decisions.insert(matter, Recorded { ruling, stamp, given });
        true
    }

    pub(crate) fn has_room(&self, matter: &Matter) -> bool {
        let settled = |recorded: &Recorded| recorded.ruling == Ruling::AsConfigured;
        self.decisions.len() < MOST_MATTERS
            || self.decisions.contains_key(matter)
            || self.decisions.values().any(settled)
    }

    fn make_room(&mut self) -> bool {
        let settled = self.decisions.iter().filter(|(_, recorded)| recorded.ruling == Ruling::AsConfigured);
        let oldest = settled.min_by_key(|(_, recorded)| &recorded.stamp).map(|(matter, _)| matter.clone());
        oldest.is_some_and(|matter| self.decisions.remove(&matter).is_some())
    }

    pub(crate) fn ruling(&self, matter: &Matter) -> Ruling {
        self.decisions.get(matter).map_or(Ruling::AsConfigured, |recorded| recorded.ruling.clone())
    }

    /// Who decided about it last, and when.
    pub(crate) fn given(&self, matter: &Matter) -> Option<&Given> {
        self.decisions.get(matter)?.given.as_ref()
    }

    pub(crate) fn all(&self) -> Vec<Decision> {
        let decision = |(matter, Recorded { ruling, stamp, given }): (&Matter, &Recorded)| Decision {
            matter: matter.clone(),
            ruling: ruling.clone(),
            stamp: stamp.clone(),
            given: given.clone(),
        };
        self.decisions.iter().map(decision).collect()
    }

    pub(crate) fn withholds(&self, matter: &Matter) -> bool {
        self.decisions.get(matter).is_some_and(|recorded| recorded.ruling == Ruling::Withheld)
    }

    /// The router that comes first for this VIPA by decision, whatever its rank.
    pub(crate) fn place(&self, vipa: IpAddr) -> Option<&NodeName> {
        match self.decisions.get(&Matter::Place { vipa }) {
            Some(Recorded { ruling: Ruling::At(router), .. }) => Some(router),
            Some(Recorded { ruling: Ruling::AsConfigured | Ruling::Withheld, .. }) | None => None,
        }
    }

    pub(crate) fn may_own(&self, vipa: IpAddr, router: &NodeName) -> bool {
        self.decisions.is_empty()
            || !self.withholds(&Matter::Ownership { vipa, router: router.clone() }) && !self.has_left(router)
    }

    pub(crate) fn has_left(&self, node: &NodeName) -> bool {
        !self.decisions.is_empty() && self.withholds(&Matter::Membership { node: node.clone() })
    }

    /// Whether new connections to the service must not go to this target.
    pub(crate) fn rests(&self, vipa: IpAddr, service: &Service, target: IpAddr, node: Option<&NodeName>) -> bool {
        if self.decisions.is_empty() {
            return false;
        }
        let (protocol, port): (Protocol, u16) = (service.protocol, service.ports.first);
        let of = |target| Matter::Service { vipa, protocol, port, target };
        self.withholds(&Matter::Target { target })
            || self.withholds(&of(None))
            || self.withholds(&of(Some(target)))
            || node.is_some_and(|node| self.has_left(node))
    }
}

#[cfg(test)]
mod tests;
