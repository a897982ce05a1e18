//! Nodes and the links between them: starts, deaths, messages, and looks at kernels.

use std::{net::IpAddr, rc::Rc};

use vipa_cluster::{Event, Settings, Stored, StoredVote, Timing, VipaSettings, recording, target};
use vipa_model::{
    Balance, Delivery, Incarnation, NodeName, Orphans, PortRange, Protocol, Rank, Service, Sources, Voters,
};
use vipa_protocol::{Decision, Hello, Message};

use super::{MS, PORT, Storing, Time, What, World, lease, router_name, target_address};
use crate::{
    gateway::{Errand, Gateway},
    network::{IDLE_LIMIT, Letter, NodeId},
};

/// Bytes of one recording.
const TAPE: usize = 64 << 10;

impl World {
    pub(super) fn start(&mut self, node: NodeId) {
        if self.nodes[node].alive {
            return;
        }
        self.tell_of(node, "starts");
        let entry = &mut self.nodes[node];
        entry.alive = true;
        entry.life += 1;
        entry.paused_until = 0;
        entry.timer = None;
        (entry.storing_votes, entry.storing_decisions) = (Storing::Nothing, Storing::Nothing);
        let (life, votes) = (entry.life, entry.disk.clone());
        let now = self.local(node);
        let voters = self.remember_voters(node);
        if node < self.scene.routers {
            let settings = self.settings(node, life, voters);
            let (targets, pickers) = (self.scene.targets, Rc::clone(&self.pickers));
            let disk = &self.nodes[node];
            let stored = Stored { votes, decisions: disk.decisions.clone(), lists: disk.lists.clone() };
            let mut gateway = Gateway::new(node, settings, stored, now, targets, pickers, self.relapse);
            gateway.tape = self.tapes.is_some().then(|| recording::begin(&gateway.brain, now, 0));
            self.gateways[node] = Some(gateway);
            self.plan(self.now + MS, What::Turn { node, life });
            self.plan(self.now + MS, What::Count { node, life });
            self.feed(node, Event::Timeout, target::Event::Looked { token: 0 });
        } else {
            let host = &mut self.hosts[node - self.scene.routers];
            host.powered = true;
            host.restart_agent(voters, life, votes, now);
            self.plan(self.now + 20 * MS, What::Observe { node, life });
        }
        for (one, other) in self.network.pairs() {
            if one == node || other == node {
                let latest = if self.random.chance(200) { 10 * MS } else { 300 * MS };
                let soon = self.random.within(MS..latest);
                self.plan(self.now + soon, What::Dial(one, other));
            }
        }
    }

    pub(super) fn settings(&self, router: usize, life: u64, voters: Voters) -> Settings {
        let service = |targets: &Vec<usize>| Service {
            protocol: Protocol::Tcp,
            ports: PortRange::one(PORT),
            delivery: Delivery::default(),
            balance: Balance::Maglev,
            choice: vipa_model::Choice::default(),
            orphans: Orphans::Reset,
            sources: Sources::default(),
            candidates: targets.iter().map(|target| target_address(*target)).collect(),
        };
        let vipa = |address: &IpAddr| VipaSettings {
            address: *address,
            ranks: self.ranks(),
            services: self.lists[router].as_ref().map(|list| vec![service(list)]),
            activate: true,
            takeback: self.scene.takeback,
            takeback_delay: self.scene.takeback_delay,
            group: self.scene.grouped.then(|| "pair".into()),
        };
        Settings {
            cluster: "sim".into(),
            key: vipa_protocol::KeyDigest::default(),
            me: router_name(router),
            addresses: Vec::new(),
            incarnation: Incarnation(life),
            voters,
            timing: Timing { drift_percent: self.scene.drift_percent, ..Timing::of_lease(lease()) },
            vipas: self.scene.vipas().iter().map(vipa).collect(),
        }
    }

    fn ranks(&self) -> Vec<(NodeName, Rank)> {
        let honest = (0..self.scene.routers).map(|index| (router_name(index), self.scene.rank(index)));
        honest.chain(self.hostile_rank()).collect()
    }

