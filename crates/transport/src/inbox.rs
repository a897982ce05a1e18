//! Received messages, on their way to the loop that handles them.
//!
//! There are three queues, each bounded by the bytes in it. A link's reader waits for room, and QUIC's flow control
//! makes its peer wait in turn. A beat that finds no room is dropped, as the network may drop it. Events of links
//! themselves are bounded by their number and always have room.

use std::{collections::HashMap, fmt, net::SocketAddr, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use vipa_model::{NodeName, printable};
use vipa_protocol::{Hello, Message, text::MAX_REASON, wire::MAX_MESSAGE};

/// Bytes waiting in each queue.
const BEAT_BYTES: usize = 1 << 20;
const URGENT_BYTES: usize = 16 << 20;
const BULK_BYTES: usize = 32 << 20;
/// What a waiting message costs beyond its bytes.
const OVERHEAD: usize = 128;

const _: () = assert!(URGENT_BYTES > MAX_MESSAGE + OVERHEAD && BULK_BYTES > MAX_MESSAGE + OVERHEAD);

/// Events of the links, in the order in which they happened on each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A link is up; messages follow. A link that replaces another comes after the other's `Down`.
    Up {
        peer: NodeName,
        hello: Hello,
    },
    /// The link is gone; no more events of it follow.
    Down {
        peer: NodeName,
    },
    Message {
        peer: NodeName,
        message: Message,
    },
    /// A connection was refused that is no peer's: with another cluster's certificate, with none, or of another
    /// version. It has changed nothing.
    Refused(Refusal),
}

/// The node that was refused, or that refuses this node, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// By its certificate, or as it was dialled; `None`: it has proved no identity.
    pub node: Option<NodeName>,
    pub address: SocketAddr,
    pub why: String,
    /// Refusals since this address was last reported.
    pub times: u64,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, address, why, times: _ } = self;
        match node {
            Some(node) => write!(f, "{node} at {address}: {why}"),
            None => write!(f, "{address}: {why}"),
        }
    }
}

/// Identifies one link for the life of the process.
pub(crate) type LinkId = u64;

#[derive(Debug)]
enum Item {
    Up { link: LinkId, peer: NodeName, hello: Hello },
    Down { peer: NodeName },
    Message { link: LinkId, peer: NodeName, message: Message, _room: OwnedSemaphorePermit },
    Refused { refusal: Refusal, _room: OwnedSemaphorePermit },
}

/// The end into which the links put events.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    beats: PeerQueue,
    urgent: PeerQueue,
    bulk: PeerQueue,
}

#[derive(Clone, Debug)]
struct PeerQueue {
    queue: mpsc::UnboundedSender<Item>,
    room: Arc<Semaphore>,
}

/// The end at which the program's loop waits.
#[derive(Debug)]
pub struct Receiver {
    beats: mpsc::UnboundedReceiver<Item>,
    urgent: mpsc::UnboundedReceiver<Item>,
    bulk: mpsc::UnboundedReceiver<Item>,
    /// Taken from `bulk` before it was certain that nothing urgent comes first.
    waiting: Option<Item>,
    live: HashMap<NodeName, LinkId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    Urgent,
    Bulk,
}

pub(crate) fn inbox() -> (Inbox, Receiver) {
    let (beats_in, beats) = mpsc::unbounded_channel();
    let (urgent_in, urgent) = mpsc::unbounded_channel();
    let (bulk_in, bulk) = mpsc::unbounded_channel();
    let lane = |queue, bytes| PeerQueue { queue, room: Arc::new(Semaphore::new(bytes)) };
    let beats_lane = lane(beats_in, BEAT_BYTES);
    let inbox = Inbox { beats: beats_lane, urgent: lane(urgent_in, URGENT_BYTES), bulk: lane(bulk_in, BULK_BYTES) };
    (inbox, Receiver { beats, urgent, bulk, waiting: None, live: HashMap::new() })
}

impl Inbox {
    pub(crate) fn up(&self, link: LinkId, peer: NodeName, hello: Hello) {
        self.urgent.put(Item::Up { link, peer, hello });
    }

    pub(crate) fn down(&self, peer: NodeName) {
        self.urgent.put(Item::Down { peer });
    }

