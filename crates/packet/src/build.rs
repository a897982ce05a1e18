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

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    HeapPacket, ICMP, ICMP6, TCP, TcpFlags, UDP, arp,
    checksum::{self, Sum},
    ethernet::{self, HEADER, MacAddress, SHORTEST, TYPE_ARP, TYPE_IPV4, TYPE_IPV6, TYPE_VLAN, VLAN_TAG},
    icmp, icmp6, tcp,
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

/// What can stand for an IPv6 address in a sentence.
pub trait Address6 {
    fn address6(self) -> Ipv6Addr;
}

impl Address6 for Ipv6Addr {
    fn address6(self) -> Ipv6Addr {
        self
    }
}

impl Address6 for u128 {
    fn address6(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self)
    }
}

/// # Panics
/// When the text is not an IPv6 address.
impl Address6 for &str {
    fn address6(self) -> Ipv6Addr {
        self.parse().unwrap_or_else(|_| panic!("{self:?} is not an IPv6 address"))
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
    Ip(Ip),
}

/// An IP packet of either family.
#[derive(Clone, Debug)]
struct Ip {
    ends: Ends,
    ttl: u8,
    traffic_class: u8,
    identification: u32,
    dont_fragment: bool,
    /// Bytes before this part, and whether another follows.
    part: Option<(u16, bool)>,
    /// Of IPv4.
    options: Vec<u8>,
    spoil: u16,
    flow_label: u32,
    /// Extension headers of IPv6, with the kind of each.
    extensions: Vec<(u8, Vec<u8>)>,
    transport: Transport,
}

#[derive(Clone, Copy, Debug)]
enum Ends {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

#[derive(Clone, Debug)]
enum Transport {
    Raw(u8),
    Tcp { ports: (u16, u16), sequence: u32, acknowledge: u32, flags: TcpFlags, window: u16, options: Vec<u8> },
    Udp { ports: (u16, u16) },
    Icmp { kind: u8, code: u8, rest: u32 },
    Gue { ports: (u16, u16), inside: u8 },
    Gre { ether_type: u16 },
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

    /// Neither ARP nor IP.
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

/// IP. Each but [`ipv4`](Builder::ipv4) and [`ipv6`](Builder::ipv6) is about the packet that one of these began.
///
/// # Panics
/// All of these, and those of the transports, when the sentence has neither before them.
impl Builder {
    pub fn ipv4(self, source: impl Address, destination: impl Address) -> Self {
        self.ip(Ends::V4(source.address(), destination.address()))
    }

    pub fn ipv6(self, source: impl Address6, destination: impl Address6) -> Self {
        self.ip(Ends::V6(source.address6(), destination.address6()))
    }

    fn ip(mut self, ends: Ends) -> Self {
        self.network = Network::Ip(Ip {
            ends,
            ttl: 64,
            traffic_class: 0,
            identification: 0,
            dont_fragment: false,
            part: None,
            options: Vec::new(),
            spoil: 0,
            flow_label: 0,
            extensions: Vec::new(),
            transport: Transport::Raw(253),
        });
        self
    }

    /// Time to live, or hop limit.
    pub fn ttl(self, ttl: u8) -> Self {
        self.with_ip(|ip| ip.ttl = ttl)
    }

    /// DSCP and ECN.
    pub fn traffic_class(self, class: u8) -> Self {
        self.with_ip(|ip| ip.traffic_class = class)
    }

    pub fn identification(self, identification: impl Into<u32>) -> Self {
        self.with_ip(|ip| ip.identification = identification.into())
    }

    pub fn dont_fragment(self) -> Self {
        self.with_ip(|ip| ip.dont_fragment = true)
    }

    /// The first part of a packet, with its transport header. In IPv6 a fragment header says so, the last of its kind.
    pub fn first_fragment(self) -> Self {
        self.part(0, true)
    }

    /// The last part of a packet: `offset` bytes of its payload went before (a multiple of 8, not 0).
    pub fn last_fragment(self, offset: u16) -> Self {
        self.part(offset, false)
    }

    /// Any part of a packet.
    pub fn part(self, offset: u16, more: bool) -> Self {
        self.with_ip(|ip| ip.part = Some((offset, more)))
    }

    /// IPv4 options, padded with zeros (end of options) to a multiple of 4; at most 40 bytes.
    pub fn ip_options(self, options: &[u8]) -> Self {
        assert!(options.len() <= 40, "an IPv4 header has room for 40 bytes of options");
        self.with_ip(|ip| ip.options = padded_to_words(options))
    }

    /// Of IPv6, 20 bits.
    pub fn flow_label(self, label: u32) -> Self {
        self.with_ip(|ip| ip.flow_label = label)
    }

