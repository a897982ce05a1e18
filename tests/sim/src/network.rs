//! The links between nodes: streams that keep their order until the link breaks, and datagrams that guarantee nothing.

use std::collections::BTreeMap;

use vipa_protocol::Message;

use crate::{random::Random, world::Time};

const MS: Time = 1_000_000;
/// Silence after which a link is dead to both ends.
pub(crate) const IDLE_LIMIT: Time = 1000 * MS;

/// A node's number: routers first, then targets.
pub(crate) type NodeId = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Datagram,
    Orders,
    Bulk,
}

fn class(message: &Message) -> Class {
    match message {
        Message::Beat(_) | Message::BeatAck(_) => Class::Datagram,
        Message::Connections(_) | Message::Table(_) | Message::QueryReply(_) => Class::Bulk,
        _ => Class::Orders,
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    pub(crate) up: bool,
    /// Number of the link between these two nodes; a message belongs to one link.
    pub(crate) generation: u64,
    /// Since when nothing gets through.
    pub(crate) cut: Option<Time>,
    /// Since when messages of this node do not get through.
    pub(crate) mute: Option<(NodeId, Time)>,
    /// Messages that streams hold while the link is cut, in order.
    parked: Vec<(NodeId, NodeId, Message)>,
    /// When the last message of each stream arrives.
    last: BTreeMap<(NodeId, Class), Time>,
}

#[derive(Debug)]
pub(crate) struct Network {
    links: BTreeMap<(NodeId, NodeId), Link>,
    /// Datagrams lost and doubled, of a thousand.
    pub(crate) loss: u64,
    doubling: u64,
}

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) generation: u64,
    pub(crate) message: Message,
}

impl Network {
    pub(crate) fn new(pairs: impl Iterator<Item = (NodeId, NodeId)>, random: &mut Random) -> Self {
        let links = pairs.map(|pair| (pair, Link::default())).collect();
        Self { links, loss: random.within(0..100), doubling: random.within(0..50) }
    }

    pub(crate) fn pairs(&self) -> Vec<(NodeId, NodeId)> {
        self.links.keys().copied().collect()
    }

    pub(crate) fn link(&mut self, one: NodeId, other: NodeId) -> Option<&mut Link> {
        self.links.get_mut(&(one.min(other), one.max(other)))
    }

    /// When the copies of a message arrive; none when it is lost.
    pub(crate) fn send(
        &mut self,
        now: Time,
        from: NodeId,
        to: NodeId,
        message: Message,
        random: &mut Random,
    ) -> Vec<(Time, Letter)> {
        let (loss, doubling) = (self.loss, self.doubling);
        let Some(link) = self.link(from, to).filter(|link| link.up) else { return Vec::new() };
        let generation = link.generation;
        let letter = |message| Letter { from, to, generation, message };
        let class = class(&message);
        if class == Class::Datagram {
            if link.swallows(from) || random.chance(loss) {
                return Vec::new();
            }
            let copies = if random.chance(doubling) { 2 } else { 1 };
            let mut late =
                || now + if random.chance(10) { random.within(0..30 * MS) } else { random.within(MS / 20..3 * MS) };
            return (0..copies).map(|_| (late(), letter(message.clone()))).collect();
        }
        // Parked messages come before it, although the link may carry again by now.
        if link.swallows(from) || link.parked.iter().any(|(parked, ..)| *parked == from) {
            link.parked.push((from, to, message));
            return Vec::new();
        }
        let last = link.last.entry((from, class)).or_default();
        *last = (*last + 1).max(now + random.within(MS / 20..2 * MS));
        vec![(*last, letter(message))]
    }

    /// The link carries again; messages that streams held are sent on.
    pub(crate) fn heal(&mut self, now: Time, one: NodeId, other: NodeId, random: &mut Random) -> Vec<(Time, Letter)> {
        let Some(link) = self.link(one, other) else { return Vec::new() };
        (link.cut, link.mute) = (None, None);
        let parked = std::mem::take(&mut link.parked);
        parked.into_iter().flat_map(|(from, to, message)| self.send(now, from, to, message, random)).collect()
    }
}

impl Link {
    fn swallows(&self, from: NodeId) -> bool {
        self.cut.is_some() || self.mute.is_some_and(|(mute, _)| mute == from)
    }

    /// Since when it has not carried in both directions; a link does not survive that for long.
    pub(crate) fn broken(&self) -> Option<Time> {
        self.cut.into_iter().chain(self.mute.map(|(_, since)| since)).min()
    }

    /// Replaces the link by a new one, or by none; messages on the old one are lost.
    pub(crate) fn renew(&mut self, up: bool) {
        self.up = up;
        self.generation += 1;
        self.parked.clear();
        self.last.clear();
    }
}
