//! How many packets a worker turns on one core, without any driver: 64-byte TCP segments of established connections,
//! direct return, buffers on the heap used again and again.
//!
//!     cargo run --release -p vipa-dataplane --example turn_rate [FLOWS ...]
//!
//! The harness draws each packet's client, and so has a cost of its own: it is measured alone and taken off. Compare
//! rates of one run only. Times are those on a core, so a busy machine disturbs by its caches alone.

use std::{
    cell::RefCell,
    net::Ipv4Addr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use arrayvec::ArrayVec;
use vipa_balance::{Candidate, ClusterKey, Picker};
use vipa_dataplane::{BURST, IdlePolicy, Inlet, Limits, Rx, Tx, Worker};
use vipa_flow::{Capacity, Confirmed, FlowState, FlowTable, HashSeed, Key4, Tick};
use vipa_handoff::{Fate, Flows, PortRoute, RouteLists, Routes, ServiceRoute, TargetRoute, VipaRoute, open};
use vipa_model::{Balance, Mac, Moment, Orphans, PortId, PortRange, Protocol, Stance, TargetId, VipaId};
use vipa_packet::{HeapPacket, PacketBuf, build::packet};
use vipa_sync::Deadline;

const VIPA: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Buffers going round; more than a burst, so that they are not all in the first cache.
const BUFFERS: usize = 1024;
const PACKETS: usize = 20_000_000;
const ROUNDS: usize = 5;
const LONGEST_SLEEP: Duration = Duration::from_millis(1);
const IDLE: Duration = Duration::from_secs(3);

type Buffers = Rc<RefCell<Vec<HeapPacket>>>;

/// Draws a connection for each packet.
struct Source {
    buffers: Buffers,
    flows: u64,
    random: u64,
}

struct Sink {
    buffers: Buffers,
}

/// The `n`-th connection's client. Addresses are drawn so that the header's checksum never changes: what one half of
/// the address gains, the other loses.
fn client(n: u64) -> (u32, u16) {
    let (high, port) = ((n >> 14) as u32, 1024 + (n & 0x3fff) as u16);
    let step = high & 0x3fff;
    ((0x1400 + step) << 16 | (0x6000 - step), port)
}

impl Rx for Source {
    type Buf = HeapPacket;

    fn burst(&mut self, packets: &mut ArrayVec<HeapPacket, BURST>) {
        let mut buffers = self.buffers.borrow_mut();
        let from = buffers.len() - BURST.min(buffers.len());
        for mut packet in buffers.drain(from..) {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (address, port) = client((self.random >> 33) % self.flows);
            let bytes = packet.bytes_mut();
            bytes[..6].copy_from_slice(&ROUTER_MAC);
            bytes[26..30].copy_from_slice(&address.to_be_bytes());
            bytes[34..36].copy_from_slice(&port.to_be_bytes());
            packets.push(packet);
        }
    }
}

impl Tx for Sink {
    type Buf = HeapPacket;

    fn burst(&mut self, packets: &mut ArrayVec<HeapPacket, BURST>) {
        self.buffers.borrow_mut().extend(packets.drain(..));
    }

    fn compose(&mut self, _: &[u8]) -> bool {
        false
    }
}

/// Nanoseconds this thread has been on a core, whatever else the machine does.
fn on_core() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts each thread's time");
    text.split_whitespace().next().and_then(|time| time.parse().ok()).expect("a number comes first")
}

fn buffers() -> Buffers {
    let (address, port) = client(0);
    let segment = packet().macs([2, 0, 0, 0, 0, 1], ROUTER_MAC).ipv4(address, VIPA).tcp(port, 80).payload([0; 10]);
    Rc::new(RefCell::new(vec![segment.build(); BUFFERS]))
}

fn routes() -> Routes {
    let key = ClusterKey::new([7; 16]);
    let address = |n| Ipv4Addr::new(198, 51, 100, n);
    let port = PortRoute::new(Mac(ROUTER_MAC), address(100), 24);
    let target = |n| TargetRoute::direct(address(n), (PortId(0), &port), Mac([2, 0, 0, 0, 1, n]));
    let candidate = |n: u8| Candidate { address: address(n).into(), weight: 1, target: TargetId(u16::from(n)) };
    let candidates: Vec<_> = (0..16).map(candidate).collect();
    let service = ServiceRoute {
        protocol: Protocol::Tcp,
        ports: PortRange::one(80),
        picker: Picker::build(&key, Balance::Maglev, &candidates),
        orphans: Orphans::Reset,
        sources: None,
    };
    let vipa = VipaRoute {
        address: VIPA.into(),
        stance: Stance::Active,
        lease: Arc::new(Deadline::new(Moment(u64::MAX))),
        services: vec![service],
        quiet_until: Moment::ZERO,
        new_per_second: None,
    };
    let targets = (0..16).map(target).collect();
    Routes::build(1, key, RouteLists { ports: vec![port], vipas: vec![vipa], targets, ..RouteLists::default() })
}

