//! Limits on handshakes, so that a flood of first packets (QUIC Initials) does not keep nodes from linking.
//!
//! ```text
//! Initial without a token ──► one of UNVALIDATED places free ──► begun
//!                                  │ none
//!                                  ▼
//!                             Retry: the source has to send the token back; nothing is kept for it
//!                                  │
//! Initial with the token ────► a place for its source ──────────► begun
//!   (its source is real)           │ none
//!                                  ▼
//!                             refused; a node comes back within half a second
//! ```
//! Addresses of configured nodes have places of their own, so that other real addresses cannot take those either. A
//! handshake keeps its place for [`HANDSHAKE_LIMIT`] at most.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Time from the first packet that is answered to the end of the handshake.
pub(crate) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(1);
/// Handshakes at one time with sources that have not proved their address. Up to this number, a handshake costs no
/// extra round trip.
const UNVALIDATED: usize = 8;
/// Handshakes at one time with the addresses of configured nodes, and with all others.
const PEERS: usize = 64;
const OTHERS: usize = 32;
/// Handshakes at one time with one source that has proved its address.
const PER_SOURCE: usize = 4;

/// Decision about a first packet.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The handshake begins, and lasts no longer than the place is kept.
    Begin(Place),
    /// The source must prove its address first (RFC 9000 §8.1.2).
    Validate,
    Refuse,
}

/// Whether an address is that of a node in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Peer,
    Other,
}

/// Whether a source has proved that it receives packets at its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validation {
    Validated,
    Unvalidated,
}

/// The handshakes under way.
#[derive(Debug, Default)]
pub(crate) struct Handshakes(Arc<Mutex<PlacesInUse>>);

#[derive(Debug, Default)]
struct PlacesInUse {
    unvalidated: usize,
    peers: usize,
    others: usize,
    /// Of `peers` and `others`; at most as many entries as there are places.
    by_source: HashMap<IpAddr, usize>,
}

/// A handshake's place, freed when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    taken: Arc<Mutex<PlacesInUse>>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Unvalidated,
    Validated(Source, IpAddr),
}

impl Handshakes {
    pub(crate) fn decide(&self, address: IpAddr, source: Source, validation: Validation) -> Decision {
        let kind = match validation {
            Validation::Unvalidated => Kind::Unvalidated,
            Validation::Validated => Kind::Validated(source, source_key(address, source)),
        };
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).take(kind) {
            return Decision::Begin(Place { taken: Arc::clone(&self.0), kind });
        }
        match validation {
            Validation::Unvalidated => Decision::Validate,
            Validation::Validated => Decision::Refuse,
        }
    }
}

impl PlacesInUse {
    /// Takes a place; false if none is free.
    fn take(&mut self, kind: Kind) -> bool {
        let (places, limit) = match kind {
            Kind::Unvalidated => (&mut self.unvalidated, UNVALIDATED),
            Kind::Validated(Source::Peer, _) => (&mut self.peers, PEERS),
            Kind::Validated(Source::Other, _) => (&mut self.others, OTHERS),
        };
        if *places == limit {
            return false;
        }
        if let Kind::Validated(_, key) = kind {
            let of_source = self.by_source.entry(key).or_default();
            if *of_source == PER_SOURCE {
                return false;
            }
            *of_source += 1;
        }
        *places += 1;
        true
    }

    fn free(&mut self, kind: Kind) {
        match kind {
            Kind::Unvalidated => self.unvalidated -= 1,
            Kind::Validated(Source::Peer, _) => self.peers -= 1,
            Kind::Validated(Source::Other, _) => self.others -= 1,
        }
        if let Kind::Validated(_, key) = kind
            && let Some(of_source) = self.by_source.get_mut(&key)
        {
            *of_source -= 1;
            if *of_source == 0 {
                self.by_source.remove(&key);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).free(self.kind);
    }
}

/// The key by which sources are counted: the address; for IPv6 the /64, in which a host may have any address, except
/// for addresses of nodes.
fn source_key(address: IpAddr, source: Source) -> IpAddr {
    match (address, source) {
        (IpAddr::V6(address), Source::Other) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        (address, _) => address,
    }
}

#[cfg(test)]
mod tests;
