//! What `vipactl status` may ask of a router's brain.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vipa_model::{Epoch, Moment, NodeName, Protocol, Rank, Service, Stance};
use vipa_protocol::{Position, Role, TakeoverReport};

use super::{Router, State, vipa::Vipa};

/// A node this router has a link to, and listens to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    pub node: NodeName,
    pub role: Role,
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
    /// The list new connections use here.
    pub services: Vec<Service>,
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

/// The little of a VIPA's status that costs nothing to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipaBrief {
    pub state: State,
    pub epoch: Epoch,
    pub lease: Option<Moment>,
    pub yielding_to: Option<NodeName>,
}

impl State {
    /// What the workers are told of it.
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
    /// The linked nodes, by name.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.peers.iter().map(|(node, peer)| PeerStatus { node: node.clone(), role: peer.role.clone() }).collect()
    }

    /// Whether there is a link to a node this router listens to.
    #[must_use]
    pub fn is_linked(&self, node: &NodeName) -> bool {
        self.peers.contains_key(node)
    }

    /// Every configured VIPA, by address.
    #[must_use]
    pub fn vipas(&self) -> Vec<VipaStatus> {
        self.vipas.values().map(|vipa| vipa.status(&self.settings.me)).collect()
    }

    #[must_use]
    pub fn brief(&self, address: IpAddr) -> Option<VipaBrief> {
        let vipa = self.vipas.get(&address)?;
        let tenure = vipa.tenure();
        let consent = tenure.and_then(|tenure| tenure.consent.as_ref());
        Some(VipaBrief {
            state: vipa.state(),
            epoch: vipa.epoch,
            lease: tenure.map(|tenure| tenure.lease),
            yielding_to: consent.map(|consent| consent.to.clone()),
        })
    }

    #[must_use]
    pub fn vipa(&self, address: IpAddr) -> Option<VipaStatus> {
        self.vipas.get(&address).map(|vipa| vipa.status(&self.settings.me))
    }
}

impl Vipa {
    fn status(&self, me: &NodeName) -> VipaStatus {
        let tenure = self.tenure();
        let target = |(node, view): (&NodeName, &super::reports::TargetView)| TargetStatus {
            node: node.clone(),
            address: view.address,
            linked: view.linked,
            complete: view.is_warm(),
            position: view.seen,
            listening: view.listening.clone().unwrap_or_default(),
        };
        VipaStatus {
            vipa: self.settings.address,
            state: self.state(),
            stance: self.state().stance(),
            epoch: self.epoch,
            owner: self.owner.clone(),
            rank: self.settings.rank(me),
            lease: tenure.map(|tenure| tenure.lease),
            fenced: tenure.is_some_and(|tenure| tenure.fenced.is_some()),
            yielding_to: tenure.and_then(|tenure| tenure.consent.as_ref()).map(|consent| consent.to.clone()),
            services: self.services().to_vec(),
            targets: self.targets.iter().map(target).collect(),
            last_report: self.last_report.clone(),
        }
    }
}
