//! What the shell is to serve, unwrap, watch and look at: kept by VIPA, and emitted once for all events of a turn.
//!
//! With a thousand VIPAs, a list of all of them for each event would take longer than the events.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Outbox, Output, Target, Watched};

#[derive(Clone, Debug, Default)]
pub(super) struct Shell {
    served: BTreeSet<IpAddr>,
    tunnelled: BTreeSet<IpAddr>,
    watched: BTreeMap<IpAddr, Watched>,
    /// VIPAs and routers' addresses, as last emitted.
    unwrapped: (Vec<IpAddr>, Vec<IpAddr>),
    /// VIPAs of which something may have changed since they were last looked at here.
    touched: BTreeSet<IpAddr>,
    is_all_touched: bool,
    /// The last look that was requested and not emitted.
    look: Option<u64>,
}

impl Shell {
    pub(super) fn touch(&mut self, vipa: IpAddr) {
        self.touched.insert(vipa);
    }

    pub(super) fn touch_all(&mut self) {
        self.is_all_touched = true;
    }

    pub(super) fn look(&mut self, token: u64) {
        self.look = Some(token);
    }

    #[cfg(test)]
    pub(super) fn unwrapped_vipas(&self) -> &[IpAddr] {
        &self.unwrapped.0
    }

    #[cfg(test)]
    pub(super) fn watched(&self) -> impl Iterator<Item = &Watched> {
        self.watched.values()
    }
}

/// Adds a member or removes it; true when that changes the set.
fn set(members: &mut BTreeSet<IpAddr>, member: IpAddr, is_in: bool) -> bool {
    if is_in { members.insert(member) } else { members.remove(&member) }
}

impl Target {
    /// Whether [`tell`](Self::tell) may have something to emit.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.shell.is_all_touched || !self.shell.touched.is_empty() || self.shell.look.is_some()
    }

    /// Emits what has changed since the last call: what is to be served, unwrapped and watched, and then the look that
    /// answers all looks requested since.
    pub fn tell(&mut self, out: &mut Outbox) {
        let shell = &mut self.shell;
        let mut touched = std::mem::take(&mut shell.touched);
        let is_all_touched = std::mem::take(&mut shell.is_all_touched);
        if is_all_touched {
            touched.extend(self.vipas.keys().chain(shell.watched.keys()));
        }
        let (mut serves, mut unwraps, mut watches) = (false, is_all_touched, false);
        for vipa in touched {
            let serving = self.vipas.get(&vipa);
            serves |= set(&mut shell.served, vipa, serving.is_some_and(|serving| serving.is_needed_here()));
            unwraps |= set(&mut shell.tunnelled, vipa, serving.is_some_and(|serving| serving.is_tunnelled_here()));
            watches |= match serving.map(|serving| serving.watched()) {
                Some(watched) if shell.watched.get(&vipa) == Some(&watched) => false,
                Some(watched) => {
                    shell.watched.insert(vipa, watched);
                    true
                }
                None => shell.watched.remove(&vipa).is_some(),
            };
        }
        if serves {
            out.push(Output::Serve { vipas: shell.served.iter().copied().collect() });
        }
        if unwraps {
            let routers: BTreeSet<IpAddr> = self.tunnels.values().flatten().copied().collect();
            let vipas: Vec<IpAddr> = shell.tunnelled.iter().copied().collect();
            let unwrapped = if vipas.is_empty() { Default::default() } else { (vipas, routers.into_iter().collect()) };
            if unwrapped != shell.unwrapped {
                shell.unwrapped.clone_from(&unwrapped);
                let (vipas, routers) = unwrapped;
                out.push(Output::Unwrap { vipas, routers });
            }
        }
        if watches {
            out.push(Output::Watch { vipas: shell.watched.values().cloned().collect() });
        }
        if let Some(token) = shell.look.take() {
            out.push(Output::Look { token });
        }
    }
}
