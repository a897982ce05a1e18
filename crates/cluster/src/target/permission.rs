//! Messages that this target ignores, because their sender may not send them (`crate::authority`).

use std::net::IpAddr;

use vipa_model::{Epoch, Moment, NodeName, Voters};
use vipa_protocol::{Message, Standing};

use super::{Note, Outbox, Output, Peer, Serving, Target};
use crate::authority::{Knowledge, Permission, Sender, may_send};

impl Knowledge for Target {
    fn voters(&self) -> &Voters {
        &self.settings.voters
    }

    fn is_elector(&self, node: &NodeName) -> bool {
        self.settings.voters.contain(node)
    }

    /// A target's configuration has no VIPAs and so no ranks: it uses those that the routers of a VIPA distribute. What
    /// a backup claims concerns only what this target sends it.
    fn may_be(&self, standing: Standing, vipa: IpAddr, router: &NodeName) -> Option<bool> {
        match standing {
            Standing::Owner => self.vipas.get(&vipa).map(|serving| serving.may_be_owned_by(router)),
            Standing::Backup => None,
        }
    }

    fn highest_epoch(&self, vipa: IpAddr) -> Epoch {
        let known = self.vipas.get(&vipa).map_or(Epoch::NONE, Serving::epoch);
        known.max(self.voter.highest(vipa))
    }

    fn highest_stamp(&self) -> u64 {
        self.decision_log.highest_stamp()
    }
}

impl Target {
    /// Number of messages that were ignored.
    #[must_use]
    pub fn messages_denied(&self) -> u64 {
        self.denied.total()
    }

    /// How much of this message of a linked node is accepted. A denied one is counted, and noted now and then.
    pub(super) fn permits(&mut self, now: Moment, from: &NodeName, message: &Message, out: &mut Outbox) -> Permission {
        let Some(sender) = self.sender(from) else { return Permission::Nothing };
        let Err(denial) = may_send(&sender, message, self) else { return Permission::Whole };
        let kind = message.kind();
        if self.denied.count(now, from, kind) {
            out.push(Output::Note(Note::Denied { peer: from.clone(), kind, denial: denial.clone() }));
        }
        Permission::of_denied(message, &denial)
    }

    /// A linked node, as the sender of messages.
    pub(super) fn sender<'a>(&'a self, node: &'a NodeName) -> Option<Sender<'a>> {
        let Peer { role, incarnation } = self.peers.get(node)?;
        Some(Sender { node, role, incarnation: *incarnation })
    }
}
