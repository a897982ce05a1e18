//! Faults, and when they happen.

use crate::{
    network::NodeId,
    random::Random,
    world::{CALM, Scenario, Time},
};

const MS: Time = 1_000_000;
/// No faults before this time.
const FIRST: Time = 1500 * MS;

/// Which faults are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Routers die, stop and stall, datagrams get lost: no connection may break.
    Rough,
    /// Links are cut, agents and targets die too: the invariants hold, but connections may break.
    Storm,
}

#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The router dies without a message, and is back after a while.
    Crash { router: usize, back: Time },
    /// The router is asked to stop, and starts again some time after it has.
    Stop { router: usize },
    /// A process stops and continues.
    Pause { node: NodeId, span: Time },
    /// A target stops listening for a while.
    Deaf { target: usize, span: Time },
    /// More datagrams get lost from now on.
    Loss { permille: u64 },
    /// A link carries nothing for a while.
    Cut { one: NodeId, other: NodeId, span: Time },
    /// All links of a node carry nothing for a while.
    Isolate { node: NodeId, span: Time },
    /// A link is cut, and meanwhile a node that may have made a promise restarts at once.
    Amnesia { one: NodeId, other: NodeId, node: NodeId },
    /// The agent dies; its kernel does not notice.
    AgentCrash { target: usize, back: Time },
    /// A target loses everything that it holds.
    PowerLoss { target: usize, back: Time },
    /// A voter's disk takes this long from now on.
    SlowDisk { node: NodeId, each: Time },
    /// Nothing gets from the one node to the other for a while; the other direction is open.
    OneWay { from: NodeId, to: NodeId, span: Time },
    /// An agent does not finish a look at its kernel for this long.
    Mute { target: usize, span: Time },
    /// A router cannot route for a while, and its self-check reports it.
    Unfit { router: usize, span: Time },
    /// An operator adds each of these nodes to the voters, or removes it, in every node's file: each one `pace` after
    /// the previous one.
    Voters { nodes: Vec<NodeId>, pace: Time },
    /// Nothing gets from the nodes of this set to the others, nor back.
    Split { some: Vec<NodeId>, span: Time },
    /// An operator gives a router an order.
    Order { router: usize, wish: Wish },
    /// A router reads a configuration with another list.
    Reload { router: usize, list: Option<Vec<usize>> },
}

/// An order, with nodes by their numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    Move { to: usize },
    Takeback,
    Deactivate,
    Reactivate,
    QuiesceTarget { target: usize },
    ResumeTarget { target: usize },
    QuiesceService { target: Option<usize> },
    ResumeService { target: Option<usize> },
    Leave { node: NodeId },
    Join { node: NodeId },
}

/// The seed's faults, in order of time.
pub(crate) fn plan(scene: &Scenario, random: &mut Random) -> Vec<(Time, Fault)> {
    let count = random.within(1..9);
    let mut faults: Vec<(Time, Fault)> = (0..count)
        .map(|_| {
            let at = random.within(FIRST..CALM - 500 * MS);
            (at, fault(scene, random))
        })
        .collect();
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn fault(scene: &Scenario, random: &mut Random) -> Fault {
    let router = random.index(scene.routers);
    let target = random.index(scene.targets);
    let node = random.index(scene.routers + scene.targets);
    let span = random.within(20 * MS..2000 * MS);
    let nodes = scene.routers + scene.targets;
    match random.within(0..12) {
        0 => return Fault::Unfit { router, span },
        1 | 2 => {
            let nodes = (0..random.within(1..5)).map(|_| random.index(nodes)).collect();
            return Fault::Voters { nodes, pace: random.within(20 * MS..600 * MS) };
        }
        3 if scene.weather == Weather::Storm => {
            return Fault::Split { some: (0..nodes).filter(|_| random.chance(500)).collect(), span };
        }
        _ => {}
    }
    let kinds = match scene.weather {
        Weather::Rough => 17,
        Weather::Storm => 28,
    };
    match random.within(0..kinds) {
        0..=2 => Fault::Crash { router, back: span },
        3 => Fault::Crash { router, back: span / 40 },
        4 | 5 => Fault::Stop { router },
        6 if node >= scene.routers => Fault::Pause { node, span: span / 8 },
        6 => Fault::Pause { node, span: span / 2 },
        7 => Fault::Deaf { target, span },
        8 => Fault::Loss { permille: random.within(0..250) },
        9 => Fault::SlowDisk { node, each: random.within(MS..60 * MS) },
        10..=14 => Fault::Order { router, wish: wish(scene, random) },
        15 => Fault::Mute { target, span: span / 6 },
        16 => Fault::Reload { router, list: random.chance(700).then(|| some_targets(scene.targets, random)) },
        17 | 18 => Fault::Cut {
            one: router,
            other: (router + 1 + random.index(scene.routers + scene.targets - 1)) % (scene.routers + scene.targets),
            span,
        },
        19 | 20 => Fault::Isolate { node, span },
        21 | 22 => {
            let others = scene.routers + scene.targets - 1;
            let other = (router + 1 + random.index(others)) % (others + 1);
            let (from, to) = if random.chance(500) { (router, other) } else { (other, router) };
            Fault::OneWay { from, to, span }
        }
        23 => Fault::Mute { target, span: if random.chance(300) { CALM } else { span } },
        24 | 25 => {
            let other = (router + 1) % scene.routers;
            Fault::Amnesia { one: router.min(other), other: router.max(other), node }
        }
        26 => Fault::AgentCrash { target, back: span },
        _ => Fault::PowerLoss { target, back: span },
    }
}

fn wish(scene: &Scenario, random: &mut Random) -> Wish {
    let (target, node) = (random.index(scene.targets), random.index(scene.routers + scene.targets));
    let of_service = random.chance(700).then_some(target);
    match random.within(0..16) {
        0..=3 => Wish::Move { to: random.index(scene.routers) },
        4 | 5 => Wish::Takeback,
        6 | 7 => Wish::Deactivate,
        8 => Wish::Reactivate,
        9 => Wish::QuiesceTarget { target },
        10 => Wish::ResumeTarget { target },
        11 => Wish::QuiesceService { target: of_service },
        12 => Wish::ResumeService { target: of_service },
        13 | 14 => Wish::Leave { node },
        _ => Wish::Join { node },
    }
}

/// At least one of the targets.
pub(crate) fn some_targets(targets: usize, random: &mut Random) -> Vec<usize> {
    let some: Vec<usize> = (0..targets).filter(|_| random.chance(600)).collect();
    if some.is_empty() { vec![random.index(targets)] } else { some }
}
