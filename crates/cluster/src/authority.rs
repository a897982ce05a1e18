//! Permissions: which node may send which message, and which numbers in it are accepted.
//!
//! | message | from |
//! |---|---|
//! | `Beat`, `Claims`, `Distribution`, `Yield`, `Table`, `TableReplica`, `YieldRefused`, `TakebackRequest`, `Associate`, `Release` | a router that may own the VIPA |
//! | `SelfCheckReport`, `DecisionAck`, `QueryRequest` | a router |
//! | `BeatAck`, `Votes` | a voter; without a quorum a target may say that an owner is of the past |
//! | `Listeners`, `Connections`, `Load`, `LinkAddress` | a target, of its own address and its present life |
//! | `Decisions` | a router; of a target it is hearsay (`router/orders.rs`) |
//! | `QueryReply` | a node that can have the answer: targets have connections, routers have settings and events |
//! | `Voters` | any linked node |
//! | `Hello` | no node: it is the greeting, and a link has one |
//!
//! A router may own a VIPA when it has a rank for it, or owns it already: ranks change by reloads, one router after the
//! other. A target has no ranks in its configuration; it uses those that most of the VIPA's other routers distribute,
//! two of them at least (`target/serving.rs`). A node without the ranks of a VIPA accepts every router of the cluster.

use std::{collections::BTreeMap, fmt, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};
use vipa_model::{Epoch, Incarnation, Mac, Moment, NodeName, Voters, is_host_address};
use vipa_protocol::{
    Associate, Beat, BeatAck, Claims, Connections, Copied, Decision, Decisions, Distribution, Grant, LinkAddress,
    Message, MessageKind, Owned, QueryReply, Refusal, Refuse, Release, Reply, Role, Run, Standing, Superseded, Table,
    TableReplica, TakebackRequest, Vote, Votes, Yield, YieldRefused,
};

use crate::voter::StoredVote;

/// How far an epoch may be above the known ones: more elections of one VIPA than happen while a node is away.
const EPOCH_JUMP: u64 = 1_000_000;
/// The same limit for an epoch that a single voter reports: a claim above it is still accepted everywhere.
const TOLD_EPOCH_JUMP: u64 = EPOCH_JUMP / 2;
/// How far the count of a stamp may be above the known ones. This many jumps do not reach the end of 64 bits.
const STAMP_JUMP: u64 = 1 << 32;
/// Limit of sequence numbers, epochs and stamps; counted once a nanosecond, reached in more than a century.
pub(crate) const LAST_SEQUENCE: u64 = 1 << 62;
/// Shortest time between two notes about one node's messages of one kind.
const QUIET: Duration = Duration::from_secs(60);
/// Nodes and kinds of messages that are remembered for that.
const MAX_NOTED: usize = 1024;

/// The node that a message comes from, by its greeting and its certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'a> {
    pub(crate) node: &'a NodeName,
    pub(crate) role: &'a Role,
    pub(crate) incarnation: Incarnation,
}

/// What the receiver holds about the cluster.
pub(crate) trait Knowledge {
    fn voters(&self) -> &Voters;
    /// Whether the node's vote counts for VIPAs that this node owns.
    fn is_elector(&self, node: &NodeName) -> bool;
    /// Whether the router may have this standing for the VIPA; `None`: this node does not have the VIPA's ranks.
    fn may_be(&self, standing: Standing, vipa: IpAddr, router: &NodeName) -> Option<bool>;
    /// The highest epoch of the VIPA that an owner has used here, or that this node has granted. Epochs that single
    /// voters report are left out: each could raise it further.
    fn highest_epoch(&self, vipa: IpAddr) -> Epoch;
    /// The highest count of a decision's stamp that this node has accepted.
    fn highest_stamp(&self) -> u64;
}

