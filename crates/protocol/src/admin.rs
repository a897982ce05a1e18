//! What `vipactl` asks a router, and what it is told.
//!
//! On the admin socket each side writes JSON, one document a line: `Versioned<Request>` and, for each, any number of
//! `Answer::Progress` and then one other `Versioned<Answer>`.
//! ```text
//! → {"version":3,"ask":"connections","limit":20}
//! ← {"version":3,"answer":"connections","data":{"total":2,"shown":[…]}}
//! ```
//! New fields may be added within a version; readers skip those they do not know.

mod audit;
mod capture;
mod connections;
mod explain;
mod ports;
mod reload;
mod request;

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};
use vipa_model::{Connection, Epoch, Incarnation, NodeName, Protocol, Rank, Service, Voters};

pub use self::audit::{Audit, AuditExample, AuditMode, AuditResult, Difference, TargetAudit};
use crate::{
    agent_status::AgentStatus,
    eligibility::Eligibility,
    event::Events,
    health::{Health, HealthFacts},
    load::Load,
    message::Position,
    order::{Decision, Order},
    report::TakeoverReport,
};

pub use capture::{CaptureFilter, Captured, CapturedPacket, DEFAULT_CAPTURED, MAX_CAPTURE_S, MAX_CAPTURED};
pub use connections::{ConnectionFilter, ConnectionRow, Connections, CountBy, CountedConnections, MAX_COUNTED, Stage};
pub use explain::{
    ExplainedCandidate, ExplainedChoice, ExplainedEntry, ExplainedFate, ExplainedPacket, ExplainedPath,
    ExplainedService, Explanation,
};
pub use ports::{PortList, PortStatistics, PortStatus, WorkerList, WorkerStatus};
pub use reload::{Reload, ReloadChange, ReloadMode, ReloadOutcome};

/// Version of this vocabulary.
pub const VERSION: u16 = 3;
/// Connections shown when none are asked for by number.
pub const DEFAULT_LIMIT: u32 = 20;
/// What a recording may have on the disk when nothing is said of it, megabytes.
pub const DEFAULT_RECORDING_MB: u32 = 64;

/// One line in either direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Versioned<T> {
    pub version: u16,
    #[serde(flatten)]
    pub body: T,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side speaks version {0} of the admin protocol, this is version {VERSION}; install the same release")]
pub struct WrongVersion(pub u16);

impl<T> Versioned<T> {
    #[must_use]
    pub fn new(body: T) -> Self {
        Self { version: VERSION, body }
    }

