//! One link's life: prove, greet, exchange, end.
//!
//! ```text
//! handshake ──► certificates checked by TLS ──► Hello both ways ──► registered (Up) ──► … ──► closed (Down)
//!                     │ no, or another's             │ other version, not its name, older life
//!                     └──────────── Refused ─────────┘
//! ```
//! Each side opens two unidirectional streams; the first byte says which is which.

use std::{sync::Arc, time::Duration};

use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;
use vipa_model::NodeName;
use vipa_protocol::{Hello, Message, VERSION, wire};

use crate::{
    identity::node_of,
    inbox::{LinkId, Urgency},
    registry::{Registered, Registry, Waiting, code, refuse},
};

/// First byte of a stream.
const ORDERS: u8 = 0;
const BULK: u8 = 1;
/// Orders before bulk when both wait; QUIC's datagrams go before both.
const ORDERS_PRIORITY: i32 = 1;
const BULK_PRIORITY: i32 = 0;
/// A peer that has proved itself has this long to greet.
const GREETING_LIMIT: Duration = Duration::from_secs(3);

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
    #[error("it is of an earlier life of a node whose later life is linked")]
    Older,
    #[error("it did not greet in time")]
    Silent,
    #[error("it does not greet as a node does: {0}")]
    Greeting(String),
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
            ConnectionError::TransportError(error) if is_tls(error.code) => Self::Untrusted(error.reason),
            ConnectionError::ConnectionClosed(close) if is_tls(close.error_code) => {
                Self::Distrusting(String::from_utf8_lossy(&close.reason).into_owned())
            }
            ConnectionError::ApplicationClosed(close) if close.error_code == code::REFUSED => {
                Self::RefusedUs(String::from_utf8_lossy(&close.reason).into_owned())
            }
            error => Self::Ended(error),
        }
    }
}

/// Runs a connection until it ends. `Ok` when it was a link.
pub(crate) async fn run(registry: Arc<Registry>, connection: Connection) -> Result<(), NoLink> {
    let hello = registry.hello();
    let greeted = match tokio::time::timeout(GREETING_LIMIT, greet(&connection, &hello)).await {
        Ok(greeted) => greeted,
        Err(_) => Err(NoLink::Silent),
    };
    let greeted = greeted.and_then(|greeted| {
        let registered = registry.register(&greeted.peer, greeted.hello.clone(), &connection).ok_or(NoLink::Older)?;
        Ok((greeted, registered))
    });
    let (greeted, registered) = match greeted {
        Ok(both) => both,
        Err(why) => {
            refuse(&connection, code::REFUSED, &why.to_string());
            return Err(why);
        }
    };
    let Greeted { peer, hello: _, orders_in, orders_out } = greeted;
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
    tracing::debug!(%peer, %ended, "link down");
    match connection.close_reason().map(NoLink::from) {
        // The peer heard our greeting after we heard its, and did not like it.
        Some(refused @ NoLink::RefusedUs(_)) => Err(refused),
        _ => Ok(()),
    }
}

struct Greeted {
    peer: NodeName,
    hello: Hello,
    orders_in: RecvStream,
    orders_out: SendStream,
}

/// Says hello, hears it, and checks it against the certificate.
async fn greet(connection: &Connection, ours: &Hello) -> Result<Greeted, NoLink> {
    let identity = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let certificate = identity.as_ref().and_then(|chain| chain.first()).ok_or(NoLink::Certificate("there is none"))?;
    let peer = node_of(certificate).map_err(NoLink::Certificate)?;

    let mut orders_out = connection.open_uni().await?;
    let lost = |error: &dyn std::fmt::Display| {
        connection.close_reason().map_or_else(|| NoLink::Greeting(error.to_string()), NoLink::from)
    };
    orders_out.set_priority(ORDERS_PRIORITY).map_err(|error| lost(&error))?;
    let greeting = wire::encode_framed(&Message::Hello(ours.clone())).map_err(|error| lost(&error))?;
    orders_out.write_all(&[ORDERS]).await.map_err(|error| lost(&error))?;
    orders_out.write_all(&greeting).await.map_err(|error| lost(&error))?;

    // The peer opens its bulk stream only once it has heard us, so its first stream is its orders.
    let mut orders_in = connection.accept_uni().await?;
    let mut kind = [0];
    orders_in.read_exact(&mut kind).await.map_err(|error| lost(&error))?;
    if kind != [ORDERS] {
        return Err(NoLink::Greeting("its first stream is not its orders".into()));
    }
    let hello = match read_message(&mut orders_in).await {
        Ok((Message::Hello(hello), _)) => hello,
        Ok(_) => return Err(NoLink::Greeting("its first message is no Hello".into())),
        Err(error) => return Err(lost(&error)),
    };
    if hello.version != VERSION {
        return Err(NoLink::Version(hello.version));
    }
    if hello.node != peer {
        return Err(NoLink::Name { certificate: peer, greeting: hello.node });
    }
    if peer == ours.node {
        return Err(NoLink::OwnName);
    }
    Ok(Greeted { peer, hello, orders_in, orders_out })
}

struct Exchange {
    registry: Arc<Registry>,
    connection: Connection,
    peer: NodeName,
    id: LinkId,
}

impl Exchange {
    /// Reads messages until the stream or the link ends; why.
    async fn read(&self, mut stream: RecvStream, urgency: Urgency) -> String {
        loop {
            match read_message(&mut stream).await {
                Ok((message, bytes)) => {
                    self.registry.inbox.message(urgency, self.id, &self.peer, message, bytes).await;
                    // Reading a report takes its time, and beats wait in the same thread.
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

/// The next message and its size on the wire.
async fn read_message(stream: &mut RecvStream) -> Result<(Message, usize), ReadFailure> {
    let mut prefix = [0; wire::LENGTH_BYTES];
    stream.read_exact(&mut prefix).await?;
    let mut bytes = vec![0; wire::length(prefix)?];
    stream.read_exact(&mut bytes).await?;
    Ok((wire::decode(&bytes)?, bytes.len()))
}
