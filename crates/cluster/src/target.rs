//! A target's state: what it holds, which routers it reports to, and its vote.
//!
//! A router's request is answered from the kernel's state of that moment: an `Associate` leads to `Output::Look`, and
//! is answered only when the shell has fed what it saw and then `Event::Looked`. From then on every change is sent at
//! once, to the owner and to its backups alike.

mod permission;
mod serving;
mod shell;
mod voters;

use std::{collections::BTreeMap, fmt, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};
use vipa_model::{
    Connection, ConnectionState, Epoch, Forwarding, Incarnation, Mac, Moment, NodeName, PortRange, Protocol,
    ServicePath, Voters, listed,
};
use vipa_protocol::{
    Associate, Ballot, Claim, Claims, Decisions, Distribution, Hello, KeyDigest, LinkAddress, Load, Message,
    MessageKind, Position, QueryReply, QueryRequest, Question, Record, Refusal, Refuse, Release, Reply, Role, Standing,
    VipaSummary, Vote, message::DECISIONS_PART,
};

use self::{serving::Serving, shell::Shell};
use crate::{
    authority::{Denial, DenialCounts, Permission, owner, split_beat},
    ballots::Ballots,
    decision_log::DecisionLog,
    hello::Mismatch,
    log::{KEPT_RECORDS, Live},
    membership::Membership,
    voter::{Claimant, StoredVote, Verdict, Voter},
};

/// VIPAs that a target follows; any more are noted and not followed.
const MAX_VIPAS: usize = 4096;
/// Addresses of one router that tunnels are accepted from; more ports than that no router has.
const MAX_ADDRESSES: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub cluster: String,
    /// Of `cluster.key`, which every node must have.
    pub key: KeyDigest,
    pub me: NodeName,
    /// The address to which routers send this target's packets.
    pub address: IpAddr,
    pub incarnation: Incarnation,
    pub voters: Voters,
    /// The same on every node.
    pub lease: Duration,
    /// Changes that each connection log keeps; `log::KEPT_RECORDS` unless there is a reason for another number.
    pub kept_records: usize,
}

impl Settings {
    #[must_use]
    pub fn kept_records_by_default() -> usize {
        KEPT_RECORDS
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A link is up; for a link that is up already: it was replaced by a new one.
    Connected {
        peer: NodeName,
        hello: Hello,
    },
    Disconnected {
        peer: NodeName,
    },
    Received {
        peer: NodeName,
        message: Message,
    },
    /// The votes of this token, and of every earlier one, are on the disk.
    VotesStored {
        token: u64,
    },
    /// The kernel holds exactly these connections to the VIPA.
    Holds {
        vipa: IpAddr,
        connections: Vec<(Connection, ConnectionState)>,
    },
    /// Single changes, seen without a whole look.
    Changed {
        vipa: IpAddr,
        records: Vec<Record>,
    },
    /// Every port on which a socket bound to the VIPA or to any address listens; ports of no service do no harm.
    Listening {
        vipa: IpAddr,
        listening: Vec<(Protocol, u16)>,
    },
    /// The results of a look that began after `Output::Look` of this token (or an earlier one) have been fed, for every
    /// watched VIPA.
    Looked {
        token: u64,
    },
    /// Other voters count from now on: `Target::may_go_by` allows them, and they are on the disk.
    Voters {
        voters: Voters,
    },
    /// The load of this host, about once a second and whenever it changes where new connections go.
    Fares {
        load: Load,
    },
    /// The Ethernet address of the interface that holds this target's address; `None`: no such interface does. Fed when
    /// it changes.
    LinkAddress {
        mac: Option<Mac>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    Send {
        to: NodeName,
        message: Message,
    },
    /// This vote waits for the disk. Write `Target::votes_to_store`, now or together with later ones, and feed
    /// `VotesStored` with the token that comes with it. What cannot be written is not confirmed.
    StoreVote {
        token: u64,
        vote: StoredVote,
    },
    /// Look at the kernel now: feed `Holds` and `Listening` of every watched VIPA, then `Looked`. One look begun after
    /// several of these may answer them all with the last token.
    Look {
        token: u64,
    },
    /// Exactly these VIPAs are to be on this host.
    Serve {
        vipas: Vec<IpAddr>,
    },
    /// Exactly the packets that come in tunnels from these routers' addresses for these VIPAs are to be unwrapped.
    Unwrap {
        vipas: Vec<IpAddr>,
        routers: Vec<IpAddr>,
    },
    /// Exactly these VIPAs are to be observed, whether on this host or not.
    Watch {
        vipas: Vec<Watched>,
    },
    Note(Note),
}

/// Everything that one event led to, in order.
pub type Outbox = Vec<Output>;

/// A VIPA to observe, and the ports of it that matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Watched {
    pub vipa: IpAddr,
    pub services: Vec<(Protocol, PortRange)>,
    /// Services whose connections have this target's own address.
    pub translated: Vec<Translated>,
}

/// A service behind `nat`: its connections are known here under this address and these ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Translated {
    pub address: IpAddr,
    pub protocol: Protocol,
    pub ports: PortRange,
    /// The port on the VIPA; `None`: the same.
    pub vipa_port: Option<u16>,
}