/// Why a message is ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Denial {
    /// Only routers send it.
    NotARouter,
    /// Only targets send it.
    NotATarget,
    /// Only voters send it.
    NotAVoter,
    /// No node sends it on a link that is up.
    OutOfPlace,
    /// No VIPA can have this address.
    NoVipa { vipa: IpAddr },
    /// The router has no rank for this VIPA here, and does not own it.
    NoRank { vipa: IpAddr },
    /// The target names a log that is not of its present life.
    OtherLife { incarnation: Incarnation },
    /// The epoch is further from the known ones than elections lead.
    Epoch { vipa: IpAddr, epoch: Epoch },
    /// The stamp of a decision is further from the known ones than decisions lead.
    Stamp { count: u64 },
    /// The Ethernet address is not that of a single station.
    NoStation,
    /// A sequence number does not follow from the message, or is above the limit.
    Sequence { sequence: u64 },
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARouter => f.write_str("only routers send it"),
            Self::NotATarget => f.write_str("only targets send it"),
            Self::NotAVoter => f.write_str("only voters send it"),
            Self::OutOfPlace => f.write_str("nobody sends it on a link that is up"),
            Self::NoVipa { vipa } => write!(f, "no VIPA can have the address {vipa}"),
            Self::NoRank { vipa } => write!(f, "it has no rank for {vipa}, as far as is known here"),
            Self::OtherLife { incarnation } => {
                write!(f, "it is about life {} of the node, which is over", incarnation.0)
            }
            Self::Epoch { vipa, epoch } => write!(f, "{vipa} cannot have come to epoch {epoch}"),
            Self::Stamp { count } => write!(f, "decisions cannot have come to number {count}"),
            Self::NoStation => f.write_str("the Ethernet address is not that of one station"),
            Self::Sequence { sequence } => write!(f, "the sequence number {sequence} cannot be"),
        }
    }
}

/// Whether this sender may send this message, and its numbers are acceptable.
pub(crate) fn may_send(sender: &Sender<'_>, message: &Message, known: &dyn Knowledge) -> Result<(), Denial> {
    match message {
        Message::Hello(_) => Err(Denial::OutOfPlace),
        Message::Voters(_) => Ok(()),
        Message::QueryRequest(_) | Message::SelfCheckReport(_) | Message::DecisionAck(_) => router(sender),
        Message::QueryReply(QueryReply { token: _, reply }) => match reply {
            Reply::Holds(_) => target(sender),
            Reply::Settings(_) | Reply::Events(_) | Reply::SettingsDigests(_) => router(sender),
            Reply::Unknown => Ok(()),
        },
        Message::Beat(Beat { sequence, owned }) => {
            router(sender)?;
            sequence_is_bounded(*sequence)?;
            owned.iter().try_for_each(|owned| owner(sender, owned.vipa, owned.epoch, known))
        }
        Message::Claims(Claims { claims }) => {
            router(sender)?;
            claims.iter().try_for_each(|claim| owner(sender, claim.vipa, claim.epoch, known))
        }
        Message::Distribution(Distribution { vipa, epoch, sender: standing, .. })
        | Message::Associate(Associate { vipa, epoch, standing, .. }) => {
            in_standing(*standing, sender, *vipa, *epoch, known)
        }
        Message::Release(Release { vipa, epoch }) => in_standing(Standing::Backup, sender, *vipa, *epoch, known),
        Message::Yield(Yield { vipa, epoch, follows: _ })
        | Message::YieldRefused(YieldRefused { vipa, epoch, missing: _ })
        | Message::Table(Table { vipa, epoch, .. }) => owner(sender, *vipa, *epoch, known),
        Message::TableReplica(TableReplica { vipa, epoch, copied }) => {
            owner(sender, *vipa, *epoch, known)?;
            match copied {
                Copied::Wanted | Copied::Locate(_) | Copied::Located(_) => Ok(()),
                Copied::Round(round) => sequence_is_bounded(round.number),
            }
        }
        Message::TakebackRequest(TakebackRequest { vipa }) => owner(sender, *vipa, Epoch::NONE, known),
        Message::BeatAck(BeatAck { sequence, superseded }) => {
            voter(sender, known)?;
            sequence_is_bounded(*sequence)?;
            superseded.iter().try_for_each(|by| told_epoch_is_bounded(by.vipa, by.epoch, known))
        }
        Message::Votes(Votes { votes }) => votes.iter().try_for_each(|vote| match vote {
            Vote::Grant(Grant { vipa, epoch, ballot: _ }) => {
                voter(sender, known)?;
                epoch_is_bounded(*vipa, *epoch, known)
            }
            Vote::Refuse(Refuse { vipa, epoch, ballot: _, reason, highest }) => {
                // Two routers without a quorum may have no other way to learn which of them is superseded.
                if !(*reason == Refusal::Superseded && known.voters().names.is_empty() && is_target(sender)) {
                    voter(sender, known)?;
                }
                epoch_is_bounded(*vipa, *epoch, known)?;
                told_epoch_is_bounded(*vipa, *highest, known)
            }
        }),
        Message::Listeners(_) | Message::Load(_) => target(sender),
        Message::LinkAddress(LinkAddress { mac }) => {
            target(sender)?;
            if mac.is_none_or(Mac::is_unicast) { Ok(()) } else { Err(Denial::NoStation) }
        }
        Message::Connections(Connections { vipa: _, run, upto, answers: _ }) => {
            target(sender)?;
            if upto.incarnation != sender.incarnation {
                return Err(Denial::OtherLife { incarnation: upto.incarnation });
            }
            let sequence = upto.sequence;
            sequence_is_bounded(sequence)?;
            match run {
                Run::Tail { after, records } if after.checked_add(records.len() as u64) != Some(sequence) => {
                    Err(Denial::Sequence { sequence })
                }
                Run::Tail { .. } | Run::Snapshot { .. } => Ok(()),
            }
        }
        Message::Decisions(Decisions { decisions }) => {
            let highest = known.highest_stamp().saturating_add(STAMP_JUMP).min(LAST_SEQUENCE);
            let beyond = decisions.iter().map(|decision| decision.stamp.count).find(|count| *count > highest);
            beyond.map_or(Ok(()), |count| Err(Denial::Stamp { count }))
        }
    }
}

