//! A router's brain: its links, its vote, its beats, and one ownership machine per VIPA (`vipa`).

mod beats;
mod election;
mod io;
mod reports;
mod settings;
mod status;
mod tenure;
mod vipa;

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use vipa_model::{Incarnation, Moment, NodeName};
use vipa_protocol::{Beat, BeatAck, Distribution, Hello, Message, Role, Table};

use self::{
    beats::Beats,
    vipa::{Cue, Vipa},
};
pub use self::{
    io::{Event, Note, Outbox, Output},
    settings::{Settings, Takeback, Timing, VipaSettings},
    status::{PeerStatus, TargetStatus, VipaBrief, VipaStatus},
    vipa::State,
};
use crate::{
    hello,
    voter::{Claimant, StoredVote, Verdict, Voter},
};

/// The cluster as one router sees it, and what it does about it.
#[derive(Clone, Debug)]
pub struct Router {
    settings: Settings,
    peers: BTreeMap<NodeName, Peer>,
    /// This router's own vote, if it is one of the voters.
    voter: Option<Voter>,
    vipas: BTreeMap<IpAddr, Vipa>,
    beats: Beats,
    /// What this router has to say to itself.
    local: VecDeque<Message>,
    greeted: bool,
    stopping: bool,
    stopped: bool,
}

#[derive(Clone, Debug)]
struct Peer {
    role: Role,
    incarnation: Incarnation,
}

/// What a VIPA's machine may see and use of the router around it.
struct Context<'a> {
    now: Moment,
    settings: &'a Settings,
    peers: &'a BTreeMap<NodeName, Peer>,
    stopping: bool,
    out: &'a mut Outbox,
    local: &'a mut VecDeque<Message>,
    beats: &'a mut Beats,
}

impl Context<'_> {
    fn send(&mut self, to: &NodeName, message: Message) {
        if *to == self.settings.me {
            self.local.push_back(message);
        } else if self.peers.contains_key(to) {
            self.out.push(Output::Send { to: to.clone(), message });
        }
    }

    fn note(&mut self, note: Note) {
        self.out.push(Output::Note(note));
    }

    fn is_linked(&self, node: &NodeName) -> bool {
        self.peers.contains_key(node)
    }
}

impl Router {
    /// `votes` as the disk has them; they matter only when this router is a voter.
    #[must_use]
    pub fn new(mut settings: Settings, votes: Vec<StoredVote>, now: Moment) -> Self {
        settings.voters.sort();
        settings.voters.dedup();
        let is_voter = settings.voters.contains(&settings.me);
        let voter = is_voter.then(|| Voter::new(settings.timing.lease, votes, now));
        let vipas = settings.vipas.iter().map(|vipa| (vipa.address, Vipa::new(vipa.clone(), now))).collect();
        Self {
            settings,
            peers: BTreeMap::new(),
            voter,
            vipas,
            beats: Beats::default(),
            local: VecDeque::new(),
            greeted: false,
            stopping: false,
            stopped: false,
        }
    }

