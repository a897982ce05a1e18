//! Between the cluster's words and the workers': addresses become indexes, reports become entries of the connection
//! table, and entries become reports.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use vipa_flow::{Confirmed, FlowState, Tick};
use vipa_handoff::{AnyKey, Flows};
use vipa_model::{Connection, ConnectionState, Protocol, Service, TargetId, VipaId};
use vipa_protocol::{Change, Part, Run};

use crate::ways::{Way, Ways};

/// Connections of a snapshot ahead for which memory is asked: the table is larger than any cache.
const AHEAD: usize = 8;

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
    /// Snapshots under way: what the target had confirmed before, and the snapshot has not named yet.
    sweeps: HashMap<(VipaId, IpAddr), HashMap<AnyKey, TargetId>>,
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
        Self { flows, sweeps: HashMap::new(), heard: HashSet::new() }
    }

    /// Takes a run of a target's log in.
    pub fn install(&mut self, mut reporter: Reporter<'_>, run: &Run) -> Taken {
        let is_first = self.heard.insert((reporter.vipa, reporter.target));
        match run {
            Run::Tail { after: _, records } => {
                let (mut taken, mut last) = (Taken::default(), None);
                for record in records {
                    match (reporter.key(&record.connection), record.change) {
                        (None, _) => taken.refused += 1,
                        (Some(key), Change::Opened(state)) => {
                            self.confirm(&mut reporter, &key, state, &mut last, &mut taken);
                        }
                        (Some(key), Change::Closed) => taken.closed += u64::from(self.close(&reporter, &key)),
                    }
                }
                taken
            }
            Run::Snapshot { part, connections } => self.snapshot(&mut reporter, *part, connections, is_first),
        }
    }

    fn snapshot(
        &mut self,
        reporter: &mut Reporter<'_>,
        part: Part,
        connections: &[(Connection, ConnectionState)],
        is_first: bool,
    ) -> Taken {
        let (mut taken, mut last) = (Taken::default(), None);
        let sweep = (reporter.vipa, reporter.target);
        let mut unnamed = match part {
            Part::Only | Part::First if is_first => HashMap::new(),
            Part::Only | Part::First => self.confirmed_by(reporter),
            Part::Middle | Part::Last => self.sweeps.remove(&sweep).unwrap_or_default(),
        };
        for (index, (connection, state)) in connections.iter().enumerate() {
            if let Some(ahead) = connections.get(index + AHEAD).and_then(|(ahead, _)| reporter.key(ahead)) {
                self.flows.prefetch(&ahead);
            }
            let Some(key) = reporter.key(connection) else {
                taken.refused += 1;
                continue;
            };
            self.confirm(reporter, &key, *state, &mut last, &mut taken);
            if !unnamed.is_empty() {
                unnamed.remove(&key);
            }
        }
        match part {
            Part::First | Part::Middle => {
                self.sweeps.insert(sweep, unnamed);
            }
            Part::Only | Part::Last => {
                taken.swept = unnamed.iter().filter(|(key, holder)| self.sweep(key, **holder)).count() as u64;
            }
        }
        taken
    }

    fn confirm(
        &self,
        reporter: &mut Reporter<'_>,
        key: &AnyKey,
        state: ConnectionState,
        last: &mut Last,
        taken: &mut Taken,
    ) {
        // A SYN that went two ways leaves a half-open socket at one target; the connection is where it was completed.
        if state == ConnectionState::HalfOpen
            && self.flows.lookup(key).is_some_and(|hit| hit.state != FlowState::HalfOpen && !reporter.holds(hit.target))
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
        match self.flows.confirm(key, target, state, reporter.now) {
            Confirmed::New | Confirmed::NewEvicting(_) | Confirmed::Replaced(_) => taken.opened += 1,
            Confirmed::Known => {}
            Confirmed::Full => taken.refused += 1,
        }
    }

    /// A connection that was admitted anew since the target reported its end is not the one that ended.
    fn close(&self, reporter: &Reporter<'_>, key: &AnyKey) -> bool {
        match self.flows.lookup(key) {
            Some(hit) if reporter.holds(hit.target) && hit.state != FlowState::HalfOpen => {
                self.flows.remove(key, Some(hit.target))
            }
            _ => false,
        }
    }

    /// Unless the connection is another's by now, or was admitted anew meanwhile.
    fn sweep(&self, key: &AnyKey, holder: TargetId) -> bool {
        let is_as_reported = |state| matches!(state, FlowState::Confirmed | FlowState::Closing);
        self.flows.lookup(key).is_some_and(|hit| is_as_reported(hit.state)) && self.flows.remove(key, Some(holder))
    }

    /// What the target has confirmed to us: of this, what its snapshot lacks is gone. Entries it never confirmed are
    /// younger than its report, or will age.
    fn confirmed_by(&self, reporter: &Reporter<'_>) -> HashMap<AnyKey, TargetId> {
        let mut confirmed = HashMap::new();
        let ways = reporter.ways.to(reporter.target);
        if ways.is_empty() {
            return confirmed;
        }
        self.flows.export(reporter.vipa, &mut |key, holder, state| {
            if matches!(state, FlowState::Confirmed | FlowState::Closing) && ways.contains(&holder) {
                confirmed.insert(key, holder);
            }
        });
        confirmed
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
