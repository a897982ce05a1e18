//! What is explained to an operator is what a worker does.

mod support;

use std::{net::SocketAddr, time::Duration};

use proptest::{prelude::*, strategy::ValueTree};
use support::*;
use vipa_dataplane::{
    Limits,
    bench::{Bench, KERNEL, target_mac},
};
use vipa_flow::{FlowState, Tick};
use vipa_handoff::{AnyKey, Count, Fate, ForwardingAction, NextPacket, PacketOutcome, SourceRule, explain};
use vipa_model::{Balance, Connection, Moment, Orphans, Protocol, Sources, Stance, TargetId, Unserved, VipaId};
use vipa_packet::{Encapsulation, PacketBuf};

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Direct,
    Tunnel,
    Nat,
    Local,
}

/// A target as the routes have it, and what the table is told of its agent.
#[derive(Clone, Copy, Debug)]
struct Target {
    how: How,
    found: bool,
    away: bool,
    silent: bool,
    on_link: bool,
    linked: bool,
    serves: bool,
    drains: bool,
}

#[derive(Clone, Debug)]
struct World {
    protocol: Protocol,
    stance: Stance,
    lease_passed: bool,
    /// From now on, milliseconds.
    quiet_ms: u64,
    balance: Balance,
    targets: [Target; 2],
    denied: bool,
    orphans: Orphans,
    unserved: Unserved,
    /// Target, state and age in milliseconds.
    entry: Option<(u16, FlowState, u64)>,
    port: u16,
    opens: bool,
    client_port: u16,
}

fn target() -> impl Strategy<Value = Target> {
    let how = prop_oneof![3 => Just(How::Direct), 2 => Just(How::Tunnel), 1 => Just(How::Nat), 1 => Just(How::Local)];
    let often = || prop::bool::weighted(0.8);
    let seldom = || prop::bool::weighted(0.2);
    (how, often(), seldom(), seldom(), often(), often(), often(), seldom()).prop_map(
        |(how, found, away, silent, on_link, linked, serves, drains)| Target {
            how,
            found,
            away,
            silent,
            on_link,
            linked,
            serves,
            drains,
        },
    )
}

fn world() -> impl Strategy<Value = World> {
    let stance = prop::sample::select(vec![
        Stance::Standby,
        Stance::Rebuilding,
        Stance::Active,
        Stance::Active,
        Stance::Yielding,
    ]);
    let quiet = prop_oneof![3 => Just(0_u64), 1 => 1..5_000_u64];
    let entry = prop::option::weighted(
        0.7,
        (0..2_u16, prop::sample::select(FlowState::ALL.to_vec()), prop_oneof![Just(0_u64), 1..4_000_u64]),
    );
    let protocol = prop_oneof![2 => Just(Protocol::Tcp), 1 => Just(Protocol::Udp)];
    let first = (protocol, stance, prop::bool::weighted(0.2), quiet, prop::sample::select(Balance::ALL.to_vec()));
    let rules = (
        prop::bool::weighted(0.1),
        prop::sample::select(vec![Orphans::Drop, Orphans::Reset, Orphans::Balance]),
        prop::sample::select(vec![Unserved::Drop, Unserved::Refuse]),
    );
    let packet = (entry, prop_oneof![5 => Just(80_u16), 1 => Just(81)], any::<bool>(), 40_000..40_100_u16);
    (first, [target(), target()], rules, packet).prop_map(
        |((protocol, stance, lease_passed, quiet_ms, balance), targets, (denied, orphans, unserved), packet)| {
            let (entry, port, opens, client_port) = packet;
            // A table has no TCP states of UDP flows, and the other way round.
            let entry = entry.map(|(target, state, age)| match (protocol, state) {
                (Protocol::Udp, _) => (target, FlowState::Udp, age),
                (Protocol::Tcp, FlowState::Udp) => (target, FlowState::Confirmed, age),
                _ => (target, state, age),
            });
            World {
                protocol,
                stance,
                lease_passed,
                quiet_ms,
                balance,
                targets,
                denied,
                orphans,
                unserved,
                entry,
                port,
                opens,
                client_port,
            }
        },
    )
}

