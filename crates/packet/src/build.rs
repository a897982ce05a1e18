//! Frames written as sentences, for tests, benchmarks, the simulator and the lab.
//!
//! ```
//! use vipa_packet::build::packet;
//!
//! let syn = packet().ipv4("203.0.113.4", "192.0.2.10").tcp(40_000, 80).syn().build();
//! let error = packet().ipv4("198.51.100.1", "192.0.2.10").icmp_unreachable(1, &syn).vlan(5).build();
//! # assert!(vipa_packet::parse(error.as_ref()).is_ok());
//! ```
//!
//! Every pair is (source, destination). What is not said has a default: MACs `02:00:00:00:00:01` and `:02`, time to live 64,
//! sequence numbers 0. Lengths and checksums are computed; [`Builder::spoil_ipv4_checksum`] and a change of the bytes
//! afterwards make the frames that should not be.

use std::net::Ipv4Addr;

use crate::{
    HeapPacket, ICMP, TCP, TcpFlags, UDP, arp,
    checksum::{self, Sum},
    ethernet::{self, HEADER, MacAddress, SHORTEST, TYPE_ARP, TYPE_IPV4, TYPE_VLAN, VLAN_TAG},
    icmp, tcp, view,
};

/// What can stand for an IPv4 address in a sentence.
pub trait Address {
    fn address(self) -> Ipv4Addr;
}

impl Address for Ipv4Addr {
    fn address(self) -> Ipv4Addr {
        self
    }
}

impl Address for u32 {
    fn address(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self)
    }
}

/// # Panics
/// When the text is not an IPv4 address.
impl Address for &str {
    fn address(self) -> Ipv4Addr {
        self.parse().unwrap_or_else(|_| panic!("{self:?} is not an IPv4 address"))
    }
}

/// Begins a sentence. Until it says more it is an Ethernet header with the EtherType for local experiments.
pub fn packet() -> Builder {
    Builder {
        source_mac: [2, 0, 0, 0, 0, 1],
        destination_mac: [2, 0, 0, 0, 0, 2],
        vlan: None,
        shortest: 0,
        payload: Vec::new(),
        network: Network::Other(0x88b5),
    }
}

/// A sentence about a frame; [`build`](Self::build) ends it.
#[derive(Clone, Debug)]
#[must_use = "a sentence is nothing until it is built"]
pub struct Builder {
    source_mac: MacAddress,
    destination_mac: MacAddress,
    vlan: Option<u16>,
    shortest: usize,
    payload: Vec<u8>,
    network: Network,
}

#[derive(Clone, Debug)]
enum Network {
    Other(u16),
    Arp([u8; arp::LENGTH]),
    Ipv4(Ipv4),
}

#[derive(Clone, Debug)]
struct Ipv4 {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: u8,
    identification: u16,
    /// Flags and fragment offset, as in the header.
    fragment: u16,
    options: Vec<u8>,
    spoil: u16,
    transport: Transport,
}

#[derive(Clone, Debug)]
enum Transport {
    Raw(u8),
    Tcp { ports: (u16, u16), sequence: u32, acknowledge: u32, flags: TcpFlags, window: u16, options: Vec<u8> },
    Udp { ports: (u16, u16) },
    Icmp { kind: u8, code: u8, rest: u32 },
}

/// The link.
impl Builder {
    pub fn macs(mut self, source: impl Into<MacAddress>, destination: impl Into<MacAddress>) -> Self {
        (self.source_mac, self.destination_mac) = (source.into(), destination.into());
        self
    }

    /// With an 802.1Q tag: the low 12 bits of `control` are the VLAN, the others its priority.
    pub fn vlan(mut self, control: u16) -> Self {
        self.vlan = Some(control);
        self
    }

    /// Padded with zeros to the 60 bytes that a frame has on a wire at least.
    pub fn padded(mut self) -> Self {
        self.shortest = SHORTEST;
        self
    }

    /// Neither ARP nor IPv4.
    pub fn ether_type(mut self, ether_type: u16) -> Self {
        self.network = Network::Other(ether_type);
        self
    }

