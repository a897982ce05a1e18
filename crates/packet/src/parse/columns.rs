//! Header columns: the headers of a whole burst side by side (a structure of arrays), so that one vector instruction asks the same
//! question of several frames.
//!
//! ```text
//!  byte  0        8        16       24       32       40       48 …
//!  IPv4  ├ to ──┬ fr┼om ┬08 00 45┼len id ..┼.. source, destination, ports ┼ … flags   a column for each word,
//!  IPv6  ├ to ──┬ fr┼om ┬86 dd 6 ┼. length  ├ source ─┼──┬ destination ──┼── ports    a row for each frame
//!        └──────┴───┴───┴────────┴──────────┴─────────┴──┴───────────────┴─── … flags
//! ```
//!
//! [`HeaderColumns::segments`] and [`HeaderColumns::segments6`] find what [`parse`](super::parse) finds in each frame alone (a property
//! test). They have no branch, so that the compiler vectorises them: an IPv4 frame costs nine instructions of AVX-512 or twenty-four of
//! AVX2. With SSE2 alone, a burst is a little slower than frame after frame.

use super::{Ipv4Tcp, Ipv6Tcp, PLAIN_TCP, PLAIN_TCP6, Tcp, ipv4, ipv6, tcp};
use crate::{Station, TcpFlags, ethernet::HEADER};

/// Rows of the columns: the frames that are looked at together.
pub const HEADER_ROWS: usize = 32;

type Column = [u64; HEADER_ROWS];

/// Whether the IPv4 header checksums of a burst have been verified already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderSums {
    /// They have not.
    #[default]
    Unverified,
    /// The port has verified the checksum of every frame that carries TCP, and found it right (receive checksum offload).
    Verified,
}

/// The first bytes of each frame, one column for each 8-byte word. A word is little-endian: its first byte in memory is the lowest.
#[repr(C, align(64))]
pub struct HeaderColumns {
    /// Words at bytes 0, 8, … 40 of each frame.
    words: [Column; 6],
    lengths: Column,
    found: Ipv4Segments,
    /// Words at bytes 48, 56 and 64 of IPv6 frames.
    ipv6_words: [Column; 3],
    found6: Ipv6Segments,
}

/// The IPv4 TCP segments of a burst, by row.
#[repr(align(64))]
pub struct Ipv4Segments {
    /// Source address (32 bits), source port (16) and destination port (16), from the highest bit down, numeric.
    pub endpoints: Column,
    /// Destination addresses, numeric.
    pub destinations: [u32; HEADER_ROWS],
    /// One bit for each row that is a plain segment: TCP directly after an IP header without options or VLAN tag, nothing wrong with it,
    /// and addressed to the station. The columns of all other rows are meaningless.
    pub plain: u32,
    /// One bit for each row whose segment neither opens nor closes a connection: it has none of SYN, FIN and RST.
    pub mid_stream: u32,
}

/// The IPv6 TCP segments of a burst, by row.
#[repr(align(64))]
pub struct Ipv6Segments {
    /// Source addresses, numeric: the higher and the lower half.
    pub clients: [Column; 2],
    /// Source port and, in the lowest 16 bits, destination port.
    pub ports: Column,
    /// Destination addresses, as `clients`.
    pub destinations: [Column; 2],
    pub plain: u32,
    pub mid_stream: u32,
}

// Each constant below is a value and a mask for one word of a frame.

/// EtherType, IP version and header length, in the word at byte 8.
const FORMAT: (u64, u64) =
    (u64::from_le_bytes([0, 0, 0, 0, 0x08, 0x00, 0x45, 0]), u64::from_le_bytes([0, 0, 0, 0, 0xff, 0xff, 0xff, 0]));
/// EtherType and IP version, in the word at byte 8.
const FORMAT6: (u64, u64) =
    (u64::from_le_bytes([0, 0, 0, 0, 0x86, 0xdd, 0x60, 0]), u64::from_le_bytes([0, 0, 0, 0, 0xff, 0xff, 0xf0, 0]));
