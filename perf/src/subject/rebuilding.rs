//! P7's subject: a cold backup's takeover, from the bytes of the targets' messages to the table that a worker forwards from.
//!
//! ```text
//!   16 × target::Target ── snapshots, as bytes ──► decode ──► cluster::Router ──► control::Reports ──► flow ◄── worker
//!      (beforehand)                                 └─────── one core, timed ────────┘                  its own core
//! ```

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use core_affinity::CoreId;
use vipa_cluster::{Event, Outbox, Output, Router, Settings, State, Stored, Takeback, Timing, VipaSettings, target};
use vipa_control::{Lists, Paths, Reporter, Reports};
use vipa_dataplane::{IdlePolicy, Limits, Worker};
use vipa_flow::Tick;
use vipa_handoff::{ControlChannel, Count, Flows};
use vipa_model::{
    Balance, Choice, Connection, ConnectionState, Delivery, Incarnation, Moment, NodeName, Orphans, PortRange,
    Protocol, Rank, Service, Sources, VipaId, Voters,
};
use vipa_protocol::{Message, wire};

use super::{Job, Ports, join, open_door};
use crate::world::{self, PORT, TARGETS, VIPA, World};

const CONNECTIONS: u64 = 1 << 22;
const ROUNDS: usize = 7;
/// The worker's rate without a rebuilding is taken for so long before and after each.
const MOMENT: Duration = Duration::from_millis(300);
/// When the takeover begins, as far as the brain knows.
const BEGIN: Moment = Moment(1_000_000_000);

/// Prints, for each round, connections a second, packets a second meanwhile, and packets a second without.
pub(super) fn measure(job: &Job, control_core: usize) -> anyhow::Result<()> {
    let flows = job.world.flows(job.capacity, job.clients)?;
    let Ports { eal, _ports, mut workers } = Ports::open(job)?;
    let (rx_ports, outlets) = workers.pop().context("a worker needs a core")?;
    let (control, mut channels) = open_door(job, 1)?;
    let channel = channels.pop().context("a worker needs a channel")?;
    let reports = reports(job.world)?;
    let start = Instant::now();
    thread::scope(|scope| {
        let (eal, theirs, core) = (&eal, Arc::clone(&flows), job.cores[0]);
        scope.spawn(move || {
            let _joined = join(eal, core).expect("a worker's thread becomes one of DPDK's");
            Worker::new(channel, theirs, rx_ports, outlets, Limits::default())
                .run(IdlePolicy::Spin, || Moment(start.elapsed().as_nanos() as u64));
        });
        ensure!(core_affinity::set_for_current(CoreId { id: control_core }), "core {control_core} cannot be kept");
        let measured = (0..ROUNDS).try_for_each(|_| round(job, &control, &flows, &reports));
        control.stop();
        measured
    })
}

fn round(
    job: &Job,
    control: &ControlChannel,
    flows: &Arc<Flows>,
    messages: &[(NodeName, Vec<u8>)],
) -> anyhow::Result<()> {
    let before = rate(control, || thread::sleep(MOMENT));
    let (mut rebuilt, mut seconds) = (Ok(()), 0.0);
    let meanwhile = rate(control, || {
        let begun = Instant::now();
        rebuilt = rebuild(job.world, flows, messages);
        seconds = begun.elapsed().as_secs_f64();
    });
    rebuilt?;
    let after = rate(control, || thread::sleep(MOMENT));
    println!("{}\n{meanwhile}\n{}", CONNECTIONS as f64 / seconds, f64::midpoint(before, after));
    for n in job.clients..CONNECTIONS {
        ensure!(flows.ipv4.remove(&world::key(n), None), "connection {n} was not rebuilt");
    }
    Ok(())
}

/// Packets a second that the worker sends while something else is done.
fn rate(control: &ControlChannel, meanwhile: impl FnOnce()) -> f64 {
    let sent = || control.totals().count(Count::Sent);
    let (before, begun) = (sent(), Instant::now());
    meanwhile();
    (sent() - before) as f64 / begun.elapsed().as_secs_f64()
}

/// What control does with each message, until the brain says that the takeover is complete.
fn rebuild(world: World, flows: &Arc<Flows>, messages: &[(NodeName, Vec<u8>)]) -> anyhow::Result<()> {
    let services = vec![service(world)];
    let (mut router, _) = rebuilding_router(world, &targets(world))?;
    let (mut reports, mut ways, mut out) = (Reports::new(Arc::clone(flows)), Paths::default(), Outbox::new());
    for (peer, bytes) in messages {
        let message = wire::decode(bytes)?;
        router.handle(BEGIN, Event::Received { peer: peer.clone(), message }, &mut out);
        for output in out.drain(..) {
            if let Output::Install { vipa, target, run } = output {
                let ways = &mut ways;
                let now = Tick::from(BEGIN);
                let lists = Lists { services: &services, learned: &[] };
                let reporter = Reporter {
                    vipa: VipaId(0),
                    vipa_address: vipa,
                    lists,
                    target,
                    ways,
                    now,
                    reserve_percent: 25,
                    is_listed: &|_, _| true,
                };
                let taken = reports.install(reporter, &run);
                ensure!(taken.refused + taken.over_share == 0, "refused: {taken:?}");
            }
        }
    }
    let state = router.vipa(vipa()).context("the router has the VIPA")?.state;
    ensure!(state == State::Active, "the takeover is not complete, but {state}");
    Ok(())
}

