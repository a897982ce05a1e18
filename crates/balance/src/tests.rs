use super::*;

const KEY: ClusterKey = ClusterKey::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

/// Routers of different releases must agree: a change of this number is a change of the cluster's protocol.
#[test]
fn a_connection_has_the_same_hash_in_every_release() {
    let hash = hash_connection(&KEY, 0xcb00_7104, 40_000, 0xc000_020a, 80, Protocol::Tcp);
    assert_eq!(hash, 11_242_791_539_999_437_944);
}

#[test]
fn every_part_of_a_connection_and_the_key_count() {
    let hash = hash_connection(&KEY, 1, 2, 3, 4, Protocol::Tcp);
    let others = [
        hash_connection(&KEY, 9, 2, 3, 4, Protocol::Tcp),
        hash_connection(&KEY, 1, 9, 3, 4, Protocol::Tcp),
        hash_connection(&KEY, 1, 2, 9, 4, Protocol::Tcp),
        hash_connection(&KEY, 1, 2, 3, 9, Protocol::Tcp),
        hash_connection(&KEY, 1, 2, 3, 4, Protocol::Udp),
        hash_connection(&ClusterKey::new([0; 16]), 1, 2, 3, 4, Protocol::Tcp),
    ];
    assert!(others.iter().all(|other| *other != hash));
}

#[test]
fn the_key_is_not_printed() {
    assert_eq!(format!("{KEY:?}"), "ClusterKey(..)");
}

#[test]
fn every_part_of_an_ipv6_connection_counts() {
    let hash = hash_connection6(&KEY, 1, 2, 3, 4, Protocol::Tcp);
    let others = [
        hash_connection6(&KEY, 1 << 127, 2, 3, 4, Protocol::Tcp),
        hash_connection6(&KEY, 1, 9, 3, 4, Protocol::Tcp),
        hash_connection6(&KEY, 1, 2, 3 | 1 << 100, 4, Protocol::Tcp),
        hash_connection6(&KEY, 1, 2, 3, 9, Protocol::Tcp),
        hash_connection6(&KEY, 1, 2, 3, 4, Protocol::Udp),
        hash_connection6(&ClusterKey::new([0; 16]), 1, 2, 3, 4, Protocol::Tcp),
    ];
    assert!(others.iter().all(|other| *other != hash));
}
