//! The headers of a whole burst side by side, so that the same question is asked of several frames by one instruction.
//!
//! ```text
//!  byte  0        8        16       24       32       40       48 …
//!  IPv4  ├ to ──┬ fr┼om ┬08 00 45┼len id ..┼.. source, destination, ports ┼ … flags   a column for each word,
//!  IPv6  ├ to ──┬ fr┼om ┬86 dd 6 ┼. length  ├ source ─┼──┬ destination ──┼── ports    a row for each frame
//!        └──────┴───┴───┴────────┴──────────┴─────────┴──┴───────────────┴─── … flags
//! ```
//!
//! What [`Heads::segments`] and [`Heads::segments6`] find is what [`parse`](super::parse) says of each frame by itself (a property
//! test). They are written without a branch, for the compiler to make vector instructions of: for a frame of IPv4 nine of
//! AVX-512, twenty-four of AVX2. Of the first ones of x86-64 it takes so many that a burst is a little slower than frame after frame.

use super::{Ipv4Tcp, Ipv6Tcp, PLAIN_TCP, PLAIN_TCP6, Tcp, ipv4, ipv6, tcp};
use crate::{Station, TcpFlags, ethernet::HEADER};

/// Frames that are looked at together.
pub const HEADS: usize = 32;

type Column = [u64; HEADS];

/// Whether somebody has computed the checksums of a burst's IPv4 headers already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderSums {
    /// Nobody has.
    #[default]
    Unverified,
    /// The port has, of every frame whose IP header TCP follows, and found them right.
    Verified,
}

/// The beginnings of frames, each word as it is in memory, its first byte the lowest.
#[repr(C, align(64))]
pub struct Heads {
    /// The words at byte 0, 8, … 40 of each frame.
    words: [Column; 6],
    lengths: Column,
    found: Segments,
    /// Those at byte 48, 56 and 64 of frames of IPv6.
    further: [Column; 3],
    found6: Segments6,
}

/// What there is to know of the IPv4 segments among a burst's frames, by their place.
#[repr(align(64))]
pub struct Segments {
    /// Client's address, client's port and the port it is sent to, in numeric order from the highest bit down.
    pub ends: Column,
    /// Numeric.
    pub destinations: [u32; HEADS],
    /// Which frames are segments: one bit each, as in what follows. Of the others the columns say nothing.
    pub plain: u32,
    /// Those that neither open nor close a connection.
    pub going_on: u32,
}

/// The same of IPv6.
#[repr(align(64))]
pub struct Segments6 {
    /// Client's address, numeric: its higher half and its lower one.
    pub clients: [Column; 2],
    /// Client's port and, lower, the port it is sent to.
    pub ports: Column,
    /// As the client's address.
    pub destinations: [Column; 2],
    pub plain: u32,
    pub going_on: u32,
}

/// EtherType, version and header length: of the word at byte 8.
const FORM: (u64, u64) =
    (u64::from_le_bytes([0, 0, 0, 0, 0x08, 0x00, 0x45, 0]), u64::from_le_bytes([0, 0, 0, 0, 0xff, 0xff, 0xff, 0]));
/// EtherType and version.
const FORM6: (u64, u64) =
    (u64::from_le_bytes([0, 0, 0, 0, 0x86, 0xdd, 0x60, 0]), u64::from_le_bytes([0, 0, 0, 0, 0xff, 0xff, 0xf0, 0]));
/// No fragment, and TCP: of the word at byte 16.
const WHOLE: (u64, u64) = (
    u64::from_le_bytes([0, 0, 0, 0, 0, 0, 0, crate::TCP]),
    u64::from_le_bytes([0, 0, 0, 0, (ipv4::FRAGMENT >> 8) as u8, ipv4::FRAGMENT as u8, 0, 0xff]),
);
/// TCP comes next: of the word at byte 16.
const NEXT6: (u64, u64) =
    (u64::from_le_bytes([0, 0, 0, 0, crate::TCP, 0, 0, 0]), u64::from_le_bytes([0, 0, 0, 0, 0xff, 0, 0, 0]));