/// A bench in that world, and the connection's key.
fn bench_of(world: &World) -> (Bench, AnyKey) {
    let service = format!("192.0.2.10:80/{}", world.protocol.name());
    let mut bench = Bench::with_limits(&service, [T0, T1], 100, Limits::default());
    let now = bench.now;
    let client = SocketAddr::new(CLIENT.parse().unwrap(), world.client_port);
    let connection = Connection { protocol: world.protocol, client, port: world.port };
    let key = AnyKey::of(VipaId(0), VIPA.parse().unwrap(), &connection).unwrap();
    if let Some((target, state, age)) = world.entry {
        let then = Moment(now.0 - age * 1_000_000);
        bench.flows.admit(&key, TargetId(target), state, Tick::from(then));
    }
    for (id, target) in (0..).map(TargetId).zip(&world.targets) {
        bench.flows.set_linked(id, target.linked);
    }
    bench.change(|routes| {
        routes.stance = world.stance;
        routes.lease.set(if world.lease_passed { Moment(now.0 - 1) } else { now + Duration::from_secs(9) });
        routes.quiet_until = now + Duration::from_millis(world.quiet_ms);
        routes.unserved = world.unserved;
        let serving: Vec<u16> =
            (0..).zip(&world.targets).filter(|(_, target)| target.serves).map(|(id, _)| id).collect();
        let draining = (0..).map(TargetId).zip(&world.targets).filter(|(_, target)| target.drains).map(|(id, _)| id);
        routes.services[0].picker = routes.picker(world.balance, &serving);
        routes.services[0].draining = draining.collect();
        routes.services[0].orphans = world.orphans;
        routes.services[0].sources = world.denied.then(|| {
            let deny = vec!["203.0.113.0/24".parse().unwrap()];
            SourceRule::build(&Sources { deny, ..Sources::default() }).unwrap().into()
        });
        for ((target, route), address) in world.targets.iter().zip(&mut routes.targets).zip([T0, T1]) {
            (route.away, route.silent, route.on_link) = (target.away, target.silent, target.on_link);
            route.via = match target.how {
                How::Direct => ForwardingAction::Direct,
                How::Tunnel => ForwardingAction::Tunnel { outer: outer(address), how: Encapsulation::Ipip },
                How::Nat => ForwardingAction::Nat { port: None },
                How::Local => ForwardingAction::Local,
            };
            if target.how == How::Local {
                route.next_hop = route.next_hop.map(|hop| vipa_handoff::NextHop { port: KERNEL, ..hop });
            }
            if !target.found {
                route.next_hop = None;
            }
        }
    });
    (bench, key)
}

/// What a worker does with the packet.
fn done_by_a_worker(bench: &mut Bench, world: &World) -> PacketOutcome {
    let before = bench.control.totals();
    let ends = from_client().ipv4(CLIENT, VIPA);
    let packet = match (world.protocol, world.opens) {
        (Protocol::Udp, _) => ends.udp(world.client_port, world.port),
        (Protocol::Tcp, true) => ends.tcp(world.client_port, world.port).syn(),
        (Protocol::Tcp, false) => ends.tcp(world.client_port, world.port),
    };
    let mut sent = bench.turn([&packet]);
    sent.extend(bench.kernel());
    let counted = bench.control.totals().since(&before);
    let fates: Vec<Fate> = Fate::all().filter(|fate| counted.fate(*fate) > 0).collect();
    let to = |frame: &[u8]| (0..2_u8).find(|n| frame[..6] == target_mac(*n)).map(|n| TargetId(n.into()));
    match (&fates[..], counted.count(Count::Held)) {
        ([Fate::Forward], 0) => PacketOutcome::Forward(to(sent[0].bytes()).expect("it goes to one of the two")),
        ([fate], 0) => PacketOutcome::Fate(*fate),
        // Whatever it waits for.
        ([], 1) => PacketOutcome::AwaitReports,
        other => panic!("a packet has one fate, or is held: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_explained_is_what_a_worker_does(world in world()) {
        let (mut bench, key) = bench_of(&world);
        let packet = match (world.protocol, world.opens) {
            (Protocol::Udp, _) => NextPacket::Datagram,
            (Protocol::Tcp, true) => NextPacket::Syn,
            (Protocol::Tcp, false) => NextPacket::Segment,
        };
        let routes = bench.control.routes();
        let explained = explain(&routes, &bench.flows, &key, packet, bench.now);
        prop_assert_eq!(explained, explain(&routes, &bench.flows, &key, packet, bench.now), "to explain changes nothing");
        let awaited = match explained.outcome {
            PacketOutcome::AwaitNeighbour(_) => PacketOutcome::AwaitReports,
            other => other,
        };
        prop_assert_eq!(done_by_a_worker(&mut bench, &world), awaited);
    }
}

/// What is explained of each of so many worlds: without this the property above could hold because nothing but one outcome occurs.
#[test]
fn the_worlds_of_the_property_have_all_outcomes() {
    use std::collections::BTreeSet;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..600 {
        let world = world().new_tree(&mut runner).unwrap().current();
        let (bench, key) = bench_of(&world);
        for packet in [NextPacket::Syn, NextPacket::Segment, NextPacket::Datagram] {
            if (packet == NextPacket::Datagram) != (world.protocol == Protocol::Udp) {
                continue;
            }
            seen.insert(match explain(&bench.control.routes(), &bench.flows, &key, packet, bench.now).outcome {
                PacketOutcome::Forward(_) => "forwarded",
                PacketOutcome::AwaitNeighbour(_) => "awaits a neighbour",
                PacketOutcome::AwaitReports => "awaits reports",
                PacketOutcome::Fate(fate) => fate.name(),
            });
        }
    }
    let expected = [
        "awaits a neighbour",
        "awaits reports",
        "dropped.denied",
        "dropped.fenced",
        "dropped.no-service",
        "dropped.no-target",
        "dropped.orphan",
        "dropped.standby",
        "forwarded",
        "replied.reset",
        "replied.unreachable",
    ];
    assert_eq!(seen, BTreeSet::from(expected));
}
