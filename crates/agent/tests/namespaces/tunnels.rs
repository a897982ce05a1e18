//! Packets that routers encapsulate, at the agent: real frames on a veth pair, real sockets behind it.
//!
//! ```text
//!   a test's frames ──► v1 ═══ v0 ──► ingress: the agent's program ──► the kernel ──► UDP socket on the VIPA
//! ```

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, send, socket},
};
use vipa_model::Forwarding;

use crate::{
    host::{Agent, Host, on_a_host, run, until},
    ring::Ring,
    router::{HERE, HERE6, PORT, PORT6, Router, VIPA, VIPA6},
};

pub(crate) const KINDS: [Forwarding; 3] = [Forwarding::Ipip, Forwarding::Gre, Forwarding::Gue];
pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 4));
pub(crate) const CLIENT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 4));
const SERVED: u16 = 5_353;
/// Long enough for a frame on a veth pair.
const MOMENT: Duration = Duration::from_millis(500);

/// A wire to the host, as a router has one.
pub(crate) struct Wire {
    sender: Sender,
}

enum Sender {
    /// The kernel copies frames into one linear buffer.
    Copying(OwnedFd),
    /// The kernel sends frames from pages, except their beginning.
    Paged(RefCell<Ring>),
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self::plug();
        Self { sender: Sender::Copying(packet_socket("v1", None)) }
    }

    /// Frames arrive with this many bytes in the linear part of their buffer.
    pub(crate) fn paged(linear: u16) -> Self {
        Self::plug();
        Self { sender: Sender::Paged(RefCell::new(Ring::new(packet_socket("v1", None), linear))) }
    }

    /// Another sending end of the present wire, for another thread.
    pub(crate) fn another() -> Self {
        Self { sender: Sender::Copying(packet_socket("v1", None)) }
    }

    fn plug() {
        run("ip", "link add v0 address 02:00:00:00:00:31 type veth peer name v1 address 02:00:00:00:00:21");
        run("ip", "link set v0 up");
        run("ip", "link set v1 up");
    }

    pub(crate) fn send(&self, packet: &[u8]) {
        let ether_type = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
        let mut frame = [&[2, 0, 0, 0, 0, 0x31, 2, 0, 0, 0, 0, 0x21][..], &ether_type, packet].concat();
        // As a real wire would.
        frame.resize(frame.len().max(60), 0);
        match &self.sender {
            Sender::Copying(socket) => {
                send(socket.as_raw_fd(), &frame, MsgFlags::empty()).expect("the wire is there");
            }
            Sender::Paged(ring) => ring.borrow_mut().send(&frame),
        }
    }
}

/// Sends frames at this interface of the namespace, and receives those of a protocol.
pub(crate) fn packet_socket(interface: &str, protocol: Option<SockProtocol>) -> OwnedFd {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).expect("a socket");
    let mut interfaces = getifaddrs().expect("interfaces");
    let found = interfaces.find_map(|entry| {
        entry.address.filter(|_| entry.interface_name == interface).and_then(|address| address.as_link_addr().copied())
    });
    bind(socket.as_raw_fd(), &found.expect("the interface is there")).expect("root may");
    socket
}

fn sum(words: impl IntoIterator<Item = u8>) -> u32 {
    let bytes: Vec<u8> = words.into_iter().collect();
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum()
}

