//! What is counted. Each case prepares its world, and then does one thing [`TIMES`] times.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use vipa_balance::{Candidate, ClusterKey, Picker, hash_connection};
use vipa_dataplane::bench::{Bench, CLIENT_MAC, ROUTER_MAC, target_mac};
use vipa_flow::{
    Admitted, Capacity, Confirmed, FlowState, FlowTable, HashSeed, Key4, Key6, PackedKey, Tick,
    vectors::{Vectors, Work},
};
use vipa_handoff::{ForwardingAction, ReturnRoute};
use vipa_model::{Balance, Mac, PortId, PortRange, Protocol, TargetId, VipaId};
use vipa_packet::{
    Encapsulation, Endpoint, EthernetHeader, HEADER_ROWS, HeaderColumns, HeaderSums, HeapPacket, InnerPacket,
    PacketBuf, Station, TunnelEndpoints, TunnelHeaders,
    build::{Builder, packet},
    nat, parse, set_macs,
};

use crate::TIMES;

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) prepare: fn() -> Prepared,
}

/// Does one thing, the `n`-th time.
pub(crate) struct Prepared(Box<dyn FnMut(u64)>);

impl Prepared {
    fn new(work: impl FnMut(u64) + 'static) -> Self {
        Self(Box::new(work))
    }

    pub(crate) fn run(&mut self) {
        // What is slower the first time.
        (self.0)(0);
        measured(&mut self.0);
    }
}

/// All that is counted; callgrind knows it by its name.
#[inline(never)]
fn measured(work: &mut dyn FnMut(u64)) {
    (1..=TIMES).for_each(work);
}

pub(crate) const CASES: &[Case] = &[
    Case { name: "packet: header columns of a burst", prepare: || columns(HeaderSums::Unverified) },
    Case { name: "packet: header columns of a burst, verified", prepare: || columns(HeaderSums::Verified) },
    Case { name: "packet: header columns of a burst, IPv6", prepare: columns6 },
    Case { name: "packet: tagged segment", prepare: tagged_segment },
    Case { name: "packet: wrap in IP", prepare: wrap },
    Case { name: "packet: translate", prepare: translate },
    Case { name: "flow: seek and find", prepare: seek_and_find },
    Case { name: "flow: seek and find, IPv6", prepare: seek_and_find6 },
    Case { name: "flow: admit", prepare: admit },
    Case { name: "flow: admit, no place", prepare: admit_no_place },
    Case { name: "flow: confirm", prepare: confirm },
    Case { name: "flow: remove", prepare: remove },
    Case { name: "balance: hash and pick", prepare: hash_and_pick },
    Case { name: "balance: build maglev", prepare: build_maglev },
    Case { name: "worker: burst, direct", prepare: direct },
    Case { name: "worker: burst, direct, IPv6", prepare: direct6 },
    Case { name: "worker: burst, ipip", prepare: || tunnelled(Encapsulation::Ipip) },
    Case { name: "worker: burst, gre", prepare: || tunnelled(Encapsulation::Gre) },
    Case { name: "worker: burst, gue", prepare: || tunnelled(Encapsulation::Gue { port: 6080 }) },
    Case { name: "worker: burst, nat", prepare: translated },
    Case { name: "worker: burst, nat, back", prepare: translated_back },
];

const VIPA: &str = "192.0.2.10";
const VIPA6: &str = "2001:db8:1::10";
const CLIENT: &str = "203.0.113.4";
const TARGET: &str = "198.51.100.21";

/// The headers of a burst.
fn columns(sums: HeaderSums) -> Prepared {
    let frame = packet().macs(CLIENT_MAC, ROUTER_MAC).ipv4(CLIENT, VIPA).tcp(40_000, 80).payload([0; 10]).build();
    look::<false>(frame, sums)
}

fn columns6() -> Prepared {
    let frame = packet().macs(CLIENT_MAC, ROUTER_MAC).ipv6("2001:db8::4", VIPA6).tcp(40_000, 80).build();
    look::<true>(frame, HeaderSums::Unverified)
}

fn look<const IS_IPV6: bool>(frame: HeapPacket, sums: HeaderSums) -> Prepared {
    let vectors = Vectors::of_this_processor();
    let mut columns = HeaderColumns::default();
    Prepared::new(move |_| {
        let found = vectors.run(Look::<IS_IPV6> { frame: black_box(frame.bytes()), sums, columns: &mut columns });
        assert_eq!(black_box(found), u32::MAX);
    })
}

struct Look<'a, const IS_IPV6: bool> {
    frame: &'a [u8],
    sums: HeaderSums,
    columns: &'a mut HeaderColumns,
}

