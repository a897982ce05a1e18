//! Who owns a packet: nothing leaks, nothing is freed twice. On rings, which need no root.

mod bench;

use bench::{alone, capture, device, frame, open, receive, start};
use vipa_dpdk::{Burst, Error, EthPort, Mbuf, Pool, PoolOptions, PortOptions, TxQueue, free_all};
use vipa_packet::PacketBuf;

/// Sends this many frames, numbered from `first`.
fn send(pool: &Pool, tx: &mut TxQueue, first: u32, count: u32) {
    for number in first..first + count {
        let mut burst: Burst = pool.compose(&frame(number, 64)).into_iter().collect();
        assert_eq!(tx.burst(&mut burst), 1);
    }
}

#[test]
fn frames_come_back_as_they_were_sent_and_the_pool_is_whole_again() {
    alone("frames_come_back_as_they_were_sent_and_the_pool_is_whole_again", || {
        let ring = device("net_ring0");
        let (_eal, pool) = start(&[&ring], 4095);
        let mut port = open(&ring, &pool);
        for round in 0..1_000 {
            send(&pool, &mut port.tx[0], round * 20, 20);
            let expected: Vec<_> = (0..20).map(|number| frame(round * 20 + number, 64)).collect();
            assert_eq!(receive(&mut port.rx[0], 20), expected);
        }
        assert_eq!(pool.available(), 4095);
    });
}

#[test]
fn what_the_driver_refuses_stays_ours_in_order() {
    alone("what_the_driver_refuses_stays_ours_in_order", || {
        let ring = device("net_ring0");
        let (_eal, pool) = start(&[&ring], 4095);
        let mut port = open(&ring, &pool);
        // A ring of 1,024 holds 1,023.
        send(&pool, &mut port.tx[0], 0, 1_000);
        let mut burst: Burst = (1_000..1_032).filter_map(|number| pool.compose(&frame(number, 64))).collect();
        assert_eq!(port.tx[0].burst(&mut burst), 23);
        let refused: Vec<_> = burst.iter().map(|packet| packet.bytes().to_vec()).collect();
        assert_eq!(refused, (1_023..1_032).map(|number| frame(number, 64)).collect::<Vec<_>>());
        assert_eq!(pool.available(), 4095 - 1_032);

        assert_eq!(port.tx[0].burst(&mut burst), 0);
        assert_eq!(burst.len(), 9);
        free_all(&mut burst);
        assert_eq!((burst.len(), pool.available()), (0, 4095 - 1_023));
        assert!(!port.tx[0].compose(&frame(9, 64)), "the ring is full");

        assert_eq!(receive(&mut port.rx[0], 1_023).len(), 1_023);
        assert_eq!(pool.available(), 4095);
        assert!(port.tx[0].compose(&frame(9, 64)));
        assert_eq!(receive(&mut port.rx[0], 1), [frame(9, 64)]);
    });
}

#[test]
fn a_burst_that_holds_packets_is_only_filled_up() {
    alone("a_burst_that_holds_packets_is_only_filled_up", || {
        let ring = device("net_ring0");
        let (_eal, pool) = start(&[&ring], 255);
        let mut port = open(&ring, &pool);
        send(&pool, &mut port.tx[0], 0, 40);
        let mut burst: Burst = (90..95).filter_map(|number| pool.compose(&frame(number, 64))).collect();
        assert_eq!(port.rx[0].burst(&mut burst), 27);
        let numbers: Vec<u8> = burst.iter().map(|packet| packet.bytes()[17]).collect();
        assert_eq!(numbers, (90..95).chain(0..27).collect::<Vec<u8>>());
        assert_eq!(port.rx[0].burst(&mut burst), 0, "it is full");
        drop(burst);
        assert_eq!(receive(&mut port.rx[0], 13).len(), 13);
        assert_eq!(pool.available(), 255);
    });
}

#[test]
fn a_packet_grows_into_its_headroom_and_shrinks_at_both_ends() {
    alone("a_packet_grows_into_its_headroom_and_shrinks_at_both_ends", || {
        let (_eal, pool) = start(&[], 63);
        let mut packet = pool.compose(&frame(7, 100)).unwrap();
        assert_eq!((packet.headroom(), packet.bytes().len()), (128, 100));
        packet.prepend(20).unwrap().fill(0xaa);
        assert_eq!((packet.headroom(), packet.bytes().len()), (108, 120));
        assert_eq!(packet.bytes()[..20], [0xaa; 20]);
        assert_eq!(packet.bytes()[20..], frame(7, 100));
        assert!(packet.prepend(109).is_none() && packet.prepend(1 << 16).is_none());
        assert!(packet.trim_front(20) && packet.truncate(30));
        assert_eq!(packet.bytes(), &frame(7, 100)[..30]);
        assert!(!packet.trim_front(31) && !packet.truncate(31));
        packet.bytes_mut()[0] = 1;
        assert_eq!((packet.bytes()[0], packet.headroom()), (1, 128));
    });
}

