//! Held packets: their connection may become known, or their target's Ethernet address.

use std::{collections::VecDeque, time::Duration};

use vipa_handoff::{AnyKey, Reason};
use vipa_model::{Moment, PortId};

use crate::batch::Kind;

/// How long a SYN-ACK of an unknown connection waits for its target's report: longer than an agent takes to report, and
/// shorter than a server waits before it repeats it (1 s, RFC 6298 §2.1).
const SYN_ACK_WAIT: Duration = Duration::from_millis(300);

/// A held packet.
pub(crate) struct HeldPacket<B> {
    pub(crate) packet: B,
    pub(crate) key: AnyKey,
    pub(crate) kind: Kind,
    /// The port by which it arrived.
    pub(crate) port: PortId,
    pub(crate) since: Moment,
}

/// Held packets in order of arrival. Takes its memory when made and never more.
pub(crate) struct HoldQueue<B> {
    packets: VecDeque<HeldPacket<B>>,
    limit: usize,
    longest: Duration,
}

/// What a packet waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaiting {
    Connection,
    Neighbour,
    /// The report of a connection that a target opens.
    SynAckReport,
}

impl<B> HoldQueue<B> {
    pub(crate) fn new(limit: usize, longest: Duration) -> Self {
        Self { packets: VecDeque::with_capacity(limit), limit, longest }
    }

    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Holds a packet, or returns why not. Packets of silent targets may take half of the queue at most, and SYN-ACKs,
    /// which anybody may send, an eighth, so that they leave room for all other connections.
    pub(crate) fn push(&mut self, held: HeldPacket<B>, awaiting: Awaiting) -> Result<(), Reason> {
        let (room, refusal) = match awaiting {
            Awaiting::Connection => (self.limit, Reason::HoldFull),
            Awaiting::Neighbour => (self.limit / 2, Reason::NoNeighbour),
            Awaiting::SynAckReport => (self.limit / 8, Reason::SynAck),
        };
        if self.packets.len() >= room {
            return Err(refusal);
        }
        self.packets.push_back(held);
        Ok(())
    }

    /// Returns a packet to the end of the queue without a check: a packet that has just come out has room.
    pub(crate) fn put_back(&mut self, held: HeldPacket<B>) {
        self.packets.push_back(held);
    }

    pub(crate) fn pop(&mut self) -> Option<HeldPacket<B>> {
        self.packets.pop_front()
    }

    pub(crate) fn syn_ack_has_expired(held: &HeldPacket<B>, now: Moment) -> bool {
        now.since(held.since) >= SYN_ACK_WAIT
    }

    pub(crate) fn has_expired(&self, held: &HeldPacket<B>, now: Moment) -> bool {
        now.since(held.since) >= self.longest
    }
}
