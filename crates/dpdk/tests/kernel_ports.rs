//! The virtual ports that reach a kernel's interfaces, in network namespaces (root).
//!
//! ```text
//!   namespace NS   port 0 ── va ═══ vb ── port 1
//! ```

mod bench;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use bench::{alone, device, frame, open, receive, start};
use vipa_dpdk::{Burst, Error, EthPort, PortOptions, RxQueue, TxQueue};
use vipa_packet::{
    HeaderSums, PacketBuf,
    build::{Builder, packet},
};

/// A network namespace with a pair of interfaces, gone when dropped.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        let space = Self(format!("vipa-dpdk-{}", std::process::id()));
        run(&["ip", "netns", "add", &space.0]);
        space.ip(&["link", "add", "va", "type", "veth", "peer", "name", "vb"]);
        for interface in ["va", "vb"] {
            space.run(&["sysctl", "-qw", &format!("net.ipv6.conf.{interface}.disable_ipv6=1")]);
            space.ip(&["link", "set", interface, "up"]);
        }
        space
    }

    fn ip(&self, words: &[&str]) {
        self.run(&[&["ip"], words].concat());
    }

    fn run(&self, words: &[&str]) {
        run(&[&["ip", "netns", "exec", &self.0], words].concat());
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run(&["ip", "netns", "delete", &self.0]);
    }
}

fn run(words: &[&str]) {
    let status = Command::new(words[0]).args(&words[1..]).status();
    assert!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "{words:?}: {status:?}");
}

