//! What happened in a cluster, for `vipactl events`: one kind for each thing that an operator may look for, with its facts. The
//! sentences are made here and nowhere else.
//!
//! Each router writes down what it sees (`control/src/events.rs`) and asks the others for theirs when somebody asks it. An event is
//! identified by its node, its time and its number.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Deserializer, Serialize};
use vipa_model::{Epoch, NodeName, PortRange, Protocol, calendar, listed};

use crate::{
    eligibility::Eligibility,
    order::{Given, Operator},
    text::MAX_REASON,
};

/// Services or VIPAs that one event names; more are counted.
pub const MAX_EVENT_NAMES: usize = 8;
/// Events in one answer.
pub const MAX_EVENTS: usize = 2_048;

/// Something that one node saw happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClusterEvent {
    /// By the clock of `node`, milliseconds since 1970.
    pub unix_ms: u64,
    /// The node that saw it.
    pub node: NodeName,
    /// Of that node's events; grows.
    pub number: u64,
    pub what: EventKind,
}

/// An event with what is made of it, for who shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EventRow {
    #[serde(flatten)]
    pub event: ClusterEvent,
    /// RFC 3339, UTC.
    pub time: String,
    pub level: EventLevel,
    pub sentence: String,
}

/// What happened, by all routers that have answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Events {
    /// The oldest first.
    pub events: Vec<EventRow>,
    /// There were more of that time; the oldest are left out.
    pub cut: bool,
    /// Routers of the configuration that did not answer: what only they saw is missing.
    pub silent: Vec<NodeName>,
}

impl From<ClusterEvent> for EventRow {
    fn from(event: ClusterEvent) -> Self {
        Self { time: event.time(), level: event.what.level(), sentence: event.what.to_string(), event }
    }
}

/// How much an event asks for attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EventLevel {
    News,
    Warning,
    Fault,
}

/// Why a router came to own a VIPA.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OwnershipCause {
    /// Nobody had owned it.
    First,
    /// The owner was not heard for so long.
    Silent { ms: u64 },
    /// The owner could not route any more.
    Unfit {
        #[serde(deserialize_with = "crate::text::reason")]
        why: String,
    },
    /// The owner was being stopped, or had lost its voters.
    HandedOver,
    /// This router comes before the owner and was ready.
    Rank,
    /// The VIPAs of its group are to be together.
    Group,
    /// An operator ordered it.
    Ordered {
        #[serde(deserialize_with = "crate::text::reason")]
        order: String,
        given: Option<Given>,
    },
    /// A record of an earlier release does not say.
    #[default]
    Unknown,
}

