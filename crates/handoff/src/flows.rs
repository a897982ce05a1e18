//! The connection tables of both families, which control and workers both write.

use std::net::{IpAddr, SocketAddr};

use vipa_flow::{
    Admitted, Capacity, Confirmed, Counts, Cursor, FlowState, FlowTable, HashSeed, Hit, Key4, Key6, TableError, Tick,
};
use vipa_model::{Connection, Protocol, TargetId, VipaId};

/// One table for each family.
#[derive(Debug)]
pub struct Flows {
    pub ipv4: FlowTable<Key4>,
    pub ipv6: FlowTable<Key6>,
}

/// A connection's key in whichever family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnyKey {
    V4(Key4),
    V6(Key6),
}

impl AnyKey {
    /// The key of a connection to `vipa`, which has this address; `None` when the client is of the other family.
    #[must_use]
    pub fn of(vipa: VipaId, address: IpAddr, connection: &Connection) -> Option<Self> {
        let Connection { protocol, client, port: vipa_port } = *connection;
        let client_port = client.port();
        match (address, client.ip().to_canonical()) {
            (IpAddr::V4(_), IpAddr::V4(client)) => {
                Some(Self::V4(Key4 { client: client.to_bits(), client_port, vipa_port, vipa, protocol }))
            }
            (IpAddr::V6(_), IpAddr::V6(client)) => {
                Some(Self::V6(Key6 { client: client.to_bits(), client_port, vipa_port, vipa, protocol }))
            }
            _ => None,
        }
    }

    #[must_use]
    pub fn connection(&self) -> Connection {
        match *self {
            Self::V4(Key4 { client, client_port, vipa_port, vipa: _, protocol }) => {
                let client = SocketAddr::new(IpAddr::V4(client.into()), client_port);
                Connection { protocol, client, port: vipa_port }
            }
            Self::V6(Key6 { client, client_port, vipa_port, vipa: _, protocol }) => {
                let client = SocketAddr::new(IpAddr::V6(client.into()), client_port);
                Connection { protocol, client, port: vipa_port }
            }
        }
    }

    #[must_use]
    pub fn vipa(&self) -> VipaId {
        match self {
            Self::V4(key) => key.vipa,
            Self::V6(key) => key.vipa,
        }
    }

    /// The service's end of it.
    #[must_use]
    pub fn service(&self) -> (Protocol, u16) {
        match self {
            Self::V4(key) => (key.protocol, key.vipa_port),
            Self::V6(key) => (key.protocol, key.vipa_port),
        }
    }
}

impl Flows {
    /// Tables made for so many connections of each family.
    pub fn new(ipv4: usize, ipv6: usize, seed: HashSeed) -> Result<Self, TableError> {
        let ipv4 = FlowTable::new(Capacity::connections(ipv4), seed)?;
        Ok(Self { ipv4, ipv6: FlowTable::new(Capacity::connections(ipv6), seed)? })
    }

    #[must_use]
    pub fn lookup(&self, key: &AnyKey) -> Option<Hit> {
        match key {
            AnyKey::V4(key) => self.ipv4.lookup(key),
            AnyKey::V6(key) => self.ipv6.lookup(key),
        }
    }

    /// See [`FlowTable::prefetch`].
    pub fn prefetch(&self, key: &AnyKey) {
        match key {
            AnyKey::V4(key) => self.ipv4.prefetch(key),
            AnyKey::V6(key) => self.ipv6.prefetch(key),
        }
    }

    /// See [`FlowTable::admit`].
    pub fn admit(&self, key: &AnyKey, target: TargetId, state: FlowState, now: Tick) -> Admitted {
        match key {
            AnyKey::V4(key) => self.ipv4.admit(key, target, state, now),
            AnyKey::V6(key) => self.ipv6.admit(key, target, state, now),
        }
    }

    /// See [`FlowTable::inherit`].
    pub fn inherit(&self, key: &AnyKey, target: TargetId, since: Option<Tick>, now: Tick) -> Admitted {
        match key {
            AnyKey::V4(key) => self.ipv4.inherit(key, target, since, now),
            AnyKey::V6(key) => self.ipv6.inherit(key, target, since, now),
        }
    }

    /// See [`FlowTable::confirm`].
    pub fn confirm(&self, key: &AnyKey, target: TargetId, state: FlowState, now: Tick) -> Confirmed {
        match key {
            AnyKey::V4(key) => self.ipv4.confirm(key, target, state, now),
            AnyKey::V6(key) => self.ipv6.confirm(key, target, state, now),
        }
    }

    /// See [`FlowTable::remove`].
    pub fn remove(&self, key: &AnyKey, target: Option<TargetId>) -> bool {
        match key {
            AnyKey::V4(key) => self.ipv4.remove(key, target),
            AnyKey::V6(key) => self.ipv6.remove(key, target),
        }
    }

    /// See [`FlowTable::export`].
    pub fn export(&self, vipa: VipaId, visit: &mut dyn FnMut(AnyKey, TargetId, FlowState)) {
        self.ipv4.export(vipa, &mut |key, target, state| visit(AnyKey::V4(key), target, state));
        self.ipv6.export(vipa, &mut |key, target, state| visit(AnyKey::V6(key), target, state));
    }

    /// See [`FlowTable::export_where`].
    pub fn export_where(&self, wanted: &dyn Fn(VipaId) -> bool, visit: &mut dyn FnMut(AnyKey, TargetId, FlowState)) {
        self.ipv4.export_where(wanted, &mut |key, target, state| visit(AnyKey::V4(key), target, state));
        self.ipv6.export_where(wanted, &mut |key, target, state| visit(AnyKey::V6(key), target, state));
    }

    /// See [`FlowTable::walk`].
    pub fn walk(
        &self,
        is_ipv6: bool,
        cursor: &mut Cursor,
        buckets: usize,
        visit: &mut dyn FnMut(AnyKey, TargetId, FlowState),
    ) -> bool {
        if is_ipv6 {
            self.ipv6.walk(cursor, buckets, &mut |key, target, state| visit(AnyKey::V6(key), target, state))
        } else {
            self.ipv4.walk(cursor, buckets, &mut |key, target, state| visit(AnyKey::V4(key), target, state))
        }
    }

    /// Connections of both families, by state.
    #[must_use]
    pub fn count(&self) -> Counts {
        self.ipv4.count() + self.ipv6.count()
    }

    /// Connections of both families there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.ipv4.capacity() + self.ipv6.capacity()
    }
}
