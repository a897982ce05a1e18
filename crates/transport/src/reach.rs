//! Asks a peer for a link without making one: whether the way to it is open, and each believes the other's certificate.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use quinn::{ConnectionError, Endpoint, IdleTimeout, TransportConfig};
use vipa_model::{NodeName, printable};
use vipa_protocol::text::MAX_REASON;

use crate::{identity::Identity, link::NoLink, registry::code, renewal};

/// In TLS 1.3 who dials is done before its own certificate has been looked at; a refusal comes within this time.
const VERDICT: Duration = Duration::from_millis(300);

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReachResult {
    /// Its certificate is good, and it takes ours.
    Answers,
    /// A sentence that says why, with what to do.
    Refuses(String),
    /// Nothing came back within the time: it does not run, or something between drops UDP.
    Silent,
    /// This machine has no route, or its firewall says no.
    Unreachable(String),
}

/// Asks `peer` at `address`, and waits for up to `patience`. The peer logs nothing of it. Needs a tokio runtime.
pub async fn reach(
    identity: &Identity,
    peer: &NodeName,
    address: SocketAddr,
    patience: Duration,
) -> io::Result<ReachResult> {
    let any: IpAddr = if address.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let endpoint = Endpoint::client((any, 0).into())?;
    // The kernel says "no route" only to a socket that is connected, or when asked to send.
    let trial = std::net::UdpSocket::bind((any, 0))?;
    if let Err(error) = trial.connect(address) {
        return Ok(ReachResult::Unreachable(error.to_string()));
    }
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(IdleTimeout::try_from(patience).ok());
    let client = renewal::client(identity, &Arc::new(transport));
    let asked = async {
        let connection = endpoint.connect_with(client, address, peer.as_str()).map_err(io::Error::other)?.await;
        Ok::<_, io::Error>(match connection {
            Ok(connection) => match tokio::time::timeout(VERDICT, connection.closed()).await {
                Err(_) => {
                    connection.close(code::STOPPING, b"only asked");
                    ReachResult::Answers
                }
                Ok(why) => refused(why),
            },
            Err(why) => refused(why),
        })
    };
    let reached = tokio::time::timeout(patience, asked).await.unwrap_or(Ok(ReachResult::Silent));
    let _ = tokio::time::timeout(VERDICT, endpoint.wait_idle()).await;
    reached
}

fn refused(why: ConnectionError) -> ReachResult {
    match NoLink::from(why) {
        NoLink::Ended(ConnectionError::TimedOut) => ReachResult::Silent,
        why => ReachResult::Refuses(printable(&why.to_string(), MAX_REASON)),
    }
}
