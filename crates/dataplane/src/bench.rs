//! A worker between two queues on the heap: for tests, the simulator, the fuzzer and micro-benchmarks.
//!
//! ```
//! use vipa_dataplane::bench::{Bench, CLIENT_MAC, ROUTER_MAC, target_mac};
//! use vipa_packet::build::packet;
//!
//! let mut bench = Bench::with_service("192.0.2.10:80/tcp", ["198.51.100.21"]);
//! let syn = packet().macs(CLIENT_MAC, ROUTER_MAC).ipv4("203.0.113.4", "192.0.2.10").tcp(40_000, 80).syn();
//! let sent = bench.turn([&syn]);
//! assert_eq!(sent, [syn.macs(ROUTER_MAC, target_mac(0))]);
//! bench.assert_changed(["received +1", "flow.opened +1", "forwarded +1", "sent +1"]);
//! ```

mod fuzz;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arrayvec::ArrayVec;
use vipa_balance::{Candidate, ClusterKey, Picker};
use vipa_flow::{Capacity, FlowState, FlowTable, HashSeed, Tick};
use vipa_handoff::{
    AnyKey, Capture, ControlChannel, Flows, Note, PortRoute, ReturnRoute, RouteLists, Routes, ServiceRoute,
    TargetRoute, Totals, VipaRoute, open,
};
use vipa_model::{
    Balance, Connection, Mac, Moment, Orphans, PortId, PortRange, Protocol, Stance, TargetId, Unserved, VipaId,
};
use vipa_packet::{HeaderSums, HeapPacket, build::Builder};
use vipa_sync::Deadline;

use crate::{BURST, Limits, Rx, RxPort, Tx, Worker};
pub use fuzz::{fuzz, seeds};

/// MAC of the bench's one port, which has the address [`ROUTER`].
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0x51, 0, 0, 0, 1);
/// The kernel interface behind the port, when the world has one.
pub const KERNEL: PortId = PortId(1);
/// MAC of the client, or of the router before it.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// MAC of target number `n`.
#[must_use]
pub const fn target_mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, n]
}

/// A receive queue that delivers what was put in.
#[derive(Debug, Default)]
pub struct HeapRx {
    pub arriving: VecDeque<HeapPacket>,
    /// What the port states about all their header checksums.
    pub sums: HeaderSums,
}

/// A transmit queue that keeps what it takes.
#[derive(Debug)]
pub struct HeapTx {
    pub sent: Vec<HeapPacket>,
    /// Packets that it still takes.
    pub room: usize,
}

impl Default for HeapTx {
    fn default() -> Self {
        Self { sent: Vec::new(), room: usize::MAX }
    }
}

impl Rx for HeapRx {
    type Buf = HeapPacket;

    fn burst(&mut self, packets: &mut ArrayVec<HeapPacket, BURST>) {
        let count = packets.remaining_capacity().min(self.arriving.len());
        packets.extend(self.arriving.drain(..count));
    }

    fn header_sums(&self, _packets: &[HeapPacket]) -> HeaderSums {
        self.sums
    }
}

impl Tx for HeapTx {
    type Buf = HeapPacket;

    fn burst(&mut self, packets: &mut ArrayVec<HeapPacket, BURST>) {
        let count = packets.len().min(self.room);
        self.room -= count;
        self.sent.extend(packets.drain(..count));
    }

    fn make(&mut self, frame: &[u8]) -> Option<HeapPacket> {
        Some(HeapPacket::from(frame))
    }

    fn compose(&mut self, frame: &[u8]) -> bool {
        let fits = self.room > 0;
        if fits {
            self.room -= 1;
            self.sent.push(HeapPacket::from(frame));
        }
        fits
    }
}

/// One worker with one port, its control, and a clock that stands still until it is advanced.
pub struct Bench {
    pub worker: Worker<HeapRx, HeapTx>,
    pub control: ControlChannel,
    pub flows: Arc<Flows>,
    pub now: Moment,
    /// What `publish` makes the next routes from.
    pub world: World,
    counted: Totals,
}

/// One VIPA, its services and its targets.
pub struct World {
    pub vipa: IpAddr,
    pub port: PortRoute,
    pub stance: Stance,
    pub lease: Arc<Deadline>,
    pub quiet_until: Moment,
    pub services: Vec<ServiceRoute>,
    pub targets: Vec<TargetRoute>,
    pub neighbours: HashMap<IpAddr, (PortId, Mac)>,
    pub returns: BTreeMap<IpAddr, Vec<ReturnRoute>>,
    pub new_per_second: Option<u32>,
    pub unserved: Unserved,
    pub capture: Option<Arc<Capture>>,
    /// Protocol of the bench's service.
    protocol: Protocol,
    generation: u64,
}

const KEY: ClusterKey = ClusterKey::new(*b"the bench's key.");

