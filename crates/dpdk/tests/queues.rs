//! How packets come to queues: by our table, where the port has one. That the key is a good one is a test beside it; no
//! virtual port tells its own. Needs no root.

mod bench;

use bench::{alone, device, start};
use vipa_dpdk::{EthPort, PortOptions};

#[test]
fn a_port_that_spreads_does_so_evenly_over_its_queues() {
    alone("a_port_that_spreads_does_so_evenly_over_its_queues", || {
        // Its driver keeps a table as hardware does, and hashes nothing.
        let null = device("net_null0");
        let (_eal, pool) = start(&[&null], 8191);
        let four = EthPort::open(&PortOptions::new(&null, 4, 4), &pool).unwrap();
        let rss = four.port.rss().expect("it has a table");
        assert!(rss.key.chunks(2).all(|pair| pair == [0x6d, 0x5a]), "{rss:?}");
        assert!(!rss.queues.is_empty());
        for queue in 0..4 {
            let share = rss.queues.iter().filter(|other| **other == queue).count();
            assert_eq!(share, rss.queues.len() / 4, "{rss:?}");
        }
    });
}

#[test]
fn a_port_that_cannot_spread_or_hear_groups_opens_all_the_same() {
    alone("a_port_that_cannot_spread_or_hear_groups_opens_all_the_same", || {
        let ring = device("net_ring0");
        let (_eal, pool) = start(&[&ring], 8191);
        let options = PortOptions { all_groups: true, ..PortOptions::new(&ring, 1, 1) };
        let port = EthPort::open(&options, &pool).unwrap();
        assert_eq!(port.port.rss(), None);
    });
}
