//! Which VIPAs have something to do, and when: kept up as each VIPA changes, so that an event costs what it is about and
//! not a walk over all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};
use vipa_model::Moment;

use super::{Around, vipa::Vipa};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Schedule {
    /// In the order of time, and the same by VIPA.
    timers: BTreeSet<(Moment, IpAddr)>,
    timer_of: BTreeMap<IpAddr, Moment>,
    owned: BTreeSet<IpAddr>,
    /// What a stopping router still has to end.
    restless: BTreeSet<IpAddr>,
    /// The configuration has lost them.
    retired: BTreeSet<IpAddr>,
    /// How often a VIPA was looked at: what an event costs.
    looks: u64,
}

impl Schedule {
    /// Takes in what has become of a VIPA, or of the router around it.
    pub(super) fn update(&mut self, vipa: &Vipa, around: &Around<'_>) {
        self.looks += 1;
        let address = vipa.settings.address;
        self.set_timer(address, vipa.deadline(around));
        mark(&mut self.owned, address, vipa.tenure().is_some());
        mark(&mut self.restless, address, !vipa.is_at_rest());
        mark(&mut self.retired, address, vipa.retired);
    }

    /// The router has nothing to do with this VIPA any more.
    pub(super) fn forget(&mut self, vipa: IpAddr) {
        self.set_timer(vipa, None);
        for set in [&mut self.owned, &mut self.restless, &mut self.retired] {
            set.remove(&vipa);
        }
    }

    fn set_timer(&mut self, vipa: IpAddr, at: Option<Moment>) {
        let before = match at {
            Some(at) => self.timer_of.insert(vipa, at),
            None => self.timer_of.remove(&vipa),
        };
        if before != at {
            before.map(|before| self.timers.remove(&(before, vipa)));
            self.timers.extend(at.map(|at| (at, vipa)));
        }
    }

    /// When the first VIPA has something to do.
    pub(super) fn next(&self) -> Option<Moment> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The VIPAs whose time has come, by address.
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

fn mark(set: &mut BTreeSet<IpAddr>, vipa: IpAddr, belongs: bool) {
    if belongs {
        set.insert(vipa);
    } else {
        set.remove(&vipa);
    }
}
