//! From a valid configuration to running workers and control, and back down in the reverse order.

use std::{
    path::PathBuf,
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use anyhow::{Context, bail};
use tokio::{
    signal::unix::{self, SignalKind},
    sync::mpsc,
};
use vipa_control::{AdminClient, Clock, Control, Packets, Prepared, Signal};
use vipa_dataplane::{IdlePolicy, Limits, Worker};
use vipa_doctor::Root;
use vipa_dpdk::Eal;
use vipa_flow::{AgeLimits, Capacity, FlowTable, HashSeed};
use vipa_handoff::{Flows, WorkerChannel};
use vipa_model::{
    config::{Config, Idle},
    with_causes,
};
use vipa_web::{AdminHandler, ApiLimits, ApiListener, ApiServer};

use crate::{
    fit,
    ports::{self, Queues},
    tun::Tun,
};

/// Runs the router until SIGTERM or SIGINT.
pub(crate) fn run(config: Config, file: PathBuf, record: bool) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let clock = Clock::start();
    let cores = cores(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let inside = runtime.enter();
    // From here on a signal is waited for instead of ending the process at a bad moment.
    let signals = Signals::listen()?;
    // What the kernel does with VIPAs is told by control, which goes on looking.
    for vipa_doctor::Diagnosis { subject, text, .. } in vipa_doctor::at_start(&config, &Root::default()) {
        tracing::warn!("{subject}: {text}");
    }
    // What can be refused is refused before a port is touched.
    let prepared = Prepared::new(&config, file, |next| fit::check(next).map_err(|error| with_causes(error.as_ref())))?;
    let api = config.api.as_ref().map(ApiListener::open).transpose()?;
    let flows = Arc::new(tables(&config)?);
    // Kept until control has ended, and with it the last announcement.
    let tun = config.announce.interface.as_deref().map(Tun::open).transpose()?;
    let limits = limits(&config);
    let (eal, devices) = ports::start_dpdk(&config)?;
    let opened = ports::open(&config, &eal, &devices, &limits)?;
    let (control_door, worker_doors) = vipa_handoff::open(Arc::new(prepared.first_routes()), cores.len());
    let stop_workers = StopWorkers(Arc::clone(&worker_doors[0].stop));
    let (alarm, alarmed) = mpsc::channel(1);
    let mut workers = Vec::new();
    for ((channel, queues), core) in worker_doors.into_iter().zip(opened.queues).zip(cores) {
        let flows = Arc::clone(&flows);
        workers.push(start_worker(
            Job { channel, queues, core, flows, eal: eal.clone(), alarm: Alarm(alarm.clone()) },
            &config,
            limits.clone(),
            clock,
        )?);
    }

    let probe = ports::probe(opened.ports);
    let (mut control, ends) =
        prepared.start(Packets { ports: opened.routes, flows, channel: control_door, clock, probe })?;
    if record {
        control.record_from_now_on();
    }
    let api = api.map(|api| start_api(api, &control, ends.admin_client())).transpose()?;
    tracing::info!(node = %config.node.name, workers = workers.len(), "vipad runs");
    let ended = runtime.block_on(async {
        let (tell, told) = mpsc::channel(1);
        tokio::spawn(signals.pass_on(alarmed, tell));
        control.run(ends, told).await
    });
    drop(api);
    drop(inside);
    drop(tun);

    drop(stop_workers);
    let panicked: Vec<String> = workers
        .into_iter()
        .enumerate()
        .filter_map(|(worker, thread)| thread.join().is_err().then(|| worker.to_string()))
        .collect();
    if !panicked.is_empty() {
        bail!("worker {} panicked, with the message above; vipad has let go of its VIPAs", panicked.join(", "));
    }
    ended.context("vipad has let go of its VIPAs, and is to be started again")?;
    tracing::info!("vipad has stopped");
    Ok(())
}

/// Rings when its worker's thread panics. A queue that nobody polls any more loses its packets, so the router is to stop as it
/// does when it is told to: every VIPA goes to a backup first.
struct Alarm(mpsc::Sender<()>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // One is enough.
            let _ = self.0.try_send(());
        }
    }
}

/// Ends the workers, also when something fails on the way up.
struct StopWorkers(Arc<vipa_sync::Flag>);

impl Drop for StopWorkers {
    fn drop(&mut self) {
        self.0.raise();
    }
}

struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = unix::signal;
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Until control has ended.
    async fn pass_on(mut self, mut alarmed: mpsc::Receiver<()>, tell: mpsc::Sender<Signal>) {
        loop {
            let signal = tokio::select! {
                Some(()) = alarmed.recv() => {
                    tracing::error!("a worker panicked: vipad stops");
                    Signal::Stop
                }
                _ = self.terminate.recv() => Signal::Stop,
                _ = self.interrupt.recv() => Signal::Stop,
                _ = self.hangup.recv() => Signal::Reload,
            };
            if tell.send(signal).await.is_err() {
                return;
            }
        }
    }
}

