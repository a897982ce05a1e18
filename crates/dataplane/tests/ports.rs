//! Several ports, each with its own network, VLAN and MTU, and several workers with one table.
//!
//! ```text
//!   clients ── gateway ── port 0, 198.51.100.0/24 ─┐        ┌─ port 1, 10.1.0.0/24, VLAN 7, MTU 1400 ── targets
//!                                                  └ worker ┘
//! ```

mod support;

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use support::*;
use vipa_balance::{Candidate, ClusterKey, Picker};
use vipa_dataplane::{
    Limits, RxPort, Worker,
    bench::{CLIENT_MAC, HeapRx, HeapTx, ROUTER, ROUTER_MAC, target_mac},
};
use vipa_flow::{Capacity, FlowTable, HashSeed};
use vipa_handoff::{
    ControlChannel, Flows, ForwardingAction, Note, PortRoute, ReturnRoute, RouteLists, Routes, ServiceRoute,
    TargetRoute, VipaRoute, open,
};
use vipa_model::{Balance, Mac, Moment, Orphans, PortId, PortRange, Protocol, Stance, TargetId, Unserved, VipaId};
use vipa_packet::{
    HeapPacket,
    build::{Builder, packet},
};
use vipa_sync::Deadline;

const INNER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
const INNER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const TARGETS: [&str; 2] = ["10.1.0.21", "10.1.0.22"];
const GATEWAY: &str = "198.51.100.254";
const PORTS: [PortId; 2] = [PortId(0), PortId(1)];

/// Workers with a queue on each of the two ports.
struct Router {
    workers: Vec<Worker<HeapRx, HeapTx>>,
    control: ControlChannel,
    flows: Arc<Flows>,
    now: Moment,
}

impl Router {
    fn new(workers: usize, via: ForwardingAction) -> Self {
        let seed = HashSeed::new([1, 2, 3, 4]);
        let table = || Capacity::connections(1_000);
        let flows = Arc::new(Flows {
            ipv4: FlowTable::new(table(), seed).unwrap(),
            ipv6: FlowTable::new(table(), seed).unwrap(),
        });
        let (control, channels) = open(Arc::new(routes(via)), workers);
        let rx_ports = || PORTS.map(|port| RxPort { port, rx: HeapRx::default() }).into();
        let tx_ports = || vec![HeapTx::default(), HeapTx::default()];
        let worker = |channel| Worker::new(channel, Arc::clone(&flows), rx_ports(), tx_ports(), Limits::default());
        let workers = channels.into_iter().map(worker).collect();
        Self { workers, control, flows, now: Moment::ZERO + Duration::from_secs(1_000) }
    }

    /// What leaves by each port when these packets arrive at a worker by a port.
    fn turn<'a>(
        &mut self,
        worker: usize,
        port: usize,
        packets: impl IntoIterator<Item = &'a Builder>,
    ) -> [Vec<HeapPacket>; 2] {
        let worker = &mut self.workers[worker];
        worker.rx(port).unwrap().arriving.extend(packets.into_iter().map(Builder::build));
        worker.turn(|| self.now);
        PORTS.map(|port| std::mem::take(&mut worker.tx(port).unwrap().sent))
    }
}

