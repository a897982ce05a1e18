//! Names and builders that the tests share.
#![allow(dead_code, unreachable_pub, reason = "each test uses some of them")]

use std::net::IpAddr;

use vipa_dataplane::{
    Limits,
    bench::{Bench, CLIENT_MAC, ROUTER, ROUTER_MAC, ROUTER6, target_mac},
};
use vipa_handoff::ForwardingAction;
use vipa_packet::{
    Encapsulation, HeapPacket, TunnelEndpoints,
    build::{Builder, packet},
};

pub const CLIENT: &str = "203.0.113.4";
pub const VIPA: &str = "192.0.2.10";
pub const SERVICE: &str = "192.0.2.10:80/tcp";
pub const T0: &str = "198.51.100.21";
pub const T1: &str = "198.51.100.22";

/// The result of a turn that sends nothing.
pub const NOTHING: [HeapPacket; 0] = [];

/// A packet from the client to us.
pub fn from_client() -> Builder {
    packet().macs(CLIENT_MAC, ROUTER_MAC)
}

/// A segment of the client's connection from `port`: ACK unless other flags are set.
pub fn segment(port: u16) -> Builder {
    from_client().ipv4(CLIENT, VIPA).tcp(port, 80)
}

/// The same packet on its way to target number `n`.
pub fn to_target(n: u8, sent: &Builder) -> Builder {
    sent.clone().macs(ROUTER_MAC, target_mac(n))
}

/// The same packet on its way back to the client.
pub fn to_client(answer: Builder) -> Builder {
    answer.macs(ROUTER_MAC, CLIENT_MAC)
}

/// A bench with two targets.
pub fn bench() -> Bench {
    Bench::with_service(SERVICE, [T0, T1])
}

/// The number of the target that has the client's connection from `port`.
pub fn target_of(bench: &Bench, port: u16) -> u8 {
    bench.connection(CLIENT, port, 80).expect("it is in the table").0 as u8
}

/// A bench on which a client's first SYN has passed; the SYN, the target that it went to, and the other target.
pub fn after_first_syn() -> (Bench, Builder, u8, u8) {
    let mut bench = bench();
    let syn = segment(40_000).syn();
    bench.turn([&syn]);
    let before = target_of(&bench, 40_000);
    (bench, syn, before, 1 - before)
}

/// The ends of a tunnel from the router to this target.
pub fn outer(target: &str) -> TunnelEndpoints {
    match target.parse().unwrap() {
        IpAddr::V4(target) => TunnelEndpoints::V4 { source: ROUTER.to_bits(), destination: target.to_bits() },
        IpAddr::V6(target) => TunnelEndpoints::V6 { source: ROUTER6.to_bits(), destination: target.to_bits() },
    }
}

/// A bench whose one target is reached through a tunnel.
pub fn tunnelled(service: &str, target: &str, how: Encapsulation) -> Bench {
    tunnelled_within(service, target, how, Limits::default())
}

/// The same bench with limits of its own.
pub fn tunnelled_within(service: &str, target: &str, how: Encapsulation, limits: Limits) -> Bench {
    let mut bench = Bench::with_limits(service, [target], 10_000, limits);
    bench.change(|world| {
        world.targets[0].via = ForwardingAction::Tunnel { outer: outer(target), how };
        world.targets[0].mtu = 1500 - how.overhead(target.contains(':')) as u16;
    });
    bench
}
