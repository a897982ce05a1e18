//! The kernel's socket tables over netlink (sock_diag(7)): dumps, and notices of destroyed sockets.
//!
//! ```text
//! request   nlmsghdr 16 │ inet_diag_req_v2 56: family protocol ext pad │ states 4 │ inet_diag_sockid 48
//! answer    nlmsghdr 16 │ inet_diag_msg 72: family state timer retrans │ inet_diag_sockid 48
//!                       │ expires 4 rqueue 4 wqueue 4 uid 4 inode 4 │ attributes
//! sockid    sport 2 dport 2 (network order) │ src 16 │ dst 16 │ interface 4 │ cookie 8
//!
//! A dump is no consistent snapshot: the kernel walks its table in steps, and when sockets ahead of a step are
//! destroyed it skips as many that live. A request for one connection by name (`Diag::find`) is exact.
//! ```
//! All other numbers are in the host's order (linux/inet_diag.h, linux/netlink.h).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
        sockopt,
    },
    time::TimeVal,
};
use vipa_model::Protocol;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
/// Offset of the request's sockid.
const SOCKID: usize = HEADER + 8;
const ANSWER: usize = 72;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Attribute of IPv6 listeners: whether they refuse IPv4.
const INET_DIAG_SKV6ONLY: u16 = 11;
/// Multicast groups of `SKNLGRP_INET_TCP_DESTROY` and `SKNLGRP_INET6_TCP_DESTROY`, numbers 1 and 3.
const TCP_DESTROY_GROUPS: u32 = 1 << 0 | 1 << 2;
/// Bytes read from the kernel at once.
const BUFFER: usize = 256 * 1024;
/// Bytes of notices that the kernel keeps for us while we are busy elsewhere.
const NOTICE_QUEUE: usize = 8 << 20;

/// A set of TCP states, as the bits of `include/net/tcp_states.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct States(u32);

impl States {
    /// SYN-SENT and SYN-RECEIVED up to the last acknowledgement, but not TIME-WAIT: its socket holds no application's
    /// data any more.
    pub(crate) const CONNECTIONS: Self = Self(
        1 << TcpState::Established as u32
            | 1 << TcpState::SynSent as u32
            | 1 << TcpState::SynReceived as u32
            | 1 << TcpState::FinWait1 as u32
            | 1 << TcpState::FinWait2 as u32
            | 1 << TcpState::CloseWait as u32
            | 1 << TcpState::LastAck as u32
            | 1 << TcpState::Closing as u32,
    );
    /// The states of a connection that waits to be accepted.
    pub(crate) const ACCEPTABLE: Self = Self(1 << TcpState::Established as u32 | 1 << TcpState::CloseWait as u32);
    pub(crate) const LISTENERS: Self = Self(1 << TcpState::Listen as u32);
    /// UDP sockets that are bound and not connected.
    pub(crate) const UDP_BOUND: Self = Self(1 << TcpState::Close as u32);
}

/// The kernel's numbers of socket states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum TcpState {
    Established = 1,
    SynSent = 2,
    SynReceived = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    Close = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
}

impl TcpState {
    pub(crate) fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 | 12 => Self::SynReceived,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            _ => return None,
        })
    }
}

/// One socket; IPv4-mapped IPv6 addresses are given as the IPv4 addresses they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) state: TcpState,
    pub(crate) local: (IpAddr, u16),
    pub(crate) remote: (IpAddr, u16),
    /// A socket bound to any IPv6 address that serves IPv4 clients too.
    pub(crate) takes_ipv4: bool,
    /// For a TCP listener: the connections that wait to be accepted, and how many may.
    pub(crate) waiting: u32,
    pub(crate) room: u32,
    /// No application holds it: it has not been accepted yet, or it is closed.
    pub(crate) is_nobodys: bool,
    /// Distinguishes sockets with one address.
    pub(crate) cookie: u64,
}

/// A netlink socket that requests dumps.
#[derive(Debug)]
pub(crate) struct Diag {
    socket: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Diag {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = open(0)?;
        // A kernel that does not answer must not block the agent for ever.
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(10, 0))?;
        Ok(Self { socket, buffer: vec![0; BUFFER], sequence: 0 })
    }

    /// A socket that the kernel never answers.
    #[cfg(test)]
    pub(crate) fn broken() -> io::Result<Self> {
        let (socket, _closed) = std::os::unix::net::UnixDatagram::pair()?;
        Ok(Self { socket: socket.into(), buffer: Vec::new(), sequence: 0 })
    }

    /// Names every socket of `protocol` in one of `states`, IPv4 and IPv6.
    pub(crate) fn dump(&mut self, protocol: Protocol, states: States, mut found: impl FnMut(Socket)) -> io::Result<()> {
        for family in [AF_INET, AF_INET6] {
            self.sequence = self.sequence.wrapping_add(1);
            let request = request(family, protocol, states, self.sequence);
            send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
            while self.receive(&mut found)? == Progress::More {}
        }
        Ok(())
    }

    /// The TCP socket that has this connection to `local` now, whether an application's or the rest of one.
    pub(crate) fn find(&mut self, local: (IpAddr, u16), remote: (IpAddr, u16)) -> io::Result<Option<Socket>> {
        self.sequence = self.sequence.wrapping_add(1);
        let Some(request) = exact_request(local, remote, self.sequence) else { return Ok(None) };
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            for Message { kind, sequence, body } in messages(&self.buffer[..length]) {
                // Without a connection of that name the kernel answers with the listener there.
                let is_it = |socket: &Socket| socket.state != TcpState::Listen && socket.remote == remote;
                match kind {
                    _ if sequence != self.sequence => {}
                    SOCK_DIAG_BY_FAMILY => return Ok(socket_of(body).filter(is_it)),
                    NLMSG_ERROR => {
                        return match error_of(body) {
                            error if error.kind() == io::ErrorKind::NotFound => Ok(None),
                            error => Err(error),
                        };
                    }
                    _ => {}
                }
            }
        }
    }

    fn receive(&mut self, found: &mut impl FnMut(Socket)) -> io::Result<Progress> {
        let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
        for message in messages(&self.buffer[..length]) {
            match message {
                // Left over from a dump that was interrupted.
                Message { sequence, .. } if sequence != self.sequence => {}
                Message { kind: NLMSG_DONE, .. } => return Ok(Progress::Done),
                Message { kind: NLMSG_ERROR, body, .. } => return Err(error_of(body)),
                Message { kind: SOCK_DIAG_BY_FAMILY, body, .. } => {
                    if let Some(socket) = socket_of(body) {
                        found(socket);
                    }
                }
                Message { .. } => {}
            }
        }
        Ok(Progress::More)
    }
}

