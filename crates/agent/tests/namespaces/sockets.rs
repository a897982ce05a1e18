//! Clients and servers of the VIPA.

use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::AsRawFd,
    time::Duration,
};

use nix::{
    libc,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
    },
};
use vipa_model::{Connection, Protocol};

use crate::{host::until, router::VIPA};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// Both ends of a connection, and its name for routers.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) connection: Connection,
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
}

/// A server on port 80 of the VIPA, once the agent has put that on this host.
pub(crate) fn serve() -> TcpListener {
    let mut listener = None;
    until("the VIPA is here to be listened on", || {
        listener = TcpListener::bind((VIPA, 80)).ok();
        listener.is_some()
    });
    listener.expect("it is bound")
}

/// Connects from an address that is not the VIPA.
pub(crate) fn open(listener: &TcpListener) -> Pair {
    open_from(CLIENT, listener)
}

/// Connects as one of many clients with many addresses: one address would run out of ports.
pub(crate) fn open_as(number: u32, listener: &TcpListener) -> Pair {
    let [.., last] = (1 + number % 250).to_be_bytes();
    open_from(Ipv4Addr::new(10, 9, 0, last), listener)
}

fn open_from(source: Ipv4Addr, listener: &TcpListener) -> Pair {
    let client = socket_of_a_client(source, SockFlag::SOCK_CLOEXEC);
    connect(client.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(VIPA, 80))).expect("the server listens");
    let client = TcpStream::from(client);
    let (server, _) = listener.accept().expect("a connection");
    Pair { connection: connection_of(client.local_addr().expect("an address")), client, server }
}

/// Connects from this address.
pub(crate) fn connect_from(source: IpAddr, to: SocketAddr) -> nix::Result<TcpStream> {
    let family = if source.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let client = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(client.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))?;
    connect(client.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(client.into())
}

/// A client that begins to connect and does not wait.
pub(crate) fn begin_to_open() -> (Connection, TcpStream) {
    let client = socket_of_a_client(CLIENT, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
    let begun = connect(client.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(VIPA, 80)));
    assert_eq!(begun, Err(nix::Error::EINPROGRESS));
    let client = TcpStream::from(client);
    (connection_of(client.local_addr().expect("an address")), client)
}

/// Ends a connection by a reset, so that neither side has anything left to wait for. The server closes when the reset
/// has arrived, which on a busy host may be after the client's own close has returned; before that it would send a FIN.
/// If the reset is lost, the server sends a FIN.
pub(crate) fn abort(pair: Pair) {
    reset(pair.client);
    pair.server.set_read_timeout(Some(Duration::from_secs(2))).expect("a socket");
    match (&pair.server).read(&mut [0]).map_err(|error| error.kind()) {
        Err(ErrorKind::ConnectionReset | ErrorKind::WouldBlock) => {}
        other => panic!("a server that was sent nothing else: {other:?}"),
    }
}

/// A client that resets its connection.
pub(crate) fn reset(client: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&client, sockopt::Linger, &linger).expect("a socket");
    drop(client);
}

pub(crate) fn connection_of(client: SocketAddr) -> Connection {
    Connection { protocol: Protocol::Tcp, client, port: 80 }
}

fn socket_of_a_client(source: Ipv4Addr, flags: SockFlag) -> std::os::fd::OwnedFd {
    let client = socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket");
    setsockopt(&client, sockopt::IpBindAddressNoPort, &true).expect("Linux 4.2 or later");
    bind(client.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(source, 0))).expect("the address is on lo");
    client
}