    /// The body, if this version can read it.
    pub fn current(self) -> Result<T, WrongVersion> {
        if self.version == VERSION { Ok(self.body) } else { Err(WrongVersion(self.version)) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    Status,
    /// At most `limit` of the connections that are meant, or of the rows of a count of them.
    Connections {
        limit: u32,
        #[serde(default)]
        filter: ConnectionFilter,
        #[serde(default)]
        count_by: Option<CountBy>,
    },
    /// What becomes of the next packet of a connection.
    Explain {
        vipa: IpAddr,
        connection: Connection,
    },
    Distribution,
    Takeovers,
    Counters,
    Ports,
    Workers,
    /// Takes a changed configuration up.
    Reload {
        mode: ReloadMode,
        /// It is taken back after so long unless it is confirmed, milliseconds.
        #[serde(default)]
        confirm_ms: Option<u64>,
    },
    /// Keeps a configuration that awaits its confirmation, or takes it back.
    Confirm {
        undo: bool,
    },
    /// Compares the connection table with what the targets of one VIPA, or of all, hold.
    Audit {
        vipa: Option<IpAddr>,
        mode: AuditMode,
    },
    /// Rehearses a takeover.
    Drill {
        vipa: IpAddr,
    },
    /// Where the other routers' configurations for a VIPA differ.
    Diff {
        vipa: IpAddr,
    },
    /// Answered by `Progress` and then `Done`, or by `Error` when nothing is changed.
    Order {
        order: Order,
    },
    /// What operators have decided and what is in force.
    Decisions,
    /// What happened in the cluster since then.
    Events {
        since_unix_ms: u64,
        vipa: Option<IpAddr>,
    },
    Health,
    /// Begins to capture packets; answered by `Done`. One at a time.
    CaptureStart {
        filter: CaptureFilter,
    },
    /// What was captured since this was last asked; who does not ask for five seconds ends it.
    CaptureRead,
    CaptureStop,
    /// Writes every event of this router to a file, or stops that; answered by `Done` or `Error`.
    Record {
        what: Record,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Record {
    /// At most so much on the disk; what is beyond replaces the oldest.
    Start {
        limit_mb: u32,
    },
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "answer", content = "data", rename_all = "kebab-case")]
pub enum Answer {
    Status(Box<Status>),
    Connections(Connections),
    Explanation(Box<Explanation>),
    Captured(Captured),
    Distribution(Distribution),
    Takeovers(Takeovers),
    Counters(Counters),
    Ports(PortList),
    Workers(WorkerList),
    Reload(Reload),
    Audit(Audit),
    Drill(Drill),
    Diff(Diff),
    Decisions(Decisions),
    Events(Events),
    Health(Health),
    Agent(Box<AgentStatus>),
    /// How far it is; more will follow.
    Progress(Said),
    /// It is carried out.
    Done(Said),
    /// What is asked about is not there; a sentence.
    NotFound(String),
    /// The request could not be answered; a sentence.
    Error(String),
}

/// A sentence for who gave an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Said {
    pub sentence: String,
}

/// Those that are as configured again are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Decisions {
    pub decisions: Vec<Decision>,
}

/// The router at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Status {
    pub node: NodeName,
    pub cluster: String,
    pub incarnation: Incarnation,
    pub uptime_ms: u64,
    pub voters: Vec<NodeName>,
    #[serde(default)]
    pub voters_version: u32,
    /// Linked nodes that go by other voters, and by which.
    #[serde(default)]
    pub other_voters: Vec<(NodeName, Voters)>,
    /// Why this router does not go by the voters of its configuration yet.
    #[serde(default)]
    pub voters_wait: Option<String>,
    /// Every router of the configuration but this one and every target ever seen, sorted by name.
    pub links: Vec<Link>,
    pub vipas: Vec<VipaStatus>,
    /// Entries in the connection table, and how many fit.
    pub connections: u64,
    pub capacity: u64,
    /// Who was refused a link in the last hour, or is linked and was not listened to; the latest first, at most 64.
    #[serde(default)]
    pub refused: Vec<RefusedPeer>,
    /// Why this router cannot route, if it cannot.
    #[serde(default)]
    pub unfit: Option<String>,
    /// Nodes that have left by an operator's order.
    #[serde(default)]
    pub left: Vec<NodeName>,
    /// Targets whose tunnel's path takes less than the port, as a router on it has said.
    #[serde(default)]
    pub narrow_paths: Vec<NarrowPath>,
    /// Targets that have reported more than their share of the connection table in the last ten minutes.
    #[serde(default)]
    pub over_share: Vec<OverShare>,
    /// VIPAs whose owner changes again and again.
    #[serde(default)]
    pub flapping: Vec<Flapping>,
    /// VIPAs of this router that another station says it has.
    #[serde(default)]
    pub conflicts: Vec<AddressConflict>,
    /// What this host's kernel does with the packets of VIPAs, a sentence each.
    #[serde(default)]
    pub interferences: Vec<String>,
    /// Leases of its VIPAs that this router has lost in its life.
    #[serde(default)]
    pub leases_lost: u64,
    /// The file that this router's events are written to, if they are.
    #[serde(default)]
    pub recording: Option<String>,
    #[serde(default)]
    pub health: HealthFacts,
    /// The file that the configuration was read from.
    #[serde(default)]
    pub config_file: Option<String>,
    /// The configuration is taken back after so long unless it is confirmed.
    #[serde(default)]
    pub unconfirmed_ms: Option<u64>,
}

/// A VIPA whose owner changes again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Flapping {
    pub vipa: IpAddr,
    /// Within the last minute.
    pub changes: u64,
}

/// Who was refused, or refuses this router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RefusedPeer {
    /// As its certificate says, or as it was dialled; not there if it has proved to be nobody.
    pub node: Option<NodeName>,
    /// Where it comes from; not there for a node that is linked.
    pub address: Option<IpAddr>,
    /// The latest reason, escaped and bounded.
    pub why: String,
    pub times: u64,
    pub last_ms_ago: u64,
}

/// A target that reports more connections than its share of the connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OverShare {
    pub target: IpAddr,
    /// Reports that were not taken in since it is over.
    pub refused: u64,
}

/// A VIPA that another station says it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AddressConflict {
    pub vipa: IpAddr,
    /// The station, and the port where it was heard.
    pub mac: String,
    pub port: String,
    /// Another address of the station, if this router knows one.
    #[serde(default)]
    pub also: Option<IpAddr>,
    /// How often a station has said so, and seconds since the last time.
    pub claims: u64,
    pub ago_s: u64,
}

