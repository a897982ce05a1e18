//! Voter membership: whose votes count, while that changes.
//!
//! Every node has its configuration's list of voters, with a version. A change reaches the nodes one after the other,
//! so for a while some go by version *n* and some by *n + 1*, and there must not be two owners. Three rules ensure
//! that:
//!
//! 1. A voter answers no node that goes by an older version than its own.
//! 2. A node adopts *n + 1* when it differs from *n* by one voter, and a majority of *n* has gone by *n* for two
//!    leases; or when another node has adopted it before.
//! 3. An epoch belongs to one version (`Voters::epochs`).
//!
//! By the first two rules, once any node goes by *n + 1*, no node that goes by *n − 1* can be granted anything or have
//! a lease: any majority of *n − 1* has a voter that no longer answers it, and what that voter answered before has
//! expired. Two neighbouring versions are left, whose majorities always have a voter in common, and that voter promises
//! once, whichever version asks. The third rule prevents an epoch from being granted twice by versions that are further
//! apart. A node must not forget the version that it has adopted: the shell writes it to the disk first.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use vipa_model::{Moment, NodeName, Voters};
use vipa_protocol::{Hello, KeyDigest, Role};

use crate::hello::{self, Mismatch};

/// Voters at the start of a node: those on its disk. A configuration with other voters gives the list that the node
/// adopts as soon as it may. A node without a list on its disk starts with the configured list if that is the first
/// version; otherwise it waits.
#[must_use]
pub fn at_start(on_disk: Option<Voters>, configured: &Voters) -> (Voters, Option<Voters>) {
    match on_disk {
        // Without a quorum nothing depends on the list.
        _ if configured.names.is_empty() => (configured.clone(), None),
        None if configured.version == 1 => (configured.clone(), None),
        Some(known) if known.names.is_empty() || known == *configured => (configured.clone(), None),
        known => (known.unwrap_or_default(), Some(configured.clone())),
    }
}

/// Highest version of the voters; a configuration's versions are far below.
const LAST_VERSION: u32 = 1_000_000;
/// Voters in a received list: more than any cluster has nodes.
const MAX_NAMES: usize = 4096;

/// Lists of voters that nodes have reported.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// Lists of routers and voters, which decide whether this node may adopt another list. They are kept after their
    /// links end.
    lists: BTreeMap<NodeName, Voters>,
    /// Lists of the other linked nodes.
    lists_of_others: BTreeMap<NodeName, Voters>,
    /// Peers whose list does not agree with this node's, and their greetings.
    ignored_peers: BTreeMap<NodeName, Hello>,
    /// Since when a majority of the voters is known to go by this version, or a later one.
    settled: Option<Moment>,
}

/// What becomes of a peer that goes by another list from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListChange {
    /// It was ignored until now; this is its greeting with the new list.
    Introduced(Hello),
    /// It is linked, and goes by this list, which is not this node's.
    Others(Voters),
    Nothing,
}

/// Why a list of voters is not adopted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Objection {
    SameVersion {
        version: u32,
    },
    Older {
        version: u32,
        next: u32,
    },
    /// Another node has other voters under this version.
    Another {
        next: u32,
        node: NodeName,
    },
    /// Another node has a later version.
    Outdated {
        next: u32,
        node: NodeName,
        has: u32,
    },
    /// A node that has no list yet starts with the first version, or with one that other nodes have.
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
    /// The previous change has not reached these nodes.
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
    let described = |nodes: &[NodeName], word| (!nodes.is_empty()).then(|| format!("{} {word}", listed(nodes)));
    let parts: Vec<_> = described(come, "would come").into_iter().chain(described(go, "would go")).collect();
    parts.join(" and ")
}

