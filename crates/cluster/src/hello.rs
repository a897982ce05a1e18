//! Whether a peer is of this cluster and counts the same votes.

use std::fmt;

use serde::{Deserialize, Serialize};
use vipa_model::NodeName;
use vipa_protocol::{Hello, VERSION};

/// Why a peer's messages are not listened to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mismatch {
    Version { theirs: u16 },
    Cluster { theirs: String },
    Voters { theirs: Vec<NodeName> },
    Name { theirs: NodeName },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { theirs } => write!(f, "it speaks version {theirs}, this node speaks {VERSION}"),
            Self::Cluster { theirs } => write!(f, "it belongs to cluster {theirs:?}"),
            Self::Voters { theirs } => write!(f, "its voters are {theirs:?}; they must be the same on every node"),
            Self::Name { theirs } => write!(f, "it calls itself {theirs}"),
        }
    }
}

/// `voters` sorted.
pub(crate) fn check(cluster: &str, voters: &[NodeName], peer: &NodeName, hello: &Hello) -> Result<(), Mismatch> {
    let Hello { version, cluster: theirs, node, role: _, addresses: _, incarnation: _, voters: their_voters } = hello;
    if *version != VERSION {
        return Err(Mismatch::Version { theirs: *version });
    }
    if theirs != cluster {
        return Err(Mismatch::Cluster { theirs: theirs.clone() });
    }
    if their_voters != voters {
        return Err(Mismatch::Voters { theirs: their_voters.clone() });
    }
    if node != peer {
        return Err(Mismatch::Name { theirs: node.clone() });
    }
    Ok(())
}
