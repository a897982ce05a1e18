//! The world of a run: its clock, the queue of events, and everything in it.

mod fault_events;
mod follow;
mod hostile;
mod nodes;
mod orders;
mod packets;
mod voters;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    time::Duration,
};

use clap::ValueEnum;
use vipa_cluster::{Event, StoredLists, StoredVote, Takeback, target};
use vipa_model::{Moment, NodeName, Rank, Voters};
use vipa_packet::HeapPacket;
use vipa_protocol::Decision;

use self::{follow::Followed, hostile::Hostile};
use crate::{
    checks::Checks,
    client::{Dialog, DialogLimit},
    faults::{Fault, Weather, Wish, plan, some_targets},
    gateway::{Gateway, Pickers, Relapse},
    host::Host,
    network::{Letter, Network, NodeId},
    random::Random,
    segment::{Answer, Generation},
};

/// Nanoseconds since the simulation began, on no node's clock.
pub(crate) type Time = u64;
const MS: Time = 1_000_000;

pub(crate) const VIPA_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub(crate) const VIPA: IpAddr = IpAddr::V4(VIPA_V4);
/// The other VIPA of the group, if there is one; no client connects to it.
pub(crate) const COMPANION: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11));
pub(crate) const PORT: u16 = 80;
/// No faults from here on.
pub(crate) const CALM: Time = 6000 * MS;
/// Clients fall silent here, so that all nodes' states can be compared at the end.
const SILENCE: Time = 13_500 * MS;
const END: Time = 14_000 * MS;
/// Operators take back their orders, a while after the last node has come back.
const UNDO: Time = CALM + 2000 * MS;
/// Connections at work at the same time.
const DIALOGS: usize = 24;
/// Delay of the cable between client, router and target.
const HOP: Time = MS / 10;
/// Between two checks of all tables.
const AUDIT: Time = 100 * MS;
/// Frames that a stopped router's port keeps.
const RING: usize = 512;

pub(crate) fn lease() -> Duration {
    Duration::from_millis(100)
}

pub(crate) fn target_name(index: usize) -> NodeName {
    format!("t{}", index + 1).parse().expect("a node name")
}

fn router_name(index: usize) -> NodeName {
    format!("r{}", index + 1).parse().expect("a node name")
}

pub(crate) fn target_address(index: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 31 + index as u8))
}

pub(crate) fn router_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, 21 + index as u8)
}

pub(crate) fn router_mac(index: usize) -> [u8; 6] {
    [2, 0, 0, 0, 1, index as u8]
}

pub(crate) fn target_mac(index: usize) -> [u8; 6] {
    [2, 0, 0, 0, 2, index as u8]
}

/// The nodes of a run, and their settings.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) weather: Weather,
    pub(crate) routers: usize,
    pub(crate) targets: usize,
    /// The voters at first.
    voters: Vec<NodeName>,
    /// There is another VIPA that moves together with the first.
    grouped: bool,
    /// How seldom agents look at their kernels unasked, and how long a look takes at most.
    seldom: Time,
    look: Time,
    /// The router that owns the VIPA when all nodes are well.
    pub(crate) first: usize,
    /// Each router's own list, as targets.
    lists: Vec<Option<Vec<usize>>>,
    takeback: Takeback,
    takeback_delay: Duration,
    /// Whether each target's agent receives changes; without this it only lists what there is.
    tells: Vec<bool>,
    /// An attacker sends segments of clients' connections.
    attacked: bool,
    /// The role of a peer that sends hostile messages.
    pub(crate) hostile: Option<HostileRole>,
    /// How far the clocks may drift apart by the configuration; they stay within it.
    drift_percent: u32,
}

/// Result of a run.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub steps: u64,
    pub ownerships: usize,
    pub connections: u64,
    pub broken: u64,
    /// Lists of voters after the first that all nodes have adopted.
    pub voters_changed: u64,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        let Self { steps, ownerships, connections, broken, voters_changed } = other;
        self.steps += steps;
        self.ownerships += ownerships;
        self.connections += connections;
        self.broken += broken;
        self.voters_changed += voters_changed;
    }
}

/// A violated invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    pub at_ms: f64,
    pub what: String,
    /// The events before it, if a story was requested.
    pub story: Vec<String>,
}

