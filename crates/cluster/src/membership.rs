//! Whose votes count, while that changes.
//!
//! Every node has its configuration's list of voters, with a version. A change reaches the nodes one after the other, so
//! for a while some go by version *n* and some by *n + 1*, and there must not be two owners. Three rules see to it:
//!
//! 1. A voter answers nobody that goes by an older version than itself.
//! 2. A node takes up *n + 1* when it differs from *n* by one voter, and a majority of *n* has been going by *n* for two
//!    leases; or when somebody has taken it up before.
//! 3. An epoch belongs to one version (`Voters::epochs`).
//!
//! By the first two, when anybody goes by *n + 1*, nobody that goes by *n − 1* can be granted anything or have a lease:
//! any majority of *n − 1* has a voter that answers it no more, and what it answered before is over. What is left are two
//! neighbouring versions, whose majorities always have a voter in common, and that voter promises once, whoever asks.
//! The third keeps an epoch from being granted twice by versions that are further apart. A node must not forget what it
//! has taken up: the shell has it on the disk first.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use vipa_model::{Moment, NodeName, Voters};
use vipa_protocol::{Hello, KeyDigest, Role};

use crate::hello::{self, Mismatch};

/// Whose votes count when a node starts: those it has on its disk, and of a configuration that names others these are
/// what it is to go by as soon as it may. A node that remembers none starts with the first list, and waits with any other.
#[must_use]
pub fn at_start(on_disk: Option<Voters>, configured: &Voters) -> (Voters, Option<Voters>) {
    match on_disk {
        // Without a quorum nothing hangs on it.
        _ if configured.names.is_empty() => (configured.clone(), None),
        None if configured.version == 1 => (configured.clone(), None),
        Some(known) if known.names.is_empty() || known == *configured => (configured.clone(), None),
        known => (known.unwrap_or_default(), Some(configured.clone())),
    }
}

/// Versions of the voters are not greater than this; a configuration's are far less.
const LAST_VERSION: u32 = 1_000_000;
/// Voters in a list that somebody tells: more than any cluster has nodes.
const MAX_NAMES: usize = 4096;

/// What nodes have said of whose votes they count.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// Routers and voters, whose word decides whether this node may go by other voters. It outlives their links.
    said: BTreeMap<NodeName, Voters>,
    /// The other linked nodes.
    others_said: BTreeMap<NodeName, Voters>,
    /// Peers that go by voters which do not agree with this node's, and how they introduced themselves.
    strangers: BTreeMap<NodeName, Hello>,
    /// Since when a majority of the voters is known to go by this version, or a later one.
    settled: Option<Moment>,
}

/// What becomes of a peer that goes by others from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It was not listened to; this is how it introduces itself now.
    Introduced(Hello),
    /// It is linked, and goes by these, which are not this node's.
    Others(Voters),
    Nothing,
}

/// Why a list of voters is not taken up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Objection {
    SameVersion {
        version: u32,
    },
    Older {
        version: u32,
        next: u32,
    },
    /// Somebody has other voters under this version.
    Another {
        next: u32,
        node: NodeName,
    },
    /// Somebody is further.
    Outdated {
        next: u32,
        node: NodeName,
        has: u32,
    },
    /// A node that has no list yet starts with the first one, or with one that others have.
    NobodyHasIt {
        next: u32,
    },
    SeveralVersions {
        version: u32,
        next: u32,
    },
    SeveralVoters {
        come: Vec<NodeName>,
        go: Vec<NodeName>,
    },
    /// The change before this one has not reached these.
    LeftBehind {
        version: u32,
        nodes: Vec<NodeName>,
    },
    Unsettled {
        version: u32,
        with: usize,
        of: usize,
    },
    TooSoon,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameVersion { version } => {
                write!(f, "the voters are others, but their version is {version} still: give the list the next version")
            }
            Self::Older { version, next } => {
                write!(
                    f,
                    "voters_version is {version} here already and cannot go back to {next}: make it a change of its own"
                )
            }
            Self::Another { next, node } => {
                write!(
                    f,
                    "{node} has another list of voters with version {next}: the lists must be the same everywhere"
                )
            }
            Self::Outdated { next, node, has } => {
                write!(f, "voters_version {next} is of the past: {node} has version {has}; give this node that list")
            }
            Self::NobodyHasIt { next } => write!(
                f,
                "this node has no list of voters yet, and nobody it is linked to has version {next}: reload the others first"
            ),
            Self::SeveralVersions { version, next } => {
                write!(
                    f,
                    "voters_version cannot go from {version} to {next}: voters change one at a time, and so do versions"
                )
            }
            Self::SeveralVoters { come, go } => {
                write!(f, "voters change one at a time, and here {}", moved(come, go))
            }
            Self::LeftBehind { version, nodes } => write!(
                f,
                "the change of voters before this one has not reached {}: reload it with version {version} first",
                listed(nodes)
            ),
            Self::Unsettled { version, with, of } => write!(
                f,
                "of the {of} voters of version {version} only {with} are known to go by it; the next change needs a majority"
            ),
            Self::TooSoon => f.write_str("the change of voters before this one is younger than two leases: try again"),
        }
    }
}