/// Runs `body` in a process of its own in a namespace of its own; inside, the namespace is the one it is in.
fn in_namespace(name: &str, body: fn()) {
    if std::env::var("VIPA_DPDK_TEST").as_deref() == Ok(name) {
        return body();
    }
    let space = Namespace::new();
    let output = bench::child(name, &["ip", "netns", "exec", &space.0]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{}\n{out}\n{err}", output.status);
}

#[test]
fn af_packet_carries_frames_both_ways_and_loses_no_buffer() {
    in_namespace("af_packet_carries_frames_both_ways_and_loses_no_buffer", || {
        let (a, b) = (device("net_af_packet0,iface=va,qdisc_bypass=1"), device("net_af_packet1,iface=vb"));
        let (_eal, pool) = start(&[&a, &b], 8191);
        let (mut left, mut right) = (open(&a, &pool), open(&b, &pool));
        let mac = std::fs::read_to_string("/sys/class/net/va/address").unwrap();
        let ours: Vec<String> = left.port.mac().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(ours.join(":"), mac.trim());
        for round in 0..100 {
            let frames: Vec<_> = (0..16).map(|number| frame(round * 16 + number, 1514)).collect();
            for frame in &frames {
                assert!(left.tx[0].compose(frame));
            }
            assert_eq!(receive(&mut right.rx[0], 16), frames);
            assert!(right.tx[0].compose(&frames[3]));
            assert_eq!(receive(&mut left.rx[0], 1), frames[3..4]);
        }
        assert_eq!(left.port.link().map(|link| link.up), Some(true));
        assert_eq!(left.port.stats().unwrap().sent, 1_600);
        drop((left, right));
        assert_eq!(pool.available(), 8191);
    });
}

#[test]
fn af_packet_whose_link_is_down_neither_blocks_nor_leaks_and_works_again_after() {
    in_namespace("af_packet_whose_link_is_down_neither_blocks_nor_leaks_and_works_again_after", || {
        let (a, b) = (device("net_af_packet0,iface=va,qdisc_bypass=1"), device("net_af_packet1,iface=vb"));
        let (_eal, pool) = start(&[&a, &b], 8191);
        let (mut left, mut right) = (open(&a, &pool), open(&b, &pool));
        let (done, waiting) = std::sync::mpsc::channel();
        let left_pool = pool.clone();
        std::thread::spawn(move || {
            run(&["ip", "link", "set", "va", "down"]);
            assert_eq!(left.port.link().map(|link| link.up), Some(false));
            for number in 0..5_000 {
                let mut burst: Burst = left_pool.compose(&frame(number, 64)).into_iter().collect();
                left.tx[0].burst(&mut burst);
                left.rx[0].burst(&mut Burst::new());
            }
            done.send(left).unwrap();
        });
        let mut left = waiting.recv_timeout(std::time::Duration::from_secs(10)).expect("a burst blocks");
        assert!(!left.tx[0].compose(&frame(5_000, 64)), "an announcement would go out late");
        run(&["ip", "link", "set", "va", "up"]);
        for number in 6_000..6_100 {
            left.tx[0].compose(&frame(number, 64));
            // The driver sends first what it took while the link was down.
            receive_at_once(&mut right.rx[0]);
        }
        assert!(left.tx[0].compose(&frame(6_100, 64)));
        assert_eq!(receive(&mut right.rx[0], 1), [frame(6_100, 64)]);
        drop((left, right));
        assert_eq!(pool.available(), 8191);
    });
}

/// Empties a queue.
fn receive_at_once(rx: &mut RxQueue) {
    while rx.burst(&mut Burst::new()) > 0 {}
}

#[test]
fn a_tag_of_a_vlan_is_there_again_where_the_kernel_has_taken_it_out_on_the_way() {
    in_namespace("a_tag_of_a_vlan_is_there_again_where_the_kernel_has_taken_it_out_on_the_way", || {
        let (a, b) = (device("net_af_packet0,iface=va"), device("net_af_packet1,iface=vb"));
        let (_eal, pool) = start(&[&a, &b], 8191);
        let (mut left, mut right) = (open(&a, &pool), open(&b, &pool));
        let plain = frame(1, 100);
        let tagged = vipa_packet::ethernet::tagged(&plain, 7);
        assert!(left.tx[0].compose(&tagged) && left.tx[0].compose(&plain));
        let end = std::time::Instant::now() + std::time::Duration::from_secs(2);
        let mut came = Vec::new();
        while came.len() < 2 && std::time::Instant::now() < end {
            let mut burst = Burst::new();
            right.rx[0].burst(&mut burst);
            came.extend(burst.iter().map(|packet| packet.bytes().to_vec()).filter(|frame| frame.len() >= plain.len()));
        }
        assert_eq!(came, [tagged, plain]);
    });
}

#[test]
fn tap_makes_an_interface_in_this_namespace_and_takes_it_away() {
    in_namespace("tap_makes_an_interface_in_this_namespace_and_takes_it_away", || {
        let (tap, other) = (device("net_tap0,iface=dtap0"), device("net_af_packet0,iface=dtap0"));
        let (_eal, pool) = start(&[&tap], 8191);
        let mut port = open(&tap, &pool);
        run(&["ip", "link", "set", "dtap0", "up"]);
        let mut kernel = open(&other, &pool);
        assert!(port.tx[0].compose(&frame(1, 100)));
        assert_eq!(receive(&mut kernel.rx[0], 1), [frame(1, 100)]);
        assert!(kernel.tx[0].compose(&frame(2, 100)));
        assert_eq!(receive(&mut port.rx[0], 1), [frame(2, 100)]);
        drop((port, kernel));
        assert!(!std::path::Path::new("/sys/class/net/dtap0").exists());
        assert_eq!(pool.available(), 8191);
    });
}

#[test]
fn a_port_that_can_says_whose_header_sums_are_right_and_another_does_not() {
    in_namespace("a_port_that_can_says_whose_header_sums_are_right_and_another_does_not", || {
        let (tap, other) = (device("net_tap0,iface=dtap0"), device("net_af_packet0,iface=dtap0"));
        let (_eal, pool) = start(&[&tap], 8191);
        let mut port = open(&tap, &pool);
        run(&["sysctl", "-qw", "net.ipv6.conf.dtap0.disable_ipv6=1"]);
        run(&["ip", "link", "set", "dtap0", "up"]);
        let mut kernel = open(&other, &pool);
        let right = packet().ipv4("192.0.2.1", "192.0.2.2").tcp(40_000, 80).payload([7; 99]);
        let wrong = right.clone().spoil_ipv4_checksum();
        let said_of = |rx: &mut RxQueue, kernel: &mut TxQueue, frames: &[&Builder]| {
            assert!(frames.iter().all(|frame| kernel.compose(frame.build().bytes())));
            let (end, mut burst) = (Instant::now() + Duration::from_secs(2), Burst::new());
            while burst.len() < frames.len() && Instant::now() < end {
                rx.burst(&mut burst);
            }
            assert_eq!(burst.len(), frames.len());
            rx.header_sums(&burst)
        };
        assert!(port.port.verifies_header_sums() && !kernel.port.verifies_header_sums());
        assert_eq!(said_of(&mut port.rx[0], &mut kernel.tx[0], &[&right, &right]), HeaderSums::Verified);
        assert_eq!(said_of(&mut port.rx[0], &mut kernel.tx[0], &[&right, &wrong]), HeaderSums::Unverified);
        assert_eq!(said_of(&mut kernel.rx[0], &mut port.tx[0], &[&right]), HeaderSums::Unverified);
    });
}

#[test]
fn an_mtu_reaches_the_interface() {
    in_namespace("an_mtu_reaches_the_interface", || {
        let a = device("net_af_packet0,iface=va");
        let (_eal, pool) = start(&[&a], 4095);
        let _port = EthPort::open(&PortOptions { mtu: Some(1_400), ..PortOptions::new(&a, 1, 1) }, &pool).unwrap();
        assert_eq!(std::fs::read_to_string("/sys/class/net/va/mtu").unwrap().trim(), "1400");
    });
}

#[test]
fn two_queues_of_af_packet_need_an_argument_and_the_error_says_so() {
    in_namespace("two_queues_of_af_packet_need_an_argument_and_the_error_says_so", || {
        let (one, two) = (device("net_af_packet0,iface=va"), device("net_af_packet1,iface=va,qpairs=2"));
        let (_eal, pool) = start(&[&one, &two], 8191);
        let error = EthPort::open(&PortOptions::new(&one, 2, 2), &pool).unwrap_err();
        assert!(matches!(error, Error::Queues { wanted: 2, most: 1, .. }), "{error}");
        assert!(error.to_string().contains("qpairs"), "{error}");
        let error = EthPort::open(&PortOptions::new(&two, 1, 2), &pool).unwrap_err();
        assert!(matches!(error, Error::UnreadQueues { sockets: 2, queues: 1, .. }), "{error}");
        EthPort::open(&PortOptions::new(&two, 2, 2), &pool).unwrap();
    });
}

#[test]
fn two_queues_of_af_packet_lose_no_frame_between_them() {
    in_namespace("two_queues_of_af_packet_lose_no_frame_between_them", || {
        let (a, b) = (device("net_af_packet0,iface=va"), device("net_af_packet1,iface=vb,qpairs=2"));
        let (_eal, pool) = start(&[&a, &b], 8191);
        let mut left = open(&a, &pool);
        let mut right = EthPort::open(&PortOptions::new(&b, 2, 2), &pool).unwrap();
        for number in 0..200 {
            assert!(left.tx[0].compose(&frame(number, 64)));
        }
        let mut counts = [0, 0];
        let end = std::time::Instant::now() + std::time::Duration::from_secs(2);
        while counts.iter().sum::<usize>() < 200 && std::time::Instant::now() < end {
            for (rx, count) in right.rx.iter_mut().zip(&mut counts) {
                *count += rx.burst(&mut Burst::new());
            }
        }
        assert_eq!(counts.iter().sum::<usize>(), 200, "{counts:?}");
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    alone("an_interface_that_is_not_there_is_named", || {
        let a = device("net_af_packet0,iface=nosuch9");
        let (_eal, pool) = start(&[&a], 63);
        let error = EthPort::open(&PortOptions::new(&a, 1, 1), &pool).unwrap_err();
        assert_eq!(
            error.to_string(),
            "net_af_packet0,iface=nosuch9: there is no network interface nosuch9 here; `ip link` lists them"
        );
    });
}
