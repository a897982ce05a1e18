//! A large cluster without packets: real brains of routers and targets on one clock, and a network that loses nothing and takes one
//! time for all. What each node says is counted, in messages and in bytes as they are on the wire.
//!
//! ```text
//!   started, linked, everything owned ──► a second of calm ──► a router dies ──► its VIPAs are owned again
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use vipa_cluster::{
    Event, Output, Router, Settings, State, Stored, Takeback, Timing, VipaSettings,
    target::{self, Target},
};
use vipa_model::{
    Balance, Delivery, Incarnation, Moment, NodeName, Orphans, PortRange, Protocol, Rank, Service, Sources,
};
use vipa_protocol::{Message, wire};

/// As `lease_ms` is by default.
const LEASE: Duration = Duration::from_millis(100);
const LATENCY: Duration = Duration::from_micros(200);
/// Routers that may own one VIPA, and targets that serve it.
const RANKED: usize = 3;
const CANDIDATES: usize = 4;
const SETTLING: Duration = Duration::from_secs(3);
const CALM: Duration = Duration::from_secs(1);
/// After a router has died, its VIPAs are owned again within this time.
const RECOVERY: Duration = Duration::from_secs(1);
/// Heartbeats of an owner, each to everybody, and their answers: more in a calm second than this for each peer means that
/// something else is said again and again.
const MOST_MESSAGES_A_PEER: u64 = 120;

/// How large the cluster is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub routers: usize,
    pub targets: usize,
    pub vipas: usize,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Bill {
    /// In all, from the first link until everything is owned.
    pub starting: Traffic,
    /// In a calm second: the router and the target that say most.
    pub router: Traffic,
    pub target: Traffic,
    /// In the second after a router's death, all together.
    pub death: Traffic,
    /// From the death until the last VIPA was owned again.
    pub orphaned: Duration,
    pub moved: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Traffic {
    pub messages: u64,
    pub bytes: u64,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages, {} bytes", self.messages, self.bytes)
    }
}

enum Brain {
    Router(Box<Router>),
    Target(Box<Target>),
    Dead,
}

struct Crowd {
    size: Size,
    now: Moment,
    names: Vec<NodeName>,
    ids: BTreeMap<NodeName, usize>,
    brains: Vec<Brain>,
    said: Vec<Traffic>,
    /// All under way for the same time, so in the order they arrive in.
    wire: VecDeque<(Moment, usize, usize, Message)>,
    timers: Vec<Option<Moment>>,
    /// Routers that have been fed since their timers were set. Most messages of a moment are for few of them, and to look for a deadline
    /// takes a walk over a router's VIPAs.
    fed: BTreeSet<usize>,
    /// Targets that are to look at their kernels, each with the last token: one look answers all that asked for one in the same moment.
    looks: BTreeMap<usize, u64>,
    /// By due time; one that is no longer its node's is passed over.
    alarms: BTreeMap<(Moment, usize), ()>,
}

/// Runs a cluster of this size.
///
/// # Errors
/// A sentence about what was not as it must be.
pub fn run(size: Size) -> Result<Bill, String> {
    let mut crowd = Crowd::new(size);
    crowd.link_all();
    crowd.run_for(SETTLING);
    crowd.all_owned()?;
    let mut bill = Bill { starting: crowd.total(), ..Bill::default() };
    crowd.said.fill(Traffic::default());
    crowd.run_for(CALM);
    crowd.all_owned()?;
    bill.router = crowd.said[..size.routers].iter().copied().max().unwrap_or_default();
    bill.target = crowd.said[size.routers..].iter().copied().max().unwrap_or_default();
    let peers = (size.routers + size.targets) as u64;
    if bill.router.messages > peers * MOST_MESSAGES_A_PEER {
        return Err(format!("a router says too much in a calm second: {}", bill.router));
    }
    crowd.said.fill(Traffic::default());
    // A router that is no voter: what is asked of voters then is the most.
    let dying = size.routers - 1;
    bill.moved = crowd.owned_by(dying);
    crowd.brains[dying] = Brain::Dead;
    let died = crowd.now;
    while crowd.all_owned().is_err() {
        if crowd.now.since(died) > RECOVERY {
            crowd.all_owned()?;
        }
        crowd.run_for(LEASE / 10);
    }
    bill.orphaned = crowd.now.since(died);
    crowd.run_for(Duration::from_secs(1).saturating_sub(bill.orphaned));
    bill.death = crowd.total();
    Ok(bill)
}

