//! A router: the real cluster logic, the real connection table and the real worker, with as little control between them
//! as possible.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use vipa_balance::{Candidate, ClusterKey, Picker};
use vipa_cluster::{Event, Outbox, Output, Resting, Router, Settings, Stage, Stored, StoredLists, recording};
use vipa_dataplane::{
    Limits, RxPort, Worker,
    bench::{HeapRx, HeapTx},
};
use vipa_flow::{AgeLimits, FlowState, HashSeed, Tick};
use vipa_handoff::{
    AnyKey, Claim, ControlChannel, Disputes, Flows, Frame, Origin, PortRoute, RouteLists, Routes, ServiceRoute,
    TargetRoute, VipaRoute, open,
};
use vipa_model::{
    Balance, Connection, ConnectionState, EntryState, Mac, Moment, NodeName, PortId, Service, Stance, TargetId,
    Unserved, VipaId,
};
use vipa_packet::{HeapPacket, TcpFlags, arp};
use vipa_protocol::{Change, Entry, Message, Part, Run, Table};

use vipa_sync::Deadline;

use crate::world::{VIPA, VIPA_V4, router_address, router_mac, target_address, target_mac, target_name};

const KEY: ClusterKey = ClusterKey::new(*b"one sim, one key");
const THE_VIPA: VipaId = VipaId(0);

/// Connections that the table has room for: few, so that ageing reads each entry at least twice a second.
pub(crate) const MOST_ENTRIES: usize = 256;
/// Short, so that every limit is reached in a run. In three states, in which packets seldom refresh the tick, the table
/// adds [`SELDOM_WRITTEN`].
pub(crate) const AGES: AgeLimits = AgeLimits {
    half_open: Duration::from_millis(6000),
    open: Duration::from_secs(3_600),
    confirmed: Duration::MAX,
    closing: Duration::from_millis(250),
    udp: Duration::from_secs(120),
    ended: Duration::from_millis(500),
    unreported: Duration::from_millis(500),
};
pub(crate) const SELDOM_WRITTEN: Duration = Duration::from_secs(4);

/// Maglev tables by their targets: they are large, and always the same few.
pub(crate) type Pickers = Rc<RefCell<BTreeMap<Vec<usize>, Picker>>>;

pub(crate) struct Gateway {
    pub(crate) index: usize,
    pub(crate) brain: Router,
    pub(crate) flows: Arc<Flows>,
    pub(crate) lease: Moment,
    worker: Worker<HeapRx, HeapTx>,
    channel: ControlChannel,
    targets: usize,
    stance: Stance,
    /// Since when this router owns the VIPA.
    owned_since: Option<Moment>,
    quiet_until: Moment,
    services: Vec<Service>,
    resting: Vec<Resting>,
    pub(crate) listeners: BTreeMap<usize, bool>,
    deadline: Arc<Deadline>,
    generation: u64,
    /// Snapshots under way: the connections that each target has named so far.
    sweeps: BTreeMap<usize, BTreeSet<Connection>>,
    disputes: Disputes,
    /// Targets whose logs are to be read again.
    read_anew: Vec<usize>,
    /// When disputes were last resolved.
    settled: Tick,
    /// Connections that targets were reported to hold when their agents were away, and that went to another target
    /// then: by the client's second SYN, or by the other target's report. A target that is back sends only the new
    /// records of its log, so this lasts until its next snapshot.
    overruled: BTreeSet<(usize, Connection)>,
    relapse: Option<Relapse>,
    pickers: Pickers,
    stale: bool,
    /// A recording of its events, as `vipad` makes one.
    pub(crate) tape: Option<Vec<u8>>,
}

/// A rule of a connection's life that is broken on purpose, to prove that the checks notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relapse {
    /// A reported end removes any entry with these addresses and ports.
    EndsRemove,
    /// A connection that its target reports as closing ages.
    ClosingAges,
    /// A FIN or RST takes back an entry that its target has reported.
    FlagsDecide,
    /// A successor receives ended connections as open ones.
    EndsComeBack,
}

/// Outputs that are left for the world to carry out.
pub(crate) enum Errand {
    Send { to: NodeName, message: Message },
    StoreVotes,
    StoreDecisions,
    KeepLists { vipa: IpAddr, lists: StoredLists },
    Ordered { token: u64, stage: Stage },
    Note(String),
    Stopped,
}

