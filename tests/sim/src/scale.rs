//! A large cluster without packets: the real cluster logic of routers and targets on one clock, a network that loses
//! nothing and delays all messages alike, a disk for each node and a kernel for each target. It counts each node's
//! messages and their bytes on the wire, its writes, and the VIPAs that its events make it look at.
//!
//! ```text
//!   started, linked, everything owned ──► a second of calm ──► a router dies ──► its VIPAs are owned again
//! ```
//! A disk writes all waiting votes at once, with two syncs of 1 to 20 ms, by the seed. An agent's look at its kernel
//! takes 1 to 8 ms and begins after the addresses that were to be set, each of which takes a request. Both go on beside
//! the loop of their node. The cost of the loops themselves is not simulated.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    net::{IpAddr, Ipv4Addr},
    ops::Range,
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

use crate::random::Random;

/// The default of `lease_ms`.
const LEASE: Duration = Duration::from_millis(100);
const LATENCY: Duration = Duration::from_micros(200);
/// A sync of a disk, microseconds: from a local flash disk to a busy network disk.
const SYNC_US: Range<u64> = 1_000..20_000;
/// A write is synced, and then its folder.
const SYNCS: usize = 2;
/// A dump of sockets over netlink, microseconds.
const LOOK_US: Range<u64> = 1_000..8_000;
/// One address set over netlink.
const ADDRESS: Duration = Duration::from_micros(50);
/// Routers that may own one VIPA, and targets that serve it.
const RANKED: usize = 3;
const CANDIDATES: usize = 4;
const SETTLING: Duration = Duration::from_secs(3);
const CALM: Duration = Duration::from_secs(1);
/// Time after a router's death within which its VIPAs are owned again.
const RECOVERY: Duration = Duration::from_secs(1);
/// Messages of a calm second per peer: an owner's beats to every node, and the answers. More than this means that other
/// messages are repeated again and again.
const MOST_MESSAGES_A_PEER: u64 = 120;
/// As in the cluster logic.
const VIPAS_IN_A_BEAT: usize = 30;

/// Size of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub routers: usize,
    pub targets: usize,
    pub vipas: usize,
}

/// Results of a run.
#[derive(Clone, Debug, Default)]
pub struct Bill {
    /// In all, from the first link until everything is owned.
    pub starting: Traffic,
    /// In a calm second: the router and the target that send most.
    pub router: Traffic,
    pub target: Traffic,
    /// In the second after a router's death, all nodes together.
    pub death: Traffic,
    /// From the death until the last VIPA was owned again.
    pub orphaned: Duration,
    pub moved: usize,
    /// Writes of votes since the start, all together, and the number of claims whose votes they had.
    pub writes: u64,
    pub votes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Traffic {
    pub messages: u64,
    pub bytes: u64,
    /// VIPAs that a router looked at.
    pub looks: u64,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, bytes, looks } = self;
        write!(f, "{messages} messages, {bytes} bytes, {looks} looks at a VIPA")
    }
}

enum Brain {
    Router(Box<Router>),
    Target(Box<Target>),
    Dead,
}

/// What a node does beside its loop, and what it has to do next.
#[derive(Clone, Debug, Default)]
struct Beside {
    /// Votes wait that the write under way does not have.
    stale: bool,
    writing: bool,
    /// The last look that was requested while one is under way.
    to_look: Option<u64>,
    looking: bool,
    /// Until when the agent sets addresses, and which are set.
    busy_until: Moment,
    served: usize,
}

#[derive(Clone, Copy, Debug)]
enum Task {
    Stored { node: usize, token: u64 },
    Looked { node: usize, token: u64 },
}

struct Crowd {
    size: Size,
    random: Random,
    now: Moment,
    names: Vec<NodeName>,
    ids: BTreeMap<NodeName, usize>,
    brains: Vec<Brain>,
    said: Vec<Traffic>,
    /// All are under way for the same time, so they are in order of arrival.
    wire: VecDeque<(Moment, usize, usize, Message)>,
    timers: Vec<Option<Moment>>,
    /// Routers that have been fed since their timers were set. Most messages of a moment are for few of them, and
    /// finding a deadline takes a walk over a router's VIPAs.
    fed: BTreeSet<usize>,
    beside: Vec<Beside>,
    /// By due time, then in the order in which they began.
    tasks: BTreeMap<(Moment, u64), Task>,
    begun: u64,
    writes: u64,
    votes: u64,
    /// By due time; an entry that is no longer its node's alarm is skipped.
    alarms: BTreeMap<(Moment, usize), ()>,
}