impl Translated {
    /// `address`: this target's. `None`: the path does not translate.
    pub(crate) fn of(service: &ServicePath, address: IpAddr) -> Option<Self> {
        let ServicePath { protocol, ports, path } = *service;
        let (ports, vipa_port) = match path.target_port {
            Some(port) => (PortRange::one(port), Some(ports.first)),
            None => (ports, None),
        };
        (path.forwarding == Forwarding::Nat).then_some(Self { address, protocol, ports, vipa_port })
    }

    /// The port on the VIPA of a socket here; `None`: it is none of the service's.
    #[must_use]
    pub fn vipa_port(&self, protocol: Protocol, address: IpAddr, port: u16) -> Option<u16> {
        let ours = self.protocol == protocol && self.address == address && self.ports.contains(port);
        ours.then(|| self.vipa_port.unwrap_or(port))
    }

    /// The port here of a connection to this port of the VIPA.
    #[must_use]
    pub fn port_here(&self, protocol: Protocol, vipa_port: u16) -> Option<u16> {
        match self.vipa_port {
            _ if self.protocol != protocol => None,
            Some(port) => (port == vipa_port).then_some(self.ports.first),
            None => self.ports.contains(vipa_port).then_some(vipa_port),
        }
    }
}

/// Events that an operator may want to read in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    Linked {
        peer: NodeName,
    },
    Unlinked {
        peer: NodeName,
    },
    Refused {
        peer: NodeName,
        mismatch: Mismatch,
    },
    Associated {
        vipa: IpAddr,
        router: NodeName,
        epoch: Epoch,
        standing: Standing,
    },
    /// An owner that is superseded was informed.
    OldOwner {
        vipa: IpAddr,
        router: NodeName,
        epoch: Epoch,
        highest: Epoch,
    },
    TooManyVipas {
        vipa: IpAddr,
    },
    /// A message that its sender may not send, or with impossible numbers; one note of a node and kind in a minute.
    Denied {
        peer: NodeName,
        kind: MessageKind,
        denial: Denial,
    },
    /// The voters whose votes count here from now on.
    Voters {
        voters: Voters,
    },
    /// A peer's list of voters, which differs from this node's.
    OtherVoters {
        peer: NodeName,
        voters: Voters,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linked { peer } => write!(f, "{peer}: linked"),
            Self::Unlinked { peer } => write!(f, "{peer}: link lost"),
            Self::Refused { peer, mismatch } => write!(f, "{peer}: not listened to, because {mismatch}"),
            Self::Associated { vipa, router, epoch, standing: Standing::Owner } => {
                write!(f, "{vipa}: {router} owns epoch {epoch}; reporting to it")
            }
            Self::Associated { vipa, router, epoch, standing: Standing::Backup } => {
                write!(f, "{vipa}: {router} is a backup in epoch {epoch}; reporting to it")
            }
            Self::OldOwner { vipa, router, epoch, highest } => {
                write!(f, "{vipa}: {router} believes to own epoch {epoch}, but {highest} is owned already")
            }
            Self::Voters { voters: Voters { version, names } } => {
                write!(f, "voters are {} from now on, version {version}", listed(names))
            }
            Self::OtherVoters { peer, voters: Voters { version, names } } => {
                write!(f, "{peer}: its voters are {}, version {version}, and not those of this node", listed(names))
            }
            Self::Denied { peer, kind, denial } => {
                write!(f, "{peer}: a message of the kind {kind} is not listened to, because {denial}")
            }
            Self::TooManyVipas { vipa } => write!(f, "{vipa}: not followed, because {MAX_VIPAS} VIPAs are already"),
        }
    }
}

