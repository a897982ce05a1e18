//! The Internet checksum: the ones' complement of the ones' complement sum of 16-bit words (RFC 1071), and how it
//! changes when a word does (RFC 1624 §3, equation 3).

/// A ones' complement sum in the making, of words in network byte order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds `bytes`; an odd last one is padded with zero. Only the last slice added may be of odd length.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            self.0 += u64::from(u32::from_be_bytes(*word));
        }
        match *rest {
            [a] => self.0 += u64::from(u16::from_be_bytes([a, 0])),
            [a, b] => self.0 += u64::from(u16::from_be_bytes([a, b])),
            [a, b, c] => self.0 += u64::from(u32::from_be_bytes([a, b, c, 0])),
            _ => {}
        }
        self
    }

    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    #[must_use]
    pub const fn address(self, address: u32) -> Self {
        Self(self.0 + address as u64)
    }

    #[must_use]
    pub const fn address6(self, address: u128) -> Self {
        let (high, low) = ((address >> 64) as u64, address as u64);
        Self(self.0 + (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff))
    }

    /// Adds what another sum has added.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The sum, 16 bits wide.
    #[must_use]
    pub const fn fold(self) -> u16 {
        fold(self.0)
    }

    /// What to write in the checksum field.
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !fold(self.0)
    }
}

/// Adds the carries back (RFC 1071 §1): 64 bits to 16. Zero stays zero; no other sum becomes zero. Adding a number to itself
/// with its halves exchanged leaves the halves' ones' complement sum in the upper half.
#[inline(always)]
const fn fold(sum: u64) -> u16 {
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// Checksum of `bytes`, in which the checksum field is zero.
#[must_use]
pub fn of(bytes: &[u8]) -> u16 {
    Sum::default().bytes(bytes).checksum()
}

/// Whether `bytes`, checksum field included, sum to ones. For an IPv4 header with options, or an ICMP message.
#[must_use]
pub fn is_valid(bytes: &[u8]) -> bool {
    Sum::default().bytes(bytes).fold() == 0xffff
}

/// [`is_valid`] of an IPv4 header without options: five additions and one fold, in whatever byte order the machine has
/// (RFC 1071 §2B: the sum does not depend on it).
#[inline(always)]
#[must_use]
pub fn ipv4_header_is_valid(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    let sum = words.iter().fold(0u64, |sum, word| sum + u64::from(u32::from_ne_bytes(*word)));
    fold(sum) == 0xffff
}

/// Sum of the pseudo-header that TCP and UDP prefix (RFC 9293 §3.1, RFC 768).
#[must_use]
pub const fn pseudo_header(source: u32, destination: u32, protocol: u8, length: u16) -> Sum {
    Sum(0).address(source).address(destination).word(protocol as u16).word(length)
}

/// The same of IPv6 (RFC 8200 §8.1).
#[must_use]
pub const fn pseudo_header6(source: u128, destination: u128, protocol: u8, length: u16) -> Sum {
    Sum(0).address6(source).address6(destination).word(protocol as u16).word(length)
}

/// `checksum` after a word it covers changed from `old` to `new` (RFC 1624 equation 3: HC' = ~(~HC + ~m + m')).
#[inline]
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    Sum(0).word(!checksum).word(!old).word(new).checksum()
}

/// What an IPv4 header's sum changes by when its time to live becomes less by one: `~m + m'` is the same for all.
pub const HOP: Sum = Sum(0xfeff);

/// [`update`] for that.
#[inline(always)]
#[must_use]
pub const fn after_hop(checksum: u16) -> u16 {
    let sum = !checksum as u32 + HOP.0 as u32;
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// [`update`] for an address.
#[inline]
#[must_use]
pub const fn update_address(checksum: u16, old: u32, new: u32) -> u16 {
    Sum(0).word(!checksum).address(!old).address(new).checksum()
}

#[cfg(test)]
mod tests;
