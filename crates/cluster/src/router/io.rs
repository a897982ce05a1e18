//! Events of a router, and its outputs.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use vipa_model::{Epoch, Mac, Moment, NodeName, PortRange, Protocol, Service, Stance, TargetPath, Voters, listed};
use vipa_protocol::{
    Decision, Entry, Given, Hello, Load, Message, MessageKind, Order, OwnershipCause, Refusal, Run, TableReplica,
    TakeoverReport,
};

use super::{settings::Settings, vipa::State};
use crate::{authority::Denial, hello::Mismatch, paths::StoredLists, voter::StoredVote};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The deadline has come.
    Timeout,
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
    /// The decisions of this token, and of every earlier one, are on the disk.
    DecisionsStored {
        token: u64,
    },
    /// An operator's order, answered by `Output::Order` of the same token: any number of `Stage::Progress`, then one
    /// `Done` or `Refused`.
    Order {
        token: u64,
        order: Order,
        /// Who gives it, and when.
        given: Option<Given>,
    },
    /// This router cannot route, for this reason: any other router that can takes its VIPAs.
    Unfit {
        why: String,
    },
    /// This router can route again.
    Fit,
    /// The configuration has changed: VIPAs may have been added, removed or changed, and voters, if `Router::may_go_by`
    /// allows them and they are on the disk. Name, cluster and lease stay.
    Configured {
        settings: Box<Settings>,
    },
    /// The table's connections of this target differ from what it holds: everything is to be read again.
    ReadAnew {
        vipa: IpAddr,
        target: NodeName,
    },
    /// How many connections of a VIPA the table has; requested by `Router::counts_wanted`.
    Counted {
        vipa: IpAddr,
        connections: u64,
    },
    /// Hand over what is owned, then emit `Stopped`.
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    Send {
        to: NodeName,
        message: Message,
    },
    /// This vote waits for the disk. Write `Router::votes_to_store`, now or together with later ones, and feed
    /// `VotesStored` with the token that comes with it. What cannot be written is not confirmed.
    StoreVote {
        token: u64,
        vote: StoredVote,
    },
    /// Decisions wait for the disk: the same with `Router::decisions_to_store` and `DecisionsStored`.
    StoreDecisions {
        token: u64,
    },
    /// Store these lists of the VIPA on the disk instead of the previous ones, when there is time: nothing waits for
    /// it.
    StoreLists {
        vipa: IpAddr,
        lists: StoredLists,
    },
    /// The paths to targets that the list of `ServeWith` does not name, the oldest first; complete each time they
    /// change. See [`vipa_model::find_path`].
    Paths {
        vipa: IpAddr,
        paths: Vec<TargetPath>,
    },
    /// Progress of the order of this token.
    Order {
        token: u64,
        stage: Stage,
    },
    /// The services of `ServeWith` at targets that get no new connections; complete each time it changes.
    Rest {
        vipa: IpAddr,
        resting: Vec<Resting>,
    },
    /// This router has no part in the VIPA any more; it is no longer in the configuration.
    Dropped {
        vipa: IpAddr,
    },
    /// This router's role for the VIPA from now on. `quiet_until`: orphans are held, not answered, until then.
    Stance {
        vipa: IpAddr,
        epoch: Epoch,
        stance: Stance,
        quiet_until: Moment,
    },
    /// The owner's lease; once it has passed, no new connection and no ARP.
    Lease {
        vipa: IpAddr,
        until: Moment,
    },
    /// Announce to the network that the VIPA is here.
    Announce {
        vipa: IpAddr,
    },
    /// Stop announcing it.
    Withdraw {
        vipa: IpAddr,
    },
    /// Apply a run of a target's log to the connection table. A connection that the target had reported and that a
    /// snapshot lacks has ended; an entry that no report has confirmed is younger than the snapshot.
    Install {
        vipa: IpAddr,
        target: IpAddr,
        run: Run,
    },
    /// Every port of the VIPA that this target listens on; none when the target is not linked any more.
    Listeners {
        vipa: IpAddr,
        target: IpAddr,
        listening: Vec<(Protocol, u16)>,
    },
    /// Whether this target's reports on the VIPA are complete from now on: it has answered in full on its link, and its
    /// log has been followed since. Emitted for each target that has been linked, whenever it changes, first with
    /// `false`.
    Complete {
        vipa: IpAddr,
        target: IpAddr,
        complete: bool,
    },
    /// What another router of this VIPA sends about agentless targets' connections, or asks about them.
    TableReplica {
        from: NodeName,
        mirror: TableReplica,
    },
    /// This target's load; `None` when it is not linked any more.
    Load {
        target: IpAddr,
        load: Option<Load>,
    },
    /// The Ethernet address that this target reports as its own; `None` when it reports none, or is not linked any
    /// more.
    LinkAddress {
        target: IpAddr,
        mac: Option<Mac>,
    },
    /// The list that new connections use.
    ServeWith {
        vipa: IpAddr,
        services: Vec<Service>,
    },
    /// Send the connection table of this VIPA to the successor as `Table` messages. First the entries that no target
    /// has confirmed, the last message of these marked as such; then the rest, which nothing waits for. Unconfirmed
    /// entries are sent again now and then, until this router admits no more. With `since`, the successor was sent the
    /// table then: only changes are sent.
    SendTable {
        to: NodeName,
        vipa: IpAddr,
        epoch: Epoch,
        since: Option<Moment>,
    },
    /// Entries of the predecessor's table; a target's report outranks them.
    InstallTable {
        vipa: IpAddr,
        entries: Vec<Entry>,
    },
    Report(TakeoverReport),
    Note(Note),
    /// After `Event::Stop`: nothing is owned any more.
    Stopped,
}

