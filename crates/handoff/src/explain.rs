//! Explanation of what a worker does with the next packet of a connection, computed without a packet and without
//! changing anything.
//!
//! It uses the same rules as the workers: the methods of [`VipaRoute`], [`ServiceRoute`] and [`Routes`] below. A
//! property test compares the result with what a worker does with the packet (`dataplane/tests/explain.rs`). It does
//! not predict what one worker alone counts: limits on new connections and on answers, overload, and connections for
//! which the table had no slot.

use vipa_flow::{FlowState, Hit, Tick};
use vipa_model::{Moment, Orphans, Protocol, Stance, TargetId, Unserved};

use crate::{AnyKey, Fate, Flows, LocalReply, Reason, Routes, ServiceRoute, VipaRoute};

/// Ticks after its end from which on an entry says nothing about the next connection of its addresses and ports: two
/// seconds.
const ENDED_EARLIER: u16 = 8;
/// Ticks after which a target's report is older than a rebuilding: one second, about as long as a rebuilding may take.
const OLD_REPORT: u16 = 4;

/// The packet to explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextPacket {
    /// A TCP segment that opens a connection.
    Syn,
    /// A TCP segment in the middle of a connection.
    Segment,
    Datagram,
}

/// Result for the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketOutcome {
    Forward(TargetId),
    /// The Ethernet address of the neighbour towards this target is not known yet.
    AwaitNeighbour(TargetId),
    /// The targets may still report the connection.
    AwaitReports,
    Fate(Fate),
}

/// How the target of a new connection is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChosenBy {
    /// The hash of the connection's addresses and ports.
    Hash,
    /// The service's next turn, by number.
    Turn(u64),
}

/// State of a connection, and the result for its next packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explained {
    pub packet: NextPacket,
    pub entry: Option<Hit>,
    /// How a target was chosen, if the packet needs one and the service has one.
    pub chosen_by: Option<ChosenBy>,
    pub outcome: PacketOutcome,
}

impl VipaRoute {
    /// Whether a repeated SYN may reach another router than the first one: both then choose alike. The yielding owner
    /// sends its successor what it has admitted before.
    #[inline]
    #[must_use]
    pub fn is_changing_hands(&self, now: Moment) -> bool {
        match self.stance {
            Stance::Standby | Stance::Yielding => true,
            Stance::Rebuilding | Stance::Active => now < self.by_hash_until,
        }
    }

    /// Whether new connections that no target serves are refused now. Only an owner that has all targets' listeners
    /// refuses. A VIPA without any service may only lack reports.
    #[inline]
    #[must_use]
    pub fn refuses_unserved(&self, now: Moment) -> bool {
        let knows = self.stance == Stance::Active && now >= self.quiet_until && !self.services.is_empty();
        self.unserved == Unserved::Refuse && knows
    }

    /// Whether targets may still report what they held before this router owned the VIPA.
    #[inline]
    #[must_use]
    pub fn awaits_reports(&self, now: Moment) -> bool {
        self.stance == Stance::Rebuilding || self.stance != Stance::Standby && now < self.quiet_until
    }

    /// The fate of a packet of a new connection that may not be opened, for this reason.
    #[inline]
    #[must_use]
    pub fn not_opened(&self, protocol: Protocol, reason: Reason, now: Moment) -> Fate {
        match reason {
            Reason::NoService | Reason::NoTarget if self.refuses_unserved(now) => Fate::Local(match protocol {
                Protocol::Tcp => LocalReply::Reset,
                Protocol::Udp => LocalReply::Unreachable,
            }),
            _ => Fate::Drop(reason),
        }
    }
}

impl ServiceRoute {
    /// The target of a new connection with this hash; `turn` counts the service's turns.
    #[inline]
    #[must_use]
    pub fn choose(&self, by_hash: bool, hash: u64, turn: impl FnOnce() -> u64) -> Option<TargetId> {
        if by_hash { self.picker.pick_by_hash(hash) } else { self.picker.pick(hash, turn) }
    }

    /// Whether UDP flows and half-open connections stay at this target: it serves, or it drains.
    #[inline]
    #[must_use]
    pub fn keeps_begun(&self, target: TargetId) -> bool {
        self.picker.serves(target) || self.draining.contains(&target)
    }
}

