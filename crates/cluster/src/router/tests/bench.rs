//! Several machines on one clock: messages arrive at once and in order, and a node can be stopped or cut off.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use vipa_model::{
    Balance, Connection, ConnectionState, Delivery, Epoch, Forwarding, Incarnation, Moment, NodeName, Orphans,
    PortRange, Protocol, Rank, Service, Sources, TargetPath, Voters,
};
use vipa_protocol::{Decision, Hello, Message, Order, Part, Table, TakeoverReport, Trigger};

use super::super::{
    Event, Output, Router, Settings, Stage, State, Stored, Takeback, Timing, VipaBrief, VipaSettings, VipaStatus,
};
use crate::{StoredLists, StoredVote, target};

pub(super) const VIPA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));
/// Another VIPA, where VIPAs are in a group.
pub(super) const VIPA2: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 11));
pub(super) const LEASE: Duration = Duration::from_millis(100);

pub(super) fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

pub(super) fn address(node: &str) -> IpAddr {
    format!("198.51.100.{}", 20 + node[1..].parse::<u8>().unwrap()).parse().unwrap()
}

pub(super) fn service(candidates: &[&str]) -> Service {
    Service {
        protocol: Protocol::Tcp,
        ports: PortRange::one(80),
        delivery: Delivery::default(),
        balance: Balance::Maglev,
        choice: vipa_model::Choice::default(),
        orphans: Orphans::Reset,
        sources: Sources::default(),
        candidates: candidates.iter().map(|node| address(node)).collect(),
    }
}

pub(super) fn connection(client: u16) -> Connection {
    Connection { protocol: Protocol::Tcp, client: ([203, 0, 113, 4], client).into(), port: 80 }
}

/// The stance of a takeover that has just begun.
pub(super) fn report(epoch: Epoch) -> TakeoverReport {
    TakeoverReport {
        vipa: VIPA,
        epoch,
        trigger: Trigger::Failure,
        cause: vipa_protocol::OwnershipCause::Silent { ms: 300 },
        predecessor: None,
        detect_us: 0,
        collect_us: 0,
        rebuild_us: 0,
        targets_answered: 0,
        targets_expected: 0,
        targets_warm: 0,
        connections_reported: 0,
    }
}

enum Node {
    Router(Box<Router>),
    Target(Box<target::Target>),
}

/// One event, for a router or for a target.
type Either = (Event, target::Event);
type Queue = VecDeque<(NodeName, Either)>;

/// r1 (rank 200), r2 (150), r3 (100) and targets t1..; unless set otherwise, r1, r2 and t1 vote.
pub(super) struct Bench {
    pub(super) now: Moment,
    nodes: BTreeMap<NodeName, Node>,
    /// Nodes whose clock stands still, and at which moment.
    stopped: BTreeMap<NodeName, Moment>,
    incarnations: BTreeMap<NodeName, u64>,
    disks: BTreeMap<NodeName, Vec<StoredVote>>,
    decisions: BTreeMap<NodeName, Vec<Decision>>,
    stored_lists: BTreeMap<NodeName, BTreeMap<IpAddr, StoredLists>>,
    pub(super) takeback: Takeback,
    pub(super) takeback_delay: Duration,
    /// There are two VIPAs, and they move together.
    pub(super) grouped: bool,
    /// Candidates of the second VIPA, if not those of the first.
    pub(super) candidates2: Option<Vec<Service>>,
    orders: u64,
    links: BTreeSet<(NodeName, NodeName)>,
    cuts: BTreeSet<(NodeName, NodeName)>,
    pub(super) held: BTreeMap<NodeName, Vec<(Connection, ConnectionState)>>,
    pub(super) listening: BTreeSet<NodeName>,
    /// All outputs of routers except messages, in order.
    pub(super) outputs: Vec<(NodeName, Output)>,
    pub(super) wire: Vec<(NodeName, NodeName, Message)>,
    /// Nodes whose disk takes nothing.
    pub(super) broken_disks: BTreeSet<NodeName>,
    /// How long a vote takes to the disk, and those that are on their way.
    pub(super) disks_take: Duration,
    storing: VecDeque<(Moment, NodeName, u64)>,
    lists: BTreeMap<NodeName, Vec<Service>>,
    voters: Vec<NodeName>,
    /// The voters on a node's disk, if they differ from the first ones.
    goes_by: BTreeMap<NodeName, Voters>,
}

