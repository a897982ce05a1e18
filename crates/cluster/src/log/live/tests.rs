use std::collections::BTreeMap;

use proptest::prelude::*;
use vipa_model::ConnectionState::*;

use super::*;

fn connection(number: u32) -> Connection {
    let client = SocketAddr::from((Ipv4Addr::from(0xcb00_7100 | number >> 16), number as u16));
    Connection { protocol: Protocol::Tcp, client, port: 80 }
}

fn any_connection() -> impl Strategy<Value = Connection> {
    let client =
        prop_oneof![(0..3_u8).prop_map(|last| [203, 0, 113, last].into()), any::<[u8; 16]>().prop_map(Into::into)];
    (prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)], client, 0..300_u16, 0..2_u16).prop_map(
        |(protocol, client, client_port, port)| {
            let client: std::net::IpAddr = client;
            Connection { protocol, client: (client, client_port).into(), port }
        },
    )
}

fn any_state() -> impl Strategy<Value = ConnectionState> {
    prop_oneof![Just(HalfOpen), Just(Established), Just(Closing)]
}

/// Checks the order and the rules of pages.
fn assert_sound<const N: usize>(pages: &Pages<N>) {
    assert_eq!((pages.pages.len(), pages.len), (pages.bounds.len(), pages.pages.iter().map(Vec::len).sum()));
    let entries: Vec<_> = pages.iter().collect();
    assert!(entries.is_sorted_by(|before, after| key(before) < key(after)));
    for (page, bound) in pages.pages.iter().zip(&pages.bounds) {
        assert!(!page.is_empty() && page.len() < PAGE && key(bound) <= key(&page[0]));
    }
    for (page, bound) in pages.pages.iter().zip(pages.bounds.iter().skip(1)) {
        assert!(page.iter().all(|entry| key(entry) < key(bound)));
    }
}

proptest! {
    // Each case is thousands of steps.
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// After any steps it holds what a map would.
    #[test]
    fn it_holds_what_a_map_would(
        steps in proptest::collection::vec((any_connection(), proptest::option::weighted(0.6, any_state())), 1..3_000)
    ) {
        let (mut live, mut model) = (Live::default(), BTreeMap::new());
        for (connection, change) in steps {
            match change {
                Some(state) => prop_assert_eq!(live.insert(connection, state), model.insert(connection, state)),
                None => prop_assert_eq!(live.remove(&connection), model.remove(&connection)),
            }
            prop_assert_eq!(live.get(&connection), model.get(&connection).copied());
        }
        assert_sound(&live.v4);
        assert_sound(&live.v6);
        prop_assert_eq!(live.len(), model.len());
        prop_assert_eq!(live.iter().collect::<BTreeMap<_, _>>(), model);
    }

    #[test]
    fn a_difference_is_what_one_has_and_the_other_has_not(
        ours in proptest::collection::btree_map(any_connection(), any_state(), 0..100),
        theirs in proptest::collection::btree_map(any_connection(), any_state(), 0..100),
    ) {
        let expected = ours.iter().filter(|(connection, state)| theirs.get(*connection) != Some(*state));
        let expected: BTreeMap<_, _> = expected.map(|(connection, state)| (*connection, *state)).collect();
        let (ours, theirs): (Live, Live) = (ours.into_iter().collect(), theirs.into_iter().collect());
        prop_assert_eq!(ours.without(&theirs).collect::<BTreeMap<_, _>>(), expected);
    }
}

#[test]
fn pages_fill_from_both_ends_and_shrink_again() {
    for order in [
        (0..10_000).collect::<Vec<u32>>(),
        (0..10_000).rev().collect(),
        (0..10_000).map(|i| i * 7_919 % 10_000).collect(),
    ] {
        let mut live: Live = order.iter().map(|number| (connection(*number), Established)).collect();
        assert_sound(&live.v4);
        let room: usize = live.v4.pages.iter().map(Vec::capacity).sum();
        assert!(room < 10_000 * 5 / 4, "room for {room} is bought for 10000");
        for number in &order[..9_990] {
            assert_eq!(live.remove(&connection(*number)), Some(Established));
        }
        assert_sound(&live.v4);
        let (left, pages) = (live.len(), live.v4.pages.len());
        assert!(left == 10 && pages <= 10, "{left} in {pages} pages");
    }
}
