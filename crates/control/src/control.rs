//! The loop: waits, feeds events to the cluster, does what comes out.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use vipa_cluster::{Event, Outbox, Output, Router, StoredVote};
use vipa_handoff::{ControlChannel, Count, Flows, Frame, Note, PortRoute};
use vipa_metrics::SnapshotRequest;
use vipa_model::{Epoch, Moment, NodeName, PortId, Rank, Stance, Throttle, VipaId, config::Config};
use vipa_protocol::{Decision, EventKind, Message, TakeoverReport, admin::ReloadMode};
use vipa_transport::{
    LinkEvent, Receiver, Refusal, Sender,
    service_manager::ServiceManager,
    state::{GroupCommit, Outcome, StateLock},
};

use crate::{
    admin::{
        capture::Running,
        client::AdminClient,
        confirm::Trial,
        events::EventLog,
        health::HealthState,
        metrics::Metrics,
        orders::Orders,
        queries::{Query, Waiting},
        query_jobs::{Audits, Finished},
        recorder::Recorder,
        refusals::Refusals,
        reload::{Fresh, Reader},
        socket::{AdminSocket, Question},
    },
    clock::Clock,
    counts::Counts,
    network::{
        advertiser::Advertiser,
        announcements::Announcements,
        conflicts::{Claim, Conflicts},
        neighbour_prompts::NeighbourPrompts,
        neighbours::Learned,
        own_kernel::OwnKernel,
        port_liveness::{PortLiveness, ports_to_answer},
        probes::{ProbeResult, Probes},
        routing_state::RoutingState,
        self_check::{Probe, SelfCheck},
        weighted_active::Recount,
    },
    ownership::{
        peer_lists::ListKeeper,
        restart_gap::{Arrived, unix_ms},
        steadiness::Steadiness,
        takeovers::Takeovers,
        voting::Voting,
    },
    table::{
        agent_timeouts::AgentTimeouts,
        completeness::Completeness,
        connection_counts::{ConnectionCounters, ConnectionCounts, CountFailed},
        reclaim::Reclaim,
        replica::TableReplicas,
        reports::Reports,
        transfer::TableTransfers,
    },
};

/// How often the workers' notes are read and timers of seconds are looked at.
const HOUSEKEEPING: Duration = Duration::from_millis(5);
/// Between two comparisons of what was sent to targets with what arrived.
const COMPARE: Duration = Duration::from_millis(250);
/// A planned stop that nobody succeeds to ends after this long.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Messages of other nodes taken in before what they led to is published and announced: at a takeover of a thousand VIPAs
/// each of them is about one, and the routes of all are made anew each time.
const EVENTS_AT_ONCE: usize = 256;
/// No more of them are taken in once this has passed: an operator's question waits for no longer than a turn.
const EVENTS_SPAN: Duration = Duration::from_millis(10);
/// Notes read in one go, so that a flood of them cannot hold up a beat.
const NOTES_AT_ONCE: usize = 256;