/// Everything the targets send to a router that has just taken over and knows nothing, each link's messages in their order.
fn reports(world: World) -> anyhow::Result<Vec<(NodeName, Vec<u8>)>> {
    let mut targets = targets(world);
    let (router, asked) = rebuilding_router(world, &targets)?;
    let me = name("r1");
    let mut links: Vec<VecDeque<(NodeName, Vec<u8>)>> = Vec::new();
    for (number, target) in (0..).zip(&mut targets) {
        let node = target_name(number);
        let held = (u64::from(number)..CONNECTIONS).step_by(usize::from(TARGETS));
        let held: Vec<_> = held.map(|n| (connection(n), ConnectionState::Established)).collect();
        let mut link = VecDeque::new();
        let mut events = VecDeque::from([target::Event::Connected { peer: me.clone(), hello: router.hello() }]);
        let asked = asked.iter().filter(|(to, _)| *to == node);
        events.extend(asked.map(|(_, message)| target::Event::Received { peer: me.clone(), message: message.clone() }));
        while let Some(event) = events.pop_front() {
            let mut out = target::Outbox::new();
            target.handle(BEGIN, event, &mut out);
            for output in out {
                match output {
                    target::Output::Look { token } => {
                        let listening = vec![(Protocol::Tcp, PORT)];
                        events.push_back(target::Event::Holds { vipa: vipa(), connections: held.clone() });
                        events.push_back(target::Event::Listening { vipa: vipa(), listening });
                        events.push_back(target::Event::Looked { token });
                    }
                    target::Output::Send { message, .. } => link.push_back((node.clone(), wire::encode(&message)?)),
                    _ => {}
                }
            }
        }
        links.push(link);
    }
    // The links share the wire.
    let mut all = Vec::new();
    while links.iter().any(|link| !link.is_empty()) {
        all.extend(links.iter_mut().filter_map(VecDeque::pop_front));
    }
    Ok(all)
}

/// A router that has nobody but itself to elect, at the moment when it has asked the targets, and what it asks them.
fn rebuilding_router(world: World, targets: &[target::Target]) -> anyhow::Result<(Router, Vec<(NodeName, Message)>)> {
    let vipa = VipaSettings {
        address: vipa(),
        ranks: vec![(name("r1"), Rank(200))],
        services: Some(vec![service(world)]),
        activate: true,
        takeback: Takeback::Immediate,
        takeback_delay: Duration::ZERO,
        group: None,
    };
    let settings = Settings {
        cluster: "perf".into(),
        key: vipa_protocol::KeyDigest::default(),
        me: name("r1"),
        addresses: vec![],
        incarnation: Incarnation(1),
        voters: Voters::new(1, vec![]),
        timing: Timing::of_lease(Duration::from_millis(100)),
        vipas: vec![vipa],
    };
    let mut router = Router::new(settings, Stored::default(), Moment::ZERO);
    let mut events: VecDeque<Event> = targets
        .iter()
        .zip(0..)
        .map(|(target, number)| Event::Connected { peer: target_name(number), hello: target.hello() })
        .collect();
    let mut asked = Vec::new();
    loop {
        let event = events.pop_front().unwrap_or(Event::Timeout);
        let mut out = Outbox::new();
        router.handle(BEGIN, event, &mut out);
        for output in out {
            match output {
                Output::StoreVote { token, .. } => events.push_back(Event::VotesStored { token }),
                Output::Send { to, message } => asked.push((to, message)),
                _ => {}
            }
        }
        let state = router.vipa(self::vipa()).context("the router has the VIPA")?.state;
        if state == State::Rebuilding {
            return Ok((router, asked));
        }
    }
}

fn targets(world: World) -> Vec<target::Target> {
    let target = |number| {
        let settings = target::Settings {
            cluster: "perf".into(),
            key: vipa_protocol::KeyDigest::default(),
            me: target_name(number),
            address: world.target(number),
            incarnation: Incarnation(1),
            voters: Voters::new(1, vec![]),
            lease: Duration::from_millis(100),
            kept_records: target::Settings::kept_records_by_default(),
        };
        target::Target::new(settings, Vec::new(), Moment::ZERO)
    };
    (0..TARGETS).map(target).collect()
}

fn service(world: World) -> Service {
    Service {
        protocol: Protocol::Tcp,
        ports: PortRange::one(PORT),
        delivery: Delivery::default(),
        balance: Balance::Maglev,
        choice: Choice::default(),
        orphans: Orphans::Reset,
        sources: Sources::default(),
        candidates: (0..TARGETS).map(|number| world.target(number)).collect(),
    }
}

fn connection(n: u64) -> Connection {
    let (address, port) = world::client(n);
    let client = SocketAddr::new(std::net::Ipv4Addr::from_bits(address).into(), port);
    Connection { protocol: Protocol::Tcp, client, port: PORT }
}

fn vipa() -> IpAddr {
    VIPA.into()
}

fn target_name(number: u16) -> NodeName {
    name(&format!("t{number}"))
}

fn name(text: &str) -> NodeName {
    text.parse().expect("a node name")
}
