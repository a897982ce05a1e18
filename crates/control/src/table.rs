//! Between the cluster's words and the workers': addresses become indexes, reports become entries of the connection
//! table, and entries become reports.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use vipa_flow::{Confirmed, FlowState, Tick};
use vipa_handoff::{AnyKey, Flows};
use vipa_model::{Connection, ConnectionState, Protocol, Service, TargetId, VipaId};
use vipa_protocol::{Change, Part, Run};

use crate::{
    sweep::Sweeps,
    ways::{Way, Ways},
};

/// Connections of a snapshot ahead for which memory is asked: the table is larger than any cache.
const AHEAD: usize = 8;
/// Buckets looked through in one turn of the loop: about a millisecond, 200 MB of table a second.
const SWEPT_AT_ONCE: usize = 16_384;

/// What a run of reports did to the connection table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Entries added or given another target.
    pub opened: u64,
    pub closed: u64,
    /// Connections of a snapshot's absence: we had them, the target does not.
    pub swept: u64,
    /// Of a client of the other family, or no room even so.
    pub refused: u64,
}

impl Taken {
    pub(crate) fn add(&mut self, more: Self) {
        let Self { opened, closed, swept, refused } = more;
        self.opened += opened;
        self.closed += closed;
        self.swept += swept;
        self.refused += refused;
    }
}

/// Writes the targets' reports into the connection table.
#[derive(Debug)]
pub struct Reports {
    flows: Arc<Flows>,
    sweeps: Sweeps,
    /// Who has reported anything in this router's life: of others nothing can be gone.
    heard: HashSet<(VipaId, IpAddr)>,
}

/// Who reports, and about what.
#[derive(Debug)]
pub struct Reporter<'a> {
    pub vipa: VipaId,
    pub vipa_address: IpAddr,
    pub services: &'a [Service],
    pub target: IpAddr,
    pub ways: &'a mut Ways,
    pub now: Tick,
}

/// The way of the connection before, which is nearly always that of the next.
type Last = Option<((Protocol, u16), TargetId)>;

impl Reports {
    #[must_use]
    pub fn new(flows: Arc<Flows>) -> Self {
        Self { flows, sweeps: Sweeps::default(), heard: HashSet::new() }
    }

    /// Takes a run of a target's log in.
    pub fn install(&mut self, mut reporter: Reporter<'_>, run: &Run) -> Taken {
        let Reporter { vipa, target, .. } = reporter;
        let is_first = self.heard.insert((vipa, target));
        let mut sweep = match run {
            Run::Snapshot { part: Part::Only | Part::First, .. } if is_first => self.sweeps.forget(vipa, target),
            Run::Snapshot { part: Part::Only | Part::First, .. } => self.sweeps.begin(&reporter),
            Run::Snapshot { .. } | Run::Tail { .. } => self.sweeps.of(vipa, target),
        };
        let (mut taken, mut last) = (Taken::default(), None);
        match run {
            Run::Tail { after: _, records } => {
                for record in records {
                    match (reporter.key(&record.connection), record.change) {
                        (None, _) => taken.refused += 1,
                        (Some(key), Change::Opened(state)) => {
                            confirm(&self.flows, &mut reporter, &key, state, &mut last, &mut taken);
                            if let Some(sweep) = &mut sweep {
                                sweep.name(key);
                            }
                        }
                        (Some(key), Change::Closed) => {
                            taken.closed += u64::from(close(&self.flows, &reporter, &key));
                        }
                    }
                }
            }
            Run::Snapshot { part, connections } => {
                for (index, (connection, state)) in connections.iter().enumerate() {
                    if let Some(ahead) = connections.get(index + AHEAD).and_then(|(ahead, _)| reporter.key(ahead)) {
                        self.flows.prefetch(&ahead);
                    }
                    let Some(key) = reporter.key(connection) else {
                        taken.refused += 1;
                        continue;
                    };
                    confirm(&self.flows, &mut reporter, &key, *state, &mut last, &mut taken);
                    if let Some(sweep) = &mut sweep {
                        sweep.name(key);
                    }
                }
                if let (Part::Only | Part::Last, Some(sweep)) = (part, sweep) {
                    sweep.complete();
                }
            }
        }
        taken
    }

    /// Goes on taking out what snapshots have not named, for as long as a turn of the loop may take; and of which VIPA it was.
    pub(crate) fn sweep(&mut self, ways: &Ways) -> Option<(VipaId, Taken)> {
        let (vipa, swept) = self.sweeps.go_on(&self.flows, ways, SWEPT_AT_ONCE)?;
        Some((vipa, Taken { swept, ..Taken::default() }))
    }
}

fn confirm(
    flows: &Flows,
    reporter: &mut Reporter<'_>,
    key: &AnyKey,
    state: ConnectionState,
    last: &mut Last,
    taken: &mut Taken,
) {
    // A SYN that went two ways leaves a half-open socket at one target; the connection is where it was completed.
    if state == ConnectionState::HalfOpen
        && flows.lookup(key).is_some_and(|hit| hit.state != FlowState::HalfOpen && !reporter.holds(hit.target))
    {
        return;
    }
    let Some(target) = reporter.way(key.service(), last) else {
        taken.refused += 1;
        return;
    };
    let state = match state {
        ConnectionState::HalfOpen => FlowState::HalfOpen,
        ConnectionState::Established => FlowState::Confirmed,
        ConnectionState::Closing => FlowState::Closing,
    };
    match flows.confirm(key, target, state, reporter.now) {
        Confirmed::New | Confirmed::NewEvicting(_) | Confirmed::Replaced(_) => taken.opened += 1,
        Confirmed::Known => {}
        Confirmed::Full => taken.refused += 1,
    }
}

/// A connection that was admitted anew since the target reported its end is not the one that ended.
fn close(flows: &Flows, reporter: &Reporter<'_>, key: &AnyKey) -> bool {
    match flows.lookup(key) {
        Some(hit) if reporter.holds(hit.target) && hit.state != FlowState::HalfOpen => {
            flows.remove(key, Some(hit.target))
        }
        _ => false,
    }
}

impl Reporter<'_> {
    fn key(&self, connection: &Connection) -> Option<AnyKey> {
        AnyKey::of(self.vipa, self.vipa_address, connection)
    }

    fn way(&mut self, service: (Protocol, u16), last: &mut Last) -> Option<TargetId> {
        match last {
            Some((known, target)) if *known == service => Some(*target),
            _ => {
                let target = self.ways.intern(Way::of(self.target, self.services, service))?;
                *last = Some((service, target));
                Some(target)
            }
        }
    }

    /// Whether a way leads to this target.
    fn holds(&self, way: vipa_model::TargetId) -> bool {
        self.ways.address(way) == Some(self.target)
    }
}
