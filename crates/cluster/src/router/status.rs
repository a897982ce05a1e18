//! Status of a router, for `vipactl status`.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};
use vipa_model::{Epoch, Moment, NodeName, Protocol, Rank, Service, Stance};
use vipa_protocol::{Decision, Position, Role, TakeoverReport};

use super::{
    Router, RouterView, State,
    io::Resting,
    vipa::{Phase, Vipa},
};

/// A node that this router has a link to, and whose messages it accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    pub node: NodeName,
    pub role: Role,
    /// For a router that reports that it cannot route: why.
    pub unfit: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipaStatus {
    pub vipa: IpAddr,
    pub state: State,
    pub stance: Stance,
    pub epoch: Epoch,
    pub owner: Option<NodeName>,
    pub rank: Option<Rank>,
    /// While this router owns it: the end of its lease, and whether that has passed.
    pub lease: Option<Moment>,
    pub fenced: bool,
    pub yielding_to: Option<NodeName>,
    /// While this router forwards what still arrives after a hand-over: until when.
    pub lingers_until: Option<Moment>,
    /// The router that comes first by an operator's decision.
    pub placed: Option<NodeName>,
    /// Ranked routers that may not own it: deactivated, or left.
    pub barred: Vec<NodeName>,
    /// What prevents this router from taking it back; `None` when it is not to.
    pub takeback: Option<Wait>,
    pub group: Option<String>,
    /// The list that new connections use here.
    pub services: Vec<Service>,
    /// Targets that get no new connections.
    pub resting: Vec<Resting>,
    pub targets: Vec<TargetStatus>,
    pub last_report: Option<TakeoverReport>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    pub node: NodeName,
    pub address: IpAddr,
    pub linked: bool,
    /// It has answered in full on this link, and its log has been followed since.
    pub complete: bool,
    pub position: Option<Position>,
    pub listening: Vec<(Protocol, u16)>,
}

/// What a router that comes before the owner waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "kebab-case")]
pub enum Wait {
    /// Nothing: it asks, or has asked.
    Nothing,
    /// These candidates have no link to it, and of those linked it does not follow these logs yet.
    Targets {
        unlinked: Vec<IpAddr>,
        unread: Vec<IpAddr>,
    },
    /// These targets report to the owner and not to it.
    Unfollowed {
        targets: Vec<NodeName>,
    },
    /// Other VIPAs of its group are not ready.
    Group,
    Delay {
        until: Moment,
    },
    /// The end of the last connection; how many there are.
    Idle {
        connections: Option<u64>,
    },
    /// `takeback = "manual"`: an operator's order.
    Order,
}

/// The part of a VIPA's status that costs next to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipaBrief {
    pub state: State,
    pub epoch: Epoch,
    pub owner: Option<NodeName>,
    pub lease: Option<Moment>,
    pub yielding_to: Option<NodeName>,
}

impl VipaBrief {
    /// Whether this router may announce the VIPA to the network at `now`. Once the lease has passed, another router may own it already.
    /// So may the router that this one has consented to, which announces the VIPA before this router learns of it: an announcement
    /// after that one would bring packets back here whose connections have begun there.
    #[must_use]
    pub fn may_announce(&self, now: Moment) -> bool {
        matches!(self.state.stance(), Stance::Active | Stance::Rebuilding)
            && self.lease.is_some_and(|lease| now < lease)
            && self.yielding_to.is_none()
    }
}

impl State {
    /// The stance that the workers get.
    #[must_use]
    pub fn stance(self) -> Stance {
        match self {
            Self::Standby | Self::Suspecting | Self::Claiming => Stance::Standby,
            Self::Rebuilding => Stance::Rebuilding,
            Self::Active => Stance::Active,
            Self::Yielding => Stance::Yielding,
        }
    }
}