/// A service of a VIPA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceKey {
    pub vipa: IpAddr,
    pub protocol: Protocol,
    pub ports: PortRange,
}

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LimitKind {
    /// The connection table is full: the least valuable connections are given up.
    Table,
    /// A target reports more connections than its share of the table.
    TargetShare,
    /// Workers told more than control can read.
    Notes,
    /// Events came faster than the disk takes them.
    Events,
}

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ReloadResult {
    Applied {
        changes: u32,
    },
    AppliedInPart {
        changes: u32,
    },
    NeedsRestart,
    Unchanged,
    Refused {
        #[serde(deserialize_with = "crate::text::reason")]
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    Started {
        #[serde(deserialize_with = "crate::text::name")]
        version: String,
    },
    /// Told to stop, or by itself and why.
    Stopping {
        #[serde(deserialize_with = "crate::text::optional_reason")]
        why: Option<String>,
    },
    /// This node owns the VIPA from now on.
    Owned {
        vipa: IpAddr,
        epoch: Epoch,
        from: Option<NodeName>,
        cause: OwnershipCause,
    },
    /// The takeover is over: its table is rebuilt.
    Rebuilt {
        vipa: IpAddr,
        epoch: Epoch,
        /// From the owner's last beat, or the request, to the end of rebuilding.
        took_us: u64,
        connections: u64,
        /// Targets that have not answered.
        missing: u32,
    },
    /// This node owns it no more.
    Released {
        vipa: IpAddr,
        epoch: Epoch,
        to: Option<NodeName>,
    },
    /// Its lease ran out: no new connections.
    Fenced {
        vipa: IpAddr,
        epoch: Epoch,
    },
    Unfenced {
        vipa: IpAddr,
        epoch: Epoch,
    },
    TwoOwners {
        vipa: IpAddr,
        epoch: Epoch,
        one: NodeName,
        other: NodeName,
    },
    /// The VIPA is not owned, and the voters do not let this node own it.
    NotGranted {
        vipa: IpAddr,
        epoch: Epoch,
        #[serde(deserialize_with = "crate::text::reason")]
        why: String,
    },
    Flapping {
        vipa: IpAddr,
        changes: u64,
    },
    /// Whether this or another router can route.
    RouterCheck {
        router: NodeName,
        #[serde(deserialize_with = "crate::text::optional_reason")]
        unfit: Option<String>,
    },
    Ordered {
        #[serde(deserialize_with = "crate::text::reason")]
        order: String,
        by: Operator,
    },
    OrderDone {
        #[serde(deserialize_with = "crate::text::reason")]
        order: String,
        by: Operator,
        #[serde(deserialize_with = "crate::text::reason")]
        outcome: String,
    },
    OrderRefused {
        #[serde(deserialize_with = "crate::text::reason")]
        order: String,
        by: Operator,
        #[serde(deserialize_with = "crate::text::reason")]
        why: String,
    },
    /// A link to a node this one listens to.
    Link {
        peer: NodeName,
        up: bool,
    },
    /// A node that is not listened to, or has no link for another reason.
    LinkRefused {
        peer: Option<NodeName>,
        address: Option<IpAddr>,
        #[serde(deserialize_with = "crate::text::reason")]
        why: String,
    },
    /// What a target is to services from now on.
    Target {
        target: IpAddr,
        #[serde(with = "crate::eligibility::on_wire")]
        #[cfg_attr(feature = "schema", schemars(with = "Eligibility"))]
        eligibility: Eligibility,
        /// At most [`MAX_EVENT_NAMES`].
        services: Vec<ServiceKey>,
        /// Further services.
        more: u32,
    },
    /// Anything else about targets; a sentence.
    TargetRemark {
        target: Option<IpAddr>,
        #[serde(deserialize_with = "crate::text::reason")]
        what: String,
    },
    Reload {
        by: Option<Operator>,
        result: ReloadResult,
    },
    Limit {
        limit: LimitKind,
        /// Of the table, in this many entries or bytes.
        of: u64,
        target: Option<IpAddr>,
    },
    /// A port's NIC drops packets, so many since it was last looked at.
    PortDrops {
        #[serde(deserialize_with = "crate::text::name")]
        port: String,
        dropped: u64,
    },
    AddressConflict {
        vipa: IpAddr,
        #[serde(deserialize_with = "crate::text::name")]
        mac: String,
        #[serde(deserialize_with = "crate::text::name")]
        port: String,
    },
    /// A certificate that runs out, or has.
    Certificate {
        #[serde(deserialize_with = "crate::text::name")]
        subject: String,
        expires_unix_ms: u64,
        /// As seen when the event was written.
        expired: bool,
    },
    AuditDiffers {
        vipa: IpAddr,
        target: NodeName,
        differences: u64,
        repaired: bool,
    },
    ConfigurationDiffers {
        peer: NodeName,
        vipas: Vec<IpAddr>,
        more: u32,
    },
    Voters {
        #[serde(deserialize_with = "crate::text::reason")]
        names: String,
        version: u32,
    },
}

impl ClusterEvent {
    /// RFC 3339, UTC.
    #[must_use]
    pub fn time(&self) -> String {
        calendar::rfc3339(self.unix_ms)
    }

    /// What names it among all events of the cluster.
    #[must_use]
    pub fn id(&self) -> (u64, &NodeName, u64) {
        (self.unix_ms, &self.node, self.number)
    }
}

impl EventKind {
    /// The VIPA it is about, if it is about one.
    #[must_use]
    pub fn vipa(&self) -> Option<IpAddr> {
        match self {
            Self::Owned { vipa, .. }
            | Self::Rebuilt { vipa, .. }
            | Self::Released { vipa, .. }
            | Self::Fenced { vipa, .. }
            | Self::Unfenced { vipa, .. }
            | Self::TwoOwners { vipa, .. }
            | Self::NotGranted { vipa, .. }
            | Self::Flapping { vipa, .. }
            | Self::AddressConflict { vipa, .. }
            | Self::AuditDiffers { vipa, .. } => Some(*vipa),
            Self::Started { .. }
            | Self::Stopping { .. }
            | Self::RouterCheck { .. }
            | Self::Ordered { .. }
            | Self::OrderDone { .. }
            | Self::OrderRefused { .. }
            | Self::Link { .. }
            | Self::LinkRefused { .. }
            | Self::Target { .. }
            | Self::TargetRemark { .. }
            | Self::Reload { .. }
            | Self::Limit { .. }
            | Self::PortDrops { .. }
            | Self::Certificate { .. }
            | Self::ConfigurationDiffers { .. }
            | Self::Voters { .. } => None,
        }
    }

    /// Whether it concerns this VIPA. An event that names only some of many VIPAs may.
    #[must_use]
    pub fn concerns(&self, address: IpAddr) -> bool {
        match self {
            Self::Target { services, more, .. } => *more > 0 || services.iter().any(|service| service.vipa == address),
            Self::ConfigurationDiffers { vipas, more, .. } => *more > 0 || vipas.contains(&address),
            Self::Ordered { order, .. } | Self::OrderDone { order, .. } | Self::OrderRefused { order, .. } => {
                names_address(order, address)
            }
            other => other.vipa() == Some(address),
        }
    }

    /// Cuts lists that another node may have made too long.
    fn bound(&mut self) {
        match self {
            Self::Target { services, .. } => services.truncate(MAX_EVENT_NAMES),
            Self::ConfigurationDiffers { vipas, .. } => vipas.truncate(MAX_EVENT_NAMES),
            _ => {}
        }
    }

    #[must_use]
    pub fn level(&self) -> EventLevel {
        match self {
            Self::TwoOwners { .. } | Self::AddressConflict { .. } | Self::Certificate { expired: true, .. } => {
                EventLevel::Fault
            }
            Self::Stopping { why: Some(_) }
            | Self::Fenced { .. }
            | Self::NotGranted { .. }
            | Self::Flapping { .. }
            | Self::RouterCheck { unfit: Some(_), .. }
            | Self::Link { up: false, .. }
            | Self::LinkRefused { .. }
            | Self::Limit { .. }
            | Self::PortDrops { .. }
            | Self::Certificate { .. }
            | Self::AuditDiffers { .. }
            | Self::ConfigurationDiffers { .. }
            | Self::Reload { result: ReloadResult::Refused { .. } | ReloadResult::NeedsRestart, .. }
            | Self::Owned { cause: OwnershipCause::Silent { .. } | OwnershipCause::Unfit { .. }, .. } => {
                EventLevel::Warning
            }
            Self::Target { eligibility, .. } => match eligibility {
                Eligibility::Fit | Eligibility::NotCandidate | Eligibility::Quiesced | Eligibility::Draining => {
                    EventLevel::News
                }
                _ => EventLevel::Warning,
            },
            Self::Started { .. }
            | Self::Stopping { why: None }
            | Self::Owned { .. }
            | Self::Rebuilt { .. }
            | Self::Released { .. }
            | Self::Unfenced { .. }
            | Self::RouterCheck { unfit: None, .. }
            | Self::Ordered { .. }
            | Self::OrderDone { .. }
            | Self::OrderRefused { .. }
            | Self::Link { up: true, .. }
            | Self::TargetRemark { .. }
            | Self::Reload { .. }
            | Self::Voters { .. } => EventLevel::News,
        }
    }
}

/// Whether this order is about the address; `vipa move 192.0.2.10 r2`.
fn names_address(order: &str, address: IpAddr) -> bool {
    order.split_whitespace().any(|word| {
        let place = word.split_once('/').map_or(word, |(place, _)| place);
        let of_place = place.parse::<SocketAddr>().map(|place| place.ip());
        place.parse::<IpAddr>().or(of_place).is_ok_and(|named| named == address)
    })
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vipa, protocol, ports } = self;
        write!(f, "{vipa} {}/{ports}", protocol.name())
    }
}

