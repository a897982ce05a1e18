//! Messages that this router ignores, because their sender may not send them (`crate::authority`).

use std::net::IpAddr;

use vipa_model::{Epoch, Moment, NodeName, Voters};
use vipa_protocol::{Beat, Message, Role, Standing, Superseded};

use super::{Note, Outbox, Output, Router};
use crate::authority::{Denial, Knowledge, Permission, Sender, may_send, owner, split_beat};

impl Knowledge for Router {
    fn voters(&self) -> &Voters {
        &self.settings.voters
    }

    fn is_elector(&self, node: &NodeName) -> bool {
        self.settings.electors().contains(node)
    }

    fn may_be(&self, _: Standing, vipa: IpAddr, router: &NodeName) -> Option<bool> {
        self.vipas.get(&vipa).map(|vipa| vipa.may_be_owned_by(router))
    }

    fn highest_epoch(&self, vipa: IpAddr) -> Epoch {
        let known = self.vipas.get(&vipa).map_or(Epoch::NONE, super::Vipa::owned_epoch);
        known.max(self.voter.highest(vipa))
    }

    fn highest_stamp(&self) -> u64 {
        self.decision_log.highest_stamp()
    }
}

impl Router {
    /// Number of messages that were ignored.
    #[must_use]
    pub fn messages_denied(&self) -> u64 {
        self.denied.total()
    }

    /// Number of messages of this node that were ignored.
    #[must_use]
    pub fn messages_denied_of(&self, node: &NodeName) -> u64 {
        self.denied.of(node)
    }

    /// How much of this message of a linked node is accepted. A denied one is counted, and noted now and then.
    pub(super) fn permits(&mut self, now: Moment, from: &NodeName, message: &Message, out: &mut Outbox) -> Permission {
        let Err(denial) = self.may_send(from, message) else { return Permission::Whole };
        let kind = message.kind();
        if self.denied.count(now, from, kind) {
            out.push(Output::Note(Note::Denied { peer: from.clone(), kind, denial: denial.clone() }));
        }
        Permission::of_denied(message, &denial)
    }

    /// Whether this node may send this message.
    pub fn may_send(&self, from: &NodeName, message: &Message) -> Result<(), Denial> {
        match self.peers.get(from) {
            Some(peer) => {
                let sender = Sender { node: from, role: &peer.role, incarnation: peer.incarnation };
                may_send(&sender, message, self)
            }
            None if *from == self.settings.me => Ok(()),
            // An ignored node may only report that it goes by other voters.
            None if matches!(message, Message::Voters(_)) => Ok(()),
            None => Err(Denial::OutOfPlace),
        }
    }

    /// Whether this node may state that it owns the VIPA in this epoch, or claim it.
    pub(super) fn may_say_as_owner(&self, from: &NodeName, vipa: IpAddr, epoch: Epoch) -> bool {
        match self.peers.get(from) {
            Some(peer) => {
                let sender = Sender { node: from, role: &peer.role, incarnation: peer.incarnation };
                owner(&sender, vipa, epoch, self).is_ok()
            }
            None => *from == self.settings.me,
        }
    }

    /// The part of a beat that is accepted, and the VIPAs that its sender may not own: they count as not acknowledged.
    pub(super) fn split_beat(&self, from: &NodeName, beat: &Beat) -> (Beat, Vec<Superseded>) {
        match self.peers.get(from) {
            Some(peer) => {
                let sender = Sender { node: from, role: &peer.role, incarnation: peer.incarnation };
                split_beat(&sender, beat, self)
            }
            // A message of this router itself.
            None => (beat.clone(), Vec::new()),
        }
    }

    /// The linked node that greeted as the same target, if that is another node.
    pub(super) fn same_target(&self, peer: &NodeName, role: &Role) -> Option<NodeName> {
        let Role::Target { .. } = role else { return None };
        let same = |(name, other): &(&NodeName, &super::Peer)| *name != peer && other.role == *role;
        self.peers.iter().find(same).map(|(name, _)| name.clone())
    }
}
