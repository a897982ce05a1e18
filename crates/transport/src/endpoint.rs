//! The UDP socket: which connections are accepted, and which peers are dialled.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::{
    ConnectionError, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, Incoming,
    TokioRuntime, TransportConfig, TransportErrorCode, VarInt,
};
use ring::rand::{SecureRandom, SystemRandom};
use vipa_model::{NodeName, printable};
use vipa_protocol::{Hello, text::MAX_REASON};

use crate::{
    admission::Admission,
    certificate::RoleError,
    handshakes::{Decision, HANDSHAKE_LIMIT, Handshakes, Place, Source, Validation},
    identity::Identity,
    inbox::{Receiver, Refusal, inbox},
    link::{self, NoLink, Refused},
    registry::{Registry, Sender, code},
    renewal::{self, Credentials, Listening},
};

/// Refusals waiting for the log.
const REFUSALS: usize = 64;
/// Shortest time between two log lines about refusing one address.
const REFUSAL_QUIET: Duration = Duration::from_secs(10);
/// Interval at which a dialled peer that refuses for the same reason is reported again.
const REFUSED_AGAIN: Duration = Duration::from_secs(60);
/// Addresses remembered for that; refusals of any more are not reported.
const REFUSED_KEPT: usize = 1024;
/// Assumed round-trip time until one is measured: nodes are close to each other.
const INITIAL_RTT: Duration = Duration::from_millis(30);
/// Bytes in flight on one stream and on one link. Small on purpose: a beat waits behind what is in flight already, and
/// on a local network this still fills a 10 Gbit/s link.
const STREAM_WINDOW: u32 = 256 << 10;
const LINK_WINDOW: u32 = 2 * STREAM_WINDOW;
/// Datagrams waiting in QUIC, bytes; beyond that the oldest are dropped, and a beat that old is worth nothing.
const DATAGRAM_BYTES: usize = 256 << 10;
const CONNECTION_ID_BYTES: usize = 8;

#[derive(Clone, Debug)]
pub struct TransportSettings {
    /// The greeting of this node on every link, until `Sender::introduce` changes it.
    pub hello: Hello,
    /// Where to listen; a node that only dials needs none.
    pub listen: Option<SocketAddr>,
    /// Peers to dial, for ever.
    pub dial: Vec<(NodeName, SocketAddr)>,
    /// The nodes that may link, until `Sender::admit` changes it.
    pub admission: Admission,
    pub timing: Timing,
}

#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Silence after which a peer counts as gone.
    pub idle: Duration,
    /// Longest pause between two packets of a live node.
    pub keep_alive: Duration,
    /// Between two attempts at a peer: first and longest.
    pub retry_first: Duration,
    pub retry_longest: Duration,
    /// Longest time between two attempts at a peer that refuses.
    pub refused_longest: Duration,
    /// Between two checks of the certificate's files.
    pub renewal: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            // Failures are noticed by missing beats; this limit must outlast a busy machine.
            idle: Duration::from_secs(2),
            keep_alive: Duration::from_millis(250),
            retry_first: Duration::from_millis(50),
            retry_longest: Duration::from_millis(500),
            refused_longest: Duration::from_secs(5),
            renewal: Duration::from_secs(5),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the configuration names this node {configured}, its certificate {certified}; they must agree")]
    Name { configured: NodeName, certified: NodeName },
    #[error("this node's certificate does not fit its configuration: {0}")]
    Role(#[from] RoleError),
    #[error("cannot listen on UDP {address}: {source}; is it this machine's address, and free?")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the transport must be started within a tokio runtime")]
    NoRuntime,
}