fn routes(via: ForwardingAction) -> Routes {
    let key = ClusterKey::new(*b"two ports' key..");
    let gateway = Some(GATEWAY.parse().unwrap());
    let outer = PortRoute { gateway, ..PortRoute::new(Mac(ROUTER_MAC), ROUTER, 24) };
    let inner = PortRoute { vlan: Some(7), mtu: 1_400, ..PortRoute::new(Mac(INNER_MAC), INNER, 24) };
    let address = |n: usize| TARGETS[n].parse::<IpAddr>().unwrap();
    let target = |n: usize| TargetRoute {
        via,
        ..TargetRoute::direct(address(n), (PortId(1), &inner), Mac(target_mac(n as u8)))
    };
    let candidate = |n: usize| Candidate { address: address(n), weight: 1, target: TargetId(n as u16) };
    let service = ServiceRoute {
        protocol: Protocol::Tcp,
        ports: PortRange::one(80),
        picker: Picker::build(&key, Balance::Maglev, &[candidate(0), candidate(1)]),
        draining: Arc::default(),
        turns: Arc::default(),
        orphans: Orphans::Reset,
        sources: None,
    };
    let vipa = VipaRoute {
        address: VIPA.parse().unwrap(),
        stance: Stance::Active,
        lease: Arc::new(Deadline::new(Moment(u64::MAX))),
        services: [service].into(),
        quiet_until: Moment::ZERO,
        by_hash_until: Moment::ZERO,
        new_per_second: None,
        unserved: Unserved::Drop,
    };
    let back = |n: usize| {
        let (ports, target) = (PortRange::one(80), TargetId(n as u16));
        let route = ReturnRoute { protocol: Protocol::Tcp, ports, vipa: VipaId(0), vipa_port: None, target };
        (address(n), vec![route])
    };
    let returns =
        if matches!(via, ForwardingAction::Nat { .. }) { BTreeMap::from([back(0), back(1)]) } else { BTreeMap::new() };
    let lists = RouteLists {
        ports: vec![outer, inner],
        vipas: vec![vipa],
        targets: vec![target(0), target(1)],
        neighbours: HashMap::from([(GATEWAY.parse().unwrap(), (PortId(0), Mac(CLIENT_MAC)))]),
        returns,
        capture: None,
    };
    Routes::build(1, key, lists)
}

/// The same packet on its way to a target by the inner port.
fn inside(n: u16, sent: &Builder) -> HeapPacket {
    sent.clone().macs(INNER_MAC, target_mac(n as u8)).vlan(7).build()
}

fn target_at(router: &Router, port: u16) -> u16 {
    let mut found = None;
    router.flows.export(VipaId(0), &mut |key, target, _| {
        if key.connection().client.port() == port {
            found = Some(target.0);
        }
    });
    found.expect("it is in the table")
}

#[test]
fn what_comes_by_one_port_leaves_by_the_targets_with_its_tag() {
    let mut router = Router::new(1, ForwardingAction::Direct);
    let syn = segment(40_000).syn();
    let [out, inner] = router.turn(0, 0, [&syn]);
    assert_eq!(out, NOTHING);
    assert_eq!(inner, [inside(target_at(&router, 40_000), &syn)]);
}

#[test]
fn each_port_has_its_own_address_and_answers_for_the_vipa_with_its_own_mac() {
    let mut router = Router::new(1, ForwardingAction::Direct);
    let ask = |asked: Ipv4Addr, from: &str| packet().macs(CLIENT_MAC, [0xff; 6]).arp_request(from, asked);
    let vipa: Ipv4Addr = VIPA.parse().unwrap();
    for (port, mac, own, asker) in [(0, ROUTER_MAC, ROUTER, "198.51.100.9"), (1, INNER_MAC, INNER, "10.1.0.9")] {
        for asked in [own, vipa] {
            let (question, answer) = (ask(asked, asker), packet().macs(mac, CLIENT_MAC).arp_reply(asked, asker));
            let tag = |frame: Builder| if port == 1 { frame.vlan(7) } else { frame };
            let sent = router.turn(0, port, [&tag(question)]);
            assert_eq!(sent[port], [tag(answer).build()], "port {port}, {asked}");
            assert_eq!(sent[1 - port], NOTHING);
        }
        let (other, _) = if port == 0 { (INNER, ()) } else { (ROUTER, ()) };
        let sent = router.turn(0, port, [&if port == 1 { ask(other, asker).vlan(7) } else { ask(other, asker) }]);
        assert_eq!(sent, [NOTHING, NOTHING].map(Vec::from), "another port's address is not this one's");
    }
    let heard: Vec<_> = router.control.notes().collect();
    let neighbour = |port, address: &str| Note::Neighbour {
        port: PortId(port),
        address: address.parse().unwrap(),
        mac: Mac(CLIENT_MAC),
    };
    assert!(heard.contains(&neighbour(0, "198.51.100.9")) && heard.contains(&neighbour(1, "10.1.0.9")), "{heard:?}");
}

