//! Packets of `nat` targets on their way back. Plain ones take the fast path, which must give the same result as the
//! general one: here each comes twice, once with a priority tag, which leads to the general path and is removed there.

mod support;

use std::net::IpAddr;

use proptest::prelude::*;
use support::*;
use vipa_dataplane::bench::{Bench, CLIENT_MAC, ROUTER_MAC, target_mac};
use vipa_handoff::{ForwardingAction, ReturnRoute};
use vipa_model::{Mac, PortId, PortRange, Protocol, TargetId, VipaId};
use vipa_packet::{
    HeapPacket, TcpFlags,
    build::{Builder, packet},
};

/// Addresses of one family.
struct Ends {
    service: &'static str,
    targets: [&'static str; 2],
    gateway: &'static str,
    /// Beyond the gateway; on the port's network and resolved; on it and not resolved yet.
    clients: [&'static str; 3],
}

const FAMILIES: [Ends; 2] = [
    Ends {
        service: SERVICE,
        targets: [T0, T1],
        gateway: "198.51.100.254",
        clients: [CLIENT, "198.51.100.77", "198.51.100.78"],
    },
    Ends {
        service: "[2001:db8::10]:80/tcp",
        targets: ["2001:db8:0:51::21", "2001:db8:0:51::22"],
        gateway: "fe80::1",
        clients: ["2001:db8:1::4", "2001:db8:0:51::77", "2001:db8:0:51::78"],
    },
];

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The second target answers for two ports of the VIPA with one port of its own.
fn nat(ends: &Ends) -> Bench {
    let mut bench = Bench::with_service(ends.service, ends.targets);
    bench.change(|world| {
        for (target, vipa_ports) in [(0, &[80][..]), (1, &[80, 81])] {
            world.targets[target].via = ForwardingAction::Nat { port: Some(8080) };
            let (protocol, ports, target) = (Protocol::Tcp, PortRange::one(8080), TargetId(target as u16));
            let route = |port: &u16| ReturnRoute { protocol, ports, vipa: VipaId(0), vipa_port: Some(*port), target };
            let routes = vipa_ports.iter().map(route).collect();
            world.returns.insert(address(ends.targets[usize::from(target.0)]), routes);
        }
        world.port.gateway6 = Some("fe80::1".parse().expect("an address"));
        for neighbour in [ends.gateway, ends.clients[1]] {
            world.neighbours.insert(address(neighbour), (PortId(0), Mac(CLIENT_MAC)));
        }
    });
    for client in ends.clients {
        for (port, vipa_port, target) in [(40_000, 80, 0), (40_001, 80, 1), (40_002, 81, 1)] {
            bench.confirm(client, port, vipa_port, target);
        }
    }
    bench
}

/// An answer of a target: nearly always an allowed one.
#[derive(Clone, Debug)]
struct Answer {
    target: usize,
    client: usize,
    ports: (u16, u16),
    flags: u8,
    ttl: u8,
    length: usize,
    is_udp: bool,
}

fn answer() -> impl Strategy<Value = Answer> {
    let ports = (prop_oneof![8 => Just(8080), 1 => Just(22)], 40_000..40_004_u16);
    let flags = prop_oneof![3 => Just(0x10), 1 => any::<u8>()];
    let ttl = prop_oneof![8 => 2..=64_u8, 1 => Just(1)];
    let is_udp = prop::bool::weighted(0.1);
    (0..2_usize, 0..3_usize, ports, flags, ttl, 0..100_usize, is_udp).prop_map(
        |(target, client, ports, flags, ttl, length, is_udp)| Answer {
            target,
            client,
            ports,
            flags,
            ttl,
            length,
            is_udp,
        },
    )
}

impl Answer {
    fn frame(&self, ends: &Ends) -> Builder {
        let Self { target, client, ports: (from, to), flags, ttl, length, is_udp } = *self;
        let (source, destination) = (address(ends.targets[target]), address(ends.clients[client]));
        let frame = packet().macs(target_mac(target as u8), ROUTER_MAC);
        let frame = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => frame.ipv4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => frame.ipv6(source, destination),
            _ => unreachable!("both are of one family"),
        };
        let frame = frame.ttl(ttl);
        let frame = if is_udp { frame.udp(from, to) } else { frame.tcp(from, to).flags(TcpFlags(flags)) };
        frame.payload(vec![7; length])
    }
}

/// An answer keeps the tag of the frame that it answers; a forwarded frame has none.
fn without_tag(frame: HeapPacket) -> HeapPacket {
    match frame.as_ref() {
        bytes if bytes[12..16] == [0x81, 0, 0, 0] => HeapPacket::from([&bytes[..12], &bytes[16..]].concat()),
        _ => frame,
    }
}

proptest! {
    #[test]
    fn the_short_way_back_ends_where_the_long_one_does(
        family in 0..2_usize,
        bursts in prop::collection::vec(prop::collection::vec(answer(), 0..40), 1..4),
    ) {
        let ends = &FAMILIES[family];
        let (mut short, mut long) = (nat(ends), nat(ends));
        for burst in bursts {
            let plain: Vec<_> = burst.iter().map(|answer| answer.frame(ends)).collect();
            let tagged: Vec<_> = plain.iter().map(|frame| frame.clone().vlan(0)).collect();
            let untagged: Vec<_> = long.turn(&tagged).into_iter().map(without_tag).collect();
            prop_assert_eq!(short.turn(&plain), untagged);
            prop_assert_eq!(short.notes(), long.notes());
        }
        // A packet that waits for a neighbour is forwarded when that is resolved.
        for bench in [&mut short, &mut long] {
            bench.change(|world| {
                world.neighbours.insert(address(ends.clients[2]), (PortId(0), Mac([2, 0, 0, 0, 0, 78])));
            });
        }
        prop_assert_eq!(short.turn([]), long.turn([]));
        let (short_totals, long_totals) = (short.control.totals(), long.control.totals());
        prop_assert!(short_totals.add_up());
        prop_assert_eq!(short_totals.iter().collect::<Vec<_>>(), long_totals.iter().collect::<Vec<_>>());
        for client in ends.clients {
            for (port, vipa_port) in [(40_000, 80), (40_001, 80), (40_002, 81)] {
                let state = |bench: &Bench| bench.connection(client, port, vipa_port);
                prop_assert_eq!(state(&short), state(&long));
            }
        }
    }
}

#[test]
fn an_answer_goes_through_the_gateway_or_to_the_neighbour_itself_and_one_of_another_target_nowhere() {
    let mut bench = nat(&FAMILIES[0]);
    bench.change(|world| {
        world.neighbours.insert(address("198.51.100.77"), (PortId(0), Mac([2, 0, 0, 0, 0, 77])));
    });
    let answer = |client| packet().macs(target_mac(0), ROUTER_MAC).ipv4(T0, client).tcp(8080, 40_000).payload(b"page");
    let given = |client| packet().ipv4(VIPA, client).ttl(63).tcp(80, 40_000).payload(b"page");
    assert_eq!(
        bench.turn([&answer(CLIENT), &answer("198.51.100.77")]),
        [to_client(given(CLIENT)), given("198.51.100.77").macs(ROUTER_MAC, [2, 0, 0, 0, 0, 77])]
    );
    bench.assert_changed(["received +2", "forwarded +2", "sent +2", "returned +2"]);
    let strangers = packet().macs(target_mac(1), ROUTER_MAC).ipv4(T1, CLIENT).tcp(8080, 40_000);
    assert_eq!(bench.turn([&strangers]), NOTHING);
    bench.assert_changed(["received +1", "dropped.orphan +1"]);
}
