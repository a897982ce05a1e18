//! Reports of the two ends, one JSON object a line.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::client::Loss;

/// A client process's report on all its connections since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Long-lived connections requested.
    pub asked: u64,
    /// Long-lived connections that are open now.
    pub open: u64,
    /// Long-lived connections that ended in good order, everything verified to the last byte.
    pub kept: u64,
    /// Long-lived connections that could not be opened in the first place.
    pub unopened: u64,
    pub broken: Broken,
    /// The broken ones by server.
    pub lost: BTreeMap<String, u64>,
    /// Messages sent and answered without a fault.
    pub messages: u64,
    /// Exchanges that took longer than [`super::STALL`].
    pub stalls: u64,
    /// The longest exchange of a long-lived connection since the last mark, the unfinished ones included.
    pub longest_ms: u64,
    /// Connections opened afresh, used and closed while the others go on.
    pub fresh_ok: u64,
    pub fresh_failed: u64,
    /// Of the fresh connections that succeeded: how many at each server.
    pub fresh_servers: BTreeMap<String, u64>,
    /// From the mark to the first answer to a message that was sent a moment ([`super::SETTLE`]) or more after it.
    pub first_after_mark_us: Option<u64>,
    /// Open long-lived connections that have not had an answer since the mark.
    pub silent_since_mark: u64,
    /// Open long-lived connections by server.
    pub servers: BTreeMap<String, u64>,
    /// The first faults in words.
    pub faults: Vec<String>,
    /// Exchanges under way, those of fresh connections included.
    pub busy: u64,
    /// Orders carried out so far.
    pub orders: u64,
    /// Everything is over; the last report.
    pub finished: bool,
}

/// Long-lived connections lost, by what the client saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    pub reset: u64,
    /// The other end closed, unasked.
    pub closed: u64,
    /// No answer within the client's time limit.
    pub timeout: u64,
    /// A byte lost, doubled, changed, or from another connection.
    pub mismatch: u64,
}

impl Broken {
    #[must_use]
    pub fn total(self) -> u64 {
        let Self { reset, closed, timeout, mismatch } = self;
        reset + closed + timeout + mismatch
    }

    pub(super) fn count(&mut self, loss: &Loss) {
        *match loss {
            Loss::Reset(_) => &mut self.reset,
            Loss::Closed => &mut self.closed,
            Loss::Timeout => &mut self.timeout,
            Loss::Mismatch(_) => &mut self.mismatch,
        } += 1;
    }
}

/// Report of clients of one request a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestReport {
    /// Connections that were begun.
    pub asked: u64,
    /// Those whose server has sent its name.
    pub answered: u64,
    /// Those that ended correctly, every byte verified.
    pub kept: u64,
    pub broken: Broken,
    /// The broken ones by server.
    pub lost: BTreeMap<String, u64>,
    /// Broken ones whose server had not sent its name: from their SYN to their end, see [`super::clock`].
    pub unanswered: Vec<(u64, u64)>,
    /// Further ones, for which no time is reported.
    pub unanswered_more: u64,
    /// The kept ones by server.
    pub servers: BTreeMap<String, u64>,
    /// The ports of connections under way that are later than [`super::LATE`] allows.
    pub late: Vec<u16>,
    /// The longest life of a connection, its silence not counted.
    pub longest_ms: u64,
    /// The first faults in words.
    pub faults: Vec<String>,
    /// Everything is over; the last report.
    pub finished: bool,
}

/// At most this many faults are reported in words.
pub(super) const FAULTS: usize = 8;

impl Report {
    /// Adds another process's report to this one.
    pub(super) fn add(&mut self, other: &Self) {
        let Self {
            asked,
            open,
            kept,
            unopened,
            broken,
            lost,
            messages,
            stalls,
            longest_ms,
            fresh_ok,
            fresh_failed,
            fresh_servers,
            first_after_mark_us,
            silent_since_mark,
            servers,
            faults,
            busy,
            orders,
            finished,
        } = other;
        self.asked += asked;
        self.open += open;
        self.kept += kept;
        self.unopened += unopened;
        self.broken.reset += broken.reset;
        self.broken.closed += broken.closed;
        self.broken.timeout += broken.timeout;
        self.broken.mismatch += broken.mismatch;
        self.messages += messages;
        self.stalls += stalls;
        self.longest_ms = self.longest_ms.max(*longest_ms);
        self.fresh_ok += fresh_ok;
        self.fresh_failed += fresh_failed;
        self.silent_since_mark += silent_since_mark;
        self.busy += busy;
        self.orders += orders;
        self.first_after_mark_us = match (self.first_after_mark_us, *first_after_mark_us) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        for (server, count) in lost {
            *self.lost.entry(server.clone()).or_default() += count;
        }
        for (server, count) in servers {
            *self.servers.entry(server.clone()).or_default() += count;
        }
        for (server, count) in fresh_servers {
            *self.fresh_servers.entry(server.clone()).or_default() += count;
        }
        let room = FAULTS.saturating_sub(self.faults.len());
        self.faults.extend(faults.iter().take(room).cloned());
        self.finished &= finished;
    }
}

/// For a person who watches.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, open, kept, unopened, broken, servers, longest_ms, fresh_ok, fresh_failed, .. } = self;
        let lost = broken.total() + unopened;
        if self.finished {
            write!(f, "kept {kept} of {asked} connections; {lost} broken; ")?;
        } else {
            let spread: Vec<_> = servers.iter().map(|(server, count)| format!("{server} {count}")).collect();
            let spread = if spread.is_empty() { String::new() } else { format!(" ({})", spread.join(", ")) };
            write!(f, "{open} of {asked} connections open{spread}; {lost} broken; longest wait {longest_ms} ms; ")?;
        }
        write!(f, "new ones: {fresh_ok} good, {fresh_failed} failed")
    }
}

/// A server's report since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReport {
    pub server: String,
    pub accepted: u64,
    pub open: u64,
    pub messages: u64,
    /// Connections of one request that ended as the request asked.
    pub requests: u64,
    /// Connections that the client closed in good order.
    pub finished: u64,
    /// Connections lost: reset, or a message that was not the expected one.
    pub broken: u64,
    pub faults: Vec<String>,
}