/// A router's control: all it knows, and its ends of what it talks through.
pub struct Control {
    pub(crate) config: Arc<Config>,
    /// The same, for other threads.
    pub(crate) configs: watch::Sender<Arc<Config>>,
    pub(crate) cluster: Router,
    pub(crate) routing: RoutingState,
    pub(crate) flows: Arc<Flows>,
    pub(crate) channel: ControlChannel,
    pub(crate) takeovers: Takeovers,
    pub(crate) counts: Counts,
    pub(crate) metrics: Metrics,
    pub(crate) refusals: Refusals,
    pub(crate) clock: Clock,
    pub(crate) reports: Reports,
    pub(crate) reclaim: Reclaim,
    pub(crate) steadiness: Steadiness,
    pub(crate) completeness: Completeness,
    pub(crate) agent_timeouts: AgentTimeouts,
    pub(crate) announcements: Announcements,
    pub(crate) conflicts: Conflicts,
    pub(crate) neighbour_prompts: NeighbourPrompts,
    pub(crate) advertiser: Advertiser,
    pub(crate) audits: Audits,
    pub(crate) self_check: SelfCheck,
    pub(crate) reader: Reader,
    pub(crate) recorder: Recorder,
    pub(crate) events: EventLog,
    pub(crate) health: HealthState,
    /// The configuration that is on trial.
    pub(crate) trial: Option<Trial>,
    pub(crate) capture: Option<Running>,
    pub(crate) probe: Probe,
    pub(crate) port_liveness: PortLiveness,
    /// Ports on whose network the configuration names somebody to ask.
    pub(crate) ports_to_answer: BTreeSet<PortId>,
    pub(crate) own_kernel: OwnKernel,
    pub(crate) waiting: Waiting,
    recount: Recount,
    pub(crate) connection_counters: ConnectionCounters,
    pub(crate) transfers: TableTransfers,
    compare_next: Moment,
    pub(crate) probes: Probes,
    findings: mpsc::Receiver<ProbeResult>,
    pub(crate) replicas: TableReplicas,
    pub(crate) links: Sender,
    pub(crate) votes: GroupCommit<StoredVote>,
    pub(crate) decisions: GroupCommit<Decision>,
    pub(crate) voting: Voting,
    lists: ListKeeper,
    pub(crate) orders: Orders,
    pub(crate) routes_stale: bool,
    /// A worker stands still, and new routes wait for it.
    pub(crate) routes_wait: bool,
    /// Candidates or ports may be others: who is to be asked for and probed has to be found anew.
    pub(crate) targets_stale: bool,
    pub(crate) routes_throttle: Throttle,
    answers_throttle: Throttle,
    pub(crate) targets_throttle: Throttle,
    /// Announced once the routes that name them as owned are published.
    pub(crate) to_announce: BTreeSet<IpAddr>,
    /// Takeovers that are complete when that is done.
    pub(crate) complete: Vec<TakeoverReport>,
    /// What has arrived at the ports, as seen in this turn of the loop.
    pub(crate) seen: Option<Arrived>,
    pub(crate) service_manager: ServiceManager,
    /// When a stop that was begun ends at the latest.
    stop_by: Option<Moment>,
    /// Why it stops, if nobody has told it to.
    failure: Option<Failure>,
    stopping: bool,
    stopped: bool,
}

/// Why control has stopped by itself. Another process may do better.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

/// What the loop waits on, beside its timers.
#[derive(Debug)]
pub struct Ends {
    /// Of the state directory, until control has ended.
    pub(crate) lock: StateLock,
    pub(crate) events: Receiver,
    pub(crate) admin: AdminSocket,
    pub(crate) questions: (AdminClient, mpsc::Receiver<Question>),
    pub(crate) asked: mpsc::Receiver<Query>,
    pub(crate) finished: mpsc::Receiver<Finished>,
    pub(crate) counted: mpsc::Receiver<Result<ConnectionCounts, CountFailed>>,
    pub(crate) fresh: mpsc::Receiver<Fresh>,
    pub(crate) scrapes: mpsc::Receiver<SnapshotRequest>,
}

/// The packet path as control sees it.
pub struct Packets {
    /// By `PortId`.
    pub ports: Vec<PortRoute>,
    pub flows: Arc<Flows>,
    pub channel: ControlChannel,
    /// The clock the workers look at leases with.
    pub clock: Clock,
    /// How the ports are.
    pub probe: Probe,
}

/// What the outside tells the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Hand over, then end.
    Stop,
    /// Read the configuration again.
    Reload,
}

/// Where control says things to.
pub(crate) struct Outside {
    pub(crate) links: Sender,
    pub(crate) votes: GroupCommit<StoredVote>,
    pub(crate) takeovers: Takeovers,
    pub(crate) audits: Audits,
    pub(crate) connection_counters: ConnectionCounters,
    pub(crate) transfers: TableTransfers,
    pub(crate) reader: Reader,
    pub(crate) decisions: GroupCommit<Decision>,
    pub(crate) voters: Voting,
    pub(crate) lists: ListKeeper,
    pub(crate) metrics: Metrics,
}

