//! What goes into a router's brain and what comes out of it.

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
    /// A link is up; of a link already up, that it is a new one.
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
    /// This router cannot route, and here is why: whoever can shall have its VIPAs.
    Unfit {
        why: String,
    },
    /// It can again.
    Fit,
    /// The configuration is another: VIPAs may have come, gone or changed, and voters, if `Router::may_go_by` says so and
    /// they are on the disk. Name, cluster and lease stay.
    Configured {
        settings: Box<Settings>,
    },
    /// What the table has of this target's connections differs from what it holds: everything is to be read anew.
    ReadAnew {
        vipa: IpAddr,
        target: NodeName,
    },
    /// How many connections the table has of a VIPA; asked for by `Router::counts_wanted`.
    Counted {
        vipa: IpAddr,
        connections: u64,
    },
    /// Hand over what is owned, then say `Stopped`.
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    Send {
        to: NodeName,
        message: Message,
    },
    /// This vote waits for the disk. Write `Router::votes_to_store`, now or together with what comes until then, and feed
    /// `VotesStored` with the token that comes with it. What cannot be written is not confirmed.
    StoreVote {
        token: u64,
        vote: StoredVote,
    },
    /// Decisions wait for the disk: the same with `Router::decisions_to_store` and `DecisionsStored`.
    StoreDecisions {
        token: u64,
    },
    /// Keep these lists of the VIPA on the disk instead of those before, when there is time: nothing waits for it.
    StoreLists {
        vipa: IpAddr,
        lists: StoredLists,
    },
    /// How targets are reached that the list of `ServeWith` does not name, the oldest first; whole each time it changes. See
    /// [`vipa_model::find_path`].
    Paths {
        vipa: IpAddr,
        paths: Vec<TargetPath>,
    },
    /// How the order of this token stands.
    Order {
        token: u64,
        stage: Stage,
    },
    /// Of the services of `ServeWith`, where new connections keep away from; whole each time it changes.
    Rest {
        vipa: IpAddr,
        resting: Vec<Resting>,
    },
    /// This router has nothing to do with the VIPA any more; the configuration has lost it.
    Dropped {
        vipa: IpAddr,
    },
    /// What this router is to the VIPA from now on. `quiet_until`: orphans are held, not answered, until then.
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
    /// Tell the network that the VIPA is here.
    Announce {
        vipa: IpAddr,
    },
    /// Stop telling it.
    Withdraw {
        vipa: IpAddr,
    },
    /// Take a run of a target's log into the connection table. What that target had reported and a snapshot lacks has ended;
    /// what no report has confirmed is younger than the snapshot.
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
    /// Whether this target's reports on the VIPA are complete from now on: it has answered in full on its link, and its log
    /// is followed since. Said of each target of which this router has heard, whenever it changes, `false` at first.
    Complete {
        vipa: IpAddr,
        target: IpAddr,
        complete: bool,
    },
    /// What another router of this VIPA says of agentless targets' connections, or asks about them.
    TableReplica {
        from: NodeName,
        mirror: TableReplica,
    },
    /// How this target fares; `None` when it is not linked any more.
    Load {
        target: IpAddr,
        load: Option<Load>,
    },
    /// The Ethernet address that this target says is its own; `None` when it says none, or is not linked any more.
    LinkAddress {
        target: IpAddr,
        mac: Option<Mac>,
    },
    /// The list new connections use.
    ServeWith {
        vipa: IpAddr,
        services: Vec<Service>,
    },
    /// Send the connection table of this VIPA to the successor as `Table` messages: what no target has confirmed first,
    /// the last message of it marked as such, and then the rest, which nobody waits for. What is unconfirmed is sent again now and
    /// then, until this router admits no more. With `since`, the successor was sent the table then: only what has changed is sent.
    SendTable {
        to: NodeName,
        vipa: IpAddr,
        epoch: Epoch,
        since: Option<Moment>,
    },
    /// Entries of the predecessor's table; what a target reported counts more.
    InstallTable {
        vipa: IpAddr,
        entries: Vec<Entry>,
    },
    Report(TakeoverReport),
    Note(Note),
    /// After `Event::Stop`: nothing is owned any more.
    Stopped,
}

/// New connections of this service keep away from this target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resting {
    pub protocol: Protocol,
    pub ports: PortRange,
    pub target: IpAddr,
}

/// How an order stands; each with a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    Progress(String),
    Done(String),
    /// Nothing is changed by it.
    Refused(String),
}

/// Everything one event led to, in order.
pub type Outbox = Vec<Output>;

/// What an operator may want to read.
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
    /// A message that its sender may not send, or whose numbers cannot be; one of a node and kind in a minute.
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
    /// An operator decided, here or elsewhere.
    Decided {
        decision: Decision,
    },
    /// The owner says that these targets report to it and not to us.
    TakebackTooEarly {
        vipa: IpAddr,
        owner: NodeName,
        missing: Vec<NodeName>,
    },
    Eligibility {
        router: NodeName,
        unfit: Option<String>,
    },
    /// Whose votes count here from now on.
    Voters {
        voters: Voters,
    },
    /// What a peer goes by, being other than here.
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