impl Routes {
    /// Whether no report about a connection is to be expected and its client's SYN shows that it is over. That is so in
    /// three cases: the target's agent has been away for long; or it is away, and the target does not answer its
    /// neighbours either; or it is away, nobody here sees whether the target lives, and this is the client's second SYN
    /// without any other segment. A target that answers its neighbours answers a SYN as well, though its SYN-ACK may
    /// get lost. `is_linked`: the target's agent is.
    #[inline]
    #[must_use]
    pub fn is_lost(&self, hit: &Hit, is_linked: bool, now: Tick) -> bool {
        /// A SYN that the network has duplicated is no second one: half a second.
        const SENT_AGAIN: u16 = 2;
        if is_linked {
            return false;
        }
        self.is_away(hit.target)
            || self.is_silent(hit.target)
            || !self.is_answering(hit.target) && hit.state == FlowState::Reopened && hit.silence(now) >= SENT_AGAIN
    }

    /// Whether the targets are still reporting, this target's agent is not linked, and its report is old.
    #[inline]
    #[must_use]
    pub fn is_in_doubt(
        &self,
        vipa: Option<&VipaRoute>,
        hit: &Hit,
        is_linked: impl FnOnce() -> bool,
        now: Tick,
    ) -> bool {
        self.is_rebuilding
            && hit.silence(now) >= OLD_REPORT
            && !is_linked()
            && !self.is_away(hit.target)
            && vipa.is_some_and(|vipa| vipa.stance == Stance::Rebuilding)
    }

    /// Why this router does not forward a SYN of a connection in the table: another router may own the VIPA and place
    /// it elsewhere. A router that was stopped finds SYNs of that time in its queues. An owner forwards SYNs to the
    /// target on a backup's own host.
    #[inline]
    #[must_use]
    pub fn begins_elsewhere(&self, vipa: &VipaRoute, hit: &Hit, now: Moment) -> Option<Reason> {
        match vipa.stance {
            Stance::Standby if self.own().contains(&hit.target) => None,
            Stance::Standby => Some(Reason::Standby),
            _ => vipa.lease.passed(now).then_some(Reason::Fenced),
        }
    }
}

/// Whether the connection ended so long ago that the next one of these addresses and ports may be at another target.
#[inline]
#[must_use]
pub fn has_ended_earlier(hit: &Hit, now: Tick) -> bool {
    hit.state == FlowState::Ended && hit.silence(now) >= ENDED_EARLIER
}

/// What a worker does with a packet of the connection `key` that arrives now.
#[must_use]
pub fn explain(routes: &Routes, flows: &Flows, key: &AnyKey, packet: NextPacket, now: Moment) -> Explained {
    let entry = flows.lookup(key);
    let Some(vipa) = routes.vipa(key.vipa()) else {
        return Explained { packet, entry, chosen_by: None, outcome: PacketOutcome::Fate(Fate::Drop(Reason::NoVipa)) };
    };
    let (protocol, port) = key.service();
    let service = vipa.find_service(protocol, port);
    let mut case = Case { routes, flows, key, vipa, service, now, chosen_by: None };
    let outcome = match entry {
        Some(hit) => case.known(packet, &hit),
        None => case.unknown(packet),
    };
    let outcome = match outcome {
        PacketOutcome::Forward(target) if routes.target(target).is_none_or(|route| route.next_hop.is_none()) => {
            PacketOutcome::AwaitNeighbour(target)
        }
        other => other,
    };
    Explained { packet, entry, chosen_by: case.chosen_by, outcome }
}

struct Case<'a> {
    routes: &'a Routes,
    flows: &'a Flows,
    key: &'a AnyKey,
    vipa: &'a VipaRoute,
    service: Option<&'a ServiceRoute>,
    now: Moment,
    chosen_by: Option<ChosenBy>,
}

