//! Links over 127.0.0.1, as two daemons on one machine would have them.

mod admission;
mod flood;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::runtime::Runtime;
use vipa_model::{Connection, ConnectionState, Epoch, Incarnation, NodeName, Protocol};
use vipa_protocol::{Beat, BeatAck, Connections, Hello, Message, Part, Position, Release, Role, Run, VERSION, wire};
use vipa_transport::{
    Admission, CertifiedRoles, Identity, IdentityError, LinkEvent, Receiver, Refusal, Sender, StartError, Timing,
    TransportSettings, pki, start,
};

const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const LOCALHOST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// The tests of the workspace share the machine: a peer that only waits for the processor must not count as dead.
const IDLE: Duration = Duration::from_secs(4);
/// Between two checks of the certificates.
const RENEWAL: Duration = Duration::from_millis(50);
/// Nothing here takes this long on any machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn name(text: &str) -> NodeName {
    text.parse().expect("a node name")
}

/// A cluster's certificates, in a folder that is removed with it.
struct Cluster(tempfile::TempDir);

impl Cluster {
    fn new() -> Self {
        let cluster = Self(tempfile::tempdir().expect("a temporary folder"));
        pki::init(cluster.folder()).expect("an authority");
        cluster
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }

    fn identity(&self, node: &str) -> Identity {
        self.identity_as(node, &CertifiedRoles::router())
    }

    fn identity_as(&self, node: &str, roles: &CertifiedRoles) -> Identity {
        let file = |ending| self.folder().join(format!("{node}.{ending}"));
        if !file("pem").exists() {
            pki::issue(self.folder(), &name(node), roles).expect("a certificate");
        }
        Identity::load(&self.folder().join("ca.pem"), &file("pem"), &file("key")).expect("an identity")
    }

    fn listen(&self, node: &str, incarnation: u64, at: SocketAddr) -> Node {
        Node::start(node, hello(node, incarnation), &self.identity(node), Some(at), vec![])
    }

    fn dial(&self, node: &str, incarnation: u64, peer: &Node) -> Node {
        let dial = vec![(name(&peer.name), peer.address())];
        Node::start(node, hello(node, incarnation), &self.identity(node), None, dial)
    }
}

fn hello(node: &str, incarnation: u64) -> Hello {
    Hello {
        version: VERSION,
        cluster: "test".into(),
        key: vipa_protocol::KeyDigest::default(),
        node: name(node),
        role: Role::Router,
        addresses: vec![],
        incarnation: Incarnation(incarnation),
        voters: vec![name("a"), name("b"), name("c")].into(),
    }
}

fn admission() -> Admission {
    let routers = ["a", "b", "c"].map(name).to_vec();
    Admission { routers, addresses: [LOCALHOST.ip()].into(), ..Admission::default() }
}

