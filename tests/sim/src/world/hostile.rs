//! A hostile peer with a certificate of the cluster: it links to every node that its role allows, and sends messages of
//! every kind with contents that do harm if they are accepted. Its links end with the faults, as if it were revoked.

use std::net::{IpAddr, Ipv4Addr};

use vipa_cluster::{Event, target};
use vipa_hostile::{HostileMessages, KnownCluster, SplitMix64};
use vipa_model::{Incarnation, NodeName, Rank, Voters};
use vipa_protocol::{Hello, Message, MessageKind, Role, VERSION};

use super::{CALM, HostileRole, MS, PORT, Scenario, Time, What, World, router_name, target_address, target_name};
use crate::{client::CLIENT, network::NodeId};

/// Its links begin when the cluster is complete: until two routers have distributed a VIPA, targets accept every router
/// (docs/security.md).
pub(super) const FIRST: Time = 1000 * MS;
/// Between two messages, at most.
const PACE: Time = 4 * MS;
/// Turns, of a thousand, in which it ends a link and greets again.
const NEW_LINKS: usize = 10;
/// The violations that a router with a rank must not cause.
const RANKED_MUST_NOT: [&str; 3] = ["I1:", "I2:", "I3:"];

/// Whether a violation counts with a hostile peer of this role: what its role allows is not counted against the honest
/// nodes.
pub(super) fn demands(role: HostileRole, violation: &str) -> bool {
    match role {
        HostileRole::Router | HostileRole::Target => true,
        HostileRole::RankedRouter => RANKED_MUST_NOT.iter().any(|invariant| violation.starts_with(invariant)),
    }
}

pub(super) struct Hostile {
    role: HostileRole,
    messages: HostileMessages,
    random: SplitMix64,
    life: u64,
    /// The incarnations of the nodes that it is linked to.
    linked: Vec<Option<u64>>,
}

impl Hostile {
    pub(super) fn new(role: HostileRole, scene: &Scenario, seed: u64) -> Self {
        let routers = (0..scene.routers).map(router_name);
        let nobody = "nobody".parse().ok();
        let targets = (0..scene.targets).map(target_name);
        let cluster = KnownCluster {
            vipas: scene.vipas().to_vec(),
            nodes: routers.chain(targets).chain(nobody).chain([name(role)]).collect(),
            targets: (0..scene.targets).map(target_address).chain([address()]).collect(),
            client: CLIENT,
            port: PORT,
            voters_versions: voters_versions(role),
        };
        Self {
            role,
            messages: HostileMessages::new(cluster, hello(role, 1, Voters::default())),
            random: SplitMix64::new(seed),
            life: 1,
            linked: vec![None; scene.routers + scene.targets],
        }
    }

    fn message(&mut self) -> Message {
        let kind = *self.random.one_of(MessageKind::ALL);
        self.messages.message(kind, &mut self.random)
    }
}

fn name(role: HostileRole) -> NodeName {
    let name = match role {
        HostileRole::Router | HostileRole::RankedRouter => "r9",
        HostileRole::Target => "t9",
    };
    name.parse().expect("a node name")
}

/// Its address as a target.
fn address() -> IpAddr {
    Ipv4Addr::new(198, 51, 100, 99).into()
}

fn hello(role: HostileRole, life: u64, voters: Voters) -> Hello {
    Hello {
        version: VERSION,
        cluster: "sim".into(),
        key: vipa_protocol::KeyDigest::default(),
        node: name(role),
        role: match role {
            HostileRole::Router | HostileRole::RankedRouter => Role::Router,
            HostileRole::Target => Role::Target { address: address() },
        },
        addresses: Vec::new(),
        incarnation: Incarnation(life),
        voters,
    }
}

/// A router that claims later voters than any node has delays the next change of voters (docs/security.md).
fn voters_versions(role: HostileRole) -> Vec<u32> {
    match role {
        HostileRole::Router | HostileRole::RankedRouter => vec![0, 1, u32::MAX - 1, u32::MAX],
        HostileRole::Target => vec![0, 1, 2, 3, u32::MAX - 1, u32::MAX],
    }
}

impl World {
    pub(super) fn hostile_rank(&self) -> Option<(NodeName, Rank)> {
        let role = self.scene.hostile.filter(|role| *role == HostileRole::RankedRouter)?;
        Some((name(role), Rank(1)))
    }

    /// An honest node has sent a message to a node that is not one of the honest ones.
    pub(super) fn post_to_hostile(&mut self, to: &NodeName, message: &Message) {
        if let Some(hostile) = self.hostile.as_mut().filter(|hostile| name(hostile.role) == *to) {
            hostile.messages.learn(message);
        }
    }

    /// Sends one message to one node.
    pub(super) fn hostile_turn(&mut self) {
        let Some(hostile) = &mut self.hostile else { return };
        if self.now >= CALM {
            return self.revoke_hostile();
        }
        // Targets are linked to routers only.
        let routers = self.scene.routers;
        let peers = if hostile.role == HostileRole::Target { routers } else { hostile.linked.len() };
        let node = hostile.random.below(peers);
        let ends = hostile.random.below(1000) < NEW_LINKS;
        let next = self.now + MS / 4 + hostile.random.below((PACE - MS / 4) as usize) as Time;
        self.plan(next, What::HostileTurn);
        if !self.runs(node) {
            return;
        }
        let life = self.nodes[node].life;
        let is_linked = self.hostile.as_ref().is_some_and(|hostile| hostile.linked[node] == Some(life));
        if !is_linked {
            return self.link_hostile(node, life);
        }
        if ends {
            return self.unlink_hostile(node);
        }
        let Some(hostile) = &mut self.hostile else { return };
        let (peer, message) = (name(hostile.role), hostile.message());
        self.tell(|| format!("hostile {peer} sends {}: {:.300}", node_name(node, routers), format!("{message:?}")));
        let event = Event::Received { peer: peer.clone(), message: message.clone() };
        self.feed(node, event, target::Event::Received { peer, message });
    }

    fn link_hostile(&mut self, node: NodeId, life: u64) {
        let voters = self.voters_of(node).unwrap_or_default();
        let Some(hostile) = &mut self.hostile else { return };
        hostile.life += 1;
        hostile.linked[node] = Some(life);
        let hello = hello(hostile.role, hostile.life, voters);
        hostile.messages.greet(hello.clone());
        let peer = hello.node.clone();
        let event = Event::Connected { peer: peer.clone(), hello: hello.clone() };
        self.feed(node, event, target::Event::Connected { peer, hello });
    }

    fn unlink_hostile(&mut self, node: NodeId) {
        let Some(hostile) = &mut self.hostile else { return };
        hostile.linked[node] = None;
        let peer = name(hostile.role);
        let event = Event::Disconnected { peer: peer.clone() };
        self.feed(node, event, target::Event::Disconnected { peer });
    }

    /// Ends its links for good. The link to a node that is stopped ends when the node runs again.
    fn revoke_hostile(&mut self) {
        let Some(hostile) = &self.hostile else { return };
        let linked = hostile.linked.clone();
        for (node, _) in linked.iter().enumerate().filter(|(_, life)| life.is_some()) {
            if self.runs(node) || !self.nodes[node].alive {
                self.unlink_hostile(node);
            }
        }
        match &self.hostile {
            Some(hostile) if hostile.linked.iter().any(Option::is_some) => {
                self.plan(self.now + PACE, What::HostileTurn);
            }
            _ => self.hostile = None,
        }
    }
}

fn node_name(node: NodeId, routers: usize) -> NodeName {
    if node < routers { router_name(node) } else { target_name(node - routers) }
}