/// Starts listening and dialling; runs until the `Sender` closes it. Must be called within a tokio runtime, which runs
/// it.
pub fn start(settings: TransportSettings, identity: &Identity) -> Result<(Sender, Receiver), StartError> {
    let TransportSettings { hello, listen, dial, admission, timing } = settings;
    if hello.node != identity.node {
        return Err(StartError::Name { configured: hello.node, certified: identity.node.clone() });
    }
    identity.roles.check(&identity.node, &hello.role)?;
    tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;

    let transport = Arc::new(transport(timing));
    let credentials = Credentials::new(identity, transport);
    let mut config = EndpointConfig::new(Arc::clone(&identity.reset_key) as _);
    config.cid_generator(|| Box::new(AnyConnectionId)).min_reset_interval(Duration::from_millis(1));
    let v6_only = dial.first().is_some_and(|(_, address)| address.is_ipv6());
    let any: IpAddr = if v6_only { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let address = listen.unwrap_or((any, 0).into());
    let cannot = |source| StartError::Listen { address, source };
    let socket = UdpSocket::bind(address).map_err(cannot)?;
    let server = listen.map(|_| credentials.server(identity));
    let endpoint = Endpoint::new(config, server, socket, Arc::new(TokioRuntime)).map_err(cannot)?;

    let (inbox, receiver) = inbox();
    let registry = Arc::new(Registry::new(inbox, hello, admission, identity, timing.keep_alive));
    if listen.is_some() {
        tokio::spawn(accept_all(endpoint.clone(), Arc::clone(&registry)));
    }
    for (peer, address) in dial {
        let dialler = Dialler {
            endpoint: endpoint.clone(),
            credentials: credentials.clone(),
            registry: Arc::clone(&registry),
            peer,
            address,
        };
        tokio::spawn(dialler.dial_for_ever(timing));
    }
    let listening = if listen.is_some() { Listening::Yes } else { Listening::No };
    let (files, watched) = (identity.files.clone(), Arc::clone(&registry));
    tokio::spawn(renewal::watch(files, credentials, endpoint.clone(), listening, watched, timing.renewal));
    Ok((Sender { registry, endpoint }, receiver))
}

fn transport(timing: Timing) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(timing.idle).unwrap_or_else(|_| VarInt::MAX.into());
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(timing.keep_alive))
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(2))
        .receive_window(VarInt::from_u32(LINK_WINDOW))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .send_window(u64::from(LINK_WINDOW))
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BYTES);
    transport
}

/// Connection ids that every incarnation of this node accepts as its own. So a restarted node answers packets of its
/// former links with a reset (RFC 9000 §10.3), and its peers need not wait for the idle timeout.
struct AnyConnectionId;

impl ConnectionIdGenerator for AnyConnectionId {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CONNECTION_ID_BYTES];
        SystemRandom::new().fill(&mut bytes).expect("the kernel gives random bytes");
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

async fn accept_all(endpoint: Endpoint, registry: Arc<Registry>) {
    let handshakes = Handshakes::default();
    let mut refusals = Refusals::default();
    let (told, mut to_tell) = tokio::sync::mpsc::channel::<(SocketAddr, Refused)>(REFUSALS);
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { return };
                let Some((incoming, place)) = begin(incoming, &handshakes, &registry) else { continue };
                let (registry, told) = (Arc::clone(&registry), told.clone());
                tokio::spawn(async move {
                    let address = incoming.remote_address();
                    if let Err(refused) = accept(incoming, registry, place).await
                        && !is_farewell(&refused.why)
                    {
                        // When even this queue is full, one more refusal need not be reported.
                        let _ = told.try_send((address, refused));
                    }
                });
            }
            Some((address, Refused { node, why })) = to_tell.recv() => {
                tracing::debug!(%address, why = printable(&why.to_string(), MAX_REASON), "refused");
                registry.count(|statistics| statistics.refused += 1);
                if let Some(times) = refusals.count(address.ip(), Instant::now()) {
                    registry.inbox.refused(Refusal { node, address, why: why.to_string(), times });
                }
            }
        }
    }
}

/// The first packet and its place if the handshake is to begin; any other packet is answered here.
fn begin(incoming: Incoming, handshakes: &Handshakes, registry: &Registry) -> Option<(Incoming, Place)> {
    let address = incoming.remote_address().ip().to_canonical();
    let source = if registry.is_peer_address(address) { Source::Peer } else { Source::Other };
    let validated = incoming.remote_address_validated();
    let validation = if validated { Validation::Validated } else { Validation::Unvalidated };
    match handshakes.decide(address, source, validation) {
        Decision::Begin(place) => return Some((incoming, place)),
        Decision::Validate => {
            registry.count(|statistics| statistics.handshakes_retried += 1);
            // A source that has not proved its address may always be asked to.
            let _ = incoming.retry();
        }
        Decision::Refuse => {
            registry.count(|statistics| statistics.handshakes_refused += 1);
            incoming.refuse();
        }
    }
    None
}

