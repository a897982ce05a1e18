//! The links, at most one to a peer, and sending on them.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn::{Connection, Endpoint, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use vipa_model::{Incarnation, NodeName};
use vipa_protocol::{Hello, Message, Role, wire};

use crate::{
    admission::Admission,
    certificate::Certified,
    expiry::CertificateInfo,
    identity::Identity,
    inbox::{Inbox, LinkId, Refusal},
    link::NoLink,
};

/// Bytes waiting to be sent on one link. A backup that asks for a million connections is sent 20 MB at once.
const ORDERS_BYTES: usize = 8 << 20;
const BULK_BYTES: usize = 64 << 20;
/// What a waiting message costs beyond its bytes.
const OVERHEAD: usize = 128;
/// Between two checks for room.
const TURN: Duration = Duration::from_millis(1);

/// Codes with which a link is closed (QUIC application error codes).
pub(crate) mod code {
    use quinn::VarInt;

    pub(crate) const STOPPING: VarInt = VarInt::from_u32(0);
    pub(crate) const REPLACED: VarInt = VarInt::from_u32(1);
    pub(crate) const REFUSED: VarInt = VarInt::from_u32(2);
    pub(crate) const GARBAGE: VarInt = VarInt::from_u32(3);
    pub(crate) const TOO_SLOW: VarInt = VarInt::from_u32(4);
    pub(crate) const SUCCEEDED: VarInt = VarInt::from_u32(5);
}

/// Counters of the transport since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    pub links_opened: u64,
    pub links_lost: u64,
    /// Attempts of nodes that could not prove to be of this cluster, or were of another version.
    pub refused: u64,
    /// Messages that could not be read; on a stream they end the link.
    pub garbage: u64,
    /// Links closed because the peer did not keep up.
    pub too_slow: u64,
    /// Datagrams that found no room at this end.
    pub datagrams_dropped: u64,
    /// Messages for peers without a link.
    pub unsent: u64,
    /// First packets whose sender was asked to prove its address, because many handshakes were under way.
    pub handshakes_retried: u64,
    /// Handshakes that found no place, although the address was proved.
    pub handshakes_refused: u64,
    /// Handshakes that were begun and took too long.
    pub handshakes_expired: u64,
}

/// Sends messages to peers; cheap to clone.
#[derive(Clone)]
pub struct Sender {
    pub(crate) registry: Arc<Registry>,
    pub(crate) endpoint: Endpoint,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("links", &self.linked()).finish_non_exhaustive()
    }
}

impl Sender {
    /// Sends `message` to `to`, never blocking. Without a link it is dropped and counted: `LinkEvent`s report which
    /// peers are linked, and the protocol repeats what matters.
    pub fn send(&self, to: &NodeName, message: &Message) {
        self.registry.send(to, message);
    }

    /// As `send`, but waits while more than half of the room for reports on that link is taken, up to `patience`: for
    /// threads that send more than may wait there. False: the peer has no link, or takes nothing.
    #[must_use]
    pub fn send_in_turn(&self, to: &NodeName, message: &Message, patience: Duration) -> bool {
        let begun = Instant::now();
        while self.registry.has_room(to) != Some(true) {
            if self.registry.has_room(to).is_none() || begun.elapsed() > patience {
                return false;
            }
            std::thread::sleep(TURN);
        }
        self.registry.send(to, message);
        true
    }

    /// Sets this node's greeting on new links; linked peers must be informed by a message.
    pub fn introduce(&self, hello: Hello) {
        self.registry.state().hello = hello;
    }

    /// Sets which nodes may link. Links of nodes that no longer may are closed.
    pub fn admit(&self, admission: Admission) {
        self.registry.admit(admission);
    }

    /// What this node's certificate says of itself, and then what each authority's says that it trusts; of the files that are in use now.
    /// [`expiry`](crate::expiry) says how long each is valid.
    #[must_use]
    pub fn certificates(&self) -> Arc<Vec<CertificateInfo>> {
        self.registry.certificates()
    }