/// A clause, to stand after a colon.
impl fmt::Display for OwnershipCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("nobody owned it"),
            Self::Silent { ms } => write!(f, "its owner was silent for {ms} ms"),
            Self::Unfit { why } => write!(f, "its owner cannot route: {why}"),
            Self::HandedOver => f.write_str("its owner handed it over, being stopped or without its voters"),
            Self::Rank => f.write_str("taken back, because this router comes first and was ready"),
            Self::Group => f.write_str("the VIPAs of its group are to be together"),
            Self::Ordered { order, given: Some(Given { by, unix_ms }) } => {
                write!(f, "ordered by {by} at {}: {order}", calendar::rfc3339(*unix_ms))
            }
            Self::Ordered { order, given: None } => write!(f, "ordered: {order}"),
            Self::Unknown => f.write_str("the cause is not known"),
        }
    }
}

impl fmt::Display for ReloadResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied { changes } => write!(f, "{changes} changes applied"),
            Self::AppliedInPart { changes } => write!(f, "{changes} changes applied; the rest needs a restart"),
            Self::NeedsRestart => f.write_str("nothing was changed, because something needs a restart"),
            Self::Unchanged => f.write_str("nothing has changed"),
            Self::Refused { why } => write!(f, "refused: {why}"),
        }
    }
}