#[test]
fn who_sends_more_than_the_targets_port_takes_is_told_by_the_port_he_came_by() {
    let mut router = Router::new(1, ForwardingAction::Direct);
    router.turn(0, 0, [&segment(40_000).syn()]);
    let [out, inner] = router.turn(0, 0, [&segment(40_000).dont_fragment().payload([0; 1_400])]);
    assert_eq!(inner, NOTHING);
    let told = vipa_packet::parse(out[0].as_ref()).unwrap();
    assert!(matches!(told.body, vipa_packet::Body::Ipv4Icmp(_)), "{told:?}");
    assert_eq!(out[0].as_ref()[38..42], [0, 0, 1_400_u16.to_be_bytes()[0], 1_400_u16.to_be_bytes()[1]]);
}

#[test]
fn a_nat_targets_answer_leaves_by_the_clients_port_through_its_gateway_untagged() {
    let mut router = Router::new(1, ForwardingAction::Nat { port: None });
    router.turn(0, 0, [&segment(40_000).syn()]);
    let target = TARGETS[usize::from(target_at(&router, 40_000))];
    let answer = packet().macs(target_mac(0), INNER_MAC).ipv4(target, CLIENT).tcp(80, 40_000).syn_ack();
    let [out, inner] = router.turn(0, 1, [&answer.vlan(7)]);
    assert_eq!(inner, NOTHING);
    assert_eq!(out, [to_client(packet().ipv4(VIPA, CLIENT).ttl(63).tcp(80, 40_000).syn_ack()).build()]);
}

#[test]
fn workers_share_the_table_and_lose_nothing_whichever_a_packet_comes_to() {
    let mut router = Router::new(2, ForwardingAction::Direct);
    for n in 0..200 {
        let port = 40_000 + n;
        let worker = usize::from(n % 2);
        let syn = segment(port).syn();
        let [_, first] = router.turn(worker, 0, [&syn]);
        let target = target_at(&router, port);
        assert_eq!(first, [inside(target, &syn)]);
        let data = segment(port).payload(b"data");
        for worker in [1 - worker, worker] {
            assert_eq!(
                router.turn(worker, 0, [&data])[1],
                [inside(target, &data)],
                "connection {n} at worker {worker}"
            );
        }
    }
    assert_eq!(router.flows.count().total(), 200);
    let totals = router.control.totals();
    assert!(totals.add_up());
    assert_eq!(totals.fate(vipa_handoff::Fate::Forward), 600);
}

#[test]
fn other_workers_take_over_a_table_as_it_is_when_their_number_changes() {
    let mut before = Router::new(2, ForwardingAction::Direct);
    let ports = 40_000..40_100_u16;
    for port in ports.clone() {
        before.turn(usize::from(port % 2), 0, [&segment(port).syn()]);
    }
    let mut after = Router::new(3, ForwardingAction::Direct);
    // The tables outlive the workers.
    let (control, channels) = open(Arc::new(routes(ForwardingAction::Direct)), 3);
    after.control = control;
    after.flows = Arc::clone(&before.flows);
    after.workers = channels
        .into_iter()
        .map(|channel| {
            let rx_ports = PORTS.map(|port| RxPort { port, rx: HeapRx::default() }).into();
            let tx_ports = vec![HeapTx::default(), HeapTx::default()];
            Worker::new(channel, Arc::clone(&before.flows), rx_ports, tx_ports, Limits::default())
        })
        .collect();
    for port in ports {
        let data = segment(port).payload(b"data");
        let target = target_at(&after, port);
        assert_eq!(after.turn(usize::from(port % 3), 0, [&data])[1], [inside(target, &data)]);
    }
}