    /// What the innermost header carries.
    pub fn payload(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.payload = bytes.as_ref().to_vec();
        self
    }
}

/// ARP. The sender's MAC is the frame's source, so say [`macs`](Builder::macs) first.
impl Builder {
    /// `sender` asks everybody for `target`.
    pub fn arp_request(mut self, sender: impl Address, target: impl Address) -> Self {
        self.destination_mac = ethernet::BROADCAST;
        let sender = (self.source_mac, sender.address());
        self.network = Network::Arp(arp::write(arp::Operation::Request, sender, ([0; 6], target.address())));
        self
    }

    /// `sender` tells `target` its MAC.
    pub fn arp_reply(mut self, sender: impl Address, target: impl Address) -> Self {
        let (sender, target) = ((self.source_mac, sender.address()), (self.destination_mac, target.address()));
        self.network = Network::Arp(arp::write(arp::Operation::Reply, sender, target));
        self
    }
}

/// IPv4. Each but [`ipv4`](Builder::ipv4) is about the packet that it began.
///
/// # Panics
/// All of these, and those of the transports, when the sentence has no `ipv4` before them.
impl Builder {
    pub fn ipv4(mut self, source: impl Address, destination: impl Address) -> Self {
        let (source, destination) = (source.address(), destination.address());
        let transport = Transport::Raw(253);
        let (fragment, options) = (0, Vec::new());
        let header = Ipv4 { source, destination, ttl: 64, identification: 0, fragment, options, spoil: 0, transport };
        self.network = Network::Ipv4(header);
        self
    }

    pub fn ttl(self, ttl: u8) -> Self {
        self.with_ipv4(|ip| ip.ttl = ttl)
    }

    pub fn identification(self, identification: u16) -> Self {
        self.with_ipv4(|ip| ip.identification = identification)
    }

    pub fn dont_fragment(self) -> Self {
        self.with_ipv4(|ip| ip.fragment |= 0x4000)
    }

    /// The first part of a packet, with its transport header.
    pub fn first_fragment(self) -> Self {
        self.with_ipv4(|ip| ip.fragment = 0x2000)
    }

    /// The last part of a packet: `offset` bytes of its payload went before (a multiple of 8, not 0).
    pub fn last_fragment(self, offset: u16) -> Self {
        self.with_ipv4(|ip| ip.fragment = offset / 8)
    }

    /// IP options, padded with zeros (end of options) to a multiple of 4; at most 40 bytes.
    pub fn ip_options(self, options: &[u8]) -> Self {
        assert!(options.len() <= 40, "an IPv4 header has room for 40 bytes of options");
        self.with_ipv4(|ip| ip.options = padded_to_words(options))
    }

    /// Makes the header checksum wrong.
    pub fn spoil_ipv4_checksum(self) -> Self {
        self.with_ipv4(|ip| ip.spoil = 0x0101)
    }

    /// A protocol that the builder does not know.
    pub fn protocol(self, protocol: u8) -> Self {
        self.with_ipv4(|ip| ip.transport = Transport::Raw(protocol))
    }

    fn with_ipv4(mut self, change: impl FnOnce(&mut Ipv4)) -> Self {
        let Network::Ipv4(header) = &mut self.network else { panic!("say .ipv4(source, destination) first") };
        change(header);
        self
    }
}

/// TCP: `tcp` begins a segment, ACK set and nothing else.
///
/// # Panics
/// All but `tcp` when the sentence has no `tcp` before them.
impl Builder {
    pub fn tcp(self, source_port: u16, destination_port: u16) -> Self {
        self.with_ipv4(|ip| {
            let (sequence, acknowledge, flags, window) = (0, 0, TcpFlags::ACK, 0xffff);
            let ports = (source_port, destination_port);
            ip.transport = Transport::Tcp { ports, sequence, acknowledge, flags, window, options: Vec::new() };
        })
    }

    /// SYN alone: a client's first segment.
    pub fn syn(self) -> Self {
        self.flags(TcpFlags::SYN)
    }

