//! Whose votes count: a list with a version, so that it can change while the cluster runs.
//!
//! From one version to the next one voter comes or goes, so a majority of either list has a voter in common with every
//! majority of the other. What makes that enough is in `cluster`'s `electorate`.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{Epoch, NodeName};

/// Epochs that one version of the voters may grant. None is granted by two versions, whether their majorities meet or not.
const EPOCHS: u64 = 1_000_000_000;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Voters {
    /// From 1; 0 is that of a node which does not know yet whose votes count.
    pub version: u32,
    /// Sorted. Of a known version: none where there is no quorum.
    pub names: Vec<NodeName>,
}

impl Voters {
    /// More make an election slower and nothing safer.
    pub const MOST: usize = 7;

    #[must_use]
    pub fn new(version: u32, mut names: Vec<NodeName>) -> Self {
        names.sort();
        names.dedup();
        Self { version, names }
    }

    #[must_use]
    pub fn are_known(&self) -> bool {
        self.version > 0
    }

    #[must_use]
    pub fn contain(&self, node: &NodeName) -> bool {
        self.names.contains(node)
    }

    /// Those that `next` has more, and those it has no more.
    #[must_use]
    pub fn changes(&self, next: &Self) -> (Vec<NodeName>, Vec<NodeName>) {
        let beyond = |one: &Self, other: &Self| one.names.iter().filter(|node| !other.contain(node)).cloned().collect();
        (beyond(next, self), beyond(self, next))
    }

    /// Whether nodes that go by these and by `other` may work together: they are the same, or one change apart.
    #[must_use]
    pub fn agree(&self, other: &Self) -> bool {
        if !(self.are_known() && other.are_known()) {
            return true;
        }
        let (come, go) = self.changes(other);
        let apart = self.version.abs_diff(other.version);
        apart <= 1 && come.len() + go.len() <= apart as usize
    }

    /// What an epoch granted by these lies in.
    #[must_use]
    pub fn epochs(&self) -> Range<Epoch> {
        let first = |version: u64| Epoch(version.saturating_sub(1) * EPOCHS);
        let version = u64::from(self.version);
        first(version)..first(version + 1)
    }
}

/// The first version.
impl From<Vec<NodeName>> for Voters {
    fn from(names: Vec<NodeName>) -> Self {
        Self::new(1, names)
    }
}