impl Gateway {
    pub(crate) fn new(
        index: usize,
        settings: Settings,
        stored: Stored,
        now: Moment,
        targets: usize,
        pickers: Pickers,
        relapse: Option<Relapse>,
    ) -> Self {
        let seed = HashSeed::new([1, 2, 3, 4 + index as u64]);
        let flows = Arc::new(Flows::new(MOST_ENTRIES, 16, seed).expect("a small table fits anywhere"));
        let (channel, mut channels) = open(Arc::new(Routes::empty(KEY)), 1);
        let rx_ports = vec![RxPort { port: PortId(0), rx: HeapRx::default() }];
        let worker_door = channels.pop().expect("one worker has one channel");
        let unreported = if relapse == Some(Relapse::EndsComeBack) { Duration::MAX } else { AGES.unreported };
        let limits = Limits { ages: AgeLimits { unreported, ..AGES }, ..Limits::default() };
        let worker = Worker::new(worker_door, Arc::clone(&flows), rx_ports, vec![HeapTx::default()], limits);
        Self {
            index,
            brain: Router::new(settings, stored, now),
            flows,
            lease: Moment::ZERO,
            worker,
            channel,
            targets,
            stance: Stance::Standby,
            owned_since: None,
            quiet_until: Moment::ZERO,
            services: Vec::new(),
            resting: Vec::new(),
            listeners: BTreeMap::new(),
            deadline: Arc::default(),
            generation: 0,
            sweeps: BTreeMap::new(),
            disputes: Disputes::default(),
            read_anew: Vec::new(),
            settled: Tick::default(),
            overruled: BTreeSet::new(),
            relapse,
            pickers,
            stale: true,
            tape: None,
        }
    }

    pub(crate) fn feed(&mut self, now: Moment, event: Event) -> Vec<Errand> {
        let mut out = Outbox::new();
        if let Some(tape) = &mut self.tape {
            recording::append_event(tape, now, &event);
        }
        self.brain.handle(now, event, &mut out);
        if let Some(tape) = &mut self.tape {
            recording::append_outputs(tape, &out);
        }
        let mut errands: Vec<Errand> = out.into_iter().flat_map(|output| self.carry_out(now, output)).collect();
        while let Some(target) = self.read_anew.pop() {
            errands.extend(self.feed(now, Event::ReadAnew { vipa: VIPA, target: target_name(target) }));
        }
        if std::mem::take(&mut self.stale) {
            self.publish();
        }
        errands
    }

