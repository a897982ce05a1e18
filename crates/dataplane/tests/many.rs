//! Many VIPAs, thousands of services: each takes its own connections and no others.

mod support;

use std::{net::Ipv4Addr, sync::Arc};

use support::*;
use vipa_balance::{Candidate, ClusterKey, Picker};
use vipa_dataplane::bench::{Bench, ROUTER, ROUTER_MAC, target_mac};
use vipa_handoff::{PortRoute, RouteLists, Routes, ServiceRoute, TargetRoute, VipaRoute};
use vipa_model::{Balance, Mac, Moment, Orphans, PortId, PortRange, Protocol, Stance, TargetId, Unserved};
use vipa_packet::{HeapPacket, PacketBuf, build::Builder};
use vipa_sync::Deadline;

const VIPAS: u16 = 40;
/// Services of each VIPA; half of them TCP, half UDP.
const SERVICES: u16 = 100;
const TARGETS: u16 = 16;

fn vipa(n: u16) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, n as u8 + 1)
}

/// The first of the service's ports; it has one, or four.
fn port(service: u16) -> u16 {
    1_000 + service / 2 * 8
}

fn protocol(service: u16) -> Protocol {
    if service.is_multiple_of(2) { Protocol::Tcp } else { Protocol::Udp }
}

fn ports(service: u16) -> PortRange {
    let first = port(service);
    PortRange { first, last: first + if service.is_multiple_of(3) { 3 } else { 0 } }
}

/// The target that serves every service.
fn target(vipa: u16, service: u16) -> u16 {
    (vipa * 7 + service) % TARGETS
}

fn routes() -> Routes {
    let key = ClusterKey::new(*b"many's own key..");
    let port = PortRoute::new(Mac(ROUTER_MAC), ROUTER, 24);
    let address = |n: u16| Ipv4Addr::new(198, 51, 100, 20 + n as u8);
    let only = |n: u16| {
        let candidate = Candidate { address: address(n).into(), weight: 1, target: TargetId(n) };
        Picker::build(&key, Balance::RoundRobin, &[candidate])
    };
    let pickers: Vec<Picker> = (0..TARGETS).map(only).collect();
    let services = |of: u16| {
        let service = |n: u16| ServiceRoute {
            protocol: protocol(n),
            ports: ports(n),
            picker: pickers[usize::from(target(of, n))].clone(),
            draining: Arc::default(),
            turns: Arc::default(),
            orphans: Orphans::Drop,
            sources: None,
        };
        (0..SERVICES).map(service).collect::<Arc<[_]>>()
    };
    let vipas = (0..VIPAS).map(|n| VipaRoute {
        address: vipa(n).into(),
        stance: Stance::Active,
        lease: Arc::new(Deadline::new(Moment(u64::MAX))),
        services: services(n),
        quiet_until: Moment::ZERO,
        by_hash_until: Moment::ZERO,
        new_per_second: None,
        unserved: Unserved::Drop,
    });
    let targets = (0..TARGETS).map(|n| TargetRoute::direct(address(n), (PortId(0), &port), Mac(target_mac(n as u8))));
    let lists =
        RouteLists { ports: vec![port], vipas: vipas.collect(), targets: targets.collect(), ..RouteLists::default() };
    Routes::build(1, key, lists)
}

fn first(of: u16, service: u16, port: u16) -> Builder {
    let ip = from_client().ipv4(CLIENT, vipa(of));
    match protocol(service) {
        Protocol::Tcp => ip.tcp(40_000, port).syn(),
        Protocol::Udp => ip.udp(40_000, port),
    }
}

#[test]
fn four_thousand_services_of_forty_vipas_take_their_own_connections_and_no_others() {
    // Ten times what is taken: half-open connections give way to one another where they crowd.
    let mut bench = Bench::with_limits(SERVICE, [T0], 200_000, vipa_dataplane::Limits::default());
    bench.control.publish(Arc::new(routes()));
    let mut taken = 0;
    for of in 0..VIPAS {
        for service in 0..SERVICES {
            let PortRange { first: low, last: high } = ports(service);
            let packets: Vec<_> = (low..=high).map(|port| first(of, service, port)).collect();
            let sent = bench.turn(&packets);
            let mac = target_mac(target(of, service) as u8);
            assert_eq!(sent.len(), packets.len(), "VIPA {of}, service {service}");
            assert!(sent.iter().all(|frame: &HeapPacket| frame.bytes()[..6] == mac), "VIPA {of}, service {service}");
            taken += packets.len() as u64;
        }
    }
    bench.check_counters();
    assert_eq!(bench.flows.count().total(), taken);
    // Next to each service's ports, and in the other protocol, there is nothing.
    for service in 0..SERVICES {
        bench.turn([&first(0, service, ports(service).last + 1), &first(0, service, port(service) - 1)]);
    }
    let beside = u64::from(SERVICES) * 2;
    bench.assert_changed([&format!("received +{beside}"), &format!("dropped.no-service +{beside}")]);
}
