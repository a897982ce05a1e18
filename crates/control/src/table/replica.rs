//! What nobody but the owner knows, the owner tells its backups, in order: the connections of targets that have no agent, and the
//! UDP flows that are pinned. A pinned flow is at another target than the one that hashing chooses now, because the candidates
//! have changed since it began; a backup finds all other flows by hashing.
//!
//! ```text
//!   backup ── Wanted ──► owner            at first, and whenever a round is missing
//!   backup ◄── Round 7 (whole, in parts), Round 8 (what has changed), Round 9 … ── owner
//! ```
//! A round is what a look at the connection table found changed since the one before; an empty one says that nothing
//! has. A backup is behind by the time between two looks, and by what has passed since it heard the last. What was opened
//! within that time before the owner's death is lost with it.

mod walk;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use tokio::sync::oneshot;
use vipa_flow::{FlowState, Tick};
use vipa_handoff::{AnyKey, Flows};
use vipa_model::{Connection, EntryState, Epoch, Moment, NodeName, Protocol, Service, VipaId};
use vipa_protocol::{Copied, Entry, Part, Round, TableReplica};

use crate::network::paths::{Lists, Paths};
use walk::Entries;
pub(crate) use walk::{Subject, Walk};

/// How often control looks whether there is something to tell or to ask.
const LOOK: Duration = Duration::from_millis(50);
/// Shortest time between two looks at the table where there are agentless targets.
const PACE: Duration = Duration::from_millis(100);
/// The same where there are only UDP flows, and for each of the VIPAs that are told: each round is a message to each backup.
const UDP_PACE: Duration = Duration::from_secs(1);
const UDP_PACE_PER_VIPA: Duration = Duration::from_millis(2);
/// A look may take this share of the time: one part in `SHARE`.
const SHARE: u32 = 10;
/// A backup that has heard no round for this long, and for two spans of the round before, asks again.
const SILENCE: Duration = Duration::from_secs(3);
/// The longest span between two rounds that a backup believes.
const LONGEST_SPAN: Duration = Duration::from_secs(60);
/// Between two questions where the owner has the connections that two targets hold.
const LOCATE_PACE: Duration = Duration::from_secs(1);
/// Connections in one message.
const ROUND_PART: usize = 2048;
/// Entries of a copy are touched at least this often, so that they do not age while their packets pass elsewhere.
const REFRESH: Duration = Duration::from_secs(60);

/// What one VIPA's owner tells, and its backups hear.
#[derive(Debug, Default)]
pub(crate) struct TableReplicas {
    sources: BTreeMap<IpAddr, Source>,
    copies: BTreeMap<IpAddr, Image>,
    next_look: Moment,
    next_locate: Moment,
    /// The look at the table that is under way beside the loop.
    walk: Option<oneshot::Receiver<Walk>>,
    next_walk: Moment,
    /// Pinned flows of all VIPAs that the last look left out.
    left_out: u64,
}

/// The owner's side.
#[derive(Debug, Default)]
struct Source {
    epoch: Epoch,
    /// And whether they know the last round.
    followers: BTreeMap<NodeName, bool>,
    told: Entries,
    round: u64,
    looked: Moment,
}

/// A backup's side.
#[derive(Debug)]
struct Image {
    from: NodeName,
    epoch: Epoch,
    /// The last round taken in whole; `None`: the whole is awaited.
    round: Option<u64>,
    asked: Moment,
    heard: Moment,
    span: Duration,
    known: HashMap<AnyKey, IpAddr>,
    /// Of a whole that is still coming.
    named: HashSet<AnyKey>,
    refreshed: Moment,
}

/// A VIPA as this needs to know it.
pub(crate) struct About<'a> {
    pub(crate) vipa: IpAddr,
    pub(crate) id: VipaId,
    pub(crate) epoch: Epoch,
    pub(crate) lists: Lists<'a>,
}