#[derive(PartialEq, Eq)]
enum Progress {
    More,
    Done,
}

/// A netlink socket on which the kernel reports every destroyed TCP socket.
#[derive(Debug)]
pub(crate) struct Ends {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// Result of reading the notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notices {
    All,
    /// The kernel had more than it keeps; a whole look is needed.
    SomeLost,
}

impl Ends {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = open(TCP_DESTROY_GROUPS)?;
        setsockopt(&socket, sockopt::RcvBufForce, &NOTICE_QUEUE)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &NOTICE_QUEUE))?;
        Ok(Self { socket, buffer: vec![0; BUFFER] })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Names every socket that has ended since the last call, without waiting.
    pub(crate) fn read(&mut self, mut ended: impl FnMut(Socket)) -> io::Result<Notices> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    for message in messages(&self.buffer[..length]) {
                        if message.kind == SOCK_DIAG_BY_FAMILY
                            && let Some(socket) = socket_of(message.body)
                        {
                            ended(socket);
                        }
                    }
                }
                Err(nix::Error::EAGAIN) => return Ok(Notices::All),
                Err(nix::Error::ENOBUFS) => return Ok(Notices::SomeLost),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn open(groups: u32) -> io::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkSockDiag;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

fn request(family: u8, protocol: Protocol, states: States, sequence: u32) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    bytes[0..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes[16] = family;
    bytes[17] = match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    bytes[20..24].copy_from_slice(&states.0.to_ne_bytes());
    bytes
}

/// Requests one TCP socket, whatever its state. `None` when the addresses are of two families.
fn exact_request(local: (IpAddr, u16), remote: (IpAddr, u16), sequence: u32) -> Option<[u8; REQUEST]> {
    let family = match (local.0, remote.0) {
        (IpAddr::V4(_), IpAddr::V4(_)) => AF_INET,
        (IpAddr::V6(_), IpAddr::V6(_)) => AF_INET6,
        _ => return None,
    };
    let mut bytes = request(family, Protocol::Tcp, States(u32::MAX), sequence);
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    let sockid = &mut bytes[SOCKID..];
    sockid[0..2].copy_from_slice(&local.1.to_be_bytes());
    sockid[2..4].copy_from_slice(&remote.1.to_be_bytes());
    for (address, at) in [(local.0, 4), (remote.0, 20)] {
        match address {
            IpAddr::V4(address) => sockid[at..at + 4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => sockid[at..at + 16].copy_from_slice(&address.octets()),
        }
    }
    // Any cookie.
    sockid[40..48].fill(0xff);
    Some(bytes)
}

fn error_of(body: &[u8]) -> io::Error {
    let code = body.get(..4).map_or(0, |code| i32::from_ne_bytes(code.try_into().expect("4 bytes")));
    io::Error::from_raw_os_error(-code)
}

struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

/// The netlink messages in the bytes that were read; a damaged one ends the list.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let length = u32::from_ne_bytes(header[0..4].try_into().expect("4 bytes")) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let sequence = u32::from_ne_bytes(header[8..12].try_into().expect("4 bytes"));
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, sequence, body })
    })
}

fn socket_of(body: &[u8]) -> Option<Socket> {
    let fixed = body.get(..ANSWER)?;
    let state = TcpState::of(fixed[1])?;
    let port = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    let address = |at: usize| address_of(fixed[0], fixed[at..at + 16].try_into().expect("16 bytes"));
    let takes_ipv4 = fixed[0] == AF_INET6 && attribute(&body[ANSWER..], INET_DIAG_SKV6ONLY).is_some_and(|v| v == [0]);
    let number = |at: usize| u32::from_ne_bytes(fixed[at..at + 4].try_into().expect("4 bytes"));
    Some(Socket {
        state,
        local: (address(8)?, port(4)),
        remote: (address(24)?, port(6)),
        takes_ipv4,
        waiting: number(56),
        room: number(60),
        is_nobodys: number(68) == 0,
        cookie: u64::from_ne_bytes(fixed[44..52].try_into().expect("8 bytes")),
    })
}

fn address_of(family: u8, bytes: [u8; 16]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()),
        AF_INET6 => {
            let address = Ipv6Addr::from(bytes);
            Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4))
        }
        _ => None,
    }
}

/// The value of a netlink attribute (length 2, kind 2, value, padded to 4).
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]);
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests;