/// A linked node, as it greeted.
#[derive(Clone, Debug)]
struct Peer {
    role: Role,
    incarnation: Incarnation,
}

/// The cluster as one target sees it.
#[derive(Clone, Debug)]
pub struct Target {
    settings: Settings,
    peers: BTreeMap<NodeName, Peer>,
    denied: DenialCounts,
    membership: Membership,
    /// It counts when this target is one of the voters.
    voter: Voter,
    ballots: Ballots,
    vipas: BTreeMap<IpAddr, Serving>,
    /// The addresses that each router's tunnels come from. Kept when the link ends: packets of a cut-off router are
    /// still to be unwrapped.
    tunnels: BTreeMap<NodeName, Vec<IpAddr>>,
    /// Operators' decisions, stored for routers whose disks have lost them or that were away.
    decision_log: DecisionLog,
    looks: u64,
    /// How far the logs of forgotten VIPAs have come.
    logged: u64,
    /// What the shell was given to serve, unwrap and watch.
    shell: Shell,
    /// As it was last sent to the routers.
    load: Option<Load>,
    link_address: LinkAddress,
}

impl Target {
    /// `votes` as the disk has them; they matter only when this target is a voter.
    #[must_use]
    pub fn new(settings: Settings, votes: Vec<StoredVote>, now: Moment) -> Self {
        let voter = Voter::new(settings.lease, votes, now);
        Self {
            settings,
            peers: BTreeMap::new(),
            denied: DenialCounts::default(),
            membership: Membership::default(),
            voter,
            ballots: Ballots::default(),
            vipas: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            decision_log: DecisionLog::default(),
            looks: 0,
            logged: 0,
            shell: Shell::default(),
            load: None,
            link_address: LinkAddress { mac: None },
        }
    }

    /// The first message of this target on every link.
    #[must_use]
    pub fn hello(&self) -> Hello {
        Hello {
            version: vipa_protocol::VERSION,
            cluster: self.settings.cluster.clone(),
            key: self.settings.key,
            node: self.settings.me.clone(),
            role: Role::Target { address: self.settings.address },
            addresses: Vec::new(),
            incarnation: self.settings.incarnation,
            voters: self.settings.voters.clone(),
        }
    }

    /// Feeds one event. Never blocks; what is to be done is left in `out`, in the order in which it is to be done.
    pub fn handle(&mut self, now: Moment, event: Event, out: &mut Outbox) {
        self.take(now, event, out);
        self.tell(out);
    }