/// Any of SYN, FIN and RST, in a segment's thirteenth byte.
const NOT_GOING_ON: u64 = (TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0) as u64;

impl Default for Heads {
    fn default() -> Self {
        let column = [0; HEADS];
        let found = Segments { ends: column, destinations: [0; HEADS], plain: 0, going_on: 0 };
        let found6 =
            Segments6 { clients: [column; 2], ports: column, destinations: [column; 2], plain: 0, going_on: 0 };
        Self { words: [column; 6], further: [column; 3], lengths: column, found, found6 }
    }
}

impl Heads {
    /// Takes down the beginning of the burst's frame at `place`. One that is too short for a segment is none.
    ///
    /// # Panics
    /// When `place` is not below [`HEADS`].
    #[inline(always)]
    pub fn note(&mut self, place: usize, frame: &[u8]) {
        self.lengths[place] = frame.len() as u64;
        if let Some(head) = frame.first_chunk::<PLAIN_TCP>() {
            for (at, column) in self.words.iter_mut().enumerate() {
                column[place] = word(head, at * 8);
            }
        }
    }

    /// What [`note`](Self::note) leaves out of a frame of IPv6.
    ///
    /// # Panics
    /// When `place` is not below [`HEADS`].
    #[inline(always)]
    pub fn note_further(&mut self, place: usize, frame: &[u8]) {
        if let Some(head) = frame.first_chunk::<PLAIN_TCP6>() {
            for (at, column) in self.further.iter_mut().enumerate() {
                column[place] = word(head, 48 + at * 8);
            }
        }
    }

    /// Which of the frames noted are of IPv6, those of earlier bursts included: one bit each. Of one that is too short for a
    /// segment it may say anything.
    #[inline(always)]
    #[must_use]
    pub fn ipv6(&self) -> u32 {
        (0..HEADS).fold(0, |six, at| six | u32::from(self.is_ipv6(at)) << at)
    }

    /// Whether the frame at `place` is one of them.
    #[inline(always)]
    #[must_use]
    pub fn is_ipv6(&self, place: usize) -> bool {
        (self.words[1][place] ^ FORM6.0) & FORM6.1 == 0
    }

    /// Finds the IPv4 segments to `station` among all frames noted, those of earlier bursts included.
    #[inline(always)]
    pub fn segments(&mut self, station: Station, sums: HeaderSums) -> &Segments {
        match sums {
            HeaderSums::Unverified => self.find(station, |head| head.checksum() ^ 0xffff),
            HeaderSums::Verified => self.find(station, |_| 0),
        }
    }

    /// What was found last.
    #[inline(always)]
    #[must_use]
    pub fn found(&self) -> &Segments {
        &self.found
    }

    /// `fault` is zero of a frame whose IP header's checksum is right.
    #[inline(always)]
    fn find(&mut self, station: Station, fault: impl Fn(&Head) -> u64) -> &Segments {
        let found = &mut self.found;
        let [a, b, c, d, e, f] = &self.words;
        let (mut plain, mut going_on) = (0, 0);
        for at in 0..HEADS {
            let head = Head { words: [a[at], b[at], c[at], d[at], e[at], f[at]], length: self.lengths[at] };
            plain |= u32::from(head.is_plain(station, fault(&head))) << at;
            going_on |= u32::from(head.goes_on()) << at;
            found.ends[at] = head.ends();
            found.destinations[at] = head.destination();
        }
        (found.plain, found.going_on) = (plain, going_on);
        found
    }

    /// Finds those of IPv6 among the frames of which all was noted, those of earlier bursts included.
    #[inline(always)]
    pub fn segments6(&mut self, station: Station) -> &Segments6 {
        let found = &mut self.found6;
        let ([a, b, c, d, e, f], [g, h, i]) = (&self.words, &self.further);
        let (mut plain, mut going_on) = (0, 0);
        for at in 0..HEADS {
            let words = [a[at], b[at], c[at], d[at], e[at], f[at], g[at], h[at], i[at]];
            let head = Head6 { words, length: self.lengths[at] };
            plain |= u32::from(head.is_plain(station)) << at;
            going_on |= u32::from(head.goes_on()) << at;
            [found.clients[0][at], found.clients[1][at]] = head.source().map(u64::swap_bytes);
            [found.destinations[0][at], found.destinations[1][at]] = head.destination();
            found.ports[at] = head.ports();
        }
        (found.plain, found.going_on) = (plain, going_on);
        found
    }

