//! What is measured, in a process of its own: workers as `vipad` runs them, on DPDK ports, and the tasks that need the
//! inside of one. DPDK starts once in a process, and a process can be stopped while another is measured on its core.

mod admitting;
mod flood;
mod forwarding;
mod idling;
mod probing;
mod rebuilding;

use std::sync::Arc;

use anyhow::Context;
use core_affinity::CoreId;
use serde::{Deserialize, Serialize};
use vipa_dataplane::{Limits, RxPort, Worker};
use vipa_dpdk::{Device, Eal, EalMemory, EalOptions, EthPort, Pool, PoolOptions, PortOptions, RegisteredThread};
use vipa_handoff::{ControlChannel, Flows, WorkerChannel};
use vipa_model::PortId;

use crate::{
    ports::{Draw, Receive, Transmit},
    world::World,
};

/// Buffers of a measured pool, of ours and of the reference.
pub(crate) const BUFFERS: u32 = 16_383;
pub(crate) const DESCRIPTORS: u16 = 1024;
/// Megabytes of DPDK's memory for them.
pub(crate) const MEMORY_MB: u32 = 128;

/// All that a subject needs to know.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Job {
    pub(crate) world: World,
    /// One worker on each.
    pub(crate) cores: Vec<usize>,
    /// Packets leave by the last.
    pub(crate) devices: Vec<String>,
    /// Connections that the table is made for, and those that are in it.
    pub(crate) capacity: usize,
    pub(crate) clients: u64,
    pub(crate) draw: Draw,
    pub(crate) hugepages: bool,
    pub(crate) task: Task,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Task {
    /// A worker; says what it has sent whenever it is asked.
    Forward,
    /// The same without a worker: received packets are sent as they are.
    Bare,
    /// A worker meets new connections only, around a half full table.
    Admit,
    /// A worker meets a SYN flood beside established connections.
    Flood,
    /// A worker meets nothing.
    Idle,
    /// Packets are sent one at a time, and waited for.
    Probe,
    /// A worker forwards while reports are taken in on another core.
    Rebuild { control: usize },
}

impl Job {
    fn start_dpdk(&self, devices: &[Device]) -> anyhow::Result<Eal> {
        let megabytes = MEMORY_MB;
        let memory = if self.hugepages { EalMemory::Hugepages { megabytes } } else { EalMemory::NoHuge { megabytes } };
        Ok(Eal::init(&EalOptions::new(&format!("vipa-perf-{}", std::process::id()), memory, devices))?)
    }
}

/// Does what the parent process wants.
pub(crate) fn run(job: &Job) -> anyhow::Result<()> {
    match &job.task {
        Task::Forward => forwarding::forward(job),
        Task::Bare => forwarding::bare(job),
        Task::Admit => admitting::measure(job),
        Task::Flood => flood::measure(job),
        Task::Idle => idling::measure(job),
        Task::Probe => probing::serve(job),
        Task::Rebuild { control } => rebuilding::measure(job, *control),
    }
}

/// DPDK and its ports, open; one of each queue for each worker.
struct Ports {
    eal: Eal,
    _ports: Vec<EthPort>,
    workers: Vec<(Vec<RxPort<Receive>>, Vec<Transmit>)>,
}

impl Ports {
    fn open(job: &Job) -> anyhow::Result<Self> {
        let devices =
            job.devices.iter().map(|device| Ok(device.parse::<Device>()?)).collect::<anyhow::Result<Vec<_>>>()?;
        let eal = job.start_dpdk(&devices)?;
        let pool = Pool::new(&eal, &PoolOptions::new("perf", BUFFERS))?;
        let queues = u16::try_from(job.cores.len())?;
        let mut ports = Vec::new();
        let mut workers: Vec<_> = job.cores.iter().map(|_| (Vec::new(), Vec::new())).collect();
        for (id, device) in (0..).map(PortId).zip(&devices) {
            let options = PortOptions {
                rx_descriptors: DESCRIPTORS,
                tx_descriptors: DESCRIPTORS,
                ..PortOptions::new(device, queues, queues)
            };
            let opened = EthPort::open(&options, &pool)?;
            ports.push(opened.port);
            for ((rx_ports, outlets), (rx, tx)) in workers.iter_mut().zip(opened.rx.into_iter().zip(opened.tx)) {
                rx_ports.push(RxPort { port: id, rx: Receive::new(rx, job.draw) });
                outlets.push(Transmit(tx));
            }
        }
        Ok(Self { eal, _ports: ports, workers })
    }
}

/// One worker and all it stands on.
struct Single {
    worker: Worker<Receive, Transmit>,
    control: ControlChannel,
    flows: Arc<Flows>,
    _joined: RegisteredThread,
    _ports: Vec<EthPort>,
}

impl Single {
    /// On this thread, which stays on the job's first core.
    fn prepare(job: &Job) -> anyhow::Result<Self> {
        let flows = job.world.flows(job.capacity, job.clients)?;
        let Ports { eal, _ports, mut workers } = Ports::open(job)?;
        let (rx_ports, outlets) = workers.pop().context("a worker needs a core")?;
        let (control, mut channels) = open_door(job, 1)?;
        let channel = channels.pop().context("a worker needs a channel")?;
        let joined = join(&eal, job.cores[0])?;
        let worker = Worker::new(channel, Arc::clone(&flows), rx_ports, outlets, Limits::default());
        Ok(Self { worker, control, flows, _joined: joined, _ports })
    }
}

fn open_door(job: &Job, workers: usize) -> anyhow::Result<(ControlChannel, Vec<WorkerChannel>)> {
    let ports = u16::try_from(job.devices.len())?;
    Ok(vipa_handoff::open(Arc::new(job.world.routes(ports)), workers))
}

fn join(eal: &Eal, core: usize) -> anyhow::Result<RegisteredThread> {
    anyhow::ensure!(core_affinity::set_for_current(CoreId { id: core }), "core {core} cannot be kept");
    Ok(eal.register_thread()?)
}
