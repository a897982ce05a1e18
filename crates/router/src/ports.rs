//! DPDK's ports as the workers use them.

use std::rc::Rc;

use anyhow::Context;
use arrayvec::ArrayVec;
use vipa_control::{PortCondition, PortDevice, PortStatistics, Probe};
use vipa_dataplane::{BURST, Limits, Rx, RxPort, Tx};
use vipa_dpdk::{
    Device, DevicePresence, Eal, EalMemory, EalOptions, EthPort, Level, Mbuf, Pool, PoolOptions, PortOptions, RxQueue,
    TxQueue,
};
use vipa_handoff::PortRoute;
use vipa_model::{Mac, PortId, config};
use vipa_packet::HeaderSums;

/// Descriptors of each queue.
const DESCRIPTORS: u16 = 1024;
/// Packets a DPDK thread may keep aside.
const CACHE: u32 = 256;

/// A receive queue of a DPDK port.
pub(crate) struct Receive(RxQueue);

/// A transmit queue of a DPDK port.
pub(crate) struct Transmit(TxQueue);

impl Rx for Receive {
    type Buf = Mbuf;

    #[inline]
    fn burst(&mut self, packets: &mut ArrayVec<Mbuf, BURST>) {
        self.0.burst(packets);
    }

    #[inline]
    fn header_sums(&self, packets: &[Mbuf]) -> HeaderSums {
        self.0.header_sums(packets)
    }
}

impl Tx for Transmit {
    type Buf = Mbuf;

    #[inline]
    fn burst(&mut self, packets: &mut ArrayVec<Mbuf, BURST>) {
        self.0.burst(packets);
    }

    fn make(&mut self, frame: &[u8]) -> Option<Mbuf> {
        self.0.port().pool().compose(frame)
    }

    fn compose(&mut self, frame: &[u8]) -> bool {
        self.0.compose(frame)
    }
}

/// All ports, open, and their queues dealt out.
pub(crate) struct Opened {
    /// By `PortId`; kept until everything has stopped.
    pub(crate) ports: Vec<Named>,
    pub(crate) routes: Vec<PortRoute>,
    /// By worker.
    pub(crate) queues: Vec<Queues>,
}

/// A port and what the configuration calls it.
pub(crate) struct Named {
    name: String,
    port: EthPort,
    /// A kernel interface may be down without harm to the VIPAs.
    of_kernel: bool,
}

/// One worker's queues.
#[derive(Default)]
pub(crate) struct Queues {
    pub(crate) rx_ports: Vec<RxPort<Receive>>,
    /// By `PortId`.
    pub(crate) outlets: Vec<Transmit>,
}

/// DPDK's own words, in our log.
fn log(level: Level, line: &str) {
    match level {
        Level::Error => tracing::error!(target: "dpdk", "{line}"),
        Level::Warning => tracing::warn!(target: "dpdk", "{line}"),
    }
}

/// Starts DPDK for the configured ports.
pub(crate) fn start_dpdk(config: &config::Config) -> anyhow::Result<(Eal, Vec<Device>)> {
    let parse = |port: &config::Port| port.device.parse::<Device>().with_context(|| format!("port {}", port.name));
    let devices = config.ports.iter().map(parse).collect::<anyhow::Result<Vec<Device>>>()?;
    let megabytes = config.dpdk.memory_mb;
    let memory = match config.dpdk.memory {
        config::Memory::Auto => EalMemory::Auto { megabytes },
        config::Memory::Hugepages => EalMemory::Hugepages { megabytes },
        config::Memory::NoHuge => EalMemory::NoHuge { megabytes },
    };
    let mut options = EalOptions::new(&config.dpdk.file_prefix, memory, &devices);
    options.extra.clone_from(&config.dpdk.options);
    vipa_dpdk::set_sink(log);
    let eal = Eal::init(&options).context("DPDK does not start")?;
    Ok((eal, devices))
}

/// Opens every port and deals its receive queues to the workers in turn; each worker has a transmit queue on each.
pub(crate) fn open(config: &config::Config, eal: &Eal, devices: &[Device], limits: &Limits) -> anyhow::Result<Opened> {
    let workers = config.workers.cores.len();
    let mut opened = Opened { ports: Vec::new(), routes: Vec::new(), queues: Vec::new() };
    opened.queues.resize_with(workers, Queues::default);
    for (index, (port, device)) in config.ports.iter().zip(devices).enumerate() {
        let id = PortId(u16::try_from(index).context("too many ports")?);
        let tx_queues = u16::try_from(workers).context("too many workers")?;
        let pool = Pool::new(eal, &pool_options(port, id, tx_queues, limits)).with_context(|| port.name.clone())?;
        let mut options = PortOptions::new(device, port.queues, tx_queues);
        options.rx_descriptors = DESCRIPTORS;
        options.tx_descriptors = DESCRIPTORS;
        options.promiscuous = port.promiscuous;
        options.all_groups = hears_groups(config, port);
        options.mtu = Some(port.mtu);
        let vipa_dpdk::OpenPort { port: handle, rx, tx } =
            EthPort::open(&options, &pool).with_context(|| format!("port {}", port.name))?;
        let mac = Mac(handle.mac());
        let header_sums = if handle.verifies_header_sums() { "port" } else { "worker" };
        tracing::info!(port = %port.name, device = %port.device, %mac, address = %port.address, header_sums, "the port is open");
        opened.routes.push(route(port, mac));
        for (queue, rx) in rx.into_iter().enumerate() {
            opened.queues[queue % workers].rx_ports.push(RxPort { port: id, rx: Receive(rx) });
        }
        for (queues, tx) in opened.queues.iter_mut().zip(tx) {
            queues.outlets.push(Transmit(tx));
        }
        opened.ports.push(Named { name: port.name.clone(), port: handle, of_kernel: false });
    }
    for (index, port) in config.ports.iter().enumerate() {
        if let Some(interface) = &port.kernel_interface {
            let id = open_kernel_interface(port, interface, opened.routes[index].mac, eal, limits, &mut opened)?;
            opened.routes[index].kernel = Some(id);
        }
    }
    Ok(opened)
}

