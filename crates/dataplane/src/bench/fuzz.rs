//! Arbitrary bytes as the input of a worker that has every way of forwarding: for fuzzers.
//! ```text
//! bytes ─► steps ─┬─ a frame as it stands, its checksums mended    in by the port or by the kernel's interface
//!                 ├─ a frame of one of the forms below, its fields chosen
//!                 └─ the world changes: stance, lease, time, routes, a target's report, a port that is full
//!                           │
//!                           ▼
//!         a whole worker with its tables, and after each step: what must hold of any input
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, LazyLock},
    time::Duration,
};

use vipa_balance::{Candidate, Picker};
use vipa_flow::{FlowState, Tick};
use vipa_handoff::{
    AnyKey, ForwardingAction, NextHop, PortRoute, ReturnRoute, RouteLists, Routes, ServiceRoute, SourceRule,
    TargetRoute, VipaRoute,
};
use vipa_model::{
    Balance, Connection, Mac, Moment, Orphans, PortId, PortRange, Protocol, Sources, Stance, TargetId, Unserved, VipaId,
};
use vipa_packet::{
    Encapsulation, HeapPacket, Malformed, PacketBuf, TcpFlags, TunnelEndpoints,
    build::{Builder, packet},
    ethernet, fix_checksums, nd, parse,
};
use vipa_sync::Deadline;

use super::{Bench, CLIENT_MAC, KERNEL, KEY, ROUTER, ROUTER_MAC, ROUTER6, port_route, target_mac};
use crate::Limits;

const VIPA4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const VIPA6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const CLIENT4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 4);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 4);
const TARGET4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 21);
const TARGET6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0x51, 0, 0, 0, 0x21);
const GATEWAY4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);

/// A service of each of these begins at port 80, in TCP and UDP alike.
const WAYS: [FuzzedPath; 9] = [
    FuzzedPath::Direct,
    FuzzedPath::Tunnel(Encapsulation::Ipip, Family::V4),
    FuzzedPath::Tunnel(Encapsulation::Ipip, Family::V6),
    FuzzedPath::Tunnel(Encapsulation::Gre, Family::V6),
    FuzzedPath::Tunnel(Encapsulation::Gue { port: 6080 }, Family::V4),
    FuzzedPath::Nat(Some(8080)),
    FuzzedPath::Nat(None),
    FuzzedPath::Local,
    FuzzedPath::Unresolved,
];
const FIRST_PORT: u16 = 80;

#[derive(Clone, Copy)]
enum FuzzedPath {
    Direct,
    Tunnel(Encapsulation, Family),
    Nat(Option<u16>),
    Local,
    Unresolved,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// By target: pickers that choose it alone. Each has many thousand elements, so they are made once.
static PICKERS: LazyLock<Vec<(Picker, Picker)>> = LazyLock::new(|| {
    let mut pickers = Vec::new();
    for family in [Family::V4, Family::V6] {
        for (number, way) in (0..).zip(WAYS) {
            let target = TargetId(target_of(family, number));
            let only = [Candidate { address: address_of(way, family), weight: 1, target }];
            let build = |balance| Picker::build(&KEY, balance, &only);
            pickers.push((build(Balance::Maglev), build(Balance::RoundRobin)));
        }
    }
    pickers
});

/// Feeds a worker what `data` encodes and checks what must hold of any input.
///
/// # Panics
/// When something that must hold does not.
pub fn fuzz(data: &[u8]) {
    let mut data = Choices(data);
    let mut world = World::new();
    world.publish();
    while let Some(step) = data.byte() {
        world.step(step, &mut data);
        world.check();
    }
    // At the end nothing is held for ever.
    world.bench.advance(Duration::from_secs(10));
    world.bench.tx().room = usize::MAX;
    let waiting = world.bench.turn_frames([]);
    world.check_sent(&waiting);
    world.check();
}

/// Initial inputs: every form of frame to every way, in both families.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for family in 0..2 {
        for way in 0..WAYS.len() as u8 {
            let mut seed = Vec::new();
            for form in 0..FORMS {
                seed.extend([CHOSEN, form, family << 7 | way, 1, 0x10, 0, 40, 64, 0, 0]);
            }
            // Again, in another order, when the connection is known and time has passed.
            seed.extend([CHANGE, 6, 3]);
            for form in (0..FORMS).rev() {
                seed.extend([CHOSEN, form, family << 7 | way, 1, 0x11, 5, 200, 3, 0, 0]);
            }
            seeds.push(seed);
        }
    }
    seeds
}