fn moved(come: &[NodeName], go: &[NodeName]) -> String {
    let said = |nodes: &[NodeName], word| (!nodes.is_empty()).then(|| format!("{} {word}", listed(nodes)));
    let parts: Vec<_> = said(come, "would come").into_iter().chain(said(go, "would go")).collect();
    parts.join(" and ")
}

fn listed(nodes: &[NodeName]) -> String {
    nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

impl Membership {
    /// A peer introduces itself: why it is not listened to, or else what it goes by, if that is not what this node does.
    pub(crate) fn meet(
        &mut self,
        now: Moment,
        (cluster, me, mine): ((&str, &KeyDigest), &NodeName, &Voters),
        peer: &NodeName,
        hello: &Hello,
    ) -> Result<Option<Voters>, Mismatch> {
        self.strangers.remove(peer);
        let met = hello::check(cluster, mine, peer, hello);
        if let Ok(()) | Err(Mismatch::Voters { .. }) = &met {
            if hello.role == Role::Router {
                self.said.entry(peer.clone()).or_default();
            }
            self.learn(now, (me, mine), peer, &hello.voters);
        }
        if let Err(Mismatch::Voters { .. }) = &met {
            self.strangers.insert(peer.clone(), hello.clone());
        }
        met.map(|()| Some(hello.voters.clone()).filter(|theirs| theirs != mine))
    }

    pub(crate) fn has_stranger(&self, peer: &NodeName) -> bool {
        self.strangers.contains_key(peer)
    }

    /// A peer that is linked, or a stranger, says whose votes it counts from now on.
    pub(crate) fn heard(
        &mut self,
        now: Moment,
        (me, mine): (&NodeName, &Voters),
        peer: &NodeName,
        voters: Voters,
    ) -> Heard {
        if voters.version > LAST_VERSION || voters.names.len() > MAX_NAMES {
            return Heard::Nothing;
        }
        if let Some(hello) = self.strangers.remove(peer) {
            return Heard::Introduced(Hello { voters, ..hello });
        }
        self.learn(now, (me, mine), peer, &voters);
        if voters == *mine { Heard::Nothing } else { Heard::Others(voters) }
    }

    /// The link to a peer is gone.
    pub(crate) fn part_from(&mut self, peer: &NodeName) {
        self.strangers.remove(peer);
        self.others_said.remove(peer);
    }

    /// This node goes by `mine` from now on. Those that were not listened to are to be told, and to be met again.
    pub(crate) fn take_up(&mut self, now: Moment, (me, mine): (&NodeName, &Voters)) -> BTreeMap<NodeName, Hello> {
        self.settled = None;
        self.look(now, (me, mine));
        std::mem::take(&mut self.strangers)
    }

    fn learn(&mut self, now: Moment, (me, mine): (&NodeName, &Voters), peer: &NodeName, said: &Voters) {
        if said.version > LAST_VERSION || said.names.len() > MAX_NAMES {
            return;
        }
        // A router is known as one since it greeted.
        let counts = mine.contain(peer) || self.said.contains_key(peer);
        let of_its_kind = if counts { &mut self.said } else { &mut self.others_said };
        of_its_kind.insert(peer.clone(), said.clone());
        self.look(now, (me, mine));
    }

    fn look(&mut self, now: Moment, (me, mine): (&NodeName, &Voters)) {
        if self.settled.is_none() && self.with(me, mine) > mine.names.len() / 2 {
            self.settled = Some(now);
        }
    }

    /// How many of the voters go by this list, or a later one.
    fn with(&self, me: &NodeName, mine: &Voters) -> usize {
        let is = |voter: &&NodeName| {
            *voter == me || self.said.get(*voter).is_some_and(|voters| voters.version >= mine.version)
        };
        mine.names.iter().filter(is).count()
    }

    fn said_by(&self, node: &NodeName) -> Option<&Voters> {
        self.said.get(node).or_else(|| self.others_said.get(node))
    }

    /// What a peer goes by, if a voter that goes by `mine` answers it.
    pub(crate) fn answered(&self, mine: &Voters, peer: &NodeName) -> Option<&Voters> {
        self.said.get(peer).filter(|theirs| mine.are_known() && theirs.version >= mine.version)
    }

    /// The nodes of `peers`, and of those that are not listened to for it, that go by another list.
    pub(crate) fn others<'a>(
        &'a self,
        mine: &Voters,
        peers: impl Iterator<Item = &'a NodeName>,
    ) -> Vec<(NodeName, Voters)> {
        let peers = peers.chain(self.strangers.keys());
        let other = |peer: &NodeName| Some((peer.clone(), self.said_by(peer).filter(|said| *said != mine)?.clone()));
        peers.filter_map(other).collect()
    }

    /// Whether a node that goes by `mine` may take up `next`.
    pub(crate) fn judge<'a>(
        &self,
        now: Moment,
        lease: Duration,
        (me, mine): (&NodeName, &Voters),
        next: &Voters,
        linked: impl Iterator<Item = &'a NodeName>,
    ) -> Result<(), Objection> {
        let (version, wanted) = (mine.version, next.version);
        if next == mine {
            return Ok(());
        }
        if wanted <= version {
            return Err(match wanted == version {
                true => Objection::SameVersion { version },
                false => Objection::Older { version, next: wanted },
            });
        }
        if let Some((node, theirs)) = self.said.iter().find(|(_, theirs)| theirs.version > wanted) {
            return Err(Objection::Outdated { next: wanted, node: node.clone(), has: theirs.version });
        }
        if let Some((node, _)) = self.said.iter().find(|(_, theirs)| theirs.version == wanted && *theirs != next) {
            return Err(Objection::Another { next: wanted, node: node.clone() });
        }
        if self.said.values().any(|theirs| theirs == next) || version == 0 && wanted == 1 {
            return Ok(());
        }
        if version == 0 {
            return Err(Objection::NobodyHasIt { next: wanted });
        }
        if wanted != version + 1 {
            return Err(Objection::SeveralVersions { version, next: wanted });
        }
        let (come, go) = mine.changes(next);
        if come.len() + go.len() > 1 {
            return Err(Objection::SeveralVoters { come, go });
        }
        let behind = |node: &&NodeName| self.said_by(node).is_some_and(|theirs| (1..version).contains(&theirs.version));
        let nodes: Vec<NodeName> = linked.filter(behind).cloned().collect();
        if !nodes.is_empty() {
            return Err(Objection::LeftBehind { version, nodes });
        }
        match self.settled {
            // Nobody ever went by a version before the first.
            _ if version == 1 => Ok(()),
            None => Err(Objection::Unsettled { version, with: self.with(me, mine), of: mine.names.len() }),
            Some(since) if now.since(since) < lease * 2 => Err(Objection::TooSoon),
            Some(_) => Ok(()),
        }
    }
}