impl Router {
    /// The same on every node.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.settings.timing.lease
    }

    /// Paths to targets that were forgotten, because there was no room for more.
    #[must_use]
    pub fn paths_forgotten(&self) -> u64 {
        self.vipas.values().map(super::Vipa::paths_forgotten).sum()
    }

    /// The linked nodes, by name.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        let status = |(node, peer): (&NodeName, &super::Peer)| PeerStatus {
            node: node.clone(),
            role: peer.role.clone(),
            unfit: peer.unfit.clone(),
        };
        self.peers.iter().map(status).collect()
    }

    /// Whether there is a link to a node whose messages this router accepts.
    #[must_use]
    pub fn is_linked(&self, node: &NodeName) -> bool {
        self.peers.contains_key(node)
    }

    /// The address of every known target of a VIPA, and whether it is linked; some of them more than once.
    pub fn target_links(&self) -> impl Iterator<Item = (IpAddr, bool)> + '_ {
        let targets = self.vipas.values().flat_map(|vipa| vipa.targets.values());
        targets.map(|view| (view.address, view.linked))
    }

    /// Every configured VIPA, by address.
    #[must_use]
    pub fn vipas(&self) -> Vec<VipaStatus> {
        self.vipas.values().map(|vipa| vipa.status(&self.overview())).collect()
    }

    /// Beats of this owner that each voter has not answered yet, the most of any VIPA that it owns. Since an answer takes its time, 1
    /// is as good as 0.
    #[must_use]
    pub fn beats_unanswered(&self, now: Moment) -> BTreeMap<NodeName, u64> {
        let mut unanswered: BTreeMap<NodeName, u64> = BTreeMap::new();
        let beat = self.settings.timing.beat.as_nanos().max(1);
        for ownership in self.vipas.values().filter_map(Vipa::ownership) {
            for voter in self.settings.electors() {
                let answered = ownership.acknowledged.get(voter).copied().unwrap_or(ownership.granted_at);
                let beats = u64::try_from(now.since(answered).as_nanos() / beat).unwrap_or(u64::MAX);
                let most = unanswered.entry(voter.clone()).or_default();
                *most = beats.max(*most);
            }
        }
        unanswered
    }

    /// For each target, of how many VIPAs this router has not read all that the target reports.
    #[must_use]
    pub fn targets_behind(&self) -> BTreeMap<IpAddr, u64> {
        let mut behind: BTreeMap<IpAddr, u64> = BTreeMap::new();
        let views = self.vipas.values().flat_map(|vipa| vipa.targets.values());
        for view in views.filter(|view| view.linked && !view.is_warm()) {
            *behind.entry(view.address).or_default() += 1;
        }
        behind
    }

    /// The VIPAs whose connections are to be counted: feed `Event::Counted` about once a second.
    #[must_use]
    pub fn counts_wanted(&self, now: Moment) -> Vec<IpAddr> {
        let overview = self.overview();
        let idle = |vipa: &&Vipa| matches!(vipa.takeback(now, &overview), Some(Wait::Idle { .. }));
        self.vipas.values().filter(idle).map(|vipa| vipa.settings.address).collect()
    }

    /// Why this router cannot route, if it cannot.
    #[must_use]
    pub fn unfit(&self) -> Option<&str> {
        self.unfit.as_deref()
    }

    /// The routers beside the owner that could take the VIPA over, the first in line first: linked and fit ones that may own it, and this
    /// one while it would lose nothing.
    #[must_use]
    pub fn backups(&self, address: IpAddr) -> Vec<NodeName> {
        let overview = self.overview();
        let Some(vipa) = self.vipas.get(&address) else { return Vec::new() };
        let could = |name: &&NodeName| match self.peers.get(*name) {
            _ if vipa.owner.as_ref() == Some(*name) || vipa.succession(name, &overview).is_none() => false,
            Some(peer) => peer.unfit.is_none(),
            None => {
                **name == self.settings.me && self.unfit.is_none() && vipa.is_ready(self.now, &self.settings.timing)
            }
        };
        let mut backups: Vec<&NodeName> = vipa.settings.ranks.iter().map(|(name, _)| name).filter(could).collect();
        backups.sort_by_key(|name| std::cmp::Reverse(vipa.succession(name, &overview)));
        backups.into_iter().cloned().collect()
    }

    /// The operators' decisions that this router has.
    #[must_use]
    pub fn decisions(&self) -> Vec<Decision> {
        self.decision_log.all()
    }

    #[must_use]
    pub fn brief(&self, address: IpAddr) -> Option<VipaBrief> {
        let vipa = self.vipas.get(&address)?;
        let ownership = vipa.ownership();
        let consent = ownership.and_then(|ownership| ownership.consent.as_ref());
        Some(VipaBrief {
            state: vipa.state(),
            epoch: vipa.epoch,
            owner: vipa.owner.clone(),
            lease: ownership.map(|ownership| ownership.lease),
            yielding_to: consent.map(|consent| consent.to.clone()),
        })
    }

    #[must_use]
    pub fn vipa(&self, address: IpAddr) -> Option<VipaStatus> {
        self.vipas.get(&address).map(|vipa| vipa.status(&self.overview()))
    }

    /// Whether a router's list that is known here names the target for this port of the VIPA.
    #[must_use]
    pub fn is_listed(&self, vipa: IpAddr, target: IpAddr, service: (Protocol, u16)) -> bool {
        self.vipas.get(&vipa).is_some_and(|vipa| vipa.is_listed(target, service))
    }
}

impl Vipa {
    fn status(&self, overview: &RouterView<'_>) -> VipaStatus {
        let (vipa, me) = (self.settings.address, &overview.settings.me);
        let barred =
            self.settings.ranks.iter().map(|(name, _)| name).filter(|name| !overview.decision_log.may_own(vipa, name));
        let ownership = self.ownership();
        let target = |(node, view): (&NodeName, &super::reports::TargetView)| TargetStatus {
            node: node.clone(),
            address: view.address,
            linked: view.linked,
            complete: view.is_warm(),
            position: view.seen,
            listening: view.listening.clone().unwrap_or_default(),
        };
        VipaStatus {
            vipa,
            state: self.state(),
            stance: self.state().stance(),
            epoch: self.epoch,
            owner: self.owner.clone(),
            rank: self.settings.rank(me),
            lease: ownership.map(|ownership| ownership.lease),
            fenced: ownership.is_some_and(|ownership| ownership.fenced.is_some()),
            yielding_to: ownership.and_then(|ownership| ownership.consent.as_ref()).map(|consent| consent.to.clone()),
            lingers_until: match self.phase {
                Phase::Yielding { until, .. } => Some(until),
                Phase::Standby
                | Phase::Suspecting(_)
                | Phase::Claiming(_)
                | Phase::Rebuilding(_)
                | Phase::Active(_) => None,
            },
            placed: overview.decision_log.place(vipa).cloned(),
            barred: barred.cloned().collect(),
            takeback: self.takeback(overview.now, overview),
            group: self.settings.group.clone(),
            services: self.services().to_vec(),
            resting: self.resting().to_vec(),
            targets: self.targets.iter().map(target).collect(),
            last_report: self.last_report.clone(),
        }
    }
}