impl Control {
    pub(crate) fn new(config: Arc<Config>, cluster: Router, packets: Packets, outside: Outside) -> Self {
        let Packets { ports, flows, channel, clock, probe } = packets;
        let Outside {
            links,
            votes,
            decisions,
            takeovers,
            audits,
            connection_counters,
            transfers,
            reader,
            voters,
            lists,
            metrics,
        } = outside;
        let advertiser = Advertiser::start(config.node.name.clone(), &config.hooks, &config.announce);
        let announcements = Announcements::new(&config.announce);
        let (probes, findings) = Probes::new();
        let self_check = SelfCheck::new(config.autonomics.clone());
        let recorder = Recorder::new(config.node.state_dir.clone());
        let mut events = EventLog::open(&config.node.state_dir, config.node.name.clone());
        events.note(EventKind::Started { version: env!("CARGO_PKG_VERSION").into() }, unix_ms());
        let port_liveness = PortLiveness::new(ports.len());
        let ports_to_answer = ports_to_answer(&config.vipas, &ports);
        let own_kernel = OwnKernel::start(&config.ports);
        let routing = RoutingState::new(vipa_balance::ClusterKey::new(config.cluster.key), ports, &config.vipas);
        Self {
            configs: watch::Sender::new(Arc::clone(&config)),
            config,
            cluster,
            routing,
            channel,
            takeovers,
            counts: Counts::default(),
            metrics,
            refusals: Refusals::default(),
            clock,
            reports: Reports::new(Arc::clone(&flows)),
            reclaim: Reclaim::default(),
            steadiness: Steadiness::new(clock.now()),
            flows,
            completeness: Completeness::default(),
            agent_timeouts: AgentTimeouts::default(),
            announcements,
            conflicts: Conflicts::default(),
            neighbour_prompts: NeighbourPrompts::default(),
            advertiser,
            audits,
            self_check,
            reader,
            recorder,
            events,
            health: HealthState::default(),
            trial: None,
            capture: None,
            probe,
            port_liveness,
            ports_to_answer,
            own_kernel,
            waiting: Waiting::default(),
            recount: Recount::default(),
            connection_counters,
            transfers,
            compare_next: Moment::ZERO,
            probes,
            findings,
            replicas: TableReplicas::default(),
            links,
            votes,
            decisions,
            voting: voters,
            lists,
            orders: Orders::default(),
            routes_stale: true,
            routes_wait: false,
            targets_stale: false,
            routes_throttle: Throttle::default(),
            answers_throttle: Throttle::default(),
            targets_throttle: Throttle::default(),
            to_announce: BTreeSet::new(),
            complete: Vec::new(),
            seen: None,
            service_manager: ServiceManager::from_environment(),
            stop_by: None,
            failure: None,
            stopping: false,
            stopped: false,
        }
    }

    /// Runs until it is told to stop, or must, and every VIPA has been handed over, or nobody took it in time.
    pub async fn run(mut self, ends: Ends, mut signals: mpsc::Receiver<Signal>) -> Result<(), Failure> {
        let Ends {
            lock: _lock,
            mut events,
            admin,
            mut questions,
            mut asked,
            mut finished,
            mut counted,
            mut fresh,
            mut scrapes,
        } = ends;
        tokio::spawn(admin.serve(questions.0.0.clone(), self.counts.clients.clone()));

        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.stopped && self.stop_by.is_none_or(|limit| self.clock.now() < limit) {
            self.flush_state();
            let deadline = self.cluster.deadline().map(|moment| self.clock.instant(moment));
            tokio::select! {
                biased;
                () = sleep_until(deadline) => self.feed(Event::Timeout),
                // An operator is answered in the middle of a takeover too. What that costs is kept to a part of the time.
                Some(counts) = counted.recv() => self.answer(|control| control.counted(counts.as_ref())),
                Some((request, reply)) = questions.1.recv(), if self.answers_throttle.is_due(self.clock.now()) => {
                    self.answer(|control| control.asked(request, reply));
                }
                Some(reply) = scrapes.recv(), if self.answers_throttle.is_due(self.clock.now()) => {
                    self.answer(|control| control.scraped(reply));
                }
                Some(event) = events.recv() => {
                    self.link(event);
                    self.take_more(&mut events);
                }
                outcome = self.votes.done() => self.votes_stored(&outcome),
                outcome = self.decisions.done() => self.decisions_stored(&outcome),
                outcome = self.voting.done() => self.voters_stored(outcome),
                Some(signal) = signals.recv() => match signal {
                    Signal::Stop => self.stop(),
                    Signal::Reload => {
                        self.service_manager.reloading();
                        self.reader.start(ReloadMode::Whole, None, None);
                    }
                },
                _ = housekeeping.tick() => self.housekeep(),
                Some(asking) = asked.recv() => {
                    if let Some((to, message)) = self.waiting.ask(asking) {
                        self.links.send(&to, &message);
                    }
                }
                Some(finding) = self.findings.recv() => {
                    self.routes_stale = true;
                    self.routing.found(finding).into_iter().for_each(|change| self.happened(change));
                }
                Some(finished) = finished.recv() => self.audited(finished),
                Some(fresh) = fresh.recv() => self.reload(fresh),
            }
            self.end_turn();
        }
        let Self { advertiser, takeovers, lists, failure, .. } = self;
        advertiser.finish().await;
        takeovers.close().await;
        lists.close().await;
        failure.map_or(Ok(()), Err)
    }

