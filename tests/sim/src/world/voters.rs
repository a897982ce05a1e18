//! Voters that change: operators write the next list into every node's file, and each node takes it up when it may.

use vipa_cluster::{Event, at_start, target};
use vipa_model::Voters;

use super::{CALM, MS, NodeId, What, World};

/// How often a node that may not take up its file's voters yet tries again.
const AGAIN: u64 = 300 * MS;
/// Voters at least, and at most.
const VOTERS: std::ops::RangeInclusive<usize> = 3..=5;

impl World {
    /// Whose votes a node that runs counts.
    pub(crate) fn voters_of(&self, node: NodeId) -> Option<Voters> {
        if !self.nodes[node].alive {
            return None;
        }
        match node.checked_sub(self.scene.routers) {
            None => self.gateways[node].as_ref().map(|gateway| gateway.brain.voters().clone()),
            Some(target) => Some(self.hosts[target].brain.voters().clone()),
        }
    }

    /// A node starts: what its disk has counts, or what its file has.
    pub(super) fn remember_voters(&mut self, node: NodeId) -> Voters {
        let (voters, wanted) = at_start(self.nodes[node].voters.take(), self.named());
        self.nodes[node].voters = Some(voters.clone());
        if wanted.is_some() {
            self.plan(self.now + AGAIN, What::GoBy { node });
        }
        voters
    }

    /// What every node's file names now.
    pub(crate) fn named(&self) -> &Voters {
        &self.lists_of_voters[self.lists_of_voters.len() - 1]
    }

    /// One voter more or less, whether the change before has reached everybody or not.
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

    /// A node reads its file: other voters go to the disk first, if it may go by them. When it may not go by the last list, the operator
    /// gives it the latest that it may go by: that of others, or the next.
    pub(super) fn go_by_the_file(&mut self, node: NodeId) {
        // One that does not run reads it when it starts.
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

    /// Whether a node that runs may go by these.
    fn may_go_by(&self, node: NodeId, named: &Voters) -> bool {
        let now = self.local(node);
        let judged = match node.checked_sub(self.scene.routers) {
            None => self.gateways[node].as_ref().map(|gateway| gateway.brain.may_go_by(now, named)),
            Some(target) => Some(self.hosts[target].brain.may_go_by(now, named)),
        };
        judged.is_some_and(|judged| judged.is_ok())
    }
}
