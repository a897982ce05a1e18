//! One VIPA at one target: its lists, its log, and the routers that get both.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vipa_model::{Connection, ConnectionState, Epoch, Forwarding, NodeName, PortRange, Protocol, ServicePath};
use vipa_protocol::{Connections, Distribution, Listeners, Message, Position, Record, Standing, VipaSummary};

use super::{Outbox, Output, Translated, Watched};
use crate::{
    log::ConnectionLog,
    paths::{LearnedPaths, MAX_LEARNED_PATHS, MAX_REPORTED_PATHS},
};

/// Ranks of one VIPA that are kept; more routers no cluster has.
const MAX_RANKS: usize = 256;
/// Looks at the kernel after which connections of a translation that no list has any more must have been found.
const LOOKS_FOR_OUTLIVED: u8 = 3;

#[derive(Clone, Debug)]
pub(super) struct Serving {
    vipa: IpAddr,
    /// The highest epoch of an owner's message here.
    epoch: Epoch,
    /// What each router distributed last. Kept when the link ends: a router that died may be back.
    lists: BTreeMap<NodeName, List>,
    /// The routers to which each router that distributes the VIPA gives a rank.
    ranked: BTreeMap<NodeName, BTreeSet<NodeName>>,
    /// The router that last sent a message here as the owner.
    owner: Option<KnownOwner>,
    routers: BTreeMap<NodeName, Association>,
    log: ConnectionLog,
    listening: BTreeSet<(Protocol, u16)>,
    /// The services' part of it, as it was last sent.
    told: Vec<(Protocol, u16)>,
    /// The paths by which packets come here, of present and former lists: a connection outlives the list that it came
    /// by.
    paths: LearnedPaths,
    /// The paths that the routers were sent.
    sent_paths: Vec<ServicePath>,
    /// Translations that no list has any more and that connections may still have, and the looks at the kernel since.
    former_translations: BTreeMap<Translated, u8>,
}

#[derive(Clone, Debug)]
struct List {
    standing: Standing,
    epoch: Epoch,
    services: BTreeSet<(Protocol, PortRange)>,
    /// Whether its packets come here with the VIPA as their destination.
    serves: bool,
    translated: BTreeSet<Translated>,
}

#[derive(Clone, Debug)]
struct KnownOwner {
    router: NodeName,
    /// Another router gave it a rank when it came to own the VIPA. It keeps that until another router owns the VIPA:
    /// ranks change by reloads, one router after the other.
    had_rank: bool,
}

#[derive(Clone, Debug)]
struct Association {
    epoch: Epoch,
    standing: Standing,
    progress: Progress,
}

#[derive(Clone, Copy, Debug)]
enum Progress {
    /// Waits for the look of this token; the router has read the log up to `seen`.
    Looking { token: u64, seen: Option<Position> },
    /// Has been sent everything up to here.
    Told(Position),
}

