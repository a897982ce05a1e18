//! Reads and writes packet headers in place: parse, rewrite, answer, checksum. Pure: bytes in, bytes out.
//!
//! A frame is a byte slice that begins with its Ethernet header. [`parse()`] looks at it once and says what it is
//! ([`Parsed`]) or why it is nothing ([`Malformed`]); the rewrites below trust what it found.
//!
//! | module | holds |
//! |---|---|
//! | [`mod@ethernet`] | the MAC filter, and writing Ethernet headers |
//! | [`arp`] | requests, replies and announcements (RFC 826, RFC 5227) |
//! | [`icmp`] | echo replies, and what an error message quotes (RFC 792, RFC 1812) |
//! | [`icmp6`] | the same of IPv6 (RFC 4443) |
//! | [`nd`] | IPv6's neighbour discovery (RFC 4861) |
//! | `tunnel` | packets encapsulated for a target: IP in IP, GRE, GUE |
//! | `path` | ICMP "packet too big" errors about a tunnel's outer packets (RFC 1191) |
//! | `fragmenter` | IPv4 packets divided into fragments (RFC 791) |
//! | [`nat`] | addresses and ports translated, checksums updated (RFC 1624) |
//! | [`tcp`] | flags, and the reset that answers a segment (RFC 9293) |
//! | [`checksum`] | the Internet checksum, whole and incremental (RFC 1071, RFC 1624) |
//! | [`build`] | frames written as sentences, for tests, benchmarks and the lab; [`fix_checksums()`], for fuzzers |
//!
//! Addresses are `u32` and `u128` in numeric (host) order wherever a packet is forwarded, as the connection table keys them.

#![forbid(unsafe_code)]

pub mod arp;
mod buffer;
pub mod build;
pub mod checksum;
pub mod ethernet;
mod fix_checksums;
mod fragmenter;
pub mod icmp;
pub mod icmp6;
mod icmp_error;
mod malformed;
pub mod nat;
pub mod nd;
mod parse;
mod path;
pub mod tcp;
mod tunnel;
mod view;

pub use arp::Arp;
pub use buffer::{HEADROOM, HeapPacket, PacketBuf};
pub use ethernet::{EthernetHeader, L2Destination, MacAddress, Station, set_macs};
pub use fix_checksums::fix_checksums;
pub use fragmenter::Fragmenter;
pub use icmp::{Icmp, Ipv4Icmp, Quoted};
pub use icmp6::{Icmp6, Ipv6Icmp};
pub use malformed::Malformed;
pub use nat::{Endpoint, decrement_ttl, has_last_hop};
pub use parse::{
    Body, Fragment, FragmentHead, HEADER_ROWS, HeaderColumns, HeaderSums, Ipv4Segments, Ipv4Tcp, Ipv4Udp, Ipv6Segments,
    Ipv6Tcp, Ipv6Udp, Parsed, Tcp, Udp, parse, parse_plain,
};
pub use path::PacketTooBig;
pub use tcp::TcpFlags;
pub use tunnel::{Encapsulation, InnerPacket, TunnelEndpoints, TunnelHeaders, decapsulate, encapsulate};

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const ICMP6: u8 = 58;
