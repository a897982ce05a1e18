//! A hostile peer: it has a node's certificate and address, and uses the real protocol on the real transport, but keeps
//! none of its rules. It sends each router every kind of message with the numbers that are most likely to be accepted
//! or to overflow, and then all of them at random, until it is ended.

use std::{
    net::Ipv4Addr,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use vipa_model::{
    Incarnation, NodeName,
    config::{Config, Program},
};
use vipa_protocol::{Hello, Message, MessageKind, Role, VERSION};
use vipa_transport::{Admission, Identity, LinkEvent, Sender, Timing, TransportSettings};

use vipa_hostile::{HostileMessages, KnownCluster, SplitMix64};

use crate::cluster::{SERVICE_PORT, VIPA};

/// Messages of each kind, before kinds are chosen at random.
const OF_EACH_KIND: usize = 40;
/// Between two messages to each linked router: a rate that a busy machine can still handle.
const PACE: Duration = Duration::from_millis(5);

/// Runs until SIGTERM with a node's configuration, an agent's or a router's; then prints what it has done in one line.
pub fn attack(config: &Path, seed: u64) -> Result<()> {
    let name = config.display().to_string();
    let text = std::fs::read_to_string(config).with_context(|| format!("cannot read {name}"))?;
    let is_target = text.contains("\n[agent]");
    let program = if is_target { Program::Agent } else { Program::Router };
    let config = Config::parse_for(program, &name, &text)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(&config, seed))
}

struct Peer {
    links: Sender,
    known: HostileMessages,
    random: SplitMix64,
    sent: u64,
    refused: u64,
}

async fn run(config: &Config, seed: u64) -> Result<()> {
    let role = config.agent.as_ref().map_or(Role::Router, |agent| Role::Target { address: agent.address });
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let hello = Hello {
        version: VERSION,
        cluster: config.cluster.name.clone(),
        key: vipa_transport::key_digest(&config.cluster.name, &config.cluster.key),
        node: config.node.name.clone(),
        role,
        addresses: Vec::new(),
        incarnation: Incarnation(u64::try_from(since.as_millis())?),
        voters: config.cluster.voters.clone(),
    };
    let identity = Identity::load(&config.pki.ca, &config.pki.certificate, &config.pki.key)?;
    let me = config.node.name.clone();
    let dial = config.cluster.routers.iter().filter(|(router, _)| *router != me).cloned().collect();
    let (admission, timing) = (Admission::of(config), Timing::default());
    let settings = TransportSettings { hello: hello.clone(), listen: None, dial, admission, timing };
    let (links, mut events) = vipa_transport::start(settings, &identity)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut peer = Peer {
        links,
        known: HostileMessages::new(known_cluster(&me), hello),
        random: SplitMix64::new(seed),
        sent: 0,
        refused: 0,
    };
    let mut turn = tokio::time::interval(PACE);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut planned = MessageKind::ALL.iter().cycle().take(OF_EACH_KIND * MessageKind::ALL.len());
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            Some(event) = events.recv() => match event {
                LinkEvent::Up { .. } | LinkEvent::Down { .. } => {}
                LinkEvent::Message { message, .. } => peer.known.learn(&message),
                LinkEvent::Refused(refusal) => {
                    peer.refused += refusal.times;
                    eprintln!("{refusal}");
                }
            },
            _ = turn.tick() => {
                let routers = peer.links.linked();
                if !routers.is_empty() {
                    let kind = planned.next().copied();
                    routers.iter().for_each(|router| peer.send(router, kind));
                }
            }
        }
    }
    let Peer { sent, refused, .. } = peer;
    // The position of the refusals.
    eprintln!("{}", serde_json::json!({ "sent": sent, "refused": refused }));
    Ok(())
}

/// The nodes of the lab, some of which do not exist.
fn known_cluster(me: &NodeName) -> KnownCluster {
    let nodes = ["r1", "r2", "r3", "t1", "t2", "t3", "nobody"].iter().filter_map(|name| name.parse().ok());
    KnownCluster {
        vipas: vec![VIPA.into()],
        nodes: nodes.chain([me.clone()]).collect(),
        targets: [31, 32, 33, 34, 35, 99].map(|host| Ipv4Addr::new(10, 77, 0, host).into()).to_vec(),
        client: Ipv4Addr::new(10, 77, 0, 51),
        port: SERVICE_PORT,
        voters_versions: vec![0, 1, 2, 3, u32::MAX - 1, u32::MAX],
    }
}

impl Peer {
    fn send(&mut self, to: &NodeName, kind: Option<MessageKind>) {
        let kind = kind.unwrap_or_else(|| *self.random.one_of(MessageKind::ALL));
        let message: Message = self.known.message(kind, &mut self.random);
        self.links.send(to, &message);
        self.sent += 1;
    }
}
