//! What goes wrong, and when.

use crate::{
    network::NodeId,
    random::Random,
    world::{CALM, Scene, Time},
};

const MS: Time = 1_000_000;
/// The cluster is left alone until then.
const FIRST: Time = 1500 * MS;

/// How much is allowed to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Routers die, stop and stall, datagrams get lost: no connection may break.
    Rough,
    /// Links are cut, agents and targets die too: what must hold holds still, but connections may break.
    Storm,
}

#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The router is gone without a word, and back after a while.
    Crash { router: usize, back: Time },
    /// It is asked to stop, and starts again a while after it has.
    Stop { router: usize },
    /// A process stops and goes on.
    Pause { node: NodeId, span: Time },
    /// A target stops listening for a while.
    Deaf { target: usize, span: Time },
    /// More datagrams get lost from now on.
    Loss { permille: u64 },
    /// A link carries nothing for a while.
    Cut { one: NodeId, other: NodeId, span: Time },
    /// No link of a node does.
    Isolate { node: NodeId, span: Time },
    /// A link is cut, and meanwhile a node that may have promised something restarts in no time.
    Amnesia { one: NodeId, other: NodeId, node: NodeId },
    /// The agent dies; its kernel does not notice.
    AgentCrash { target: usize, back: Time },
    /// A target loses all it holds.
    PowerLoss { target: usize, back: Time },
    /// A voter's disk takes this long from now on.
    SlowDisk { node: NodeId, each: Time },
}

/// The seed's faults, in order of time.
pub(crate) fn plan(scene: &Scene, random: &mut Random) -> Vec<(Time, Fault)> {
    let count = random.within(1..8);
    let mut faults: Vec<(Time, Fault)> = (0..count)
        .map(|_| {
            let at = random.within(FIRST..CALM - 500 * MS);
            (at, fault(scene, random))
        })
        .collect();
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn fault(scene: &Scene, random: &mut Random) -> Fault {
    let router = random.index(scene.routers);
    let target = random.index(scene.targets);
    let node = random.index(scene.routers + scene.targets);
    let span = random.within(20 * MS..2000 * MS);
    let kinds = match scene.weather {
        Weather::Rough => 10,
        Weather::Storm => 18,
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
        10 | 11 => Fault::Cut {
            one: router,
            other: (router + 1 + random.index(scene.routers + scene.targets - 1)) % (scene.routers + scene.targets),
            span,
        },
        12 | 13 => Fault::Isolate { node, span },
        14 | 15 => {
            let other = (router + 1) % scene.routers;
            Fault::Amnesia { one: router.min(other), other: router.max(other), node }
        }
        16 => Fault::AgentCrash { target, back: span },
        _ => Fault::PowerLoss { target, back: span },
    }
}