/// The sentence of the event, without its time and node.
impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { version } => write!(f, "vipad {version} has started"),
            Self::Stopping { why: None } => f.write_str("stops, and hands over what it owns"),
            Self::Stopping { why: Some(why) } => write!(f, "stops, and hands over what it owns: {why}"),
            Self::Owned { vipa, epoch, from, cause } => {
                write!(f, "owns {vipa} from now on, epoch {epoch}")?;
                if let Some(from) = from {
                    write!(f, ", after {from}")?;
                }
                write!(f, ": {cause}")
            }
            Self::Rebuilt { vipa, epoch, took_us, connections, missing } => {
                let (ms, tenth) = (took_us / 1_000, took_us % 1_000 / 100);
                write!(f, "{vipa} is taken over, epoch {epoch}: {ms}.{tenth} ms, {connections} connections reported")?;
                match missing {
                    0 => Ok(()),
                    missing => write!(f, "; {missing} targets have not answered"),
                }
            }
            Self::Released { vipa, epoch, to: Some(to) } => write!(f, "gave {vipa} to {to}, epoch {epoch}"),
            Self::Released { vipa, epoch, to: None } => write!(f, "owns {vipa} no more, epoch {epoch}"),
            Self::Fenced { vipa, epoch } => write!(
                f,
                "the lease of {vipa} ran out, epoch {epoch}: no new connections until a majority of voters answers"
            ),
            Self::Unfenced { vipa, epoch } => write!(f, "the lease of {vipa} is renewed, epoch {epoch}"),
            Self::TwoOwners { vipa, epoch, one, other } => {
                write!(f, "both {one} and {other} say that they own {vipa} in epoch {epoch}")
            }
            Self::NotGranted { vipa, epoch, why } => {
                write!(f, "{vipa} has no owner here, and the voters do not grant epoch {epoch}: {why}")
            }
            Self::Flapping { vipa, changes } => {
                write!(f, "{vipa} flaps: its owner has changed {changes} times in the last minute")
            }
            Self::RouterCheck { router, unfit: Some(why) } => write!(f, "{router} cannot route: {why}"),
            Self::RouterCheck { router, unfit: None } => write!(f, "{router} can route again"),
            Self::Ordered { order, by } => write!(f, "{by} orders: {order}"),
            Self::OrderDone { order, by, outcome } => write!(f, "{outcome} ({order}, ordered by {by})"),
            Self::OrderRefused { order, by, why } => write!(f, "refused to {by}: {order}: {why}"),
            Self::Link { peer, up: true } => write!(f, "linked with {peer}"),
            Self::Link { peer, up: false } => write!(f, "lost its link to {peer}"),
            Self::LinkRefused { peer, address, why } => {
                f.write_str("refuses ")?;
                match (peer, address) {
                    (Some(peer), Some(address)) => write!(f, "{peer} at {address}")?,
                    (Some(peer), None) => write!(f, "{peer}")?,
                    (None, Some(address)) => write!(f, "{address}")?,
                    (None, None) => f.write_str("a node")?,
                }
                write!(f, ": {why}")
            }
            Self::Target { target, eligibility, services, more } => {
                write!(f, "{}", listed(services))?;
                if *more > 0 {
                    write!(f, " and {more} more services")?;
                }
                match eligibility {
                    Eligibility::Fit => write!(f, ": {target} gets new connections again"),
                    why => write!(f, ": {target} gets no new connections, because {why}"),
                }
            }
            Self::TargetRemark { target: _, what } => f.write_str(what),
            Self::Reload { by: Some(by), result } => write!(f, "{by} reloads the configuration: {result}"),
            Self::Reload { by: None, result } => write!(f, "reloads its configuration by SIGHUP: {result}"),
            Self::Limit { limit: LimitKind::Table, of, .. } => {
                write!(f, "the connection table is full ({of} entries): the least valuable connections are given up")
            }
            Self::Limit { limit: LimitKind::TargetShare, target, .. } => {
                let target = target.map_or_else(|| "a target".into(), |target| target.to_string());
                write!(
                    f,
                    "{target} reports more connections than its share of the table; further ones are not taken in"
                )
            }
            Self::Limit { limit: LimitKind::Notes, .. } => {
                f.write_str("workers tell more than can be read; some of it is left out")
            }
            Self::Limit { limit: LimitKind::Events, of, .. } => {
                write!(f, "{of} events were not written down, because they came faster than the disk takes them")
            }
            Self::PortDrops { port, dropped } => {
                write!(f, "port {port} has dropped {dropped} packets before they were read")
            }
            Self::AddressConflict { vipa, mac, port } => {
                write!(f, "station {mac} on port {port} says that it has {vipa}; take the address away there")
            }
            Self::Certificate { subject, expires_unix_ms, expired } => {
                let verb = if *expired { "has expired" } else { "expires" };
                write!(f, "the certificate of {subject} {verb} at {}", calendar::rfc3339(*expires_unix_ms))
            }
            Self::AuditDiffers { vipa, target, differences, repaired } => {
                write!(f, "the table of {vipa} differs from what {target} holds in {differences} connections")?;
                if *repaired { f.write_str("; repaired") } else { Ok(()) }
            }
            Self::ConfigurationDiffers { peer, vipas, more } => {
                write!(f, "{peer} is configured otherwise for {}", listed(vipas))?;
                match more {
                    0 => f.write_str("; `vipactl diff` shows how"),
                    more => write!(f, " and {more} more; `vipactl diff` shows how"),
                }
            }
            Self::Voters { names, version } => write!(f, "the voters are {names} from now on, version {version}"),
        }
    }
}

/// The whole line: time, node, sentence.
impl fmt::Display for ClusterEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}  {}", self.time(), self.node, self.what)
    }
}

/// A text of an event, bounded as one that comes from another node is.
#[must_use]
pub fn event_text(text: &str) -> String {
    vipa_model::printable(text, MAX_REASON)
}

pub(crate) fn events<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ClusterEvent>, D::Error> {
    let mut events = Vec::<ClusterEvent>::deserialize(deserializer)?;
    events.truncate(MAX_EVENTS);
    events.iter_mut().for_each(|event| event.what.bound());
    Ok(events)
}

#[cfg(test)]
mod tests;
