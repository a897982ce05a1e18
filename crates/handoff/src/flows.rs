//! The connection tables of both families, which control and workers both write.

use std::net::{IpAddr, SocketAddr};

use vipa_balance::{ClusterKey, hash_connection, hash_connection6};
use vipa_flow::{
    Admitted, Capacity, Confirmed, Counts, Cursor, FlowState, FlowTable, HashSeed, Hit, Key4, Key6, TableError, Tick,
};
use vipa_model::{Connection, ConnectionState, Protocol, TargetId, VipaId};

/// One table for each family.
#[derive(Debug)]
pub struct Flows {
    pub ipv4: FlowTable<Key4>,
    pub ipv6: FlowTable<Key6>,
}

/// Result of a target's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// It is in the table now, at this target.
    New,
    Known,
    /// The table has it at another target, the one of this path.
    Disputed(TargetId),
    /// The table has it at another target, from which this one may take nothing.
    Unlisted,
    /// The table has no room.
    Full,
}

/// What a target's report may take from another target that has the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing: no list names the target that reports it, and a list names the other.
    Nothing,
    /// Connections that the other target does not hold: its agent is not linked.
    Unheld,
    /// Every connection: a list names the target that reports it, and none names the other.
    Everything,
}

/// A connection's key in either family.
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

    /// The hash by which `balance` chooses a target, as workers compute it. `vipa`: the address of this key's VIPA;
    /// `None` when that is of the other family.
    #[must_use]
    pub fn balance_hash(&self, key: &ClusterKey, vipa: IpAddr) -> Option<u64> {
        match (*self, vipa) {
            (Self::V4(Key4 { client, client_port, vipa_port, vipa: _, protocol }), IpAddr::V4(vipa)) => {
                Some(hash_connection(key, client, client_port, vipa.to_bits(), vipa_port, protocol))
            }
            (Self::V6(Key6 { client, client_port, vipa_port, vipa: _, protocol }), IpAddr::V6(vipa)) => {
                Some(hash_connection6(key, client, client_port, vipa.to_bits(), vipa_port, protocol))
            }
            _ => None,
        }
    }

    /// Protocol and port of the service.
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
    pub fn inherit(
        &self,
        key: &AnyKey,
        target: TargetId,
        state: FlowState,
        since: Option<Tick>,
        now: Tick,
    ) -> Admitted {
        match key {
            AnyKey::V4(key) => self.ipv4.inherit(key, target, state, since, now),
            AnyKey::V6(key) => self.ipv6.inherit(key, target, state, since, now),
        }
    }

    /// Applies a target's report that it holds this connection, in this state. `target`: the path to that target;
    /// `is_its`: whether any given path leads to it; `claim`: what the report takes from the target of another path. A
    /// connection that it does not take is disputed: [`Disputes`](crate::Disputes) states for how long.
    pub fn report(
        &self,
        key: &AnyKey,
        target: TargetId,
        is_its: impl Fn(TargetId) -> bool,
        claim: impl Fn(TargetId) -> Claim,
        state: ConnectionState,
        now: Tick,
    ) -> Reported {
        let elsewhere = self.lookup(key).filter(|hit| !is_its(hit.target));
        let claim = elsewhere.filter(|hit| hit.state != FlowState::Ended).map(|hit| claim(hit.target));
        let state = match (state, elsewhere) {
            _ if claim == Some(Claim::Nothing) => return Reported::Unlisted,
            // A SYN that took two paths leaves a half-open socket at one target; the connection is at the target where
            // it was completed.
            (ConnectionState::HalfOpen, Some(hit)) if !matches!(hit.state, FlowState::HalfOpen | FlowState::Ended) => {
                return Reported::Known;
            }
            (ConnectionState::Established | ConnectionState::Closing, Some(hit))
                if claim == Some(Claim::Unheld) && self.is_linked(hit.target) =>
            {
                return Reported::Disputed(hit.target);
            }
            (ConnectionState::HalfOpen, _) => FlowState::HalfOpen,
            (ConnectionState::Established | ConnectionState::Closing, _) => FlowState::Confirmed,
        };
        match self.confirm(key, target, state, now) {
            Confirmed::New | Confirmed::NewEvicting(_) | Confirmed::Replaced(_) => Reported::New,
            Confirmed::Known => Reported::Known,
            Confirmed::Full => Reported::Full,
        }
    }

    /// Applies a target's report that it no longer holds this connection; `is_its` as of [`report`](Self::report). True
    /// if an entry had it at that target.
    pub fn report_end(&self, key: &AnyKey, is_its: impl Fn(TargetId) -> bool, now: Tick) -> bool {
        let Some(hit) = self.lookup(key).filter(|hit| is_its(hit.target)) else { return false };
        match key {
            AnyKey::V4(key) => self.ipv4.end(key, hit.target, now),
            AnyKey::V6(key) => self.ipv6.end(key, hit.target, now),
        }
    }

    /// Sets whether the agent of this path's target is linked and everything that it holds is in the table.
    pub fn set_linked(&self, target: TargetId, linked: bool) {
        self.ipv4.set_linked(target, linked);
        self.ipv6.set_linked(target, linked);
    }

    /// See [`FlowTable::note_diverged`].
    pub fn note_diverged(&self, target: TargetId) {
        self.ipv4.note_diverged(target);
    }

    /// See [`FlowTable::has_diverged`].
    #[must_use]
    pub fn has_diverged(&self, target: TargetId) -> bool {
        self.ipv4.has_diverged(target) || self.ipv6.has_diverged(target)
    }

    /// See [`FlowTable::forget_diverged`].
    pub fn forget_diverged(&self, target: TargetId) {
        self.ipv4.forget_diverged(target);
        self.ipv6.forget_diverged(target);
    }

    /// The value that [`set_linked`](Self::set_linked) set last.
    #[must_use]
    pub fn is_linked(&self, target: TargetId) -> bool {
        self.ipv4.is_linked(target)
    }

    /// See [`FlowTable::confirm`].
    pub fn confirm(&self, key: &AnyKey, target: TargetId, state: FlowState, now: Tick) -> Confirmed {
        match key {
            AnyKey::V4(key) => self.ipv4.confirm(key, target, state, now),
            AnyKey::V6(key) => self.ipv6.confirm(key, target, state, now),
        }
    }

    /// See [`FlowTable::touch`]. `hit` is the result of looking up `key`.
    pub fn touch(&self, key: &AnyKey, hit: &Hit, state: FlowState, now: Tick) {
        match key {
            AnyKey::V4(_) => self.ipv4.touch(hit, state, now),
            AnyKey::V6(_) => self.ipv6.touch(hit, state, now),
        }
    }

    /// Applies what the VIPA's owner sends about a connection that no target reports.
    pub fn follow(&self, key: &AnyKey, target: TargetId, state: FlowState, now: Tick) {
        match self.lookup(key) {
            Some(hit) if hit.state == FlowState::Ended => {
                self.remove(key, Some(hit.target));
                let _ = self.admit(key, target, state, now);
            }
            Some(hit) if hit.target == target && !hit.state.is_held() => self.touch(key, &hit, state, now),
            Some(_) => {}
            None => drop(self.admit(key, target, state, now)),
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

    /// Entries of both families, by state.
    #[must_use]
    pub fn count(&self) -> Counts {
        self.ipv4.count() + self.ipv6.count()
    }

    /// See [`FlowTable::held`].
    #[must_use]
    pub fn held(&self, is_ipv6: bool, target: TargetId) -> u64 {
        if is_ipv6 { self.ipv6.held(target) } else { self.ipv4.held(target) }
    }

    /// See [`FlowTable::evictions`].
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.ipv4.evictions() + self.ipv6.evictions()
    }

    /// Connections of both families that the tables were made for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.ipv4.capacity() + self.ipv6.capacity()
    }
}