fn folded(mut sum: u32) -> [u8; 2] {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An IP packet, ECN in the lowest bits of `class`.
fn ip(source: IpAddr, destination: IpAddr, class: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short");
    let addresses = [octets(source), octets(destination)].concat();
    if source.is_ipv4() {
        let mut header = vec![0x45, class];
        header.extend((length + 20).to_be_bytes());
        header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        header.extend(&addresses);
        let checksum = folded(sum(header.iter().copied()));
        header[10..12].copy_from_slice(&checksum);
        return [header, payload.to_vec()].concat();
    }
    let mut header = vec![0x60 | class >> 4, class << 4, 0, 0];
    header.extend(length.to_be_bytes());
    header.extend([protocol, 64]);
    [header, addresses, payload.to_vec()].concat()
}

/// A client's datagram to a VIPA.
pub(crate) fn datagram(vipa: IpAddr, class: u8, text: &[u8]) -> Vec<u8> {
    let client = if vipa.is_ipv4() { CLIENT } else { CLIENT6 };
    let length = u16::try_from(text.len() + 8).expect("short").to_be_bytes();
    let mut udp = [&4_000_u16.to_be_bytes()[..], &SERVED.to_be_bytes(), &length, &[0, 0], text].concat();
    let pseudo = [octets(client), octets(vipa), vec![0, 17], length.to_vec()].concat();
    let checksum = folded(sum(pseudo) + sum(udp.iter().copied()));
    udp[6..8].copy_from_slice(&checksum);
    ip(client, vipa, class, 17, &udp)
}

/// As routers encapsulate it.
pub(crate) fn wrapped(kind: Forwarding, source: IpAddr, destination: IpAddr, class: u8, inner: &[u8]) -> Vec<u8> {
    let inner_is_ipv4 = inner[0] >> 4 == 4;
    let number = if inner_is_ipv4 { 4 } else { 41 };
    let (protocol, shim) = match kind {
        Forwarding::Ipip => (number, vec![]),
        Forwarding::Gre => (47, if inner_is_ipv4 { vec![0, 0, 0x08, 0x00] } else { vec![0, 0, 0x86, 0xdd] }),
        Forwarding::Gue => {
            let length = u16::try_from(inner.len() + 12).expect("short").to_be_bytes();
            let udp = [&50_000_u16.to_be_bytes()[..], &6_080_u16.to_be_bytes(), &length, &[0, 0]].concat();
            (17, [&udp[..], &[0, number, 0, 0]].concat())
        }
        Forwarding::Direct | Forwarding::Nat => panic!("no tunnel"),
    };
    ip(source, destination, class, protocol, &[&shim, inner].concat())
}

pub(crate) fn serve(vipa: IpAddr) -> UdpSocket {
    let mut socket = None;
    until("the VIPA is here to be bound to", || {
        socket = UdpSocket::bind((vipa, SERVED)).ok();
        socket.is_some()
    });
    let socket = socket.expect("it is bound");
    socket.set_read_timeout(Some(MOMENT)).expect("a socket");
    socket
}

/// The next frame, if there is one.
pub(crate) fn next(socket: &UdpSocket) -> Option<(IpAddr, Vec<u8>)> {
    let mut text = [0; 100];
    socket.recv_from(&mut text).ok().map(|(length, from)| (from.ip(), text[..length].to_vec()))
}

pub(crate) fn until_unwrapped(socket: &UdpSocket, wire: &Wire, packet: &[u8]) {
    until("tunnels are unwrapped", || {
        wire.send(packet);
        next(socket).is_some()
    });
    while next(socket).is_some() {}
}

/// The filters on the interface.
fn filters() -> usize {
    run("tc", "filter show dev v0 ingress").lines().filter(|line| line.contains("direct-action")).count()
}

fn has_clsact() -> bool {
    run("tc", "qdisc show dev v0").contains("clsact")
}

/// An agent to which every kind of tunnel brought the datagrams that were sent to `here`, for both VIPAs.
pub(crate) fn everything_arrives(host: &Host, wire: &Wire, here: &str, port: IpAddr) -> Agent {
    let agent = host.start_agent();
    let mut router = Router::start(host, "r1");
    router.until_linked();
    for (vipa, client) in [(IpAddr::from(VIPA), CLIENT), (IpAddr::from(VIPA6), CLIENT6)] {
        router.distribute_by(Forwarding::Ipip, 1, vipa, here);
        let socket = serve(vipa);
        let to = here.parse().expect("an address");
        until_unwrapped(&socket, wire, &wrapped(Forwarding::Ipip, port, to, 0, &datagram(vipa, 0, b"?")));
        for kind in KINDS {
            for text in [&b"x"[..], b"a longer one, of an odd number of bytes"] {
                wire.send(&wrapped(kind, port, to, 0, &datagram(vipa, 0, text)));
                assert_eq!(next(&socket), Some((client, text.to_vec())), "{vipa} in {kind:?} from {port}");
            }
        }
    }
    agent
}

fn everything_is_unwrapped(host: &Host, wire: &Wire, here: &str, port: IpAddr) {
    host.configure_tunnels(here, "v0");
    everything_arrives(host, wire, here, port).stop();
    host.clean_up();
    assert_eq!((filters(), has_clsact()), (0, false));
    assert!(!host.log().contains("dropped") && !host.log().contains("not readable"), "{}", host.log());
}

#[test]
#[ignore = "needs root: make test-agent"]
fn every_tunnel_of_ipv4_is_unwrapped_whichever_family_is_inside() {
    on_a_host(|host| everything_is_unwrapped(host, &Wire::new(), HERE, PORT.into()));
}

#[test]
#[ignore = "needs root: make test-agent"]
fn every_tunnel_of_ipv6_is_unwrapped_whichever_family_is_inside() {
    on_a_host(|host| {
        run("ip", "-6 address add fd09::31/128 dev lo");
        everything_is_unwrapped(host, &Wire::new(), HERE6, PORT6.into());
    });
}

/// The ends of headers, and offsets within them: Ethernet, outer IPv4, its UDP ports, GUE, within the inner header.
const LINEAR_PARTS: [u16; 6] = [14, 20, 34, 38, 46, 60];

#[test]
#[ignore = "needs root: make test-agent"]
fn every_tunnel_of_ipv4_is_unwrapped_however_much_of_it_lies_in_pages() {
    for linear in LINEAR_PARTS {
        on_a_host(move |host| everything_is_unwrapped(host, &Wire::paged(linear), HERE, PORT.into()));
    }
}

#[test]
#[ignore = "needs root: make test-agent"]
fn every_tunnel_of_ipv6_is_unwrapped_however_much_of_it_lies_in_pages() {
    for linear in LINEAR_PARTS {
        on_a_host(move |host| {
            run("ip", "-6 address add fd09::31/128 dev lo");
            everything_is_unwrapped(host, &Wire::paged(linear), HERE6, PORT6.into());
        });
    }
}

/// A host that takes tunnels for the VIPA, and a wire to it.
fn tunnelled(host: &Host) -> (Agent, Router, Wire, UdpSocket) {
    host.configure_tunnels(HERE, "v0");
    unwrapping(host, Wire::new())
}

/// An agent that unwraps the VIPA's packets from `wire`.
pub(crate) fn unwrapping(host: &Host, wire: Wire) -> (Agent, Router, Wire, UdpSocket) {
    let agent = host.start_agent();
    let mut router = Router::start(host, "r1");
    router.until_linked();
    router.distribute_by(Forwarding::Ipip, 1, VIPA.into(), HERE);
    let socket = serve(VIPA.into());
    until_unwrapped(&socket, &wire, &good(b"?"));
    (agent, router, wire, socket)
}

pub(crate) fn good(text: &[u8]) -> Vec<u8> {
    tunnel(Forwarding::Ipip, &datagram(VIPA.into(), 0, text))
}

fn tunnel(kind: Forwarding, inner: &[u8]) -> Vec<u8> {
    wrapped(kind, PORT.into(), HERE.parse().expect("an address"), 0, inner)
}

#[test]
#[ignore = "needs root: make test-agent"]
fn what_no_router_sent_or_no_vipa_is_meant_by_is_not_unwrapped_and_counted() {
    on_a_host(|host| {
        let (agent, _router, wire, socket) = tunnelled(host);
        let here = HERE.parse().expect("an address");
        let stranger = Ipv4Addr::new(10, 9, 0, 99).into();
        wire.send(&wrapped(Forwarding::Ipip, stranger, here, 0, &datagram(VIPA.into(), 0, b"a stranger's")));
        let elsewhere = Ipv4Addr::new(10, 9, 0, 1).into();
        wire.send(&tunnel(Forwarding::Gre, &datagram(elsewhere, 0, b"to no VIPA")));
        let mut optioned = tunnel(Forwarding::Gre, &datagram(VIPA.into(), 0, b"with a key"));
        optioned[20] = 0x20;
        wire.send(&optioned);
        let mut six = tunnel(Forwarding::Gue, &datagram(VIPA.into(), 0, b"announced as IPv6"));
        six[29] = 41;
        wire.send(&six);
        wire.send(&tunnel(Forwarding::Ipip, &datagram(VIPA.into(), 0, b"cut off")[..12]));
        // Marked as congested on the path, for a connection without ECN.
        wire.send(&wrapped(Forwarding::Ipip, PORT.into(), here, 3, &datagram(VIPA.into(), 0, b"not to be marked")));
        wire.send(&wrapped(Forwarding::Gue, PORT.into(), here, 3, &datagram(VIPA.into(), 1, b"marked")));
        wire.send(&good(b"good"));
        assert_eq!(next(&socket), Some((CLIENT, b"marked".to_vec())), "the mark left the checksum right");
        assert_eq!(next(&socket), Some((CLIENT, b"good".to_vec())));
        let said = host.status();
        assert!(
            said.contains("tunnels are unwrapped by a BPF program, because this kernel takes the program"),
            "{said}"
        );
        assert!(said.contains("3 packets from tunnels dropped: malformed"), "{said}");
        agent.stop();
        for told in [
            "1 left to the kernel: not from a router",
            "1 dropped: not for a VIPA",
            "3 dropped: malformed",
            "1 dropped: congested",
        ] {
            assert!(host.log().contains(told), "{told}: {}", host.log());
        }
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_crash_interrupts_no_tunnel_and_the_successor_takes_it_over_once() {
    on_a_host(|host| {
        let (agent, mut router, wire, socket) = tunnelled(host);
        agent.crash();
        wire.send(&good(b"nobody is there"));
        assert_eq!(next(&socket), Some((CLIENT, b"nobody is there".to_vec())));
        router.until("the link is lost", |view| !view.linked);

        let agent = host.start_agent();
        until("it has taken over", || host.log().matches("is unwrapped by BPF").count() == 2);
        assert_eq!(filters(), 1);
        wire.send(&good(b"before any router has spoken"));
        assert_eq!(next(&socket), Some((CLIENT, b"before any router has spoken".to_vec())));
        router.until_linked();
        router.distribute_by(Forwarding::Ipip, 2, VIPA.into(), HERE);
        wire.send(&good(b"after"));
        assert_eq!(next(&socket), Some((CLIENT, b"after".to_vec())));
        agent.stop();
        host.clean_up();
        assert_eq!((filters(), has_clsact()), (0, false));
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn filters_of_other_peoples_stay_where_they_are() {
    on_a_host(|host| {
        host.configure_tunnels(HERE, "v0");
        let wire = Wire::new();
        run("tc", "qdisc add dev v0 clsact");
        run("tc", "filter add dev v0 ingress pref 1 protocol ip u32 match ip dport 9 0xffff");
        let before = run("tc", "filter show dev v0 ingress");
        let agent = host.start_agent();
        let mut router = Router::start(host, "r1");
        router.until_linked();
        router.distribute_by(Forwarding::Gre, 1, VIPA.into(), HERE);
        let socket = serve(VIPA.into());
        until_unwrapped(&socket, &wire, &good(b"?"));
        agent.stop();
        host.clean_up();
        assert_eq!(run("tc", "filter show dev v0 ingress"), before);
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn what_others_take_away_is_put_there_again() {
    on_a_host(|host| {
        let (agent, _router, wire, socket) = tunnelled(host);
        run("tc", "qdisc del dev v0 clsact");
        run("ip", "address del 192.0.2.10/32 dev lo");
        drop(socket);
        let socket = serve(VIPA.into());
        until_unwrapped(&socket, &wire, &good(b"again"));
        assert_eq!(filters(), 1);
        agent.stop();
        host.clean_up();
        assert_eq!((filters(), has_clsact()), (0, false));
    });
}
