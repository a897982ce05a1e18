//! A router's state: its links, its vote, its beats, and one ownership machine per VIPA (`vipa`).

mod beats;
mod election;
mod io;
mod orders;
mod ownership;
mod permission;
mod reports;
mod schedule;
mod settings;
mod status;
mod succession;
mod vipa;
mod votes;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};
use vipa_model::{Incarnation, Moment, NodeName, Voters};
use vipa_protocol::{
    Beat, BeatAck, Claim, Claims, DecisionAck, Decisions, Distribution, Grant, Hello, LinkAddress, Message, Role,
    SelfCheckReport, Superseded, Table, TakebackRequest, Vote, Votes,
};

use self::{
    beats::Beats,
    orders::Orders,
    schedule::Schedule,
    succession::Succession,
    vipa::{Input, Vipa},
};
pub use self::{
    io::{Event, Note, Outbox, Output, Resting, Stage},
    settings::{Settings, Stored, Takeback, Timing, VipaSettings},
    status::{PeerStatus, TargetStatus, VipaBrief, VipaStatus, Wait},
    vipa::State,
};
use crate::{
    authority::{DenialCounts, Permission},
    ballots::Ballots,
    decision_log::DecisionLog,
    hello::Mismatch,
    membership::{ListChange, Membership, Objection},
    paths::StoredLists,
    voter::Voter,
};

/// The cluster as one router sees it, and the router's decisions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Router {
    settings: Settings,
    /// When the last event came.
    now: Moment,
    peers: BTreeMap<NodeName, Peer>,
    /// Why this router cannot route, if it cannot.
    unfit: Option<String>,
    decision_log: DecisionLog,
    orders: Orders,
    groups: Groups,
    grouped_at: Moment,
    membership: Membership,
    /// This router's own vote. It counts when this router is one of the voters.
    voter: Voter,
    vipas: BTreeMap<IpAddr, Vipa>,
    schedule: Schedule,
    beats: Beats,
    denied: DenialCounts,
    /// Messages of this router to itself.
    local: VecDeque<Message>,
    ballots: Ballots,
    greeted: bool,
    stopping: bool,
    stopped: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Peer {
    role: Role,
    incarnation: Incarnation,
    /// For a router: why it cannot route, if it cannot.
    unfit: Option<String>,
}

/// State that VIPAs that move together share, by the group's name.
type Groups = BTreeMap<String, Group>;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Group {
    /// VIPAs for which this router is neither the owner nor ready to be.
    unready: BTreeSet<IpAddr>,
    /// The router that the group is to move to: the first in line of the routers that own a part of it.
    home: Option<NodeName>,
}

/// The parts of a router that a VIPA's machine may read.
#[derive(Clone, Copy)]
struct RouterView<'a> {
    now: Moment,
    settings: &'a Settings,
    peers: &'a BTreeMap<NodeName, Peer>,
    decision_log: &'a DecisionLog,
    groups: &'a Groups,
    unfit: bool,
    stopping: bool,
}

/// The parts of the router that a VIPA's machine may read and use.
struct Context<'a> {
    now: Moment,
    settings: &'a Settings,
    peers: &'a BTreeMap<NodeName, Peer>,
    decision_log: &'a DecisionLog,
    groups: &'a Groups,
    unfit: bool,
    stopping: bool,
    out: &'a mut Outbox,
    local: &'a mut VecDeque<Message>,
    ballots: &'a mut Ballots,
    beats: &'a mut Beats,
}

impl<'a> Context<'a> {
    fn overview(&self) -> RouterView<'a> {
        let Self { now, settings, peers, decision_log, groups, unfit, stopping, .. } = *self;
        RouterView { now, settings, peers, decision_log, groups, unfit, stopping }
    }

    fn send(&mut self, to: &NodeName, message: Message) {
        if *to == self.settings.me {
            self.local.push_back(message);
        } else if self.peers.contains_key(to) {
            self.out.push(Output::Send { to: to.clone(), message });
        }
    }

    fn claim(&mut self, voter: &NodeName, claim: Claim) {
        self.ballots.claim(voter, claim);
    }

    fn note(&mut self, note: Note) {
        self.out.push(Output::Note(note));
    }
}