impl Serving {
    /// `logged`: how far the logs of VIPAs that were forgotten here have come.
    pub(super) fn new(vipa: IpAddr, logged: Position, kept_records: usize) -> Self {
        Self {
            vipa,
            epoch: Epoch::NONE,
            lists: BTreeMap::new(),
            ranked: BTreeMap::new(),
            owner: None,
            routers: BTreeMap::new(),
            log: ConnectionLog::after(logged, kept_records),
            listening: BTreeSet::new(),
            told: Vec::new(),
            paths: LearnedPaths::default(),
            sent_paths: Vec::new(),
            former_translations: BTreeMap::new(),
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether the router may own the VIPA, by the ranks that the VIPA's other routers have distributed: not if two of
    /// them at least have, and most of them give it none. A router's own list does not count for itself, nor a single
    /// one against another router.
    pub(super) fn may_be_owned_by(&self, router: &NodeName) -> bool {
        // Called with every beat, for each VIPA: the check without a search comes first.
        if self.owner.as_ref().is_some_and(|owner| owner.router == *router && owner.had_rank) {
            return true;
        }
        let others = || self.ranked.iter().filter(|(name, _)| *name != router);
        let (all, with) = (others().count(), others().filter(|(_, ranked)| ranked.contains(router)).count());
        all < 2 || with * 2 >= all
    }

    /// Records that the router is the owner from now on.
    fn owned_by(&mut self, router: &NodeName, epoch: Epoch) {
        self.epoch = epoch;
        let is_ranked = self.ranked.iter().any(|(name, ranked)| name != router && ranked.contains(router));
        let had_rank = is_ranked || self.owner.as_ref().is_some_and(|owner| owner.router == *router && owner.had_rank);
        self.owner = Some(KnownOwner { router: router.clone(), had_rank });
    }

    /// Withdraws what a router has sent as the owner, if the others turn out to give it no rank: it was accepted before
    /// their ranks arrived.
    fn depose_unranked_owner(&mut self) {
        let may_be = |owner: &&KnownOwner| self.may_be_owned_by(&owner.router);
        if self.owner.as_ref().is_none_or(|owner| may_be(&owner)) {
            return;
        }
        let Some(KnownOwner { router, .. }) = self.owner.take() else { return };
        if let Some(association) = self.routers.get_mut(&router) {
            association.standing = Standing::Backup;
        }
        self.forget_list(&router);
        let ranked = self.routers.iter().filter(|(name, _)| **name != router && self.may_be_owned_by(name));
        self.epoch = ranked.map(|(_, association)| association.epoch).max().unwrap_or(Epoch::NONE);
    }

    /// True when there was one.
    fn forget_list(&mut self, router: &NodeName) -> bool {
        let Some(list) = self.lists.remove(router) else { return false };
        // Its connections are still here.
        self.former_translations.extend(list.translated.into_iter().map(|translated| (translated, 0)));
        true
    }

    pub(super) fn log(&self) -> &ConnectionLog {
        &self.log
    }

    pub(super) fn summary(&self) -> VipaSummary {
        VipaSummary {
            vipa: self.vipa,
            epoch: self.epoch,
            connections: self.log.live().len(),
            records: self.log.records(),
            position: self.log.position(),
            listening: self.told.clone(),
            reports_to: self.associations(),
        }
    }

    pub(super) fn associations(&self) -> Vec<(NodeName, Standing, Epoch)> {
        self.routers.iter().map(|(name, router)| (name.clone(), router.standing, router.epoch)).collect()
    }

    /// Whether the VIPA must be on this host: a list names it, or a router still sends messages about it.
    pub(super) fn is_needed_here(&self) -> bool {
        let untranslated = self.listed_translations().next().is_none() && self.former_translations.is_empty();
        (untranslated && !self.log.live().is_empty()) || self.lists.values().any(|list| list.serves)
    }

    /// Whether its packets may come to this host in tunnels.
    pub(super) fn is_tunnelled_here(&self) -> bool {
        self.is_tunnelled() && self.is_needed_here()
    }

    pub(super) fn watched(&self) -> Watched {
        let services: BTreeSet<_> = self.lists.values().flat_map(|list| list.services.iter().copied()).collect();
        Watched {
            vipa: self.vipa,
            services: services.into_iter().collect(),
            translated: self.translated().into_iter().collect(),
        }
    }

    /// The translations of lists, and former ones that connections may outlive.
    fn translated(&self) -> BTreeSet<Translated> {
        self.listed_translations().chain(self.former_translations.keys().copied()).collect()
    }

    fn listed_translations(&self) -> impl Iterator<Item = Translated> {
        self.lists.values().flat_map(|list| list.translated.iter().copied())
    }

    /// Whether its packets come here in tunnels, or have come, so that those of its connections still may.
    fn is_tunnelled(&self) -> bool {
        self.paths.any(|path| path.forwarding.is_tunnel())
    }

    /// `me` is this target's own address.
    pub(super) fn distributed(&mut self, from: &NodeName, distribution: Distribution, me: IpAddr, out: &mut Outbox) {
        let Distribution { vipa: _, epoch, sender, ranks, services, paths } = distribution;
        let ranked = ranks.into_iter().take(MAX_RANKS).map(|(router, _)| router).collect();
        self.ranked.insert(from.clone(), ranked);
        self.depose_unranked_owner();
        if sender == Standing::Owner {
            if epoch < self.epoch {
                return;
            }
            self.owned_by(from, epoch);
            let translated: Vec<_> = self.listed_translations().collect();
            // An owner that is superseded has no say any more, until it sends again.
            self.lists.retain(|_, list| list.standing == Standing::Backup || list.epoch >= epoch);
            // Its connections are still here.
            self.former_translations.extend(translated.into_iter().map(|translated| (translated, 0)));
        }
        let mine: Vec<ServicePath> = services.iter().filter_map(|service| service.path_to(me)).collect();
        let serves = mine.iter().any(|service| service.path.forwarding != Forwarding::Nat);
        let translated = mine.iter().filter_map(|service| Translated::of(service, me)).collect();
        for service in mine {
            // Most connections come by the owner's list.
            match sender {
                Standing::Owner => self.paths.learn(me, service),
                Standing::Backup => self.paths.fill(me, service),
            };
        }
        // Paths that the router has learned of connections here: from before this agent started.
        for path in paths.into_iter().take(MAX_LEARNED_PATHS).filter(|path| path.target == me) {
            self.paths.fill(me, path.service);
            self.former_translations.extend(Translated::of(&path.service, me).map(|translated| (translated, 0)));
        }
        let services = services.iter().map(|service| (service.protocol, service.ports)).collect();
        let replaced = self.lists.insert(from.clone(), List { standing: sender, epoch, services, serves, translated });
        let translated = replaced.into_iter().flat_map(|list| list.translated);
        self.former_translations.extend(translated.map(|translated| (translated, 0)));
        let listed: BTreeSet<Translated> = self.listed_translations().collect();
        self.former_translations.retain(|translated, _| !listed.contains(translated));
        self.tell_listeners(out);
    }

    pub(super) fn associate(
        &mut self,
        router: &NodeName,
        epoch: Epoch,
        standing: Standing,
        seen: Option<Position>,
        token: u64,
    ) {
        if standing == Standing::Owner {
            self.owned_by(router, epoch);
            for other in self.routers.values_mut() {
                other.standing = Standing::Backup;
            }
        }
        let progress = Progress::Looking { token, seen };
        self.routers.insert(router.clone(), Association { epoch, standing, progress });
    }

    /// Its link has ended.
    pub(super) fn part_from(&mut self, router: &NodeName) {
        self.routers.remove(router);
    }

    /// It has dropped the VIPA: its list counts no more.
    pub(super) fn released(&mut self, router: &NodeName, out: &mut Outbox) {
        self.routers.remove(router);
        self.ranked.remove(router);
        if self.forget_list(router) {
            self.tell_listeners(out);
        }
    }

    /// Whether no node has any business with it: no router gets reports, no list names it, no connection is left.
    pub(super) fn is_forgotten(&self) -> bool {
        self.routers.is_empty() && self.lists.is_empty() && self.log.live().is_empty()
    }

    pub(super) fn holds(&mut self, connections: Vec<(Connection, ConnectionState)>, out: &mut Outbox) {
        if self.log.observe(connections) {
            self.tell_news(out);
        }
        let live = self.log.live();
        self.former_translations.retain(|translated, looks| {
            *looks += 1;
            let of_it = |connection: Connection| translated.port_here(connection.protocol, connection.port).is_some();
            *looks < LOOKS_FOR_OUTLIVED || live.iter().any(|(connection, _)| of_it(connection))
        });
    }

    pub(super) fn changed(&mut self, records: Vec<Record>, out: &mut Outbox) {
        let mut news = false;
        for record in records {
            news |= self.log.apply(record);
        }
        if news {
            self.tell_news(out);
        }
    }

    pub(super) fn listening(&mut self, listening: Vec<(Protocol, u16)>, out: &mut Outbox) {
        self.listening = listening.into_iter().collect();
        self.tell_listeners(out);
    }

    /// The state of this moment is in the log: the routers that waited for it are answered.
    pub(super) fn looked(&mut self, token: u64, out: &mut Outbox) {
        for (name, router) in &mut self.routers {
            let Progress::Looking { token: awaited, seen } = router.progress else { continue };
            if awaited > token {
                continue;
            }
            let listeners = Listeners { vipa: self.vipa, listening: self.told.clone(), paths: self.sent_paths.clone() };
            out.push(Output::Send { to: name.clone(), message: Message::Listeners(listeners) });
            send_runs(self.vipa, &self.log, name, seen, Some(router.epoch), out);
            router.progress = Progress::Told(self.log.position());
        }
    }

    fn tell_news(&mut self, out: &mut Outbox) {
        for (name, router) in &mut self.routers {
            if let Progress::Told(position) = router.progress {
                send_runs(self.vipa, &self.log, name, Some(position), None, out);
                router.progress = Progress::Told(self.log.position());
            }
        }
    }

    fn tell_listeners(&mut self, out: &mut Outbox) {
        let services = self.watched().services;
        let wanted = |&(protocol, port): &(Protocol, u16)| {
            services.iter().any(|(of, ports)| *of == protocol && ports.contains(port))
        };
        let listening: Vec<_> = self.listening.iter().copied().filter(|listener| wanted(listener)).collect();
        let mut paths: Vec<ServicePath> = self.paths.all().into_iter().map(|known| known.service).collect();
        // The newest count more.
        paths.drain(..paths.len().saturating_sub(MAX_REPORTED_PATHS));
        if listening == self.told && paths == self.sent_paths {
            return;
        }
        (self.told, self.sent_paths) = (listening, paths);
        for (name, router) in &self.routers {
            if matches!(router.progress, Progress::Told(_)) {
                let listeners =
                    Listeners { vipa: self.vipa, listening: self.told.clone(), paths: self.sent_paths.clone() };
                out.push(Output::Send { to: name.clone(), message: Message::Listeners(listeners) });
            }
        }
    }
}

/// Brings one router up to date; the last run carries `answers`.
fn send_runs(
    vipa: IpAddr,
    log: &ConnectionLog,
    to: &NodeName,
    seen: Option<Position>,
    answers: Option<Epoch>,
    out: &mut Outbox,
) {
    let runs = log.runs_after(seen);
    let last = runs.len() - 1;
    for (index, (run, upto)) in runs.into_iter().enumerate() {
        let answers = if index == last { answers } else { None };
        let message = Message::Connections(Connections { vipa, run, upto, answers });
        out.push(Output::Send { to: to.clone(), message });
    }
}
