//! Lifetime of one link: authentication, greeting, exchange, end.
//!
//! ```text
//! handshake ──► certificates checked by TLS ──► Hello both ways ──► registered (Up) ──► … ──► closed (Down)
//!                     │ no, or another's             │ other version, not its name or role, revoked,
//!                     │                              │ older life, name or address of a linked node
//!                     └──────────── Refused ─────────┘
//! ```
//! The dialled side checks the greeting before it greets, so that a node that is refused has never had a link.
//!
//! Each side opens two unidirectional streams; the first byte states which one a stream is.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use quinn::{Connection, ConnectionError, RecvStream, SendStream, Side};
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;
use vipa_model::{Incarnation, NodeName, printable};
use vipa_protocol::{Hello, Message, VERSION, text::MAX_REASON, wire};

use crate::{
    certificate::{Certified, RoleError},
    expiry::{self, Whose},
    inbox::{LinkId, Urgency},
    registry::{Entry, Registered, Registry, Waiting, code, refuse},
};

/// First byte of a stream.
const ORDERS: u8 = 0;
const BULK: u8 = 1;
/// Orders before bulk when both wait; QUIC's datagrams come before both.
const ORDERS_PRIORITY: i32 = 1;
const BULK_PRIORITY: i32 = 0;
/// Time for a peer that has authenticated to greet.
const GREETING_LIMIT: Duration = Duration::from_secs(3);
/// Keep-alive intervals of silence after which a linked peer counts as dead, so that another peer is admitted in its
/// place.
const SILENT_KEEP_ALIVES: u32 = 4;

/// Why a connection did not become a link.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoLink {
    #[error("its certificate is of no use: {0}")]
    Certificate(&'static str),
    #[error("its certificate says {certificate} and its greeting {greeting}; one certificate for one node")]
    Name { certificate: NodeName, greeting: NodeName },
    #[error("it speaks version {0} of the protocol and this node {VERSION}; install the same release on both")]
    Version(u16),
    #[error("it uses this node's own name; give each node its own certificate")]
    OwnName,
    #[error(transparent)]
    Role(#[from] RoleError),
    #[error("{0} is no router of this cluster: [cluster.routers] here does not name it")]
    UnknownRouter(NodeName),
    #[error("{0} is revoked (pki.revoked_nodes)")]
    RevokedNode(NodeName),
    #[error("the certificate of {node} is revoked (serial {serial} in pki.revoked_serials); issue it a new one")]
    RevokedSerial { node: NodeName, serial: String },
    #[error("the authority that signed the certificate of {0} is no longer in pki.ca here")]
    AuthorityGone(NodeName),
    #[error("{node} is linked already, from {linked}, and alive: a certificate is for one process; issue another one")]
    NameTaken { node: NodeName, linked: SocketAddr },
    #[error("{address} is the address of {by}, which is linked from {linked} and alive: one target for one address")]
    AddressTaken { address: IpAddr, by: NodeName, linked: SocketAddr },
    #[error("{node} cannot be in its life {life}")]
    Life { node: NodeName, life: u64 },
    #[error(
        "{node} is of an earlier life than the {node} that is linked from {linked}: if two processes use this name and certificate, stop \
         one, or give it its own (`vipactl pki issue`)"
    )]
    Older { node: NodeName, linked: SocketAddr },
    #[error("it did not greet in time")]
    Silent,
    #[error("it does not greet as a node does: {0}")]
    Greeting(String),
    #[error("{0}")]
    CertificateTime(String),
    #[error("its certificate is not accepted here ({0}); do both come from the same `vipactl pki init`?")]
    Untrusted(String),
    #[error("it does not accept this node's certificate ({0}); do both come from the same `vipactl pki init`?")]
    Distrusting(String),
    #[error("it refuses this node: {0}")]
    RefusedUs(String),
    #[error("the connection ended: {0}")]
    Ended(ConnectionError),
}

impl From<ConnectionError> for NoLink {
    fn from(error: ConnectionError) -> Self {
        // TLS alerts are these QUIC errors (RFC 9001 §4.8).
        let is_tls = |code: quinn::TransportErrorCode| (0x100..0x200).contains(&u64::from(code));
        match error {
            ConnectionError::TransportError(error) if is_tls(error.code) => {
                let time = expiry::explain(&error.reason, Whose::Peer, SystemTime::now());
                time.map_or(Self::Untrusted(error.reason), Self::CertificateTime)
            }
            ConnectionError::ConnectionClosed(close) if is_tls(close.error_code) => {
                let reason = String::from_utf8_lossy(&close.reason).into_owned();
                let time = expiry::explain(&reason, Whose::Own, SystemTime::now());
                time.map_or(Self::Distrusting(reason), |why| {
                    Self::CertificateTime(format!("it refuses this node: {why}"))
                })
            }
            ConnectionError::ApplicationClosed(close) if close.error_code == code::REFUSED => {
                Self::RefusedUs(String::from_utf8_lossy(&close.reason).into_owned())
            }
            error => Self::Ended(error),
        }
    }
}