pub(crate) struct Node {
    pub(crate) name: NodeName,
    /// Number of its starts.
    life: u64,
    pub(crate) alive: bool,
    paused_until: Time,
    /// Its clock: where it began, and how fast it runs, in millionths.
    origin: u64,
    rate: u64,
    pub(crate) disk: Vec<StoredVote>,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) lists: BTreeMap<IpAddr, StoredLists>,
    /// The voters that it counts, as its disk has them.
    pub(crate) voters: Option<Voters>,
    disk_speed: Time,
    disk_free: Time,
    storing_votes: Storing,
    storing_decisions: Storing,
    timer: Option<Time>,
    frames_waiting: usize,
}

/// A file that is written whole: requests during one write are served by the next one, as in `transport::state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Storing {
    Nothing,
    UnderWay,
    /// And another write is to follow.
    UnderWayAndStale,
}

enum What {
    Timer(NodeId),
    Letter(Letter),
    Dial(NodeId, NodeId),
    LinkDead { one: NodeId, other: NodeId, generation: u64 },
    DiskWritten { node: NodeId, life: u64, votes: Vec<StoredVote> },
    DiskDone { node: NodeId, life: u64, token: u64 },
    DecisionsWritten { node: NodeId, life: u64, token: u64, decisions: Vec<Decision> },
    Looked { node: NodeId, life: u64, token: u64 },
    Observe { node: NodeId, life: u64 },
    Turn { node: NodeId, life: u64 },
    Count { node: NodeId, life: u64 },
    Order { router: usize, wish: Wish, insist: bool },
    ToRouter { router: usize, frame: HeapPacket },
    ToTarget { target: usize, router: usize, frame: HeapPacket },
    ToClient { port: u16, generation: Generation, answer: Answer, from: Option<usize> },
    SendLate { target: usize, port: u16, generation: Generation },
    Attack,
    HostileTurn,
    Audit,
    ArpAtClient { router: usize },
    Act { port: u16, due: Time },
    Fault(Fault),
    Start(NodeId),
    Kill(NodeId),
    Heal(Vec<(NodeId, NodeId)>),
    Listen { target: usize },
    SelfCheckReport { router: usize, unfit: Option<&'static str> },
    GoBy { node: NodeId },
    ChangeVoters { node: NodeId },
    VotersWritten { node: NodeId, life: u64, voters: Voters },
    Calm,
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) scene: Scenario,
    queue: BTreeMap<(Time, u64), What>,
    counter: u64,
    random: Random,
    network: Network,
    pub(crate) nodes: Vec<Node>,
    pub(crate) gateways: Vec<Option<Gateway>>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) dialogs: BTreeMap<u16, (Dialog, Time)>,
    next_port: u16,
    /// Connections begun.
    generations: u32,
    /// The router in the clients' ARP table.
    vipa_at: Option<usize>,
    pickers: Pickers,
    /// Each router's own list, as it is configured now.
    lists: Vec<Option<Vec<usize>>>,
    /// The lists of voters that operators have written, by version: the last is in every node's file.
    lists_of_voters: Vec<Voters>,
    /// Orders under way that must be carried out in the end.
    insisted: BTreeMap<u64, (usize, Wish)>,
    orders: u64,
    pub(crate) checks: Checks,
    pub(crate) story: Option<Vec<String>>,
    /// The connection whose every change the story has, and its last state in the story.
    followed: Option<Followed>,
    pub(crate) failure: Option<String>,
    pub(crate) summary: Summary,
    /// The routers' recordings, if requested.
    tapes: Option<Vec<Vec<u8>>>,
    relapse: Option<Relapse>,
    /// The peer that sends hostile messages, until it is revoked.
    hostile: Option<Hostile>,
}

/// Attackers of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attacks {
    None,
    /// In half of the runs an attacker sends segments with forged flags.
    Segments,
    /// A peer with a certificate of the cluster sends messages of every kind.
    Messages(HostileRole),
}

/// The role in a hostile peer's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HostileRole {
    /// A router without a rank for any VIPA.
    Router,
    /// A target that is on no list and does not vote.
    Target,
    /// A router with the lowest rank. It may own the VIPA and lead connections anywhere (docs/security.md); still no
    /// epoch may fall, be granted twice, or be owned without a majority.
    RankedRouter,
}

impl HostileRole {
    pub const ALL: [Self; 3] = [Self::Router, Self::Target, Self::RankedRouter];
}

