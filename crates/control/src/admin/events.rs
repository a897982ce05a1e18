//! What this router saw happen: kept in memory and in a journal on disk, told to the other routers when they ask, and put together with
//! theirs for `vipactl events`.

use std::{collections::VecDeque, net::IpAddr, path::Path, time::Duration};

use vipa_model::NodeName;
use vipa_protocol::{
    ClusterEvent, EventKind, EventLevel, LimitKind, Question, Reply as QueryAnswer,
    admin::Answer,
    event::{Events, MAX_EVENTS},
};
use vipa_transport::state::Journal;

use crate::{
    admin::{queries::QuerySender, socket::Reply},
    control::Control,
    ownership::restart_gap::unix_ms,
};

/// The name of the journal's files in `state_dir`.
const JOURNAL: &str = "events";
/// Both files of the journal together, bytes.
const JOURNAL_LIMIT: u64 = 4 << 20;
/// Events kept in memory, the latest.
const KEPT: usize = 8_192;
/// Older ones are forgotten.
const KEPT_FOR: Duration = Duration::from_secs(30 * 86_400);

/// The events of this router.
#[derive(Debug)]
pub(crate) struct EventLog {
    me: NodeName,
    kept: VecDeque<ClusterEvent>,
    number: u64,
    /// `None`: the disk has no room for one, and the log has said so.
    journal: Option<Journal<ClusterEvent>>,
}

impl EventLog {
    /// With what earlier lives left in `folder`. A journal that cannot be opened costs what is to be remembered, and nothing else.
    pub(crate) fn open(folder: &Path, me: NodeName) -> Self {
        let (journal, entries) = match Journal::open(folder, JOURNAL, JOURNAL_LIMIT) {
            Ok((journal, entries)) => (Some(journal), entries),
            Err(error) => {
                tracing::warn!(%error, folder = %folder.display(), "events cannot be written down; they are kept in memory only");
                (None, Vec::new())
            }
        };
        let number = entries.iter().map(|event: &ClusterEvent| event.number).max().unwrap_or_default();
        let mut log = Self { me, kept: entries.into(), number, journal };
        log.forget(unix_ms());
        log
    }

    /// Writes an event down.
    pub(crate) fn note(&mut self, what: EventKind, now_unix_ms: u64) {
        let lost = self.journal.as_mut().map_or(0, Journal::take_lost);
        if lost > 0 {
            self.keep(EventKind::Limit { limit: LimitKind::Events, of: lost, target: None }, now_unix_ms);
        }
        self.keep(what, now_unix_ms);
    }

    fn keep(&mut self, what: EventKind, now_unix_ms: u64) {
        self.number += 1;
        let event = ClusterEvent { unix_ms: now_unix_ms, node: self.me.clone(), number: self.number, what };
        if let Some(journal) = &mut self.journal {
            journal.append(&event);
        }
        self.kept.push_back(event);
        self.forget(now_unix_ms);
    }

    fn forget(&mut self, now_unix_ms: u64) {
        let oldest = now_unix_ms.saturating_sub(KEPT_FOR.as_millis() as u64);
        while self.kept.len() > KEPT || self.kept.front().is_some_and(|event| event.unix_ms < oldest) {
            self.kept.pop_front();
        }
    }

    /// The latest since then, the oldest of them first.
    pub(crate) fn since(&self, unix_ms: u64) -> Vec<ClusterEvent> {
        let latest = self.kept.iter().rev().filter(|event| event.unix_ms >= unix_ms).take(MAX_EVENTS);
        let mut events: Vec<ClusterEvent> = latest.cloned().collect();
        events.reverse();
        events
    }
}

/// Puts the events of several routers into one order, each once.
fn merge(mut events: Vec<ClusterEvent>, vipa: Option<IpAddr>) -> (Vec<ClusterEvent>, bool) {
    events.retain(|event| vipa.is_none_or(|vipa| event.what.concerns(vipa)));
    events.sort_by(|one, other| one.id().cmp(&other.id()));
    events.dedup_by(|one, other| one.id() == other.id());
    let too_many = events.len().saturating_sub(MAX_EVENTS);
    events.drain(..too_many);
    (events, too_many > 0)
}

/// Asks the other routers for theirs.
async fn gather(asker: &QuerySender, since_unix_ms: u64, peers: Vec<NodeName>) -> (Vec<ClusterEvent>, Vec<NodeName>) {
    let mut asked = Vec::new();
    for peer in peers {
        let (asker, name) = (asker.clone(), peer.clone());
        let answer = tokio::spawn(async move { asker.ask(&name, Question::Events { since_unix_ms }).await });
        asked.push((peer, answer));
    }
    let (mut events, mut silent) = (Vec::new(), Vec::new());
    for (peer, answer) in asked {
        match answer.await.ok().flatten() {
            // A router tells what it saw, and nothing in another's name.
            Some(QueryAnswer::Events(told)) => events.extend(told.into_iter().filter(|event| event.node == peer)),
            _ => silent.push(peer),
        }
    }
    (events, silent)
}