    /// What this router says first on every link.
    #[must_use]
    pub fn hello(&self) -> Hello {
        Hello {
            version: vipa_protocol::VERSION,
            cluster: self.settings.cluster.clone(),
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
        let mut earliest = self.owns_any().then(|| self.beats.due(&self.settings.timing));
        for vipa in self.vipas.values() {
            let due = vipa.deadline(&self.settings, &self.peers, self.stopping);
            earliest = earliest.into_iter().chain(due).min();
        }
        earliest
    }

    /// Feeds one event. Never blocks; whatever is to be done is left in `out`, in the order it is to be done.
    pub fn handle(&mut self, now: Moment, event: Event, out: &mut Outbox) {
        if !self.greeted {
            self.greeted = true;
            self.each_vipa(now, out, |vipa, cx| vipa.greet(cx));
        }
        match event {
            Event::Timeout => self.each_vipa(now, out, |vipa, cx| vipa.step(Cue::Due, cx)),
            Event::Connected { peer, hello } => self.connected(now, peer, &hello, out),
            Event::Disconnected { peer } => self.disconnected(now, &peer, out),
            Event::Received { peer, message } => {
                if self.peers.contains_key(&peer) {
                    self.receive(now, &peer, message, out);
                }
            }
            Event::VotesStored { token } => {
                let grants = self.voter.as_mut().map(|voter| voter.stored(token)).unwrap_or_default();
                for (to, grant) in grants {
                    self.send(now, &to, Message::Grant(grant), out);
                }
            }
            Event::Stop => {
                self.stopping = true;
                self.each_vipa(now, out, |vipa, cx| vipa.step(Cue::Stop, cx));
            }
        }
        self.settle(now, out);
    }

    /// Lets this router hear itself, and beats when a beat is due.
    fn settle(&mut self, now: Moment, out: &mut Outbox) {
        loop {
            while let Some(message) = self.local.pop_front() {
                let me = self.settings.me.clone();
                self.receive(now, &me, message, out);
            }
            if !(self.owns_any() && self.beats.due(&self.settings.timing) <= now) {
                break;
            }
            self.beat(now, out);
        }
        if self.stopping && !self.stopped && self.vipas.values().all(Vipa::is_at_rest) {
            self.stopped = true;
            out.push(Output::Stopped);
        }
    }

    fn owns_any(&self) -> bool {
        self.vipas.values().any(|vipa| vipa.owned().is_some())
    }

    /// One beat for all VIPAs, to everybody whose acknowledgement or watch matters.
    fn beat(&mut self, now: Moment, out: &mut Outbox) {
        let owned: Vec<_> = self.vipas.values().filter_map(Vipa::owned).collect();
        let hearers: Vec<NodeName> = self
            .peers
            .iter()
            .filter(|(name, peer)| peer.role == Role::Router || self.settings.voters.contains(name))
            .map(|(name, _)| name.clone())
            .collect();
        for beat in self.beats.next(now, &owned, &self.settings.timing) {
            for to in &hearers {
                out.push(Output::Send { to: to.clone(), message: Message::Beat(beat.clone()) });
            }
            if self.voter.is_some() {
                self.local.push_back(Message::Beat(beat));
            }
        }
    }

    fn connected(&mut self, now: Moment, peer: NodeName, hello: &Hello, out: &mut Outbox) {
        if self.peers.contains_key(&peer) {
            self.disconnected(now, &peer, out);
        }
        if let Err(mismatch) = hello::check(&self.settings.cluster, &self.settings.voters, &peer, hello) {
            out.push(Output::Note(Note::Refused { peer, mismatch }));
            return;
        }
        out.push(Output::Note(Note::Linked { peer: peer.clone() }));
        self.peers.insert(peer.clone(), Peer { role: hello.role.clone(), incarnation: hello.incarnation });
        self.each_vipa(now, out, |vipa, cx| vipa.linked(&peer, hello, cx));
    }

    fn disconnected(&mut self, now: Moment, peer: &NodeName, out: &mut Outbox) {
        if let Some(Peer { role, .. }) = self.peers.remove(peer) {
            if let Role::Target { address: target } = role {
                out.push(Output::Load { target, load: None });
            }
            out.push(Output::Note(Note::Unlinked { peer: peer.clone() }));
            self.each_vipa(now, out, |vipa, cx| vipa.unlinked(peer, cx));
        }
    }

    fn receive(&mut self, now: Moment, from: &NodeName, message: Message, out: &mut Outbox) {
        match message {
            // Questions are the shell's to answer: it has the configuration, and asks by itself.
            Message::Hello(_) | Message::Ask(_) | Message::Told(_) | Message::Associate(_) | Message::Release(_) => {}
            Message::Beat(beat) => self.hear(now, from, &beat, out),
            Message::BeatAck(ack) => self.acknowledged(now, from, &ack, out),
            Message::Claim(claim) => {
                let life = self.peers.get(from).map(|peer| peer.incarnation);
                let claimant =
                    Claimant { router: from.clone(), incarnation: life.unwrap_or(self.settings.incarnation) };
                let Some(voter) = &mut self.voter else { return };
                match voter.claim(now, &claimant, &claim) {
                    Verdict::Reply(reply) => self.send(now, from, reply, out),
                    Verdict::Store { token, votes } => out.push(Output::StoreVotes { token, votes }),
                }
            }
            Message::Grant(grant) => {
                if self.settings.voters.contains(from) {
                    let cue = Cue::Granted { from: from.clone(), epoch: grant.epoch, ballot: grant.ballot };
                    self.cue(now, grant.vipa, cue, out);
                }
            }
            Message::Refuse(refuse) => {
                self.cue(now, refuse.vipa, Cue::Refused { from: from.clone(), refuse }, out);
            }
            Message::Distribution(distribution) => self.distributed(now, from, distribution, out),
            Message::Listeners(listeners) => {
                self.with_vipa(now, listeners.vipa, out, |vipa, cx| vipa.listening(from, listeners.listening, cx));
            }
            Message::Connections(connections) => {
                self.with_vipa(now, connections.vipa, out, |vipa, cx| vipa.reported(from, connections, cx));
            }
            Message::Yield(asked) => {
                let cue = Cue::Asked { by: from.clone(), epoch: asked.epoch };
                self.cue(now, asked.vipa, cue, out);
            }
            Message::Mirror(mirror) => {
                if self.vipas.get(&mirror.vipa).is_some_and(|vipa| vipa.settings.rank(from).is_some()) {
                    out.push(Output::Mirror { from: from.clone(), mirror });
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
            Message::Table(Table { vipa, epoch, entries, part }) => {
                self.with_vipa(now, vipa, out, |vipa, cx| vipa.table(from, epoch, entries, part, cx));
            }
        }
    }

    fn hear(&mut self, now: Moment, from: &NodeName, beat: &Beat, out: &mut Outbox) {
        if let Some(voter) = &mut self.voter {
            let ack = voter.beat(now, from, beat);
            self.send(now, from, Message::BeatAck(ack), out);
        }
        if *from != self.settings.me {
            for owned in &beat.owned {
                let cue = Cue::Heard {
                    from: from.clone(),
                    epoch: owned.epoch,
                    yielding_to: owned.yielding_to.clone(),
                    sequence: beat.sequence,
                };
                self.cue(now, owned.vipa, cue, out);
            }
        }
    }

    fn acknowledged(&mut self, now: Moment, from: &NodeName, ack: &BeatAck, out: &mut Outbox) {
        if !self.settings.voters.contains(from) {
            return;
        }
        let Some(sent) = self.beats.acknowledged(ack.sequence).cloned() else { return };
        for (vipa, epoch) in sent.owned {
            let cue = match ack.superseded.iter().find(|superseded| superseded.vipa == vipa) {
                Some(by) => {
                    Cue::Superseded { voter: from.clone(), mine: epoch, epoch: by.epoch, holder: by.holder.clone() }
                }
                None => Cue::Acknowledged { voter: from.clone(), epoch, sent: sent.at },
            };
            self.cue(now, vipa, cue, out);
        }
    }

    fn distributed(&mut self, now: Moment, from: &NodeName, distribution: Distribution, out: &mut Outbox) {
        self.with_vipa(now, distribution.vipa, out, |vipa, cx| vipa.distributed(from, distribution, cx));
    }

    fn send(&mut self, now: Moment, to: &NodeName, message: Message, out: &mut Outbox) {
        self.context(now, out).1.send(to, message);
    }

    fn cue(&mut self, now: Moment, vipa: IpAddr, cue: Cue, out: &mut Outbox) {
        self.with_vipa(now, vipa, out, |vipa, cx| vipa.step(cue, cx));
    }

    /// A VIPA this router is not configured for is none of its business.
    fn with_vipa(
        &mut self,
        now: Moment,
        vipa: IpAddr,
        out: &mut Outbox,
        act: impl FnOnce(&mut Vipa, &mut Context<'_>),
    ) {
        let (vipas, mut cx) = self.context(now, out);
        if let Some(vipa) = vipas.get_mut(&vipa) {
            act(vipa, &mut cx);
        }
    }

    fn each_vipa(&mut self, now: Moment, out: &mut Outbox, mut act: impl FnMut(&mut Vipa, &mut Context<'_>)) {
        let (vipas, mut cx) = self.context(now, out);
        for vipa in vipas.values_mut() {
            act(vipa, &mut cx);
        }
    }

    fn context<'a>(&'a mut self, now: Moment, out: &'a mut Outbox) -> (&'a mut BTreeMap<IpAddr, Vipa>, Context<'a>) {
        let Self { settings, peers, vipas, beats, local, stopping, .. } = self;
        (vipas, Context { now, settings, peers, stopping: *stopping, out, local, beats })
    }
}

#[cfg(test)]
mod tests;