    pub(super) fn kill(&mut self, node: NodeId) {
        self.nodes[node].alive = false;
        if node < self.scene.routers {
            self.keep_tape(node);
            self.gateways[node] = None;
        }
        for (one, other) in self.network.pairs() {
            if (one == node || other == node)
                && let Some(link) = self.network.link(one, other).filter(|link| link.up)
            {
                let generation = link.generation;
                self.plan(self.now + IDLE_LIMIT, What::LinkDead { one, other, generation });
            }
        }
    }

    pub(super) fn hello(&self, node: NodeId) -> Option<Hello> {
        if node < self.scene.routers {
            self.gateways[node].as_ref().map(|gateway| gateway.brain.hello())
        } else {
            Some(self.hosts[node - self.scene.routers].brain.hello())
        }
    }

    pub(super) fn dial(&mut self, one: NodeId, other: NodeId) {
        let ready = |world: &Self, node: NodeId| world.nodes[node].alive && world.nodes[node].paused_until <= world.now;
        if !self.nodes[one].alive || !self.nodes[other].alive {
            return;
        }
        let again = self.now + self.random.within(50 * MS..300 * MS);
        let can = ready(self, one) && ready(self, other);
        let Some(link) = self.network.link(one, other) else { return };
        if !can || link.broken().is_some() {
            return self.plan(again, What::Dial(one, other));
        }
        link.renew(true);
        let (Some(ours), Some(theirs)) = (self.hello(one), self.hello(other)) else { return };
        for (node, peer, hello) in [(one, other, theirs), (other, one, ours)] {
            let peer = self.nodes[peer].name.clone();
            let event = Event::Connected { peer: peer.clone(), hello: hello.clone() };
            self.feed(node, event, target::Event::Connected { peer, hello });
        }
    }

    pub(super) fn link_dead(&mut self, one: NodeId, other: NodeId, generation: u64) {
        let (now, dead) = (self.now, !self.nodes[one].alive || !self.nodes[other].alive);
        let Some(link) = self.network.link(one, other) else { return };
        let silent = dead || link.broken().is_some_and(|since| now - since >= IDLE_LIMIT);
        if !link.up || link.generation != generation || !silent {
            return;
        }
        link.renew(false);
        for (node, peer) in [(one, other), (other, one)] {
            let peer = self.nodes[peer].name.clone();
            let event = Event::Disconnected { peer: peer.clone() };
            self.feed(node, event, target::Event::Disconnected { peer });
        }
        self.plan(self.now + 100 * MS, What::Dial(one, other));
    }

    pub(super) fn heal(&mut self, links: &[(NodeId, NodeId)]) {
        for &(one, other) in links {
            for (at, letter) in self.network.heal(self.now, one, other, &mut self.random) {
                self.plan(at, What::Letter(letter));
            }
        }
    }

    pub(super) fn cut(&mut self, links: Vec<(NodeId, NodeId)>, span: Time) {
        for &(one, other) in &links {
            let now = self.now;
            let Some(link) = self.network.link(one, other) else { continue };
            link.cut = Some(now);
            let generation = link.generation;
            self.plan(now + IDLE_LIMIT, What::LinkDead { one, other, generation });
        }
        self.plan(self.now + span, What::Heal(links));
    }

    pub(super) fn mute(&mut self, from: NodeId, to: NodeId, span: Time) {
        let now = self.now;
        let Some(link) = self.network.link(from, to) else { return };
        link.mute = Some((from, now));
        let (one, other, generation) = (from.min(to), from.max(to), link.generation);
        self.plan(now + IDLE_LIMIT, What::LinkDead { one, other, generation });
        self.plan(now + span, What::Heal(vec![(one, other)]));
    }

    pub(super) fn deliver(&mut self, letter: Letter) {
        let Letter { from, to, generation, message } = letter;
        let current = self.network.link(from, to).is_some_and(|link| link.up && link.generation == generation);
        if current && self.nodes[to].alive {
            let peer = self.nodes[from].name.clone();
            let reporter = matches!(message, Message::Connections(_)).then(|| from.checked_sub(self.scene.routers));
            let event = Event::Received { peer: peer.clone(), message: message.clone() };
            self.feed(to, event, target::Event::Received { peer, message });
            if let Some(target) = reporter.flatten() {
                self.check_report(to, target);
            }
        }
    }