    /// An IPv6 extension header of this kind: what follows its kind and length, padded with zeros.
    pub fn extension(self, kind: u8, content: &[u8]) -> Self {
        self.with_ip(|ip| ip.extensions.push((kind, content.to_vec())))
    }

    /// Makes the header checksum wrong.
    pub fn spoil_ipv4_checksum(self) -> Self {
        self.with_ip(|ip| ip.spoil = 0x0101)
    }

    /// A protocol that the builder does not know.
    pub fn protocol(self, protocol: u8) -> Self {
        self.with_ip(|ip| ip.transport = Transport::Raw(protocol))
    }

    fn with_ip(mut self, change: impl FnOnce(&mut Ip)) -> Self {
        let Network::Ip(header) = &mut self.network else { panic!("say .ipv4 or .ipv6(source, destination) first") };
        change(header);
        self
    }
}

/// Packets that carry the IP packet of another frame, which may be tagged and padded.
///
/// # Panics
/// When `frame` holds no IP packet.
impl Builder {
    pub fn ipip(self, frame: &HeapPacket) -> Self {
        let (inside, _, packet) = ip_packet(frame);
        self.protocol(inside).payload(packet)
    }

    pub fn gre(self, frame: &HeapPacket) -> Self {
        let (_, ether_type, packet) = ip_packet(frame);
        self.with_ip(|ip| ip.transport = Transport::Gre { ether_type }).payload(packet)
    }