/// Why a connection did not become a link, and the node, if it has authenticated as one.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) node: Option<NodeName>,
    pub(crate) why: NoLink,
}

impl From<ConnectionError> for Refused {
    fn from(error: ConnectionError) -> Self {
        Self { node: None, why: error.into() }
    }
}

/// Runs a connection until it ends. `Ok` when it was a link.
pub(crate) async fn run(registry: Arc<Registry>, connection: Connection) -> Result<(), Refused> {
    let mut node = None;
    let (link, registered) = match establish(&registry, &connection, &mut node).await {
        Ok(both) => both,
        Err(why) => {
            refuse(&connection, code::REFUSED, &why.to_string());
            return Err(Refused { node, why });
        }
    };
    let Link { peer, orders_in, orders_out } = link;
    let Registered { id, orders, bulk } = registered;
    tracing::debug!(%peer, address = %connection.remote_address(), "link up");
    let exchange = Exchange { registry: Arc::clone(&registry), connection: connection.clone(), peer: peer.clone(), id };
    let ended = tokio::select! {
        ended = connection.closed() => ended.to_string(),
        ended = exchange.read(orders_in, Urgency::Urgent) => ended,
        ended = exchange.read_bulk() => ended,
        ended = exchange.read_datagrams() => ended,
        ended = write(orders_out, orders) => ended,
        ended = write_bulk(&connection, bulk) => ended,
    };
    connection.close(code::GARBAGE, ended.as_bytes());
    registry.unregister(&peer, id);
    tracing::debug!(%peer, ended = printable(&ended, MAX_REASON), "link down");
    match connection.close_reason().map(NoLink::from) {
        // The peer received our greeting after we received its, and refused it.
        Some(why @ NoLink::RefusedUs(_)) => Err(Refused { node, why }),
        _ => Ok(()),
    }
}

struct Link {
    peer: NodeName,
    orders_in: RecvStream,
    orders_out: SendStream,
}

/// Sends the greeting, receives the peer's, checks it, and makes the connection the link to that peer.
async fn establish(
    registry: &Registry,
    connection: &Connection,
    node: &mut Option<NodeName>,
) -> Result<(Link, Registered), NoLink> {
    let identity = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let certificate = identity.as_ref().and_then(|chain| chain.first()).ok_or(NoLink::Certificate("there is none"))?;
    let certified = Certified::read(certificate).map_err(NoLink::Certificate)?;
    *node = Some(certified.node.clone());
    let ours = registry.hello();
    let greet = || async {
        let greeted = tokio::time::timeout(GREETING_LIMIT, greet(connection, &ours)).await;
        greeted.unwrap_or(Err(NoLink::Silent))
    };
    let hear = || async {
        let heard = tokio::time::timeout(GREETING_LIMIT, receive_greeting(connection)).await;
        heard.unwrap_or(Err(NoLink::Silent))
    };
    let (orders_out, (hello, orders_in)) = match connection.side() {
        Side::Client => (Some(greet().await?), hear().await?),
        Side::Server => (None, hear().await?),
    };
    check(registry, &certified, &hello, &ours)?;
    let registered = register(registry, &certified, &hello, connection).await?;
    let peer = certified.node;
    let orders_out = match orders_out {
        Some(orders_out) => orders_out,
        None => match greet().await {
            Ok(orders_out) => orders_out,
            Err(why) => {
                registry.unregister(&peer, registered.id);
                return Err(why);
            }
        },
    };
    Ok((Link { peer, orders_in, orders_out }, registered))
}

fn check(registry: &Registry, certified: &Certified, hello: &Hello, ours: &Hello) -> Result<(), NoLink> {
    if hello.version != VERSION {
        return Err(NoLink::Version(hello.version));
    }
    if hello.node != certified.node {
        return Err(NoLink::Name { certificate: certified.node.clone(), greeting: hello.node.clone() });
    }
    if certified.node == ours.node {
        return Err(NoLink::OwnName);
    }
    if hello.incarnation > Incarnation::LAST {
        return Err(NoLink::Life { node: certified.node.clone(), life: hello.incarnation.0 });
    }
    registry.admission().check(certified, hello)
}

/// Makes the connection the link to its peer. A link of the same node, or of the same target's address, may be in the
/// way, whose peer may be dead and not be missed yet: the new connection waits until that is known.
async fn register(
    registry: &Registry,
    certified: &Certified,
    hello: &Hello,
    connection: &Connection,
) -> Result<Registered, NoLink> {
    loop {
        let occupied = match registry.register(certified, hello, connection) {
            Entry::Registered(registered) => return Ok(registered),
            Entry::Refused(why) => return Err(why),
            Entry::Occupied(occupied) => occupied,
        };
        let before = occupied.connection.stats().udp_rx.datagrams;
        let patience = registry.keep_alive() * SILENT_KEEP_ALIVES;
        let closed = tokio::time::timeout(patience, occupied.connection.closed()).await.is_ok();
        if !closed && occupied.connection.stats().udp_rx.datagrams > before {
            return Err(occupied.why);
        }
        registry.evict(&occupied.peer, occupied.id);
    }
}

