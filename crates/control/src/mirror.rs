//! Connections of targets that have no agent: nobody but the owner knows them, so the owner tells its backups, in order.
//!
//! ```text
//!   backup ── Wanted ──► owner            at first, and whenever a round is missing
//!   backup ◄── Round 7 (whole, in parts), Round 8 (what has changed), Round 9 … ── owner
//! ```
//! A round is what a look at the connection table found changed since the one before; an empty one says that nothing
//! has. A backup is behind by the time between two looks, and by what has passed since it heard the last. What was opened
//! within that time before the owner's death is lost with it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use vipa_flow::{FlowState, Tick};
use vipa_handoff::{AnyKey, Flows};
use vipa_model::{Connection, EntryState, Epoch, Moment, NodeName, Protocol, Service, VipaId};
use vipa_protocol::{Copied, Entry, Mirror, Part, Round};

use crate::ways::{Lists, Ways};

/// Shortest time between two looks at the table.
const PACE: Duration = Duration::from_millis(100);
/// A look may take this share of the time: one part in `SHARE`.
const SHARE: u32 = 10;
/// A backup that has heard no round for this long asks again.
const SILENCE: Duration = Duration::from_secs(1);
/// Connections in one message.
const ROUND_PART: usize = 2048;
/// Entries of a copy are touched this often, so that they do not age while their packets pass elsewhere.
const REFRESH: Duration = Duration::from_secs(60);

/// What one VIPA's owner tells, and its backups hear.
#[derive(Debug, Default)]
pub(crate) struct Mirrors {
    sources: BTreeMap<IpAddr, Source>,
    copies: BTreeMap<IpAddr, Image>,
}

/// The owner's side.
#[derive(Debug, Default)]
struct Source {
    epoch: Epoch,
    /// And whether they know the last round.
    followers: BTreeMap<NodeName, bool>,
    told: HashMap<Connection, (IpAddr, EntryState)>,
    round: u64,
    looked: Moment,
    next_look: Moment,
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
    Telling { followers: Vec<NodeName>, connections: usize },
    Following { from: NodeName, connections: usize, behind: Option<Duration> },
}

impl Mirrors {
    /// A backup asks to be told. This router owns the VIPA in `epoch`.
    pub(crate) fn wanted(&mut self, vipa: IpAddr, epoch: Epoch, by: NodeName) {
        let source = self.sources.entry(vipa).or_default();
        source.epoch = epoch;
        source.followers.insert(by, false);
    }

    /// What the owner of a VIPA has to tell now; `linked` says who can hear it.
    pub(crate) fn tell(
        &mut self,
        about: &About<'_>,
        (flows, ways): (&Flows, &Ways),
        linked: impl Fn(&NodeName) -> bool,
        clock: impl Fn() -> Moment,
    ) -> Vec<(NodeName, Mirror)> {
        self.copies.remove(&about.vipa);
        let Some(source) = self.sources.get_mut(&about.vipa) else { return Vec::new() };
        source.followers.retain(|follower, _| linked(follower));
        let now = clock();
        if source.epoch != about.epoch || source.followers.is_empty() || !about.has_agentless() {
            self.sources.remove(&about.vipa);
            return Vec::new();
        }
        if now < source.next_look {
            return Vec::new();
        }
        let held = held(about, flows, ways);
        let out = source.round(about.vipa, now, held);
        source.next_look = now + (clock().since(now) * SHARE).max(PACE);
        out
    }

    /// What a backup has to ask, if anything; and it keeps what it has fresh.
    pub(crate) fn follow(&mut self, about: &About<'_>, owner: &NodeName, flows: &Flows, now: Moment) -> Option<Mirror> {
        self.sources.remove(&about.vipa);
        if !about.has_agentless() {
            self.copies.remove(&about.vipa);
            return None;
        }
        let copy = self.copies.entry(about.vipa).or_insert_with(|| Image::new(owner, about.epoch));
        if (&copy.from, copy.epoch) != (owner, about.epoch) {
            let known = std::mem::take(&mut copy.known);
            *copy = Image { known, ..Image::new(owner, about.epoch) };
        }
        copy.refresh(flows, now);
        let silent = copy.round.is_none() || now.since(copy.heard) >= SILENCE;
        if !silent || copy.asked != Moment::ZERO && now.since(copy.asked) < SILENCE {
            return None;
        }
        copy.asked = now;
        copy.round = None;
        Some(Mirror { vipa: about.vipa, epoch: about.epoch, copied: Copied::Wanted })
    }

