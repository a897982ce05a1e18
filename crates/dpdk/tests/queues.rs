//! How packets come to queues: by our table, where the port has one. That the key is a good one is a test beside it; no
//! virtual port tells its own. Needs no root.

mod bench;

use bench::{alone, device, start};
use vipa_dpdk::{Port, PortOptions};

#[test]
fn a_port_that_spreads_does_so_evenly_over_its_queues() {
    alone("a_port_that_spreads_does_so_evenly_over_its_queues", || {
        // Its driver keeps a table as hardware does, and hashes nothing.
        let null = device("net_null0");
        let (_eal, pool) = start(&[&null], 8191);
        let four = Port::open(&PortOptions::new(&null, 4, 4), &pool).unwrap();
        let spread = four.port.spread().expect("it has a table");
        assert!(spread.key.chunks(2).all(|pair| pair == [0x6d, 0x5a]), "{spread:?}");
        assert!(!spread.queues.is_empty());
        for queue in 0..4 {
            let share = spread.queues.iter().filter(|other| **other == queue).count();
            assert_eq!(share, spread.queues.len() / 4, "{spread:?}");
        }
    });
}

#[test]
fn a_port_that_cannot_spread_or_hear_groups_opens_all_the_same() {
    alone("a_port_that_cannot_spread_or_hear_groups_opens_all_the_same", || {
        let ring = device("net_ring0");
        let (_eal, pool) = start(&[&ring], 8191);
        let options = PortOptions { all_groups: true, ..PortOptions::new(&ring, 1, 1) };
        let port = Port::open(&options, &pool).unwrap();
        assert_eq!(port.port.spread(), None);
    });
}