    /// The IPv4 segment that was found at `place`.
    #[must_use]
    pub fn segment(&self, place: usize) -> Ipv4Tcp {
        let ends = self.found.ends[place];
        Tcp {
            source: (ends >> 32) as u32,
            destination: self.found.destinations[place],
            source_port: (ends >> 16) as u16,
            destination_port: ends as u16,
            flags: TcpFlags((self.words[5][place] >> 56) as u8),
        }
    }

    /// The IPv6 segment that was found at `place`.
    #[must_use]
    pub fn segment6(&self, place: usize) -> Ipv6Tcp {
        let Segments6 { clients, ports, destinations, .. } = &self.found6;
        let [source, destination] =
            [clients, destinations].map(|[high, low]| u128::from(high[place]) << 64 | u128::from(low[place]));
        Tcp {
            source,
            destination,
            source_port: (ports[place] >> 16) as u16,
            destination_port: ports[place] as u16,
            flags: TcpFlags((self.further[2][place] >> 24) as u8),
        }
    }
}

#[inline(always)]
fn word<const N: usize>(head: &[u8; N], at: usize) -> u64 {
    head[at..].first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight))
}

/// The number of two bytes, the lower one first.
#[inline(always)]
fn number(bytes: u64) -> u64 {
    (bytes & 0xff) << 8 | bytes >> 8 & 0xff
}

/// The highest bit says whether a length is too short for what it must hold: the frame's for `before` bytes and an IP payload of
/// `payload`, that for a TCP header of `data_offset`, that for its fixed part.
#[inline(always)]
fn too_short(frame: u64, before: usize, payload: u64, data_offset: u64) -> u64 {
    frame.wrapping_sub(before as u64).wrapping_sub(payload)
        | payload.wrapping_sub(data_offset)
        | data_offset.wrapping_sub(tcp::HEADER as u64)
}

/// One frame's. Nothing here may branch.
struct Head {
    words: [u64; 6],
    length: u64,
}

impl Head {
    #[inline(always)]
    fn is_plain(&self, station: Station, fault: u64) -> bool {
        let [a, b, c, d, _, f] = self.words;
        let wrong = station.differs(a) | ((b ^ FORM.0) & FORM.1) | ((c ^ WHOLE.0) & WHOLE.1) | fault;
        let payload = number(c).wrapping_sub(ipv4::HEADER as u64);
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
    fn goes_on(&self) -> bool {
        self.words[5] >> 56 & NOT_GOING_ON == 0
    }

    #[inline(always)]
    fn ends(&self) -> u64 {
        let [_, _, _, d, e, _] = self.words;
        ((d >> 16 & 0xffff_ffff) | (e << 16 & 0xffff_ffff_0000_0000)).swap_bytes()
    }

    #[inline(always)]
    fn destination(&self) -> u32 {
        let [_, _, _, d, e, _] = self.words;
        ((d >> 48 | e << 16) as u32).swap_bytes()
    }
}

/// The same of IPv6.
struct Head6 {
    words: [u64; 9],
    length: u64,
}

impl Head6 {
    #[inline(always)]
    fn is_plain(&self, station: Station) -> bool {
        let [a, b, c, .., i] = self.words;
        let wrong = station.differs(a) | ((b ^ FORM6.0) & FORM6.1) | ((c ^ NEXT6.0) & NEXT6.1);
        let short = too_short(self.length, HEADER + ipv6::HEADER, number(c >> 16), i >> 18 & 0x3c);
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
    fn goes_on(&self) -> bool {
        self.words[8] >> 24 & NOT_GOING_ON == 0
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
