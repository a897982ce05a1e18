//! The messages between nodes. TAKEOVER.md tells the story they belong to.
//!
//! Everything that speaks of an ownership carries its epoch; a lower one than the receiver has promised is refused
//! with the higher one named.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use vipa_model::{
    Connection, ConnectionState, EntryState, Epoch, Incarnation, Mac, NodeName, Protocol, Rank, Service, ServicePath,
    TargetPath, Voters,
};

use crate::{
    KeyDigest, QueryReply, QueryRequest,
    load::Load,
    order::{Decision, Matter, Stamp},
};

/// Version of this vocabulary; nodes of different versions refuse each other and say so.
pub const VERSION: u16 = 9;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    Hello(Hello),
    QueryRequest(QueryRequest),
    QueryReply(QueryReply),
    Beat(Beat),
    BeatAck(BeatAck),
    Claims(Claims),
    Votes(Votes),
    Distribution(Distribution),
    Associate(Associate),
    Release(Release),
    Listeners(Listeners),
    Connections(Connections),
    Yield(Yield),
    YieldRefused(YieldRefused),
    Table(Table),
    Load(Load),
    TableReplica(TableReplica),
    TakebackRequest(TakebackRequest),
    SelfCheckReport(SelfCheckReport),
    Decisions(Decisions),
    DecisionAck(DecisionAck),
    LinkAddress(LinkAddress),
    /// On a link that is up: whose votes the sender counts from now on.
    Voters(Voters),
}

/// First message in each direction of a new link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: u16,
    pub cluster: String,
    pub key: KeyDigest,
    pub node: NodeName,
    pub role: Role,
    /// A router's own on its ports: what it wraps for targets comes from these. Targets name none.
    pub addresses: Vec<IpAddr>,
    pub incarnation: Incarnation,
    /// Whose votes it counts: the same on every node, but while a change of them is under way.
    pub voters: Voters,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    Router,
    /// The address that routers send this target's packets to.
    Target {
        address: IpAddr,
    },
}

/// Owner → voters and backups, as a datagram, one for all the VIPAs it owns (split when they do not fit).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Counts this sender's beats; the acknowledgement names it, so that the lease counts from its sending.
    pub sequence: u64,
    pub owned: Vec<Owned>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    pub vipa: IpAddr,
    pub epoch: Epoch,
    /// The router the owner consents to be succeeded by; while a voter's last beat says so, it may grant that router
    /// the next epoch although the owner lives.
    pub yielding_to: Option<NodeName>,
}

impl Owned {
    /// Its length on the wire (`crate::wire`): an address with its family, a number of seven bits a byte, and a name or none.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        let Self { vipa, epoch: Epoch(epoch), yielding_to } = self;
        let address = if vipa.is_ipv4() { 4 } else { 16 };
        let bits = (u64::BITS - epoch.leading_zeros()).max(1);
        let name = yielding_to.as_ref().map_or(0, |name| 1 + name.as_str().len());
        1 + address + bits.div_ceil(7) as usize + 1 + name
    }
}

/// Voter → owner: acknowledges every VIPA of the beat but those in `superseded`. The voter promises to grant those
/// to nobody else for one lease of its own clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeatAck {
    pub sequence: u64,
    pub superseded: Vec<Superseded>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superseded {
    pub vipa: IpAddr,
    pub epoch: Epoch,
    pub holder: NodeName,
}

/// Most claims or votes in one message.
pub const BALLOTS_PART: usize = 1024;

/// Backup → voters, one message for all the VIPAs that it claims at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub claims: Vec<Claim>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub vipa: IpAddr,
    pub epoch: Epoch,
    pub ballot: Ballot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Ballot {
    /// "Would you grant it?" Binds nobody and changes nothing.
    Trial,
    /// `round`: how often the claimant has asked for this epoch before. An answer counts from when its question was sent.
    Real { round: u8 },
}

/// Voter → claimant, one message for all the claims that are answered at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Votes {
    pub votes: Vec<Vote>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Vote {
    Grant(Grant),
    Refuse(Refuse),
}

/// A real grant is on the voter's disk before this is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub vipa: IpAddr,
    pub epoch: Epoch,
    pub ballot: Ballot,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refuse {
    pub vipa: IpAddr,
    /// The epoch that was asked for.
    pub epoch: Epoch,
    pub ballot: Ballot,
    pub reason: Refusal,
    /// The highest epoch this voter has granted or heard of.
    pub highest: Epoch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// The voter hears the owner.
    OwnerAlive,
    /// That epoch or a higher one was granted already, to another claimant.
    Granted,
    /// The voter restarted less than a lease ago and may have promised.
    Recovering,
    /// The claimant goes by an older list of voters, or claims an epoch that its list cannot grant.
    Voters,
    /// A target's answer to `Associate` as owner: a router that owns the VIPA at a higher epoch was here already.
    Superseded,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnerAlive => "it hears the owner",
            Self::Granted => "it has granted this epoch to another router",
            Self::Recovering => "it has just started",
            Self::Voters => "it goes by other voters",
            Self::Superseded => "it knows a later owner",
        })
    }
}

