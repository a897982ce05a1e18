//! What the thread that follows connections counts, for the rest of the agent.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use vipa_model::ConnectionState;
use vipa_protocol::{ListenerLoad, Served, load::MAX_SERVED};

#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Differences between BPF and the kernel's lists that were nobody's delay, and were put right.
    pub(crate) repaired: u64,
    begun: BTreeMap<IpAddr, Begun>,
}

/// What clients have begun at one VIPA.
#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    handshakes: u64,
    /// Of them, those that came to be connections.
    established: u64,
}

impl Facts {
    /// A client's connection is in a state, and was in another before or unknown.
    pub(super) fn begun(&mut self, vipa: IpAddr, before: Option<ConnectionState>, now: ConnectionState) {
        let begun = self.begun.entry(vipa).or_default();
        let is_whole = u64::from(now != ConnectionState::HalfOpen);
        match before {
            None => {
                begun.handshakes += 1;
                begun.established += is_whole;
            }
            Some(ConnectionState::HalfOpen) => begun.established += is_whole,
            Some(ConnectionState::Established | ConnectionState::Closing) => {}
        }
    }

    pub(super) fn keep(&mut self, is_kept: impl Fn(&IpAddr) -> bool) {
        self.begun.retain(|vipa, _| is_kept(vipa));
    }

    /// What has become of what clients began; `listeners`: with what waits to be accepted.
    pub(crate) fn served(&self, listeners: &[ListenerLoad]) -> Vec<Served> {
        let waiting = |vipa: IpAddr| -> u64 {
            listeners.iter().filter(|load| load.vipa == vipa).map(|load| u64::from(load.waiting)).sum()
        };
        let served = |(vipa, begun): (&IpAddr, &Begun)| {
            let Begun { handshakes, established } = *begun;
            Served { vipa: *vipa, begun: handshakes, established, accepted: established.saturating_sub(waiting(*vipa)) }
        };
        self.begun.iter().map(served).take(MAX_SERVED).collect()
    }
}

/// As one thread writes them and another reads them.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Facts>>);

impl Shared {
    pub(super) fn write(&self, facts: &Facts) {
        // Numbers are whole whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone_from(facts);
    }

    pub(super) fn read(&self) -> Facts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