impl Router {
    #[must_use]
    pub fn new(settings: Settings, stored: Stored, now: Moment) -> Self {
        let Stored { votes, decisions, mut lists } = stored;
        let voter = Voter::new(settings.timing.lease, votes, now);
        let vipa = |vipa: &VipaSettings| {
            let stored = lists.remove(&vipa.address).unwrap_or_default();
            (vipa.address, Vipa::new(vipa.clone(), stored, now))
        };
        let vipas = settings.vipas.iter().map(vipa).collect();
        let mut router = Self {
            settings,
            now,
            peers: BTreeMap::new(),
            unfit: None,
            decision_log: DecisionLog::new(decisions),
            orders: Orders::default(),
            groups: Groups::new(),
            grouped_at: Moment::ZERO,
            membership: Membership::default(),
            voter,
            vipas,
            schedule: Schedule::default(),
            beats: Beats::default(),
            denied: DenialCounts::default(),
            local: VecDeque::new(),
            ballots: Ballots::default(),
            greeted: false,
            stopping: false,
            stopped: false,
        };
        router.each_vipa(now, &mut Outbox::new(), |_, _| {});
        router
    }

    /// The first message of this router on every link.
    #[must_use]
    pub fn hello(&self) -> Hello {
        Hello {
            version: vipa_protocol::VERSION,
            cluster: self.settings.cluster.clone(),
            key: self.settings.key,
            node: self.settings.me.clone(),
            role: Role::Router,
            addresses: self.settings.addresses.clone(),
            incarnation: self.settings.incarnation,
            voters: self.settings.voters.clone(),
        }
    }