/// A target that gets no new connections of this service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resting {
    pub protocol: Protocol,
    pub ports: PortRange,
    pub target: IpAddr,
}

/// Progress of an order; each with a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    Progress(String),
    Done(String),
    /// The order changes nothing.
    Refused(String),
}

/// Everything that one event led to, in order.
pub type Outbox = Vec<Output>;

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
    /// A message that its sender may not send, or with impossible numbers; one note of a node and kind in a minute.
    Denied {
        peer: NodeName,
        kind: MessageKind,
        denial: Denial,
    },
    Transition {
        vipa: IpAddr,
        epoch: Epoch,
        from: State,
        to: State,
    },
    /// This router owns the VIPA from now on.
    Owned {
        vipa: IpAddr,
        epoch: Epoch,
        from: Option<NodeName>,
        cause: OwnershipCause,
    },
    BallotLost {
        vipa: IpAddr,
        epoch: Epoch,
        refusals: Vec<(NodeName, Refusal)>,
    },
    Fenced {
        vipa: IpAddr,
        epoch: Epoch,
    },
    Unfenced {
        vipa: IpAddr,
        epoch: Epoch,
    },
    Superseded {
        vipa: IpAddr,
        epoch: Epoch,
        by: Epoch,
        holder: NodeName,
    },
    Consented {
        vipa: IpAddr,
        epoch: Epoch,
        to: NodeName,
    },
    ConsentWithdrawn {
        vipa: IpAddr,
        epoch: Epoch,
        from: NodeName,
    },
    /// A target that did not answer before the rebuilding deadline; its report is taken when it comes.
    TargetLate {
        vipa: IpAddr,
        epoch: Epoch,
        target: IpAddr,
    },
    TwoOwners {
        vipa: IpAddr,
        epoch: Epoch,
        one: NodeName,
        other: NodeName,
    },
    /// An operator decided, here or at another node.
    Decided {
        decision: Decision,
    },
    /// The owner states that these targets report to it and not to this router.
    TakebackTooEarly {
        vipa: IpAddr,
        owner: NodeName,
        missing: Vec<NodeName>,
    },
    Eligibility {
        router: NodeName,
        unfit: Option<String>,
    },
    /// The voters whose votes count here from now on.
    Voters {
        voters: Voters,
    },
    /// A peer's list of voters, which differs from this router's.
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
            Self::Denied { peer, kind, denial } => {
                write!(f, "{peer}: a message of the kind {kind} is not listened to, because {denial}")
            }
            Self::Transition { vipa, epoch, from, to } => write!(f, "{vipa}: {from} → {to}, epoch {epoch}"),
            Self::Owned { vipa, epoch, from, cause } => {
                let from = from.as_ref().map(|from| format!(", after {from}")).unwrap_or_default();
                write!(f, "{vipa}: owned by this router, epoch {epoch}{from}: {cause}")
            }
            Self::BallotLost { vipa, epoch, refusals } => {
                let refusals = refusals.iter().map(|(voter, refusal)| format!("{voter} ({refusal})"));
                write!(f, "{vipa}: epoch {epoch} not granted; refused by: {}", listed(refusals))
            }
            Self::Fenced { vipa, epoch } => {
                write!(
                    f,
                    "{vipa}: lease of epoch {epoch} ran out: no new connections until a majority of voters answers"
                )
            }
            Self::Unfenced { vipa, epoch } => write!(f, "{vipa}: lease of epoch {epoch} renewed"),
            Self::Superseded { vipa, epoch, by, holder } => {
                write!(f, "{vipa}: epoch {epoch} is superseded by epoch {by} of {holder}")
            }
            Self::Consented { vipa, epoch, to } => write!(f, "{vipa}: epoch {epoch} may be succeeded by {to}"),
            Self::ConsentWithdrawn { vipa, epoch, from } => {
                write!(f, "{vipa}: {from} did not take it; epoch {epoch} goes on")
            }
            Self::TargetLate { vipa, epoch, target } => {
                write!(f, "{vipa}: target {target} did not report in time for epoch {epoch}")
            }
            Self::Decided { decision } => match &decision.given {
                Some(Given { by, .. }) => write!(f, "decided by {by}, by way of {}: {decision}", decision.stamp.by),
                None => write!(f, "decided by way of {}: {decision}", decision.stamp.by),
            },
            Self::TakebackTooEarly { vipa, owner, missing } => {
                write!(f, "{vipa}: not taken back yet, because {} report to {owner} and not here", listed(missing))
            }
            Self::Eligibility { router, unfit: Some(why) } => write!(f, "{router} is unfit to route: {why}"),
            Self::Eligibility { router, unfit: None } => write!(f, "{router} is fit to route again"),
            Self::Voters { voters: Voters { version, names } } => {
                write!(f, "voters are {} from now on, version {version}", listed(names))
            }
            Self::OtherVoters { peer, voters: Voters { version, names } } => {
                write!(f, "{peer}: its voters are {}, version {version}, and not those of this node", listed(names))
            }
            Self::TwoOwners { vipa, epoch, one, other } => {
                write!(f, "{vipa}: both {one} and {other} say they own epoch {epoch}")
            }
        }
    }
}
