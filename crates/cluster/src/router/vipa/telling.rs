//! Lists, links and reports of a VIPA: what this router sends to the other nodes, and receives from them.

use std::{collections::BTreeMap, net::IpAddr};

use vipa_model::{Epoch, NodeName, Protocol, Service, ServicePath, TargetPath};
use vipa_protocol::{
    Associate, Ballot, Claim, Connections, Distribution, Entry, Listeners, Message, Part, Release, Role, Standing,
};

use super::{Input, Phase, Vipa};
use crate::paths::{MAX_LEARNED_PATHS, MAX_REPORTED_PATHS, StoredLists};
use crate::router::{
    Context, Output, VipaSettings,
    io::Resting,
    reports::{LogUpdate, TargetView},
};

impl Vipa {
    /// The list that new connections use here.
    pub(in super::super) fn services(&self) -> &[Service] {
        self.settings.services.as_deref().or(self.distributed.as_deref()).unwrap_or_default()
    }

    /// Every candidate of this router's list and of the owner's.
    pub(in super::super) fn candidates(&self) -> Vec<IpAddr> {
        let lists = self.services().iter().chain(self.distributed.iter().flatten());
        let mut candidates: Vec<IpAddr> = lists.flat_map(|service| service.candidates.iter().copied()).collect();
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }

    /// Whether this router's list, the owner's, or an earlier one of either, names the target for the port.
    pub(in super::super) fn is_listed(&self, target: IpAddr, (protocol, port): (Protocol, u16)) -> bool {
        let names = |service: &Service| {
            service.protocol == protocol && service.ports.contains(port) && service.candidates.contains(&target)
        };
        self.services().iter().chain(self.distributed.iter().flatten()).any(names)
            || self.paths.is_listed(target, (protocol, port))
    }

    /// Candidates that have an agent, from which reports can be expected.
    pub(super) fn reporters(&self) -> Vec<IpAddr> {
        let services = || self.services().iter().chain(self.distributed.iter().flatten());
        let tells = |candidate: &IpAddr| {
            services()
                .any(|service| service.candidates.contains(candidate) && service.choice.agentless(*candidate).is_none())
        };
        self.candidates().into_iter().filter(tells).collect()
    }

    /// Emits the list first of all, so that the candidates' neighbours are resolved before they are needed.
    pub(in super::super) fn greet(&mut self, cx: &mut Context<'_>) {
        let paths = self.paths.all();
        if !paths.is_empty() {
            cx.out.push(Output::Paths { vipa: self.settings.address, paths });
        }
        if !self.services().is_empty() {
            self.serve(cx);
        }
    }

    /// Emits the list that new connections use here.
    pub(super) fn serve(&mut self, cx: &mut Context<'_>) {
        cx.out.push(Output::ServeWith { vipa: self.settings.address, services: self.services().to_vec() });
        self.rest(cx);
    }

    /// Emits the targets that get no new connections, when they have changed.
    pub(in super::super) fn rest(&mut self, cx: &mut Context<'_>) {
        let vipa = self.settings.address;
        let named =
            |target: &IpAddr| self.targets.iter().find(|(_, view)| view.address == *target).map(|(node, _)| node);
        let mut resting = Vec::new();
        for service in self.services() {
            let candidates = service.candidates.iter().copied();
            let rests = candidates.filter(|target| cx.decision_log.rests(vipa, service, *target, named(target)));
            let (protocol, ports) = (service.protocol, service.ports);
            resting.extend(rests.map(|target| Resting { protocol, ports, target }));
        }
        if resting != self.resting {
            self.resting.clone_from(&resting);
            cx.out.push(Output::Rest { vipa, resting });
        }
    }

    pub(in super::super) fn resting(&self) -> &[Resting] {
        &self.resting
    }

    /// Applies a changed configuration.
    pub(in super::super) fn configure(&mut self, settings: VipaSettings, cx: &mut Context<'_>) {
        let was_retired = std::mem::replace(&mut self.retired, false);
        if self.settings == settings && !was_retired {
            return;
        }
        let before = self.services().to_vec();
        self.settings = settings;
        if before != self.services() {
            self.serve(cx);
            // The targets that this list has lost may still hold connections.
            self.learn(paths_of(&before), cx);
        }
        if self.ownership().is_some() {
            self.tell_all(cx);
        } else {
            self.tell_targets(cx);
        }
        self.step(Input::Reordered, cx);
    }