fn is_target(sender: &Sender<'_>) -> bool {
    matches!(sender.role, Role::Target { .. })
}

fn router(sender: &Sender<'_>) -> Result<(), Denial> {
    if is_target(sender) { Err(Denial::NotARouter) } else { Ok(()) }
}

fn target(sender: &Sender<'_>) -> Result<(), Denial> {
    if is_target(sender) { Ok(()) } else { Err(Denial::NotATarget) }
}

fn voter(sender: &Sender<'_>, known: &dyn Knowledge) -> Result<(), Denial> {
    if known.is_elector(sender.node) { Ok(()) } else { Err(Denial::NotAVoter) }
}

/// Accepts a router that may own the VIPA, in an acceptable epoch.
pub(crate) fn owner(sender: &Sender<'_>, vipa: IpAddr, epoch: Epoch, known: &dyn Knowledge) -> Result<(), Denial> {
    in_standing(Standing::Owner, sender, vipa, epoch, known)
}

/// Accepts a router that may have this standing for the VIPA, in an acceptable epoch.
fn in_standing(
    standing: Standing,
    sender: &Sender<'_>,
    vipa: IpAddr,
    epoch: Epoch,
    known: &dyn Knowledge,
) -> Result<(), Denial> {
    router(sender)?;
    if !is_host_address(vipa) {
        return Err(Denial::NoVipa { vipa });
    }
    if known.may_be(standing, vipa, sender.node) == Some(false) {
        return Err(Denial::NoRank { vipa });
    }
    epoch_is_bounded(vipa, epoch, known)
}

/// The part of a beat that is accepted, and the VIPAs that its sender may not own: they count as not acknowledged.
pub(crate) fn split_beat(sender: &Sender<'_>, beat: &Beat, known: &dyn Knowledge) -> (Beat, Vec<Superseded>) {
    let is_owner = |owned: &&Owned| owner(sender, owned.vipa, owned.epoch, known).is_ok();
    let (owned, others): (Vec<&Owned>, Vec<&Owned>) = beat.owned.iter().partition(is_owner);
    let barred =
        others.iter().map(|owned| Superseded { vipa: owned.vipa, epoch: owned.epoch, holder: sender.node.clone() });
    let beat = Beat { sequence: beat.sequence, owned: owned.into_iter().cloned().collect() };
    (beat, barred.collect())
}

