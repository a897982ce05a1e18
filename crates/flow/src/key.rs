//! Keys of connections, and their keyed hash.

use std::{
    fmt,
    hash::{BuildHasher, Hash, RandomState},
};

use vipa_model::{Protocol, VipaId};

use crate::atomics::AtomicU64;

/// VIPAs that the table distinguishes. A connection to a `VipaId` at or beyond this number is not stored.
pub const MAX_VIPAS: u16 = 1 << 12;
const _: () = assert!(MAX_VIPAS as usize == vipa_model::MAX_VIPAS);

/// A connection to an IPv4 VIPA. Address and ports are numbers in host byte order, not bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key4 {
    pub client: u32,
    pub client_port: u16,
    pub vipa_port: u16,
    pub vipa: VipaId,
    pub protocol: Protocol,
}

/// A connection to an IPv6 VIPA. Address and ports are numbers in host byte order, not bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key6 {
    pub client: u128,
    pub client_port: u16,
    pub vipa_port: u16,
    pub vipa: VipaId,
    pub protocol: Protocol,
}

/// Key of a connection in a table: [`Key4`] or [`Key6`]. Sealed: no other type implements it.
pub trait Key: Copy + Eq + Ord + Hash + fmt::Debug + Send + Sync + sealed::Stored + 'static {
    fn vipa(&self) -> VipaId;
    fn vipa_port(&self) -> u16;
    fn client_port(&self) -> u16;
    fn protocol(&self) -> Protocol;
}

macro_rules! key {
    ($key:ty) => {
        impl Key for $key {
            #[inline]
            fn vipa(&self) -> VipaId {
                self.vipa
            }
            #[inline]
            fn vipa_port(&self) -> u16 {
                self.vipa_port
            }
            #[inline]
            fn client_port(&self) -> u16 {
                self.client_port
            }
            #[inline]
            fn protocol(&self) -> Protocol {
                self.protocol
            }
        }
    };
}

key!(Key4);
key!(Key6);

/// How a key is stored.
pub(crate) mod sealed {
    use super::{HashSeed, Packed};
    use crate::atomics::{AtomicU64, Ordering};

    pub trait Stored: Sized {
        /// Address and ports.
        type Words: Words;

        fn pack(&self) -> Packed<Self::Words>;
        fn unpack(packed: Packed<Self::Words>) -> Self;
    }

    /// Words of a slot's key: one of IPv4, three of IPv6.
    pub trait Words: Copy + Eq + Default + Send + Sync + 'static {
        type AtomicWords: AtomicWords<Words = Self>;

        fn hash(self, seed: &HashSeed, service: u64) -> u64;

        /// Equality word by word, in registers. For arrays the compiler emits wide loads of what narrow stores have
        /// just written to the stack, which stalls.
        fn same(self, other: Self) -> bool;
    }

    /// [`Words`] that several threads share. All-zero bytes are a valid value.
    pub trait AtomicWords: Send + Sync {
        type Words;

        fn zero() -> Self;
        fn load(&self, order: Ordering) -> Self::Words;
        /// True if the stored words equal `words`; rarely also true of different words.
        fn resembles(&self, words: Self::Words, order: Ordering) -> bool;
        fn store(&self, words: Self::Words, order: Ordering);
    }

    impl AtomicWords for AtomicU64 {
        type Words = u64;

        fn zero() -> Self {
            AtomicU64::new(0)
        }
        #[inline(always)]
        fn load(&self, order: Ordering) -> u64 {
            AtomicU64::load(self, order)
        }
        #[inline(always)]
        fn resembles(&self, word: u64, order: Ordering) -> bool {
            AtomicU64::load(self, order) == word
        }
        #[inline(always)]
        fn store(&self, word: u64, order: Ordering) {
            AtomicU64::store(self, word, order);
        }
    }

    /// Words are loaded and stored one by one. A reader that gets words of two lives notices by the slot's other word
    /// that the entry has changed meanwhile.
    impl AtomicWords for [AtomicU64; 3] {
        type Words = [u64; 3];

        fn zero() -> Self {
            std::array::from_fn(|_| AtomicU64::new(0))
        }
        #[inline(always)]
        fn load(&self, order: Ordering) -> [u64; 3] {
            [self[0].load(order), self[1].load(order), self[2].load(order)]
        }
        /// Compares all but the client's network (the upper half of its address).
        #[inline(always)]
        fn resembles(&self, words: [u64; 3], order: Ordering) -> bool {
            (self[1].load(order) ^ words[1]) | (self[2].load(order) ^ words[2]) == 0
        }
        #[inline(always)]
        fn store(&self, words: [u64; 3], order: Ordering) {
            for (cell, word) in self.iter().zip(words) {
                cell.store(word, order);
            }
        }
    }
}

use sealed::{Stored, Words};

/// A key in as few words as possible, for callers that keep many at once.
#[derive(Clone, Copy)]
pub struct PackedKey<K: Key>(pub(crate) Packed<K::Words>);

impl<K: Key> PackedKey<K> {
    #[inline(always)]
    #[must_use]
    pub fn new(key: &K) -> Self {
        Self(key.pack())
    }

    #[inline]
    #[must_use]
    pub fn key(&self) -> K {
        K::unpack(self.0)
    }
}

