use super::*;

fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn place(decision: Decision) -> Option<Place> {
    match decision {
        Decision::Begin(place) => Some(place),
        Decision::Validate | Decision::Refuse => None,
    }
}

#[test]
fn a_few_handshakes_begin_without_proof_and_the_next_must_prove_its_address() {
    let handshakes = Handshakes::default();
    let unvalidated = |last| handshakes.decide(address(last), Source::Peer, Validation::Unvalidated);
    let begun: Vec<_> = (0..UNVALIDATED).map(|_| place(unvalidated(1)).expect("a place")).collect();
    assert!(matches!(unvalidated(2), Decision::Validate));
    let validated = handshakes.decide(address(2), Source::Other, Validation::Validated);
    assert!(matches!(validated, Decision::Begin(_)), "who has proved it has a place");
    drop(begun);
    assert!(matches!(unvalidated(2), Decision::Begin(_)));
}

#[test]
fn others_take_no_place_of_a_configured_peer_and_no_source_takes_all() {
    let handshakes = Handshakes::default();
    let validated = |last, source| place(handshakes.decide(address(last), source, Validation::Validated));
    let mut begun = Vec::new();
    for last in 0..=255 {
        begun.extend((0..=PER_SOURCE).map_while(|_| validated(last, Source::Other)));
    }
    assert_eq!(begun.len(), OTHERS);
    let refused = handshakes.decide(address(0), Source::Other, Validation::Validated);
    assert!(matches!(refused, Decision::Refuse));
    let peers: Vec<_> = (0..=PER_SOURCE).map_while(|_| validated(77, Source::Peer)).collect();
    assert_eq!(peers.len(), PER_SOURCE);
    assert!(validated(78, Source::Peer).is_some());
    drop((begun, peers));
    assert!(handshakes.0.lock().unwrap().by_source.is_empty(), "nothing is remembered of those that are done");
}

#[test]
fn a_prefix_of_ipv6_is_one_source_and_a_configured_address_in_it_another() {
    let handshakes = Handshakes::default();
    let at = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, last]);
    let validated = |last, source| place(handshakes.decide(at(last), source, Validation::Validated));
    let begun: Vec<_> = (0..100).filter_map(|last| validated(last, Source::Other)).collect();
    assert_eq!(begun.len(), PER_SOURCE);
    assert!(validated(7, Source::Peer).is_some());
}