/// As [`simulate`], with attacks.
///
/// # Errors
/// The violation, with its story if `told`.
pub fn simulate_attacked(seed: u64, attacks: Attacks, told: bool) -> Result<Summary, Failure> {
    World::new(seed, told, attacks).run()
}

/// Runs the cluster of `seed` to its end, or to the first violation.
///
/// # Errors
/// The violation, with its story if `told`.
pub fn simulate(seed: u64, told: bool) -> Result<Summary, Failure> {
    World::new(seed, told, Attacks::None).run()
}

/// As [`simulate_attacked`], with a story of every change of the connections from this client port.
///
/// # Errors
/// The violation, with its story.
pub fn simulate_followed(seed: u64, attacks: Attacks, port: u16) -> Result<Summary, Failure> {
    World { followed: Some(Followed::new(port)), ..World::new(seed, true, attacks) }.run()
}

/// As [`simulate`], with a rule broken.
///
/// # Errors
/// The violation that this leads to.
pub fn simulate_relapse(seed: u64, relapse: Relapse) -> Result<Summary, Failure> {
    World { relapse: Some(relapse), ..World::new(seed, false, Attacks::Segments) }.run()
}

/// The recordings of each life of each router of `seed`; some recordings begin in the middle of one.
#[must_use]
pub fn recordings(seed: u64) -> Vec<Vec<u8>> {
    let mut world = World { tapes: Some(Vec::new()), ..World::new(seed, false, Attacks::None) };
    // A violation ends the recordings, too.
    let _ = world.run();
    (0..world.scene.routers).for_each(|router| world.keep_tape(router));
    world.tapes.unwrap_or_default()
}

impl World {
    fn run(&mut self) -> Result<Summary, Failure> {
        while self.failure.is_none() {
            let Some(((at, _), what)) = self.queue.pop_first() else { break };
            if at > END {
                break;
            }
            self.now = at;
            self.summary.steps += 1;
            self.happen(what);
            self.tell_followed();
        }
        if self.failure.is_none() {
            self.check_end();
        }
        self.summary.ownerships = self.checks.owners.len();
        self.summary.voters_changed = self.lists_of_voters.len() as u64 - 1;
        match self.failure.take() {
            None => Ok(self.summary.clone()),
            Some(what) => {
                Err(Failure { at_ms: self.now as f64 / MS as f64, what, story: self.story.take().unwrap_or_default() })
            }
        }
    }
}

impl Scenario {
    fn new(random: &mut Random, attacks: Attacks) -> Self {
        let weather = if random.chance(500) { Weather::Rough } else { Weather::Storm };
        let routers = 2 + random.index(3);
        let targets = 2 + random.index(4);
        let mut nodes: Vec<NodeName> = (0..routers).map(router_name).chain((0..targets).map(target_name)).collect();
        let voters = if routers + targets >= 5 && random.chance(500) { 5 } else { 3 };
        let first = random.index(routers);
        let list = |router| match router == first {
            true => Some((0..targets).collect()),
            false => random.chance(400).then(|| some_targets(targets, random)),
        };
        let lists = (0..routers).map(list).collect();
        let (seldom, look) = [(50 * MS, 8 * MS), (500 * MS, 8 * MS), (500 * MS, 350 * MS)][random.index(3)];
        while nodes.len() > voters {
            nodes.remove(random.index(nodes.len()));
        }
        let takeback =
            [Takeback::Immediate, Takeback::Immediate, Takeback::WhenIdle, Takeback::Manual][random.index(4)];
        let takeback_delay = Duration::from_millis(if random.chance(300) { random.within(0..1500) } else { 0 });
        let tells = (0..targets).map(|_| random.chance(500)).collect();
        let attacked = random.chance(500) && attacks == Attacks::Segments;
        let hostile = match attacks {
            Attacks::None | Attacks::Segments => None,
            Attacks::Messages(role) => Some(role),
        };
        let drift_percent = if random.chance(300) { 40 } else { 10 };
        Self {
            weather,
            routers,
            targets,
            voters: nodes,
            grouped: random.chance(400),
            seldom,
            look,
            first,
            lists,
            takeback,
            takeback_delay,
            tells,
            attacked,
            hostile,
            drift_percent,
        }
    }