impl Bench {
    /// Routers with their own lists, if they have one, and targets that all listen.
    pub(super) fn new(lists: &[(&str, Option<&[&str]>)], targets: &[&str]) -> Self {
        Self::with_voters(lists, targets, &["r1", "r2", "t1"])
    }

    pub(super) fn with_voters(lists: &[(&str, Option<&[&str]>)], targets: &[&str], voters: &[&str]) -> Self {
        let own = |(router, list): &(&str, Option<&[&str]>)| Some((name(router), vec![service((*list)?)]));
        let mut bench = Self {
            now: Moment(1_000_000_000),
            nodes: BTreeMap::new(),
            stopped: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            disks: BTreeMap::new(),
            decisions: BTreeMap::new(),
            stored_lists: BTreeMap::new(),
            takeback: Takeback::Immediate,
            takeback_delay: Duration::ZERO,
            grouped: false,
            candidates2: None,
            orders: 0,
            links: BTreeSet::new(),
            cuts: BTreeSet::new(),
            held: BTreeMap::new(),
            listening: targets.iter().map(|target| name(target)).collect(),
            outputs: Vec::new(),
            wire: Vec::new(),
            broken_disks: BTreeSet::new(),
            disks_take: Duration::ZERO,
            storing: VecDeque::new(),
            voters: voters.iter().map(|voter| name(voter)).collect(),
            goes_by: BTreeMap::new(),
            lists: lists.iter().filter_map(own).collect(),
        };
        for target in targets {
            bench.start(target);
        }
        for (router, _) in lists {
            bench.start(router);
        }
        bench
    }

    /// Two routers and three targets; r1 owns the VIPA and every node is settled.
    pub(super) fn settled() -> Self {
        let mut bench = Self::new(&[("r1", Some(&["t1", "t2", "t3"])), ("r2", None)], &["t1", "t2", "t3"]);
        bench.run_ms(600);
        bench.assert_owner("r1");
        bench
    }

    pub(super) fn start(&mut self, node: &str) {
        let node = name(node);
        let incarnation = self.incarnations.entry(node.clone()).or_default();
        *incarnation += 1;
        let incarnation = Incarnation(*incarnation);
        let votes = self.disks.get(&node).cloned().unwrap_or_default();
        let voters = self.goes_by(node.as_str());
        let (cluster, me) = (String::from("lab"), node.clone());
        let machine = if node.as_str().starts_with('r') {
            let settings = self.settings(node.as_str());
            let decisions = self.decisions.get(&node).cloned().unwrap_or_default();
            let lists = self.stored_lists.get(&node).cloned().unwrap_or_default();
            let stored = Stored { votes, decisions, lists };
            Node::Router(Box::new(Router::new(settings, stored, self.now)))
        } else {
            let (address, kept_records) = (address(node.as_str()), 64);
            let settings = target::Settings {
                cluster,
                key: vipa_protocol::KeyDigest::default(),
                me,
                address,
                incarnation,
                voters,
                lease: LEASE,
                kept_records,
            };
            Node::Target(Box::new(target::Target::new(settings, votes, self.now)))
        };
        let others: Vec<NodeName> = self.nodes.keys().cloned().collect();
        self.nodes.insert(node.clone(), machine);
        for other in others {
            self.join(node.as_str(), other.as_str());
        }
    }