    /// Peers with a link, sorted.
    #[must_use]
    pub fn linked(&self) -> Vec<NodeName> {
        let mut names: Vec<_> = self.registry.state().links.keys().cloned().collect();
        names.sort();
        names
    }

    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.registry.state().statistics
    }

    /// The address at which this node listens, or from which it dials.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Closes every link so that the peers notice at once, and waits until they have been informed.
    pub async fn close(&self) {
        self.endpoint.close(code::STOPPING, b"this node stops");
        self.endpoint.wait_idle().await;
    }
}

pub(crate) struct Registry {
    pub(crate) inbox: Inbox,
    keep_alive: Duration,
    state: Mutex<State>,
}

struct State {
    /// This node's greeting on new links.
    hello: Hello,
    admission: Admission,
    /// This node's, and those of the authorities it trusts.
    certificates: Arc<Vec<CertificateInfo>>,
    links: HashMap<NodeName, Link>,
    last_id: LinkId,
    statistics: Statistics,
}

struct Link {
    id: LinkId,
    incarnation: Incarnation,
    /// The peer's greeting, and the contents of its certificate.
    role: Role,
    certified: Certified,
    connection: Connection,
    orders: Queue,
    bulk: Queue,
}

impl Link {
    fn occupies(&self, peer: &NodeName, why: NoLink) -> Occupied {
        Occupied { peer: peer.clone(), id: self.id, connection: self.connection.clone(), why }
    }
}

/// Messages waiting for a stream, bounded by their bytes.
struct Queue {
    queue: mpsc::UnboundedSender<Waiting>,
    room: Arc<Semaphore>,
}

/// A framed message and the room that it takes.
pub(crate) struct Waiting {
    pub(crate) bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// A link that was just registered: its id and the queues of its writers.
pub(crate) struct Registered {
    pub(crate) id: LinkId,
    pub(crate) orders: mpsc::UnboundedReceiver<Waiting>,
    pub(crate) bulk: mpsc::UnboundedReceiver<Waiting>,
}

/// Result of an attempt to make a connection a link.
pub(crate) enum Entry {
    Registered(Registered),
    Refused(NoLink),
    /// A link is in the way. It stays if its peer is alive.
    Occupied(Occupied),
}

/// A link that is in the way of a new one.
pub(crate) struct Occupied {
    pub(crate) peer: NodeName,
    pub(crate) id: LinkId,
    pub(crate) connection: Connection,
    /// Sent to the new peer if the old link's peer is alive.
    pub(crate) why: NoLink,
}

impl Registry {
    /// `keep_alive`: longest pause between two packets of a live peer.
    pub(crate) fn new(
        inbox: Inbox,
        hello: Hello,
        admission: Admission,
        identity: &Identity,
        keep_alive: Duration,
    ) -> Self {
        let (links, last_id, statistics) = (HashMap::new(), LinkId::default(), Statistics::default());
        let certificates = Arc::clone(&identity.certificates);
        let state = State { hello, admission, certificates, links, last_id, statistics };
        Self { inbox, keep_alive, state: Mutex::new(state) }
    }

    pub(crate) fn certificates(&self) -> Arc<Vec<CertificateInfo>> {
        Arc::clone(&self.state().certificates)
    }

    pub(crate) fn set_certificates(&self, identity: &Identity) {
        self.state().certificates = Arc::clone(&identity.certificates);
    }

    pub(crate) fn keep_alive(&self) -> Duration {
        self.keep_alive
    }

    /// Whether a configured node links from this address.
    pub(crate) fn is_peer_address(&self, address: IpAddr) -> bool {
        self.state().admission.addresses.contains(&address)
    }

    pub(crate) fn admission(&self) -> Admission {
        self.state().admission.clone()
    }

    fn admit(&self, admission: Admission) {
        let mut state = self.state();
        let State { links, statistics, .. } = &mut *state;
        for (peer, link) in links {
            if let Err(why) = admission.check_certificate(&link.certified) {
                self.cut(peer, link, &why, statistics);
            }
        }
        state.admission = admission;
    }