impl Case<'_> {
    fn known(&mut self, packet: NextPacket, hit: &Hit) -> PacketOutcome {
        let tick = Tick::from(self.now);
        match packet {
            NextPacket::Syn => match self.routes.begins_elsewhere(self.vipa, hit, self.now) {
                Some(reason) => drop_for(reason),
                None => self.opened_again(hit),
            },
            NextPacket::Segment => {
                let is_linked = || self.flows.is_linked(hit.target);
                if hit.state == FlowState::Ended && self.vipa.awaits_reports(self.now)
                    || hit.state.is_held() && self.routes.is_in_doubt(Some(self.vipa), hit, is_linked, tick)
                {
                    PacketOutcome::AwaitReports
                } else if has_ended_earlier(hit, tick) {
                    self.orphan()
                } else {
                    PacketOutcome::Forward(hit.target)
                }
            }
            NextPacket::Datagram if self.service.is_some_and(|service| service.keeps_begun(hit.target)) => {
                PacketOutcome::Forward(hit.target)
            }
            NextPacket::Datagram => self.place_anew(hit),
        }
    }

    /// A SYN on a connection in the table.
    fn opened_again(&mut self, hit: &Hit) -> PacketOutcome {
        let (tick, is_linked) = (Tick::from(self.now), self.flows.is_linked(hit.target));
        let stays = match hit.state {
            FlowState::HalfOpen => {
                self.service.is_some_and(|service| service.keeps_begun(hit.target))
                    || !is_linked && self.routes.is_answering(hit.target)
            }
            FlowState::Ended if has_ended_earlier(hit, tick) => false,
            FlowState::Closing | FlowState::Ended => {
                self.service.is_some_and(|service| service.picker.serves(hit.target))
            }
            FlowState::Open | FlowState::Confirmed | FlowState::Reopened | FlowState::Udp => {
                !self.routes.is_lost(hit, is_linked, tick)
            }
        };
        if stays { PacketOutcome::Forward(hit.target) } else { self.place_anew(hit) }
    }

    fn place_anew(&mut self, hit: &Hit) -> PacketOutcome {
        if self.vipa.stance == Stance::Standby || self.vipa.lease.passed(self.now) {
            return PacketOutcome::Forward(hit.target);
        }
        self.open()
    }

    fn unknown(&mut self, packet: NextPacket) -> PacketOutcome {
        match packet {
            NextPacket::Syn | NextPacket::Datagram => self.admit(),
            NextPacket::Segment => self.orphan(),
        }
    }

    fn admit(&mut self) -> PacketOutcome {
        if self.vipa.stance == Stance::Standby {
            let own = self
                .service
                .and_then(|service| self.routes.own().iter().find(|path| service.picker.serves(**path)).copied());
            return own.map_or(drop_for(Reason::Standby), PacketOutcome::Forward);
        }
        if self.vipa.lease.passed(self.now) {
            return drop_for(Reason::Fenced);
        }
        self.open()
    }

    /// Chooses the target of a new connection.
    fn open(&mut self) -> PacketOutcome {
        match self.pick() {
            Ok(target) => PacketOutcome::Forward(target),
            Err(reason) => PacketOutcome::Fate(self.vipa.not_opened(self.key.service().0, reason, self.now)),
        }
    }

    fn pick(&mut self) -> Result<TargetId, Reason> {
        let service = self.service.ok_or(Reason::NoService)?;
        let client = self.key.connection().client.ip();
        if service.sources.as_ref().is_some_and(|rule| !rule.admits(client)) {
            return Err(Reason::Denied);
        }
        let hash = self.key.balance_hash(&self.routes.key, self.vipa.address).ok_or(Reason::NoVipa)?;
        let mut chosen_by = ChosenBy::Hash;
        let target = service.choose(self.vipa.is_changing_hands(self.now), hash, || {
            let turn = service.turns.read();
            chosen_by = ChosenBy::Turn(turn);
            turn
        });
        self.chosen_by = target.map(|_| chosen_by);
        target.ok_or(Reason::NoTarget)
    }

    /// A segment in the middle of a connection that is not in the table.
    fn orphan(&mut self) -> PacketOutcome {
        match self.vipa.stance {
            Stance::Standby => drop_for(Reason::Standby),
            _ if self.vipa.awaits_reports(self.now) => PacketOutcome::AwaitReports,
            _ if self.vipa.lease.passed(self.now) => drop_for(Reason::Fenced),
            Stance::Yielding => drop_for(Reason::Orphan),
            Stance::Active | Stance::Rebuilding => match self.service.map(|service| service.orphans) {
                None if self.vipa.refuses_unserved(self.now) => PacketOutcome::Fate(Fate::Local(LocalReply::Reset)),
                None => drop_for(Reason::NoService),
                Some(Orphans::Drop) => drop_for(Reason::Orphan),
                Some(Orphans::Reset) => PacketOutcome::Fate(Fate::Local(LocalReply::Reset)),
                Some(Orphans::Balance) => self.admit(),
            },
        }
    }
}

fn drop_for(reason: Reason) -> PacketOutcome {
    PacketOutcome::Fate(Fate::Drop(reason))
}
