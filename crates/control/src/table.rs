//! Between the cluster's words and the workers': addresses become indexes, reports become entries of the connection
//! table, and entries become reports.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use vipa_flow::{Confirmed, FlowState, FlowTable, Key4, Tick};
use vipa_model::{Connection, ConnectionState, TargetId, VipaId};
use vipa_protocol::{Change, Part, Run, Table as TableMessage};

/// Targets a router tells apart in its life; a `TargetId` is never given twice.
pub(crate) const MAX_TARGETS: usize = 4096;
/// Connections in one `Table` message.
const TABLE_PART: usize = 2048;

/// Gives each target address its `TargetId`, once and for the life of the process.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    addresses: Vec<IpAddr>,
    ids: HashMap<IpAddr, TargetId>,
}

impl Targets {
    /// The id of `address`, a new one if need be; `None` when all are given away.
    pub(crate) fn intern(&mut self, address: IpAddr) -> Option<TargetId> {
        if let Some(&id) = self.ids.get(&address) {
            return Some(id);
        }
        if self.addresses.len() == MAX_TARGETS {
            return None;
        }
        let id = TargetId(u16::try_from(self.addresses.len()).expect("MAX_TARGETS fits 16 bits"));
        self.addresses.push(address);
        self.ids.insert(address, id);
        Some(id)
    }

    pub(crate) fn address(&self, id: TargetId) -> Option<IpAddr> {
        self.addresses.get(usize::from(id.0)).copied()
    }

    pub(crate) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }
}

/// What a run of reports did to the connection table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Entries added or given another target.
    pub(crate) opened: u64,
    pub(crate) closed: u64,
    /// Connections of a snapshot's absence: we had them, the target does not.
    pub(crate) swept: u64,
    /// Not storable: IPv6 for now, or no room even so.
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
    flows: Arc<FlowTable>,
    /// Snapshots under way: what each has named so far.
    sweeps: HashMap<(VipaId, TargetId), HashSet<Key4>>,
}

impl Reports {
    pub(crate) fn new(flows: Arc<FlowTable>) -> Self {
        Self { flows, sweeps: HashMap::new() }
    }

    pub(crate) fn install(&mut self, vipa: VipaId, target: TargetId, run: &Run, now: Tick) -> Taken {
        match run {
            Run::Tail { after: _, records } => {
                let mut taken = Taken::default();
                for record in records {
                    match (key(vipa, &record.connection), record.change) {
                        (None, _) => taken.refused += 1,
                        (Some(key), Change::Opened(state)) => self.confirm(&key, target, state, now, &mut taken),
                        (Some(key), Change::Closed) => taken.closed += u64::from(self.close(&key, target)),
                    }
                }
                taken
            }
            Run::Snapshot { part, connections } => self.snapshot(vipa, target, *part, connections, now),
        }
    }

    fn snapshot(
        &mut self,
        vipa: VipaId,
        target: TargetId,
        part: Part,
        connections: &[(Connection, ConnectionState)],
        now: Tick,
    ) -> Taken {
        let mut taken = Taken::default();
        let mut named = match part {
            Part::Only | Part::First => HashSet::new(),
            Part::Middle | Part::Last => self.sweeps.remove(&(vipa, target)).unwrap_or_default(),
        };
        for (connection, state) in connections {
            let Some(key) = key(vipa, connection) else {
                taken.refused += 1;
                continue;
            };
            self.confirm(&key, target, *state, now, &mut taken);
            named.insert(key);
        }
        match part {
            Part::First | Part::Middle => {
                self.sweeps.insert((vipa, target), named);
            }
            Part::Only | Part::Last => taken.swept = self.sweep(vipa, target, &named),
        }
        taken
    }

    fn confirm(&self, key: &Key4, target: TargetId, state: ConnectionState, now: Tick, taken: &mut Taken) {
        // A SYN that went two ways leaves a half-open socket at one target; the connection is where it was completed.
        if state == ConnectionState::HalfOpen
            && self.flows.lookup(key).is_some_and(|hit| hit.target != target && hit.state != FlowState::HalfOpen)
        {
            return;
        }
        let state = match state {
            ConnectionState::HalfOpen => FlowState::HalfOpen,
            ConnectionState::Established => FlowState::Confirmed,
            ConnectionState::Closing => FlowState::Closing,
        };
        match self.flows.confirm(key, target, state, now) {
            Confirmed::New | Confirmed::NewEvicting(_) | Confirmed::Replaced(_) => taken.opened += 1,
            Confirmed::Known => {}
            Confirmed::Full => taken.refused += 1,
        }
    }

    /// A connection that was admitted anew since the target reported its end is not the one that ended.
    fn close(&self, key: &Key4, target: TargetId) -> bool {
        match self.flows.lookup(key) {
            Some(hit) if hit.target == target && hit.state != FlowState::HalfOpen => {
                self.flows.remove(key, Some(target))
            }
            _ => false,
        }
    }

    /// Removes what the target had confirmed to us and its snapshot lacks. Entries it never confirmed are younger
    /// than its report, or will age.
    fn sweep(&self, vipa: VipaId, target: TargetId, named: &HashSet<Key4>) -> u64 {
        let mut gone = Vec::new();
        self.flows.export(vipa, &mut |key, holder, state| {
            let reported = matches!(state, FlowState::Confirmed | FlowState::Closing);
            if holder == target && reported && !named.contains(&key) {
                gone.push(key);
            }
        });
        gone.iter().filter(|key| self.flows.remove(key, Some(target))).count() as u64
    }
}

/// The table's entries of one VIPA as messages for its next owner; always at least one, so that its end is known.
pub(crate) fn export(
    flows: &FlowTable,
    targets: &Targets,
    vipa: VipaId,
    mut message: impl FnMut(Vec<(Connection, IpAddr)>, Part) -> TableMessage,
) -> Vec<TableMessage> {
    let mut entries = Vec::new();
    flows.export(vipa, &mut |key, target, _| {
        if let Some(address) = targets.address(target) {
            entries.push((connection(&key), address));
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

/// The table's key of a connection; `None` when its addresses are not IPv4.
pub(crate) fn key(vipa: VipaId, connection: &Connection) -> Option<Key4> {
    let client = match connection.client.ip() {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => address.to_ipv4_mapped()?,
    };
    Some(Key4 {
        client: client.to_bits(),
        client_port: connection.client.port(),
        vipa_port: connection.port,
        vipa,
        protocol: connection.protocol,
    })
}

pub(crate) fn connection(key: &Key4) -> Connection {
    Connection {
        protocol: key.protocol,
        client: SocketAddr::from((std::net::Ipv4Addr::from_bits(key.client), key.client_port)),
        port: key.vipa_port,
    }
}
