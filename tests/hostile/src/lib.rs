//! Messages of every kind, with numbers and names that do harm where they are believed: what a hostile peer sends to simulated
//! nodes (`sim`) and to real ones (`lab`).

#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr};

use vipa_model::{
    Connection, ConnectionState, Delivery, EntryState, Epoch, Incarnation, Mac, NodeName, PortRange, Protocol, Rank,
    Service, ServicePath, TargetPath, Voters,
};
use vipa_protocol::{
    Associate, Ballot, Beat, BeatAck, Change, CheckResult, Claim, Claims, Connections, Copied, Decision, DecisionAck,
    Decisions, Digests, Distribution, Entry, Grant, Hello, Holds, Intent, LinkAddress, Listeners, Load, Matter,
    Message, MessageKind, Owned, Part, Position, QueryReply, QueryRequest, Question, Record, Refusal, Refuse, Release,
    Reply, Role, Round, Ruling, Run, SelfCheckReport, Stamp, Standing, Superseded, Table, TableReplica,
    TakebackRequest, Vote, Votes, Yield, YieldRefused, question::VipaSettings,
};

/// Entries of a list that may be longer than expected.
const MANY: usize = 300;

/// Numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Less than `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// One of the choices, of which there is at least one.
    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// At or near what is known, or at an end of what can be.
    fn number(&mut self, near: u64) -> u64 {
        let any = self.next();
        let ends = [0, 1, 1 << 32, (1 << 62) - 1, 1 << 62, u64::MAX - 1, u64::MAX, any];
        let close =
            [near, near.wrapping_add(1), near.wrapping_add(2), near.wrapping_sub(1), near.wrapping_add(1 << 20)];
        if any & 1 == 0 { *self.one_of(&ends) } else { *self.one_of(&close) }
    }

    fn list<T>(&mut self, make: impl Fn(&mut Self) -> T) -> Vec<T> {
        let length = *self.one_of(&[0, 1, 1, 3, MANY]);
        (0..length).map(|_| make(self)).collect()
    }
}

/// The names and addresses that messages are about.
#[derive(Clone, Debug)]
pub struct KnownCluster {
    pub vipas: Vec<IpAddr>,
    pub nodes: Vec<NodeName>,
    /// Their addresses.
    pub targets: Vec<IpAddr>,
    pub client: Ipv4Addr,
    pub port: u16,
    /// Of lists of voters that the peer says it goes by.
    pub voters_versions: Vec<u32>,
}

/// Makes the messages, from what the peer has learned: lies are worse near the truth.
#[derive(Clone, Debug)]
pub struct HostileMessages {
    cluster: KnownCluster,
    hello: Hello,
    epoch: u64,
    sequence: u64,
    token: u64,
    stamp: u64,
    services: Vec<Service>,
}

impl HostileMessages {
    #[must_use]
    pub fn new(cluster: KnownCluster, hello: Hello) -> Self {
        Self { cluster, hello, epoch: 1, sequence: 0, token: 0, stamp: 0, services: Vec::new() }
    }

    /// What the peer says of itself on the next link.
    pub fn greet(&mut self, hello: Hello) {
        self.hello = hello;
    }

    /// Takes in what an honest node has sent to the peer.
    pub fn learn(&mut self, message: &Message) {
        match message {
            Message::Beat(Beat { sequence, owned }) => {
                self.sequence = *sequence;
                owned.iter().for_each(|owned| self.epoch = self.epoch.max(owned.epoch.0));
            }
            Message::Associate(Associate { epoch, .. }) => self.epoch = self.epoch.max(epoch.0),
            Message::Distribution(Distribution { epoch, services, .. }) => {
                self.epoch = self.epoch.max(epoch.0);
                self.services.clone_from(services);
            }
            Message::QueryRequest(QueryRequest { token, .. }) => self.token = *token,
            Message::Decisions(Decisions { decisions }) => {
                decisions.iter().for_each(|decision| self.stamp = self.stamp.max(decision.stamp.count));
            }
            _ => {}
        }
    }

    fn is_router(&self) -> bool {
        self.hello.role == Role::Router
    }