impl<const IS_IPV6: bool> Work for Look<'_, IS_IPV6> {
    type Output = u32;

    #[inline(always)]
    fn run(self) -> u32 {
        let Self { frame, sums, columns } = self;
        let station = Station::new(&ROUTER_MAC);
        (0..HEADER_ROWS).for_each(|place| columns.load(place, frame));
        if !IS_IPV6 {
            return columns.segments(station, sums).plain;
        }
        (0..HEADER_ROWS).for_each(|place| columns.load_ipv6(place, frame));
        columns.segments6(station).plain & columns.ipv6()
    }
}

fn tagged_segment() -> Prepared {
    let frame = packet().ipv4(CLIENT, VIPA).tcp(40_000, 80).vlan(5).build();
    Prepared::new(move |_| assert!(black_box(parse(black_box(frame.bytes()))).is_ok()))
}

fn wrap() -> Prepared {
    let frame = packet().ipv4(CLIENT, VIPA).tcp(40_000, 80).payload([0; 10]).build();
    let outer = TunnelEndpoints::V4 { source: 0xc633_6401, destination: 0xc633_6415 };
    let link = EthernetHeader { source: ROUTER_MAC, destination: target_mac(0), vlan: None };
    let headers = TunnelHeaders::new(&outer, Encapsulation::Ipip, &link);
    let mut room = frame.clone();
    Prepared::new(move |n| {
        assert!(room.refill(frame.bytes()));
        let inner = InnerPacket::read(room.bytes()).expect("plain");
        assert!(headers.wrap(&mut room, &inner, n as u32));
    })
}

fn translate() -> Prepared {
    let frame = packet().ipv4(CLIENT, VIPA).tcp(40_000, 80).payload([0; 10]).build();
    let mut room = frame.clone();
    Prepared::new(move |_| {
        assert!(room.refill(frame.bytes()));
        let inner = InnerPacket::read(room.bytes()).expect("plain");
        assert!(nat::plain_to_target(room.bytes_mut(), &inner, Endpoint::V4(0xc633_6415, 8080)));
    })
}

fn key(n: u64) -> Key4 {
    Key4 {
        client: 0x1400_0000 + n as u32,
        client_port: 40_000,
        vipa_port: 80,
        vipa: VipaId(0),
        protocol: Protocol::Tcp,
    }
}

fn key6(n: u64) -> Key6 {
    let Key4 { client, client_port, vipa_port, vipa, protocol } = key(n);
    Key6 { client: 0x2001_0db8 << 96 | u128::from(client), client_port, vipa_port, vipa, protocol }
}

/// As full as a table may be, so that bucket after bucket is.
fn full<K: vipa_flow::Key>(key: fn(u64) -> K) -> FlowTable<K> {
    let table = FlowTable::new(Capacity::connections(20_000), HashSeed::new([1, 2, 3, 4])).expect("a small table");
    for n in 0..20_000 {
        table.confirm(&key(n), TargetId(3), FlowState::Confirmed, Tick(7));
    }
    table
}

fn seek_and_find() -> Prepared {
    let table = full(key);
    Prepared::new(move |n| {
        let key = PackedKey::new(&key(n));
        let hashed = table.prefetch_primary(&key);
        if let Some(hit) = table.find_primary(&key, hashed).or_else(|| table.find_secondary(&key, hashed)) {
            assert!(!black_box(hit.is_stale(Tick(7))));
        }
    })
}

fn seek_and_find6() -> Prepared {
    let table = full(key6);
    Prepared::new(move |n| {
        let key = PackedKey::new(&key6(n));
        let hashed = table.prefetch_primary(&key);
        if let Some(hit) = table.find_primary(&key, hashed).or_else(|| table.find_secondary(&key, hashed)) {
            assert!(!black_box(hit.is_stale(Tick(7))));
        }
    })
}

fn admit() -> Prepared {
    let table = full(key);
    Prepared::new(move |n| {
        black_box(table.admit(&key(1_000_000 + n), TargetId(3), FlowState::HalfOpen, Tick(8)));
    })
}

/// Both buckets, all there are, hold what their targets have confirmed.
fn admit_no_place() -> Prepared {
    let table = FlowTable::new(Capacity::connections(1), HashSeed::new([1, 2, 3, 4])).expect("a small table");
    for n in 0..table.slots() as u64 {
        assert_eq!(table.confirm(&key(n), TargetId(3), FlowState::Confirmed, Tick(7)), Confirmed::New);
    }
    Prepared::new(move |n| {
        assert_eq!(table.admit(&key(1_000_000 + n), TargetId(3), FlowState::HalfOpen, Tick(8)), Admitted::Full);
    })
}

fn confirm() -> Prepared {
    let table = full(key);
    Prepared::new(move |n| {
        black_box(table.confirm(&key(1_000_000 + n), TargetId(3), FlowState::Confirmed, Tick(8)));
    })
}

fn remove() -> Prepared {
    let table = full(key);
    Prepared::new(move |n| {
        black_box(table.remove(&key(n), None));
    })
}