impl Control {
    /// Something happened that operators may look for: it is logged at its level, and written down.
    pub(crate) fn happened(&mut self, what: EventKind) {
        match what.level() {
            EventLevel::News => tracing::info!("{what}"),
            EventLevel::Warning => tracing::warn!("{what}"),
            EventLevel::Fault => tracing::error!("{what}"),
        }
        self.write_down(what);
    }

    /// As [`happened`](Self::happened), of what the log has been told in other words.
    pub(crate) fn write_down(&mut self, what: EventKind) {
        self.events.note(what, unix_ms());
    }

    /// Answers with the events of all routers that are reached.
    pub(crate) fn tell_events(&self, since_unix_ms: u64, vipa: Option<IpAddr>, reply: Reply) {
        let mine = self.events.since(since_unix_ms);
        let me = &self.config.node.name;
        let others = self.config.cluster.routers.iter().map(|(name, _)| name).filter(|name| *name != me);
        let (linked, mut unlinked): (Vec<_>, Vec<_>) = others.cloned().partition(|name| self.cluster.is_linked(name));
        let asker = self.audits.asker.clone();
        tokio::spawn(async move {
            let (told, silent) = gather(&asker, since_unix_ms, linked).await;
            unlinked.extend(silent);
            unlinked.sort();
            let (events, cut) = merge(mine.into_iter().chain(told).collect(), vipa);
            let events = events.into_iter().map(Into::into).collect();
            reply.end(Answer::Events(Events { events, cut, silent: unlinked }));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn linked(peer: &str) -> EventKind {
        EventKind::Link { peer: name(peer), up: true }
    }

    fn folder(of: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("vipa-events-{of}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn events_outlive_a_restart_and_are_numbered_on() {
        let folder = folder("restart");
        let now = unix_ms();
        let mut log = EventLog::open(&folder, name("r1"));
        log.note(linked("r2"), now);
        log.note(linked("r3"), now + 5);
        drop(log);
        let mut log = EventLog::open(&folder, name("r1"));
        log.note(linked("r4"), now + 9);
        let numbers: Vec<_> = log.since(now + 5).iter().map(|event| event.number).collect();
        assert_eq!((numbers, log.since(0).len()), (vec![2, 3], 3));
        drop(log);
        let _ = std::fs::remove_dir_all(folder);
    }

    #[test]
    fn what_is_kept_is_bounded_by_number_and_age() {
        let folder = folder("bound");
        let mut log = EventLog::open(&folder, name("r1"));
        let month = KEPT_FOR.as_millis() as u64;
        log.note(linked("old"), 1_000);
        log.note(linked("r2"), 1_000 + month);
        assert_eq!(log.since(0).len(), 2);
        log.note(linked("r3"), 1_001 + month);
        assert_eq!(log.since(0).first().map(|event| event.what.clone()), Some(linked("r2")));
        for later in 0..2 * KEPT as u64 {
            log.note(linked("r2"), 1_001 + month + later);
        }
        assert!(log.kept.len() <= KEPT && log.since(0).len() <= MAX_EVENTS);
        drop(log);
        let _ = std::fs::remove_dir_all(folder);
    }

    #[test]
    fn events_of_several_routers_are_in_the_order_of_their_time_each_once_and_of_the_vipa_that_is_asked_for() {
        let vipa: IpAddr = "192.0.2.10".parse().unwrap();
        let event = |unix_ms, node, number, what| ClusterEvent { unix_ms, node: name(node), number, what };
        let fenced = EventKind::Fenced { vipa, epoch: vipa_model::Epoch(7) };
        let first = event(5, "r2", 1, fenced);
        let all = vec![event(9, "r1", 1, linked("r2")), first.clone(), event(7, "r1", 2, linked("t1")), first.clone()];
        let times = |events: &[ClusterEvent]| events.iter().map(|event| event.unix_ms).collect::<Vec<_>>();
        let (merged, cut) = merge(all.clone(), None);
        assert_eq!((times(&merged), cut), (vec![5, 7, 9], false));
        assert_eq!(merge(all, Some(vipa)).0, [first]);
        let many = (0..MAX_EVENTS as u64 + 3).map(|at| event(at, "r1", at, linked("r2"))).collect();
        let (kept, cut) = merge(many, None);
        assert_eq!((kept.len(), kept[0].unix_ms, cut), (MAX_EVENTS, 3, true));
    }
}
