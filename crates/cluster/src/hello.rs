//! Check of a peer's greeting: whether it is of this cluster and counts the same votes.

use std::fmt;

use serde::{Deserialize, Serialize};
use vipa_model::{Incarnation, NodeName, Voters, listed, printable};
use vipa_protocol::{Hello, KeyDigest, VERSION, text::MAX_NAME};

/// Why a peer's messages are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mismatch {
    Version {
        theirs: u16,
    },
    Cluster {
        theirs: String,
    },
    /// Its `cluster.key` is another one.
    Key,
    Voters {
        mine: Voters,
        theirs: Voters,
    },
    Name {
        theirs: NodeName,
    },
    /// No process starts so late.
    Incarnation {
        theirs: Incarnation,
    },
    /// Another linked node is the same target.
    Target {
        by: NodeName,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { theirs } => write!(f, "it speaks version {theirs}, this node speaks {VERSION}"),
            Self::Cluster { theirs } => {
                write!(f, "it belongs to cluster \"{theirs}\": give all nodes the same cluster.name")
            }
            Self::Key => f.write_str("its cluster.key is another one than this node's: give all nodes the same key"),
            Self::Voters { mine, theirs } => write!(
                f,
                "its voters are {}, version {}, and this node's {}, version {}: one change apart at most they may be",
                listed(&theirs.names),
                theirs.version,
                listed(&mine.names),
                mine.version
            ),
            Self::Incarnation { theirs } => write!(f, "it cannot be in its life {}", theirs.0),
            Self::Target { by } => write!(f, "{by} is linked as the same target"),
            Self::Name { theirs } => write!(f, "it calls itself {theirs}"),
        }
    }
}

pub(crate) fn check(
    (cluster, key): (&str, &KeyDigest),
    voters: &Voters,
    peer: &NodeName,
    hello: &Hello,
) -> Result<(), Mismatch> {
    let Hello {
        version,
        cluster: theirs,
        key: their_key,
        node,
        role: _,
        addresses: _,
        incarnation,
        voters: their_voters,
    } = hello;
    if *version != VERSION {
        return Err(Mismatch::Version { theirs: *version });
    }
    if theirs != cluster {
        return Err(Mismatch::Cluster { theirs: printable(theirs, MAX_NAME) });
    }
    if !key.agrees(their_key) {
        return Err(Mismatch::Key);
    }
    if node != peer {
        return Err(Mismatch::Name { theirs: node.clone() });
    }
    if *incarnation > Incarnation::LAST {
        return Err(Mismatch::Incarnation { theirs: *incarnation });
    }
    if !voters.agree(their_voters) {
        return Err(Mismatch::Voters { mine: voters.clone(), theirs: their_voters.clone() });
    }
    Ok(())
}