    pub(super) fn timer(&mut self, node: NodeId) {
        if self.nodes[node].alive && self.nodes[node].timer.is_some_and(|timer| timer <= self.now) {
            self.nodes[node].timer = None;
            self.feed(node, Event::Timeout, target::Event::Looked { token: 0 });
        }
    }

    /// Feeds a node the event for its kind.
    pub(super) fn feed(&mut self, node: NodeId, router_event: Event, target_event: target::Event) {
        if !self.nodes[node].alive {
            return;
        }
        if node < self.scene.routers {
            self.feed_router(node, router_event);
        } else {
            self.feed_target(node, target_event);
        }
    }

    pub(super) fn feed_router(&mut self, node: usize, event: Event) {
        let now = self.local(node);
        if self.gateways[node].as_ref().and_then(|gateway| gateway.tape.as_ref()).is_some_and(|tape| tape.len() > TAPE)
        {
            self.keep_tape(node);
        }
        let Some(gateway) = &mut self.gateways[node] else { return };
        for errand in gateway.feed(now, event) {
            match errand {
                Errand::Send { to, message } => self.post(node, &to, message),
                Errand::StoreVotes => self.store_votes(node),
                Errand::StoreDecisions => self.store_decisions(node),
                Errand::KeepLists { vipa, lists } => drop(self.nodes[node].lists.insert(vipa, lists)),
                Errand::Ordered { token, stage } => self.order_stands(node, token, &stage),
                Errand::Note(note) => self.tell_of(node, &note),
                Errand::Stopped => {
                    self.tell_of(node, "has stopped");
                    self.kill(node);
                    let back = self.random.within(10 * MS..1000 * MS);
                    self.plan(self.now + back, What::Start(node));
                    return;
                }
            }
        }
        self.turn(node, None);
        self.check_router(node);
        let deadline = self.gateways[node].as_ref().and_then(|gateway| gateway.brain.deadline());
        let timer = deadline.map(|deadline| self.global(node, deadline).max(self.now));
        if timer != self.nodes[node].timer {
            self.nodes[node].timer = timer;
            if let Some(timer) = timer {
                self.plan(timer, What::Timer(node));
            }
        }
    }

    /// Stores the router's recording; the router continues with another one, from the middle of its life.
    pub(super) fn keep_tape(&mut self, router: usize) {
        let now = self.local(router);
        let (Some(tapes), Some(gateway)) = (&mut self.tapes, &mut self.gateways[router]) else { return };
        tapes.extend(gateway.tape.replace(recording::begin(&gateway.brain, now, 0)));
    }

    pub(super) fn feed_target(&mut self, node: NodeId, event: target::Event) {
        let (index, now, life) = (node - self.scene.routers, self.local(node), self.nodes[node].life);
        for output in self.hosts[index].feed(now, event) {
            match output {
                target::Output::Send { to, message } => self.post(node, &to, message),
                target::Output::StoreVote { .. } => self.store_votes(node),
                target::Output::Look { token } => {
                    let at = self.now + self.random.within(MS / 5..self.scene.look);
                    self.plan(at, What::Looked { node, life, token });
                }
                target::Output::Note(note) => self.tell_of(node, &note.to_string()),
                target::Output::Serve { .. } | target::Output::Unwrap { .. } | target::Output::Watch { .. } => {}
            }
        }
    }

    pub(super) fn post(&mut self, from: NodeId, to: &NodeName, message: Message) {
        let Some(to) = self.nodes.iter().position(|node| node.name == *to) else {
            return self.post_to_hostile(to, &message);
        };
        for (at, letter) in self.network.send(self.now, from, to, message, &mut self.random) {
            self.plan(at, What::Letter(letter));
        }
    }