/// A tunnel's path that takes less than the port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NarrowPath {
    pub target: IpAddr,
    /// What it takes, bytes of IP, the tunnel's own headers included.
    pub mtu: u16,
    /// Seconds until the port's MTU is tried again.
    pub kept_s: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Link {
    pub node: NodeName,
    /// The target's address; `None` for routers.
    pub target: Option<IpAddr>,
    pub up: bool,
}

/// What a router is to a VIPA at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Stance {
    Standby,
    /// The owner is missed; the voters are asked whether they would grant.
    Suspecting,
    Claiming,
    Rebuilding,
    Active,
    /// Another took over; what still reaches this router is forwarded.
    Yielding,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VipaStatus {
    pub address: IpAddr,
    pub epoch: Epoch,
    pub stance: Stance,
    pub owner: Option<NodeName>,
    /// It owns, but its lease has run out: it answers no ARP and admits no new connection.
    pub fenced: bool,
    /// Highest first.
    pub ranks: Vec<(NodeName, Rank)>,
    /// What new connections are served by, or would be after a takeover.
    pub services: Vec<Service>,
    /// Candidates, and whoever reports connections of this VIPA.
    pub targets: Vec<TargetStatus>,
    /// Its entries in the connection table; `confirmed` are those a target has reported.
    pub connections: u64,
    pub confirmed: u64,
    /// How what no target reports is known at more than one router (connections of targets without an agent, UDP flows that
    /// hashing does not find); `None`: there is no such service, or nobody to be told.
    pub mirror: Option<MirrorStatus>,
    #[serde(default)]
    pub succession: Succession,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "part", rename_all = "lowercase")]
pub enum MirrorStatus {
    /// The owner tells these backups.
    Telling {
        followers: Vec<NodeName>,
        connections: u64,
        /// UDP flows of all VIPAs beyond the limit: a takeover may move them.
        #[serde(default)]
        left_out: u64,
    },
    /// A backup is told. What was opened within `behind_ms` may be lost with the owner; `None`: nothing is known yet.
    Following { from: NodeName, connections: u64, behind_ms: Option<u64> },
}

/// What bends a VIPA's order of succession, and what becomes of it next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Succession {
    /// The VIPAs of one group move together.
    pub group: Option<String>,
    /// The router it was moved to: it comes before all others.
    pub placed: Option<NodeName>,
    /// Routers that may not own it: it is deactivated there, or they have left.
    pub barred: Vec<NodeName>,
    /// The router that the owner consents to be succeeded by.
    pub yielding_to: Option<NodeName>,
    /// This router handed it over, and forwards what still reaches it for so long.
    pub lingers_ms: Option<u64>,
    /// This router comes before the owner, and this is what it waits for; a sentence.
    pub takeback: Option<String>,
    /// What is left of `takeback_delay_s`.
    pub takeback_in_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TargetStatus {
    pub address: IpAddr,
    /// Known once its agent has been linked.
    pub node: Option<NodeName>,
    pub linked: bool,
    /// It has answered this router's association: what it holds is known here.
    pub complete: bool,
    pub position: Option<Position>,
    pub listening: Vec<(Protocol, u16)>,
    /// How it fares, as it last said; `None`: it is not linked.
    pub load: Option<Load>,
    pub connections: u64,
    /// The services that new connections to it keep away from, by their first port.
    #[serde(default)]
    pub resting: Vec<(Protocol, u16)>,
    #[serde(default)]
    pub responsiveness: Responsiveness,
}

/// How much of what is sent to a target is served there, in hundredths, of the last ten seconds or so; `None`: too few
/// connections came to tell. Routers count by target, so `reached` is of all its services together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Responsiveness {
    /// Of the connections this router sent, those whose handshake began there.
    pub reached: Option<u8>,
    /// Of these, those that came to be connections.
    pub established: Option<u8>,
    /// Of these, those that the application has taken.
    pub accepted: Option<u8>,
}

impl Responsiveness {
    /// The product of what is known.
    #[must_use]
    pub fn percent(&self) -> Option<u8> {
        let known = [self.reached, self.established, self.accepted].into_iter().flatten();
        known
            .map(|percent| f64::from(percent) / 100.0)
            .reduce(|all, part| all * part)
            .map(|all| (all * 100.0).round() as u8)
    }
}

