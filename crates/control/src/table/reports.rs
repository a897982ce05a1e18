//! Between the cluster's words and the workers': addresses become indexes, reports become entries of the connection
//! table, and entries become reports.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use vipa_flow::Tick;
use vipa_handoff::{AnyKey, Claim, Disputes, Flows, Origin, Reported};
use vipa_model::{Connection, ConnectionState, EntryState, Protocol, TargetId, VipaId};
use vipa_protocol::{Change, Part, Run};

use crate::{
    network::paths::{Lists, Paths},
    table::{
        share::{Room, TableShares},
        stale_sweep::StaleSweeps,
    },
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
    /// Connections that another linked target holds.
    pub disputed: u64,
    /// Connections of another target, reported by one that no list names.
    pub unlisted: u64,
    /// Connections that no packet has shown here, of a target whose share of the table is used up.
    pub over_share: u64,
}

impl Taken {
    pub(crate) fn add(&mut self, more: Self) {
        let Self { opened, closed, swept, refused, disputed, unlisted, over_share } = more;
        self.opened += opened;
        self.closed += closed;
        self.swept += swept;
        self.refused += refused;
        self.disputed += disputed;
        self.unlisted += unlisted;
        self.over_share += over_share;
    }
}

/// Writes the targets' reports into the connection table.
#[derive(Debug)]
pub struct Reports {
    flows: Arc<Flows>,
    sweeps: StaleSweeps,
    /// Who has reported anything in this router's life: of others nothing can be gone.
    heard: HashSet<(VipaId, IpAddr)>,
    /// What targets report that others hold.
    disputes: Disputes,
    pub(crate) shares: TableShares,
}

/// Who reports, and about what.
pub struct Reporter<'a> {
    pub vipa: VipaId,
    pub vipa_address: IpAddr,
    pub lists: Lists<'a>,
    pub target: IpAddr,
    pub ways: &'a mut Paths,
    pub now: Tick,
    /// The part of the table that is guaranteed to all targets together.
    pub reserve_percent: u8,
    /// Whether a list names a target for a port of the VIPA.
    pub is_listed: &'a dyn Fn(IpAddr, (Protocol, u16)) -> bool,
}

/// What a run of reports has come to so far.
#[derive(Debug)]
struct Intake {
    taken: Taken,
    last: Last,
    room: Room,
}

/// The way of the connection before, which is nearly always that of the next.
type Last = Option<((Protocol, u16), TargetId)>;

impl Reports {
    #[must_use]
    pub fn new(flows: Arc<Flows>) -> Self {
        Self {
            flows,
            sweeps: StaleSweeps::default(),
            heard: HashSet::new(),
            disputes: Disputes::default(),
            shares: TableShares::default(),
        }
    }