/// Router → every node: who may serve this VIPA, and who says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    pub vipa: IpAddr,
    pub epoch: Epoch,
    pub sender: Standing,
    pub ranks: Vec<(NodeName, Rank)>,
    pub services: Vec<Service>,
    /// How targets are reached that these services do not name, but that may hold connections; to a target, its own. The
    /// oldest first.
    pub paths: Vec<TargetPath>,
}

/// What the sending router is to the VIPA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Standing {
    Owner,
    Backup,
}

/// Router → target: report to me. As `Owner` of `epoch`, every later report of this VIPA goes to the sender first of
/// all; as `Backup`, the sender is kept warm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Associate {
    pub vipa: IpAddr,
    pub epoch: Epoch,
    pub standing: Standing,
    /// What the router has seen of the target's log; `None`: nothing, send a snapshot.
    pub seen: Option<Position>,
}

/// A place in a target's connection log of one VIPA: everything up to and including `sequence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Position {
    pub incarnation: Incarnation,
    pub sequence: u64,
}

/// Router → target: stop reporting this VIPA to me.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub vipa: IpAddr,
    pub epoch: Epoch,
}

/// Target → router: every port of the VIPA's services that an application listens on, and how the target is reached; whole each
/// time one of them changes. It comes before the connections that it is asked for together with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listeners {
    pub vipa: IpAddr,
    pub listening: Vec<(Protocol, u16)>,
    /// How packets get to this target, by the lists it knows and has known. The oldest first.
    pub paths: Vec<ServicePath>,
}

/// Target → router: the Ethernet address of the interface that holds this target's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkAddress {
    /// `None`: no Ethernet interface holds it any more.
    pub mac: Option<Mac>,
}

/// Target → router: a run of the connection log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    pub vipa: IpAddr,
    pub run: Run,
    /// The log's position once this run is taken in.
    pub upto: Position,
    /// Set on the run that completes the answer to `Associate` of this epoch.
    pub answers: Option<Epoch>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Run {
    /// The records after `after`, oldest first.
    Tail { after: u64, records: Vec<Record> },
    /// Everything the target holds, in parts; `Part::Last` ends it. What the router has from this target and the
    /// snapshot lacks is gone.
    Snapshot { part: Part, connections: Vec<(Connection, ConnectionState)> },
}

/// Where in its snapshot a message stands; a snapshot of one message is `Only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    Only,
    First,
    Middle,
    Last,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub connection: Connection,
    pub change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Change {
    Opened(ConnectionState),
    Closed,
}

/// Backup that comes before the owner → owner: my table is complete and I am ready; please yield.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Yield {
    pub vipa: IpAddr,
    pub epoch: Epoch,
    /// The lives of the targets whose logs the sender follows. The owner compares them with its own.
    pub follows: Vec<(NodeName, Incarnation)>,
}

/// Owner → who asked it to yield: these targets report to me, and you do not follow their logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct YieldRefused {
    pub vipa: IpAddr,
    pub epoch: Epoch,
    pub missing: Vec<NodeName>,
}

/// Yielding owner → successor: its own table, so that connections too young for a target's report are known too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub vipa: IpAddr,
    pub epoch: Epoch,
    pub entries: Vec<Entry>,
    /// Of a series. The first series of an epoch has what no target has confirmed.
    pub part: Part,
}

/// An entry of a router's connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub connection: Connection,
    /// The target's address.
    pub target: IpAddr,
    pub state: EntryState,
}

/// Owner ↔ backup: connections of which only the owner can tell where they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReplica {
    pub vipa: IpAddr,
    pub epoch: Epoch,
    pub copied: Copied,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Copied {
    /// Backup → owner: tell me everything, and from then on what changes.
    Wanted,
    /// Owner → backup.
    Round(Round),
    /// Backup → owner: two targets report each of these connections; at which one do you have it? At most [`MAX_LOCATED`] are
    /// answered.
    Locate(Vec<Connection>),
    /// Owner → backup: the answer, without those that the owner does not have or has seen no more of than a SYN.
    Located(Vec<Entry>),
}

/// Connections of a [`Copied::Locate`] that are answered.
pub const MAX_LOCATED: usize = 2048;

/// What one look at the owner's table found, in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// One more than that of the look before.
    pub number: u64,
    pub part: Part,
    /// Everything, and not only what has changed since the look before.
    pub whole: bool,
    /// Since the look before.
    pub span_ms: u32,
    /// New ones, and those that are in another state or at another target.
    pub opened: Vec<Entry>,
    pub closed: Vec<Connection>,
}

/// Router → the router that comes first: take the VIPA back, whatever your `takeback` says; an operator wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakebackRequest {
    pub vipa: IpAddr,
}

/// Router → routers: whether the sender can route at all. Who never said so is fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfCheckReport {
    /// Why it cannot; a sentence.
    #[serde(deserialize_with = "crate::text::optional_reason")]
    pub unfit: Option<String>,
}

/// Decisions in one message, at most.
pub const DECISIONS_PART: usize = 256;

/// Router → every node, target → router: what operators have decided; the later stamp counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decisions {
    pub decisions: Vec<Decision>,
}

/// Router → router: these decisions of yours, or later ones, are on my disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionAck {
    pub kept: Vec<(Matter, Stamp)>,
}