/// Not a fragment, and TCP, in the word at byte 16.
const UNFRAGMENTED_TCP: (u64, u64) = (
    u64::from_le_bytes([0, 0, 0, 0, 0, 0, 0, crate::TCP]),
    u64::from_le_bytes([0, 0, 0, 0, (ipv4::FRAGMENT >> 8) as u8, ipv4::FRAGMENT as u8, 0, 0xff]),
);
/// TCP is the next header, in the word at byte 16.
const NEXT_IS_TCP6: (u64, u64) =
    (u64::from_le_bytes([0, 0, 0, 0, crate::TCP, 0, 0, 0]), u64::from_le_bytes([0, 0, 0, 0, 0xff, 0, 0, 0]));
/// Any of SYN, FIN and RST, in a segment's thirteenth byte.
const OPENS_OR_CLOSES: u64 = (TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0) as u64;

impl Default for HeaderColumns {
    fn default() -> Self {
        let column = [0; HEADER_ROWS];
        let found = Ipv4Segments { endpoints: column, destinations: [0; HEADER_ROWS], plain: 0, mid_stream: 0 };
        let found6 =
            Ipv6Segments { clients: [column; 2], ports: column, destinations: [column; 2], plain: 0, mid_stream: 0 };
        Self { words: [column; 6], ipv6_words: [column; 3], lengths: column, found, found6 }
    }
}

impl HeaderColumns {
    /// Loads the first bytes of a frame into `row`. A frame that is too short for a segment will not be plain.
    ///
    /// # Panics
    /// When `row` is not below [`HEADER_ROWS`].
    #[inline(always)]
    pub fn load(&mut self, row: usize, frame: &[u8]) {
        self.lengths[row] = frame.len() as u64;
        if let Some(head) = frame.first_chunk::<PLAIN_TCP>() {
            for (at, column) in self.words.iter_mut().enumerate() {
                column[row] = word(head, at * 8);
            }
        }
    }

    /// Loads what [`load`](Self::load) leaves out of an IPv6 frame.
    ///
    /// # Panics
    /// When `row` is not below [`HEADER_ROWS`].
    #[inline(always)]
    pub fn load_ipv6(&mut self, row: usize, frame: &[u8]) {
        if let Some(head) = frame.first_chunk::<PLAIN_TCP6>() {
            for (at, column) in self.ipv6_words.iter_mut().enumerate() {
                column[row] = word(head, 48 + at * 8);
            }
        }
    }

    /// One bit for each row that holds an IPv6 frame, rows left from earlier bursts included. The bit of a frame that is too short for a
    /// segment means nothing.
    #[inline(always)]
    #[must_use]
    pub fn ipv6(&self) -> u32 {
        (0..HEADER_ROWS).fold(0, |six, at| six | u32::from(self.is_ipv6(at)) << at)
    }

    /// Whether `row` holds an IPv6 frame.
    #[inline(always)]
    #[must_use]
    pub fn is_ipv6(&self, row: usize) -> bool {
        (self.words[1][row] ^ FORMAT6.0) & FORMAT6.1 == 0
    }

    /// Finds the plain IPv4 segments to `station`, in rows left from earlier bursts too.
    #[inline(always)]
    pub fn segments(&mut self, station: Station, sums: HeaderSums) -> &Ipv4Segments {
        match sums {
            HeaderSums::Unverified => self.find(station, |head| head.checksum() ^ 0xffff),
            HeaderSums::Verified => self.find(station, |_| 0),
        }
    }

    /// What the last call of [`segments`](Self::segments) found.
    #[inline(always)]
    #[must_use]
    pub fn last_segments(&self) -> &Ipv4Segments {
        &self.found
    }