/// Who may serve what, who does, and how it is spread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Distribution {
    pub vipas: Vec<VipaDistribution>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VipaDistribution {
    pub vipa: IpAddr,
    pub epoch: Epoch,
    pub services: Vec<ServiceDistribution>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceDistribution {
    pub service: Service,
    /// Candidates in the order of the service, then other targets that still hold connections of it.
    pub targets: Vec<DistributionRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DistributionRow {
    pub target: IpAddr,
    pub node: Option<NodeName>,
    pub candidate: bool,
    /// Whether it is to have an agent; else the routers ask it themselves.
    pub agent: bool,
    pub linked: bool,
    /// Ports of the service on which an application listens.
    pub listening: u32,
    /// Whether it is fit for new connections on any of them, and if not, the first reason.
    pub fitness: Eligibility,
    /// Ports on which it is.
    pub fit: u32,
    /// Whether it gets new connections: it is fit, or nobody is and it is the last resort.
    pub chosen: bool,
    /// Its share of new connections, relative to the others'.
    pub weight: u16,
    /// Connections that wait there to be accepted.
    pub waiting: u32,
    /// Of this service, in the connection table.
    pub connections: u64,
    /// Of a TCP service: how much of what is sent there is served.
    #[serde(default)]
    pub responsiveness: Responsiveness,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Takeovers {
    /// Complete ones, oldest first, the latest few dozen.
    pub records: Vec<TakeoverRecord>,
}

/// A change of ownership, as the cluster and the packet path saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TakeoverRecord {
    #[serde(flatten)]
    pub report: TakeoverReport,
    /// When it was complete, milliseconds since 1970.
    pub finished_unix_ms: u64,
    /// A majority's grants → the first announcement was handed to the port.
    pub announce_us: u64,
    /// A majority's grants → the first packet forwarded; `None`: there was none meanwhile.
    pub first_forward_us: Option<u64>,
    /// Of this VIPA, in the connection table when it began.
    pub connections_known_before: u64,
    /// Entries the targets' reports added or replaced.
    pub connections_rebuilt: u64,
    /// When the VIPA was left alone by this router's last life: how long nobody owned it.
    #[serde(default)]
    pub unowned_ms: Option<u64>,
    /// Frames of any kind that came to the router's ports meanwhile; `None`: not every port has a kernel's interface
    /// beneath that counts them.
    #[serde(default)]
    pub unowned_frames: Option<u64>,
    /// Packets of unknown connections: kept, sent on through the rebuilt table, and given up.
    pub held: u64,
    pub released: u64,
    pub expired: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Counters {
    /// When they were read, microseconds of the router's own clock since its start: it only goes forward.
    #[serde(default)]
    pub at_us: u64,
    /// All workers together, and what control counts.
    pub total: BTreeMap<String, u64>,
    /// Each worker by itself.
    pub workers: Vec<BTreeMap<String, u64>>,
}

/// A takeover rehearsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Drill {
    pub vipa: IpAddr,
    pub owner: Option<NodeName>,
    pub owned_here: bool,
    /// Live routers that would come first; at the owner, those that may come after it.
    pub before: Vec<NodeName>,
    pub voters: u32,
    /// This router among them, if it is one.
    pub voters_linked: u32,
    /// From the owner's last beat to the first ballot; to the grants; to the last target's answer.
    pub detect_us: u64,
    pub collect_us: u64,
    pub rebuild_us: u64,
    /// In this router's table.
    pub connections: u64,
    pub targets: Vec<DrillTarget>,
    pub losses: Vec<Loss>,
    /// Services that no reachable target listens for.
    pub unserved: Vec<Service>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DrillTarget {
    pub address: IpAddr,
    pub node: Option<NodeName>,
    pub candidate: bool,
    pub linked: bool,
    /// Packets get there.
    pub reached: bool,
    pub listening: Vec<(Protocol, u16)>,
    /// Its connections in this router's table that it has reported.
    pub known: u64,
    /// Those it says it holds now: as many, when nothing is missing.
    pub held: Option<u64>,
    /// Its connections in this router's table that it does not report: UDP flows, half-open connections, and those of which its
    /// report is on the way.
    #[serde(default)]
    pub others: u64,
    /// Records of its log that this router has not seen.
    pub behind: Option<u64>,
    pub answer_us: Option<u64>,
}

/// What would be lost, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Loss {
    pub target: IpAddr,
    /// `None`: nobody can tell how many.
    pub connections: Option<u64>,
    pub why: String,
}

/// Where other routers' configurations for a VIPA differ from this one's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Diff {
    pub vipa: IpAddr,
    pub peers: Vec<Peer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Peer {
    pub node: NodeName,
    pub answer: PeerAnswer,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PeerAnswer {
    /// In these; when there are none, in nothing.
    Differs(Vec<DiffRow>),
    NotConfigured,
    Silent,
    /// It is not listened to, and this is why: another cluster, or another key.
    Refused(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiffRow {
    pub what: String,
    pub here: String,
    pub there: String,
}

#[cfg(test)]
mod tests;