async fn accept(incoming: Incoming, registry: Arc<Registry>, place: Place) -> Result<(), Refused> {
    let Ok(connection) = tokio::time::timeout(HANDSHAKE_LIMIT, incoming.accept()?).await else {
        // The peer has proved no identity, so nothing is logged: a flood would fill the log.
        registry.count(|statistics| statistics.handshakes_expired += 1);
        return Ok(());
    };
    drop(place);
    link::run(registry, connection?).await
}

/// For each address: when its refusal was last logged, and how many refusals there were since.
#[derive(Default)]
struct Refusals(HashMap<IpAddr, (Instant, u64)>);

impl Refusals {
    /// Counts one. Returns how many to report, if a report is due.
    fn count(&mut self, address: IpAddr, now: Instant) -> Option<u64> {
        let is_quiet = |said: Instant| now.duration_since(said) < REFUSAL_QUIET;
        if let Some((said, since)) = self.0.get_mut(&address) {
            *since += 1;
            if is_quiet(*said) {
                return None;
            }
            *said = now;
            return Some(std::mem::take(since));
        }
        if self.0.len() >= REFUSED_KEPT {
            self.0.retain(|_, (said, _)| is_quiet(*said));
        }
        let has_room = self.0.len() < REFUSED_KEPT;
        if has_room {
            self.0.insert(address, (now, 0));
        }
        has_room.then_some(1)
    }
}

/// One peer, to be dialled whenever there is no link to it.
struct Dialler {
    endpoint: Endpoint,
    credentials: Credentials,
    registry: Arc<Registry>,
    peer: NodeName,
    address: SocketAddr,
}

impl Dialler {
    async fn dial_for_ever(self, timing: Timing) {
        let Self { registry, peer, address, .. } = &self;
        let mut pause = timing.retry_first;
        let (mut said, mut said_at, mut times) = (String::new(), Instant::now(), 0);
        loop {
            // The peer may have dialled us.
            if !registry.is_linked(peer) {
                match self.dial().await {
                    Ok(()) => {
                        pause = timing.retry_first;
                        said.clear();
                    }
                    Err(NoLink::Ended(ConnectionError::LocallyClosed)) => return,
                    Err(why) => {
                        let words = printable(&why.to_string(), MAX_REASON);
                        tracing::debug!(%peer, %address, why = words, "no link yet");
                        // A peer that refuses is reported now and then; a peer that is not there is not.
                        let why = if is_absence(&why) { String::new() } else { words };
                        if !why.is_empty() {
                            registry.count(|statistics| statistics.refused += 1);
                            times += 1;
                            if why != said || said_at.elapsed() >= REFUSED_AGAIN {
                                let (node, why) = (Some(peer.clone()), why.clone());
                                registry.inbox.refused(Refusal { node, address: *address, why, times });
                                (said_at, times) = (Instant::now(), 0);
                            }
                        }
                        // Nobody mends a refusal within moments; who is merely away may be back at once.
                        let longest = if why.is_empty() { timing.retry_longest } else { timing.refused_longest };
                        said = why;
                        pause = (pause * 2).min(longest);
                    }
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn dial(&self) -> Result<(), NoLink> {
        let connecting = self.endpoint.connect_with(self.credentials.client(), self.address, self.peer.as_str());
        let connecting = connecting.map_err(|error| match error {
            quinn::ConnectError::EndpointStopping => NoLink::Ended(ConnectionError::LocallyClosed),
            other => NoLink::Greeting(other.to_string()),
        })?;
        link::run(Arc::clone(&self.registry), connecting.await?).await.map_err(|refused| refused.why)
    }
}

/// Whether the other side has left by itself: it stops, or has only asked (`reach`).
fn is_farewell(why: &NoLink) -> bool {
    matches!(why, NoLink::Ended(ConnectionError::ApplicationClosed(close)) if close.error_code == code::STOPPING)
}

/// Whether the peer did not answer, has just left, or is too busy for a handshake.
fn is_absence(why: &NoLink) -> bool {
    match why {
        NoLink::Ended(ConnectionError::ConnectionClosed(close)) => {
            // The last two: the peer gave the handshake up, or has got another certificate between Retry and token.
            let busy = [
                TransportErrorCode::CONNECTION_REFUSED,
                TransportErrorCode::APPLICATION_ERROR,
                TransportErrorCode::INVALID_TOKEN,
            ];
            busy.contains(&close.error_code)
        }
        NoLink::Ended(ConnectionError::TimedOut | ConnectionError::Reset) | NoLink::Silent => true,
        _ => is_farewell(why),
    }
}
