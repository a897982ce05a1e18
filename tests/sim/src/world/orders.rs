//! Operators: their orders to routers, and reloaded configurations.

use vipa_cluster::{Event, Stage, target};
use vipa_model::Protocol;
use vipa_protocol::Order;

use super::{MS, NodeId, PORT, UNDO, VIPA, What, World, router_name, target_address};
use crate::faults::Wish;

impl World {
    /// Gives an order; one that must succeed is given again until it is carried out.
    pub(super) fn order(&mut self, router: usize, wish: Wish, insist: bool) {
        let runs = self.nodes[router].alive && self.nodes[router].paused_until <= self.now;
        if !runs {
            if insist {
                self.plan(self.now + 100 * MS, What::Order { router, wish, insist });
            }
            return;
        }
        self.orders += 1;
        let (token, order) = (self.orders, self.spell(wish));
        let line = format!("order {token}: {order}");
        self.tell_of(router, &line);
        if insist {
            self.insisted.insert(token, (router, wish));
        }
        self.feed(router, Event::Order { token, order, given: None }, target::Event::Looked { token: 0 });
    }

    fn spell(&self, wish: Wish) -> Order {
        let (vipa, protocol, port) = (VIPA, Protocol::Tcp, PORT);
        let name = |node: NodeId| Some(self.nodes[node].name.clone());
        match wish {
            Wish::Move { to } => Order::Move { vipa, to: router_name(to) },
            Wish::Takeback => Order::Takeback { vipa },
            Wish::Deactivate => Order::Deactivate { vipa, force: false },
            Wish::Reactivate => Order::Reactivate { vipa },
            Wish::QuiesceTarget { target } => Order::QuiesceTarget { target: target_address(target) },
            Wish::ResumeTarget { target } => Order::ResumeTarget { target: target_address(target) },
            Wish::QuiesceService { target } => {
                Order::QuiesceService { vipa, protocol, port, target: target.map(target_address) }
            }
            Wish::ResumeService { target } => {
                Order::ResumeService { vipa, protocol, port, target: target.map(target_address) }
            }
            Wish::Leave { node } => Order::Leave { node: name(node), force: false },
            Wish::Join { node } => Order::Join { node: name(node) },
        }
    }

    pub(super) fn order_stands(&mut self, node: NodeId, token: u64, stage: &Stage) {
        self.tell_of(node, &format!("order {token}: {stage:?}"));
        match stage {
            Stage::Progress(_) => {}
            Stage::Done(_) => drop(self.insisted.remove(&token)),
            Stage::Refused(_) => {
                if let Some((router, wish)) = self.insisted.remove(&token) {
                    self.plan(self.now + 300 * MS, What::Order { router, wish, insist: true });
                }
            }
        }
    }

    /// In the end everything must be as it was configured first, and the VIPA at its first router.
    pub(super) fn undo_orders(&mut self) {
        let first = self.scene.first;
        let ask = |world: &mut Self, after, router, wish| {
            world.plan(UNDO + after, What::Order { router, wish, insist: true });
        };
        for router in 0..self.scene.routers {
            ask(self, 0, router, Wish::Reactivate);
            ask(self, 0, router, Wish::Join { node: router });
        }
        ask(self, 0, first, Wish::ResumeService { target: None });
        for target in 0..self.scene.targets {
            ask(self, 0, first, Wish::ResumeTarget { target });
            ask(self, 0, first, Wish::ResumeService { target: Some(target) });
            ask(self, 0, first, Wish::Join { node: self.scene.routers + target });
        }
        ask(self, 600 * MS, first, Wish::Takeback);
        for router in 0..self.scene.routers {
            let list = self.scene.lists[router].clone();
            self.reload(router, list);
        }
    }

    /// Changes the router's file; a router that runs reads it.
    pub(super) fn reload(&mut self, router: usize, list: Option<Vec<usize>>) {
        self.lists[router] = list;
        // A router that does not run reads it when it starts.
        let Some(voters) = self.voters_of(router) else { return };
        let settings = Box::new(self.settings(router, self.nodes[router].life, voters));
        self.feed(router, Event::Configured { settings }, target::Event::Looked { token: 0 });
    }

    /// A takeback may wait for the connections to end.
    pub(super) fn count(&mut self, router: usize) {
        let now = self.local(router);
        let Some(gateway) = &self.gateways[router] else { return };
        let known = gateway.known().len() as u64;
        for vipa in gateway.brain.counts_wanted(now) {
            let connections = if vipa == VIPA { known } else { 0 };
            self.feed(router, Event::Counted { vipa, connections }, target::Event::Looked { token: 0 });
        }
    }
}
