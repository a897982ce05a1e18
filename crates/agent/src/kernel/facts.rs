//! Counters of the thread that follows connections, for the rest of the agent.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use vipa_cluster::target::Watched;
use vipa_model::{Connection, ConnectionState, PortRange, Protocol};
use vipa_protocol::{ListenerLoad, Served, load::MAX_SERVED};

use super::whose::{Watch, services_of};

/// A TCP service: its VIPA and its ports.
pub(crate) type Place = (IpAddr, PortRange);

#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Differences between BPF and the kernel's lists that no delay explains, and that were repaired.
    pub(crate) repaired: u64,
    /// Times that the ring was full, so that something got lost.
    pub(crate) overflows: u64,
    begun: BTreeMap<Place, Begun>,
}

/// Connections that clients have begun at one service.
#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    handshakes: u64,
    /// Those that were established.
    established: u64,
}

impl Facts {
    /// Counts a connection's change from one state, or from an unknown one, to another. Only clients' connections
    /// count.
    pub(super) fn begun(
        &mut self,
        watch: &Watch,
        vipa: IpAddr,
        connection: &Connection,
        before: Option<ConnectionState>,
        now: ConnectionState,
    ) {
        let Some(watched) = watch.get(&vipa) else { return };
        let is_whole = u64::from(now != ConnectionState::HalfOpen);
        for ports in services_of(watched, connection.protocol, connection.port) {
            let begun = self.begun.entry((vipa, ports)).or_default();
            match before {
                None => {
                    begun.handshakes += 1;
                    begun.established += is_whole;
                }
                Some(ConnectionState::HalfOpen) => begun.established += is_whole,
                Some(ConnectionState::Established | ConnectionState::Closing) => {}
            }
        }
    }

    /// Forgets services that are watched no more.
    pub(super) fn keep(&mut self, watch: &Watch) {
        self.begun.retain(|place, _| watch.get(&place.0).is_some_and(|watched| is_of(watched, *place)));
    }

    /// The result of connections that clients began; `listeners`: those waiting to be accepted; `late`: those that
    /// waited in vain.
    pub(crate) fn served(&self, listeners: &[ListenerLoad], late: &BTreeMap<Place, u64>) -> Vec<Served> {
        let waiting = |(vipa, ports): Place| -> u64 {
            let of_it = listeners.iter().filter(|load| load.vipa == vipa && ports.contains(load.port));
            of_it.map(|load| u64::from(load.waiting)).sum()
        };
        let served = |(place, begun): (&Place, &Begun)| {
            let Begun { handshakes, established } = *begun;
            let left = waiting(*place) + late.get(place).copied().unwrap_or_default();
            let (vipa, ports) = *place;
            Served { vipa, ports, begun: handshakes, established, accepted: established.saturating_sub(left) }
        };
        self.begun.iter().map(served).take(MAX_SERVED).collect()
    }
}

/// Whether a place is one of the services of its VIPA.
pub(crate) fn is_of(watched: &Watched, (vipa, ports): Place) -> bool {
    watched.vipa == vipa && watched.services.contains(&(Protocol::Tcp, ports))
}

/// Counters that one thread writes and another reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Facts>>);

impl Shared {
    pub(super) fn write(&self, facts: &Facts) {
        // The numbers are consistent whichever thread panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone_from(facts);
    }

    pub(super) fn read(&self) -> Facts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
