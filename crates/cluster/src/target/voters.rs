//! Voters at this target, and what becomes of peers when they change.

use vipa_model::{Moment, NodeName, Voters};
use vipa_protocol::Message;

use super::{Note, Outbox, Output, Settings, Target};
use crate::membership::{ListChange, Objection};

impl Target {
    /// The voters whose votes count here.
    #[must_use]
    pub fn voters(&self) -> &Voters {
        &self.settings.voters
    }

    /// Whether these voters may count here from now on.
    pub fn may_go_by(&self, now: Moment, next: &Voters) -> Result<(), Objection> {
        let Settings { me, voters, lease, .. } = &self.settings;
        self.membership.judge(now, *lease, (me, voters), next, self.peers.keys())
    }

    pub(super) fn go_by(&mut self, now: Moment, voters: &Voters, out: &mut Outbox) {
        if *voters == self.settings.voters {
            return;
        }
        let was_voter = self.is_voter();
        self.settings.voters = voters.clone();
        let ignored_peers = self.membership.take_up(now, (&self.settings.me, voters));
        if self.is_voter() && !was_voter {
            self.voter.keep_silent(now);
        }
        out.push(Output::Note(Note::Voters { voters: voters.clone() }));
        for to in self.peers.keys().chain(ignored_peers.keys()).cloned() {
            out.push(Output::Send { to, message: Message::Voters(voters.clone()) });
        }
        for (peer, hello) in ignored_peers {
            self.connected(now, peer, &hello, out);
        }
    }

    /// Handles a node's report that it goes by other voters from now on.
    pub(super) fn handle_voters(&mut self, now: Moment, peer: &NodeName, voters: Voters, out: &mut Outbox) {
        if !self.peers.contains_key(peer) && !self.membership.has_stranger(peer) {
            return;
        }
        match self.membership.heard(now, (&self.settings.me, &self.settings.voters), peer, voters) {
            ListChange::Introduced(hello) => self.connected(now, peer.clone(), &hello, out),
            ListChange::Others(voters) => out.push(Output::Note(Note::OtherVoters { peer: peer.clone(), voters })),
            ListChange::Nothing => {}
        }
    }
}