impl World {
    /// The routes as they are now.
    pub fn routes(&mut self) -> Routes {
        self.generation += 1;
        let vipa = VipaRoute {
            address: self.vipa,
            stance: self.stance,
            lease: Arc::clone(&self.lease),
            services: self.services.clone().into(),
            quiet_until: self.quiet_until,
            by_hash_until: self.quiet_until,
            new_per_second: self.new_per_second,
            unserved: self.unserved,
        };
        let lists = RouteLists {
            ports: vec![self.port],
            vipas: vec![vipa],
            targets: self.targets.clone(),
            neighbours: self.neighbours.clone(),
            returns: self.returns.clone(),
            capture: self.capture.clone(),
        };
        Routes::build(self.generation, KEY, lists)
    }

    /// A picker of these targets.
    #[must_use]
    pub fn picker(&self, balance: Balance, targets: &[u16]) -> Picker {
        let candidate =
            |&id: &u16| Candidate { address: self.targets[usize::from(id)].address, weight: 1, target: TargetId(id) };
        Picker::build(&KEY, balance, &targets.iter().map(candidate).collect::<Vec<_>>())
    }
}

impl Bench {
    /// An active VIPA with one service, as "address:port/protocol" or "[address]:port/protocol", and targets that all
    /// serve it.
    ///
    /// # Panics
    /// When the service cannot be parsed, or there is no memory for a small connection table.
    #[must_use]
    pub fn with_service<const N: usize>(service: &str, targets: [&str; N]) -> Self {
        Self::with_limits(service, targets, 10_000, Limits::default())
    }

    /// [`with_service`](Self::with_service) with a connection table and limits of its own.
    ///
    /// # Panics
    /// As [`with_service`](Self::with_service).
    #[must_use]
    pub fn with_limits<const N: usize>(
        service: &str,
        targets: [&str; N],
        connections: usize,
        mut limits: Limits,
    ) -> Self {
        let (vipa, port, protocol) = read_service(service).expect("a service is address:port/tcp or address:port/udp");
        let target = |(n, address): (usize, &str)| {
            let address: IpAddr = address.parse().expect("a target is an IP address");
            TargetRoute::direct(address, (PortId(0), &port_route()), Mac(target_mac(n as u8)))
        };
        let mut world = World {
            vipa,
            port: port_route(),
            stance: Stance::Active,
            lease: Arc::new(Deadline::new(Moment(u64::MAX))),
            quiet_until: Moment::ZERO,
            services: Vec::new(),
            protocol,
            targets: targets.into_iter().enumerate().map(target).collect(),
            neighbours: HashMap::new(),
            returns: BTreeMap::new(),
            new_per_second: None,
            unserved: Unserved::Drop,
            capture: None,
            generation: 0,
        };
        let all: Vec<u16> = (0..N as u16).collect();
        let picker = world.picker(Balance::Maglev, &all);
        world.services = vec![ServiceRoute {
            protocol,
            ports: PortRange::one(port),
            picker,
            draining: Arc::default(),
            turns: Arc::default(),
            orphans: Orphans::Reset,
            sources: None,
        }];

        let seed = HashSeed::new([1, 2, 3, 4]);
        let capacity = Capacity::connections(connections);
        let flows = Arc::new(Flows {
            ipv4: FlowTable::new(capacity, seed).expect("a small table fits anywhere"),
            ipv6: FlowTable::new(capacity, seed).expect("a small table fits anywhere"),
        });
        limits.kernel_per_second = vec![None, Some(1000)];
        let (control, mut channels) = open(Arc::new(world.routes()), 1);
        let rx_port = |port| RxPort { port, rx: HeapRx::default() };
        let rx_ports = vec![rx_port(PortId(0)), rx_port(KERNEL)];
        let channel = channels.pop().expect("one worker has one channel");
        let worker =
            Worker::new(channel, Arc::clone(&flows), rx_ports, vec![HeapTx::default(), HeapTx::default()], limits);
        // Not zero: the oldest moment stands for "never".
        let now = Moment::ZERO + Duration::from_secs(1000);
        Self { worker, control, flows, now, world, counted: Totals::default() }
    }

    /// Changes the world and publishes it.
    pub fn change(&mut self, change: impl FnOnce(&mut World)) {
        change(&mut self.world);
        self.control.publish(Arc::new(self.world.routes()));
    }

    /// Sets the VIPA's stance.
    pub fn stance(&mut self, stance: Stance) {
        self.change(|world| world.stance = stance);
    }

    /// Gives the service these targets only, by number.
    pub fn serve(&mut self, balance: Balance, targets: &[u16]) {
        self.change(|world| world.services[0].picker = world.picker(balance, targets));
    }

    /// Takes new connections of the service away from these targets; their UDP flows and half-open connections stay.
    pub fn drain(&mut self, targets: &[u16]) {
        self.change(|world| world.services[0].draining = targets.iter().copied().map(TargetId).collect());
    }

    pub fn advance(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Delivers these packets and turns until none is left. Returns what was sent, in order.
    pub fn turn<'a>(&mut self, packets: impl IntoIterator<Item = &'a Builder>) -> Vec<HeapPacket> {
        self.turn_frames(packets.into_iter().map(Builder::build))
    }

