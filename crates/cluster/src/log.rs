//! A target's connection log of one VIPA: what it holds now, and the last changes that led there.
//!
//! Every change has a sequence number within the target's incarnation. A router that has read the log up to a position
//! gets the records after it. A router that is too far behind (or has read another incarnation) gets everything.

mod live;

use std::collections::VecDeque;

pub use live::Live;
use vipa_model::{Connection, ConnectionState, Incarnation};
use vipa_protocol::{Change, Digests, Holds, Part, Position, Record, Run, question};

/// Changes that a log keeps; at 10,000 new connections a second, three seconds' worth.
pub const KEPT_RECORDS: usize = 65_536;
/// Connections or records in one message.
pub const RUN_LENGTH: usize = 2048;

#[derive(Clone, Debug)]
pub struct ConnectionLog {
    incarnation: Incarnation,
    live: Live,
    /// Digests of connections beyond the handshake; they take 4 kB, so there are none before the first.
    digests: Option<Digests>,
    kept: VecDeque<Record>,
    limit: usize,
    last: u64,
}

impl ConnectionLog {
    /// An empty log that keeps the last `limit` changes.
    #[must_use]
    pub fn new(incarnation: Incarnation, limit: usize) -> Self {
        Self::after(Position { incarnation, sequence: 0 }, limit)
    }

    /// An empty log whose records come after `position`, which another log of this incarnation has reached: a router
    /// that has read that one gets everything.
    #[must_use]
    pub fn after(position: Position, limit: usize) -> Self {
        let Position { incarnation, sequence } = position;
        Self { incarnation, live: Live::default(), digests: None, kept: VecDeque::new(), limit, last: sequence }
    }

    #[must_use]
    pub fn position(&self) -> Position {
        Position { incarnation: self.incarnation, sequence: self.last }
    }

    #[must_use]
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Changes kept for routers that were away.
    #[must_use]
    pub fn records(&self) -> usize {
        self.kept.len()
    }

    /// Applies one change; a change that has no effect is no record.
    pub fn apply(&mut self, record: Record) -> bool {
        let (before, now) = match record.change {
            Change::Opened(state) => (self.live.insert(record.connection, state), Some(state)),
            Change::Closed => (self.live.remove(&record.connection), None),
        };
        match (is_held(before), is_held(now)) {
            (false, true) => self.digests.get_or_insert_default().add(&record.connection),
            (true, false) => self.digests.get_or_insert_default().remove(&record.connection),
            (false, false) | (true, true) => {}
        }
        let news = before != now;
        if news {
            self.append(record);
        }
        news
    }

    /// What the target holds beyond the handshake: digests of all parts, and connections by name in these parts.
    #[must_use]
    pub fn holds(&self, buckets: &[u16]) -> Holds {
        let mut connections = Vec::new();
        // Named only on request: it takes a walk over all.
        if !buckets.is_empty() {
            let asked = &buckets[..buckets.len().min(question::MOST_BUCKETS)];
            let wanted = |connection: &Connection| asked.contains(&question::bucket(connection));
            let held = self.live.iter().filter(|(_, state)| is_held(Some(*state)));
            connections.extend(held.map(|(connection, _)| connection).filter(wanted).take(question::MOST_TOLD));
        }
        Holds { upto: self.position(), digests: self.digests.clone().unwrap_or_default(), connections }
    }

    /// Applies the whole state: the kernel holds exactly these. True when anything changed.
    pub fn observe(&mut self, held: Vec<(Connection, ConnectionState)>) -> bool {
        let held: Live = held.into_iter().collect();
        let before = self.last;
        let gone: Vec<Connection> = self.live.without(&held).map(|(connection, _)| connection).collect();
        for connection in gone.into_iter().filter(|connection| held.get(connection).is_none()) {
            self.apply(Record { connection, change: Change::Closed });
        }
        let news: Vec<_> = held.without(&self.live).collect();
        for (connection, state) in news {
            self.apply(Record { connection, change: Change::Opened(state) });
        }
        self.last != before
    }

    fn append(&mut self, record: Record) {
        self.last += 1;
        self.kept.push_back(record);
        if self.kept.len() > self.limit {
            self.kept.pop_front();
        }
    }

    /// The records after `position`; `None` when they are no longer kept, or the position is of another incarnation.
    #[must_use]
    pub fn tail_after(&self, position: Position) -> Option<impl ExactSizeIterator<Item = &Record>> {
        let Position { incarnation, sequence } = position;
        let behind = usize::try_from(self.last.checked_sub(sequence)?).ok()?;
        let skip = self.kept.len().checked_sub(behind)?;
        (incarnation == self.incarnation).then(|| self.kept.range(skip..))
    }

    /// What brings a router that has read up to `seen` up to date: each run with the position it leads to, at least one
    /// run.
    #[must_use]
    pub fn runs_after(&self, seen: Option<Position>) -> Vec<(Run, Position)> {
        match seen.and_then(|position| Some((position.sequence, self.tail_after(position)?))) {
            Some((after, tail)) => self.tail_runs(after, tail),
            None => self.snapshot_runs(),
        }
    }

    fn tail_runs<'a>(&self, mut after: u64, tail: impl ExactSizeIterator<Item = &'a Record>) -> Vec<(Run, Position)> {
        let mut runs = Vec::with_capacity(tail.len() / RUN_LENGTH + 1);
        let mut records = Vec::new();
        let close = |after: &mut u64, records: &mut Vec<Record>| {
            let records = std::mem::take(records);
            let sequence = *after + records.len() as u64;
            let run = Run::Tail { after: *after, records };
            *after = sequence;
            (run, Position { incarnation: self.incarnation, sequence })
        };
        for record in tail {
            records.push(record.clone());
            if records.len() == RUN_LENGTH {
                runs.push(close(&mut after, &mut records));
            }
        }
        if !records.is_empty() || runs.is_empty() {
            runs.push(close(&mut after, &mut records));
        }
        runs
    }

    fn snapshot_runs(&self) -> Vec<(Run, Position)> {
        let count = self.live.len().div_ceil(RUN_LENGTH).max(1);
        let mut held = self.live.iter();
        let run = |index: usize| {
            let part = match (index, index + 1 == count) {
                (0, true) => Part::Only,
                (0, false) => Part::First,
                (_, false) => Part::Middle,
                (_, true) => Part::Last,
            };
            (Run::Snapshot { part, connections: held.by_ref().take(RUN_LENGTH).collect() }, self.position())
        };
        (0..count).map(run).collect()
    }
}

/// Established or closing: the target answers for the connection, and no other may.
fn is_held(state: Option<ConnectionState>) -> bool {
    matches!(state, Some(ConnectionState::Established | ConnectionState::Closing))
}

#[cfg(test)]
mod tests;