impl<K: Key> Default for PackedKey<K> {
    fn default() -> Self {
        Self(Packed::default())
    }
}

impl PackedKey<Key4> {
    /// From `ends`: client address, client port and VIPA port, from the highest bit down.
    #[inline(always)]
    #[must_use]
    pub fn from_ends(ends: u64, vipa: VipaId, protocol: Protocol) -> Self {
        Self(Packed { key: ends, service: service(vipa, protocol) })
    }
}

impl PackedKey<Key6> {
    /// From `words`: upper half of the client address, lower half, and client port beside VIPA port, from the highest
    /// bit down.
    #[inline(always)]
    #[must_use]
    pub fn from_words(words: [u64; 3], vipa: VipaId, protocol: Protocol) -> Self {
        Self(Packed { key: words, service: service(vipa, protocol) })
    }
}

/// A key as the table stores it: the full tuple, in words and 13 bits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Packed<W> {
    pub(crate) key: W,
    /// `VipaId` and protocol: the part of the key that is in the entry's own word.
    pub(crate) service: u64,
}

impl<W> Packed<W> {
    pub(crate) fn vipa(&self) -> VipaId {
        VipaId((self.service >> 1) as u16)
    }

    fn protocol(&self) -> Protocol {
        if self.service & 1 == 0 { Protocol::Tcp } else { Protocol::Udp }
    }

    pub(crate) fn fits(&self) -> bool {
        self.service >> 1 < u64::from(MAX_VIPAS)
    }
}

/// Packs `vipa` and `protocol`. The result matches no entry when the `VipaId` is at or beyond [`MAX_VIPAS`].
#[inline(always)]
fn service(vipa: VipaId, protocol: Protocol) -> u64 {
    let protocol = match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
    };
    u64::from(vipa.0) << 1 | protocol
}

impl Stored for Key4 {
    type Words = u64;

    #[inline(always)]
    fn pack(&self) -> Packed<u64> {
        let Self { client, client_port, vipa_port, vipa, protocol } = *self;
        let key = u64::from(client) << 32 | u64::from(client_port) << 16 | u64::from(vipa_port);
        Packed { key, service: service(vipa, protocol) }
    }

    fn unpack(packed: Packed<u64>) -> Self {
        Self {
            client: (packed.key >> 32) as u32,
            client_port: (packed.key >> 16) as u16,
            vipa_port: packed.key as u16,
            vipa: packed.vipa(),
            protocol: packed.protocol(),
        }
    }
}

impl Stored for Key6 {
    type Words = [u64; 3];

    #[inline(always)]
    fn pack(&self) -> Packed<[u64; 3]> {
        let Self { client, client_port, vipa_port, vipa, protocol } = *self;
        let ports = u64::from(client_port) << 16 | u64::from(vipa_port);
        Packed { key: [(client >> 64) as u64, client as u64, ports], service: service(vipa, protocol) }
    }

    fn unpack(packed: Packed<[u64; 3]>) -> Self {
        let [high, low, ports] = packed.key;
        Self {
            client: u128::from(high) << 64 | u128::from(low),
            client_port: (ports >> 16) as u16,
            vipa_port: ports as u16,
            vipa: packed.vipa(),
            protocol: packed.protocol(),
        }
    }
}

impl Words for u64 {
    type AtomicWords = AtomicU64;

    /// Two rounds of folded 64 × 64 → 128-bit multiplication, each with secret operands.
    #[inline]
    fn hash(self, seed: &HashSeed, service: u64) -> u64 {
        let [a, b, c, d] = seed.0;
        let first = fold(self ^ a, b ^ service.wrapping_mul(SPREAD));
        fold(first ^ c, d)
    }

    #[inline(always)]
    fn same(self, other: Self) -> bool {
        self == other
    }
}

impl Words for [u64; 3] {
    type AtomicWords = [AtomicU64; 3];

    /// As for one word, with one more round for the other half of the address.
    #[inline]
    fn hash(self, seed: &HashSeed, service: u64) -> u64 {
        let [a, b, c, d] = seed.0;
        let [high, low, ports] = self;
        let first = fold(high ^ a, b ^ low);
        let second = fold(first ^ ports ^ c, d ^ service.wrapping_mul(SPREAD));
        fold(second ^ b, c)
    }

    #[inline(always)]
    fn same(self, other: Self) -> bool {
        (self[0] ^ other[0]) | (self[1] ^ other[1]) | (self[2] ^ other[2]) == 0
    }
}

/// 2⁶⁴ / the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Secret that decides which buckets a connection has in this process's table, so that nobody outside can aim many
/// connections at one bucket.
#[derive(Clone, Copy)]
pub struct HashSeed([u64; 4]);

impl HashSeed {
    /// From any secret, however few of its bits are set.
    #[must_use]
    pub fn new(secret: [u64; 4]) -> Self {
        let mut sum = 0_u64;
        // The multiplier is odd and so never zero; zero would send all connections to one bucket.
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

    #[inline]
    pub(crate) fn hash<W: Words>(&self, packed: Packed<W>) -> u64 {
        packed.key.hash(self, packed.service)
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// The finisher of SplitMix64 (Steele, Lea, Flood 2014): each input bit changes half of the output bits.
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