    /// As [`handle`](Self::handle), but what is to be served, unwrapped, watched and looked at comes with the next
    /// [`tell`](Self::tell): once for all events that a shell has taken by then.
    pub fn take(&mut self, now: Moment, event: Event, out: &mut Outbox) {
        let touched = touched(&event);
        let of_links = matches!(
            event,
            Event::Connected { .. }
                | Event::Disconnected { .. }
                | Event::Voters { .. }
                | Event::Received { message: Message::Voters(_), .. }
        );
        match event {
            Event::Connected { peer, hello } => self.connected(now, peer, &hello, out),
            Event::Disconnected { peer } => self.disconnected(&peer, out),
            Event::Received { peer, message: Message::Voters(voters) } => self.handle_voters(now, &peer, voters, out),
            Event::Voters { voters } => self.go_by(now, &voters, out),
            Event::Received { peer, message } => {
                let permission = self.permits(now, &peer, &message, out);
                if permission != Permission::Nothing {
                    self.receive(now, &peer, message, permission, out);
                }
            }
            Event::VotesStored { token } => {
                for (Claimant { router: to, incarnation }, grant) in self.voter.stored(token) {
                    if self.peers.get(&to).is_some_and(|peer| peer.incarnation == incarnation) {
                        self.ballots.vote(&to, Vote::Grant(grant));
                    }
                }
            }
            Event::Holds { vipa, connections } => self.at(vipa, |serving| serving.holds(connections, out)),
            Event::Changed { vipa, records } => self.at(vipa, |serving| serving.changed(records, out)),
            Event::Listening { vipa, listening } => self.at(vipa, |serving| serving.listening(listening, out)),
            Event::Looked { token } => self.vipas.values_mut().for_each(|serving| serving.looked(token, out)),
            Event::Fares { load } => {
                for to in self.peers.keys() {
                    out.push(Output::Send { to: to.clone(), message: Message::Load(load.clone()) });
                }
                self.load = Some(load);
            }
            Event::LinkAddress { mac } => {
                self.link_address = LinkAddress { mac };
                for to in self.peers.keys() {
                    out.push(Output::Send { to: to.clone(), message: Message::LinkAddress(self.link_address) });
                }
            }
        }
        for (to, message) in self.ballots.take() {
            out.push(Output::Send { to, message });
        }
        self.forget(touched);
        if let Some(vipa) = touched {
            self.shell.touch(vipa);
        }
        if of_links {
            self.shell.touch_all();
        }
    }

    /// Drops the VIPA when no node has any business with it any more.
    fn forget(&mut self, vipa: Option<IpAddr>) {
        let Some(vipa) = vipa else { return };
        if self.vipas.get(&vipa).is_some_and(Serving::is_forgotten)
            && let Some(serving) = self.vipas.remove(&vipa)
        {
            self.logged = self.logged.max(serving.log().position().sequence);
        }
    }

    /// The connections held, by VIPA.
    #[must_use]
    pub fn held(&self) -> BTreeMap<IpAddr, &Live> {
        self.vipas.iter().map(|(vipa, serving)| (*vipa, serving.log().live())).collect()
    }

    /// The routers that get reports and the standing of each, by VIPA.
    #[must_use]
    pub fn associations(&self) -> BTreeMap<IpAddr, Vec<(NodeName, Standing, Epoch)>> {
        self.vipas.iter().map(|(vipa, serving)| (*vipa, serving.associations())).collect()
    }

    /// A summary of each VIPA.
    #[must_use]
    pub fn summaries(&self) -> Vec<VipaSummary> {
        self.vipas.values().map(Serving::summary).collect()
    }

    #[must_use]
    pub fn is_linked(&self, peer: &NodeName) -> bool {
        self.peers.contains_key(peer)
    }

    fn at(&mut self, vipa: IpAddr, act: impl FnOnce(&mut Serving)) {
        if let Some(serving) = self.vipas.get_mut(&vipa) {
            act(serving);
        }
    }

