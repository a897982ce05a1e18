//! Messages that this target does not listen to, because their sender may not send them (`crate::authority`).

use std::net::IpAddr;

use vipa_model::{Epoch, Moment, NodeName, Voters};
use vipa_protocol::Message;

use super::{Note, Outbox, Output, Serving, Target};
use crate::authority::{Knowledge, Sender, may_send};

impl Knowledge for Target {
    fn voters(&self) -> &Voters {
        &self.settings.voters
    }

    fn is_elector(&self, node: &NodeName) -> bool {
        self.settings.voters.contain(node)
    }

    /// A target's configuration has no VIPAs and so no ranks.
    fn may_own(&self, _: IpAddr, _: &NodeName) -> Option<bool> {
        None
    }

    fn highest_epoch(&self, vipa: IpAddr) -> Epoch {
        let known = self.vipas.get(&vipa).map_or(Epoch::NONE, Serving::epoch);
        known.max(self.voter.highest(vipa))
    }

    fn highest_stamp(&self) -> u64 {
        self.ledger.highest_stamp()
    }
}

impl Target {
    /// Messages that were not listened to.
    #[must_use]
    pub fn messages_denied(&self) -> u64 {
        self.denied.total()
    }

    /// Whether this message of a linked node is to be listened to. One that is not is counted, and noted now and then.
    pub(super) fn permits(&mut self, now: Moment, from: &NodeName, message: &Message, out: &mut Outbox) -> bool {
        let Some(peer) = self.peers.get(from) else { return false };
        let sender = Sender { node: from, role: &peer.role, incarnation: peer.incarnation };
        let Err(denial) = may_send(&sender, message, self) else { return true };
        let kind = message.kind();
        if self.denied.count(now, from, kind) {
            out.push(Output::Note(Note::Denied { peer: from.clone(), kind, denial }));
        }
        false
    }
}