    /// The settings of a router at its start.
    pub(super) fn settings(&self, router: &str) -> Settings {
        let me = name(router);
        let vipa = VipaSettings {
            address: VIPA,
            ranks: vec![(name("r1"), Rank(200)), (name("r2"), Rank(150)), (name("r3"), Rank(100))],
            services: self.lists.get(&me).cloned(),
            activate: true,
            takeback: self.takeback,
            takeback_delay: self.takeback_delay,
            group: self.grouped.then(|| "web".into()),
        };
        let services = self.candidates2.clone().or_else(|| vipa.services.clone());
        let other = self.grouped.then(|| VipaSettings { address: VIPA2, services, ..vipa.clone() });
        Settings {
            cluster: String::from("lab"),
            key: vipa_protocol::KeyDigest::default(),
            addresses: vec![],
            incarnation: Incarnation(self.incarnations.get(&me).copied().unwrap_or_default()),
            me,
            voters: self.goes_by(router),
            timing: Timing::of_lease(LEASE),
            vipas: [vipa].into_iter().chain(other).collect(),
        }
    }

    /// Gives a router that is not started yet a list of its own.
    pub(super) fn list(&mut self, router: &str, candidates: &[&str]) {
        self.lists.insert(name(router), vec![service(candidates)]);
    }

    /// As `list`, with targets that are reached by this path.
    pub(super) fn list_by(&mut self, router: &str, forwarding: Forwarding, candidates: &[&str]) {
        let delivery = Delivery { forwarding, ..Delivery::default() };
        self.lists.insert(name(router), vec![Service { delivery, ..service(candidates) }]);
    }

    /// Reloads a router's present list there.
    pub(super) fn reload(&mut self, router: &str) {
        let settings = Box::new(self.settings(router));
        self.feed_router(router, Event::Configured { settings });
    }

    /// The paths that this router last emitted to targets that its list does not name.
    pub(super) fn paths(&self, router: &str) -> Vec<(IpAddr, Forwarding)> {
        let said = self.outputs.iter().rev().find_map(|(node, output)| match output {
            Output::Paths { paths, .. } if node.as_str() == router => Some(paths),
            _ => None,
        });
        let short = |path: &TargetPath| (path.target, path.service.path.forwarding);
        said.into_iter().flatten().map(short).collect()
    }

    /// The voters that this node goes by when it starts.
    pub(super) fn goes_by(&self, node: &str) -> Voters {
        self.goes_by.get(&name(node)).cloned().unwrap_or_else(|| self.voters.clone().into())
    }

    /// Before the node has ever started.
    pub(super) fn knows_no_voters(&mut self, node: &str) {
        self.goes_by.insert(name(node), Voters::default());
    }

    /// Reloads a configuration with these voters at a node.
    pub(super) fn reload_voters(&mut self, node: &str, voters: &Voters) -> Result<(), String> {
        let event = match &self.nodes[&name(node)] {
            Node::Router(router) => {
                router.may_go_by(self.now, voters).map_err(|objection| objection.to_string())?;
                let settings = Settings { voters: voters.clone(), ..self.settings(node) };
                (Event::Configured { settings: Box::new(settings) }, nothing())
            }
            Node::Target(target) => {
                target.may_go_by(self.now, voters).map_err(|objection| objection.to_string())?;
                (Event::Timeout, target::Event::Voters { voters: voters.clone() })
            }
        };
        self.goes_by.insert(name(node), voters.clone());
        self.feed(Queue::from([(name(node), event)]));
        Ok(())
    }

    pub(super) fn is_linked(&self, one: &str, other: &str) -> bool {
        self.links.contains(&(name(one), name(other)))
    }

    pub(super) fn is_up(&self, node: &str) -> bool {
        self.nodes.contains_key(&name(node))
    }

    /// Replaces a router's disk: what it had stored is gone.
    pub(super) fn forget(&mut self, router: &str) {
        self.decisions.remove(&name(router));
        self.stored_lists.remove(&name(router));
    }