/// Kinds of steps, by their first byte.
const CHOSEN: u8 = 0x00;
const RAW: u8 = 0x40;
const KERNELS: u8 = 0x80;
const CHANGE: u8 = 0xc0;

/// Bytes as choices; zeros where none are left.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn choice(&mut self) -> u8 {
        self.byte().unwrap_or(0)
    }

    fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.choice(), self.choice()])
    }

    /// A number of bytes, and as many bytes.
    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.number() % 2_048).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }
}

/// A bench whose routes have two VIPAs and every way to a target.
struct World {
    bench: Bench,
    stances: [Stance; 2],
    lease: Arc<Deadline>,
    port: PortRoute,
    orphans: Orphans,
    balance: Balance,
    serving: bool,
    resolved: bool,
    generation: u64,
}

impl World {
    fn new() -> Self {
        let limits = Limits { held_packets: 16, ..Limits::default() };
        Self {
            bench: Bench::with_limits("192.0.2.10:80/tcp", [], 64, limits),
            stances: [Stance::Active; 2],
            lease: Arc::new(Deadline::new(Moment(u64::MAX))),
            port: PortRoute { kernel: Some(KERNEL), ..port_route() },
            orphans: Orphans::Reset,
            balance: Balance::Maglev,
            serving: true,
            resolved: false,
            generation: 1,
        }
    }

    fn step(&mut self, step: u8, data: &mut Choices<'_>) {
        match step & 0xc0 {
            CHOSEN => {
                let frame = chosen(data);
                self.arrive(frame);
            }
            RAW => {
                let mut frame = data.bytes().to_vec();
                fix_checksums(&mut frame);
                // Nearly every random frame is for another station; most of these should not be.
                if step & 0x0f != 0
                    && let Some(destination) = frame.first_chunk_mut::<6>()
                {
                    *destination = ROUTER_MAC;
                }
                self.arrive(HeapPacket::from(frame));
            }
            KERNELS => {
                let frame = HeapPacket::from(data.bytes());
                self.bench.from_kernel([frame]);
            }
            _ => self.change(data),
        }
    }

    fn arrive(&mut self, frame: HeapPacket) {
        let sent = self.bench.turn_frames([frame]);
        self.check_sent(&sent);
    }

    fn change(&mut self, data: &mut Choices<'_>) {
        let (what, how) = (data.choice(), data.choice());
        let stances = [Stance::Standby, Stance::Rebuilding, Stance::Active, Stance::Yielding];
        match what % 14 {
            0 => self.stances[0] = stances[usize::from(how & 3)],
            1 => self.stances[1] = stances[usize::from(how & 3)],
            2 => self.lease.set(if how & 1 == 0 { self.bench.now } else { Moment(u64::MAX) }),
            3 => self.bench.advance(Duration::from_millis(u64::from(how))),
            4 => self.bench.advance(Duration::from_secs(u64::from(how))),
            5 => self.bench.tx().room = if how > 40 { usize::MAX } else { usize::from(how) },
            6 => self.orphans = [Orphans::Reset, Orphans::Drop, Orphans::Balance][usize::from(how) % 3],
            7 => self.balance = if how & 1 == 0 { Balance::Maglev } else { Balance::RoundRobin },
            8 => self.serving = how & 1 == 0,
            9 => self.resolved = how & 1 == 0,
            10 => self.port.kernel = (how & 1 == 0).then_some(KERNEL),
            11 => self.port.vlan = (how & 1 == 1).then_some(7),
            12 => self.port.mtu = [1_500, 576, 1_280, 9_000][usize::from(how & 3)],
            _ => self.report(how, data),
        }
        self.publish();
        let sent = self.bench.turn_frames([]);
        self.check_sent(&sent);
    }

