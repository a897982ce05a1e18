//! Reads and writes packet headers in place: parse, rewrite, answer, checksum. Pure: bytes in, bytes out.
//!
//! A frame is a byte slice that begins with its Ethernet header. [`parse()`] looks at it once and says what it is
//! ([`Parsed`]) or why it is nothing ([`Malformed`]); the rewrites below trust what it found.
//!
//! | module | holds |
//! |---|---|
//! | [`mod@ethernet`] | whose frame it is, and its MAC addresses |
//! | [`arp`] | requests, replies and announcements (RFC 826, RFC 5227) |
//! | [`icmp`] | echo replies, and what an error message quotes (RFC 792, RFC 1812) |
//! | [`tcp`] | flags, and the reset that answers a segment (RFC 9293) |
//! | [`checksum`] | the Internet checksum, whole and incremental (RFC 1071, RFC 1624) |
//! | [`build`] | frames written as sentences, for tests, benchmarks and the lab |
//!
//! IPv4 addresses are `u32` in numeric (host) order wherever a packet is forwarded, as the connection table keys them.

#![forbid(unsafe_code)]

pub mod arp;
mod buffer;
pub mod build;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
mod parse;
pub mod tcp;
mod view;

pub use arp::Arp;
pub use buffer::{HEADROOM, HeapPacket, PacketBuf};
pub use ethernet::{Delivery, MacAddress, set_macs};
pub use icmp::{Icmp, Ipv4Icmp, Quoted};
pub use parse::{Body, Ipv4Tcp, Ipv4Udp, Malformed, Parsed, parse, parse_plain};
pub use tcp::TcpFlags;

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
