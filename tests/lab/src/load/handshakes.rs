//! Handshakes of links that are begun and never continued, from many invented addresses: QUIC Initials.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// Different first packets; when all have been sent they are sent again.
const INITIALS: usize = 2_000;
/// First packets that a socket's buffer certainly takes.
const AT_ONCE: usize = 32;
/// Where a first packet has its connection id: its length, then its bytes (RFC 9000 §17.2).
const ID_LENGTH: usize = 5;
/// Invented addresses: 198.18.0.0/15 is for such tests (RFC 2544).
const SOURCES: u8 = 200;

#[derive(Clone, Debug)]
pub struct HandshakeSettings {
    /// Addresses at which routers listen, in turn.
    pub to: Vec<SocketAddr>,
    pub per_second: u32,
    pub duration: Duration,
}

/// Begins handshakes and never continues. The host must have 198.18.0.0/15 as its own: `ip route add local
/// 198.18.0.0/15 dev lo`.
pub fn handshakes(settings: &HandshakeSettings) -> Result<()> {
    let HandshakeSettings { to, per_second, duration } = settings;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let initials = runtime.block_on(initials())?;
    let bind = |host| UdpSocket::bind((Ipv4Addr::new(198, 18, 0, host), 0));
    let sources = (1..=SOURCES).map(bind).collect::<Result<Vec<_>, _>>().context("cannot use 198.18.0.0/15")?;
    let begin = Instant::now();
    let packets = initials.iter().cycle().zip(sources.iter().cycle()).zip(to.iter().cycle());
    for (number, ((packet, source), to)) in packets.enumerate() {
        let due = Duration::from_secs_f64(number as f64 / f64::from(*per_second));
        if due > *duration {
            break;
        }
        std::thread::sleep((begin + due).saturating_duration_since(Instant::now()));
        // A router that just restarts does not listen, and packets that do not fit into its buffer are lost.
        let _ = source.send_to(packet, to);
    }
    Ok(())
}

/// First packets of handshakes, as nodes send them.
async fn initials() -> Result<Vec<Vec<u8>>> {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"vipa".to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls)?;
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let client = quinn::Endpoint::client(local).context("no socket")?;
    let sink = tokio::net::UdpSocket::bind(local).await.context("no socket")?;
    let address = sink.local_addr()?;
    let (mut by_id, mut begun) = (BTreeMap::new(), Vec::new());
    while by_id.len() < INITIALS {
        for _ in 0..AT_ONCE {
            begun.push(client.connect_with(config.clone(), address, "r1")?);
        }
        let mut bytes = [0; 2048];
        while by_id.len() < begun.len()
            && let Ok(received) = tokio::time::timeout(Duration::from_millis(20), sink.recv(&mut bytes)).await
        {
            let packet = &bytes[..received?];
            let id = &packet[ID_LENGTH..][..usize::from(packet[ID_LENGTH]) + 1];
            by_id.entry(id.to_vec()).or_insert_with(|| packet.to_vec());
        }
    }
    Ok(by_id.into_values().collect())
}
