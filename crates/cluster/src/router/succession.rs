//! Order of succession for a VIPA: ranks, and the decisions that override them.
//!
//! ```text
//!   placed by an operator  >  fit, by rank  >  unfit, by rank  >  may not own it: deactivated, left, without a rank
//! ```
//! Nodes may differ about it while a decision travels. Then a VIPA moves late or once more; epochs and grants alone
//! decide which router owns it.

use vipa_model::{NodeName, Rank};

use super::{RouterView, vipa::Vipa};

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
    pub(super) fn succession(&self, router: &NodeName, overview: &RouterView<'_>) -> Option<Succession> {
        let rank = self.settings.rank(router).filter(|_| !self.retired)?;
        if !overview.decision_log.may_own(self.settings.address, router) {
            return None;
        }
        let unfit = if *router == overview.settings.me {
            overview.unfit
        } else {
            overview.peers.get(router).is_some_and(|peer| peer.unfit.is_some())
        };
        let placed = overview.decision_log.place(self.settings.address) == Some(router);
        let class = match (unfit, placed) {
            (true, _) => Class::Unfit,
            (false, true) => Class::Placed,
            (false, false) => Class::Fit,
        };
        Some(Succession { class, rank })
    }

    /// This router's own.
    pub(super) fn own_precedence(&self, overview: &RouterView<'_>) -> Option<Succession> {
        self.succession(&overview.settings.me, overview)
    }

    /// Every router that comes before this one.
    pub(super) fn before_me<'a>(&'a self, overview: &'a RouterView<'_>) -> impl Iterator<Item = &'a NodeName> {
        let mine = self.own_precedence(overview);
        let ranked = self.settings.ranks.iter().map(|(name, _)| name);
        ranked.filter(move |name| **name != overview.settings.me && self.succession(name, overview) > mine)
    }

    /// The router that would own it if all routers were well.
    pub(super) fn rightful<'a>(&'a self, overview: &'a RouterView<'_>) -> Option<&'a NodeName> {
        let present = |name: &&NodeName| **name == overview.settings.me || overview.peers.contains_key(*name);
        let ranked = self.settings.ranks.iter().map(|(name, _)| name).filter(present);
        let first = ranked.max_by_key(|name| self.succession(name, overview))?;
        self.succession(first, overview).map(|_| first)
    }
}