/// A node in a runtime of its own, so that it can be ended as a killed process ends.
struct Node {
    name: String,
    sender: Sender,
    receiver: Receiver,
    runtime: Option<Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Node {
    fn start(
        node: &str,
        hello: Hello,
        identity: &Identity,
        listen: Option<SocketAddr>,
        dial: Vec<(NodeName, SocketAddr)>,
    ) -> Self {
        let timing = Timing { idle: IDLE, renewal: RENEWAL, ..Timing::default() };
        let settings = TransportSettings { hello, listen, dial, admission: admission(), timing };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let entered = runtime.enter();
        let (sender, receiver) = start(settings, identity).expect("the transport starts");
        drop(entered);
        Self { name: node.into(), sender, receiver, runtime: Some(runtime) }
    }

    fn address(&self) -> SocketAddr {
        self.sender.local_address().expect("a bound socket")
    }

    async fn next(&mut self) -> LinkEvent {
        let event = tokio::time::timeout(PATIENCE, self.receiver.recv()).await;
        event.unwrap_or_else(|_| panic!("{} waits in vain", self.name)).expect("the transport runs")
    }

    async fn expect_up(&mut self, peer: &str) -> Hello {
        match self.next().await {
            LinkEvent::Up { peer: up, hello } if up == name(peer) => hello,
            other => panic!("{} expected {peer} to come up, not {other:?}", self.name),
        }
    }

    async fn expect_down(&mut self, peer: &str) {
        assert_eq!(self.next().await, LinkEvent::Down { peer: name(peer) });
    }

    async fn expect_message(&mut self, peer: &str) -> Message {
        match self.next().await {
            LinkEvent::Message { peer: from, message } if from == name(peer) => message,
            other => panic!("{} expected a message of {peer}, not {other:?}", self.name),
        }
    }

    fn send(&self, to: &str, message: &Message) {
        self.sender.send(&name(to), message);
    }

    /// Asserts that nothing happens for `time`.
    async fn expect_silence(&mut self, time: Duration) {
        if let Ok(event) = tokio::time::timeout(time, self.receiver.recv()).await {
            panic!("{} expected nothing, not {event:?}", self.name);
        }
    }
}

async fn linked(cluster: &Cluster) -> (Node, Node) {
    let mut b = cluster.listen("b", 1, LOCALHOST);
    let mut a = cluster.dial("a", 1, &b);
    a.expect_up("b").await;
    b.expect_up("a").await;
    (a, b)
}

fn release(epoch: u64) -> Message {
    Message::Release(Release { vipa: VIPA, epoch: Epoch(epoch) })
}

fn beat(sequence: u64) -> Message {
    Message::Beat(Beat { sequence, owned: vec![] })
}

/// A part of a snapshot with `count` connections, about 12 bytes each.
fn snapshot(count: u32, part: Part, sequence: u64) -> Message {
    let connection = |number: u32| Connection {
        protocol: Protocol::Tcp,
        client: SocketAddr::from((Ipv4Addr::from_bits(number), (number % 60_000) as u16)),
        port: 80,
    };
    let connections = (0..count).map(|number| (connection(number), ConnectionState::Established)).collect();
    Message::Connections(Connections {
        vipa: VIPA,
        run: Run::Snapshot { part, connections },
        upto: Position { incarnation: Incarnation(1), sequence },
        answers: None,
    })
}

#[tokio::test]
async fn two_nodes_link_up_and_each_hears_what_the_other_is() {
    let cluster = Cluster::new();
    let mut b = cluster.listen("b", 7, LOCALHOST);
    let mut a = cluster.dial("a", 3, &b);
    assert_eq!(a.expect_up("b").await, hello("b", 7));
    assert_eq!(b.expect_up("a").await, hello("a", 3));
    assert_eq!((a.sender.linked(), b.sender.linked()), (vec![name("b")], vec![name("a")]));
}

#[tokio::test]
async fn certificates_that_do_not_fit_each_other_change_nothing() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let (_a, mut b) = linked(&cluster).await;
    let c = cluster.identity("c");
    other.identity("b");
    fs::copy(other.folder().join("b.pem"), cluster.folder().join("b.pem")).expect("it is copied");
    tokio::time::sleep(RENEWAL * 4).await;
    let mut c = Node::start("c", hello("c", 1), &c, None, vec![(name("b"), b.address())]);
    c.expect_up("b").await;
    b.expect_up("c").await;
}

#[tokio::test]
async fn messages_of_every_lane_and_size_arrive_whole_and_in_order() {
    let cluster = Cluster::new();
    let (mut a, mut b) = linked(&cluster).await;
    for epoch in 0..1_000 {
        a.send("b", &release(epoch));
    }
    for epoch in 0..1_000 {
        assert_eq!(b.expect_message("a").await, release(epoch));
    }
    for count in [0, 1, 2_048, 300_000] {
        b.send("a", &snapshot(count, Part::Only, u64::from(count)));
        assert_eq!(a.expect_message("b").await, snapshot(count, Part::Only, u64::from(count)));
    }
    let ack = Message::BeatAck(BeatAck { sequence: 9, superseded: vec![] });
    b.send("a", &ack);
    assert_eq!(a.expect_message("b").await, ack);
}