    pub(crate) fn vipas(&self) -> &'static [IpAddr] {
        if self.grouped { &[VIPA, COMPANION] } else { &[VIPA] }
    }

    /// How long a report takes at most, in a calm network: until the agent's next look, and that look.
    pub(crate) fn longest_report(&self) -> Time {
        30 * MS + self.seldom + self.look
    }

    fn rank(&self, router: usize) -> Rank {
        if router == self.first { Rank(200) } else { Rank(150 - 10 * router as u8) }
    }
}

impl World {
    fn new(seed: u64, told: bool, attacks: Attacks) -> Self {
        let mut random = Random::new(seed);
        let scene = Scenario::new(&mut random, attacks);
        let count = scene.routers + scene.targets;
        let routers = scene.routers;
        let pairs = (0..routers).flat_map(|one| (one + 1..count).map(move |other| (one, other)));
        let network = Network::new(pairs, &mut random);
        let nodes = (0..count).map(|id| Node::new(id, &scene, &mut random)).collect();
        let named = Voters::from(scene.voters.clone());
        let hosts = scene.tells.iter().enumerate();
        let hosts = hosts.map(|(index, tells)| Host::new(index, named.clone(), *tells)).collect();
        let mut world = Self {
            now: 0,
            queue: BTreeMap::new(),
            counter: 0,
            network,
            nodes,
            gateways: (0..routers).map(|_| None).collect(),
            hosts,
            dialogs: BTreeMap::new(),
            next_port: 1024,
            generations: 0,
            vipa_at: None,
            pickers: pickers(),
            lists: scene.lists.clone(),
            lists_of_voters: vec![named],
            insisted: BTreeMap::new(),
            orders: 0,
            checks: Checks::default(),
            story: told.then(Vec::new),
            followed: None,
            failure: None,
            summary: Summary::default(),
            tapes: None,
            relapse: None,
            hostile: scene.hostile.map(|role| Hostile::new(role, &scene, seed)),
            scene,
            random,
        };
        world.set_the_stage();
        world
    }

    fn set_the_stage(&mut self) {
        let (scene, loss) = (self.scene.clone(), self.network.loss);
        self.tell(|| format!("{scene:?}, {loss} of 1000 datagrams get lost"));
        for node in 0..self.nodes.len() {
            let at = self.random.within(0..300 * MS);
            self.plan(at, What::Start(node));
        }
        for (at, fault) in plan(&scene, &mut self.random) {
            self.plan(at, What::Fault(fault));
        }
        for _ in 0..DIALOGS {
            let at = self.random.within(400 * MS..3000 * MS);
            self.open_dialog(at, None, DialogLimit::Any);
        }
        if scene.attacked {
            self.plan(1000 * MS, What::Attack);
        }
        if scene.hostile.is_some() {
            self.plan(hostile::FIRST, What::HostileTurn);
        }
        self.plan(1000 * MS, What::Audit);
        self.plan(CALM, What::Calm);
    }

    fn plan(&mut self, at: Time, what: What) {
        self.counter += 1;
        self.queue.insert((at, self.counter), what);
    }

