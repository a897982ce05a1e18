//! Voters that change: operators write the next list into every node's file, and each node takes it up when it may.

use vipa_cluster::{Event, at_start, target};
use vipa_model::Voters;

use super::{MS, NodeId, What, World};

/// How often a node that may not take up its file's voters yet tries again.
const AGAIN: u64 = 1000 * MS;
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
    pub(super) fn remember_voters(&mut self, node: NodeId) {
        let (voters, wanted) = at_start(self.nodes[node].voters.take(), &self.named);
        self.nodes[node].voters = Some(voters);
        if wanted.is_some() {
            self.plan(self.now + AGAIN, What::GoBy { node });
        }
    }

    /// One voter more or less, once the change before has reached everybody.
    pub(super) fn change_voters(&mut self, node: NodeId) {
        let reached = (0..self.nodes.len()).all(|node| self.voters_of(node).as_ref() == Some(&self.named));
        let name = self.nodes[node].name.clone();
        let mut names = self.named.names.clone();
        names.retain(|voter| *voter != name);
        if names.len() == self.named.names.len() {
            names.push(name);
        }
        if !reached || !VOTERS.contains(&names.len()) {
            return self.tell(|| "the operator leaves the voters as they are".into());
        }
        self.named = Voters::new(self.named.version + 1, names);
        for node in 0..self.nodes.len() {
            let soon = self.random.within(0..400 * MS);
            self.plan(self.now + soon, What::GoBy { node });
        }
    }

    /// A node reads its file: other voters go to the disk first, if it may go by them.
    pub(super) fn go_by_the_file(&mut self, node: NodeId) {
        // One that does not run reads it when it starts.
        let Some(voters) = self.voters_of(node).filter(|voters| *voters != self.named) else { return };
        let may = self.may_go_by(node);
        self.tell(|| format!("node {node} goes by version {}; the next: {may:?}", voters.version));
        if may.is_err() {
            return self.plan(self.now + AGAIN, What::GoBy { node });
        }
        let (life, voters) = (self.nodes[node].life, self.named.clone());
        let written = self.disk_time(node);
        self.plan(written, What::VotersWritten { node, life, voters });
    }

    pub(super) fn voters_written(&mut self, node: NodeId, life: u64, voters: Voters) {
        if self.nodes[node].life == life {
            self.nodes[node].voters = Some(voters.clone());
        }
        if !self.lives(node, life) || voters != self.named {
            return;
        }
        if self.may_go_by(node).is_err() {
            return self.plan(self.now + AGAIN, What::GoBy { node });
        }
        match node.checked_sub(self.scene.routers) {
            None => {
                let settings = Box::new(self.settings(node, life));
                self.feed_router(node, Event::Configured { settings });
            }
            Some(_) => self.feed_target(node, target::Event::Voters { voters }),
        }
    }

    /// Whether a node that runs may go by what its file names.
    fn may_go_by(&self, node: NodeId) -> Result<(), String> {
        let (now, named) = (self.local(node), &self.named);
        let judged = match node.checked_sub(self.scene.routers) {
            None => self.gateways[node].as_ref().map(|gateway| gateway.brain.may_go_by(now, named)),
            Some(target) => Some(self.hosts[target].brain.may_go_by(now, named)),
        };
        judged.unwrap_or(Ok(())).map_err(|objection| objection.to_string())
    }
}