/// Serves the API on a thread of its own, with what control says.
fn start_api(listener: ApiListener, control: &Control, client: AdminClient) -> anyhow::Result<ApiServer> {
    let ask: AdminHandler = Arc::new(move |request, operator, progress| {
        let client = client.clone();
        Box::pin(async move { client.ask(request, operator, progress).await })
    });
    Ok(listener.start(ask, control.configs(), ApiLimits::default())?)
}

/// What a worker's thread takes with it.
struct Job {
    channel: WorkerChannel,
    queues: Queues,
    core: core_affinity::CoreId,
    flows: Arc<Flows>,
    eal: Eal,
    alarm: Alarm,
}

fn start_worker(job: Job, config: &Config, limits: Limits, clock: Clock) -> anyhow::Result<JoinHandle<()>> {
    let Job { channel, queues, core, flows, eal, alarm } = job;
    let policy = match config.workers.idle {
        Idle::Spin => IdlePolicy::Spin,
        Idle::Pause => IdlePolicy::Pause,
        Idle::Sleep => IdlePolicy::Sleep { max: config.workers.idle_max },
    };
    let name = format!("worker-{}", channel.index);
    let thread = Builder::new().name(name).spawn(move || {
        let _alarm = alarm;
        if !core_affinity::set_for_current(core) {
            tracing::warn!(core = core.id, "the worker could not be pinned to its core");
        }
        let joined = eal.register_thread();
        if let Err(error) = &joined {
            tracing::warn!(%error, "the worker runs without caches of its own");
        }
        Worker::new(channel, flows, queues.rx_ports, queues.outlets, limits).run(policy, || clock.now());
    })?;
    Ok(thread)
}

/// The connection tables. One of a family that no VIPA has stays small.
fn tables(config: &Config) -> anyhow::Result<Flows> {
    const UNUSED: usize = 1024;
    let wanted = usize::try_from(config.table.connections).context("[table] connections")?;
    let capacity = |used: bool| Capacity::connections(if used { wanted } else { UNUSED });
    let ipv6 = config.vipas.iter().any(|vipa| vipa.address.is_ipv6());
    let ipv4 = !ipv6 || config.vipas.iter().any(|vipa| vipa.address.is_ipv4());
    Ok(Flows {
        ipv4: FlowTable::new(capacity(ipv4), HashSeed::random()).context("IPv4 connection table")?,
        ipv6: FlowTable::new(capacity(ipv6), HashSeed::random()).context("IPv6 connection table")?,
    })
}

fn limits(config: &Config) -> Limits {
    let table = &config.table;
    let ages = AgeLimits {
        half_open: table.half_open,
        open: table.established,
        closing: table.closing,
        udp: table.udp,
        ..AgeLimits::default()
    };
    let workers = u32::try_from(config.workers.cores.len()).unwrap_or(u32::MAX);
    let share = |port: &vipa_model::config::Port| Some(port.kernel_packets_per_second.div_ceil(workers));
    let kernels = config.ports.iter().filter(|port| port.kernel_interface.is_some());
    let kernel_per_second = config.ports.iter().map(|_| None).chain(kernels.map(share)).collect();
    Limits { ages, kernel_per_second, ..Limits::default() }
}

fn cores(config: &Config) -> anyhow::Result<Vec<core_affinity::CoreId>> {
    let known = core_affinity::get_core_ids().unwrap_or_default();
    let find = |&core: &u16| {
        let found = known.iter().find(|known| known.id == usize::from(core)).copied();
        found.with_context(|| {
            let last = known.last().map_or(0, |core| core.id);
            format!("[workers] cores names core {core}, but this process may use cores up to {last} only")
        })
    };
    config.workers.cores.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What control is told when a worker's thread ends so.
    fn told(work: impl FnOnce() + Send + 'static) -> Option<Signal> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ((alarm, alarmed), (tell, mut told)) = (mpsc::channel(1), mpsc::channel(1));
            let worker = Alarm(alarm.clone());
            tokio::spawn(Signals::listen().unwrap().pass_on(alarmed, tell));
            let thread = std::thread::spawn(move || {
                let _worker = worker;
                work();
            });
            let _ = thread.join();
            tokio::time::timeout(Duration::from_millis(200), told.recv()).await.ok().flatten()
        })
    }

    #[test]
    fn a_workers_panic_stops_the_router_and_its_ordinary_end_does_not() {
        assert_eq!(told(|| panic!("a worker's, for this test")), Some(Signal::Stop));
        assert_eq!(told(|| ()), None);
    }
}