    pub(crate) fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:10.3} ms  {}", self.now as f64 / MS as f64, line()));
        }
    }

    pub(crate) fn fail(&mut self, what: String) {
        if self.scene.hostile.is_none_or(|role| hostile::demands(role, &what)) {
            self.failure.get_or_insert(what);
        }
    }

    pub(crate) fn local(&self, node: NodeId) -> Moment {
        let Node { origin, rate, .. } = self.nodes[node];
        Moment(origin + (u128::from(self.now) * u128::from(rate) / 1_000_000) as u64)
    }

    fn global(&self, node: NodeId, moment: Moment) -> Time {
        let Node { origin, rate, .. } = self.nodes[node];
        let passed = u128::from(moment.0.saturating_sub(origin));
        (passed * 1_000_000).div_ceil(u128::from(rate)) as Time
    }

    /// A process that does not run does nothing now; its events wait.
    fn who_must_run(&self, what: &What) -> Option<NodeId> {
        match what {
            What::Timer(node)
            | What::DiskDone { node, .. }
            | What::Looked { node, .. }
            | What::Observe { node, .. }
            | What::Count { node, .. }
            | What::GoBy { node }
            | What::Turn { node, .. } => Some(*node),
            What::SelfCheckReport { router, .. } => Some(*router),
            What::Letter(letter) => Some(letter.to),
            What::ToRouter { router, .. } => Some(*router),
            _ => None,
        }
    }

    fn happen(&mut self, what: What) {
        if let Some(node) = self.who_must_run(&what) {
            let until = self.nodes[node].paused_until;
            if until > self.now {
                if matches!(what, What::ToRouter { .. }) {
                    if self.nodes[node].frames_waiting >= RING {
                        return;
                    }
                    self.nodes[node].frames_waiting += 1;
                }
                return self.plan(until, what);
            }
        }
        match what {
            What::Timer(node) => self.timer(node),
            What::Letter(letter) => self.deliver(letter),
            What::Dial(one, other) => self.dial(one, other),
            What::LinkDead { one, other, generation } => self.link_dead(one, other, generation),
            What::DiskWritten { node, life, votes } => self.disk_written(node, life, votes),
            What::DiskDone { node, life, token } => self.votes_stored(node, life, token),
            What::DecisionsWritten { node, life, token, decisions } => {
                self.decisions_written(node, life, token, decisions);
            }
            What::Looked { node, life, token } => self.look(node, life, Some(token)),
            What::Observe { node, life } => self.look(node, life, None),
            What::Turn { node, life } => {
                if self.lives(node, life) {
                    self.turn(node, None);
                    self.plan(self.now + 5 * MS, What::Turn { node, life });
                }
            }
            What::Count { node, life } => {
                if self.lives(node, life) {
                    self.count(node);
                    self.plan(self.now + 200 * MS, What::Count { node, life });
                }
            }
            What::Order { router, wish, insist } => self.order(router, wish, insist),
            What::ToRouter { router, frame } => {
                self.nodes[router].frames_waiting = 0;
                self.turn(router, Some(frame));
            }
            What::ToTarget { target, router, frame } => self.at_target(target, router, &frame),
            What::ToClient { port, generation, answer, from } => self.at_client(port, generation, answer, from),
            What::SendLate { target, port, generation } => self.send_late(target, port, generation),
            What::Attack => self.attack(),
            What::HostileTurn => self.hostile_turn(),
            What::Audit => {
                self.check_tables();
                self.plan(self.now + AUDIT, What::Audit);
            }
            What::ArpAtClient { router } => self.vipa_at = Some(router),
            What::Act { port, due } => self.act(port, due),
            What::Fault(fault) => self.strike(&fault),
            What::Start(node) => self.start(node),
            What::Kill(node) => self.kill(node),
            What::Heal(links) => self.heal(&links),
            What::Listen { target } => self.hosts[target].listens = true,
            What::SelfCheckReport { router, unfit } => {
                let event = unfit.map_or(Event::Fit, |why| Event::Unfit { why: why.into() });
                self.feed(router, event, target::Event::Looked { token: 0 });
            }
            What::GoBy { node } => self.go_by_the_file(node),
            What::ChangeVoters { node } => self.change_voters(node),
            What::VotersWritten { node, life, voters } => self.voters_written(node, life, voters),
            What::Calm => self.calm(),
        }
    }

    pub(crate) fn runs(&self, node: NodeId) -> bool {
        self.nodes[node].alive && self.nodes[node].paused_until <= self.now
    }

    fn lives(&self, node: NodeId, life: u64) -> bool {
        self.nodes[node].alive && self.nodes[node].life == life
    }
}

impl Node {
    fn new(id: NodeId, scene: &Scenario, random: &mut Random) -> Self {
        let name = if id < scene.routers { router_name(id) } else { target_name(id - scene.routers) };
        Self {
            name,
            life: 0,
            alive: false,
            paused_until: 0,
            origin: random.within(1..1_000_000) * MS,
            // Up to 3 % or 20 % fast or slow: far more than real clocks, and within the lease's margin.
            rate: if scene.drift_percent > 10 {
                random.within(800_000..1_200_000)
            } else {
                random.within(970_000..1_030_000)
            },
            disk: Vec::new(),
            decisions: Vec::new(),
            lists: BTreeMap::new(),
            voters: None,
            disk_speed: 3 * MS,
            disk_free: 0,
            storing_votes: Storing::Nothing,
            storing_decisions: Storing::Nothing,
            timer: None,
            frames_waiting: 0,
        }
    }
}

thread_local! {
    static PICKERS: Pickers = Rc::new(RefCell::new(BTreeMap::new()));
}

/// Shared by all runs of this thread: the same few targets give the same few tables.
fn pickers() -> Pickers {
    PICKERS.with(Rc::clone)
}