    /// [`turn`](Self::turn) with any bytes.
    ///
    /// # Panics
    /// When the worker reports another number of received packets than it was given.
    pub fn turn_frames(&mut self, frames: impl IntoIterator<Item = HeapPacket>) -> Vec<HeapPacket> {
        let arriving = &mut self.rx().arriving;
        arriving.extend(frames);
        let mut expected = arriving.len();
        loop {
            let now = self.now;
            let received = self.worker.turn(|| now);
            expected -= received;
            if expected == 0 {
                break std::mem::take(&mut self.tx().sent);
            }
            assert!(received > 0, "{expected} packets were not received");
        }
    }

    pub fn rx(&mut self) -> &mut HeapRx {
        self.worker.rx(0).expect("a bench has one rx_port")
    }

    pub fn tx(&mut self) -> &mut HeapTx {
        self.worker.tx(PortId(0)).expect("a bench has one port")
    }

    /// Enters a connection of `client` at this target, in this state.
    ///
    /// # Panics
    /// When `client` is not an address of the VIPA's family.
    pub fn admit(&self, client: &str, client_port: u16, vipa_port: u16, target: u16, state: FlowState) {
        let key = self.key(client, client_port, vipa_port);
        self.flows.admit(&key, TargetId(target), state, Tick::from(self.now));
    }

    /// Enters a target's report of a connection of `client` to the VIPA.
    ///
    /// # Panics
    /// When `client` is not an address of the VIPA's family.
    pub fn confirm(&self, client: &str, client_port: u16, vipa_port: u16, target: u16) {
        let key = self.key(client, client_port, vipa_port);
        self.flows.confirm(&key, TargetId(target), FlowState::Confirmed, Tick::from(self.now));
    }

    /// Enters the target's report that it no longer holds this connection.
    ///
    /// # Panics
    /// When `client` is not an address of the VIPA's family.
    pub fn end(&self, client: &str, client_port: u16, vipa_port: u16, target: u16) {
        let key = self.key(client, client_port, vipa_port);
        self.flows.report_end(&key, |way| way == TargetId(target), Tick::from(self.now));
    }

    /// Target and state of a connection of `client` in the table.
    ///
    /// # Panics
    /// When `client` is not an address of the VIPA's family.
    #[must_use]
    pub fn connection(&self, client: &str, client_port: u16, vipa_port: u16) -> Option<(u16, FlowState)> {
        let hit = self.flows.lookup(&self.key(client, client_port, vipa_port))?;
        Some((hit.target.0, hit.state))
    }

    fn key(&self, client: &str, client_port: u16, vipa_port: u16) -> AnyKey {
        let client = SocketAddr::new(client.parse().expect("a client is an IP address"), client_port);
        let connection = Connection { protocol: self.world.protocol, client, port: vipa_port };
        AnyKey::of(VipaId(0), self.world.vipa, &connection).expect("client and VIPA are of one family")
    }

    /// Packets that were sent to the kernel.
    pub fn kernel(&mut self) -> Vec<HeapPacket> {
        std::mem::take(&mut self.worker.tx(KERNEL).expect("a bench has a kernel interface").sent)
    }

    /// Delivers packets of the kernel.
    pub fn from_kernel(&mut self, frames: impl IntoIterator<Item = HeapPacket>) -> Vec<HeapPacket> {
        self.worker.rx(1).expect("a bench has a kernel interface").arriving.extend(frames);
        let now = self.now;
        self.worker.turn(|| now);
        std::mem::take(&mut self.tx().sent)
    }

    /// Notes from the worker to control since the last call.
    pub fn notes(&self) -> Vec<Note> {
        self.control.notes().collect()
    }

    /// Asserts every counter that changed since the last call, as "name +n" or "name -n", in any order.
    ///
    /// # Panics
    /// When another counter changed, or one by another number, or when they do not add up.
    #[track_caller]
    pub fn assert_changed<const N: usize>(&mut self, expected: [&str; N]) {
        let totals = self.control.totals();
        assert!(totals.add_up(), "received is not the sum of all fates and what is held: {totals:?}");
        let difference = |((name, now), (_, before)): ((&str, u64), (_, u64))| match now.wrapping_sub(before) as i64 {
            0 => None,
            change => Some(format!("{name} {change:+}")),
        };
        let mut changed: Vec<_> = totals.iter().zip(self.counted.iter()).filter_map(difference).collect();
        let mut expected = expected.map(str::to_owned);
        changed.sort();
        expected.sort();
        assert_eq!(changed, expected);
        self.counted = totals;
    }

    /// Forgets what was counted so far.
    ///
    /// # Panics
    /// When the counters do not add up.
    pub fn check_counters(&mut self) {
        self.counted = self.control.totals();
        assert!(self.counted.add_up(), "received is not the sum of all fates and what is held");
    }
}

fn port_route() -> PortRoute {
    PortRoute {
        gateway: Some(Ipv4Addr::new(198, 51, 100, 254)),
        address6: Some((ROUTER6, 64)),
        ..PortRoute::new(Mac(ROUTER_MAC), ROUTER, 24)
    }
}

fn read_service(text: &str) -> Option<(IpAddr, u16, Protocol)> {
    let (end, protocol) = text.split_once('/')?;
    let end: SocketAddr = end.parse().ok()?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    Some((end.ip(), end.port(), protocol))
}