    /// Retires a VIPA that is no longer in the configuration: an owner hands it over first.
    pub(in super::super) fn retire(&mut self, cx: &mut Context<'_>) {
        let owns = self.ownership().is_some();
        if !std::mem::replace(&mut self.retired, true) {
            if owns {
                self.hand_over(cx);
            } else {
                self.step(Input::Reordered, cx);
            }
        }
    }

    /// For a retired VIPA: no target reports it here any more.
    pub(in super::super) fn leave_nothing(&mut self, cx: &mut Context<'_>) {
        let (vipa, epoch) = (self.settings.address, self.epoch);
        let linked = self.targets.iter().filter(|(_, view)| view.linked);
        for target in linked.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            cx.send(&target, Message::Release(Release { vipa, epoch }));
        }
        for target in self.targets.values().filter(|view| view.is_warm()).map(|view| view.address) {
            cx.out.push(Output::Complete { vipa, target, complete: false });
        }
        cx.out.push(Output::Dropped { vipa });
    }

    pub(in super::super) fn linked(&mut self, peer: &NodeName, role: &Role, cx: &mut Context<'_>) {
        if self.ownership().is_some() {
            cx.beats.hurry(self.settings.address);
        }
        match *role {
            Role::Router => {
                if self.ownership().is_some() {
                    self.distribute(peer, cx);
                }
            }
            Role::Target { address } => {
                self.targets.entry(peer.clone()).or_insert_with(|| TargetView::new(address)).link(address, cx.now);
                self.tell_completeness(peer, cx);
                self.rest(cx);
                self.tell_target(peer, cx);
            }
        }
        let ballot = match &self.phase {
            Phase::Suspecting(candidacy) => Some((Ballot::Trial, candidacy.epoch)),
            Phase::Claiming(candidacy) => Some((Ballot::Real { round: candidacy.round }, candidacy.epoch)),
            Phase::Standby | Phase::Rebuilding(_) | Phase::Active(_) | Phase::Yielding { .. } => None,
        };
        if cx.settings.electors().contains(peer) {
            if self.ballots_lost > 0 {
                (self.ballots_lost, self.not_before) = (0, cx.now);
            }
            if let Some((ballot, epoch)) = ballot {
                cx.claim(peer, Claim { vipa: self.settings.address, epoch, ballot });
            }
        }
    }

    pub(in super::super) fn unlinked(&mut self, peer: &NodeName, cx: &mut Context<'_>) {
        if let Some(view) = self.targets.get_mut(peer) {
            view.unlink();
            let (vipa, target) = (self.settings.address, view.address);
            cx.out.push(Output::Listeners { vipa, target, listening: Vec::new() });
        }
        self.tell_completeness(peer, cx);
        self.step(Input::Reported, cx);
    }

    /// Emits whether a target's reports are complete, when that has changed.
    fn tell_completeness(&mut self, target: &NodeName, cx: &mut Context<'_>) {
        if let Some(view) = self.targets.get_mut(target)
            && let Some(complete) = view.news_of_warmth()
        {
            cx.out.push(Output::Complete { vipa: self.settings.address, target: view.address, complete });
        }
    }

    /// Asks a target for everything it holds, however far its log has been read.
    pub(in super::super) fn read_anew(&mut self, target: &NodeName, cx: &mut Context<'_>) {
        if let Some((epoch, standing)) = self.targets.get(target).filter(|view| view.linked).and_then(|view| view.asked)
        {
            cx.send(target, Message::Associate(Associate { vipa: self.settings.address, epoch, standing, seen: None }));
        }
    }

    pub(super) fn tell_all(&mut self, cx: &mut Context<'_>) {
        let routers: Vec<NodeName> =
            cx.peers.iter().filter(|(_, peer)| peer.role == Role::Router).map(|(name, _)| name.clone()).collect();
        for router in routers {
            self.distribute(&router, cx);
        }
        self.tell_targets(cx);
    }

    pub(super) fn tell_targets(&mut self, cx: &mut Context<'_>) {
        let linked: Vec<NodeName> =
            self.targets.iter().filter(|(_, view)| view.linked).map(|(name, _)| name.clone()).collect();
        for target in linked {
            self.tell_target(&target, cx);
        }
    }

    /// Asks the linked targets once more that have not answered for long: they may not have accepted this router yet,
    /// because the other routers' ranks did not name it.
    pub(super) fn ask_silent(&mut self, cx: &mut Context<'_>) {
        let patience = cx.settings.timing.target_patience();
        if cx.now.since(self.asked_again) < patience {
            return;
        }
        self.asked_again = cx.now;
        let silent = |(_, view): &(&NodeName, &TargetView)| view.linked && view.is_silent(cx.now, patience);
        let silent: Vec<NodeName> = self.targets.iter().filter(silent).map(|(name, _)| name.clone()).collect();
        for target in silent {
            self.tell_target(&target, cx);
        }
    }

    /// Sends a target the list, and asks it to report from the position up to which its log has been read.
    pub(super) fn tell_target(&mut self, target: &NodeName, cx: &mut Context<'_>) {
        if !self.services().is_empty() {
            self.distribute(target, cx);
        }
        let (vipa, epoch, standing) = (self.settings.address, self.epoch, self.standing());
        let Some(view) = self.targets.get_mut(target) else { return };
        view.asked = Some((epoch, standing));
        cx.send(target, Message::Associate(Associate { vipa, epoch, standing, seen: view.known() }));
    }

    pub(super) fn standing(&self) -> Standing {
        if self.ownership().is_some() { Standing::Owner } else { Standing::Backup }
    }

    pub(super) fn distribute(&self, to: &NodeName, cx: &mut Context<'_>) {
        let paths = match self.targets.get(to).filter(|view| view.linked) {
            Some(view) => {
                let target = view.address;
                self.paths.of(target).into_iter().map(|service| TargetPath { target, service }).collect()
            }
            None => self.paths.all(),
        };
        let distribution = Distribution {
            vipa: self.settings.address,
            epoch: self.epoch,
            sender: self.standing(),
            ranks: self.settings.ranks.clone(),
            services: self.services().to_vec(),
            paths,
        };
        cx.send(to, Message::Distribution(distribution));
    }

    /// Handles the owner's list: it is stored for a takeover by this router, and used if there is no own one.
    pub(in super::super) fn distributed(&mut self, from: &NodeName, distribution: Distribution, cx: &mut Context<'_>) {
        let Distribution { vipa: _, epoch, sender, ranks: _, services, paths } = distribution;
        let is_new = sender == Standing::Owner && epoch >= self.epoch && *from != cx.settings.me;
        if is_new && self.ownership().is_some_and(|ownership| ownership.epoch < epoch) {
            self.step_down(epoch, from, cx);
        }
        if !is_new || self.ownership().is_some() {
            return;
        }
        let hearsay = paths.into_iter().take(MAX_LEARNED_PATHS);
        let before = self.services().to_vec();
        let is_new = self.distributed.as_ref() != Some(&services);
        // A router without a list of its own uses the owner's: paths of the previous list that this one lacks are
        // learned.
        let known = match self.settings.services {
            Some(_) => paths_of(&services),
            None if is_new => paths_of(&before),
            None => Vec::new(),
        };
        if is_new {
            self.distributed = Some(services);
            if before != self.services() {
                self.serve(cx);
            }
            self.store_lists(cx);
        }
        self.learn(known, cx);
        self.fill_in(hearsay, cx);
    }

    /// Records the paths to targets that the list here does not name.
    fn learn(&mut self, paths: impl IntoIterator<Item = TargetPath>, cx: &mut Context<'_>) {
        let own = self.own_paths();
        let mut news = false;
        for TargetPath { target, service } in paths {
            news |= !names(&own, target, &service) && self.paths.learn(target, service);
        }
        if news {
            self.paths_changed(cx);
        }
    }

    /// Records paths that another router has learned, where none are known here.
    fn fill_in(&mut self, paths: impl IntoIterator<Item = TargetPath>, cx: &mut Context<'_>) {
        let own = self.own_paths();
        let mut news = false;
        for TargetPath { target, service } in paths {
            news |= !names(&own, target, &service) && self.paths.fill(target, service);
        }
        if news {
            self.paths_changed(cx);
        }
    }

    /// By target: the paths of the list here.
    fn own_paths(&self) -> BTreeMap<IpAddr, Vec<ServicePath>> {
        let mut own: BTreeMap<IpAddr, Vec<ServicePath>> = BTreeMap::new();
        for TargetPath { target, service } in paths_of(self.services()) {
            own.entry(target).or_default().push(service);
        }
        own
    }

    fn paths_changed(&self, cx: &mut Context<'_>) {
        cx.out.push(Output::Paths { vipa: self.settings.address, paths: self.paths.all() });
        self.store_lists(cx);
    }

    fn store_lists(&self, cx: &mut Context<'_>) {
        let lists = StoredLists { distributed: self.distributed.clone(), paths: self.paths.all() };
        cx.out.push(Output::StoreLists { vipa: self.settings.address, lists });
    }

    pub(in super::super) fn listening(&mut self, from: &NodeName, listeners: Listeners, cx: &mut Context<'_>) {
        let Listeners { vipa, listening, paths } = listeners;
        let Some(view) = self.targets.get_mut(from) else { return };
        let target = view.address;
        view.listening = Some(listening.clone());
        // Before the connections that come by these paths.
        let own: Vec<ServicePath> = self.services().iter().filter_map(|service| service.path_to(target)).collect();
        let mut news = false;
        for path in paths.into_iter().take(MAX_REPORTED_PATHS) {
            news |= !own.iter().any(|own| own.covers_all_of(&path)) && self.paths.learn_reported(target, path);
        }
        if news {
            self.paths_changed(cx);
        }
        cx.out.push(Output::Listeners { vipa, target, listening });
        self.tell_completeness(from, cx);
        self.step(Input::Reported, cx);
    }

    pub(in super::super) fn reported(&mut self, from: &NodeName, connections: Connections, cx: &mut Context<'_>) {
        let vipa = self.settings.address;
        let Some(view) = self.targets.get_mut(from) else { return };
        let target = view.address;
        match view.take(connections, cx.now) {
            LogUpdate::Run(run, count) => {
                cx.out.push(Output::Install { vipa, target, run });
                if let Phase::Rebuilding(ownership) = &mut self.phase {
                    ownership.report.connections_reported += count;
                }
            }
            LogUpdate::Nothing => {}
            LogUpdate::Gap => self.tell_target(from, cx),
        }
        self.tell_completeness(from, cx);
        self.step(Input::Reported, cx);
    }

    pub(in super::super) fn table(
        &mut self,
        from: &NodeName,
        epoch: Epoch,
        entries: Vec<Entry>,
        part: Part,
        cx: &mut Context<'_>,
    ) {
        let current = epoch == self.epoch && self.owner.as_ref() == Some(from);
        // The last parts of a long table may arrive after we no longer waited for them.
        let predecessor = self.ownership().is_some_and(|ownership| ownership.report.predecessor.as_ref() == Some(from));
        if !current && !predecessor {
            return;
        }
        if !entries.is_empty() {
            cx.out.push(Output::InstallTable { vipa: self.settings.address, entries });
        }
        if matches!(part, Part::Only | Part::Last) {
            self.table = Some(epoch);
            self.step(Input::Reported, cx);
        }
    }
}

/// Whether these paths say how packets of this service get to this target.
fn names(paths: &BTreeMap<IpAddr, Vec<ServicePath>>, target: IpAddr, service: &ServicePath) -> bool {
    paths.get(&target).is_some_and(|known| known.iter().any(|known| known.covers_all_of(service)))
}

/// The path to each candidate of these services.
fn paths_of(services: &[Service]) -> Vec<TargetPath> {
    let paths = |service: &Service| {
        let path = |target: &IpAddr| Some(TargetPath { target: *target, service: service.path_to(*target)? });
        service.candidates.iter().filter_map(path).collect::<Vec<_>>()
    };
    services.iter().flat_map(paths).collect()
}