/// Nanoseconds a packet of the harness alone.
fn harness(flows: u64) -> f64 {
    let buffers = buffers();
    let mut source = Source { buffers: Rc::clone(&buffers), flows, random: 1 };
    let mut sink = Sink { buffers };
    let mut burst = ArrayVec::new();
    let start = on_core();
    for _ in 0..PACKETS / BURST {
        source.burst(&mut burst);
        sink.burst(std::hint::black_box(&mut burst));
    }
    (on_core() - start) / PACKETS as f64
}

/// Nanoseconds a packet of a worker with `flows` established connections, the harness included.
fn worker(flows: u64, table: &Arc<Flows>) -> f64 {
    let (control, mut doors) = open(Arc::new(routes()), 1);
    let buffers = buffers();
    let inlets = vec![Inlet { port: PortId(0), rx: Source { buffers: Rc::clone(&buffers), flows, random: 1 } }];
    let door = doors.pop().expect("one worker has one door");
    let mut worker = Worker::new(door, Arc::clone(table), inlets, vec![Sink { buffers }], Limits::default());
    let (clock, start) = (Instant::now(), on_core());
    let mut turned = 0;
    while turned < PACKETS {
        let received = worker.turn(Moment(clock.elapsed().as_nanos() as u64));
        assert!(received > 0, "buffers were lost: {:?}", control.totals());
        turned += received;
    }
    let nanoseconds = (on_core() - start) / turned as f64;
    let totals = control.totals();
    assert_eq!(totals.fate(Fate::Forward), turned as u64, "every packet is forwarded: {totals:?}");
    nanoseconds
}

/// Percent of a core that a worker takes without any traffic, as the owner of a VIPA, when it sleeps.
fn idle(table: &Arc<Flows>) -> f64 {
    let (control, mut doors) = open(Arc::new(routes()), 1);
    let buffers = Rc::new(RefCell::new(Vec::new()));
    let inlets = vec![Inlet { port: PortId(0), rx: Source { buffers: Rc::clone(&buffers), flows: 1, random: 1 } }];
    let door = doors.pop().expect("one worker has one door");
    let mut worker = Worker::new(door, Arc::clone(table), inlets, vec![Sink { buffers }], Limits::default());
    let (clock, start) = (Instant::now(), on_core());
    worker.run(IdlePolicy::Sleep { max: LONGEST_SLEEP }, || {
        if clock.elapsed() > IDLE {
            control.stop();
        }
        Moment(clock.elapsed().as_nanos() as u64)
    });
    (on_core() - start) / clock.elapsed().as_nanos() as f64 * 100.0
}

fn table_of(flows: u64) -> Arc<Flows> {
    // Half full: at its very capacity a small table may refuse one connection in thousands.
    let capacity = Capacity::connections(flows as usize * 3 / 2);
    let table = FlowTable::new(capacity, HashSeed::random()).expect("memory for the table");
    for n in 0..flows {
        let (client, client_port) = client(n);
        let key = Key4 { client, client_port, vipa_port: 80, vipa: VipaId(0), protocol: Protocol::Tcp };
        let confirmed = table.confirm(&key, TargetId((n % 16) as u16), FlowState::Confirmed, Tick(0));
        assert_eq!(confirmed, Confirmed::New, "connection {n}");
    }
    let unused = FlowTable::new(Capacity::connections(1024), HashSeed::random()).expect("memory for a small table");
    Arc::new(Flows { ipv4: table, ipv6: unused })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    println!("{:>10}  {:>12}  {:>12}  {:>12}  {:>8}", "flows", "all ns", "harness ns", "worker ns", "Mpps");
    let chosen: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let flows = if chosen.is_empty() { vec![4096, 1 << 20, 10 << 20] } else { chosen };
    for flows in flows {
        let table = table_of(flows);
        let (mut all, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            alone.push(harness(flows));
            all.push(worker(flows, &table));
        }
        let (all, alone) = (median(all), median(alone));
        let net = all - alone;
        println!("{flows:>10}  {all:>12.1}  {alone:>12.1}  {net:>12.1}  {:>8.1}", 1e3 / net);
    }
    println!("asleep without traffic: {:.1} % of a core", idle(&table_of(1 << 20)));
}
