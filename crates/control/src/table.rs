//! Between the cluster's words and the workers': addresses become indexes, reports become entries of the connection
//! table, and entries become reports.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use vipa_flow::{Confirmed, FlowState, Tick};
use vipa_handoff::{AnyKey, Flows};
use vipa_model::{Connection, ConnectionState, Service, VipaId};
use vipa_protocol::{Change, Part, Run, Table as TableMessage};

use crate::ways::{Way, Ways};

/// Connections in one `Table` message.
const TABLE_PART: usize = 2048;

/// What a run of reports did to the connection table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Entries added or given another target.
    pub(crate) opened: u64,
    pub(crate) closed: u64,
    /// Connections of a snapshot's absence: we had them, the target does not.
    pub(crate) swept: u64,
    /// Of a client of the other family, or no room even so.
    pub(crate) refused: u64,
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
pub(crate) struct Reports {
    flows: Arc<Flows>,
    /// Snapshots under way: what each has named so far.
    sweeps: HashMap<(VipaId, IpAddr), HashSet<AnyKey>>,
}

/// Who reports, and about what.
pub(crate) struct Reporter<'a> {
    pub(crate) vipa: VipaId,
    pub(crate) vipa_address: IpAddr,
    pub(crate) services: &'a [Service],
    pub(crate) target: IpAddr,
    pub(crate) ways: &'a mut Ways,
    pub(crate) now: Tick,
}

impl Reports {
    pub(crate) fn new(flows: Arc<Flows>) -> Self {
        Self { flows, sweeps: HashMap::new() }
    }

    pub(crate) fn install(&mut self, mut reporter: Reporter<'_>, run: &Run) -> Taken {
        match run {
            Run::Tail { after: _, records } => {
                let mut taken = Taken::default();
                for record in records {
                    match (reporter.key(&record.connection), record.change) {
                        (None, _) => taken.refused += 1,
                        (Some(key), Change::Opened(state)) => self.confirm(&mut reporter, &key, state, &mut taken),
                        (Some(key), Change::Closed) => taken.closed += u64::from(self.close(&reporter, &key)),
                    }
                }
                taken
            }
            Run::Snapshot { part, connections } => self.snapshot(&mut reporter, *part, connections),
        }
    }

    fn snapshot(
        &mut self,
        reporter: &mut Reporter<'_>,
        part: Part,
        connections: &[(Connection, ConnectionState)],
    ) -> Taken {
        let mut taken = Taken::default();
        let sweep = (reporter.vipa, reporter.target);
        let mut named = match part {
            Part::Only | Part::First => HashSet::new(),
            Part::Middle | Part::Last => self.sweeps.remove(&sweep).unwrap_or_default(),
        };
        for (connection, state) in connections {
            let Some(key) = reporter.key(connection) else {
                taken.refused += 1;
                continue;
            };
            self.confirm(reporter, &key, *state, &mut taken);
            named.insert(key);
        }
        match part {
            Part::First | Part::Middle => {
                self.sweeps.insert(sweep, named);
            }
            Part::Only | Part::Last => taken.swept = self.sweep(reporter, &named),
        }
        taken
    }

    fn confirm(&self, reporter: &mut Reporter<'_>, key: &AnyKey, state: ConnectionState, taken: &mut Taken) {
        let known = self.flows.lookup(key);
        // A SYN that went two ways leaves a half-open socket at one target; the connection is where it was completed.
        if state == ConnectionState::HalfOpen
            && known.is_some_and(|hit| hit.state != FlowState::HalfOpen && !reporter.holds(hit.target))
        {
            return;
        }
        let way = Way::of(reporter.target, reporter.services, key.service());
        let Some(target) = reporter.ways.intern(way) else {
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

    /// Removes what the target had confirmed to us and its snapshot lacks. Entries it never confirmed are younger
    /// than its report, or will age.
    fn sweep(&self, reporter: &Reporter<'_>, named: &HashSet<AnyKey>) -> u64 {
        let mut gone = Vec::new();
        self.flows.export(reporter.vipa, &mut |key, holder, state| {
            let reported = matches!(state, FlowState::Confirmed | FlowState::Closing);
            if reported && reporter.holds(holder) && !named.contains(&key) {
                gone.push((key, holder));
            }
        });
        gone.iter().filter(|(key, holder)| self.flows.remove(key, Some(*holder))).count() as u64
    }
}

impl Reporter<'_> {
    fn key(&self, connection: &Connection) -> Option<AnyKey> {
        AnyKey::of(self.vipa, self.vipa_address, connection)
    }

    /// Whether a way leads to this target.
    fn holds(&self, way: vipa_model::TargetId) -> bool {
        self.ways.address(way) == Some(self.target)
    }
}

/// The table's entries of one VIPA as messages for its next owner; always at least one, so that its end is known.
pub(crate) fn export(
    flows: &Flows,
    ways: &Ways,
    vipa: VipaId,
    mut message: impl FnMut(Vec<(Connection, IpAddr)>, Part) -> TableMessage,
) -> Vec<TableMessage> {
    let mut entries = Vec::new();
    flows.export(vipa, &mut |key, target, _| {
        if let Some(address) = ways.address(target) {
            entries.push((key.connection(), address));
        }
    });
    if entries.len() <= TABLE_PART {
        return vec![message(entries, Part::Only)];
    }
    let count = entries.len().div_ceil(TABLE_PART);
    let part_of = |index| match index {
        0 => Part::First,
        index if index + 1 == count => Part::Last,
        _ => Part::Middle,
    };
    entries.chunks(TABLE_PART).enumerate().map(|(index, chunk)| message(chunk.to_vec(), part_of(index))).collect()
}
