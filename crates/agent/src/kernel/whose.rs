//! Assignment of the kernel's sockets to VIPAs: their connections and listeners.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use vipa_cluster::target::Watched;
use vipa_model::{Connection, ConnectionState, PortRange, Protocol};

use super::diag::{Socket, TcpState};

/// The watched addresses and ports, by VIPA.
pub(super) type Watch = BTreeMap<IpAddr, Watched>;

/// The VIPA and connection of a socket: under the VIPA's own address, or by `nat` under this target's. Of several VIPAs
/// that are translated to one port here the first is named, because the kernel distinguishes no further.
pub(super) fn connection_of(
    watch: &Watch,
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
) -> Option<(IpAddr, Connection)> {
    let (address, port) = local;
    let connection = |port| Connection { protocol: Protocol::Tcp, client: SocketAddr::from(remote), port };
    if watch.contains_key(&address) {
        return Some((address, connection(port)));
    }
    watch.values().find_map(|watched| {
        let port = watched.translated.iter().find_map(|service| service.vipa_port(Protocol::Tcp, address, port));
        Some((watched.vipa, connection(port?)))
    })
}

/// The addresses and ports under which the kernel may have a connection to a VIPA: the VIPA's, and those of `nat`.
pub(super) fn sockets_of(watch: &Watch, vipa: IpAddr, connection: &Connection) -> Vec<(IpAddr, u16)> {
    let translated = watch.get(&vipa).map_or(&[][..], |watched| &watched.translated);
    let translated = translated
        .iter()
        .filter_map(|service| Some((service.address, service.port_here(connection.protocol, connection.port)?)));
    std::iter::once((vipa, connection.port)).chain(translated).collect()
}

/// The local addresses of all sockets that may matter.
pub(super) fn addresses(watch: &Watch) -> BTreeSet<IpAddr> {
    let translated = watch.values().flat_map(|watched| &watched.translated).map(|service| service.address);
    watch.keys().copied().chain(translated).collect()
}

/// The VIPA's services that a client's connection belongs to; none for a connection that this host opened from the
/// VIPA. Routers may divide services differently, so that a port belongs to several.
pub(crate) fn services_of(watched: &Watched, protocol: Protocol, port: u16) -> impl Iterator<Item = PortRange> {
    let services = watched.services.iter().filter(move |(of, ports)| *of == protocol && ports.contains(port));
    services.map(|(_, ports)| *ports)
}

/// Records the ports of these VIPAs on which a listener or bound socket listens.
pub(super) fn note_listener(
    vipas: &[&Watched],
    protocol: Protocol,
    socket: &Socket,
    found: &mut BTreeMap<IpAddr, BTreeSet<(Protocol, u16)>>,
) {
    let port = socket.local.1;
    for watched in vipas {
        for service in &watched.translated {
            if accepts(socket, service.address)
                && let Some(vipa_port) = service.vipa_port(protocol, service.address, port)
            {
                found.entry(watched.vipa).or_default().insert((protocol, vipa_port));
            }
        }
        let moved = watched.translated.iter().any(|service| service.vipa_port == Some(port));
        let mut services = watched.services.iter();
        if !moved && accepts(socket, watched.vipa) && services.any(|(p, range)| *p == protocol && range.contains(port))
        {
            found.entry(watched.vipa).or_default().insert((protocol, port));
        }
    }
}

/// Whether packets to `vipa` reach a listener or bound socket.
pub(crate) fn accepts(socket: &Socket, vipa: IpAddr) -> bool {
    match (socket.local.0, vipa) {
        (local, vipa) if local == vipa => true,
        (IpAddr::V4(local), IpAddr::V4(_)) => local.is_unspecified(),
        (IpAddr::V6(local), IpAddr::V6(_)) => local.is_unspecified(),
        (IpAddr::V6(local), IpAddr::V4(_)) => local.is_unspecified() && socket.takes_ipv4,
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
    }
}

pub(super) fn state_of(state: TcpState) -> Option<ConnectionState> {
    match state {
        TcpState::SynSent | TcpState::SynReceived => Some(ConnectionState::HalfOpen),
        TcpState::Established => Some(ConnectionState::Established),
        TcpState::FinWait1 | TcpState::FinWait2 | TcpState::CloseWait | TcpState::LastAck | TcpState::Closing => {
            Some(ConnectionState::Closing)
        }
        TcpState::Close | TcpState::Listen => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_accepts_for_a_vipa_when_bound_to_it_or_to_any_address() {
        let vipa: IpAddr = "192.0.2.10".parse().unwrap();
        let socket = |local: &str, takes_ipv4| Socket {
            state: TcpState::Listen,
            local: (local.parse().unwrap(), 80),
            remote: ("0.0.0.0".parse().unwrap(), 0),
            takes_ipv4,
            waiting: 0,
            room: 0,
            is_nobodys: false,
            cookie: 0,
        };
        assert!(accepts(&socket("192.0.2.10", false), vipa));
        assert!(accepts(&socket("0.0.0.0", false), vipa));
        assert!(accepts(&socket("::", true), vipa));
        assert!(!accepts(&socket("::", false), vipa), "an IPv6-only listener");
        assert!(!accepts(&socket("127.0.0.1", false), vipa));
        assert!(!accepts(&socket("0.0.0.0", false), "2001:db8::1".parse().unwrap()));
    }
}
