//! Accept queues: which listeners accept their connections. Pure.
//!
//! ```text
//!              something waits, and for HALF the queue has not been seen to fall
//!   Accepting ────────────────────► a sample of who waits is taken
//!       ▲  ▲                               │ PATIENCE is over, and none of the sample has been accepted
//!       │  └── one of them was ────────────┤
//!       │                                  ▼
//!       └── the queue is half empty ─── Stalled            Full: more wait than there is room for, twice in a row
//! ```
//! A queue of constant length may be that of a busy server that accepts as fast as clients come. So the length alone
//! proves nothing: waiting connections are sampled by name, and checked again.
//!
//! A connection that waited in a stalled queue, or in one whose listener is gone, was not served in time, whoever
//! accepts it afterwards: its client may have given up long ago. Such connections are counted as they leave the queue.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use vipa_model::Moment;
use vipa_protocol::Accepting;

/// A listener that accepts nothing for this long, while a connection waits, does not serve.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// Time after which it is suspected.
const HALF: Duration = Duration::from_millis(500);
/// Waiting connections named in one sample.
pub(crate) const SAMPLE: usize = 16;

/// One end of a connection: an address and a port.
pub(crate) type End = (IpAddr, u16);

/// One listening socket as the kernel shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Distinguishes listeners of one port.
    pub(crate) cookie: u64,
    pub(crate) local: End,
    pub(crate) waiting: u32,
    pub(crate) room: u32,
}

/// A question to the kernel whose answer decides about a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Which connections wait to be accepted on this port? At most `SAMPLE` of them.
    WhoWaits { cookie: u64, port: u16 },
    /// What has become of these connections?
    WhatOfThem { cookie: u64, who: Vec<(End, End)> },
}

/// What has become of a connection that waited to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fortune {
    Waits,
    Accepted,
    /// Ended; whether it had been accepted is unknown.
    Gone,
}

/// The queues of the present listeners.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    queues: BTreeMap<u64, Queue>,
    /// Connections that waited in vain since they were last taken, by their listener's cookie.
    late: BTreeMap<u64, u32>,
}

#[derive(Debug)]
struct Queue {
    seen: Seen,
    accepting: Accepting,
    /// Since when no connection is known to have been accepted; has a meaning while a connection waits.
    still_since: Moment,
    /// The connections that waited when it became suspect.
    sample: Option<Vec<(End, End)>>,
    /// The number of waiting connections when it was found stalled.
    stalled_at: u32,
    was_full: bool,
}

impl Queues {
    /// Applies a look at all listeners, and returns the next questions; the answers go to `sampled` and `learnt`.
    pub(crate) fn observe(&mut self, now: Moment, listeners: &[Seen]) -> Vec<Question> {
        self.queues.retain(|cookie, queue| {
            let stays = listeners.iter().any(|seen| seen.cookie == *cookie);
            if !stays {
                note(&mut self.late, *cookie, queue.seen.waiting);
            }
            stays
        });
        let mut questions = Vec::new();
        for seen in listeners {
            let queue = self.queues.entry(seen.cookie).or_insert_with(|| Queue::new(*seen, now));
            if queue.accepting == Accepting::Stalled {
                note(&mut self.late, seen.cookie, queue.seen.waiting.saturating_sub(seen.waiting));
            }
            questions.extend(queue.observe(now, *seen));
        }
        questions
    }

    /// The connections that waited in vain and have left their queues since the last call, by their listener's cookie.
    pub(crate) fn take_late(&mut self) -> BTreeMap<u64, u32> {
        std::mem::take(&mut self.late)
    }

    /// Applies the answer to `WhoWaits`.
    pub(crate) fn sampled(&mut self, cookie: u64, who: Vec<(End, End)>) {
        if let Some(queue) = self.queues.get_mut(&cookie) {
            queue.sample = Some(who);
        }
    }

    /// Applies the answer to `WhatOfThem`.
    pub(crate) fn learnt(&mut self, now: Moment, cookie: u64, fortunes: &[Fortune]) {
        if let Some(queue) = self.queues.get_mut(&cookie) {
            queue.judge(now, fortunes);
        }
    }

    /// Every listener in trouble, or with waiting connections.
    pub(crate) fn notable(&self) -> impl Iterator<Item = (&Seen, Accepting)> {
        let queues = self.queues.values();
        let notable = queues.filter(|queue| queue.seen.waiting > 0 || queue.accepting != Accepting::Yes);
        notable.map(|queue| (&queue.seen, queue.accepting))
    }

    /// How full the fullest queue is, in thousandths.
    pub(crate) fn fullest_permille(&self) -> u16 {
        let fill = |queue: &Queue| u64::from(queue.seen.waiting) * 1000 / u64::from(queue.seen.room.max(1));
        self.queues.values().map(|queue| fill(queue).min(1000) as u16).max().unwrap_or_default()
    }
}

fn note(late: &mut BTreeMap<u64, u32>, cookie: u64, count: u32) {
    if count > 0 {
        *late.entry(cookie).or_default() += count;
    }
}

impl Queue {
    fn new(seen: Seen, now: Moment) -> Self {
        Self { seen, accepting: Accepting::Yes, still_since: now, sample: None, stalled_at: 0, was_full: false }
    }

    fn observe(&mut self, now: Moment, seen: Seen) -> Option<Question> {
        let before = std::mem::replace(&mut self.seen, seen);
        let fell = seen.waiting < before.waiting;
        if seen.waiting == 0 || fell || before.waiting == 0 {
            self.moved(now);
        }
        let is_full = seen.waiting > seen.room;
        self.accepting = match self.accepting {
            Accepting::Stalled if seen.waiting > self.stalled_at / 2 => Accepting::Stalled,
            Accepting::Full if seen.waiting > seen.room / 2 => Accepting::Full,
            Accepting::Yes | Accepting::Full | Accepting::Stalled if is_full && self.was_full => Accepting::Full,
            Accepting::Yes | Accepting::Full | Accepting::Stalled => Accepting::Yes,
        };
        self.was_full = is_full;
        if self.accepting == Accepting::Stalled || seen.waiting == 0 {
            return None;
        }
        let still = now.since(self.still_since);
        let cookie = seen.cookie;
        match &self.sample {
            None if still >= HALF => Some(Question::WhoWaits { cookie, port: seen.local.1 }),
            Some(who) if still >= PATIENCE => Some(Question::WhatOfThem { cookie, who: who.clone() }),
            _ => None,
        }
    }

    fn moved(&mut self, now: Moment) {
        self.still_since = now;
        self.sample = None;
    }

    fn judge(&mut self, now: Moment, fortunes: &[Fortune]) {
        let count = |wanted| fortunes.iter().filter(|fortune| **fortune == wanted).count();
        // Most are gone: they were probably served quickly. No waiting connection can be named while the queue does not
        // shrink: their clients gave up, and they still occupy their places.
        if count(Fortune::Accepted) > 0 || count(Fortune::Gone) > count(Fortune::Waits) {
            self.moved(now);
        } else {
            self.accepting = Accepting::Stalled;
            self.stalled_at = self.seen.waiting;
        }
    }
}

#[cfg(test)]
mod tests;