impl About<'_> {
    /// Whether there may be something to tell.
    pub(crate) fn is_mirrored(&self) -> bool {
        self.lists.services.iter().any(|service| service.protocol == Protocol::Udp) || self.has_agentless()
    }

    fn has_agentless(&self) -> bool {
        self.lists.services.iter().any(|service| !service.choice.agentless.is_empty())
    }

    /// Whether nobody but routers knows the connections of this service at this target.
    fn is_agentless(&self, (protocol, port): (Protocol, u16), target: IpAddr) -> bool {
        let has_port = |service: &&Service| service.protocol == protocol && service.ports.contains(port);
        let service = self.lists.services.iter().find(has_port);
        protocol == Protocol::Tcp && service.is_some_and(|service| service.choice.agentless(target).is_some())
    }
}

/// What `vipactl status` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// `left_out`: pinned flows of all VIPAs that are too many to tell.
    Telling {
        followers: Vec<NodeName>,
        connections: usize,
        left_out: u64,
    },
    Following {
        from: NodeName,
        connections: usize,
        behind: Option<Duration>,
    },
}

impl TableReplicas {
    /// A backup asks to be told. This router owns the VIPA in `epoch`.
    pub(crate) fn wanted(&mut self, vipa: IpAddr, epoch: Epoch, by: NodeName) {
        let source = self.sources.entry(vipa).or_default();
        source.epoch = epoch;
        source.followers.insert(by, false);
    }

    /// Whether it is time to look what is to be told and asked.
    pub(crate) fn is_due(&mut self, now: Moment) -> bool {
        is_due(&mut self.next_look, LOOK, now)
    }

    /// Whether it is time to ask owners where they have what two targets hold.
    pub(crate) fn is_locate_due(&mut self, now: Moment) -> bool {
        is_due(&mut self.next_locate, LOCATE_PACE, now)
    }

    /// What a look at the table has found since this was last asked.
    pub(crate) fn walked(&mut self, now: Moment) -> Option<Walk> {
        match self.walk.as_mut()?.try_recv() {
            Ok(walk) => {
                self.walk = None;
                self.next_walk = self.next_walk.max(now + walk.took * SHARE);
                self.left_out = walk.left_out;
                Some(walk)
            }
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => {
                self.walk = None;
                None
            }
        }
    }

    /// Whether the table is to be looked at now for these VIPAs. If so, what is found is sent to the sender.
    pub(crate) fn begin_walk(&mut self, subjects: &[Subject], now: Moment) -> Option<oneshot::Sender<Walk>> {
        if subjects.is_empty() || self.walk.is_some() || now < self.next_walk {
            return None;
        }
        let count = u32::try_from(subjects.len()).unwrap_or(u32::MAX);
        let is_close = subjects.iter().any(Subject::has_agentless);
        self.next_walk = now + if is_close { PACE } else { UDP_PACE + UDP_PACE_PER_VIPA * count };
        let (found, walk) = oneshot::channel();
        self.walk = Some(walk);
        Some(found)
    }

    /// Whether anybody is to be told of a VIPA that this router owns; `linked` says who can hear it.
    pub(crate) fn is_followed(&mut self, about: &About<'_>, linked: impl Fn(&NodeName) -> bool) -> bool {
        self.copies.remove(&about.vipa);
        let Some(source) = self.sources.get_mut(&about.vipa) else { return false };
        source.followers.retain(|follower, _| linked(follower));
        let is_followed = source.epoch == about.epoch && !source.followers.is_empty() && about.is_mirrored();
        if !is_followed {
            self.sources.remove(&about.vipa);
        }
        is_followed
    }

    /// What the owner of a VIPA has to tell after a look at the table that began at this moment.
    pub(crate) fn tell(
        &mut self,
        about: &About<'_>,
        (entries, began): (Entries, Moment),
        now: Moment,
    ) -> Vec<(NodeName, TableReplica)> {
        match self.sources.get_mut(&about.vipa) {
            Some(source) => source.round(about.vipa, (entries, began), now),
            None => Vec::new(),
        }
    }