    fn carry_out(&mut self, now: Moment, output: Output) -> Vec<Errand> {
        if vipa_of(&output).is_some_and(|vipa| vipa != VIPA) {
            return without_packets(output);
        }
        match output {
            Output::Send { to, message } => return vec![Errand::Send { to, message }],
            Output::StoreVote { .. } => return vec![Errand::StoreVotes],
            Output::Stance { stance, quiet_until, .. } => {
                match stance {
                    Stance::Standby | Stance::Yielding => self.owned_since = None,
                    Stance::Rebuilding => self.owned_since = Some(now),
                    Stance::Active => {}
                }
                self.stance = stance;
                self.quiet_until = quiet_until;
                self.stale = true;
            }
            Output::Lease { until, .. } => {
                self.lease = until;
                self.deadline.set(until);
            }
            Output::Announce { .. } => {
                self.publish();
                let frame = arp::gratuitous(&router_mac(self.index), VIPA_V4);
                assert!(self.channel.send(Frame::new(PortId(0), &frame)), "the mailbox is not read");
            }
            Output::Install { target, run, .. } => self.install(now, target, run),
            Output::Listeners { target, listening, .. } => {
                if let Some(target) = self.target(target) {
                    self.listeners.insert(target, !listening.is_empty());
                    self.stale = true;
                }
            }
            Output::ServeWith { services, .. } => {
                self.services = services;
                self.stale = true;
            }
            Output::Complete { target, complete, .. } => {
                if let Some(target) = self.target(target) {
                    self.flows.set_linked(id(target), complete);
                    if complete && self.flows.has_diverged(id(target)) {
                        self.flows.forget_diverged(id(target));
                        self.read_anew.push(target);
                    }
                    if !complete {
                        self.disputes.withdraw(&self.flows, |of| of == id(target));
                    }
                }
            }
            Output::SendTable { to, vipa, epoch, since: _ } => {
                let table = Table { vipa, epoch, entries: self.entries(), part: Part::Only };
                return vec![Errand::Send { to, message: Message::Table(table) }];
            }
            Output::InstallTable { entries, .. } => {
                let since = self.owned_since.map(Tick::from);
                for Entry { connection, target, state } in entries {
                    if let Some(target) = self.target(target) {
                        let of = (&key(&connection), id(target));
                        self.disputes.inherit(&self.flows, of, state, since, Tick::from(now));
                    }
                }
            }
            Output::Note(note) => return vec![Errand::Note(note.to_string())],
            Output::Report(report) => return vec![Errand::Note(format!("{report:?}"))],
            Output::Stopped => return vec![Errand::Stopped],
            Output::StoreDecisions { .. } => return vec![Errand::StoreDecisions],
            Output::Order { token, stage } => return vec![Errand::Ordered { token, stage }],
            Output::Rest { resting, .. } => {
                self.resting = resting;
                self.stale = true;
            }
            Output::StoreLists { vipa, lists } => return vec![Errand::KeepLists { vipa, lists }],
            // Every target is reached alike here.
            Output::Paths { .. } => {}
            Output::Withdraw { .. }
            | Output::Load { .. }
            | Output::LinkAddress { .. }
            | Output::TableReplica { .. }
            | Output::Dropped { .. } => {}
        }
        Vec::new()
    }

    fn target(&self, address: IpAddr) -> Option<usize> {
        (0..self.targets).find(|target| target_address(*target) == address)
    }

    fn install(&mut self, now: Moment, target: IpAddr, run: Run) {
        let Some(target) = self.target(target) else { return };
        match run {
            Run::Tail { after: _, records } => {
                for record in records {
                    match record.change {
                        Change::Opened(state) => {
                            self.confirm(now, &record.connection, target, (state, Origin::Log));
                        }
                        Change::Closed => self.close(now, &record.connection, target),
                    }
                }
            }
            Run::Snapshot { part, connections } => {
                let mut named = match part {
                    Part::Only | Part::First => BTreeSet::new(),
                    Part::Middle | Part::Last => self.sweeps.remove(&target).unwrap_or_default(),
                };
                for (connection, state) in connections {
                    self.confirm(now, &connection, target, (state, Origin::Snapshot));
                    named.insert(connection);
                }
                self.overruled.retain(|(holder, _)| *holder != target);
                match part {
                    Part::First | Part::Middle => drop(self.sweeps.insert(target, named)),
                    Part::Only | Part::Last => self.sweep(now, target, &named),
                }
            }
        }
    }

    fn confirm(&mut self, now: Moment, connection: &Connection, target: usize, state: (ConnectionState, Origin)) {
        let of = id(target);
        self.overrule_if_moved(connection, |gateway| gateway.take_report(now, connection, target, state));
        if self.relapse == Some(Relapse::ClosingAges)
            && state.0 == ConnectionState::Closing
            && let Some(hit) = self.flows.lookup(&key(connection)).filter(|hit| hit.target == of)
        {
            self.flows.touch(&key(connection), &hit, FlowState::Closing, Tick::from(now));
        }
    }

    fn take_report(&mut self, now: Moment, connection: &Connection, target: usize, state: (ConnectionState, Origin)) {
        let (key, target) = (key(connection), id(target));
        let claim = |_| Claim::Unheld;
        self.disputes.report(&self.flows, (&key, target), |of| of == target, claim, state, Tick::from(now));
    }

    fn close(&mut self, now: Moment, connection: &Connection, target: usize) {
        let target = id(target);
        if self.relapse == Some(Relapse::EndsRemove) {
            self.flows.remove(&key(connection), Some(target));
            return;
        }
        self.disputes.report_end(&self.flows, &key(connection), |of| of == target, Tick::from(now));
    }