    /// A target's report that it holds a connection, or holds it no longer.
    fn report(&mut self, how: u8, data: &mut Choices<'_>) {
        let (family, way) = family_and_way(data.choice());
        let (client, vipa): (IpAddr, IpAddr) = match family {
            Family::V4 => (CLIENT4.into(), VIPA4.into()),
            Family::V6 => (CLIENT6.into(), VIPA6.into()),
        };
        let protocol = if how & 1 == 0 { Protocol::Tcp } else { Protocol::Udp };
        let connection =
            Connection { protocol, client: (client, client_port(data.choice())).into(), port: FIRST_PORT + way };
        let key = AnyKey::of(VipaId(family as u16), vipa, &connection).expect("one family");
        let target = TargetId(target_of(family, way));
        let now = Tick::from(self.bench.now);
        match how >> 1 & 3 {
            0 => drop(self.bench.flows.confirm(&key, target, FlowState::HalfOpen, now)),
            1 => drop(self.bench.flows.confirm(&key, target, FlowState::Confirmed, now)),
            2 => drop(self.bench.flows.confirm(&key, target, FlowState::Closing, now)),
            _ => drop(self.bench.flows.remove(&key, Some(target))),
        }
    }

    fn publish(&mut self) {
        self.generation += 1;
        let routes = self.routes();
        self.bench.control.publish(Arc::new(routes));
    }

    fn routes(&self) -> Routes {
        let mut lists = RouteLists { ports: vec![self.port], ..RouteLists::default() };
        for (family, vipa) in [(Family::V4, IpAddr::from(VIPA4)), (Family::V6, IpAddr::from(VIPA6))] {
            lists.vipas.push(VipaRoute {
                address: vipa,
                stance: self.stances[family as usize],
                lease: Arc::clone(&self.lease),
                services: self.services(family).into(),
                quiet_until: Moment::ZERO,
                by_hash_until: Moment::ZERO,
                new_per_second: Some(100),
                unserved: Unserved::Refuse,
            });
            lists.targets.extend(WAYS.iter().map(|way| self.target(*way, family)));
        }
        lists.returns = returns();
        if self.resolved {
            lists.neighbours =
                HashMap::from([GATEWAY4.into(), CLIENT6.into()].map(|at| (at, (PortId(0), Mac(CLIENT_MAC)))));
        }
        Routes::build(self.generation, KEY, lists)
    }