    pub fn syn_ack(self) -> Self {
        self.flags(TcpFlags::SYN.with(TcpFlags::ACK))
    }

    pub fn fin(self) -> Self {
        self.flags(TcpFlags::FIN.with(TcpFlags::ACK))
    }

    /// RST alone.
    pub fn rst(self) -> Self {
        self.flags(TcpFlags::RST)
    }

    pub fn flags(self, set: TcpFlags) -> Self {
        self.with_tcp(|transport| {
            if let Transport::Tcp { flags, .. } = transport {
                *flags = set;
            }
        })
    }

    pub fn sequence(self, number: u32) -> Self {
        self.with_tcp(|transport| {
            if let Transport::Tcp { sequence, .. } = transport {
                *sequence = number;
            }
        })
    }

    /// The acknowledgement number, and the ACK flag.
    pub fn acknowledge(self, number: u32) -> Self {
        self.with_tcp(|transport| {
            if let Transport::Tcp { acknowledge, flags, .. } = transport {
                (*acknowledge, *flags) = (number, flags.with(TcpFlags::ACK));
            }
        })
    }

    /// TCP options, padded with zeros to a multiple of 4; at most 40 bytes.
    pub fn tcp_options(self, bytes: &[u8]) -> Self {
        assert!(bytes.len() <= 40, "a TCP header has room for 40 bytes of options");
        self.with_tcp(|transport| {
            if let Transport::Tcp { options, .. } = transport {
                *options = padded_to_words(bytes);
            }
        })
    }

    fn with_tcp(self, change: impl FnOnce(&mut Transport)) -> Self {
        self.with_ipv4(|ip| {
            assert!(matches!(ip.transport, Transport::Tcp { .. }), "say .tcp(source_port, destination_port) first");
            change(&mut ip.transport);
        })
    }
}

/// UDP and ICMP.
impl Builder {
    pub fn udp(self, source_port: u16, destination_port: u16) -> Self {
        self.with_ipv4(|ip| ip.transport = Transport::Udp { ports: (source_port, destination_port) })
    }

    pub fn icmp_echo(self, identifier: u16, sequence: u16) -> Self {
        self.icmp(icmp::ECHO_REQUEST, 0, u32::from(identifier) << 16 | u32::from(sequence))
    }

    pub fn icmp_echo_reply(self, identifier: u16, sequence: u16) -> Self {
        self.icmp(icmp::ECHO_REPLY, 0, u32::from(identifier) << 16 | u32::from(sequence))
    }

    /// Destination unreachable, quoting the IPv4 packet in `frame`: its header and the next eight bytes (RFC 792).
    ///
    /// # Panics
    /// When `frame` holds no IPv4 packet.
    pub fn icmp_unreachable(self, code: u8, frame: &HeapPacket) -> Self {
        self.icmp_error(icmp::UNREACHABLE, code, 0, frame)
    }

    /// Fragmentation needed, the next link takes `mtu` bytes (RFC 1191 §4).
    ///
    /// # Panics
    /// When `frame` holds no IPv4 packet.
    pub fn icmp_too_big(self, mtu: u16, frame: &HeapPacket) -> Self {
        self.icmp_error(icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, u32::from(mtu), frame)
    }

    /// Any ICMP error about the IPv4 packet in `frame`; `rest` is the header's second word.
    ///
    /// # Panics
    /// When `frame` holds no IPv4 packet.
    pub fn icmp_error(self, kind: u8, code: u8, rest: u32, frame: &HeapPacket) -> Self {
        let frame: &[u8] = frame.as_ref();
        let l3 = HEADER + if view::u16_at(frame, 12) == Some(TYPE_VLAN) { VLAN_TAG } else { 0 };
        assert_eq!(view::u16_at(frame, l3 - 2), Some(TYPE_IPV4), "only an IPv4 packet can be quoted");
        let header = usize::from(frame[l3] & 0x0f) * 4;
        let quote = &frame[l3..frame.len().min(l3 + header + 8)];
        self.icmp(kind, code, rest).payload(quote)
    }