    /// `checksum_error` returns zero where the IPv4 header checksum is right.
    #[inline(always)]
    fn find(&mut self, station: Station, checksum_error: impl Fn(&HeaderRow) -> u64) -> &Ipv4Segments {
        let found = &mut self.found;
        let [a, b, c, d, e, f] = &self.words;
        let (mut plain, mut mid_stream) = (0, 0);
        for at in 0..HEADER_ROWS {
            let head = HeaderRow { words: [a[at], b[at], c[at], d[at], e[at], f[at]], length: self.lengths[at] };
            plain |= u32::from(head.is_plain(station, checksum_error(&head))) << at;
            mid_stream |= u32::from(head.is_mid_stream()) << at;
            found.endpoints[at] = head.endpoints();
            found.destinations[at] = head.destination();
        }
        (found.plain, found.mid_stream) = (plain, mid_stream);
        found
    }

    /// Finds the plain IPv6 segments to `station` among the rows of [`load_ipv6`](Self::load_ipv6), those of earlier bursts included.
    #[inline(always)]
    pub fn segments6(&mut self, station: Station) -> &Ipv6Segments {
        let found = &mut self.found6;
        let ([a, b, c, d, e, f], [g, h, i]) = (&self.words, &self.ipv6_words);
        let (mut plain, mut mid_stream) = (0, 0);
        for at in 0..HEADER_ROWS {
            let words = [a[at], b[at], c[at], d[at], e[at], f[at], g[at], h[at], i[at]];
            let head = HeaderRow6 { words, length: self.lengths[at] };
            plain |= u32::from(head.is_plain(station)) << at;
            mid_stream |= u32::from(head.is_mid_stream()) << at;
            [found.clients[0][at], found.clients[1][at]] = head.source().map(u64::swap_bytes);
            [found.destinations[0][at], found.destinations[1][at]] = head.destination();
            found.ports[at] = head.ports();
        }
        (found.plain, found.mid_stream) = (plain, mid_stream);
        found
    }

    /// The IPv4 segment in `row`.
    #[must_use]
    pub fn segment(&self, row: usize) -> Ipv4Tcp {
        let endpoints = self.found.endpoints[row];
        Tcp {
            source: (endpoints >> 32) as u32,
            destination: self.found.destinations[row],
            source_port: (endpoints >> 16) as u16,
            destination_port: endpoints as u16,
            flags: TcpFlags((self.words[5][row] >> 56) as u8),
        }
    }

    /// The IPv6 segment in `row`.
    #[must_use]
    pub fn segment6(&self, row: usize) -> Ipv6Tcp {
        let Ipv6Segments { clients, ports, destinations, .. } = &self.found6;
        let [source, destination] =
            [clients, destinations].map(|[high, low]| u128::from(high[row]) << 64 | u128::from(low[row]));
        Tcp {
            source,
            destination,
            source_port: (ports[row] >> 16) as u16,
            destination_port: ports[row] as u16,
            flags: TcpFlags((self.ipv6_words[2][row] >> 24) as u8),
        }
    }
}

#[inline(always)]
fn word<const N: usize>(head: &[u8; N], at: usize) -> u64 {
    head[at..].first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight))
}

/// The number whose two bytes a little-endian load has put in reverse order.
#[inline(always)]
fn big_endian_u16(bytes: u64) -> u64 {
    (bytes & 0xff) << 8 | bytes >> 8 & 0xff
}

/// The highest bit is set if a length is too short for what it must hold: the frame for `before` bytes and the IP payload, the payload for
/// a TCP header of `data_offset` bytes, the data offset for the fixed part of the TCP header.
#[inline(always)]
fn too_short(frame: u64, before: usize, payload: u64, data_offset: u64) -> u64 {
    frame.wrapping_sub(before as u64).wrapping_sub(payload)
        | payload.wrapping_sub(data_offset)
        | data_offset.wrapping_sub(tcp::HEADER as u64)
}

/// One row: the words of an IPv4 frame. Nothing here may branch.
struct HeaderRow {
    words: [u64; 6],
    length: u64,
}