    /// Stops a node without a message; the others notice the dead link later, or never.
    pub(super) fn kill(&mut self, node: &str) {
        let node = name(node);
        self.nodes.remove(&node);
        self.links.retain(|(from, to)| *from != node && *to != node);
    }

    /// Drops messages from `one` to `other`, unnoticed by both.
    pub(super) fn mute(&mut self, one: &str, other: &str) {
        self.links.remove(&(name(one), name(other)));
    }

    pub(super) fn unmute(&mut self, one: &str, other: &str) {
        self.links.insert((name(one), name(other)));
    }

    /// Prevents any link between these two.
    pub(super) fn cut(&mut self, one: &str, other: &str) {
        self.cuts.insert((name(one), name(other)));
        self.cuts.insert((name(other), name(one)));
    }

    /// Ends the link, noticed by both.
    pub(super) fn part(&mut self, one: &str, other: &str) {
        self.mute(one, other);
        self.mute(other, one);
        let lost = |peer: NodeName| (Event::Disconnected { peer: peer.clone() }, target::Event::Disconnected { peer });
        self.feed(Queue::from([(name(one), lost(name(other))), (name(other), lost(name(one)))]));
    }

    pub(super) fn join(&mut self, one: &str, other: &str) {
        if one.starts_with('t') && other.starts_with('t') {
            return;
        }
        let (one, other) = (name(one), name(other));
        if self.cuts.contains(&(one.clone(), other.clone())) {
            return;
        }
        self.links.insert((one.clone(), other.clone()));
        self.links.insert((other.clone(), one.clone()));
        let up = |peer: &NodeName, hello: Hello| {
            let ours = Event::Connected { peer: peer.clone(), hello: hello.clone() };
            (ours, target::Event::Connected { peer: peer.clone(), hello })
        };
        let (ours, theirs) = (self.hello(&one), self.hello(&other));
        let (ours, theirs) = (up(&one, ours), up(&other, theirs));
        self.feed(Queue::from([(one, theirs), (other, ours)]));
    }

    pub(super) fn hello(&self, node: &NodeName) -> Hello {
        match &self.nodes[node] {
            Node::Router(router) => router.hello(),
            Node::Target(target) => target.hello(),
        }
    }

    /// Whether a list that this router has names the target for the service of port 80.
    pub(super) fn is_listed(&self, router: &str, target: &str) -> bool {
        match &self.nodes[&name(router)] {
            Node::Router(router) => router.is_listed(VIPA, address(target), (Protocol::Tcp, 80)),
            Node::Target(_) => false,
        }
    }

    /// Feeds a router.
    pub(super) fn feed_router(&mut self, router: &str, event: Event) {
        self.feed(Queue::from([(name(router), (event, nothing()))]));
    }

    fn feed(&mut self, mut queue: Queue) {
        while let Some((node, (router_event, target_event))) = queue.pop_front() {
            let clock = self.stopped.get(&node).copied().unwrap_or(self.now);
            match self.nodes.get_mut(&node) {
                Some(Node::Router(router)) => {
                    let mut out = Vec::new();
                    router.handle(clock, router_event, &mut out);
                    super::assert_deadline(router);
                    out.into_iter().for_each(|output| self.route_output(&node, output, &mut queue));
                }
                Some(Node::Target(target)) => {
                    let mut out = Vec::new();
                    target.handle(clock, target_event, &mut out);
                    out.into_iter().for_each(|output| self.target_output(&node, output, &mut queue));
                }
                None => {}
            }
        }
    }