#[test]
fn an_empty_pool_composes_nothing_until_a_packet_comes_back() {
    alone("an_empty_pool_composes_nothing_until_a_packet_comes_back", || {
        let (_eal, pool) = start(&[], 63);
        let mut packets: Vec<Mbuf> = std::iter::from_fn(|| pool.compose(&frame(1, 64))).collect();
        assert_eq!((packets.len(), pool.available()), (63, 0));
        assert!(!pool.allocate(&mut Burst::new()));
        packets.pop();
        assert!(pool.compose(&frame(1, 64)).is_some());
        drop(packets);
        assert!(pool.compose(&[0; 2049]).is_none(), "longer than a buffer");
        let mut burst = Burst::new();
        assert!(pool.allocate(&mut burst));
        assert_eq!((burst.len(), pool.available()), (32, 31));
    });
}

#[test]
fn a_packet_may_outlive_its_port_its_pool_and_dpdk() {
    alone("a_packet_may_outlive_its_port_its_pool_and_dpdk", || {
        let ring = device("net_ring0");
        let (eal, pool) = start(&[&ring], 255);
        let mut port = open(&ring, &pool);
        send(&pool, &mut port.tx[0], 3, 1);
        let mut burst = Burst::new();
        port.rx[0].burst(&mut burst);
        drop((eal, pool, port));
        assert_eq!(burst[0].bytes(), frame(3, 64));
    });
}

#[test]
fn a_port_can_be_opened_again_once_all_its_parts_are_gone() {
    alone("a_port_can_be_opened_again_once_all_its_parts_are_gone", || {
        let null = device("net_null0");
        let (_eal, pool) = start(&[&null], 1023);
        for _ in 0..10 {
            let port = open(&null, &pool);
            let options = PortOptions::new(&null, 1, 1);
            let taken = Error::Opened { device: "net_null0".into() };
            assert_eq!(EthPort::open(&options, &pool).unwrap_err(), taken);
            let (port, mut rx) = (port.port, port.rx);
            drop(port);
            assert_eq!(EthPort::open(&options, &pool).unwrap_err(), taken, "a queue is left");
            let mut burst = Burst::new();
            assert_eq!(rx[0].burst(&mut burst), 32);
            assert_eq!(rx[0].port().stats().unwrap().received, 32);
        }
        assert_eq!(pool.available(), 1023);
    });
}

#[test]
fn every_queue_belongs_to_one_thread_and_joined_threads_leave_nothing_behind() {
    alone("every_queue_belongs_to_one_thread_and_joined_threads_leave_nothing_behind", || {
        let null = device("net_null0");
        let (eal, pool) = start(&[&null], 4095);
        for _ in 0..3 {
            let port = EthPort::open(&PortOptions::new(&null, 2, 2), &pool).unwrap();
            std::thread::scope(|scope| {
                for (mut rx, mut tx) in port.rx.into_iter().zip(port.tx) {
                    let eal = &eal;
                    scope.spawn(move || {
                        let _joined = eal.register_thread().unwrap();
                        let mut burst = Burst::new();
                        for _ in 0..10_000 {
                            rx.burst(&mut burst);
                            tx.burst(&mut burst);
                            assert!(burst.is_empty());
                        }
                    });
                }
            });
            let stats = port.port.stats().unwrap();
            assert_eq!((stats.received, stats.sent), (640_000, 640_000));
        }
        assert_eq!(pool.available(), 4095);
    });
}

#[test]
fn a_frame_longer_than_a_buffer_is_freed_and_counted() {
    alone("a_frame_longer_than_a_buffer_is_freed_and_counted", || {
        let file = std::env::temp_dir().join(format!("vipa-dpdk-{}.pcap", std::process::id()));
        std::fs::write(&file, capture(&[frame(1, 64), frame(2, 3000), frame(3, 64)])).unwrap();
        let pcap = device(&format!("net_pcap0,rx_pcap={}", file.display()));
        let (_eal, pool) = start(&[&pcap], 255);
        let mut port = open(&pcap, &pool);
        assert_eq!(receive(&mut port.rx[0], 2), [frame(1, 64), frame(3, 64)]);
        assert_eq!(port.rx[0].unreadable(), 1);
        assert_eq!(pool.available(), 255);
        std::fs::remove_file(file).unwrap();
    });
}

#[test]
fn two_pools_of_one_name_are_refused() {
    alone("two_pools_of_one_name_are_refused", || {
        let (eal, _pool) = start(&[], 63);
        let error = Pool::new(&eal, &PoolOptions::new("test", 63)).unwrap_err();
        assert!(matches!(error, Error::Pool { .. }), "{error}");
        let error = Pool::new(&eal, &PoolOptions::new("large", 1 << 20)).unwrap_err();
        assert!(error.to_string().contains("raise `dpdk.memory_mb`"), "{error}");
    });
}
