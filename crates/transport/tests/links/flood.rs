//! Nodes link while many sources begin handshakes and never continue them.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::mpsc::{self, RecvTimeoutError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use vipa_transport::LinkEvent;

use super::{Cluster, LOCALHOST, kill, name, stranger};

/// First packets of the flood, each of another connection; all are sent again at the end of a round.
const INITIALS: usize = 2_000;
const SOURCES: u8 = 64;
/// 2,000 in a second.
const EVERY: Duration = Duration::from_millis(5);
const AT_ONCE: usize = 10;
/// Where a first packet has its connection id: its length, then its bytes (RFC 9000 §17.2).
const ID_LENGTH: usize = 5;
/// Time for a node to link under the flood: a handshake takes milliseconds, the longest pause between two attempts half
/// a second.
const SOON: Duration = Duration::from_secs(3);

/// First packets of valid handshakes, as a client of this cluster's protocol sends them.
async fn initials(cluster: &Cluster) -> Vec<Vec<u8>> {
    let client = stranger(cluster, None);
    let server = tokio::net::UdpSocket::bind(LOCALHOST).await.expect("a socket");
    let address = server.local_addr().expect("its address");
    let mut by_id = BTreeMap::new();
    let mut begun = Vec::new();
    while by_id.len() < INITIALS {
        // As many as the socket's buffer takes.
        begun.extend((0..32).map(|_| client.connect(address, "b").expect("an attempt")));
        let mut bytes = [0; 2048];
        while let Ok(received) = tokio::time::timeout(Duration::from_millis(20), server.recv(&mut bytes)).await {
            let packet = &bytes[..received.expect("a packet")];
            let id = &packet[ID_LENGTH..][..usize::from(packet[ID_LENGTH]) + 1];
            by_id.entry(id.to_vec()).or_insert_with(|| packet.to_vec());
            if by_id.len() == begun.len() {
                break;
            }
        }
    }
    by_id.into_values().collect()
}

/// Sends first packets from many addresses until it is dropped; none of these ever answers.
struct Flood {
    stop: Option<mpsc::Sender<()>>,
    sender: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(initials: Vec<Vec<u8>>, at: SocketAddr) -> Self {
        let (stop, stopped) = mpsc::channel();
        let bind = |host| UdpSocket::bind((Ipv4Addr::new(127, 9, 0, host), 0)).expect("a loopback address");
        let sources: Vec<_> = (1..=SOURCES).map(bind).collect();
        let sender = std::thread::spawn(move || {
            let mut packets = initials.iter().cycle().zip(sources.iter().cycle());
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                for (packet, source) in packets.by_ref().take(AT_ONCE) {
                    // Packets that do not fit into the receiver's buffer are lost.
                    let _ = source.send_to(packet, at);
                }
            }
        });
        Self { stop: Some(stop), sender: Some(sender) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(sender) = self.sender.take() {
            let _ = sender.join();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_peer_links_and_links_again_under_a_flood_of_half_open_handshakes() {
    let cluster = Cluster::new();
    let mut b = cluster.listen("b", 1, LOCALHOST);
    let flood = Flood::start(initials(&cluster).await, b.address());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = b.sender.statistics();
    assert!(before.handshakes_retried > 1_000, "the flood is asked to prove its addresses: {before:?}");
    assert!(before.handshakes_expired > 0, "a few may begin without: {before:?}");

    let began = Instant::now();
    let mut a = cluster.dial("a", 1, &b);
    a.expect_up("b").await;
    b.expect_up("a").await;
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());

    kill(a).await;
    let began = Instant::now();
    let mut a = cluster.dial("a", 2, &b);
    a.expect_up("b").await;
    assert_eq!(b.next().await, LinkEvent::Down { peer: name("a") });
    b.expect_up("a").await;
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    drop(flood);
    assert_eq!(b.sender.statistics().refused, 0, "half-open handshakes are counted, and no news");
}