    pub fn gue(self, source_port: u16, destination_port: u16, frame: &HeapPacket) -> Self {
        let (inside, _, packet) = ip_packet(frame);
        let ports = (source_port, destination_port);
        self.with_ip(|ip| ip.transport = Transport::Gue { ports, inside }).payload(packet)
    }
}

/// Its number inside another, its EtherType, and its bytes.
fn ip_packet(frame: &HeapPacket) -> (u8, u16, Vec<u8>) {
    let bytes: &[u8] = frame.as_ref();
    let (tagged, ether_type) = ethernet::ether_type(bytes).expect("a frame has a type");
    let packet = &bytes[HEADER + if tagged { VLAN_TAG } else { 0 }..];
    let said = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    // What follows the packet is padding.
    match ether_type {
        TYPE_IPV4 => (4, ether_type, packet[..said(2).min(packet.len())].to_vec()),
        TYPE_IPV6 => (41, ether_type, packet[..(40 + said(4)).min(packet.len())].to_vec()),
        _ => panic!("only an IP packet can be carried"),
    }
}

/// TCP: `tcp` begins a segment, ACK set and nothing else.
///
/// # Panics
/// All but `tcp` when the sentence has no `tcp` before them.
impl Builder {
    pub fn tcp(self, source_port: u16, destination_port: u16) -> Self {
        self.with_ip(|ip| {
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
        self.with_ip(|ip| {
            assert!(matches!(ip.transport, Transport::Tcp { .. }), "say .tcp(source_port, destination_port) first");
            change(&mut ip.transport);
        })
    }
}

/// UDP and ICMP.
impl Builder {
    pub fn udp(self, source_port: u16, destination_port: u16) -> Self {
        self.with_ip(|ip| ip.transport = Transport::Udp { ports: (source_port, destination_port) })
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
        let (_, ether_type, packet) = ip_packet(frame);
        assert_eq!(ether_type, TYPE_IPV4, "ICMP quotes IPv4");
        let header = usize::from(packet[0] & 0x0f) * 4;
        self.icmp(kind, code, rest).payload(&packet[..packet.len().min(header + 8)])
    }

    pub fn icmp6_echo(self, identifier: u16, sequence: u16) -> Self {
        self.icmp(icmp6::ECHO_REQUEST, 0, u32::from(identifier) << 16 | u32::from(sequence))
    }

    pub fn icmp6_echo_reply(self, identifier: u16, sequence: u16) -> Self {
        self.icmp(icmp6::ECHO_REPLY, 0, u32::from(identifier) << 16 | u32::from(sequence))
    }

    /// Any ICMPv6 error about the IPv6 packet in `frame`, which is quoted as far as 1,280 bytes allow.
    ///
    /// # Panics
    /// When `frame` holds no IPv6 packet.
    pub fn icmp6_error(self, kind: u8, code: u8, rest: u32, frame: &HeapPacket) -> Self {
        let (_, ether_type, packet) = ip_packet(frame);
        assert_eq!(ether_type, TYPE_IPV6, "ICMPv6 quotes IPv6");
        self.icmp(kind, code, rest).payload(&packet[..packet.len().min(1232)])
    }

    /// Any ICMP message, or ICMPv6 in an IPv6 packet; `rest` is the header's second word.
    pub fn icmp(self, kind: u8, code: u8, rest: u32) -> Self {
        self.with_ip(|ip| ip.transport = Transport::Icmp { kind, code, rest })
    }
}

/// The end of a sentence.
impl Builder {
    /// # Panics
    /// When the packet would be longer than its header can say.
    #[must_use]
    pub fn build(&self) -> HeapPacket {
        let (ether_type, body) = match &self.network {
            Network::Other(ether_type) => (*ether_type, self.payload.clone()),
            Network::Arp(message) => (TYPE_ARP, message.to_vec()),
            Network::Ip(ip) => ip.assemble(&self.payload),
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

impl Ip {
    /// EtherType and packet.
    fn assemble(&self, payload: &[u8]) -> (u16, Vec<u8>) {
        let (protocol, transport) = self.transport(payload);
        match self.ends {
            Ends::V4(source, destination) => (TYPE_IPV4, self.assemble4((source, destination), protocol, &transport)),
            Ends::V6(source, destination) => (TYPE_IPV6, self.assemble6((source, destination), protocol, &transport)),
        }
    }

    fn assemble4(&self, (source, destination): (Ipv4Addr, Ipv4Addr), protocol: u8, transport: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let total = u16::try_from(header + transport.len()).expect("an IPv4 packet has at most 65,535 bytes");
        let (offset, more) = self.part.unwrap_or_default();
        let fragment = u16::from(self.dont_fragment) << 14 | u16::from(more) << 13 | (offset / 8);
        let mut packet = vec![0; header];
        packet[0] = 0x40 | (header / 4) as u8;
        packet[1] = self.traffic_class;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[4..6].copy_from_slice(&(self.identification as u16).to_be_bytes());
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet[8] = self.ttl;
        packet[9] = protocol;
        packet[12..16].copy_from_slice(&source.octets());
        packet[16..20].copy_from_slice(&destination.octets());
        packet[20..].copy_from_slice(&self.options);
        let sum = checksum::of(&packet) ^ self.spoil;
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(transport);
        packet
    }

    fn assemble6(&self, (source, destination): (Ipv6Addr, Ipv6Addr), protocol: u8, transport: &[u8]) -> Vec<u8> {
        const FRAGMENT: u8 = 44;
        let mut headers: Vec<(u8, Vec<u8>)> = Vec::new();
        for (kind, content) in &self.extensions {
            let mut header = vec![0, 0];
            header.extend(content);
            header.resize(header.len().next_multiple_of(8), 0);
            header[1] = (header.len() / 8 - 1) as u8;
            headers.push((*kind, header));
        }
        if let Some((offset, more)) = self.part {
            let mut header = vec![0, 0];
            header.extend((offset | u16::from(more)).to_be_bytes());
            header.extend(self.identification.to_be_bytes());
            headers.push((FRAGMENT, header));
        }
        let mut kinds: Vec<u8> = headers.iter().map(|(kind, _)| *kind).collect();
        kinds.push(protocol);
        let body: Vec<u8> = headers
            .iter_mut()
            .zip(&kinds[1..])
            .flat_map(|((_, header), next)| {
                header[0] = *next;
                header.clone()
            })
            .chain(transport.iter().copied())
            .collect();
        let length = u16::try_from(body.len()).expect("an IPv6 packet carries at most 65,535 bytes");
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label;
        let mut packet = first.to_be_bytes().to_vec();
        packet.extend(length.to_be_bytes());
        packet.extend([kinds[0], self.ttl]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(body);
        packet
    }

    /// What a checksum begins with.
    fn pseudo_header(&self, protocol: u8, length: usize) -> Sum {
        let length = length as u16;
        match self.ends {
            Ends::V4(source, destination) => {
                checksum::pseudo_header(source.to_bits(), destination.to_bits(), protocol, length)
            }
            Ends::V6(source, destination) => {
                checksum::pseudo_header6(source.to_bits(), destination.to_bits(), protocol, length)
            }
        }
    }

    /// Protocol number, and header and payload with their checksum.
    fn transport(&self, payload: &[u8]) -> (u8, Vec<u8>) {
        let (protocol, mut bytes, checksum_at) = match &self.transport {
            Transport::Raw(protocol) => return (*protocol, payload.to_vec()),
            Transport::Gre { ether_type } => return (47, [&[0, 0], &ether_type.to_be_bytes()[..], payload].concat()),
            Transport::Gue { ports, inside } => {
                let mut bytes = ports_of(*ports);
                bytes.extend((12 + payload.len() as u16).to_be_bytes());
                bytes.extend([0, 0, 0, *inside, 0, 0]);
                bytes.extend(payload);
                return (UDP, bytes);
            }
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
                (if matches!(self.ends, Ends::V4(..)) { ICMP } else { ICMP6 }, header, 2)
            }
        };
        bytes.extend(payload);
        let pseudo = if protocol == ICMP { Sum::default() } else { self.pseudo_header(protocol, bytes.len()) };
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