fn vipa_address(vipa: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2 + (vipa / 250) as u8, (vipa % 250) as u8 + 1))
}

fn target_address(target: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 18, (target / 250) as u8, (target % 250) as u8 + 1))
}

fn named(letter: char, index: usize) -> NodeName {
    format!("{letter}{}", index + 1).parse().expect("a node name")
}

impl Crowd {
    fn new(size: Size) -> Self {
        let now = Moment(1_000_000_000);
        let routers = (0..size.routers).map(|index| named('r', index));
        let names: Vec<NodeName> = routers.chain((0..size.targets).map(|index| named('t', index))).collect();
        let voters = [&names[..3], &names[size.routers..size.routers + 2]].concat();
        let brain = |id: usize| {
            let me = names[id].clone();
            if id < size.routers {
                let settings = router_settings(size, id, me, voters.clone());
                Brain::Router(Box::new(Router::new(settings, Stored::default(), now)))
            } else {
                let settings = target::Settings {
                    cluster: "scale".into(),
                    me,
                    address: target_address(id - size.routers),
                    incarnation: Incarnation(1),
                    voters: voters.clone().into(),
                    lease: LEASE,
                    kept_records: 64,
                };
                Brain::Target(Box::new(Target::new(settings, Vec::new(), now)))
            }
        };
        let brains: Vec<Brain> = (0..names.len()).map(brain).collect();
        Self {
            size,
            now,
            ids: names.iter().cloned().enumerate().map(|(id, name)| (name, id)).collect(),
            said: vec![Traffic::default(); names.len()],
            timers: vec![None; names.len()],
            names,
            brains,
            wire: VecDeque::new(),
            fed: BTreeSet::new(),
            looks: BTreeMap::new(),
            alarms: BTreeMap::new(),
        }
    }

    fn link_all(&mut self) {
        for one in 0..self.size.routers {
            for other in one + 1..self.names.len() {
                for (node, peer) in [(one, other), (other, one)] {
                    let hello = match &self.brains[peer] {
                        Brain::Router(router) => router.hello(),
                        Brain::Target(target) => target.hello(),
                        Brain::Dead => continue,
                    };
                    let peer = self.names[peer].clone();
                    let event = Event::Connected { peer: peer.clone(), hello: hello.clone() };
                    self.feed(node, event, target::Event::Connected { peer, hello });
                }
            }
            // One after the other, so that not everything is under way at once.
            self.run_for(LATENCY * 4);
        }
    }

    fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let letter = self.wire.front().map(|(at, ..)| *at);
            if letter.is_none_or(|at| at > self.now) {
                for (target, token) in std::mem::take(&mut self.looks) {
                    self.feed(target, Event::Timeout, target::Event::Looked { token });
                }
                self.set_timers();
            }
            let alarm = self.alarms.first_key_value().map(|((at, _), ())| *at);
            let Some(next) = letter.into_iter().chain(alarm).min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if letter == Some(next) {
                let Some((_, from, to, message)) = self.wire.pop_front() else { break };
                let peer = self.names[from].clone();
                let event = Event::Received { peer: peer.clone(), message: message.clone() };
                self.feed(to, event, target::Event::Received { peer, message });
            } else if let Some(((at, node), ())) = self.alarms.pop_first()
                && self.timers[node] == Some(at)
            {
                self.timers[node] = None;
                self.feed(node, Event::Timeout, target::Event::Looked { token: 0 });
            }
        }
        self.now = end;
    }

    fn set_timers(&mut self) {
        for node in std::mem::take(&mut self.fed) {
            let Brain::Router(router) = &self.brains[node] else { continue };
            let deadline = router.deadline().map(|deadline| deadline.max(self.now));
            if deadline != self.timers[node] {
                self.timers[node] = deadline;
                self.alarms.extend(deadline.map(|deadline| ((deadline, node), ())));
            }
        }
    }

    fn feed(&mut self, node: usize, event: Event, target_event: target::Event) {
        let now = self.now;
        match &mut self.brains[node] {
            Brain::Router(router) => {
                let mut out = Vec::new();
                router.handle(now, event, &mut out);
                self.fed.insert(node);
                for output in out {
                    match output {
                        Output::Send { to, message } => self.send(node, &to, message),
                        Output::StoreVote { token, .. } => {
                            self.feed(node, Event::VotesStored { token }, target::Event::VotesStored { token });
                        }
                        _ => {}
                    }
                }
            }
            Brain::Target(target) => {
                let mut out = Vec::new();
                target.handle(now, target_event, &mut out);
                for output in out {
                    match output {
                        target::Output::Send { to, message } => self.send(node, &to, message),
                        target::Output::StoreVote { token, .. } => {
                            self.feed(node, Event::VotesStored { token }, target::Event::VotesStored { token });
                        }
                        target::Output::Look { token } => drop(self.looks.insert(node, token)),
                        _ => {}
                    }
                }
            }
            Brain::Dead => {}
        }
    }

    fn send(&mut self, from: usize, to: &NodeName, message: Message) {
        let bytes = wire::encode(&message).map_or(0, |bytes| bytes.len() as u64);
        let Traffic { messages, bytes: before } = self.said[from];
        self.said[from] = Traffic { messages: messages + 1, bytes: before + bytes };
        self.wire.push_back((self.now + LATENCY, from, self.ids[to], message));
    }

    fn total(&self) -> Traffic {
        let add =
            |sum: Traffic, of: &Traffic| Traffic { messages: sum.messages + of.messages, bytes: sum.bytes + of.bytes };
        self.said.iter().fold(Traffic::default(), add)
    }

    fn owned_by(&self, router: usize) -> usize {
        let Brain::Router(router) = &self.brains[router] else { return 0 };
        let owns = |vipa: &usize| {
            let brief = router.brief(vipa_address(*vipa));
            brief.is_some_and(|brief| matches!(brief.state, State::Rebuilding | State::Active))
        };
        (0..self.size.vipas).filter(owns).count()
    }

    fn all_owned(&self) -> Result<(), String> {
        let owned: usize = (0..self.size.routers).map(|router| self.owned_by(router)).sum();
        if owned == self.size.vipas { Ok(()) } else { Err(format!("{owned} of {} VIPAs are owned", self.size.vipas)) }
    }
}

fn router_settings(size: Size, id: usize, me: NodeName, voters: Vec<NodeName>) -> Settings {
    let ranked = |vipa: usize| (0..RANKED.min(size.routers)).map(move |place| (vipa + place) % size.routers);
    let vipa = |vipa: usize| {
        let candidates = (0..CANDIDATES).map(|step| target_address((vipa * 7 + step * 13) % size.targets)).collect();
        let service = Service {
            protocol: Protocol::Tcp,
            ports: PortRange::one(80),
            delivery: Delivery::default(),
            balance: Balance::Maglev,
            choice: vipa_model::Choice::default(),
            orphans: Orphans::Reset,
            sources: Sources::default(),
            candidates,
        };
        VipaSettings {
            address: vipa_address(vipa),
            ranks: ranked(vipa).zip([200, 150, 100]).map(|(router, rank)| (named('r', router), Rank(rank))).collect(),
            services: Some(vec![service]),
            activate: true,
            takeback: Takeback::Immediate,
            takeback_delay: Duration::ZERO,
            group: None,
        }
    };
    Settings {
        cluster: "scale".into(),
        me,
        addresses: Vec::new(),
        incarnation: Incarnation(1),
        voters: voters.into(),
        timing: Timing::of_lease(LEASE),
        vipas: (0..size.vipas).filter(|of| ranked(*of).any(|router| router == id)).map(vipa).collect(),
    }
}