    fn services(&self, family: Family) -> Vec<ServiceRoute> {
        let mut services = Vec::new();
        let sources = Sources {
            deny: vec!["203.0.113.128/25".parse().expect("a prefix")],
            new_per_second: Some(50),
            ..Sources::default()
        };
        let sources = SourceRule::build(&sources).map(Arc::new);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for way in 0..WAYS.len() as u16 {
                services.push(ServiceRoute {
                    protocol,
                    ports: PortRange::one(FIRST_PORT + way),
                    picker: self.picker(family, way),
                    draining: Arc::default(),
                    turns: Arc::default(),
                    orphans: self.orphans,
                    sources: (way == 0).then(|| sources.clone()).flatten(),
                });
            }
        }
        services
    }

    fn picker(&self, family: Family, way: u16) -> Picker {
        if !self.serving {
            return Picker::build(&KEY, self.balance, &[]);
        }
        let target = usize::from(target_of(family, way));
        let (maglev, in_turn) = &PICKERS[target];
        if self.balance == Balance::Maglev { maglev.clone() } else { in_turn.clone() }
    }

    fn target(&self, way: FuzzedPath, family: Family) -> TargetRoute {
        let address = address_of(way, family);
        let mut target = TargetRoute::direct(address, (PortId(0), &self.port), Mac(target_mac(0)));
        match way {
            FuzzedPath::Direct => {}
            FuzzedPath::Tunnel(how, _) => {
                let outer = match address {
                    IpAddr::V4(to) => TunnelEndpoints::V4 { source: ROUTER.to_bits(), destination: to.to_bits() },
                    IpAddr::V6(to) => TunnelEndpoints::V6 { source: ROUTER6.to_bits(), destination: to.to_bits() },
                };
                target.via = ForwardingAction::Tunnel { outer, how };
                target.mtu = self.port.mtu - how.overhead(address.is_ipv6()) as u16;
            }
            FuzzedPath::Nat(port) => target.via = ForwardingAction::Nat { port },
            FuzzedPath::Local => {
                target.via = ForwardingAction::Local;
                let link = vipa_packet::EthernetHeader { source: ROUTER_MAC, destination: ROUTER_MAC, vlan: None };
                target.next_hop = Some(NextHop { port: KERNEL, link });
            }
            FuzzedPath::Unresolved => target.next_hop = None,
        }
        target
    }

    /// Checks that a frame that leaves by the port has our MAC, fits the MTU, and can be parsed by its receiver.
    fn check_sent(&mut self, sent: &[HeapPacket]) {
        let longest = 9_000 + ethernet::HEADER + ethernet::VLAN_TAG;
        for frame in sent {
            assert_eq!(frame.bytes().get(6..12), Some(&ROUTER_MAC[..]), "not ours: {frame:?}");
            assert!(frame.bytes().len() <= longest, "too long: {frame:?}");
            let read = parse(frame.bytes());
            // An error quotes the packet it is about: ports that were missing there, or lie behind the quote's end, are
            // not our fault.
            let quotes = matches!(read, Err(Malformed::IcmpQuote | Malformed::Icmp6Quote));
            assert!(read.is_ok() || quotes, "{read:?}: {frame:?}");
        }
    }

    /// Checks that every packet has one fate or is held, and that tables keep to their limits.
    fn check(&mut self) {
        self.bench.kernel();
        self.bench.check_counters();
        let flows = &self.bench.flows;
        for (count, slots) in [(flows.ipv4.count(), flows.ipv4.slots()), (flows.ipv6.count(), flows.ipv6.slots())] {
            assert!(count.total() <= slots as u64, "{count:?} in {slots}");
        }
    }
}

fn target_of(family: Family, way: u16) -> u16 {
    family as u16 * WAYS.len() as u16 + way
}

fn address_of(way: FuzzedPath, family: Family) -> IpAddr {
    match (way, family) {
        (FuzzedPath::Tunnel(_, Family::V4), _) => TARGET4.into(),
        (FuzzedPath::Tunnel(_, Family::V6), _) => TARGET6.into(),
        (FuzzedPath::Local, Family::V4) => ROUTER.into(),
        (FuzzedPath::Local, Family::V6) => ROUTER6.into(),
        (_, Family::V4) => TARGET4.into(),
        (_, Family::V6) => TARGET6.into(),
    }
}

fn returns() -> BTreeMap<IpAddr, Vec<ReturnRoute>> {
    let of = |family| {
        let mut routes = Vec::new();
        for (number, way) in (0..).zip(WAYS) {
            let FuzzedPath::Nat(port) = way else { continue };
            let service = FIRST_PORT + number;
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                routes.push(ReturnRoute {
                    protocol,
                    ports: PortRange::one(port.unwrap_or(service)),
                    vipa: VipaId(family as u16),
                    vipa_port: port.map(|_| service),
                    target: TargetId(target_of(family, number)),
                });
            }
        }
        routes
    };
    BTreeMap::from([(TARGET4.into(), of(Family::V4)), (TARGET6.into(), of(Family::V6))])
}

fn family_and_way(choice: u8) -> (Family, u16) {
    let family = if choice & 0x80 == 0 { Family::V4 } else { Family::V6 };
    (family, u16::from(choice & 0x7f) % WAYS.len() as u16)
}

fn client_port(choice: u8) -> u16 {
    40_000 + u16::from(choice & 15)
}

/// Forms of frames whose fields are chosen.
const FORMS: u8 = 14;