    /// Votes wait for the disk: a write of all votes begins, or follows the one under way.
    pub(super) fn store_votes(&mut self, node: NodeId) {
        if self.nodes[node].storing_votes != Storing::Nothing {
            self.nodes[node].storing_votes = Storing::UnderWayAndStale;
            return;
        }
        self.nodes[node].storing_votes = Storing::UnderWay;
        let stored = match node.checked_sub(self.scene.routers) {
            None => self.gateways[node].as_ref().map(|gateway| gateway.brain.votes_to_store()),
            Some(target) => Some(self.hosts[target].brain.votes_to_store()),
        };
        let Some((token, votes)) = stored else { return };
        let life = self.nodes[node].life;
        let speed = self.nodes[node].disk_speed;
        let written = self.now.max(self.nodes[node].disk_free) + self.random.within(MS / 10..speed);
        let told = written + self.random.within(1..MS);
        self.nodes[node].disk_free = told;
        self.plan(written, What::DiskWritten { node, life, votes });
        self.plan(told, What::DiskDone { node, life, token });
    }

    pub(super) fn votes_stored(&mut self, node: NodeId, life: u64, token: u64) {
        if !self.lives(node, life) {
            return;
        }
        let stale = std::mem::replace(&mut self.nodes[node].storing_votes, Storing::Nothing);
        if stale == Storing::UnderWayAndStale {
            self.store_votes(node);
        }
        self.feed(node, Event::VotesStored { token }, target::Event::VotesStored { token });
    }

    pub(super) fn store_decisions(&mut self, node: NodeId) {
        if self.nodes[node].storing_decisions != Storing::Nothing {
            self.nodes[node].storing_decisions = Storing::UnderWayAndStale;
            return;
        }
        let Some(gateway) = &self.gateways[node] else { return };
        let (token, decisions) = gateway.brain.decisions_to_store();
        self.nodes[node].storing_decisions = Storing::UnderWay;
        let life = self.nodes[node].life;
        let written = self.disk_time(node);
        self.plan(written, What::DecisionsWritten { node, life, token, decisions });
    }

    pub(super) fn decisions_written(&mut self, node: NodeId, life: u64, token: u64, decisions: Vec<Decision>) {
        if self.nodes[node].life == life {
            self.nodes[node].decisions = decisions;
        }
        if !self.lives(node, life) {
            return;
        }
        let stale = std::mem::replace(&mut self.nodes[node].storing_decisions, Storing::Nothing);
        if stale == Storing::UnderWayAndStale {
            self.store_decisions(node);
        }
        self.feed_router(node, Event::DecisionsStored { token });
    }

    /// When the disk has what it is given now.
    pub(super) fn disk_time(&mut self, node: NodeId) -> Time {
        let speed = self.nodes[node].disk_speed;
        let written = self.now.max(self.nodes[node].disk_free) + self.random.within(MS / 10..speed);
        self.nodes[node].disk_free = written;
        written
    }

    /// Data that a dying process has given to the disk may still get there, but not after the next process has read the
    /// disk.
    pub(super) fn disk_written(&mut self, node: NodeId, life: u64, votes: Vec<StoredVote>) {
        if self.nodes[node].life != life {
            return;
        }
        self.check_votes(node, &votes);
        self.nodes[node].disk = votes;
    }

    /// The agent looks at its kernel: because of a request, or because it is time.
    pub(super) fn look(&mut self, node: NodeId, life: u64, token: Option<u64>) {
        if !self.lives(node, life) {
            return;
        }
        let mute_until = self.hosts[node - self.scene.routers].mute_until;
        if mute_until > self.now {
            let later = match token {
                Some(token) => What::Looked { node, life, token },
                None => What::Observe { node, life },
            };
            return self.plan(mute_until, later);
        }
        for event in self.hosts[node - self.scene.routers].look(self.now) {
            self.feed_target(node, event);
        }
        match token {
            Some(token) => self.feed_target(node, target::Event::Looked { token }),
            None => {
                let next = self.now + self.random.within(30 * MS..30 * MS + self.scene.seldom);
                self.plan(next, What::Observe { node, life });
            }
        }
    }

    pub(super) fn tell_of(&mut self, node: NodeId, what: &str) {
        let name = self.nodes[node].name.clone();
        self.tell(|| format!("{name}: {what}"));
    }
}