/// Runs a cluster of this size; the seed decides how long disks and kernels take.
///
/// # Errors
/// A sentence about what was wrong.
pub fn run(size: Size, seed: u64) -> Result<Bill, String> {
    let mut crowd = Crowd::new(size, seed);
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
    // An owner of many VIPAs sends several beats each time.
    let beats = size.vipas.div_ceil(VIPAS_IN_A_BEAT) as u64;
    if bill.router.messages > peers * MOST_MESSAGES_A_PEER * beats {
        return Err(format!("a router says too much in a calm second: {}", bill.router));
    }
    crowd.said.fill(Traffic::default());
    // A router that is no voter: this leads to the most requests to voters.
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
    (bill.writes, bill.votes) = (crowd.writes, crowd.votes);
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
    fn new(size: Size, seed: u64) -> Self {
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
                    key: vipa_protocol::KeyDigest::default(),
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
            beside: vec![Beside::default(); names.len()],
            tasks: BTreeMap::new(),
            begun: 0,
            writes: 0,
            votes: 0,
            random: Random::new(seed),
            names,
            brains,
            wire: VecDeque::new(),
            fed: BTreeSet::new(),
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
                self.set_timers();
            }
            let alarm = self.alarms.first_key_value().map(|((at, _), ())| *at);
            let task = self.tasks.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = letter.into_iter().chain(alarm).chain(task).min().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if letter == Some(next) {
                let Some((_, from, to, message)) = self.wire.pop_front() else { break };
                let peer = self.names[from].clone();
                let event = Event::Received { peer: peer.clone(), message: message.clone() };
                self.feed(to, event, target::Event::Received { peer, message });
            } else if task == Some(next) {
                if let Some((_, task)) = self.tasks.pop_first() {
                    self.end(task);
                }
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
                let before = router.looks();
                router.handle(now, event, &mut out);
                self.said[node].looks += router.looks() - before;
                self.fed.insert(node);
                for output in out {
                    match output {
                        Output::Send { to, message } => self.send(node, &to, message),
                        Output::StoreVote { .. } => self.store(node),
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
                        target::Output::StoreVote { .. } => self.store(node),
                        target::Output::Look { token } => self.look(node, token),
                        target::Output::Serve { vipas } => self.serve(node, vipas.len()),
                        _ => {}
                    }
                }
            }
            Brain::Dead => {}
        }
    }

    fn begin(&mut self, until: Moment, task: Task) {
        self.begun += 1;
        self.tasks.insert((until, self.begun), task);
    }

    /// A vote waits for the disk: a write of all votes begins, or follows the one under way.
    fn store(&mut self, node: usize) {
        self.votes += 1;
        self.beside[node].stale = true;
        self.write(node);
    }

    fn write(&mut self, node: usize) {
        let Beside { stale, writing, .. } = &mut self.beside[node];
        if *writing || !std::mem::take(stale) {
            return;
        }
        *writing = true;
        let (token, _) = match &self.brains[node] {
            Brain::Router(router) => router.votes_to_store(),
            Brain::Target(target) => target.votes_to_store(),
            Brain::Dead => return,
        };
        self.writes += 1;
        let takes: u64 = (0..SYNCS).map(|_| self.random.within(SYNC_US)).sum();
        self.begin(self.now + Duration::from_micros(takes), Task::Stored { node, token });
    }

    /// The number of addresses that must be on the host: each one that is added or removed is a request.
    fn serve(&mut self, node: usize, vipas: usize) {
        let Beside { busy_until, served, .. } = &mut self.beside[node];
        let requests = u32::try_from(served.abs_diff(vipas)).unwrap_or(u32::MAX);
        *busy_until = self.now.max(*busy_until) + ADDRESS * requests;
        *served = vipas;
    }

    /// A look that begins now answers all earlier requests.
    fn look(&mut self, node: usize, token: u64) {
        if self.beside[node].looking {
            self.beside[node].to_look = Some(token);
            return;
        }
        self.beside[node].looking = true;
        let takes = Duration::from_micros(self.random.within(LOOK_US));
        let from = self.now.max(self.beside[node].busy_until);
        self.begin(from + takes, Task::Looked { node, token });
    }

    fn end(&mut self, task: Task) {
        match task {
            Task::Stored { node, token } => {
                self.beside[node].writing = false;
                self.write(node);
                self.feed(node, Event::VotesStored { token }, target::Event::VotesStored { token });
            }
            Task::Looked { node, token } => {
                self.beside[node].looking = false;
                if let Some(next) = self.beside[node].to_look.take() {
                    self.look(node, next);
                }
                self.feed(node, Event::Timeout, target::Event::Looked { token });
            }
        }
    }

    fn send(&mut self, from: usize, to: &NodeName, message: Message) {
        let bytes = wire::encode(&message).map_or(0, |bytes| bytes.len() as u64);
        self.said[from].messages += 1;
        self.said[from].bytes += bytes;
        self.wire.push_back((self.now + LATENCY, from, self.ids[to], message));
    }

    fn total(&self) -> Traffic {
        let add = |sum: Traffic, of: &Traffic| Traffic {
            messages: sum.messages + of.messages,
            bytes: sum.bytes + of.bytes,
            looks: sum.looks + of.looks,
        };
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
        key: vipa_protocol::KeyDigest::default(),
        me,
        addresses: Vec::new(),
        incarnation: Incarnation(1),
        voters: voters.into(),
        timing: Timing::of_lease(LEASE),
        vipas: (0..size.vipas).filter(|of| ranked(*of).any(|router| router == id)).map(vipa).collect(),
    }
}