#[tokio::test]
async fn a_beat_too_long_for_a_datagram_takes_the_stream() {
    let cluster = Cluster::new();
    let (a, mut b) = linked(&cluster).await;
    let owned = |number: u32| vipa_protocol::Owned {
        vipa: Ipv4Addr::from_bits(number).into(),
        epoch: Epoch(u64::MAX),
        yielding_to: Some(name("a-router-with-a-rather-long-name")),
    };
    let long = Message::Beat(Beat { sequence: 1, owned: (0..100).map(owned).collect() });
    a.send("b", &long);
    assert_eq!(b.expect_message("a").await, long);
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_not_sent_and_costs_nothing_else() {
    let cluster = Cluster::new();
    let (a, mut b) = linked(&cluster).await;
    a.send("b", &snapshot(1_000_000, Part::Only, 1));
    a.send("b", &release(1));
    assert_eq!(b.expect_message("a").await, release(1));
}

#[tokio::test]
async fn a_bulk_report_does_not_delay_beats() {
    const PARTS: usize = 600;
    let cluster = Cluster::new();
    let (a, mut b) = linked(&cluster).await;
    let sender = a.sender.clone();
    let reports = std::thread::spawn(move || {
        let part = snapshot(2_048, Part::Middle, 1);
        (0..PARTS).for_each(|_| sender.send(&name("b"), &part));
    });
    let (began, mut bulk, mut sent_at, mut delays) = (Instant::now(), 0, Vec::new(), Vec::new());
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    while bulk < PARTS {
        tokio::select! {
            _ = tick.tick() => {
                a.send("b", &beat(sent_at.len() as u64));
                sent_at.push(Instant::now());
            }
            message = b.expect_message("a") => match message {
                Message::Connections(_) => bulk += 1,
                Message::Beat(beat) => delays.push(sent_at[beat.sequence as usize].elapsed()),
                other => panic!("{other:?}"),
            },
        }
    }
    let took = began.elapsed();
    reports.join().unwrap();
    delays.sort();
    let (median, worst) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    println!("{PARTS} parts took {took:?}; {} beats, median {median:?}, worst {worst:?}", delays.len());
    assert!(delays.len() * 10 >= sent_at.len() * 9, "{} of {} beats arrived", delays.len(), sent_at.len());
    assert!(median < Duration::from_millis(100) && median * 20 < took, "median {median:?} of {took:?}");
}

#[tokio::test]
async fn a_peer_that_takes_nothing_loses_its_link_and_nothing_grows_without_limit() {
    let cluster = Cluster::new();
    let (mut a, b) = linked(&cluster).await;
    // `b` never takes an event out: its inbox fills, then QUIC's windows, then a's queue.
    let long = Message::Hello(Hello { cluster: "x".repeat(1 << 20), ..hello("a", 1) });
    let mut sent = 0;
    let event = loop {
        a.send("b", &long);
        sent += 1;
        assert!(sent < 1_000, "{sent} messages of 1 MB wait somewhere");
        if let Ok(event) = tokio::time::timeout(Duration::from_millis(2), a.receiver.recv()).await {
            break event.unwrap();
        }
    };
    assert_eq!(event, LinkEvent::Down { peer: name("b") });
    assert_eq!(a.sender.statistics().too_slow, 1);
    // It links again by itself.
    a.expect_up("b").await;
    drop(b);
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_at_both_ends_and_said_so() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let mut b = ours.listen("b", 1, LOCALHOST);
    let mut a = theirs.dial("a", 1, &b);
    match a.next().await {
        LinkEvent::Refused(Refusal { node, why, .. }) => {
            assert_eq!(node, Some(name("b")));
            assert!(why.contains("is not accepted here") && why.contains("vipactl pki init"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    match b.next().await {
        LinkEvent::Refused(refusal) => {
            assert_eq!((&refusal.node, refusal.address.ip(), refusal.times), (&None, LOCALHOST.ip(), 1));
            assert!(refusal.why.contains("certificate"), "{refusal}");
        }
        other => panic!("{other:?}"),
    }
    assert!(a.sender.linked().is_empty() && b.sender.linked().is_empty());
}

#[tokio::test]
async fn a_peer_that_trusts_us_but_has_no_certificate_of_ours_is_refused() {
    let ours = Cluster::new();
    let mut b = ours.listen("b", 1, LOCALHOST);
    let endpoint = stranger(&ours, None);
    let connection = endpoint.connect(b.address(), "b").unwrap().await;
    if let Ok(connection) = connection {
        // The client side of TLS 1.3 is done before the server has seen the certificate; nothing results from it.
        assert!(connection.accept_uni().await.is_err());
    }
    assert!(matches!(b.next().await, LinkEvent::Refused { .. }));
    assert_eq!(b.sender.statistics().refused, 1);
    assert!(b.sender.linked().is_empty());
}

#[tokio::test]
async fn a_certified_peer_that_talks_garbage_loses_its_link_and_changes_nothing() {
    let cluster = Cluster::new();
    let mut b = cluster.listen("b", 1, LOCALHOST);
    cluster.identity("a");
    let endpoint = stranger(&cluster, Some("a"));

    let connection = endpoint.connect(b.address(), "b").unwrap().await.unwrap();
    let mut orders = connection.open_uni().await.unwrap();
    orders.write_all(&[0, 0, 0, 0, 3, 1, 2, 3]).await.unwrap();
    assert!(matches!(b.next().await, LinkEvent::Refused { .. }), "garbage for a greeting");

    let connection = endpoint.connect(b.address(), "b").unwrap().await.unwrap();
    let mut orders = connection.open_uni().await.unwrap();
    let greeting = wire::encode_framed(&Message::Hello(hello("a", 1))).unwrap();
    orders.write_all(&[&[0], &*greeting].concat()).await.unwrap();
    b.expect_up("a").await;
    connection.send_datagram(vec![0xff; 100].into()).unwrap();
    connection.send_datagram(wire::encode(&release(1)).unwrap().into()).unwrap();
    connection.send_datagram(wire::encode(&beat(7)).unwrap().into()).unwrap();
    assert_eq!(b.expect_message("a").await, beat(7), "datagrams that are no beats are skipped");
    orders.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    b.expect_down("a").await;
    assert_eq!(b.sender.statistics().garbage, 3);
    connection.closed().await;
}

#[tokio::test]
async fn a_node_that_gives_itself_another_name_than_its_certificate_is_refused() {
    let cluster = Cluster::new();
    let mut b = cluster.listen("b", 1, LOCALHOST);
    let settings = |greeting: Hello, peer: &Node| TransportSettings {
        hello: greeting,
        listen: None,
        dial: vec![(name("b"), peer.address())],
        admission: admission(),
        timing: Timing::default(),
    };
    let error = start(settings(hello("c", 1), &b), &cluster.identity("a")).unwrap_err();
    assert!(matches!(error, StartError::Name { .. }), "{error}");

    let other_version = Hello { version: VERSION + 1, ..hello("a", 1) };
    let (_sender, mut receiver) = start(settings(other_version, &b), &cluster.identity("a")).unwrap();
    match b.next().await {
        LinkEvent::Refused(refusal) => assert!(refusal.why.contains("version"), "{refusal}"),
        other => panic!("{other:?}"),
    }
    // A node that received b's greeting before b's refusal had a link for a moment.
    loop {
        match receiver.recv().await {
            Some(LinkEvent::Refused { .. }) => break,
            Some(LinkEvent::Up { .. } | LinkEvent::Down { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_dialled_node_must_be_the_one_that_was_meant() {
    let cluster = Cluster::new();
    let c = cluster.listen("c", 1, LOCALHOST);
    let dial = vec![(name("b"), c.address())];
    let mut a = Node::start("a", hello("a", 1), &cluster.identity("a"), None, dial);
    match a.next().await {
        LinkEvent::Refused(refusal) => assert_eq!(refusal.node, Some(name("b"))),
        other => panic!("{other:?}"),
    }
    drop(c);
}

#[tokio::test]
async fn a_listener_that_restarts_is_linked_again_at_once() {
    let cluster = Cluster::new();
    let (mut a, b) = linked(&cluster).await;
    let address = b.address();
    kill(b).await;
    let began = Instant::now();
    let mut b = cluster.listen("b", 2, address);
    a.expect_down("b").await;
    assert_eq!(a.expect_up("b").await.incarnation, Incarnation(2));
    b.expect_up("a").await;
    let took = began.elapsed();
    // Keep-alive 250 ms, reset, redial after 50 ms.
    assert!(took < IDLE / 2, "the reset did not work: {took:?}");
    a.send("b", &release(5));
    assert_eq!(b.expect_message("a").await, release(5));
}

#[tokio::test]
async fn a_dialler_that_restarts_takes_its_old_link_over() {
    let cluster = Cluster::new();
    let (a, mut b) = linked(&cluster).await;
    b.send("a", &release(1));
    kill(a).await;
    let mut a = cluster.dial("a", 2, &b);
    assert_eq!(a.expect_up("b").await.incarnation, Incarnation(1));
    b.expect_down("a").await;
    assert_eq!(b.expect_up("a").await.incarnation, Incarnation(2));
    b.send("a", &release(2));
    assert_eq!(a.expect_message("b").await, release(2), "and nothing of the former life");
}

#[tokio::test]
async fn an_older_life_does_not_push_a_newer_one_out() {
    let cluster = Cluster::new();
    let mut b = cluster.listen("b", 1, LOCALHOST);
    let mut new = cluster.dial("a", 2, &b);
    new.expect_up("b").await;
    b.expect_up("a").await;
    let mut old = cluster.dial("a", 1, &b);
    match b.next().await {
        LinkEvent::Refused(refusal) => assert!(refusal.why.contains("earlier life"), "{refusal}"),
        other => panic!("{other:?}"),
    }
    let why = loop {
        if let LinkEvent::Refused(refusal) = old.next().await {
            break refusal.why;
        }
    };
    assert!(why.contains("refuses this node"), "{why}");
    new.send("b", &release(1));
    assert_eq!(b.expect_message("a").await, release(1));
}

#[tokio::test]
async fn a_silent_peer_is_gone_after_the_idle_timeout_and_a_closing_one_at_once() {
    let cluster = Cluster::new();
    let (a, mut b) = linked(&cluster).await;
    let began = Instant::now();
    kill(a).await;
    b.expect_down("a").await;
    assert!(began.elapsed() < IDLE * 2, "{:?}", began.elapsed());

    let (a, mut b) = linked(&cluster).await;
    let began = Instant::now();
    a.sender.close().await;
    b.expect_down("a").await;
    assert!(began.elapsed() < IDLE / 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn random_bytes_at_the_port_change_nothing() {
    let cluster = Cluster::new();
    let (a, mut b) = linked(&cluster).await;
    let socket = UdpSocket::bind(LOCALHOST).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..1_000_usize {
        let mut bytes = vec![0; 1 + round % 1_400];
        for byte in &mut bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 33) as u8;
        }
        socket.send_to(&bytes, b.address()).unwrap();
        if round % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    b.expect_silence(Duration::from_millis(300)).await;
    a.send("b", &release(1));
    assert_eq!(b.expect_message("a").await, release(1));
}

#[tokio::test]
async fn a_message_for_nobody_is_counted_and_dropped() {
    let cluster = Cluster::new();
    let (a, _b) = linked(&cluster).await;
    a.send("c", &release(1));
    assert_eq!(a.sender.statistics().unsent, 1);
}

#[tokio::test]
async fn what_is_wrong_with_certificates_is_said_with_the_remedy() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    ours.identity("a");
    theirs.identity("a");
    let (our, their) = (|file| ours.folder().join(file), |file| theirs.folder().join(file));
    let load = |ca: &Path, certificate: &Path, key: &Path| Identity::load(ca, certificate, key).unwrap_err();

    let error = load(&our("ca.pem"), &our("a.pem"), &our("none.key"));
    assert!(matches!(error, IdentityError::Read { .. }), "{error}");
    let error = load(&our("ca.pem"), &our("a.key"), &our("a.key"));
    assert!(matches!(error, IdentityError::Pem { what: "certificate", .. }), "{error}");
    let error = load(&our("ca.pem"), &our("ca.pem"), &our("ca.key"));
    assert!(matches!(error, IdentityError::NotANode { .. }), "{error}");
    let error = load(&their("ca.pem"), &our("a.pem"), &our("a.key"));
    assert!(matches!(error, IdentityError::NotAccepted { .. }), "{error}");
    let error = load(&our("ca.pem"), &our("a.pem"), &their("a.key"));
    assert!(matches!(error, IdentityError::KeyMismatch { .. }), "{error}");
    assert!(error.to_string().contains("vipactl pki"), "{error}");
}

#[test]
fn certificates_are_never_overwritten_and_keys_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let (cluster, router) = (Cluster::new(), CertifiedRoles::router());
    let made = pki::issue(cluster.folder(), &name("r1"), &router).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&made.certificate), mode(&made.key)), (0o644, 0o600));
    let before = fs::read(&made.key).unwrap();
    let error = pki::issue(cluster.folder(), &name("r1"), &router).unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");
    assert_eq!(fs::read(&made.key).unwrap(), before);
    assert!(pki::init(cluster.folder()).is_err());
    assert!(pki::issue(cluster.folder(), &name("7"), &router).is_err(), "TLS knows no such DNS name");
    assert!(pki::issue(&cluster.folder().join("elsewhere"), &name("r1"), &router).is_err(), "no authority there");
}

#[test]
fn a_transport_outside_a_runtime_says_so() {
    let cluster = Cluster::new();
    let timing = Timing::default();
    let settings =
        TransportSettings { hello: hello("a", 1), listen: None, dial: vec![], admission: admission(), timing };
    assert!(matches!(start(settings, &cluster.identity("a")), Err(StartError::NoRuntime)));
}

/// Ends a node without a message to its peers; its port is free afterwards.
async fn kill(mut node: Node) {
    let runtime = node.runtime.take().expect("it runs");
    let address = node.address();
    drop(node);
    let shutdown = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE));
    shutdown.await.expect("the runtime ends");
    drop(UdpSocket::bind(address).expect("its port is free"));
}

/// A QUIC client of this cluster's protocol that is no node: it trusts `cluster`, and shows `node`'s certificate or
/// none.
fn stranger(cluster: &Cluster, node: Option<&str>) -> quinn::Endpoint {
    let file = |name: String| cluster.folder().join(name);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem".into())).unwrap()).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match node {
        None => tls.with_no_client_auth(),
        Some(node) => {
            let certificate = CertificateDer::from_pem_file(file(format!("{node}.pem"))).unwrap();
            let key = PrivateKeyDer::from_pem_file(file(format!("{node}.key"))).unwrap();
            tls.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    tls.alpn_protocols = vec![b"vipa".to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut endpoint = quinn::Endpoint::client(LOCALHOST).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    endpoint
}

#[test]
fn a_renewed_certificate_is_of_the_same_node_and_roles_and_has_another_key_and_serial_number() {
    use std::os::unix::fs::PermissionsExt;
    let cluster = Cluster::new();
    let roles = CertifiedRoles { router: true, ..CertifiedRoles::target([VIPA]) };
    let before = cluster.identity_as("r1", &roles).certificates()[0].clone();
    let made = pki::renew(cluster.folder(), &name("r1"), 365).unwrap();
    let after = cluster.identity_as("r1", &roles).certificates()[0].clone();
    assert_eq!((&after.node, &after.roles), (&before.node, &before.roles));
    assert_ne!(after.serial, before.serial);
    assert!(after.not_after < before.not_after, "365 days and not ten years");
    assert_eq!(fs::metadata(&made.key).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(pki::renew(cluster.folder(), &name("r2"), 365).unwrap_err().to_string().contains("cannot be renewed"));
    assert!(pki::renew(cluster.folder(), &name("r1"), 0).is_err());
}
