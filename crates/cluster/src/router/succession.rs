//! Who comes before whom for a VIPA: ranks, and what bends them.
//!
//! ```text
//!   placed by an operator  >  fit, by rank  >  unfit, by rank  >  may not own it: deactivated, left, without a rank
//! ```
//! Nodes may differ over it for as long as a decision travels. Then a VIPA moves late or once more; who owns it is
//! decided by epochs and grants alone.

use vipa_model::{NodeName, Rank};

use super::{Around, vipa::Vipa};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Succession {
    pub(super) class: Class,
    rank: Rank,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Unfit,
    Fit,
    Placed,
}

impl Vipa {
    /// `None`: this router is not to own it.
    pub(super) fn succession(&self, router: &NodeName, around: &Around<'_>) -> Option<Succession> {
        let rank = self.settings.rank(router).filter(|_| !self.retired)?;
        if !around.decision_log.may_own(self.settings.address, router) {
            return None;
        }
        let unfit = if *router == around.settings.me {
            around.unfit
        } else {
            around.peers.get(router).is_some_and(|peer| peer.unfit.is_some())
        };
        let placed = around.decision_log.place(self.settings.address) == Some(router);
        let class = match (unfit, placed) {
            (true, _) => Class::Unfit,
            (false, true) => Class::Placed,
            (false, false) => Class::Fit,
        };
        Some(Succession { class, rank })
    }

    /// This router's own.
    pub(super) fn own_precedence(&self, around: &Around<'_>) -> Option<Succession> {
        self.succession(&around.settings.me, around)
    }

    /// Every router that comes before this one.
    pub(super) fn before_me<'a>(&'a self, around: &'a Around<'_>) -> impl Iterator<Item = &'a NodeName> {
        let mine = self.own_precedence(around);
        let ranked = self.settings.ranks.iter().map(|(name, _)| name);
        ranked.filter(move |name| **name != around.settings.me && self.succession(name, around) > mine)
    }

    /// The router that would own it if all were well.
    pub(super) fn rightful<'a>(&'a self, around: &'a Around<'_>) -> Option<&'a NodeName> {
        let present = |name: &&NodeName| **name == around.settings.me || around.peers.contains_key(*name);
        let ranked = self.settings.ranks.iter().map(|(name, _)| name).filter(present);
        let first = ranked.max_by_key(|name| self.succession(name, around))?;
        self.succession(first, around).map(|_| first)
    }
}
