//! Changes of voters: operators write the next list into every node's file, and each node adopts it when it may.

use vipa_cluster::{Event, at_start, target};
use vipa_model::Voters;

use super::{CALM, MS, NodeId, What, World};

/// How often a node that may not adopt its file's voters yet tries again.
const AGAIN: u64 = 300 * MS;
/// Voters at least, and at most.
const VOTERS: std::ops::RangeInclusive<usize> = 3..=5;

impl World {
    /// The voters that a running node counts.
    pub(crate) fn voters_of(&self, node: NodeId) -> Option<Voters> {
        if !self.nodes[node].alive {
            return None;
        }
        match node.checked_sub(self.scene.routers) {
            None => self.gateways[node].as_ref().map(|gateway| gateway.brain.voters().clone()),
            Some(target) => Some(self.hosts[target].brain.voters().clone()),
        }
    }

    /// A node starts: the voters on its disk count, or else those of its file.
    pub(super) fn remember_voters(&mut self, node: NodeId) -> Voters {
        let (voters, wanted) = at_start(self.nodes[node].voters.take(), self.named());
        self.nodes[node].voters = Some(voters.clone());
        if wanted.is_some() {
            self.plan(self.now + AGAIN, What::GoBy { node });
        }
        voters
    }

    /// The voters that every node's file names now.
    pub(crate) fn named(&self) -> &Voters {
        &self.lists_of_voters[self.lists_of_voters.len() - 1]
    }

    /// Adds or removes one voter, whether the previous change has reached every node or not.
    pub(super) fn change_voters(&mut self, node: NodeId) {
        let (name, before) = (self.nodes[node].name.clone(), self.named());
        let (version, mut names) = (before.version + 1, before.names.clone());
        names.retain(|voter| *voter != name);
        if names.len() == before.names.len() {
            names.push(name);
        }
        if self.now >= CALM || !VOTERS.contains(&names.len()) {
            return;
        }
        let next = Voters::new(version, names);
        self.tell(|| format!("voters are to be {next:?}"));
        self.lists_of_voters.push(next);
        for node in 0..self.nodes.len() {
            let soon = self.random.within(0..400 * MS);
            self.plan(self.now + soon, What::GoBy { node });
        }
    }

    /// A node reads its file: other voters go to the disk first, if it may adopt them. If it may not adopt the last
    /// list, the operator gives it the latest that it may adopt: that of other nodes, or the next.
    pub(super) fn go_by_the_file(&mut self, node: NodeId) {
        // A node that does not run reads it when it starts.
        let Some(now) = self.voters_of(node).filter(|voters| voters != self.named()) else { return };
        let mut later = self.lists_of_voters.iter().rev().filter(|list| list.version > now.version);
        let may = later.find(|list| self.may_go_by(node, list)).cloned();
        let name = self.nodes[node].name.clone();
        self.tell(|| format!("{name} goes by voters {}, and may go by {may:?}", now.version));
        let Some(voters) = may else { return self.plan(self.now + AGAIN, What::GoBy { node }) };
        let life = self.nodes[node].life;
        let written = self.disk_time(node);
        self.plan(written, What::VotersWritten { node, life, voters });
    }

    pub(super) fn voters_written(&mut self, node: NodeId, life: u64, voters: Voters) {
        if self.nodes[node].life == life {
            self.nodes[node].voters = Some(voters.clone());
        }
        if !self.lives(node, life) {
            return;
        }
        self.plan(self.now + AGAIN, What::GoBy { node });
        if !self.may_go_by(node, &voters) {
            return;
        }
        match node.checked_sub(self.scene.routers) {
            None => {
                let settings = Box::new(self.settings(node, life, voters));
                self.feed_router(node, Event::Configured { settings });
            }
            Some(_) => self.feed_target(node, target::Event::Voters { voters }),
        }
    }

    /// Whether a running node may adopt these.
    fn may_go_by(&self, node: NodeId, named: &Voters) -> bool {
        let now = self.local(node);
        let judged = match node.checked_sub(self.scene.routers) {
            None => self.gateways[node].as_ref().map(|gateway| gateway.brain.may_go_by(now, named)),
            Some(target) => Some(self.hosts[target].brain.may_go_by(now, named)),
        };
        judged.is_some_and(|judged| judged.is_ok())
    }
}