    fn connected(&mut self, now: Moment, peer: NodeName, hello: &Hello, out: &mut Outbox) {
        if self.peers.contains_key(&peer) {
            self.disconnected(&peer, out);
        }
        let Settings { cluster, key, me, voters, .. } = &self.settings;
        let others = match self.membership.meet(now, ((cluster, key), me, voters), &peer, hello) {
            Ok(others) => others,
            Err(mismatch) => return out.push(Output::Note(Note::Refused { peer, mismatch })),
        };
        out.push(Output::Note(Note::Linked { peer: peer.clone() }));
        out.extend(others.map(|voters| Output::Note(Note::OtherVoters { peer: peer.clone(), voters })));
        if let Some(load) = &self.load {
            out.push(Output::Send { to: peer.clone(), message: Message::Load(load.clone()) });
        }
        if self.link_address.mac.is_some() {
            out.push(Output::Send { to: peer.clone(), message: Message::LinkAddress(self.link_address) });
        }
        if hello.role == Role::Router {
            let addresses = hello.addresses.iter().copied().take(MAX_ADDRESSES).collect();
            self.tunnels.insert(peer.clone(), addresses);
        }
        for decisions in self.decision_log.all().chunks(DECISIONS_PART) {
            let message = Message::Decisions(Decisions { decisions: decisions.to_vec() });
            out.push(Output::Send { to: peer.clone(), message });
        }
        self.peers.insert(peer, Peer { role: hello.role.clone(), incarnation: hello.incarnation });
    }

    fn disconnected(&mut self, peer: &NodeName, out: &mut Outbox) {
        self.membership.part_from(peer);
        if self.peers.remove(peer).is_some() {
            out.push(Output::Note(Note::Unlinked { peer: peer.clone() }));
            self.vipas.values_mut().for_each(|serving| serving.part_from(peer));
        }
    }

    fn receive(&mut self, now: Moment, from: &NodeName, message: Message, permission: Permission, out: &mut Outbox) {
        match message {
            Message::Beat(beat) => {
                let answers = self.is_voter() && self.membership.answered(&self.settings.voters, from).is_some();
                if let Some(sender) = self.sender(from).filter(|_| answers) {
                    let (beat, barred) = match permission {
                        Permission::Whole => (beat, Vec::new()),
                        _ => split_beat(&sender, &beat, self),
                    };
                    let mut ack = self.voter.beat(now, from, &beat);
                    ack.superseded.extend(barred);
                    out.push(Output::Send { to: from.clone(), message: Message::BeatAck(ack) });
                }
            }
            Message::Claims(Claims { claims }) => self.asked_for_votes(now, from, &claims, out),
            Message::Distribution(distribution) => self.distributed(from, distribution, out),
            Message::Associate(associate) => self.associate(from, &associate, out),
            Message::Release(Release { vipa, epoch: _ }) => self.at(vipa, |serving| serving.released(from, out)),
            Message::QueryRequest(QueryRequest { token, question }) => {
                let reply = self.reply(question);
                out.push(Output::Send { to: from.clone(), message: Message::QueryReply(QueryReply { token, reply }) });
            }
            Message::Decisions(Decisions { decisions }) => {
                for decision in decisions {
                    self.decision_log.merge(decision);
                }
            }
            Message::Hello(_)
            | Message::Voters(_)
            | Message::QueryReply(_)
            | Message::YieldRefused(_)
            | Message::TakebackRequest(_)
            | Message::SelfCheckReport(_)
            | Message::DecisionAck(_)
            | Message::BeatAck(_)
            | Message::Votes(_)
            | Message::Listeners(_)
            | Message::Connections(_)
            | Message::Yield(_)
            | Message::Table(_)
            | Message::Load(_)
            | Message::LinkAddress(_)
            | Message::TableReplica(_) => {}
        }
    }

    fn is_voter(&self) -> bool {
        self.settings.voters.contain(&self.settings.me)
    }

