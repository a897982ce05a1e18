//! What names a connection, and the keyed hash of it.

use std::hash::{BuildHasher, RandomState};

use vipa_model::{Protocol, VipaId};

/// The table tells this many VIPAs apart; a connection to a `VipaId` beyond finds no place.
pub const MAX_VIPAS: u16 = 1 << 12;

/// A connection to an IPv4 VIPA. Address and ports as numbers, not as bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key4 {
    pub client: u32,
    pub client_port: u16,
    pub vipa_port: u16,
    pub vipa: VipaId,
    pub protocol: Protocol,
}

/// A key as the table stores it: the full tuple, in one word and 13 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) key: u64,
    /// `VipaId` and protocol: the part that lives in an entry's second word.
    pub(crate) service: u64,
}

impl Packed {
    /// Never matches an entry when the `VipaId` is beyond [`MAX_VIPAS`].
    #[inline]
    pub(crate) fn new(key: &Key4) -> Self {
        let Key4 { client, client_port, vipa_port, vipa, protocol } = *key;
        let key = u64::from(client) << 32 | u64::from(client_port) << 16 | u64::from(vipa_port);
        let protocol = match protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
        };
        Self { key, service: u64::from(vipa.0) << 1 | protocol }
    }

    pub(crate) fn unpack(self) -> Key4 {
        Key4 {
            client: (self.key >> 32) as u32,
            client_port: (self.key >> 16) as u16,
            vipa_port: self.key as u16,
            vipa: self.vipa(),
            protocol: if self.service & 1 == 0 { Protocol::Tcp } else { Protocol::Udp },
        }
    }

    pub(crate) fn vipa(self) -> VipaId {
        VipaId((self.service >> 1) as u16)
    }

    pub(crate) fn fits(self) -> bool {
        self.service >> 1 < u64::from(MAX_VIPAS)
    }
}

/// 2⁶⁴ / the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The secret that decides where a connection lives in this process's table, so that nobody outside can aim many
/// connections at one bucket.
#[derive(Clone, Copy)]
pub struct HashSeed([u64; 4]);

impl HashSeed {
    /// From any secret, however few of its bits are set.
    #[must_use]
    pub fn new(secret: [u64; 4]) -> Self {
        let mut sum = 0_u64;
        // An odd multiplier is never zero, which would send everything to one place.
        Self(secret.map(|word| {
            sum = sum.wrapping_add(word).wrapping_add(SPREAD);
            mix(sum) | 1
        }))
    }

    /// From the operating system's randomness.
    #[must_use]
    pub fn random() -> Self {
        let random = RandomState::new();
        Self::new([0, 1, 2, 3].map(|word: u64| random.hash_one(word)))
    }

    /// Two rounds of folded 64 × 64 → 128-bit multiplication, each with secret operands.
    #[inline]
    pub(crate) fn hash(&self, packed: Packed) -> u64 {
        let [a, b, c, d] = self.0;
        let first = fold(packed.key ^ a, b ^ packed.service.wrapping_mul(SPREAD));
        fold(first ^ c, d)
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// The finisher of SplitMix64 (Steele, Lea, Flood 2014): every bit in changes half of the bits out.
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