    /// Takes a run of a target's log in.
    pub fn install(&mut self, mut reporter: Reporter<'_>, run: &Run) -> Taken {
        let Reporter { vipa, target, now, .. } = reporter;
        let is_first = self.heard.insert((vipa, target));
        let mut sweep = match run {
            Run::Snapshot { part: Part::Only | Part::First, .. } if is_first => self.sweeps.forget(vipa, target),
            Run::Snapshot { part: Part::Only | Part::First, .. } => self.sweeps.begin(&reporter),
            Run::Snapshot { .. } | Run::Tail { .. } => self.sweeps.of(vipa, target),
        };
        self.shares.measure(&self.flows, reporter.ways, reporter.reserve_percent, reporter.now);
        let room = self.shares.room(&self.flows, target, reporter.vipa_address.is_ipv6());
        let mut intake = Intake { taken: Taken::default(), last: None, room };
        match run {
            Run::Tail { after: _, records } => {
                for record in records {
                    match (reporter.key(&record.connection), record.change) {
                        (None, _) => intake.taken.refused += 1,
                        (Some(key), Change::Opened(state)) => {
                            let state = (state, Origin::Log);
                            confirm(&self.flows, &mut self.disputes, &mut reporter, (&key, state), &mut intake);
                            if let Some(sweep) = &mut sweep {
                                sweep.name(key);
                            }
                        }
                        (Some(key), Change::Closed) => {
                            let ended =
                                self.disputes.report_end(&self.flows, &key, |way| reporter.holds(way), reporter.now);
                            intake.taken.closed += u64::from(ended);
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
                        intake.taken.refused += 1;
                        continue;
                    };
                    let state = (*state, Origin::Snapshot);
                    confirm(&self.flows, &mut self.disputes, &mut reporter, (&key, state), &mut intake);
                    if let Some(sweep) = &mut sweep {
                        sweep.name(key);
                    }
                }
                if let (Part::Only | Part::Last, Some(sweep)) = (part, sweep) {
                    sweep.complete();
                }
            }
        }
        let Intake { taken, room, .. } = intake;
        self.shares.account(&self.flows, target, &room, taken.over_share, now);
        taken
    }

    /// Takes in what the router that owned the VIPA until now tells of a connection; see [`Disputes::inherit`].
    pub(crate) fn inherit(
        &mut self,
        (key, way): (&AnyKey, TargetId),
        state: EntryState,
        since: Option<Tick>,
        now: Tick,
    ) {
        self.disputes.inherit(&self.flows, (key, way), state, since, now);
    }

    /// Says whether this target's agent is linked and everything it holds is known. What an unlinked target claimed is
    /// forgotten, what others claimed of its connections is theirs.
    pub(crate) fn set_linked(&mut self, target: IpAddr, ways: &Paths, linked: bool) {
        let its = ways.to(target);
        its.iter().for_each(|way| self.flows.set_linked(*way, linked));
        if !linked {
            self.disputes.withdraw(&self.flows, |way| its.contains(&way));
        }
    }

    /// Whether the table lacks something that this target has reported and, being back, does not repeat.
    pub(crate) fn has_diverged(&self, target: IpAddr, ways: &Paths) -> bool {
        ways.to(target).iter().any(|way| self.flows.has_diverged(*way))
    }

    /// The target's log is read anew.
    pub(crate) fn forget_diverged(&self, target: IpAddr, ways: &Paths) {
        ways.to(target).iter().for_each(|way| self.flows.forget_diverged(*way));
    }

    /// Whether a dispute that is not settled yet names this way.
    pub(crate) fn disputes_name(&self, way: TargetId) -> bool {
        self.disputes.names(way)
    }

    /// The connections that two targets hold, by VIPA: of each VIPA so many at most.
    pub(crate) fn disputed(&self, most: usize) -> BTreeMap<VipaId, Vec<Connection>> {
        self.disputes.by_vipa(most)
    }

    /// Nothing is reported of this VIPA any more.
    pub(crate) fn forget(&mut self, vipa: VipaId) {
        self.heard.retain(|(of, _)| *of != vipa);
        self.sweeps.forget_vipa(vipa);
        self.disputes.forget(vipa);
    }

    /// Settles what targets report that others have.
    pub(crate) fn resolve(&mut self, now: Tick) {
        self.disputes.resolve(&self.flows, now);
    }

    /// Goes on ending what snapshots have not named, for as long as a turn of the loop may take; and of which VIPA it was.
    pub(crate) fn sweep(&mut self, ways: &Paths, now: Tick) -> Option<(VipaId, Taken)> {
        let (vipa, swept) = self.sweeps.go_on(&self.flows, ways, SWEPT_AT_ONCE, now)?;
        Some((vipa, Taken { swept, ..Taken::default() }))
    }
}

fn confirm(
    flows: &Flows,
    disputes: &mut Disputes,
    reporter: &mut Reporter<'_>,
    (key, state): (&AnyKey, (ConnectionState, Origin)),
    intake: &mut Intake,
) {
    let Intake { taken, last, room } = intake;
    let Some(way) = reporter.path_of(key.service(), last) else {
        taken.refused += 1;
        return;
    };
    if !room.has(flows, way, key) {
        taken.over_share += 1;
        return;
    }
    let claim = |holder| reporter.claim(holder, key.service());
    match disputes.report(flows, (key, way), |of| reporter.holds(of), claim, state, reporter.now) {
        Reported::New => taken.opened += 1,
        Reported::Known => {}
        Reported::Full => taken.refused += 1,
        Reported::Disputed(_) => taken.disputed += 1,
        Reported::Unlisted => taken.unlisted += 1,
    }
}

impl fmt::Debug for Reporter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vipa, target, now, .. } = self;
        f.debug_struct("Reporter").field("vipa", vipa).field("target", target).field("now", now).finish_non_exhaustive()
    }
}

impl Reporter<'_> {
    fn key(&self, connection: &Connection) -> Option<AnyKey> {
        AnyKey::of(self.vipa, self.vipa_address, connection)
    }

    fn path_of(&mut self, service: (Protocol, u16), last: &mut Last) -> Option<TargetId> {
        match last {
            Some((known, target)) if *known == service => Some(*target),
            _ => {
                let target = self.ways.find(self.vipa, self.lists, self.target, service)?;
                *last = Some((service, target));
                Some(target)
            }
        }
    }

    /// What it takes from the target of this way, which has a connection of the service.
    fn claim(&self, holder: TargetId, service: (Protocol, u16)) -> Claim {
        let of_holder = self.ways.address(holder).is_some_and(|holder| (self.is_listed)(holder, service));
        match ((self.is_listed)(self.target, service), of_holder) {
            (false, true) => Claim::Nothing,
            (true, false) => Claim::Everything,
            (true, true) | (false, false) => Claim::Unheld,
        }
    }

    /// Whether a way leads to this target.
    fn holds(&self, way: vipa_model::TargetId) -> bool {
        self.ways.address(way) == Some(self.target)
    }
}