    /// Ends the connections that the target had reported and that its snapshot lacks.
    fn sweep(&mut self, now: Moment, target: usize, named: &BTreeSet<Connection>) {
        let held = self.known().into_iter().filter(|(_, holder, state)| *holder == target && state.is_held());
        for (connection, _, _) in held.filter(|(connection, _, _)| !named.contains(connection)) {
            self.close(now, &connection, target);
        }
    }

    /// The connection table: connection, target, state.
    pub(crate) fn known(&self) -> Vec<(Connection, usize, FlowState)> {
        let mut known = Vec::new();
        self.flows.export(THE_VIPA, &mut |key, target, state| {
            known.push((key.connection(), usize::from(target.0), state));
        });
        known
    }

    fn entries(&self) -> Vec<Entry> {
        let entry = |(connection, target, state): (Connection, usize, FlowState)| {
            let state = match state.told() {
                EntryState::Ended if self.relapse == Some(Relapse::EndsComeBack) => EntryState::Open,
                told => told,
            };
            Entry { connection, target: target_address(target), state }
        };
        self.known().into_iter().map(entry).collect()
    }

    pub(crate) fn knows(&self, connection: &Connection) -> Option<(usize, FlowState)> {
        self.flows.lookup(&key(connection)).map(|hit| (usize::from(hit.target.0), hit.state))
    }

    /// Runs `act`, which may give an entry another target, and records it if the former target had reported it.
    fn overrule_if_moved(&mut self, connection: &Connection, act: impl FnOnce(&mut Self)) {
        let before = self.knows(connection);
        act(self);
        let after = self.knows(connection);
        if let (Some((holder, state)), Some((other, _))) = (before, after)
            && state.is_held()
            && holder != other
        {
            self.overruled.insert((holder, *connection));
        }
    }

    /// Whether this router has given a connection that this target holds to another one, while its agent was away.
    pub(crate) fn has_overruled(&self, holder: usize, connection: &Connection) -> bool {
        self.overruled.contains(&(holder, *connection))
    }

    /// Whether this target's report of the connection waits to be settled.
    pub(crate) fn is_claimed(&self, target: usize, connection: &Connection) -> bool {
        self.disputes.is_claimed(&key(connection), id(target))
    }

    pub(crate) fn is_backup(&self) -> bool {
        self.stance == Stance::Standby
    }

    /// Whether everything that this target holds is known.
    pub(crate) fn is_complete(&self, target: usize) -> bool {
        self.flows.is_linked(id(target))
    }

    /// Ticks since the entry was last written.
    pub(crate) fn silence(&self, connection: &Connection, now: Tick) -> Option<u16> {
        self.flows.lookup(&key(connection)).map(|hit| hit.silence(now))
    }

    /// The targets that new connections may go to.
    pub(crate) fn eligible(&self) -> Vec<usize> {
        let listed = |target: &usize| {
            let address = target_address(*target);
            self.services.iter().any(|service| service.candidates.contains(&address))
        };
        let rests = |target: &usize| self.resting.iter().any(|resting| resting.target == target_address(*target));
        (0..self.targets)
            .filter(listed)
            .filter(|target| !rests(target))
            .filter(|target| self.listeners.get(target) == Some(&true))
            .collect()
    }

    fn publish(&mut self) {
        self.generation += 1;
        let eligible = self.eligible();
        let mut pickers = self.pickers.borrow_mut();
        let picker = pickers.entry(eligible).or_insert_with_key(|eligible| {
            let candidate =
                |target: &usize| Candidate { address: target_address(*target), weight: 1, target: id(*target) };
            Picker::build(&KEY, Balance::Maglev, &eligible.iter().map(candidate).collect::<Vec<_>>())
        });
        let service = |service: &Service| ServiceRoute {
            protocol: service.protocol,
            ports: service.ports,
            picker: picker.clone(),
            draining: Arc::default(),
            turns: Arc::default(),
            orphans: service.orphans,
            sources: None,
        };
        let vipa = VipaRoute {
            address: VIPA,
            stance: self.stance,
            lease: Arc::clone(&self.deadline),
            services: self.services.iter().map(service).collect(),
            quiet_until: self.quiet_until,
            by_hash_until: self.quiet_until,
            new_per_second: None,
            unserved: Unserved::Drop,
        };
        let port = PortRoute::new(Mac(router_mac(self.index)), router_address(self.index), 24);
        let target = |target| TargetRoute::direct(target_address(target), (PortId(0), &port), Mac(target_mac(target)));
        let lists = RouteLists {
            ports: vec![port],
            vipas: vec![vipa],
            targets: (0..self.targets).map(target).collect(),
            ..RouteLists::default()
        };
        drop(pickers);
        self.channel.publish(Arc::new(Routes::build(self.generation, KEY, lists)));
    }