    fn route_output(&mut self, node: &NodeName, output: Output, queue: &mut Queue) {
        match output {
            Output::Send { to, message } => self.deliver(node, &to, message, queue),
            Output::StoreVote { .. } => self.store(node, queue),
            Output::StoreDecisions { .. } => {
                let Some(Node::Router(router)) = self.nodes.get(node) else { return };
                let (token, decisions) = router.decisions_to_store();
                if !self.broken_disks.contains(node) {
                    self.decisions.insert(node.clone(), decisions);
                    queue.push_back((node.clone(), (Event::DecisionsStored { token }, nothing())));
                }
            }
            Output::StoreLists { vipa, lists } => {
                self.stored_lists.entry(node.clone()).or_default().insert(vipa, lists);
            }
            Output::SendTable { to, vipa, epoch, since } => {
                self.outputs.push((node.clone(), Output::SendTable { to: to.clone(), vipa, epoch, since }));
                let table = Table { vipa, epoch, entries: Vec::new(), part: Part::Only };
                self.deliver(node, &to, Message::Table(table), queue);
            }
            output => self.outputs.push((node.clone(), output)),
        }
    }

    fn target_output(&mut self, node: &NodeName, output: target::Output, queue: &mut Queue) {
        match output {
            target::Output::Send { to, message } => self.deliver(node, &to, message, queue),
            target::Output::StoreVote { .. } => self.store(node, queue),
            target::Output::Look { token } => {
                let connections = self.held.get(node).cloned().unwrap_or_default();
                let listening = if self.listening.contains(node) { vec![(Protocol::Tcp, 80)] } else { vec![] };
                let holds = target::Event::Holds { vipa: VIPA, connections };
                let on = |vipa| target::Event::Listening { vipa, listening: listening.clone() };
                for event in [holds, on(VIPA), on(VIPA2), target::Event::Looked { token }] {
                    queue.push_back((node.clone(), (Event::Timeout, event)));
                }
            }
            target::Output::Serve { .. }
            | target::Output::Unwrap { .. }
            | target::Output::Watch { .. }
            | target::Output::Note(_) => {}
        }
    }

    fn deliver(&mut self, from: &NodeName, to: &NodeName, message: Message, queue: &mut Queue) {
        if self.links.contains(&(from.clone(), to.clone())) {
            self.wire.push((from.clone(), to.clone(), message.clone()));
            let peer = from.clone();
            let ours = Event::Received { peer: peer.clone(), message: message.clone() };
            queue.push_back((to.clone(), (ours, target::Event::Received { peer, message })));
        }
    }

    fn store(&mut self, node: &NodeName, queue: &mut Queue) {
        let (token, votes) = match &self.nodes[node] {
            Node::Router(router) => router.votes_to_store(),
            Node::Target(target) => target.votes_to_store(),
        };
        if !self.broken_disks.contains(node) {
            self.disks.insert(node.clone(), votes);
            if self.disks_take > Duration::ZERO {
                self.storing.push_back((self.now + self.disks_take, node.clone(), token));
            } else {
                queue.push_back((node.clone(), (Event::VotesStored { token }, target::Event::VotesStored { token })));
            }
        }
    }

    /// The target's kernel holds something else, and the agent sees it.
    pub(super) fn hold(&mut self, node: &str, connections: &[(u16, ConnectionState)]) {
        let held: Vec<_> = connections.iter().map(|(client, state)| (connection(*client), *state)).collect();
        self.held.insert(name(node), held.clone());
        let event = target::Event::Holds { vipa: VIPA, connections: held };
        self.feed(Queue::from([(name(node), (Event::Timeout, event))]));
    }

    /// Gives an order; returns its result within `span` milliseconds, if it is over by then.
    pub(super) fn order(&mut self, router: &str, order: Order, span: u64) -> Option<Stage> {
        self.orders += 1;
        let token = self.orders;
        self.feed_router(router, Event::Order { token, order, given: None });
        self.run_ms(span);
        let over = |(node, output): &(NodeName, Output)| match output {
            Output::Order { token: of, stage: stage @ (Stage::Done(_) | Stage::Refused(_)) }
                if *of == token && node.as_str() == router =>
            {
                Some(stage.clone())
            }
            _ => None,
        };
        self.outputs.iter().find_map(over)
    }