    fn vipa(&self, random: &mut SplitMix64) -> IpAddr {
        match random.below(7) {
            0..=3 => *random.one_of(&self.cluster.vipas),
            4 => Ipv4Addr::new(10, 77, 0, 101).into(),
            5 => Ipv4Addr::UNSPECIFIED.into(),
            _ => Ipv4Addr::BROADCAST.into(),
        }
    }

    fn node(&self, random: &mut SplitMix64) -> NodeName {
        random.one_of(&self.cluster.nodes).clone()
    }

    fn target(&self, random: &mut SplitMix64) -> IpAddr {
        *random.one_of(&self.cluster.targets)
    }

    fn epoch(&self, random: &mut SplitMix64) -> Epoch {
        Epoch(random.number(self.epoch))
    }

    /// Of the cluster's client, which has connections at some of these ports; or of anybody.
    fn connection(&self, random: &mut SplitMix64) -> Connection {
        let ip = *random.one_of(&[self.cluster.client, Ipv4Addr::new(203, 0, 113, 4), Ipv4Addr::UNSPECIFIED]);
        let client = (ip, random.next() as u16).into();
        let protocol = *random.one_of(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp]);
        Connection { protocol, client, port: *random.one_of(&[self.cluster.port, self.cluster.port, 0, u16::MAX]) }
    }

    fn state(random: &mut SplitMix64) -> ConnectionState {
        *random.one_of(&[ConnectionState::HalfOpen, ConnectionState::Established, ConnectionState::Closing])
    }

    fn entry(&self, random: &mut SplitMix64) -> Entry {
        let states = [EntryState::HalfOpen, EntryState::Open, EntryState::Held, EntryState::Closing, EntryState::Udp];
        Entry { connection: self.connection(random), target: self.target(random), state: *random.one_of(&states) }
    }

    fn ballot(random: &mut SplitMix64) -> Ballot {
        *random.one_of(&[Ballot::Trial, Ballot::Real { round: 0 }, Ballot::Real { round: u8::MAX }])
    }

    fn part(random: &mut SplitMix64) -> Part {
        *random.one_of(&[Part::Only, Part::First, Part::Middle, Part::Last])
    }

    fn standing(random: &mut SplitMix64) -> Standing {
        *random.one_of(&[Standing::Owner, Standing::Backup])
    }

    fn position(&self, random: &mut SplitMix64) -> Position {
        let own = self.hello.incarnation;
        let incarnation = *random.one_of(&[own, own, Incarnation(0), Incarnation(u64::MAX)]);
        Position { incarnation, sequence: random.number(self.sequence) }
    }

    fn path(&self, random: &mut SplitMix64) -> ServicePath {
        let ports = *random.one_of(&[PortRange { first: 0, last: u16::MAX }, PortRange::one(self.cluster.port)]);
        let path = Delivery::default().path_to(self.target(random));
        ServicePath { protocol: Protocol::Tcp, ports, path }
    }

    fn matter(&self, random: &mut SplitMix64) -> Matter {
        let (vipa, router, target) = (self.vipa(random), self.node(random), self.target(random));
        match random.below(5) {
            0 => Matter::Place { vipa },
            1 => Matter::Ownership { vipa, router },
            2 => Matter::Membership { node: router },
            3 => Matter::Target { target },
            _ => Matter::Service { vipa, protocol: Protocol::Tcp, port: self.cluster.port, target: Some(target) },
        }
    }

    fn ruling(&self, random: &mut SplitMix64) -> Ruling {
        match random.below(3) {
            0 => Ruling::AsConfigured,
            1 => Ruling::Withheld,
            _ => Ruling::At(self.node(random)),
        }
    }

    fn stamp(&self, random: &mut SplitMix64) -> Stamp {
        // A router's decisions count, as those of the operators who ask it: only what cannot be is an attack.
        let count = if self.is_router() { u64::MAX - random.next() % 1000 } else { random.number(self.stamp) };
        Stamp { count, by: self.node(random) }
    }

    /// The owner's, with these candidates.
    fn services(&self, random: &mut SplitMix64) -> Vec<Service> {
        let mut services = self.services.clone();
        services.iter_mut().for_each(|service| service.candidates = random.list(|random| self.target(random)));
        services
    }

    fn run(&self, random: &mut SplitMix64) -> Run {
        if random.below(2) == 0 {
            let change = |random: &mut SplitMix64| match random.below(3) {
                0 => Change::Closed,
                _ => Change::Opened(Self::state(random)),
            };
            let records = random.list(|random| Record { connection: self.connection(random), change: change(random) });
            return Run::Tail { after: random.number(0), records };
        }
        let connections = random.list(|random| (self.connection(random), Self::state(random)));
        Run::Snapshot { part: Self::part(random), connections }
    }

    fn connections(&self, random: &mut SplitMix64) -> Connections {
        let (run, mut upto) = (self.run(random), self.position(random));
        // One that follows from the run is believed.
        if let Run::Tail { after, records } = &run
            && random.below(2) == 0
        {
            upto = Position { incarnation: self.hello.incarnation, sequence: after.wrapping_add(records.len() as u64) };
        }
        let answers = Some(self.epoch(random)).filter(|epoch| epoch.0 % 2 == 0);
        Connections { vipa: self.vipa(random), run, upto, answers }
    }

    fn reply(&self, random: &mut SplitMix64) -> Reply {
        match random.below(3) {
            0 => Reply::Unknown,
            1 => {
                let connections = random.list(|random| self.connection(random));
                Reply::Holds(Holds { upto: self.position(random), digests: Digests::default(), connections })
            }
            _ => {
                let ranks = random.list(|random| (self.node(random), Rank(u8::MAX)));
                let others = random.list(|_| ("\x1b[2J".to_owned(), "x".repeat(1_000)));
                Reply::Settings(VipaSettings { ranks, services: Some(self.services(random)), others })
            }
        }
    }

    fn load(random: &mut SplitMix64) -> Load {
        let check = |random: &mut SplitMix64| CheckResult {
            name: "\x1b]0;x\x07".into(),
            port: Some(random.next() as u16),
            passing: random.below(2) == 0,
            detail: "y".repeat(random.below(2_000)),
        };
        Load {
            intent: *random.one_of(&[Intent::Serve, Intent::Drain]),
            headroom: random.next() as u8,
            checks: random.list(check),
            ..Load::unknown()
        }
    }

    fn vote(&self, random: &mut SplitMix64) -> Vote {
        let (vipa, epoch, ballot) = (self.vipa(random), self.epoch(random), Self::ballot(random));
        if random.below(2) == 0 {
            return Vote::Grant(Grant { vipa, epoch, ballot });
        }
        let reasons =
            [Refusal::OwnerAlive, Refusal::Granted, Refusal::Recovering, Refusal::Voters, Refusal::Superseded];
        let (reason, highest) = (*random.one_of(&reasons), self.epoch(random));
        Vote::Refuse(Refuse { vipa, epoch, ballot, reason, highest })
    }

    fn copied(&self, random: &mut SplitMix64) -> Copied {
        match random.below(6) {
            0 | 1 => return Copied::Wanted,
            2 => return Copied::Locate(random.list(|random| self.connection(random))),
            3 => return Copied::Located(random.list(|random| self.entry(random))),
            _ => {}
        }
        Copied::Round(Round {
            number: random.number(7),
            part: Self::part(random),
            whole: random.below(2) == 0,
            span_ms: *random.one_of(&[0, 100, u32::MAX]),
            opened: random.list(|random| self.entry(random)),
            closed: random.list(|random| self.connection(random)),
        })
    }

    /// A message of this kind.
    pub fn message(&self, kind: MessageKind, random: &mut SplitMix64) -> Message {
        let (vipa, epoch) = (self.vipa(random), self.epoch(random));
        match kind {
            MessageKind::Hello => Message::Hello(self.hello.clone()),
            MessageKind::QueryRequest => {
                let buckets = random.list(|random| random.next() as u16);
                let question =
                    if random.below(2) == 0 { Question::Holds { vipa, buckets } } else { Question::Settings { vipa } };
                Message::QueryRequest(QueryRequest { token: random.number(self.token), question })
            }
            MessageKind::QueryReply => {
                Message::QueryReply(QueryReply { token: random.number(self.token), reply: self.reply(random) })
            }
            MessageKind::Beat => {
                let yielding_to = Some(self.node(random)).filter(|_| random.below(2) == 0);
                Message::Beat(Beat {
                    sequence: random.number(self.sequence),
                    owned: vec![Owned { vipa, epoch, yielding_to }],
                })
            }
            MessageKind::BeatAck => {
                let superseded =
                    random.list(|random| Superseded { vipa, epoch: self.epoch(random), holder: self.node(random) });
                Message::BeatAck(BeatAck { sequence: random.number(self.sequence), superseded })
            }
            MessageKind::Claims => {
                let claim = |random: &mut SplitMix64| Claim {
                    vipa: self.vipa(random),
                    epoch: self.epoch(random),
                    ballot: Self::ballot(random),
                };
                Message::Claims(Claims { claims: random.list(claim) })
            }
            MessageKind::Votes => Message::Votes(Votes { votes: random.list(|random| self.vote(random)) }),
            MessageKind::Distribution => Message::Distribution(Distribution {
                vipa,
                epoch,
                sender: Self::standing(random),
                ranks: random.list(|random| (self.node(random), Rank(u8::MAX))),
                services: self.services(random),
                paths: random.list(|random| TargetPath { target: self.target(random), service: self.path(random) }),
            }),
            MessageKind::Associate => {
                let seen = Some(self.position(random)).filter(|_| random.below(2) == 0);
                Message::Associate(Associate { vipa, epoch, standing: Self::standing(random), seen })
            }
            MessageKind::Release => Message::Release(Release { vipa, epoch }),
            MessageKind::Listeners => Message::Listeners(Listeners {
                vipa,
                listening: random.list(|random| (Protocol::Tcp, *random.one_of(&[0, self.cluster.port, u16::MAX]))),
                paths: random.list(|random| self.path(random)),
            }),
            MessageKind::Connections => Message::Connections(self.connections(random)),
            MessageKind::Yield => {
                let follows = random.list(|random| (self.node(random), Incarnation(random.number(0))));
                Message::Yield(Yield { vipa, epoch, follows })
            }
            MessageKind::YieldRefused => {
                Message::YieldRefused(YieldRefused { vipa, epoch, missing: random.list(|random| self.node(random)) })
            }
            MessageKind::Table => {
                let entries = random.list(|random| self.entry(random));
                Message::Table(Table { vipa, epoch, entries, part: Self::part(random) })
            }
            MessageKind::Load => Message::Load(Self::load(random)),
            MessageKind::LinkAddress => {
                let mac = *random.one_of(&[
                    None,
                    Some(Mac::BROADCAST),
                    Some(Mac([0; 6])),
                    Some(Mac([1, 0, 0x5e, 0, 0, 1])),
                    Some(Mac([2, 9, 9, 9, 9, 9])),
                ]);
                Message::LinkAddress(LinkAddress { mac })
            }
            MessageKind::TableReplica => {
                Message::TableReplica(TableReplica { vipa, epoch, copied: self.copied(random) })
            }
            MessageKind::TakebackRequest => Message::TakebackRequest(TakebackRequest { vipa }),
            MessageKind::SelfCheckReport => {
                let unfit = Some("\x1b[31m it is not".repeat(random.below(50))).filter(|_| random.below(2) == 0);
                Message::SelfCheckReport(SelfCheckReport { unfit })
            }
            MessageKind::Decisions => {
                let decision = |random: &mut SplitMix64| Decision {
                    matter: self.matter(random),
                    ruling: self.ruling(random),
                    stamp: self.stamp(random),
                    given: None,
                };
                // An empty list is no attack either.
                Message::Decisions(Decisions { decisions: random.list(decision) })
            }
            MessageKind::DecisionAck => Message::DecisionAck(DecisionAck {
                kept: random.list(|random| (self.matter(random), self.stamp(random))),
            }),
            MessageKind::Voters => {
                let names = random.list(|random| self.node(random));
                Message::Voters(Voters::new(*random.one_of(&self.cluster.voters_versions), names))
            }
        }
    }
}