fn listed(nodes: &[NodeName]) -> String {
    nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

impl Membership {
    /// Checks a peer's greeting: the error is why it is ignored; `Some` is its list, if that is not this node's.
    pub(crate) fn meet(
        &mut self,
        now: Moment,
        (cluster, me, mine): ((&str, &KeyDigest), &NodeName, &Voters),
        peer: &NodeName,
        hello: &Hello,
    ) -> Result<Option<Voters>, Mismatch> {
        self.ignored_peers.remove(peer);
        let met = hello::check(cluster, mine, peer, hello);
        if let Ok(()) | Err(Mismatch::Voters { .. }) = &met {
            if hello.role == Role::Router {
                self.lists.entry(peer.clone()).or_default();
            }
            self.learn(now, (me, mine), peer, &hello.voters);
        }
        if let Err(Mismatch::Voters { .. }) = &met {
            self.ignored_peers.insert(peer.clone(), hello.clone());
        }
        met.map(|()| Some(hello.voters.clone()).filter(|theirs| theirs != mine))
    }

    pub(crate) fn has_stranger(&self, peer: &NodeName) -> bool {
        self.ignored_peers.contains_key(peer)
    }

    /// Records that a peer, linked or ignored, goes by another list from now on.
    pub(crate) fn heard(
        &mut self,
        now: Moment,
        (me, mine): (&NodeName, &Voters),
        peer: &NodeName,
        voters: Voters,
    ) -> ListChange {
        if voters.version > LAST_VERSION || voters.names.len() > MAX_NAMES {
            return ListChange::Nothing;
        }
        if let Some(hello) = self.ignored_peers.remove(peer) {
            return ListChange::Introduced(Hello { voters, ..hello });
        }
        self.learn(now, (me, mine), peer, &voters);
        if voters == *mine { ListChange::Nothing } else { ListChange::Others(voters) }
    }

    /// Records that the link to a peer has ended.
    pub(crate) fn part_from(&mut self, peer: &NodeName) {
        self.ignored_peers.remove(peer);
        self.lists_of_others.remove(peer);
    }

    /// Records that this node goes by `mine` from now on. Returns the greetings of the ignored peers, to be checked
    /// again.
    pub(crate) fn take_up(&mut self, now: Moment, (me, mine): (&NodeName, &Voters)) -> BTreeMap<NodeName, Hello> {
        self.settled = None;
        self.look(now, (me, mine));
        std::mem::take(&mut self.ignored_peers)
    }

    fn learn(&mut self, now: Moment, (me, mine): (&NodeName, &Voters), peer: &NodeName, list: &Voters) {
        if list.version > LAST_VERSION || list.names.len() > MAX_NAMES {
            return;
        }
        // A router is known as one since its greeting.
        let counts = mine.contain(peer) || self.lists.contains_key(peer);
        let of_its_kind = if counts { &mut self.lists } else { &mut self.lists_of_others };
        of_its_kind.insert(peer.clone(), list.clone());
        self.look(now, (me, mine));
    }

    fn look(&mut self, now: Moment, (me, mine): (&NodeName, &Voters)) {
        if self.settled.is_none() && self.with(me, mine) > mine.names.len() / 2 {
            self.settled = Some(now);
        }
    }

    /// Number of voters that go by this list, or a later one.
    fn with(&self, me: &NodeName, mine: &Voters) -> usize {
        let is = |voter: &&NodeName| {
            *voter == me || self.lists.get(*voter).is_some_and(|voters| voters.version >= mine.version)
        };
        mine.names.iter().filter(is).count()
    }

    fn list_of(&self, node: &NodeName) -> Option<&Voters> {
        self.lists.get(node).or_else(|| self.lists_of_others.get(node))
    }

    /// The list of a peer, if a voter that goes by `mine` answers it.
    pub(crate) fn answered(&self, mine: &Voters, peer: &NodeName) -> Option<&Voters> {
        self.lists.get(peer).filter(|theirs| mine.are_known() && theirs.version >= mine.version)
    }

    /// The nodes among `peers`, and among those that are ignored for it, that go by another list.
    pub(crate) fn others<'a>(
        &'a self,
        mine: &Voters,
        peers: impl Iterator<Item = &'a NodeName>,
    ) -> Vec<(NodeName, Voters)> {
        let peers = peers.chain(self.ignored_peers.keys());
        let other = |peer: &NodeName| Some((peer.clone(), self.list_of(peer).filter(|list| *list != mine)?.clone()));
        peers.filter_map(other).collect()
    }

    /// Whether a node that goes by `mine` may adopt `next`.
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
        if let Some((node, theirs)) = self.lists.iter().find(|(_, theirs)| theirs.version > wanted) {
            return Err(Objection::Outdated { next: wanted, node: node.clone(), has: theirs.version });
        }
        if let Some((node, _)) = self.lists.iter().find(|(_, theirs)| theirs.version == wanted && *theirs != next) {
            return Err(Objection::Another { next: wanted, node: node.clone() });
        }
        if self.lists.values().any(|theirs| theirs == next) || version == 0 && wanted == 1 {
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
        let behind = |node: &&NodeName| self.list_of(node).is_some_and(|theirs| (1..version).contains(&theirs.version));
        let nodes: Vec<NodeName> = linked.filter(behind).cloned().collect();
        if !nodes.is_empty() {
            return Err(Objection::LeftBehind { version, nodes });
        }
        match self.settled {
            // No node ever went by a version before the first.
            _ if version == 1 => Ok(()),
            None => Err(Objection::Unsettled { version, with: self.with(me, mine), of: mine.names.len() }),
            Some(since) if now.since(since) < lease * 2 => Err(Objection::TooSoon),
            Some(_) => Ok(()),
        }
    }
}