    /// Begins to hand over what this router owns; it ends when that is done.
    fn stop(&mut self) {
        if self.stop_by.is_none() {
            let why = self.failure.as_ref().map(ToString::to_string);
            self.happened(EventKind::Stopping { why });
            self.stopping = true;
            self.service_manager.stopping();
            self.stop_by = Some(self.clock.now() + STOP_LIMIT);
            self.feed(Event::Stop);
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// As [`Self::stop`], without being told to.
    pub(crate) fn stop_because(&mut self, why: String) {
        self.failure.get_or_insert(Failure(why));
        self.stop();
    }

    /// Work for an operator.
    fn answer(&mut self, work: impl FnOnce(&mut Self)) {
        let began = self.clock.now();
        work(self);
        self.answers_throttle.took(began, self.clock.now());
    }

    /// Takes in what has come already, as long as nothing else is due.
    fn take_more(&mut self, events: &mut Receiver) {
        let until = self.clock.now() + EVENTS_SPAN;
        for _ in 1..EVENTS_AT_ONCE {
            let now = self.clock.now();
            if now >= until || self.cluster.deadline().is_some_and(|due| due <= now) {
                return;
            }
            let Some(event) = events.try_recv() else { return };
            self.link(event);
        }
    }

    /// Begins to write what waits for the disk.
    fn flush_state(&mut self) {
        self.votes.flush(|| self.cluster.votes_to_store());
        self.decisions.flush(|| self.cluster.decisions_to_store());
        self.voting.flush(&self.config.cluster.voters);
    }

    fn votes_stored(&mut self, outcome: &Outcome) {
        match *outcome {
            Outcome::Stored { token } => self.feed(Event::VotesStored { token }),
            Outcome::Failed { .. } => self.votes.request(),
        }
    }

    fn decisions_stored(&mut self, outcome: &Outcome) {
        match *outcome {
            Outcome::Stored { token } => self.feed(Event::DecisionsStored { token }),
            Outcome::Failed { .. } => self.decisions.request(),
        }
    }

    fn link(&mut self, event: LinkEvent) {
        if let LinkEvent::Up { peer, .. } | LinkEvent::Down { peer } = &event {
            self.metrics.link_changed(peer);
        }
        match event {
            LinkEvent::Up { peer, hello } => self.feed(Event::Connected { peer, hello }),
            LinkEvent::Down { peer } => self.feed(Event::Disconnected { peer }),
            LinkEvent::Message { peer, message: message @ (Message::QueryRequest(_) | Message::QueryReply(_)) } => {
                self.questioned(&peer, message);
            }
            LinkEvent::Message { peer, message } => {
                self.health.hear_from(&peer);
                self.feed(Event::Received { peer, message });
            }
            LinkEvent::Refused(refusal) => {
                let Refusal { node, address, why, times } = refusal;
                let ip = address.ip().to_canonical();
                let peer = node.as_ref().map_or_else(|| ip.to_string(), |node| format!("{node} at {ip}"));
                tracing::warn!(%peer, %why, times, "a link was refused");
                let now = self.clock.now();
                if let Some(event) = self.health.refused((node.clone(), Some(ip)), &why, now) {
                    self.write_down(event);
                }
                self.refusals.note((node, Some(ip)), why, times, now);
            }
        }
    }

    /// One event in, all that follows from it done.
    pub(crate) fn feed(&mut self, event: Event) {
        let (mut out, now) = (Outbox::default(), self.clock.now());
        self.recorder.event(now, &event, &self.cluster);
        self.cluster.handle(now, event, &mut out);
        self.recorder.outputs(&out);
        for output in out {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send { to, message } => self.links.send(&to, &message),
            Output::StoreVote { .. } => self.votes.request(),
            Output::StoreDecisions { .. } => self.decisions.request(),
            Output::Order { token, stage } => {
                if let Some(event) = self.orders.stage(token, stage) {
                    self.happened(event);
                }
            }
            Output::Rest { vipa, resting } => {
                if let Some(index) = self.routing.vipa_index(vipa) {
                    self.routing.rest(index, resting);
                    self.routes_stale = true;
                }
            }
            Output::Dropped { vipa } => {
                self.lists.forget(vipa);
                self.retire(vipa);
            }
            Output::StoreLists { vipa, lists } => self.lists.keep(vipa, lists),
            Output::Paths { vipa, paths } => {
                self.counts.paths_forgotten = self.cluster.paths_forgotten();
                if let Some(index) = self.routing.vipa_index(vipa) {
                    self.routing.learn(index, paths);
                    self.reach_new();
                    self.reach_targets();
                }
            }
            Output::Stance { vipa, epoch, stance, quiet_until } => self.take_stance(vipa, epoch, stance, quiet_until),
            Output::Lease { vipa, until } => {
                if let Some(index) = self.routing.vipa_index(vipa) {
                    self.routing.vipas[index].lease.set(until);
                }
            }
            Output::Announce { vipa } => {
                self.routes_stale = true;
                self.to_announce.insert(vipa);
            }
            Output::Withdraw { vipa } => {
                self.to_announce.remove(&vipa);
                self.announcements.end(vipa);
                self.conflicts.end(vipa);
                self.neighbour_prompts.end(vipa);
                self.advertiser.release(vipa);
            }
            Output::Install { vipa, target, run } => self.install(vipa, target, &run),
            Output::Listeners { vipa, target, listening } => {
                if let Some(index) = self.routing.vipa_index(vipa) {
                    if !listening.is_empty() {
                        self.routing.neighbours.hurry(target, self.clock.now());
                    }
                    self.routing.listens(index, target, listening.into_iter().collect());
                    self.reach_targets();
                }
            }
            Output::Complete { vipa, target, complete } => self.completed(vipa, target, complete),
            Output::Load { target, load } => {
                if let Some(changes) = self.routing.fares(target, load) {
                    self.routes_stale = true;
                    changes.into_iter().for_each(|change| self.happened(change));
                }
            }
            Output::LinkAddress { target, mac } => {
                self.routing.neighbours.tell(target, mac, self.clock.now());
                self.ask_neighbours(self.clock.now());
            }
            Output::TableReplica { from, mirror } => self.mirrored(from, mirror),
            Output::ServeWith { vipa, services } => {
                if let Some(index) = self.routing.vipa_index(vipa) {
                    self.routing.serve_with(index, services);
                    self.reach_new();
                    self.reach_targets();
                }
            }
            Output::SendTable { to, vipa, epoch, since } => self.send_table(to, vipa, epoch, since),
            Output::InstallTable { vipa, entries } => self.install_table(vipa, &entries),
            Output::Report(report) => self.complete.push(report),
            Output::Note(note) => self.note(&note),
            Output::Stopped => self.stopped = true,
        }
    }
}

/// What outputs do to the world.
impl Control {
    fn take_stance(&mut self, vipa: IpAddr, epoch: Epoch, stance: Stance, quiet_until: Moment) {
        let Some(index) = self.routing.vipa_index(vipa) else { return };
        let before = std::mem::replace(&mut self.routing.vipas[index].stance, stance);
        self.routing.vipas[index].epoch = epoch;
        self.routing.vipas[index].quiet_until = quiet_until;
        match stance {
            Stance::Standby | Stance::Yielding => self.routing.vipas[index].owned_since = None,
            Stance::Rebuilding if before != stance => self.routing.vipas[index].owned_since = Some(self.clock.now()),
            Stance::Rebuilding | Stance::Active => {}
        }
        if before != stance && stance == Stance::Rebuilding {
            let (id, now) = (vipa_id(index), self.clock.now());
            let arrived = self.seen.get_or_insert_with(|| (self.probe.arrived)());
            self.takeovers.begin((vipa, id, epoch), self.channel.vipa_totals(id), arrived, now);
            self.count_then(move |control, counting| {
                let known = counting.map_or(0, |counts| counts.of(index).total);
                control.takeovers.counted(vipa, epoch, known);
            });
        }
        if stance == Stance::Standby {
            if self.stopping && matches!(before, Stance::Active | Stance::Rebuilding) {
                self.takeovers.leave(vipa, (self.probe.arrived)());
            }
            self.takeovers.abandon(vipa);
        }
        self.routes_stale = true;
    }

    /// The ranks of a VIPA, highest first.
    pub(crate) fn ranks(&self, vipa: IpAddr) -> Vec<(NodeName, Rank)> {
        let found = self.config.vipas.iter().find(|known| known.address == vipa);
        found.map(|vipa| vipa.ranks.clone()).unwrap_or_default()
    }

    fn housekeep(&mut self) {
        let now = self.clock.now();
        let (mut narrowed, mut claims) = (Vec::new(), Vec::new());
        for note in self.channel.notes().take(NOTES_AT_ONCE) {
            match note {
                Note::Neighbour { port, address, mac } => {
                    if self.routing.neighbours.is_at(port, address) {
                        self.port_liveness.observe(port, now);
                    }
                    match self.routing.neighbours.learn(port, address, mac, now) {
                        Learned::Nothing => continue,
                        Learned::Changed => tracing::debug!(%address, %mac, "a neighbour is known"),
                        Learned::Told => tracing::info!("told by its agent: {address} is at {mac}"),
                    }
                    self.routes_stale = true;
                }
                Note::Conflict { port, vipa, mac } => claims.push(Claim { vipa, port, mac }),
                Note::Wanted { port, address } => self.routing.neighbours.want_passer(address, port, now),
                Note::NarrowPath { target, mtu } => narrowed.push((target, mtu)),
            }
        }
        self.change_paths(&narrowed, now);
        claims.into_iter().for_each(|claim| self.hear_claim(claim, now));
        self.ask_neighbours(now);
        self.ask_at_quiet_ports(now);
        self.lists.tend(now);
        self.replicate();
        if now >= self.compare_next {
            self.compare_next = now + COMPARE;
            let changes = self.routing.compare(now, |way| self.channel.admitted(way));
            self.routes_stale |= !changes.is_empty();
            changes.into_iter().for_each(|change| self.happened(change));
        }
        if self.routing.balances_by_active()
            && let Some(came) = self.recount.is_due(now, self.channel.totals().count(Count::FlowOpened))
        {
            self.count_then(move |control, counting| {
                control.routes_stale |= counting.is_ok_and(|counts| control.routing.recount(counts, came));
                control.recount.took(now, control.clock.now());
            });
        }
        self.end_trial(now);
        self.tend_capture(now);
        self.sweep();
        let mut due = Vec::new();
        self.announcements.due(now, |vipa| due.push(vipa));
        for vipa in due {
            if self.may_announce(vipa, now) {
                self.announce(vipa);
                self.probe_vipa(vipa);
            }
        }
        self.defend(now);
        self.ask_as_vipas(now);
        self.takeovers.watch(|vipa| self.channel.vipa_totals(vipa), now);
        for record in self.takeovers.completed(|vipa| self.channel.vipa_totals(vipa), now) {
            tracing::info!(report = %serde_json::json!(record), "takeover complete");
            self.write_takeover_down(&record);
        }
        if self.agent_timeouts.is_due(now) {
            self.look_for_absent(now);
        }
        self.audit_by_turns(now);
        self.look_at_condition(now);
        self.count_connections(now);
        self.seek_voters(now);
        self.compare_configurations(now);
        self.channel.reclaim();
        self.give_back(now);
        self.look_at_owners(now);
        self.look_at_health(now);
        self.recorder.hand_over();
        self.tend_service_manager();
    }
}

pub(crate) fn vipa_id(index: usize) -> VipaId {
    VipaId(u16::try_from(index).expect("the configuration limits VIPAs"))
}

/// A frame that finds the worker's mailbox full is not sent; ARP asks and announces again anyway.
pub(crate) fn send_frame(channel: &ControlChannel, counts: &Counts, (id, port): (PortId, &PortRoute), bytes: &[u8]) {
    let tagged = port.vlan.map(|vlan| vipa_packet::ethernet::tagged(bytes, vlan));
    if !channel.send(Frame::new(id, tagged.as_deref().unwrap_or(bytes))) {
        counts.frames_unsent.set(counts.frames_unsent.get() + 1);
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
