//! One walk of the connection table finds all that an owner tells its backups.
//!
//! A walk of a table of millions takes longer than a lease may last, so it runs beside the loop.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use vipa_flow::FlowState;
use vipa_handoff::{AnyKey, Flows, Routes};
use vipa_model::{Connection, EntryState, Moment, PortRange, Protocol, Service, TargetId, VipaId};

use crate::table::identifiers::TaskHold;

/// Pinned UDP flows that backups are told of, of all VIPAs together: about 10 MB at each router.
pub(crate) const MAX_PINNED_FLOWS: usize = 65_536;

/// Connections with their target and state.
pub(crate) type Entries = HashMap<Connection, (IpAddr, EntryState)>;

/// A VIPA whose backups are told.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    id: VipaId,
    /// Ports of each service with agentless candidates, and these candidates.
    agentless: Vec<(PortRange, Vec<IpAddr>)>,
}

/// What a walk has found.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) began: Moment,
    pub(crate) took: Duration,
    /// Of each subject, if only that there is nothing.
    pub(crate) entries: HashMap<VipaId, Entries>,
    /// Pinned UDP flows beyond [`MAX_PINNED_FLOWS`].
    pub(crate) left_out: u64,
    /// Keeps the identifiers that it names from being given to others.
    pub(crate) _hold: Option<TaskHold>,
}

impl Subject {
    pub(crate) fn new(id: VipaId, services: &[Service]) -> Self {
        let agentless = services
            .iter()
            .filter(|service| service.protocol == Protocol::Tcp && !service.choice.agentless.is_empty())
            .map(|service| (service.ports, service.choice.agentless.iter().map(|one| one.address).collect()))
            .collect();
        Self { id, agentless }
    }

    /// Whether its walks are to follow each other closely: no target reports its connections again.
    pub(crate) fn has_agentless(&self) -> bool {
        !self.agentless.is_empty()
    }

    /// Whether nobody but routers knows the TCP connections to this port at this target.
    fn is_agentless(&self, port: u16, target: IpAddr) -> bool {
        self.agentless.iter().any(|(ports, targets)| ports.contains(port) && targets.contains(&target))
    }
}

impl Walk {
    /// Walks the whole table once. `targets`: the address of each path, by its id.
    pub(crate) fn run(
        subjects: Vec<Subject>,
        (flows, routes, targets): (&Flows, &Routes, &[Option<IpAddr>]),
        began: Moment,
    ) -> Self {
        let started = Instant::now();
        let mut entries: HashMap<VipaId, Entries> =
            subjects.iter().map(|subject| (subject.id, Entries::new())).collect();
        let subjects: HashMap<VipaId, Subject> = subjects.into_iter().map(|subject| (subject.id, subject)).collect();
        let (mut pinned, mut left_out) = (0, 0);
        flows.export_where(&|vipa| subjects.contains_key(&vipa), &mut |key, path, state| {
            let target = targets.get(usize::from(path.0)).copied().flatten();
            let (Some(subject), Some(target)) = (subjects.get(&key.vipa()), target) else { return };
            let told = state.told();
            if !is_worth_telling(told) {
                return;
            }
            let is_told = match key.service() {
                (Protocol::Tcp, port) => subject.is_agentless(port, target),
                (Protocol::Udp, _) => state == FlowState::Udp && is_pinned(routes, &key, path),
            };
            if !is_told {
                return;
            }
            if told == EntryState::Udp {
                if pinned == MAX_PINNED_FLOWS {
                    left_out += 1;
                    return;
                }
                pinned += 1;
            }
            entries.entry(key.vipa()).or_default().insert(key.connection(), (target, told));
        });
        Self { began, took: started.elapsed(), entries, left_out, _hold: None }
    }
}

/// A SYN is sent again, and what has ended is no connection: neither is told.
pub(super) fn is_worth_telling(state: EntryState) -> bool {
    !matches!(state, EntryState::HalfOpen | EntryState::Ended)
}

/// Whether a UDP flow is at another target than the one that hashing chooses now: a router without its entry would move it.
fn is_pinned(routes: &Routes, key: &AnyKey, path: TargetId) -> bool {
    let Some(vipa) = routes.vipa(key.vipa()) else { return false };
    let (protocol, port) = key.service();
    let (Some(service), Some(hash)) = (vipa.find_service(protocol, port), key.balance_hash(&routes.key, vipa.address))
    else {
        return false;
    };
    service.picker.pick_by_hash(hash) != Some(path)
}