/// How much of a message is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    Whole,
    /// Beats and claims are about many VIPAs; those that are denied are removed from them.
    Part,
    Nothing,
}

impl Permission {
    /// For a message with this denial.
    pub(crate) fn of_denied(message: &Message, denial: &Denial) -> Self {
        match (message, denial) {
            (Message::Beat(_) | Message::Claims(_), Denial::NoRank { .. }) => Self::Part,
            _ => Self::Nothing,
        }
    }
}

/// Epochs grow by one with each election, from the first epoch of the voters' version. Lower ones are superseded.
fn epoch_is_bounded(vipa: IpAddr, epoch: Epoch, known: &dyn Knowledge) -> Result<(), Denial> {
    epoch_is_within(EPOCH_JUMP, vipa, epoch, known)
}

fn told_epoch_is_bounded(vipa: IpAddr, epoch: Epoch, known: &dyn Knowledge) -> Result<(), Denial> {
    epoch_is_within(TOLD_EPOCH_JUMP, vipa, epoch, known)
}

fn epoch_is_within(jump: u64, vipa: IpAddr, epoch: Epoch, known: &dyn Knowledge) -> Result<(), Denial> {
    let voters = known.voters();
    let next = Voters { version: voters.version.saturating_add(1), names: Vec::new() }.epochs();
    let highest = known.highest_epoch(vipa);
    let near = |from: Epoch| epoch.0 <= from.0.saturating_add(jump);
    let is_bounded = epoch.0 <= LAST_SEQUENCE
        && match highest {
            // A node that has no list of voters yet has received nothing.
            _ if !voters.are_known() => true,
            Epoch::NONE => epoch < next.end,
            _ => near(highest.max(voters.epochs().start)) || next.start <= epoch && near(next.start),
        };
    if is_bounded { Ok(()) } else { Err(Denial::Epoch { vipa, epoch }) }
}

/// Checks a vote of the file of votes: one that no election can have led to would prevent all elections.
pub fn check_stored_vote(vote: &StoredVote) -> Result<(), String> {
    let StoredVote { vipa, epoch, .. } = vote;
    if epoch.0 <= LAST_SEQUENCE { Ok(()) } else { Err(format!("{vipa} cannot have come to epoch {epoch}")) }
}

/// Checks a decision of the file of decisions: after one with the last number there could be no other.
pub fn check_stored_decision(decision: &Decision) -> Result<(), String> {
    let count = decision.stamp.count;
    if count <= LAST_SEQUENCE { Ok(()) } else { Err(format!("decisions cannot have come to number {count}")) }
}

fn sequence_is_bounded(sequence: u64) -> Result<(), Denial> {
    if sequence <= LAST_SEQUENCE { Ok(()) } else { Err(Denial::Sequence { sequence }) }
}

/// Messages that were ignored: counted, and noted now and then.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DenialCounts {
    count: u64,
    by_node: BTreeMap<NodeName, u64>,
    noted: BTreeMap<(NodeName, MessageKind), Moment>,
}

impl DenialCounts {
    /// Counts one. Returns whether it is to be noted.
    pub(crate) fn count(&mut self, now: Moment, node: &NodeName, kind: MessageKind) -> bool {
        self.count += 1;
        if self.by_node.len() < MAX_NOTED || self.by_node.contains_key(node) {
            *self.by_node.entry(node.clone()).or_default() += 1;
        }
        let place = (node.clone(), kind);
        if self.noted.get(&place).is_some_and(|noted| now.since(*noted) < QUIET) {
            return false;
        }
        self.noted.retain(|_, noted| now.since(*noted) < QUIET);
        if self.noted.len() < MAX_NOTED {
            self.noted.insert(place, now);
        }
        true
    }

    pub(crate) fn total(&self) -> u64 {
        self.count
    }

    /// Number of messages of this node.
    pub(crate) fn of(&self, node: &NodeName) -> u64 {
        self.by_node.get(node).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
