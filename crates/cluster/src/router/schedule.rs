//! Schedule of the VIPAs: which have something to do, and when. It is updated as each VIPA changes, so that an event
//! costs the VIPAs that it is about and not a walk over all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};
use vipa_model::Moment;

use super::{RouterView, vipa::Vipa};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Schedule {
    /// In the order of time. A VIPA is listed at its deadline, or earlier: an owner's deadline is put off with every
    /// beat, which is noticed when the old time has come.
    timers: BTreeSet<(Moment, IpAddr)>,
    marks: BTreeMap<IpAddr, Marks>,
    owned: BTreeSet<IpAddr>,
    /// VIPAs that a stopping router still has to end.
    restless: BTreeSet<IpAddr>,
    /// VIPAs that are no longer in the configuration.
    retired: BTreeSet<IpAddr>,
    /// How often a VIPA was looked at: the cost of events.
    looks: u64,
}

/// A VIPA's membership of the lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Marks {
    timer: Option<Moment>,
    owned: bool,
    restless: bool,
    retired: bool,
}

impl Schedule {
    /// Updates the lists after a change of a VIPA, or of the router.
    pub(super) fn update(&mut self, vipa: &Vipa, overview: &RouterView<'_>) {
        self.looks += 1;
        let (address, due) = (vipa.settings.address, vipa.deadline(overview));
        let before = self.marks.entry(address).or_default();
        let stands = before.timer.filter(|at| *at > overview.now && due.is_some_and(|due| *at <= due));
        let after = Marks {
            timer: stands.or(due),
            owned: vipa.ownership().is_some(),
            restless: !vipa.is_at_rest(),
            retired: vipa.retired,
        };
        let before = std::mem::replace(before, after);
        if before != after {
            self.move_between(address, before, after);
        }
    }

    /// Removes a VIPA that this router has no part in any more.
    pub(super) fn forget(&mut self, vipa: IpAddr) {
        if let Some(before) = self.marks.remove(&vipa) {
            self.move_between(vipa, before, Marks::default());
        }
    }

    fn move_between(&mut self, vipa: IpAddr, before: Marks, after: Marks) {
        if before.timer != after.timer {
            before.timer.map(|before| self.timers.remove(&(before, vipa)));
            self.timers.extend(after.timer.map(|at| (at, vipa)));
        }
        let Self { owned, restless, retired, .. } = self;
        for (set, before, after) in [
            (owned, before.owned, after.owned),
            (restless, before.restless, after.restless),
            (retired, before.retired, after.retired),
        ] {
            match (before, after) {
                (false, true) => set.insert(vipa),
                (true, false) => set.remove(&vipa),
                (true, true) | (false, false) => continue,
            };
        }
    }

    /// When the first VIPA may have something to do.
    pub(super) fn next(&self) -> Option<Moment> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The VIPAs whose time may have come, by address.
    pub(super) fn due(&self, now: Moment) -> BTreeSet<IpAddr> {
        self.timers.iter().take_while(|(at, _)| *at <= now).map(|(_, vipa)| *vipa).collect()
    }

    pub(super) fn owned(&self) -> &BTreeSet<IpAddr> {
        &self.owned
    }

    pub(super) fn all_at_rest(&self) -> bool {
        self.restless.is_empty()
    }

    pub(super) fn retired_at_rest(&self) -> Vec<IpAddr> {
        self.retired.difference(&self.restless).copied().collect()
    }

    pub(super) fn looks(&self) -> u64 {
        self.looks
    }
}