    /// Gives an order that must be carried out.
    pub(super) fn obey(&mut self, router: &str, order: Order, span: u64) {
        let said = order.to_string();
        let stage = self.order(router, order, span);
        assert!(matches!(stage, Some(Stage::Done(_))), "{said}: {stage:?}\n{}", self.story());
    }

    /// Stops the node's clock; it still receives and answers.
    pub(super) fn stop_clock(&mut self, node: &str) {
        self.stopped.insert(name(node), self.now);
    }

    /// The clock shows the right time again.
    pub(super) fn start_clock(&mut self, node: &str) {
        self.stopped.remove(&name(node));
    }

    pub(super) fn run_ms(&mut self, span: u64) {
        let end = self.now + Duration::from_millis(span);
        for _ in 0..1_000_000 {
            let due = |node: &Node| match node {
                Node::Router(router) => router.deadline(),
                Node::Target(_) => None,
            };
            let running = self.nodes.iter().filter(|(name, _)| !self.stopped.contains_key(*name));
            let next = running.filter_map(|(name, node)| Some((due(node)?, name.clone()))).min();
            let until = next.as_ref().map_or(end, |(moment, _)| end.min(*moment));
            if let Some((moment, node, token)) = self.storing.pop_front_if(|(moment, ..)| *moment <= until) {
                self.now = self.now.max(moment);
                self.feed(Queue::from([(node, (Event::VotesStored { token }, target::Event::VotesStored { token }))]));
                continue;
            }
            let Some((moment, node)) = next.filter(|(moment, _)| *moment <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(moment);
            self.feed(Queue::from([(node, (Event::Timeout, nothing()))]));
        }
        panic!("a router's deadline does not move on");
    }

    pub(super) fn brief(&self, router: &str) -> VipaBrief {
        match &self.nodes[&name(router)] {
            Node::Router(router) => router.brief(VIPA).unwrap(),
            Node::Target(_) => panic!("{router} is a target"),
        }
    }

    pub(super) fn status(&self, router: &str) -> VipaStatus {
        self.status_of(router, VIPA)
    }

    pub(super) fn status_of(&self, router: &str, vipa: IpAddr) -> VipaStatus {
        match &self.nodes[&name(router)] {
            Node::Router(router) => router.vipa(vipa).unwrap(),
            Node::Target(_) => panic!("{router} is a target"),
        }
    }

    /// Routers that own the VIPA and may admit.
    pub(super) fn owners(&self) -> Vec<String> {
        self.owners_of(VIPA)
    }

    pub(super) fn owners_of(&self, vipa: IpAddr) -> Vec<String> {
        let live = |(name, node): (&NodeName, &Node)| {
            let Node::Router(router) = node else { return None };
            let status = router.vipa(vipa)?;
            let owns = matches!(status.state, State::Rebuilding | State::Active);
            (owns && status.lease.is_some_and(|lease| lease > self.now)).then(|| name.to_string())
        };
        self.nodes.iter().filter_map(live).collect()
    }

    pub(super) fn assert_owner(&self, router: &str) {
        assert_eq!(self.owners(), [router], "{}", self.story());
        assert_eq!(self.status(router).state, State::Active, "{}", self.story());
    }

    pub(super) fn reports(&self) -> Vec<TakeoverReport> {
        let report = |(_, output): &(NodeName, Output)| match output {
            Output::Report(report) => Some(report.clone()),
            _ => None,
        };
        self.outputs.iter().filter_map(report).collect()
    }

    pub(super) fn story(&self) -> String {
        let note = |(node, output): &(NodeName, Output)| match output {
            Output::Note(note) => Some(format!("{node}: {note}\n")),
            _ => None,
        };
        self.outputs.iter().filter_map(note).collect()
    }
}

fn nothing() -> target::Event {
    target::Event::Looked { token: 0 }
}