    /// What a backup has to ask, if anything; and it keeps what it has fresh.
    /// `udp_lifetime`: how long the table keeps a silent UDP flow.
    pub(crate) fn follow(
        &mut self,
        about: &About<'_>,
        owner: &NodeName,
        (flows, udp_lifetime): (&Flows, Duration),
        now: Moment,
    ) -> Option<TableReplica> {
        self.sources.remove(&about.vipa);
        if !about.is_mirrored() {
            self.copies.remove(&about.vipa);
            return None;
        }
        let copy = self.copies.entry(about.vipa).or_insert_with(|| Image::new(owner, about.epoch));
        if (&copy.from, copy.epoch) != (owner, about.epoch) {
            let known = std::mem::take(&mut copy.known);
            *copy = Image { known, ..Image::new(owner, about.epoch) };
        }
        copy.refresh(flows, REFRESH.min(udp_lifetime / 4), now);
        let silent = copy.round.is_none() || now.since(copy.heard) >= SILENCE.max(copy.span * 2);
        if !silent || copy.asked != Moment::ZERO && now.since(copy.asked) < SILENCE {
            return None;
        }
        copy.asked = now;
        copy.round = None;
        Some(TableReplica { vipa: about.vipa, epoch: about.epoch, copied: Copied::Wanted })
    }

    /// Takes in what the owner tells.
    pub(crate) fn receive(
        &mut self,
        about: &About<'_>,
        from: &NodeName,
        round: Round,
        (flows, ways): (&Flows, &mut Paths),
        now: Moment,
    ) {
        if let Some(copy) = self.copies.get_mut(&about.vipa).filter(|copy| copy.from == *from) {
            copy.take(about, round, flows, ways, now);
        }
    }

    /// The VIPA is this router's no more.
    pub(crate) fn forget(&mut self, vipa: IpAddr) {
        self.sources.remove(&vipa);
        self.copies.remove(&vipa);
    }

    pub(crate) fn state(&self, vipa: IpAddr, now: Moment) -> Option<State> {
        if let Some(source) = self.sources.get(&vipa) {
            let followers = source.followers.keys().cloned().collect();
            return Some(State::Telling { followers, connections: source.told.len(), left_out: self.left_out });
        }
        let copy = self.copies.get(&vipa)?;
        let behind = copy.round.map(|_| now.since(copy.heard) + copy.span);
        Some(State::Following { from: copy.from.clone(), connections: copy.known.len(), behind })
    }
}

/// Whether the moment has come; if so the next one comes after `pace`.
fn is_due(next: &mut Moment, pace: Duration, now: Moment) -> bool {
    let due = now >= *next;
    if due {
        *next = now + pace;
    }
    due
}

/// The connections of agentless targets in the table.
fn held(about: &About<'_>, flows: &Flows, ways: &Paths) -> Entries {
    let mut held = Entries::new();
    if !about.has_agentless() {
        return held;
    }
    flows.export(about.id, &mut |key, way, state| {
        let state = state.told();
        if walk::is_worth_telling(state)
            && let Some(target) = ways.address(way)
            && about.is_agentless(key.service(), target)
        {
            held.insert(key.connection(), (target, state));
        }
    });
    held
}

impl Source {
    fn round(&mut self, vipa: IpAddr, (held, began): (Entries, Moment), now: Moment) -> Vec<(NodeName, TableReplica)> {
        // Before its first look there was none to lag behind.
        let span = now.since(if self.round == 0 { began } else { self.looked });
        let span_ms = u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
        self.looked = began;
        self.round += 1;
        let entry =
            |(&connection, &(target, state)): (&Connection, &(IpAddr, EntryState))| Entry { connection, target, state };
        let is_stale =
            |(connection, at): &(&Connection, &(IpAddr, EntryState))| self.told.get(*connection) != Some(*at);
        let opened: Vec<_> = held.iter().filter(is_stale).map(entry).collect();
        let closed: Vec<_> = self.told.keys().filter(|connection| !held.contains_key(*connection)).copied().collect();
        let (number, epoch) = (self.round, self.epoch);
        let message = |round| TableReplica { vipa, epoch, copied: Copied::Round(round) };
        let mut out = Vec::new();
        for (follower, knows) in &mut self.followers {
            let (whole, opened, closed): (_, Vec<_>, &[Connection]) = match std::mem::replace(knows, true) {
                true => (false, opened.clone(), &closed[..]),
                false => (true, held.iter().map(entry).collect(), &[][..]),
            };
            let count = opened.len().max(closed.len()).div_ceil(ROUND_PART).max(1);
            let (mut opened, mut closed) = (opened.chunks(ROUND_PART), closed.chunks(ROUND_PART));
            for index in 0..count {
                let part = match (index, index + 1 == count) {
                    (0, true) => Part::Only,
                    (0, false) => Part::First,
                    (_, true) => Part::Last,
                    (_, false) => Part::Middle,
                };
                let opened = opened.next().unwrap_or_default().to_vec();
                let closed = closed.next().unwrap_or_default().to_vec();
                out.push((follower.clone(), message(Round { number, part, whole, span_ms, opened, closed })));
            }
        }
        self.told = held;
        out
    }
}

