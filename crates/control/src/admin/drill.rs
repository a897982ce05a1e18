//! A takeover rehearsed: what this router would have, how long it would take, and what would be lost. Nothing is taken.

use std::{net::IpAddr, sync::Arc, time::Duration};

use vipa_handoff::Flows;
use vipa_model::{NodeName, Protocol, Service};
use vipa_protocol::{
    Position,
    admin::{AuditResult, Difference, Drill, DrillTarget, Loss},
};

use crate::{
    admin::queries::QuerySender,
    table::audit::{Audited, Subject, audit},
};

/// What control knows when the rehearsal begins.
pub(crate) struct DrillContext {
    pub(crate) vipa: IpAddr,
    pub(crate) owner: Option<NodeName>,
    pub(crate) owned_here: bool,
    /// Live routers that would come first; at the owner, those that may come after it.
    pub(crate) before: Vec<NodeName>,
    pub(crate) voters: usize,
    /// Those of them that could grant: linked, or this router.
    pub(crate) voters_linked: usize,
    /// From the owner's last beat to the first ballot.
    pub(crate) detect: Duration,
    pub(crate) services: Vec<Service>,
    pub(crate) targets: Vec<Cast>,
}

/// A target as control knows it.
pub(crate) struct Cast {
    pub(crate) node: Option<NodeName>,
    pub(crate) address: IpAddr,
    pub(crate) candidate: bool,
    pub(crate) linked: bool,
    pub(crate) position: Option<Position>,
    pub(crate) listening: Vec<(Protocol, u16)>,
    /// Whether packets get there: its MAC, or the gateway's, is known.
    pub(crate) reached: bool,
    /// Its connections in the table.
    pub(crate) known: u64,
    /// Those of them that the target has reported.
    pub(crate) confirmed: u64,
    /// Those of them whose packets do not get there: by the path of their service no neighbour is known.
    pub(crate) unreached: u64,
    /// Those of them of which neither a list nor the target says by which path they are reached.
    pub(crate) guessed: u64,
    pub(crate) subject: Option<Subject>,
}

pub(crate) async fn rehearse(asker: &QuerySender, flows: &Arc<Flows>, scene: DrillContext) -> Drill {
    let DrillContext { vipa, owner, owned_here, before, voters, voters_linked, detect, services, targets } = scene;
    let mut looks = Vec::new();
    for cast in &targets {
        let (asker, flows) = (asker.clone(), Arc::clone(flows));
        looks.push(cast.subject.clone().map(|subject| {
            // All at once, as in a takeover: what counts is the slowest.
            tokio::spawn(async move { audit(&asker, &flows, &subject).await })
        }));
    }
    let mut shown = Vec::new();
    let mut losses = Vec::new();
    for (cast, look) in targets.into_iter().zip(looks) {
        let audited = match look {
            Some(look) => look.await.ok(),
            None => None,
        };
        losses.extend(losses_of(&cast, audited.as_ref()));
        shown.push(target(cast, audited.as_ref()));
    }
    let unserved = |service: &&Service| {
        let serves = |target: &&DrillTarget| {
            let listens =
                |(protocol, port): &(Protocol, u16)| *protocol == service.protocol && service.ports.contains(*port);
            service.candidates.contains(&target.address)
                && target.linked
                && target.reached
                && target.listening.iter().any(listens)
        };
        !shown.iter().any(|target| serves(&target))
    };
    let unserved = services.iter().filter(unserved).cloned().collect();
    let slowest = shown.iter().filter_map(|target| target.answer_us).max().unwrap_or(0);
    Drill {
        vipa,
        owner,
        owned_here,
        before,
        voters: voters as u32,
        voters_linked: voters_linked as u32,
        detect_us: micros(detect),
        // The ballots are two questions to the voters, which answer as fast as targets do, and a write to the disk.
        collect_us: slowest * 2,
        rebuild_us: slowest,
        connections: shown.iter().map(|target| target.known + target.others).sum(),
        targets: shown,
        losses,
        unserved,
    }
}

fn target(cast: Cast, audited: Option<&Audited>) -> DrillTarget {
    let Cast { node, address, candidate, linked, position, listening, reached, known, confirmed, .. } = cast;
    let answered = audited.filter(|audited| audited.upto.is_some());
    let held = answered.and_then(|audited| match audited.result.result {
        AuditResult::Agrees { connections } | AuditResult::Differs { connections, .. } => Some(connections),
        AuditResult::NoAnswer => None,
    });
    let behind = answered.and_then(|audited| {
        let (seen, upto) = (position?, audited.upto?);
        (seen.incarnation == upto.incarnation).then(|| upto.sequence.saturating_sub(seen.sequence))
    });
    let answer_us = answered.map(|audited| micros(audited.answered_in));
    let others = known - confirmed;
    DrillTarget {
        node,
        address,
        candidate,
        linked,
        reached,
        listening,
        known: confirmed,
        held,
        others,
        behind,
        answer_us,
    }
}

/// The connections of this target that a takeover at this moment would lose. What only its agent knows is no loss as long
/// as it answers: the takeover would ask it too.
fn losses_of(cast: &Cast, audited: Option<&Audited>) -> Vec<Loss> {
    let lost = |connections, why: &str| {
        (connections > 0).then(|| Loss { target: cast.address, connections: Some(connections), why: why.into() })
    };
    let unreached =
        lost(cast.unreached, "packets do not reach it: no neighbour answers for its address on this router's ports");
    let guessed = lost(
        cast.guessed,
        "by which path they reach it is a guess: neither this router's list, nor another router, nor the target says so",
    );
    // What does not get there is lost, whatever its agent knows.
    let unknown = if cast.unreached > 0 || !cast.reached { None } else { unknown(cast, audited) };
    unreached.into_iter().chain(guessed).chain(unknown).collect()
}

/// What the target or this router may not know of them.
fn unknown(cast: &Cast, audited: Option<&Audited>) -> Option<Loss> {
    let lost = |connections, why: &str| {
        (connections > 0).then(|| Loss { target: cast.address, connections: Some(connections), why: why.into() })
    };
    if !cast.linked && cast.candidate {
        let why = "its agent is not linked: what it holds beyond the connections known here would be unknown";
        return Some(Loss { target: cast.address, connections: None, why: why.into() });
    }
    match audited.map(|audited| &audited.result.result) {
        Some(AuditResult::NoAnswer) => {
            let why = "its agent is linked and does not answer: what it holds beyond the known would be unknown";
            Some(Loss { target: cast.address, connections: None, why: why.into() })
        }
        Some(AuditResult::Differs { differences, .. }) => {
            let of = |wanted: Difference| {
                differences.iter().filter(|(kind, _)| *kind == wanted).map(|(_, count)| count).sum::<u64>()
            };
            let wrong = of(Difference::Missing) + of(Difference::Elsewhere);
            lost(
                wrong,
                "the table lacks them or has them elsewhere although the target has reported them; `vipactl audit --repair` puts that right",
            )
        }
        Some(AuditResult::Agrees { .. }) | None => None,
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