    /// Reports a refusal unless too many wait already: refused nodes must not fill the queue.
    pub(crate) fn refused(&self, mut refusal: Refusal) {
        // Part of it may be the peer's own words.
        refusal.why = printable(&refusal.why, MAX_REASON);
        let room = cost(refusal.why.len());
        if let Ok(room) = Arc::clone(&self.urgent.room).try_acquire_many_owned(room) {
            self.urgent.put(Item::Refused { refusal, _room: room });
        }
    }

    /// Waits for room, then puts the message in. `bytes` is its size on the wire.
    pub(crate) async fn message(
        &self,
        urgency: Urgency,
        link: LinkId,
        peer: &NodeName,
        message: Message,
        bytes: usize,
    ) {
        let lane = match urgency {
            Urgency::Urgent => &self.urgent,
            Urgency::Bulk => &self.bulk,
        };
        let room = Arc::clone(&lane.room).acquire_many_owned(cost(bytes)).await;
        let room = room.expect("nobody closes this semaphore");
        lane.put(Item::Message { link, peer: peer.clone(), message, _room: room });
    }

    /// Puts a datagram's message in if there is room; returns whether there was.
    pub(crate) fn try_beat(&self, link: LinkId, peer: &NodeName, message: Message, bytes: usize) -> bool {
        let room = Arc::clone(&self.beats.room).try_acquire_many_owned(cost(bytes));
        let Ok(room) = room else { return false };
        self.beats.put(Item::Message { link, peer: peer.clone(), message, _room: room });
        true
    }
}

impl PeerQueue {
    fn put(&self, item: Item) {
        // Without a receiver the program is ending, and the item is not needed.
        let _ = self.queue.send(item);
    }
}

fn cost(bytes: usize) -> u32 {
    u32::try_from(bytes.min(MAX_MESSAGE) + OVERHEAD).expect("MAX_MESSAGE fits 32 bits")
}

impl Receiver {
    /// The next event: beats before orders, orders before bulk; `None` when the transport has ended. A beat that
    /// overtakes its link's `Up` is lost, as it may be in the network. Cancel-safe.
    pub async fn recv(&mut self) -> Option<LinkEvent> {
        loop {
            if let Ok(item) = self.beats.try_recv().or_else(|_| self.urgent.try_recv()) {
                if let Some(event) = self.accept(item) {
                    return Some(event);
                }
                continue;
            }
            // A link's `Up` was put in before its first bulk message, so no urgent item can still concern this one.
            if let Some(item) = self.waiting.take() {
                if let Some(event) = self.accept(item) {
                    return Some(event);
                }
                continue;
            }
            tokio::select! {
                biased;
                Some(item) = self.beats.recv() => {
                    if let Some(event) = self.accept(item) {
                        return Some(event);
                    }
                }
                item = self.urgent.recv() => {
                    if let Some(event) = self.accept(item?) {
                        return Some(event);
                    }
                }
                Some(item) = self.bulk.recv() => self.waiting = Some(item),
            }
        }
    }

    /// The next of the events that are there already, in the same order.
    pub fn try_recv(&mut self) -> Option<LinkEvent> {
        loop {
            let urgent = self.beats.try_recv().or_else(|_| self.urgent.try_recv()).ok();
            let item = urgent.or_else(|| self.waiting.take()).or_else(|| self.bulk.try_recv().ok())?;
            if let Some(event) = self.accept(item) {
                return Some(event);
            }
        }
    }

    /// The item as an event, unless its link has been replaced.
    fn accept(&mut self, item: Item) -> Option<LinkEvent> {
        match item {
            Item::Up { link, peer, hello } => {
                self.live.insert(peer.clone(), link);
                Some(LinkEvent::Up { peer, hello })
            }
            Item::Down { peer } => self.live.remove(&peer).map(|_| LinkEvent::Down { peer }),
            Item::Message { link, peer, message, _room } => {
                let counts = self.live.get(&peer) == Some(&link);
                counts.then_some(LinkEvent::Message { peer, message })
            }
            Item::Refused { refusal, _room } => Some(LinkEvent::Refused(refusal)),
        }
    }
}

#[cfg(test)]
mod tests;