/// A frame of one of the forms: form, family and way, client, flags, length (2), time to live, offset, and more.
fn chosen(data: &mut Choices<'_>) -> HeapPacket {
    let form = data.choice() % FORMS;
    let (family, way) = family_and_way(data.choice());
    let client = client_port(data.choice());
    let flags = TcpFlags(data.choice());
    let payload = vec![0x5a; usize::from(data.number() % 1_600)];
    let (ttl, offset, more) = (data.choice(), data.choice(), data.choice());
    let service = FIRST_PORT + way;
    let macs = |frame: Builder| frame.macs(CLIENT_MAC, ROUTER_MAC);
    let there = || {
        match family {
            Family::V4 => macs(packet()).ipv4(CLIENT4, VIPA4),
            Family::V6 => macs(packet()).ipv6(CLIENT6, VIPA6),
        }
        .ttl(ttl)
        .identification(u16::from(more & 3))
    };
    let back = || {
        match family {
            Family::V4 => macs(packet()).ipv4(TARGET4, CLIENT4),
            Family::V6 => macs(packet()).ipv6(TARGET6, CLIENT6),
        }
        .ttl(ttl)
    };
    let target_port = match WAYS[usize::from(way)] {
        FuzzedPath::Nat(Some(port)) => port,
        _ => service,
    };
    let mss = [2, 4, flags.0, offset];
    let frame = match form {
        0 => there().tcp(client, service).syn().tcp_options(&mss),
        1 => there().tcp(client, service).flags(flags).payload(&payload),
        2 => there().tcp(client, service).dont_fragment().payload(&payload),
        3 => there().udp(client, service).payload(&payload),
        4 => there()
            .udp(client, service)
            .payload([&payload[..], &[0; 8]].concat())
            .part(u16::from(offset) * 8, more & 1 == 1),
        5 => there()
            .tcp(client, service)
            .payload([&payload[..], &[0; 8]].concat())
            .part(u16::from(offset) * 8, more & 1 == 1),
        6 => there().protocol(offset).payload(&payload),
        7 => echo(family, there()).payload(&payload),
        8 => back().tcp(target_port, client).flags(flags).payload(&payload),
        9 => back().udp(target_port, client).payload(&payload),
        10 => about(family, there(), &quoted(family, (service, client), &payload)),
        11 => about(family, back(), &turned(family, (client, target_port), &payload)),
        12 => return question(family, more),
        _ => there().extension(60, &[1, 4]).ip_options(&[1; 4]).tcp(client, service).vlan(u16::from(flags.0 & 7)),
    };
    frame.build()
}

fn echo(family: Family, frame: Builder) -> Builder {
    match family {
        Family::V4 => frame.icmp_echo(1, 2),
        Family::V6 => frame.icmp6_echo(1, 2),
    }
}

fn about(family: Family, frame: Builder, quoted: &HeapPacket) -> Builder {
    match family {
        Family::V4 => frame.icmp_too_big(1_280, quoted),
        Family::V6 => frame.icmp6_error(2, 0, 1_280, quoted),
    }
}

/// A packet that the VIPA's target sent to the client.
fn quoted(family: Family, (from, to): (u16, u16), payload: &[u8]) -> HeapPacket {
    let ip = match family {
        Family::V4 => packet().ipv4(VIPA4, CLIENT4),
        Family::V6 => packet().ipv6(VIPA6, CLIENT6),
    };
    ip.tcp(from, to).payload(payload).build()
}

/// The client's packet after its translation for a `nat` target.
fn turned(family: Family, (from, to): (u16, u16), payload: &[u8]) -> HeapPacket {
    let ip = match family {
        Family::V4 => packet().ipv4(CLIENT4, TARGET4),
        Family::V6 => packet().ipv6(CLIENT6, TARGET6),
    };
    ip.tcp(from, to).payload(payload).build()
}

/// A question for the VIPA, the port's address, or another address.
fn question(family: Family, about: u8) -> HeapPacket {
    let frame = match family {
        Family::V4 => {
            let asked = [VIPA4, ROUTER, TARGET4, CLIENT4][usize::from(about & 3)];
            return packet().macs(CLIENT_MAC, [0xff; 6]).arp_request(CLIENT4, asked).build();
        }
        Family::V6 => {
            nd::solicitation(&CLIENT_MAC, CLIENT6, [VIPA6, ROUTER6, TARGET6, CLIENT6][usize::from(about & 3)])
        }
    };
    HeapPacket::from(frame)
}