fn candidates() -> Vec<Candidate> {
    let candidate = |n: u16| Candidate {
        address: Ipv4Addr::new(198, 51, 100, 100 + n as u8).into(),
        weight: 1,
        target: TargetId(n),
    };
    (0..16).map(candidate).collect()
}

fn hash_and_pick() -> Prepared {
    let cluster = ClusterKey::new([7; 16]);
    let picker = Picker::build(&cluster, Balance::Maglev, &candidates());
    Prepared::new(move |n| {
        let Key4 { client, client_port, vipa_port, protocol, .. } = key(n);
        let hash = hash_connection(&cluster, client, client_port, 0xc000_020a, vipa_port, protocol);
        assert!(black_box(picker.pick(hash, || n)).is_some());
    })
}

/// Seldom, and long: once in a hundred.
fn build_maglev() -> Prepared {
    let cluster = ClusterKey::new([7; 16]);
    let candidates = candidates();
    Prepared::new(move |n| {
        if n.is_multiple_of(100) {
            black_box(Picker::build(&cluster, Balance::Maglev, &candidates));
        }
    })
}

/// Thirty-two segments of known connections, and what it takes to bring them back from where they were sent.
fn burst(
    mut bench: Bench,
    frame: fn(u64) -> Builder,
    restore: impl Fn(&mut HeapPacket, &HeapPacket) + 'static,
) -> Prepared {
    for n in 0..32 {
        bench.confirm(&client(&bench, n), 40_000, 80, 0);
    }
    bench.advance(Duration::from_millis(1));
    let frames: Vec<HeapPacket> = (0..32).map(|n| frame(n).build()).collect();
    let mut stash = frames.clone();
    Prepared::new(move |_| {
        for (packet, frame) in stash.iter_mut().zip(&frames) {
            restore(packet, frame);
        }
        bench.rx().arriving.extend(stash.drain(..));
        assert_eq!(bench.worker.turn(|| bench.now), 32);
        std::mem::swap(&mut stash, &mut bench.tx().sent);
    })
}

fn client(bench: &Bench, n: u64) -> String {
    match bench.world.vipa {
        IpAddr::V4(_) => Ipv4Addr::from_bits(key(n).client).to_string(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(key6(n).client).to_string(),
    }
}

fn from_client(n: u64) -> Builder {
    packet().macs(CLIENT_MAC, ROUTER_MAC).ipv4(key(n).client, VIPA).tcp(40_000, 80).payload([0; 10])
}

/// Of what was only readdressed.
fn restore_macs(packet: &mut HeapPacket, _: &HeapPacket) {
    set_macs(packet.bytes_mut(), &ROUTER_MAC, &CLIENT_MAC);
}

fn restore_all(packet: &mut HeapPacket, frame: &HeapPacket) {
    assert!(packet.refill(frame.bytes()));
}

fn direct() -> Prepared {
    burst(Bench::with_service("192.0.2.10:80/tcp", [TARGET]), from_client, restore_macs)
}

fn direct6() -> Prepared {
    let frame = |n| packet().macs(CLIENT_MAC, ROUTER_MAC).ipv6(key6(n).client, VIPA6).tcp(40_000, 80);
    burst(Bench::with_service("[2001:db8:1::10]:80/tcp", ["2001:db8:0:51::21"]), frame, restore_macs)
}

/// With one target, to which packets go that way.
fn by_way(via: ForwardingAction) -> Bench {
    let mut bench = Bench::with_service("192.0.2.10:80/tcp", [TARGET]);
    bench.change(|world| world.targets[0].via = via);
    bench
}

fn tunnelled(how: Encapsulation) -> Prepared {
    let outer = TunnelEndpoints::V4 { source: 0xc633_6401, destination: 0xc633_6415 };
    burst(by_way(ForwardingAction::Tunnel { outer, how }), from_client, restore_all)
}

fn translating() -> Bench {
    let mut bench = by_way(ForwardingAction::Nat { port: Some(8080) });
    bench.change(|world| {
        let (protocol, ports, vipa_port) = (Protocol::Tcp, PortRange::one(8080), Some(80));
        let route = ReturnRoute { protocol, ports, vipa: VipaId(0), vipa_port, target: TargetId(0) };
        world.returns.insert(world.targets[0].address, vec![route]);
        let gateway = world.port.gateway.expect("the bench has one");
        world.neighbours.insert(gateway.into(), (PortId(0), Mac(CLIENT_MAC)));
    });
    bench
}

fn translated() -> Prepared {
    burst(translating(), from_client, restore_all)
}

fn translated_back() -> Prepared {
    let frame =
        |n| packet().macs(target_mac(0), ROUTER_MAC).ipv4(TARGET, key(n).client).tcp(8080, 40_000).payload([0; 10]);
    burst(translating(), frame, restore_all)
}