impl Image {
    fn new(from: &NodeName, epoch: Epoch) -> Self {
        Self {
            from: from.clone(),
            epoch,
            round: None,
            asked: Moment::ZERO,
            heard: Moment::ZERO,
            span: Duration::ZERO,
            known: HashMap::new(),
            named: HashSet::new(),
            refreshed: Moment::ZERO,
        }
    }

    fn take(&mut self, about: &About<'_>, round: Round, flows: &Flows, ways: &mut Paths, now: Moment) {
        let Round { number, part, whole, span_ms, opened, closed } = round;
        let follows = self.round.is_some_and(|last| last.checked_add(1) == Some(number));
        if !whole && !follows {
            // Something is missing. What has been taken in stays true for the most part; the whole is asked for.
            self.round = None;
            return;
        }
        if whole && matches!(part, Part::Only | Part::First) {
            self.named.clear();
        }
        let tick = Tick::from(now);
        for connection in closed {
            if let Some(key) = AnyKey::of(about.id, about.vipa, &connection)
                && let Some(target) = self.known.remove(&key)
            {
                forget(&key, target, flows, ways);
            }
        }
        for Entry { connection, target, state } in opened {
            let Some(key) = AnyKey::of(about.id, about.vipa, &connection) else { continue };
            // More than the table has room for are nobody's.
            if self.known.len() >= flows.capacity() && !self.known.contains_key(&key) {
                continue;
            }
            let Some(way) = ways.find(about.id, about.lists, target, key.service()) else { continue };
            let is_moved = self.known.get(&key).is_some_and(|before| *before != target);
            // No target reports a UDP flow: the owner's word is newer than what is left of an earlier ownership.
            let is_stale = state == EntryState::Udp && flows.lookup(&key).is_some_and(|hit| hit.target != way);
            if is_moved || is_stale {
                flows.remove(&key, None);
            }
            flows.follow(&key, way, FlowState::of_told(state), tick);
            self.known.insert(key, target);
            if whole {
                self.named.insert(key);
            }
        }
        if matches!(part, Part::Only | Part::Last) {
            if whole {
                self.sweep(about, flows, ways);
            }
            let span = Duration::from_millis(span_ms.into()).min(LONGEST_SPAN);
            (self.round, self.heard, self.span) = (Some(number), now, span);
        }
    }

    /// What the owner's whole does not name is over, whether we had it from an owner or from having been one. UDP flows from having
    /// been one age by themselves.
    fn sweep(&mut self, about: &About<'_>, flows: &Flows, ways: &mut Paths) {
        let named = std::mem::take(&mut self.named);
        for (connection, (target, _)) in held(about, flows, ways) {
            let Some(key) = AnyKey::of(about.id, about.vipa, &connection).filter(|key| !named.contains(key)) else {
                continue;
            };
            self.known.remove(&key);
            forget(&key, target, flows, ways);
        }
        let is_named = |key: &AnyKey, target: &mut IpAddr| {
            let is_named = named.contains(key);
            if !is_named {
                forget(key, *target, flows, ways);
            }
            is_named
        };
        self.known.retain(is_named);
    }

    fn refresh(&mut self, flows: &Flows, pace: Duration, now: Moment) {
        if now.since(self.refreshed) < pace {
            return;
        }
        self.refreshed = now;
        let tick = Tick::from(now);
        for key in self.known.keys() {
            if let Some(hit) = flows.lookup(key) {
                flows.touch(key, &hit, hit.state, tick);
            }
        }
    }
}

/// Takes a connection out that is at this target, whichever way leads there.
fn forget(key: &AnyKey, target: IpAddr, flows: &Flows, ways: &Paths) {
    if let Some(hit) = flows.lookup(key).filter(|hit| ways.address(hit.target) == Some(target)) {
        flows.remove(key, Some(hit.target));
    }
}

#[cfg(test)]
mod tests;
