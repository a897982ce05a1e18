//! What a greeting says of `cluster.key`: enough to tell whether two nodes have the same one, and nothing of the key itself.

use std::{fmt, hint::black_box};

use serde::{Deserialize, Serialize};

/// A digest of the cluster's name keyed by `cluster.key` (`vipa_transport::key_digest` makes it). Who does not have the key learns
/// nothing from it, because the key has 128 random bits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    #[must_use]
    pub const fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// Whether both were made with the same key. Takes equally long wherever they differ.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        let differing = self.0.iter().zip(&other.0).fold(0, |all, (one, other)| black_box(all | (one ^ other)));
        differing == 0
    }
}

/// Nothing of it goes into a log.
impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_agree_exactly_when_every_byte_does_and_are_not_shown() {
        let one = KeyDigest::new([7; 32]);
        assert!(one.agrees(&KeyDigest::new([7; 32])));
        for byte in 0..32 {
            let mut other = [7; 32];
            other[byte] ^= 0x80;
            assert!(!one.agrees(&KeyDigest::new(other)), "byte {byte}");
        }
        assert!(!format!("{one:?}").contains('7'));
    }
}