impl HeaderRow {
    #[inline(always)]
    fn is_plain(&self, station: Station, checksum_error: u64) -> bool {
        let [a, b, c, d, _, f] = self.words;
        let wrong = station.differs(a)
            | ((b ^ FORMAT.0) & FORMAT.1)
            | ((c ^ UNFRAGMENTED_TCP.0) & UNFRAGMENTED_TCP.1)
            | checksum_error;
        let payload = big_endian_u16(c).wrapping_sub(ipv4::HEADER as u64);
        let short = too_short(self.length, HEADER + ipv4::HEADER, payload, f >> 50 & 0x3c);
        let is_martian = ipv4::is_martian_octet(d >> 16 & 0xff);
        (wrong | short >> 63 == 0) & !is_martian
    }

    /// The ones' complement sum of the IP header, in the machine's byte order (RFC 1071 §2B): all ones if it is right.
    #[inline(always)]
    fn checksum(&self) -> u64 {
        let [_, b, c, d, e, _] = self.words;
        let sum = (b >> 48) + (c & 0xffff_ffff) + (c >> 32) + (d & 0xffff_ffff) + (d >> 32) + (e & 0xffff);
        let sum = (sum & 0xffff_ffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        (sum & 0xffff) + (sum >> 16)
    }

    #[inline(always)]
    fn is_mid_stream(&self) -> bool {
        self.words[5] >> 56 & OPENS_OR_CLOSES == 0
    }

    #[inline(always)]
    fn endpoints(&self) -> u64 {
        let [_, _, _, d, e, _] = self.words;
        ((d >> 16 & 0xffff_ffff) | (e << 16 & 0xffff_ffff_0000_0000)).swap_bytes()
    }

    #[inline(always)]
    fn destination(&self) -> u32 {
        let [_, _, _, d, e, _] = self.words;
        ((d >> 48 | e << 16) as u32).swap_bytes()
    }
}

/// One row of an IPv6 frame, likewise.
struct HeaderRow6 {
    words: [u64; 9],
    length: u64,
}

impl HeaderRow6 {
    #[inline(always)]
    fn is_plain(&self, station: Station) -> bool {
        let [a, b, c, .., i] = self.words;
        let wrong = station.differs(a) | ((b ^ FORMAT6.0) & FORMAT6.1) | ((c ^ NEXT_IS_TCP6.0) & NEXT_IS_TCP6.1);
        let short = too_short(self.length, HEADER + ipv6::HEADER, big_endian_u16(c >> 16), i >> 18 & 0x3c);
        (wrong | short >> 63 == 0) & !self.is_martian()
    }

    /// As [`ipv6::is_martian`].
    #[inline(always)]
    fn is_martian(&self) -> bool {
        let [high, low] = self.source();
        // Nothing but zeros before the last 48 bits, and then: zeros to the last bit, or ones in the next 16.
        let last = low.swap_bytes();
        let is_short = (high == 0) & ((last & !1 == 0) | (last >> 32 == 0xffff));
        is_short | (high & 0xff == 0xff)
    }

    #[inline(always)]
    fn is_mid_stream(&self) -> bool {
        self.words[8] >> 24 & OPENS_OR_CLOSES == 0
    }

    /// Both halves as they are in memory.
    #[inline(always)]
    fn source(&self) -> [u64; 2] {
        let [_, _, c, d, e, ..] = self.words;
        [c >> 48 | d << 16, d >> 48 | e << 16]
    }

    #[inline(always)]
    fn destination(&self) -> [u64; 2] {
        let [_, _, _, _, e, f, g, ..] = self.words;
        [e >> 48 | f << 16, f >> 48 | g << 16].map(u64::swap_bytes)
    }

    #[inline(always)]
    fn ports(&self) -> u64 {
        let [.., g, h, _] = self.words;
        (g >> 48 << 32 | h << 48).swap_bytes()
    }
}