    /// Takes in what the owner tells.
    pub(crate) fn hear(
        &mut self,
        about: &About<'_>,
        from: &NodeName,
        round: Round,
        (flows, ways): (&Flows, &mut Ways),
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
            return Some(State::Telling { followers, connections: source.told.len() });
        }
        let copy = self.copies.get(&vipa)?;
        let behind = copy.round.map(|_| now.since(copy.heard) + copy.span);
        Some(State::Following { from: copy.from.clone(), connections: copy.known.len(), behind })
    }
}

/// The connections of agentless targets in the table. Half-open ones are not worth telling: a SYN is sent again.
fn held(about: &About<'_>, flows: &Flows, ways: &Ways) -> HashMap<Connection, (IpAddr, EntryState)> {
    let mut held = HashMap::new();
    flows.export(about.id, &mut |key, way, state| {
        if let Some(state) = state.told().filter(|state| *state != EntryState::HalfOpen)
            && let Some(target) = ways.address(way)
            && about.is_agentless(key.service(), target)
        {
            held.insert(key.connection(), (target, state));
        }
    });
    held
}

impl Source {
    fn round(
        &mut self,
        vipa: IpAddr,
        now: Moment,
        held: HashMap<Connection, (IpAddr, EntryState)>,
    ) -> Vec<(NodeName, Mirror)> {
        // Before its first look there was none to lag behind.
        let span = if self.round == 0 { Duration::ZERO } else { now.since(self.looked) };
        let span_ms = u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
        self.looked = now;
        self.round += 1;
        let entry =
            |(&connection, &(target, state)): (&Connection, &(IpAddr, EntryState))| Entry { connection, target, state };
        let is_news = |(connection, at): &(&Connection, &(IpAddr, EntryState))| self.told.get(*connection) != Some(*at);
        let opened: Vec<_> = held.iter().filter(is_news).map(entry).collect();
        let closed: Vec<_> = self.told.keys().filter(|connection| !held.contains_key(*connection)).copied().collect();
        let (number, epoch) = (self.round, self.epoch);
        let message = |round| Mirror { vipa, epoch, copied: Copied::Round(round) };
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

    fn take(&mut self, about: &About<'_>, round: Round, flows: &Flows, ways: &mut Ways, now: Moment) {
        let Round { number, part, whole, span_ms, opened, closed } = round;
        let follows = self.round.is_some_and(|last| last + 1 == number);
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
            let Some(way) = ways.find(about.id, about.lists, target, key.service()) else { continue };
            if self.known.get(&key).is_some_and(|before| *before != target) {
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
            (self.round, self.heard, self.span) = (Some(number), now, Duration::from_millis(span_ms.into()));
        }
    }

    /// What the owner's whole does not name is over, whether we had it from an owner or from having been one.
    fn sweep(&mut self, about: &About<'_>, flows: &Flows, ways: &mut Ways) {
        let named = std::mem::take(&mut self.named);
        for (connection, (target, _)) in held(about, flows, ways) {
            let Some(key) = AnyKey::of(about.id, about.vipa, &connection).filter(|key| !named.contains(key)) else {
                continue;
            };
            self.known.remove(&key);
            forget(&key, target, flows, ways);
        }
        self.known.retain(|key, _| named.contains(key));
    }

    fn refresh(&mut self, flows: &Flows, now: Moment) {
        if now.since(self.refreshed) < REFRESH {
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
fn forget(key: &AnyKey, target: IpAddr, flows: &Flows, ways: &Ways) {
    if let Some(hit) = flows.lookup(key).filter(|hit| ways.address(hit.target) == Some(target)) {
        flows.remove(key, Some(hit.target));
    }
}

#[cfg(test)]
mod tests;