    /// The latest moment at which `handle` must be called with `Event::Timeout`.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        let beat = self.owns_any().then(|| self.beats.due(&self.settings.timing));
        self.schedule.next().into_iter().chain(beat).chain(self.orders.deadline()).min()
    }

    /// How many VIPAs this router has looked at so far, counted each time: what the events have cost.
    #[must_use]
    pub fn looks(&self) -> u64 {
        self.schedule.looks()
    }

    fn overview(&self) -> RouterView<'_> {
        let Self { now, settings, peers, decision_log, groups, unfit, stopping, .. } = self;
        RouterView { now: *now, settings, peers, decision_log, groups, unfit: unfit.is_some(), stopping: *stopping }
    }

    /// Feeds one event. Never blocks; what is to be done is left in `out`, in the order in which it is to be done.
    pub fn handle(&mut self, now: Moment, event: Event, out: &mut Outbox) {
        self.now = now;
        if !self.greeted {
            self.greeted = true;
            self.each_vipa(now, out, |vipa, cx| vipa.greet(cx));
        }
        if now.since(self.grouped_at) >= self.settings.timing.beat {
            self.regroup(now);
        }
        match event {
            Event::Timeout => {
                for vipa in self.schedule.due(now) {
                    self.with_vipa(now, vipa, out, |vipa, cx| {
                        if vipa.deadline(&cx.overview()).is_some_and(|due| due <= now) {
                            vipa.step(Input::Due, cx);
                        }
                    });
                }
            }
            Event::Connected { peer, hello } => self.connected(now, peer, &hello, out),
            Event::Disconnected { peer } => self.disconnected(now, &peer, out),
            Event::Received { peer, message: Message::Voters(voters) } => self.handle_voters(now, &peer, voters, out),
            Event::Received { peer, message } => {
                if self.peers.contains_key(&peer) {
                    self.receive(now, &peer, message, out);
                }
            }
            Event::VotesStored { token } => {
                let grants = self.voter.stored(token);
                for (claimant, grant) in grants {
                    if self.life_of(&claimant.router) == Some(claimant.incarnation) {
                        self.ballots.vote(&claimant.router, Vote::Grant(grant));
                    }
                }
            }
            Event::DecisionsStored { token } => self.decisions_stored(now, token, out),
            Event::Order { token, order, given } => self.ordered(now, token, (order, given), out),
            Event::Unfit { why } => self.turn_fit(now, Some(why), out),
            Event::Fit => self.turn_fit(now, None, out),
            Event::Configured { settings } => self.configure(now, *settings, out),
            Event::ReadAnew { vipa, target } => {
                self.with_vipa(now, vipa, out, |vipa, cx| vipa.read_anew(&target, cx));
            }
            Event::Counted { vipa, connections } => {
                self.with_vipa(now, vipa, out, |vipa, cx| vipa.counted(connections, cx));
            }
            Event::Stop => {
                self.stopping = true;
                self.each_vipa(now, out, |vipa, cx| vipa.step(Input::Stop, cx));
            }
        }
        self.finish_event(now, out);
        self.review_orders(now, out);
        self.drop_retired(now, out);
    }

    /// Reports to all nodes whether this router can route.
    fn turn_fit(&mut self, now: Moment, unfit: Option<String>, out: &mut Outbox) {
        if self.unfit == unfit {
            return;
        }
        for router in self.linked_routers() {
            self.send(now, &router, Message::SelfCheckReport(SelfCheckReport { unfit: unfit.clone() }), out);
        }
        self.unfit.clone_from(&unfit);
        out.push(Output::Note(Note::Eligibility { router: self.settings.me.clone(), unfit }));
        self.each_vipa(now, out, |vipa, cx| vipa.step(Input::Reordered, cx));
    }

    /// The incarnation of a node: this router itself, or one that it is linked with.
    fn life_of(&self, node: &NodeName) -> Option<Incarnation> {
        if *node == self.settings.me {
            return Some(self.settings.incarnation);
        }
        self.peers.get(node).map(|peer| peer.incarnation)
    }

    fn linked_routers(&self) -> Vec<NodeName> {
        self.peers.iter().filter(|(_, peer)| peer.role == Role::Router).map(|(name, _)| name.clone()).collect()
    }

    /// Adds, changes and retires VIPAs, and adopts other voters. What makes a node another one, or a vote worthless,
    /// stays as it was.
    fn configure(&mut self, now: Moment, settings: Settings, out: &mut Outbox) {
        let Settings { timing, mut vipas, voters, .. } = settings;
        self.go_by(now, &voters, out);
        let lease = self.settings.timing.lease;
        self.settings.timing = Timing { lease, ..timing };
        self.settings.vipas.clone_from(&vipas);
        self.grouped_at = Moment::ZERO;
        // The time limits may have changed.
        self.each_vipa(now, out, |_, _| {});
        vipas.retain(|settings| {
            let known = self.vipas.contains_key(&settings.address);
            if known {
                let settings = settings.clone();
                self.with_vipa(now, settings.address, out, |vipa, cx| vipa.configure(settings, cx));
            }
            !known
        });
        for settings in vipas {
            let (address, roles) = (settings.address, self.peers.iter());
            let roles: Vec<_> = roles.map(|(name, peer)| (name.clone(), peer.role.clone())).collect();
            self.vipas.insert(address, Vipa::new(settings, StoredLists::default(), now));
            self.with_vipa(now, address, out, |vipa, cx| {
                vipa.greet(cx);
                for (peer, role) in &roles {
                    vipa.linked(peer, role, cx);
                }
            });
        }
        let kept: BTreeSet<IpAddr> = self.settings.vipas.iter().map(|vipa| vipa.address).collect();
        let gone: Vec<IpAddr> = self.vipas.keys().filter(|vipa| !kept.contains(vipa)).copied().collect();
        for vipa in gone {
            self.with_vipa(now, vipa, out, Vipa::retire);
        }
    }

    fn drop_retired(&mut self, now: Moment, out: &mut Outbox) {
        for address in self.schedule.retired_at_rest() {
            self.with_vipa(now, address, out, |vipa, cx| vipa.leave_nothing(cx));
            self.vipas.remove(&address);
            self.schedule.forget(address);
        }
    }

    /// Computes the groups again.
    fn regroup(&mut self, now: Moment) {
        self.grouped_at = now;
        self.groups.clear();
        let mut groups = Groups::new();
        let mut homes: BTreeMap<&str, (Option<Succession>, &NodeName)> = BTreeMap::new();
        let overview = RouterView { now, ..self.overview() };
        for vipa in self.vipas.values() {
            let Some(name) = &vipa.settings.group else { continue };
            let group = groups.entry(name.clone()).or_default();
            if vipa.ownership().is_none() && !vipa.is_ready(now, &self.settings.timing) {
                group.unready.insert(vipa.settings.address);
            }
            if let Some(owner) = &vipa.owner {
                let place = (vipa.succession(owner, &overview), owner);
                let first = homes.entry(name).or_insert(place);
                *first = place.max(*first);
            }
        }
        for (name, (_, home)) in homes {
            if let Some(group) = groups.get_mut(name) {
                group.home = Some(home.clone());
            }
        }
        self.groups = groups;
    }

    /// Handles this router's messages to itself, and beats when a beat is due.
    fn finish_event(&mut self, now: Moment, out: &mut Outbox) {
        loop {
            self.send_ballots(now, out);
            while let Some(message) = self.local.pop_front() {
                let me = self.settings.me.clone();
                self.receive(now, &me, message, out);
                self.send_ballots(now, out);
            }
            if !(self.owns_any() && self.beats.due(&self.settings.timing) <= now) {
                break;
            }
            if self.beats.is_regular(now, &self.settings.timing) {
                // With every regular beat an owner checks what has no deadline of its own.
                self.each_owned(now, out, |vipa, cx| vipa.step(Input::Due, cx));
            }
            let vipas = self.beats.vipas(now, self.schedule.owned(), &self.settings.timing);
            self.beat(now, &vipas, out);
        }
        if self.stopping && !self.stopped && self.schedule.all_at_rest() {
            self.stopped = true;
            out.push(Output::Stopped);
        }
    }

    fn owns_any(&self) -> bool {
        !self.schedule.owned().is_empty()
    }

    /// Sends one beat for these VIPAs to every node whose acknowledgement or watch matters.
    fn beat(&mut self, now: Moment, vipas: &BTreeSet<IpAddr>, out: &mut Outbox) {
        let owned: Vec<_> = vipas.iter().filter_map(|vipa| self.vipas.get(vipa)?.owned()).collect();
        let hearers: Vec<NodeName> = self
            .peers
            .iter()
            .filter(|(name, peer)| peer.role == Role::Router || self.settings.electors().contains(name))
            .map(|(name, _)| name.clone())
            .collect();
        for beat in self.beats.next(now, &owned, &self.settings.timing) {
            for to in &hearers {
                out.push(Output::Send { to: to.clone(), message: Message::Beat(beat.clone()) });
            }
            if self.is_voter() {
                self.local.push_back(Message::Beat(beat));
            }
        }
    }

    fn connected(&mut self, now: Moment, peer: NodeName, hello: &Hello, out: &mut Outbox) {
        if self.peers.contains_key(&peer) {
            self.disconnected(now, &peer, out);
        }
        if let Some(by) = self.same_target(&peer, &hello.role) {
            return out.push(Output::Note(Note::Refused { peer, mismatch: Mismatch::Target { by } }));
        }
        let Settings { cluster, key, me, voters, .. } = &self.settings;
        let others = match self.membership.meet(now, ((cluster, key), me, voters), &peer, hello) {
            Ok(others) => others,
            Err(mismatch) => return out.push(Output::Note(Note::Refused { peer, mismatch })),
        };
        out.push(Output::Note(Note::Linked { peer: peer.clone() }));
        out.extend(others.map(|voters| Output::Note(Note::OtherVoters { peer: peer.clone(), voters })));
        let role = hello.role.clone();
        self.peers.insert(peer.clone(), Peer { role: role.clone(), incarnation: hello.incarnation, unfit: None });
        // The peer must have these before it receives anything about a VIPA.
        self.tell_decisions(now, &peer, out);
        if let (Role::Router, Some(_)) = (&role, &self.unfit) {
            let unfit = self.unfit.clone();
            self.send(now, &peer, Message::SelfCheckReport(SelfCheckReport { unfit }), out);
        }
        self.each_vipa(now, out, |vipa, cx| vipa.linked(&peer, &role, cx));
    }

    fn disconnected(&mut self, now: Moment, peer: &NodeName, out: &mut Outbox) {
        self.membership.part_from(peer);
        if let Some(Peer { role, .. }) = self.peers.remove(peer) {
            if let Role::Target { address: target } = role {
                out.push(Output::Load { target, load: None });
                out.push(Output::LinkAddress { target, mac: None });
            }
            out.push(Output::Note(Note::Unlinked { peer: peer.clone() }));
            self.orders.unlinked(peer);
            self.orders.forget_hearsay(peer);
            self.each_vipa(now, out, |vipa, cx| vipa.unlinked(peer, cx));
        }
    }

    fn receive(&mut self, now: Moment, from: &NodeName, message: Message, out: &mut Outbox) {
        let permission = self.permits(now, from, &message, out);
        if permission == Permission::Nothing {
            return;
        }
        match message {
            // The shell answers questions: it has the configuration, and asks by itself.
            Message::Hello(_)
            | Message::Voters(_)
            | Message::QueryRequest(_)
            | Message::QueryReply(_)
            | Message::Associate(_)
            | Message::Release(_) => {}
            Message::Beat(beat) if permission == Permission::Whole => self.take_beat(now, from, &beat, Vec::new(), out),
            Message::Beat(beat) => {
                let (beat, barred) = self.split_beat(from, &beat);
                self.take_beat(now, from, &beat, barred, out);
            }
            Message::BeatAck(ack) => self.acknowledged(now, from, &ack, out),
            Message::Claims(Claims { claims }) => self.asked_for_votes(now, from, &claims, out),
            Message::Votes(Votes { votes }) => {
                for vote in votes {
                    let from = from.clone();
                    let (vipa, input) = match vote {
                        Vote::Grant(Grant { vipa, epoch, ballot }) => (vipa, Input::Granted { from, epoch, ballot }),
                        Vote::Refuse(refuse) => (refuse.vipa, Input::Refused { from, refuse }),
                    };
                    self.input(now, vipa, input, out);
                }
            }
            Message::Distribution(distribution) => self.distributed(now, from, distribution, out),
            Message::Listeners(listeners) => {
                self.with_vipa(now, listeners.vipa, out, |vipa, cx| vipa.listening(from, listeners, cx));
            }
            Message::Connections(connections) => {
                self.with_vipa(now, connections.vipa, out, |vipa, cx| vipa.reported(from, connections, cx));
            }
            Message::Yield(asked) => {
                let input = Input::Asked { by: from.clone(), epoch: asked.epoch, follows: asked.follows };
                self.input(now, asked.vipa, input, out);
            }
            Message::TableReplica(mirror) => {
                if self.vipas.contains_key(&mirror.vipa) {
                    out.push(Output::TableReplica { from: from.clone(), mirror });
                }
            }
            Message::Load(load) => {
                let role = self.peers.get(from).map(|peer| &peer.role);
                if let Some(&Role::Target { address: target }) = role
                    && load.is_bounded()
                {
                    out.push(Output::Load { target, load: Some(load) });
                }
            }
            Message::LinkAddress(LinkAddress { mac }) => {
                if let Some(&Role::Target { address: target }) = self.peers.get(from).map(|peer| &peer.role) {
                    out.push(Output::LinkAddress { target, mac });
                }
            }
            Message::YieldRefused(refusal) => {
                self.with_vipa(now, refusal.vipa, out, |vipa, cx| vipa.refused_takeback(from, refusal, cx));
            }
            Message::TakebackRequest(TakebackRequest { vipa }) => {
                for vipa in self.together_with(vipa) {
                    self.with_vipa(now, vipa, out, |vipa, cx| vipa.take_back_now(cx));
                }
            }
            Message::SelfCheckReport(SelfCheckReport { unfit }) => {
                if let Some(peer) = self.peers.get_mut(from) {
                    peer.unfit.clone_from(&unfit);
                    out.push(Output::Note(Note::Eligibility { router: from.clone(), unfit }));
                    self.each_vipa(now, out, |vipa, cx| vipa.step(Input::Reordered, cx));
                }
            }
            Message::Decisions(Decisions { decisions }) => self.heard_decisions(now, from, decisions, out),
            Message::DecisionAck(DecisionAck { kept }) => self.orders.kept(from, &kept),
            Message::Table(Table { vipa, epoch, entries, part }) => {
                self.with_vipa(now, vipa, out, |vipa, cx| vipa.table(from, epoch, entries, part, cx));
            }
        }
    }

    /// `barred`: VIPAs that the beat named beside these, and may not.
    fn take_beat(&mut self, now: Moment, from: &NodeName, beat: &Beat, barred: Vec<Superseded>, out: &mut Outbox) {
        if self.is_voter() && self.asks_with(from).is_some() {
            let mut ack = self.voter.beat(now, from, beat);
            ack.superseded.extend(barred);
            self.send(now, from, Message::BeatAck(ack), out);
        }
        if *from != self.settings.me {
            for owned in &beat.owned {
                let input = Input::Beat {
                    from: from.clone(),
                    epoch: owned.epoch,
                    yielding_to: owned.yielding_to.clone(),
                    sequence: beat.sequence,
                };
                self.input(now, owned.vipa, input, out);
            }
        }
    }

    /// The voters whose votes count here.
    #[must_use]
    pub fn voters(&self) -> &Voters {
        &self.settings.voters
    }

    /// The linked nodes that go by other voters, and their lists.
    #[must_use]
    pub fn other_voters(&self) -> Vec<(NodeName, Voters)> {
        self.membership.others(&self.settings.voters, self.peers.keys())
    }

    /// Whether these voters may count here from now on.
    pub fn may_go_by(&self, now: Moment, next: &Voters) -> Result<(), Objection> {
        let Settings { me, voters, timing, .. } = &self.settings;
        self.membership.judge(now, timing.lease, (me, voters), next, self.peers.keys())
    }

    fn go_by(&mut self, now: Moment, voters: &Voters, out: &mut Outbox) {
        if *voters == self.settings.voters {
            return;
        }
        let was_voter = self.is_voter();
        self.settings.voters = voters.clone();
        let ignored_peers = self.membership.take_up(now, (&self.settings.me, voters));
        if self.is_voter() && !was_voter {
            self.voter.keep_silent(now);
        }
        out.push(Output::Note(Note::Voters { voters: voters.clone() }));
        for to in self.peers.keys().chain(ignored_peers.keys()).cloned() {
            out.push(Output::Send { to, message: Message::Voters(voters.clone()) });
        }
        self.each_vipa(now, out, |vipa, cx| vipa.voters_changed(cx));
        for (peer, hello) in ignored_peers {
            self.connected(now, peer, &hello, out);
        }
    }

    /// Handles a node's report that it goes by other voters from now on.
    fn handle_voters(&mut self, now: Moment, peer: &NodeName, voters: Voters, out: &mut Outbox) {
        if !self.peers.contains_key(peer) && !self.membership.has_stranger(peer) {
            return;
        }
        match self.membership.heard(now, (&self.settings.me, &self.settings.voters), peer, voters) {
            ListChange::Introduced(hello) => self.connected(now, peer.clone(), &hello, out),
            ListChange::Others(voters) => out.push(Output::Note(Note::OtherVoters { peer: peer.clone(), voters })),
            ListChange::Nothing => {}
        }
    }

    fn acknowledged(&mut self, now: Moment, from: &NodeName, ack: &BeatAck, out: &mut Outbox) {
        let Some(sent) = self.beats.acknowledged(ack.sequence).cloned() else { return };
        for (vipa, epoch) in sent.owned {
            let input = match ack.superseded.iter().find(|superseded| superseded.vipa == vipa) {
                Some(by) => {
                    Input::Superseded { voter: from.clone(), mine: epoch, epoch: by.epoch, holder: by.holder.clone() }
                }
                None => Input::Acknowledged { voter: from.clone(), epoch, sent: sent.at },
            };
            self.input(now, vipa, input, out);
        }
    }

    fn distributed(&mut self, now: Moment, from: &NodeName, distribution: Distribution, out: &mut Outbox) {
        self.with_vipa(now, distribution.vipa, out, |vipa, cx| vipa.distributed(from, distribution, cx));
    }

    fn send(&mut self, now: Moment, to: &NodeName, message: Message, out: &mut Outbox) {
        self.context(now, out).2.send(to, message);
    }

    fn input(&mut self, now: Moment, vipa: IpAddr, input: Input, out: &mut Outbox) {
        self.with_vipa(now, vipa, out, |vipa, cx| vipa.step(input, cx));
    }

    /// Ignores a VIPA for which this router is not configured.
    fn with_vipa(
        &mut self,
        now: Moment,
        vipa: IpAddr,
        out: &mut Outbox,
        act: impl FnOnce(&mut Vipa, &mut Context<'_>),
    ) {
        let (vipas, schedule, mut cx) = self.context(now, out);
        if let Some(vipa) = vipas.get_mut(&vipa) {
            act(vipa, &mut cx);
            schedule.update(vipa, &cx.overview());
        }
    }

    fn each_owned(&mut self, now: Moment, out: &mut Outbox, mut act: impl FnMut(&mut Vipa, &mut Context<'_>)) {
        let (vipas, schedule, mut cx) = self.context(now, out);
        for vipa in vipas.values_mut().filter(|vipa| vipa.ownership().is_some()) {
            act(vipa, &mut cx);
            schedule.update(vipa, &cx.overview());
        }
    }

    /// For events that concern every VIPA: also whenever something that deadlines depend on has changed.
    fn each_vipa(&mut self, now: Moment, out: &mut Outbox, mut act: impl FnMut(&mut Vipa, &mut Context<'_>)) {
        let (vipas, schedule, mut cx) = self.context(now, out);
        for vipa in vipas.values_mut() {
            act(vipa, &mut cx);
            schedule.update(vipa, &cx.overview());
        }
    }

    fn context<'a>(
        &'a mut self,
        now: Moment,
        out: &'a mut Outbox,
    ) -> (&'a mut BTreeMap<IpAddr, Vipa>, &'a mut Schedule, Context<'a>) {
        let Self {
            settings, peers, vipas, schedule, beats, local, ballots, stopping, decision_log, groups, unfit, ..
        } = self;
        let (unfit, stopping) = (unfit.is_some(), *stopping);
        (
            vipas,
            schedule,
            Context { now, settings, peers, decision_log, groups, unfit, stopping, out, local, ballots, beats },
        )
    }
}

#[cfg(test)]
mod tests;