/// Opens this node's orders stream, and sends the greeting.
async fn greet(connection: &Connection, ours: &Hello) -> Result<SendStream, NoLink> {
    let lost = |error: &dyn std::fmt::Display| lost(connection, error);
    let mut orders = connection.open_uni().await?;
    orders.set_priority(ORDERS_PRIORITY).map_err(|error| lost(&error))?;
    let greeting = wire::encode_framed(&Message::Hello(ours.clone())).map_err(|error| lost(&error))?;
    orders.write_all(&[ORDERS]).await.map_err(|error| lost(&error))?;
    orders.write_all(&greeting).await.map_err(|error| lost(&error))?;
    Ok(orders)
}

/// The peer's greeting, and its orders stream, which follows.
async fn receive_greeting(connection: &Connection) -> Result<(Hello, RecvStream), NoLink> {
    // The peer opens its bulk stream only after it has received our greeting, so its first stream is its orders stream.
    let mut orders = connection.accept_uni().await?;
    let mut kind = [0];
    orders.read_exact(&mut kind).await.map_err(|error| lost(connection, &error))?;
    if kind != [ORDERS] {
        return Err(NoLink::Greeting("its first stream is not its orders".into()));
    }
    match read_message(&mut orders).await {
        Ok((Message::Hello(hello), _)) => Ok((hello, orders)),
        Ok(_) => Err(NoLink::Greeting("its first message is no Hello".into())),
        Err(error) => Err(lost(connection, &error)),
    }
}

fn lost(connection: &Connection, error: &dyn std::fmt::Display) -> NoLink {
    connection.close_reason().map_or_else(|| NoLink::Greeting(error.to_string()), NoLink::from)
}

struct Exchange {
    registry: Arc<Registry>,
    connection: Connection,
    peer: NodeName,
    id: LinkId,
}

impl Exchange {
    /// Reads messages until the stream or the link ends; returns why.
    async fn read(&self, mut stream: RecvStream, urgency: Urgency) -> String {
        loop {
            match read_message(&mut stream).await {
                Ok((message, bytes)) => {
                    self.registry.inbox.message(urgency, self.id, &self.peer, message, bytes).await;
                    // Reading a report takes long, and beats wait in the same thread.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    if let ReadFailure::Garbage(_) = error {
                        self.registry.count(|statistics| statistics.garbage += 1);
                    }
                    return error.to_string();
                }
            }
        }
    }

    async fn read_bulk(&self) -> String {
        let mut stream = match self.connection.accept_uni().await {
            Ok(stream) => stream,
            Err(error) => return error.to_string(),
        };
        let mut kind = [0];
        match stream.read_exact(&mut kind).await {
            Ok(()) if kind == [BULK] => self.read(stream, Urgency::Bulk).await,
            Ok(()) => "its second stream is not its bulk".into(),
            Err(error) => error.to_string(),
        }
    }

    async fn read_datagrams(&self) -> String {
        loop {
            let bytes = match self.connection.read_datagram().await {
                Ok(bytes) => bytes,
                Err(error) => return error.to_string(),
            };
            match wire::decode(&bytes) {
                Ok(message @ (Message::Beat(_) | Message::BeatAck(_))) => {
                    if !self.registry.inbox.try_beat(self.id, &self.peer, message, bytes.len()) {
                        self.registry.count(|statistics| statistics.datagrams_dropped += 1);
                    }
                }
                Ok(_) | Err(_) => {
                    self.registry.count(|statistics| statistics.garbage += 1);
                    tracing::debug!(peer = %self.peer, "a datagram is no beat");
                }
            }
        }
    }
}

async fn write(mut stream: SendStream, mut queue: mpsc::UnboundedReceiver<Waiting>) -> String {
    while let Some(Waiting { bytes, .. }) = queue.recv().await {
        if let Err(error) = stream.write_chunk(bytes).await {
            return error.to_string();
        }
    }
    "a newer link has taken over".into()
}

async fn write_bulk(connection: &Connection, queue: mpsc::UnboundedReceiver<Waiting>) -> String {
    let mut stream = match connection.open_uni().await {
        Ok(stream) => stream,
        Err(error) => return error.to_string(),
    };
    if let Err(error) = stream.set_priority(BULK_PRIORITY) {
        return error.to_string();
    }
    match stream.write_all(&[BULK]).await {
        Ok(()) => write(stream, queue).await,
        Err(error) => error.to_string(),
    }
}

#[derive(Debug, thiserror::Error)]
enum ReadFailure {
    #[error("the stream ended: {0}")]
    Ended(#[from] quinn::ReadExactError),
    #[error(transparent)]
    Garbage(#[from] wire::WireError),
}

/// The next message, and its size on the wire.
async fn read_message(stream: &mut RecvStream) -> Result<(Message, usize), ReadFailure> {
    let mut prefix = [0; wire::LENGTH_BYTES];
    stream.read_exact(&mut prefix).await?;
    let mut bytes = vec![0; wire::length(prefix)?];
    stream.read_exact(&mut bytes).await?;
    Ok((wire::decode(&bytes)?, bytes.len()))
}
