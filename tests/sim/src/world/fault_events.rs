//! Faults as they happen, and the calm after them.

use vipa_cluster::{Event, target};

use super::{MS, What, World};
use crate::faults::Fault;

impl World {
    pub(super) fn strike(&mut self, fault: &Fault) {
        let line = format!("── {fault:?}");
        self.tell(|| line);
        match *fault {
            Fault::Crash { router, back } => {
                self.kill(router);
                self.plan(self.now + back, What::Start(router));
            }
            Fault::Stop { router } => {
                self.feed(router, Event::Stop, target::Event::Looked { token: 0 });
            }
            Fault::Pause { node, span } => self.nodes[node].paused_until = self.now + span,
            Fault::Deaf { target, span } => {
                self.hosts[target].listens = false;
                self.plan(self.now + span, What::Listen { target });
            }
            Fault::Loss { permille } => self.network.loss = permille,
            Fault::Cut { one, other, span } => self.cut(vec![(one.min(other), one.max(other))], span),
            Fault::Isolate { node, span } => {
                let pairs = self.network.pairs();
                self.cut(pairs.into_iter().filter(|(one, other)| *one == node || *other == node).collect(), span);
            }
            Fault::Amnesia { one, other, node } => {
                self.cut(vec![(one, other)], 800 * MS);
                for round in 1..=4 {
                    self.plan(self.now + round * 150 * MS, What::Kill(node));
                    self.plan(self.now + round * 150 * MS + 2 * MS, What::Start(node));
                }
            }
            Fault::AgentCrash { target, back } => {
                let node = self.scene.routers + target;
                self.kill(node);
                self.plan(self.now + back, What::Start(node));
            }
            Fault::PowerLoss { target, back } => {
                let node = self.scene.routers + target;
                self.kill(node);
                self.hosts[target].lose_power();
                self.checks.lost_power.insert(target);
                self.plan(self.now + back, What::Start(node));
            }
            Fault::SlowDisk { node, each } => self.nodes[node].disk_speed = each,
            Fault::OneWay { from, to, span } => self.mute(from, to, span),
            Fault::Mute { target, span } => self.hosts[target].mute_until = self.now + span,
            Fault::Unfit { router, span } => {
                self.plan(self.now, What::SelfCheckReport { router, unfit: Some("a port has no link") });
                self.plan(self.now + span, What::SelfCheckReport { router, unfit: None });
            }
            Fault::Voters { ref nodes, pace } => {
                for (at, node) in (self.now..).step_by(pace as usize).zip(nodes) {
                    self.plan(at, What::ChangeVoters { node: *node });
                }
            }
            Fault::Split { ref some, span } => {
                let pairs = self.network.pairs();
                let between = |(one, other): &(_, _)| some.contains(one) != some.contains(other);
                self.cut(pairs.into_iter().filter(between).collect(), span);
            }
            Fault::Order { router, wish } => self.order(router, wish, false),
            Fault::Reload { router, ref list } => self.reload(router, list.clone()),
        }
    }

    pub(super) fn calm(&mut self) {
        self.tell(|| "── calm".into());
        self.network.loss = 5;
        let pairs = self.network.pairs();
        self.heal(&pairs);
        for target in 0..self.scene.targets {
            self.hosts[target].listens = true;
            self.hosts[target].mute_until = self.now;
        }
        for node in &mut self.nodes {
            node.disk_speed = 2 * MS;
        }
        for router in 0..self.scene.routers {
            self.plan(self.now, What::SelfCheckReport { router, unfit: None });
        }
        self.undo_orders();
    }
}
