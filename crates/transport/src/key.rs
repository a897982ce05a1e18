//! The digest of `cluster.key` in a greeting.

use ring::hmac;
use vipa_protocol::KeyDigest;

/// Of the cluster's name, keyed by `cluster.key` (HMAC-SHA-256, RFC 2104): the same at two nodes exactly when they have the same key and
/// the same name. Nobody learns the key from it.
#[must_use]
pub fn key_digest(cluster: &str, key: &[u8; 16]) -> KeyDigest {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let text = ["vipa cluster.key of ", cluster].concat();
    let tag = hmac::sign(&key, text.as_bytes());
    let mut digest = [0; 32];
    digest.copy_from_slice(tag.as_ref());
    KeyDigest::new(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_key_or_another_name_has_another_digest() {
        let digest = key_digest("demo", &[7; 16]);
        assert!(digest.agrees(&key_digest("demo", &[7; 16])));
        assert!(!digest.agrees(&key_digest("demo", &[8; 16])));
        assert!(!digest.agrees(&key_digest("other", &[7; 16])));
    }
}