    /// Delivers a packet of this connection, if there is one, and runs one turn of the worker; returns what leaves.
    pub(crate) fn turn(
        &mut self,
        now: Moment,
        arriving: Option<HeapPacket>,
        of: Option<(Connection, TcpFlags)>,
    ) -> Vec<HeapPacket> {
        let Some((connection, flags)) = of else { return self.work(now, arriving) };
        let before = self.flows.lookup(&key(&connection));
        let mut sent = Vec::new();
        self.overrule_if_moved(&connection, |gateway| sent = gateway.work(now, arriving));
        if self.relapse == Some(Relapse::FlagsDecide)
            && flags.closes()
            && before.is_some_and(|hit| hit.state.is_held())
            && let Some(hit) = self.flows.lookup(&key(&connection))
        {
            self.flows.touch(&key(&connection), &hit, FlowState::Closing, Tick::from(now));
        }
        sent
    }

    fn settle_disputes(&mut self, now: Tick) {
        if now == self.settled {
            return;
        }
        self.settled = now;
        let before = self.known();
        self.disputes.resolve(&self.flows, now);
        for (connection, holder, _) in before.into_iter().filter(|(.., state)| state.is_held()) {
            if self.knows(&connection).is_some_and(|(other, _)| other != holder) {
                self.overruled.insert((holder, connection));
            }
        }
    }

    fn work(&mut self, now: Moment, arriving: Option<HeapPacket>) -> Vec<HeapPacket> {
        if let Some(rx) = self.worker.rx(0) {
            rx.arriving.extend(arriving);
        }
        self.settle_disputes(Tick::from(now));
        self.worker.turn(|| now);
        let _ = self.channel.notes().count();
        self.channel.reclaim();
        self.worker.tx(PortId(0)).map(|tx| std::mem::take(&mut tx.sent)).unwrap_or_default()
    }

    /// Whether every packet has one fate.
    pub(crate) fn adds_up(&self) -> bool {
        self.channel.totals().add_up()
    }
}

/// The VIPA that this output is about.
fn vipa_of(output: &Output) -> Option<IpAddr> {
    match output {
        Output::Rest { vipa, .. }
        | Output::Dropped { vipa }
        | Output::Stance { vipa, .. }
        | Output::Lease { vipa, .. }
        | Output::Announce { vipa }
        | Output::Withdraw { vipa }
        | Output::Install { vipa, .. }
        | Output::Listeners { vipa, .. }
        | Output::Complete { vipa, .. }
        | Output::Paths { vipa, .. }
        | Output::ServeWith { vipa, .. }
        | Output::SendTable { vipa, .. }
        | Output::InstallTable { vipa, .. } => Some(*vipa),
        Output::Send { .. }
        | Output::StoreVote { .. }
        | Output::StoreLists { .. }
        | Output::StoreDecisions { .. }
        | Output::Order { .. }
        | Output::TableReplica { .. }
        | Output::Load { .. }
        | Output::LinkAddress { .. }
        | Output::Report(_)
        | Output::Note(_)
        | Output::Stopped => None,
    }
}

/// Handles an output for a VIPA that no client connects to: only its table matters, which a successor waits for.
fn without_packets(output: Output) -> Vec<Errand> {
    let Output::SendTable { to, vipa, epoch, .. } = output else { return Vec::new() };
    let message = Message::Table(Table { vipa, epoch, entries: Vec::new(), part: Part::Only });
    vec![Errand::Send { to, message }]
}

fn id(target: usize) -> TargetId {
    TargetId(u16::try_from(target).expect("few targets"))
}

fn key(connection: &Connection) -> AnyKey {
    AnyKey::of(THE_VIPA, VIPA, connection).expect("the sim's clients have IPv4")
}