/// How the ports are at the moment it is called. It has them from then on.
pub(crate) fn probe(ports: Vec<Named>) -> Probe {
    let ports = Rc::new(ports);
    let (all, counted) = (Rc::clone(&ports), Rc::clone(&ports));
    let arrived = move || {
        let outside = all.iter().filter(|port| !port.of_kernel);
        outside.filter_map(|Named { name, port, .. }| Some((name.clone(), port.arrived()?))).collect()
    };
    let conditions = move || {
        let condition = |Named { name, port, of_kernel }: &Named| PortCondition {
            name: name.clone(),
            device: match port.presence() {
                _ if *of_kernel => PortDevice::Present,
                DevicePresence::Present => PortDevice::Present,
                DevicePresence::Gone => PortDevice::Gone,
                DevicePresence::Replaced => PortDevice::Replaced,
            },
            up: port.link().map(|link| link.up).filter(|_| !of_kernel),
            buffers_free: port.pool().available(),
            buffers: port.pool().count(),
        };
        ports.iter().map(condition).collect()
    };
    let statistics = move || {
        let statistics = |Named { port, .. }: &Named| port.stats().map(port_statistics);
        counted.iter().map(statistics).collect()
    };
    Probe { conditions: Box::new(conditions), arrived: Box::new(arrived), statistics: Box::new(statistics) }
}

fn port_statistics(stats: vipa_dpdk::Stats) -> PortStatistics {
    let vipa_dpdk::Stats { received, sent, received_bytes, sent_bytes, missed, receive_errors, send_errors, no_buffer } =
        stats;
    PortStatistics { received, received_bytes, sent, sent_bytes, missed, receive_errors, send_errors, no_buffer }
}

/// What the workers know of a port. Its kernel interface is opened after all ports.
pub(crate) fn route(port: &config::Port, mac: Mac) -> PortRoute {
    PortRoute {
        mac,
        address: port.address,
        prefix_length: port.prefix_length,
        gateway: port.gateway,
        address6: port.address6,
        gateway6: port.gateway6,
        vlan: port.vlan,
        mtu: port.mtu,
        kernel: None,
    }
}

/// Neighbours of IPv6 ask groups of stations who has an address, and the kernel's routing daemons speak to groups as well.
fn hears_groups(config: &config::Config, port: &config::Port) -> bool {
    let ipv6 = port.address6.is_some() || config.vipas.iter().any(|vipa| vipa.address.is_ipv6());
    ipv6 || port.kernel_interface.is_some()
}

/// An interface of the kernel's with the port's MAC: what the kernel sends there is ready for the wire, and what came for that MAC is
/// the kernel's. Each worker has a pair of queues, since the driver wants as many of one kind as of the other.
fn open_kernel_interface(
    port: &config::Port,
    interface: &str,
    mac: Mac,
    eal: &Eal,
    limits: &Limits,
    opened: &mut Opened,
) -> anyhow::Result<PortId> {
    let id = PortId(u16::try_from(opened.ports.len()).context("too many ports")?);
    let queues = u16::try_from(opened.queues.len()).context("too many workers")?;
    let what = || format!("kernel_interface {interface} of port {}", port.name);
    let device =
        kernel_device(port.kernel_driver, id, queues, (interface, mac)).parse::<Device>().with_context(what)?;
    let as_port = config::Port { queues, ..port.clone() };
    let pool = Pool::new(eal, &pool_options(&as_port, id, queues, limits)).with_context(what)?;
    let mut options = PortOptions::new(&device, queues, queues);
    options.mtu = Some(port.mtu);
    let vipa_dpdk::OpenPort { port: handle, rx, tx } = EthPort::open(&options, &pool).with_context(what)?;
    tracing::info!(port = %port.name, %interface, "the kernel has an interface behind the port");
    for ((queues, rx), tx) in opened.queues.iter_mut().zip(rx).zip(tx) {
        queues.rx_ports.push(RxPort { port: id, rx: Receive(rx) });
        queues.outlets.push(Transmit(tx));
    }
    opened.ports.push(Named { name: interface.to_owned(), port: handle, of_kernel: true });
    Ok(id)
}

fn kernel_device(driver: config::KernelDriver, id: PortId, queues: u16, (interface, mac): (&str, Mac)) -> String {
    match driver {
        config::KernelDriver::Tap => format!("net_tap_vipa{},iface={interface},mac={mac}", id.0),
        config::KernelDriver::VirtioUser => format!(
            "net_virtio_user{},path=/dev/vhost-net,queues={queues},queue_size={DESCRIPTORS},iface={interface},mac={mac}",
            id.0
        ),
    }
}

/// Enough for full rings, every packet that waits at a worker, bursts under way and caches.
fn pool_options(port: &config::Port, id: PortId, workers: u16, limits: &Limits) -> PoolOptions {
    let rings = (u32::from(port.queues) + u32::from(workers)) * u32::from(DESCRIPTORS);
    let held = u32::try_from(limits.waiting_packets()).unwrap_or(u32::MAX / 4);
    let each_worker = held + 4 * BURST as u32 + 2 * CACHE;
    let count = (rings + u32::from(workers) * each_worker + 1).next_power_of_two() - 1;
    let mut options = PoolOptions::new(&format!("port{}", id.0), count).for_mtu(port.mtu);
    options.cache = CACHE;
    options
}