    fn asked_for_votes(&mut self, now: Moment, from: &NodeName, claims: &[Claim], out: &mut Outbox) {
        let Some(peer) = self.peers.get(from).filter(|_| self.is_voter()) else { return };
        let epochs = self.membership.answered(&self.settings.voters, from).map(Voters::epochs);
        let claimant = Claimant { router: from.clone(), incarnation: peer.incarnation };
        let may_claim = |claim: &&Claim| {
            self.sender(from).is_some_and(|sender| owner(&sender, claim.vipa, claim.epoch, self).is_ok())
        };
        let claims: Vec<&Claim> = claims.iter().filter(may_claim).collect();
        for claim in claims {
            match self.voter.answer(now, &claimant, epochs.as_ref(), claim) {
                Verdict::Reply(vote) => self.ballots.vote(from, vote),
                Verdict::Store { token, vote } => out.push(Output::StoreVote { token, vote }),
            }
        }
    }

    /// The contents of the file of votes, and the token that confirms them.
    #[must_use]
    pub fn votes_to_store(&self) -> (u64, Vec<StoredVote>) {
        self.voter.to_store()
    }

    /// Answers a question from the present state of the log.
    fn reply(&self, question: Question) -> Reply {
        match question {
            Question::Holds { vipa, buckets } => match self.vipas.get(&vipa) {
                Some(serving) => Reply::Holds(serving.log().holds(&buckets)),
                None => Reply::Unknown,
            },
            Question::Settings { .. } | Question::Events { .. } | Question::SettingsDigests => Reply::Unknown,
        }
    }

    fn distributed(&mut self, from: &NodeName, distribution: Distribution, out: &mut Outbox) {
        let me = self.settings.address;
        if let Some(serving) = self.serving(distribution.vipa, out) {
            serving.distributed(from, distribution, me, out);
        }
    }

    fn associate(&mut self, from: &NodeName, associate: &Associate, out: &mut Outbox) {
        let Associate { vipa, epoch, standing, seen } = *associate;
        let token = self.looks + 1;
        let Some(serving) = self.serving(vipa, out) else { return };
        let highest = serving.epoch();
        if standing == Standing::Owner && epoch < highest {
            out.push(Output::Note(Note::OldOwner { vipa, router: from.clone(), epoch, highest }));
            let ballot = Ballot::Real { round: 0 };
            let refuse = Refuse { vipa, epoch, ballot, reason: Refusal::Superseded, highest };
            self.ballots.vote(from, Vote::Refuse(refuse));
            return;
        }
        serving.associate(from, epoch, standing, seen, token);
        self.looks = token;
        out.push(Output::Note(Note::Associated { vipa, router: from.clone(), epoch, standing }));
        self.shell.touch(vipa);
        self.shell.look(token);
    }

    fn serving(&mut self, vipa: IpAddr, out: &mut Outbox) -> Option<&mut Serving> {
        if self.vipas.len() >= MAX_VIPAS && !self.vipas.contains_key(&vipa) {
            out.push(Output::Note(Note::TooManyVipas { vipa }));
            return None;
        }
        let Settings { incarnation, kept_records, .. } = self.settings;
        let logged = Position { incarnation, sequence: self.logged };
        Some(self.vipas.entry(vipa).or_insert_with(|| Serving::new(vipa, logged, kept_records)))
    }
}

/// The VIPA of which the shell may need something else after this event. Beats and votes, most of the messages, change
/// nothing of that, and looking at a thousand VIPAs for each of them would be most of an agent's work.
fn touched(event: &Event) -> Option<IpAddr> {
    match event {
        Event::Holds { vipa, .. } | Event::Changed { vipa, .. } | Event::Listening { vipa, .. } => Some(*vipa),
        Event::Received { message, .. } => match message {
            Message::Distribution(Distribution { vipa, .. })
            | Message::Associate(Associate { vipa, .. })
            | Message::Release(Release { vipa, .. }) => Some(*vipa),
            _ => None,
        },
        Event::Connected { .. }
        | Event::Disconnected { .. }
        | Event::VotesStored { .. }
        | Event::Voters { .. }
        | Event::Looked { .. }
        | Event::Fares { .. }
        | Event::LinkAddress { .. } => None,
    }
}

#[cfg(test)]
mod tests;