    /// Any ICMP message; `rest` is the header's second word.
    pub fn icmp(self, kind: u8, code: u8, rest: u32) -> Self {
        self.with_ipv4(|ip| ip.transport = Transport::Icmp { kind, code, rest })
    }
}

/// The end of a sentence.
impl Builder {
    /// # Panics
    /// When the packet would be longer than an IPv4 header can say.
    #[must_use]
    pub fn build(&self) -> HeapPacket {
        let (ether_type, body) = match &self.network {
            Network::Other(ether_type) => (*ether_type, self.payload.clone()),
            Network::Arp(message) => (TYPE_ARP, message.to_vec()),
            Network::Ipv4(header) => (TYPE_IPV4, header.assemble(&self.payload)),
        };
        let mut frame = Vec::with_capacity(HEADER + VLAN_TAG + body.len());
        frame.extend(self.destination_mac);
        frame.extend(self.source_mac);
        if let Some(control) = self.vlan {
            frame.extend(TYPE_VLAN.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        frame.extend(ether_type.to_be_bytes());
        frame.extend(body);
        frame.resize(frame.len().max(self.shortest), 0);
        HeapPacket::from(frame)
    }
}

impl From<Builder> for HeapPacket {
    fn from(builder: Builder) -> Self {
        builder.build()
    }
}

impl PartialEq<Builder> for HeapPacket {
    fn eq(&self, other: &Builder) -> bool {
        *self == other.build()
    }
}

impl Ipv4 {
    fn assemble(&self, payload: &[u8]) -> Vec<u8> {
        let (protocol, transport) = self.transport(payload);
        let header = 20 + self.options.len();
        let total = u16::try_from(header + transport.len()).expect("an IPv4 packet has at most 65,535 bytes");
        let mut packet = vec![0; header];
        packet[0] = 0x40 | (header / 4) as u8;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[4..6].copy_from_slice(&self.identification.to_be_bytes());
        packet[6..8].copy_from_slice(&self.fragment.to_be_bytes());
        packet[8] = self.ttl;
        packet[9] = protocol;
        packet[12..16].copy_from_slice(&self.source.octets());
        packet[16..20].copy_from_slice(&self.destination.octets());
        packet[20..].copy_from_slice(&self.options);
        let sum = checksum::of(&packet) ^ self.spoil;
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(transport);
        packet
    }

    /// Protocol number, and header and payload with their checksum.
    fn transport(&self, payload: &[u8]) -> (u8, Vec<u8>) {
        let (protocol, mut bytes, checksum_at) = match &self.transport {
            Transport::Raw(protocol) => return (*protocol, payload.to_vec()),
            Transport::Tcp { ports, sequence, acknowledge, flags, window, options } => {
                let mut header = ports_of(*ports);
                header.extend(sequence.to_be_bytes());
                header.extend(acknowledge.to_be_bytes());
                header.extend([(((tcp::HEADER + options.len()) / 4) << 4) as u8, flags.0]);
                header.extend(window.to_be_bytes());
                header.extend([0; 4]);
                header.extend(options);
                (TCP, header, 16)
            }
            Transport::Udp { ports } => {
                let mut header = ports_of(*ports);
                header.extend((8 + payload.len() as u16).to_be_bytes());
                header.extend([0; 2]);
                (UDP, header, 6)
            }
            Transport::Icmp { kind, code, rest } => {
                let mut header = vec![*kind, *code, 0, 0];
                header.extend(rest.to_be_bytes());
                (ICMP, header, 2)
            }
        };
        bytes.extend(payload);
        let pseudo = if protocol == ICMP {
            Sum::default()
        } else {
            let (source, destination) = (self.source.to_bits(), self.destination.to_bits());
            checksum::pseudo_header(source, destination, protocol, bytes.len() as u16)
        };
        let sum = match pseudo.bytes(&bytes).checksum() {
            // In UDP zero means "no checksum" (RFC 768).
            0 if protocol == UDP => 0xffff,
            sum => sum,
        };
        bytes[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        (protocol, bytes)
    }
}

fn ports_of((source, destination): (u16, u16)) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}

fn padded_to_words(options: &[u8]) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    options
}