    /// Closes one link whose certificate no authority of this identity has signed. Returns whether there was one.
    pub(crate) fn cut_untrusted(&self, identity: &Identity) -> bool {
        let mut state = self.state();
        let State { links, statistics, .. } = &mut *state;
        let is_live = |link: &Link| link.connection.close_reason().is_none();
        let untrusted = links.iter().find(|(_, link)| is_live(link) && !identity.trusts(&link.certified.der));
        if let Some((peer, link)) = untrusted {
            self.cut(peer, link, &NoLink::AuthorityGone(peer.clone()), statistics);
        }
        untrusted.is_some()
    }

    /// The link's task notices it, and removes the link.
    fn cut(&self, peer: &NodeName, link: &Link, why: &NoLink, statistics: &mut Statistics) {
        statistics.refused += 1;
        let why = why.to_string();
        refuse(&link.connection, code::REFUSED, &why);
        let address = link.connection.remote_address();
        self.inbox.refused(Refusal { node: Some(peer.clone()), address, why, times: 1 });
    }

    pub(crate) fn hello(&self) -> Hello {
        self.state().hello.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; were it so, the map would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, count: impl FnOnce(&mut Statistics)) {
        count(&mut self.state().statistics);
    }

    /// Whether at least half of the room for reports to this peer is free; `None`: it has no link.
    fn has_room(&self, peer: &NodeName) -> Option<bool> {
        let free = self.state().links.get(peer)?.bulk.room.available_permits();
        Some(free >= BULK_BYTES / 2)
    }

    pub(crate) fn is_linked(&self, peer: &NodeName) -> bool {
        self.state().links.contains_key(peer)
    }

    /// Makes `connection` the link to the node of its certificate. The newest incarnation of a node has its link, and
    /// of one incarnation the newest connection. A later incarnation from the same host replaces the earlier one at
    /// once: it is a process that was restarted. From another host it does not take the link of one that is alive, nor
    /// does one target take that of another with its address: the caller finds out whether a link that is in the way is
    /// alive.
    pub(crate) fn register(&self, certified: &Certified, hello: &Hello, connection: &Connection) -> Entry {
        let mut state = self.state();
        let peer = &certified.node;
        if let Some(link) = state.links.get(peer) {
            let linked = link.connection.remote_address();
            if link.incarnation > hello.incarnation {
                return Entry::Refused(NoLink::Older { node: peer.clone(), linked });
            }
            let elsewhere = linked.ip() != connection.remote_address().ip();
            if link.incarnation < hello.incarnation && elsewhere && link.connection.close_reason().is_none() {
                let why = NoLink::NameTaken { node: peer.clone(), linked };
                return Entry::Occupied(link.occupies(peer, why));
            }
        }
        if let Role::Target { address } = hello.role {
            let same = |(by, link): &(&NodeName, &Link)| *by != peer && link.role == hello.role;
            if let Some((by, link)) = state.links.iter().find(same) {
                let linked = link.connection.remote_address();
                let why = NoLink::AddressTaken { address, by: by.clone(), linked };
                return Entry::Occupied(link.occupies(by, why));
            }
        }
        state.last_id += 1;
        let id = state.last_id;
        let (orders, orders_out) = Queue::new(ORDERS_BYTES);
        let (bulk, bulk_out) = Queue::new(BULK_BYTES);
        let Hello { role, incarnation, .. } = hello.clone();
        let link =
            Link { id, incarnation, role, certified: certified.clone(), connection: connection.clone(), orders, bulk };
        state.statistics.links_opened += 1;
        // In one step under the lock, so that events of two links to one peer cannot interleave.
        if let Some(old) = state.links.insert(peer.clone(), link) {
            old.connection.close(code::REPLACED, b"a newer link has taken over");
            state.statistics.links_lost += 1;
            self.inbox.down(peer.clone());
        }
        self.inbox.up(id, peer.clone(), hello.clone());
        Entry::Registered(Registered { id, orders: orders_out, bulk: bulk_out })
    }

    /// Closes this link, whose peer has been silent while another one waits for its place.
    pub(crate) fn evict(&self, peer: &NodeName, id: LinkId) {
        if let Some(link) = self.state().links.get(peer).filter(|link| link.id == id) {
            link.connection.close(code::SUCCEEDED, b"silent while another has come in this node's place");
        }
        self.unregister(peer, id);
    }

    /// Removes a link that has ended; a newer one of the same peer stays.
    pub(crate) fn unregister(&self, peer: &NodeName, id: LinkId) {
        let mut state = self.state();
        if state.links.get(peer).is_some_and(|link| link.id == id) {
            state.links.remove(peer);
            state.statistics.links_lost += 1;
            self.inbox.down(peer.clone());
        }
    }

    fn send(&self, to: &NodeName, message: &Message) {
        if !self.is_linked(to) {
            return self.count(|statistics| statistics.unsent += 1);
        }
        // Encoding a large report takes long, so it is done without the lock.
        let lane = StreamClass::of(message);
        let framed = match wire::encode_framed(message) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => return tracing::error!(peer = %to, %error, "a message cannot be sent"),
        };
        let mut state = self.state();
        let State { links, statistics, .. } = &mut *state;
        let Some(link) = links.get(to) else {
            statistics.unsent += 1;
            return;
        };
        let queue = match lane {
            // A message that QUIC refuses here (too large for the path) is sent on a stream.
            StreamClass::Datagram if link.connection.send_datagram(framed.slice(wire::LENGTH_BYTES..)).is_ok() => {
                return;
            }
            StreamClass::Datagram | StreamClass::Orders => &link.orders,
            StreamClass::Bulk => &link.bulk,
        };
        if !queue.put(framed) {
            statistics.too_slow += 1;
            tracing::warn!(peer = %to, "the peer does not keep up; its link is closed");
            // The link's task notices it, removes the link and reports it.
            link.connection.close(code::TOO_SLOW, b"you do not keep up");
        }
    }
}

/// The stream or datagram by which a message is sent.
enum StreamClass {
    Datagram,
    Orders,
    Bulk,
}

impl StreamClass {
    fn of(message: &Message) -> Self {
        match message {
            Message::Beat(_) | Message::BeatAck(_) => Self::Datagram,
            Message::Connections(_) | Message::Table(_) | Message::QueryReply(_) | Message::TableReplica(_) => {
                Self::Bulk
            }
            Message::Hello(_)
            | Message::Voters(_)
            | Message::QueryRequest(_)
            | Message::Claims(_)
            | Message::Votes(_)
            | Message::Distribution(_)
            | Message::Associate(_)
            | Message::Release(_)
            | Message::Listeners(_)
            | Message::Yield(_)
            | Message::YieldRefused(_)
            | Message::TakebackRequest(_)
            | Message::SelfCheckReport(_)
            | Message::Decisions(_)
            | Message::DecisionAck(_)
            | Message::Load(_)
            | Message::LinkAddress(_) => Self::Orders,
        }
    }
}

impl Queue {
    fn new(bytes: usize) -> (Self, mpsc::UnboundedReceiver<Waiting>) {
        let (queue, out) = mpsc::unbounded_channel();
        (Self { queue, room: Arc::new(Semaphore::new(bytes)) }, out)
    }

    /// Puts a message into the queue; false if there is no room. A link whose writers have ended takes everything, and
    /// sends nothing.
    fn put(&self, bytes: Bytes) -> bool {
        let cost = u32::try_from(bytes.len() + OVERHEAD).expect("MAX_MESSAGE fits 32 bits");
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(cost) else { return false };
        let _ = self.queue.send(Waiting { bytes, _room: room });
        true
    }
}

/// Closes a connection that never became a link.
pub(crate) fn refuse(connection: &Connection, code: VarInt, why: &str) {
    connection.close(code, why.as_bytes());
}
