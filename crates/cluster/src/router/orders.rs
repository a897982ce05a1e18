//! Orders of operators: refused at once, or decided, stored by every router, and followed until they are carried out.
//!
//! ```text
//!  order ──► judged ──► on this router's disk ──► sent to all, in force ──► held by the linked routers, and done ──► Done
//!              │ no            │ disk refuses                                    │ not within ORDER_LIMIT
//!              └──► Refused ◄──┴──────────────────────── taken back ◄────────────┘
//! ```
//! A decision is in force from the moment it is on a disk, whichever router owns the VIPA then. A router that was away
//! receives it on its next link, before it can ask for anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use vipa_model::{Moment, NodeName, Protocol, listed};
use vipa_protocol::{
    Decision, DecisionAck, Decisions, Given, Matter, Message, Order, Role, Ruling, Stamp, TakebackRequest,
    message::DECISIONS_PART,
};

use crate::decision_log::MOST_MATTERS;

use super::{DecisionLog, Outbox, Output, Router, Stage, State, status::Wait, vipa::Input, vipa::Vipa};
use crate::router::Note;

/// Time after which an order that is not carried out is given up.
pub(super) const ORDER_LIMIT: Duration = Duration::from_secs(30);
/// Time after which a router that has not confirmed a decision is named, and not waited for.
const KEEP_LIMIT: Duration = Duration::from_secs(3);
/// Interval at which an order's progress is reported.
const NEWS: Duration = Duration::from_millis(500);
/// Orders under way at once.
const MOST_ORDERS: usize = 64;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Orders {
    pending: Vec<Pending>,
    /// Stores under way: decisions of peers that are to be confirmed.
    owed: BTreeMap<u64, (NodeName, Vec<(Matter, Stamp)>)>,
    tokens: u64,
    /// Decisions that targets report and no router has reported here, and the targets that report them.
    hearsay: BTreeMap<Decision, BTreeSet<NodeName>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pending {
    token: u64,
    order: Order,
    by: Option<Given>,
    given: Moment,
    told: Moment,
    progress: Progress,
    /// The rulings in force before the decision.
    before: Vec<(Matter, Ruling)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Progress {
    /// These are being written to the disk, under this token.
    Deciding { store: u64, decisions: Vec<Decision> },
    /// In force; these routers have not confirmed that they store it.
    Decided { unconfirmed: BTreeSet<NodeName>, stamps: Vec<(Matter, Stamp)> },
}

/// Progress of an order.
enum OrderProgress {
    Done(String),
    YieldRefused(String),
}

impl Orders {
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.pending.iter().map(|order| (order.told + NEWS).min(order.given + ORDER_LIMIT)).min()
    }

    pub(super) fn unlinked(&mut self, router: &NodeName) {
        for order in &mut self.pending {
            if let Progress::Decided { unconfirmed, .. } = &mut order.progress {
                unconfirmed.remove(router);
            }
        }
    }

    pub(super) fn kept(&mut self, router: &NodeName, kept: &[(Matter, Stamp)]) {
        for order in &mut self.pending {
            let Progress::Decided { unconfirmed, stamps } = &mut order.progress else { continue };
            let covered =
                |(matter, stamp): &(Matter, Stamp)| kept.iter().any(|(of, other)| of == matter && other >= stamp);
            if stamps.iter().all(covered) {
                unconfirmed.remove(router);
            }
        }
    }

    /// Forgets the reports of a node that is not linked any more.
    pub(super) fn forget_hearsay(&mut self, node: &NodeName) {
        self.hearsay.retain(|_, said_by| {
            said_by.remove(node);
            !said_by.is_empty()
        });
    }

    fn store(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }
}

impl Router {
    /// Handles an operator's order.
    pub(super) fn ordered(&mut self, now: Moment, token: u64, (order, by): (Order, Option<Given>), out: &mut Outbox) {
        let refuse = |why| Output::Order { token, stage: Stage::Refused(why) };
        if self.orders.pending.len() >= MOST_ORDERS {
            return out.push(refuse(format!("{MOST_ORDERS} orders are under way already; wait for one to end")));
        }
        let rulings = match self.judge(&order) {
            Ok(rulings) => rulings,
            Err(why) => return out.push(refuse(why)),
        };
        if let Some((matter, _)) = rulings.iter().find(|(matter, _)| !self.decision_log.has_room(matter)) {
            return out
                .push(refuse(format!("too much is decided already to decide about {matter} too; resume something")));
        }
        let before = rulings.iter().map(|(matter, _)| (matter.clone(), self.decision_log.ruling(matter))).collect();
        // An order that waits for the disk already comes before this one, also where both are about one matter.
        let decision_log = self.pending_decision_log();
        let propose = |(matter, ruling)| decision_log.propose(matter, ruling, &self.settings.me, by.clone());
        let decisions: Vec<Decision> = rulings.into_iter().map(propose).collect();
        let store = self.orders.store();
        let progress = Progress::Deciding { store, decisions };
        self.orders.pending.push(Pending { token, order, by, given: now, told: now, progress, before });
        out.push(Output::StoreDecisions { token: store });
    }

    /// The decisions in force, and those of every order that waits for the disk.
    fn pending_decision_log(&self) -> DecisionLog {
        let mut decision_log = self.decision_log.clone();
        for order in &self.orders.pending {
            if let Progress::Deciding { decisions, .. } = &order.progress {
                for decision in decisions {
                    decision_log.merge(decision.clone());
                }
            }
        }
        decision_log
    }

    /// The contents of the file of decisions, and the token that confirms them.
    #[must_use]
    pub fn decisions_to_store(&self) -> (u64, Vec<Decision>) {
        (self.orders.tokens, self.pending_decision_log().all())
    }

    /// What an order decides, or why it is refused.
    fn judge(&self, order: &Order) -> Result<Vec<(Matter, Ruling)>, String> {
        let me = &self.settings.me;
        match order {
            Order::Move { vipa, to } => {
                self.may_move(*vipa, to)?;
                let place = |vipa| (Matter::Place { vipa }, Ruling::At(to.clone()));
                Ok(self.together_with(*vipa).into_iter().map(place).collect())
            }
            Order::Takeback { vipa } => {
                self.known(*vipa)?;
                let place = |vipa| (Matter::Place { vipa }, Ruling::AsConfigured);
                Ok(self.together_with(*vipa).into_iter().map(place).collect())
            }
            Order::Deactivate { vipa, force } => {
                self.known(*vipa)?;
                let group = self.together_with(*vipa);
                self.may_give_up(&group, *force)?;
                let withhold = |vipa| (Matter::Ownership { vipa, router: me.clone() }, Ruling::Withheld);
                Ok(group.into_iter().map(withhold).collect())
            }
            Order::Reactivate { vipa } => {
                self.known(*vipa)?;
                let allow = |vipa| (Matter::Ownership { vipa, router: me.clone() }, Ruling::AsConfigured);
                Ok(self.together_with(*vipa).into_iter().map(allow).collect())
            }
            Order::QuiesceTarget { target } => {
                self.is_target(*target)?;
                Ok(vec![(Matter::Target { target: *target }, Ruling::Withheld)])
            }
            Order::ResumeTarget { target } => Ok(vec![(Matter::Target { target: *target }, Ruling::AsConfigured)]),
            Order::QuiesceService { vipa, protocol, port, target } => {
                Ok(vec![(self.service(*vipa, *protocol, *port, *target)?, Ruling::Withheld)])
            }
            Order::ResumeService { vipa, protocol, port, target } => {
                Ok(vec![(self.service(*vipa, *protocol, *port, *target)?, Ruling::AsConfigured)])
            }
            Order::Leave { node, force } => {
                let node = node.as_ref().unwrap_or(me);
                self.is_node(node)?;
                if node == me {
                    let all: Vec<IpAddr> = self.vipas.keys().copied().collect();
                    self.may_give_up(&all, *force)?;
                }
                Ok(vec![(Matter::Membership { node: node.clone() }, Ruling::Withheld)])
            }
            Order::Join { node } => {
                let node = node.as_ref().unwrap_or(me);
                self.is_node(node)?;
                Ok(vec![(Matter::Membership { node: node.clone() }, Ruling::AsConfigured)])
            }
        }
    }

    fn known(&self, vipa: IpAddr) -> Result<&Vipa, String> {
        let all = || self.vipas.keys().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
        self.vipas.get(&vipa).ok_or_else(|| format!("{vipa} is not a VIPA of this router; it has {}", all()))
    }

    /// The VIPAs that move with this one, itself included.
    pub(super) fn together_with(&self, vipa: IpAddr) -> Vec<IpAddr> {
        let group = self.vipas.get(&vipa).and_then(|vipa| vipa.settings.group.as_ref());
        let moves = |(address, other): &(&IpAddr, &Vipa)| {
            **address == vipa || group.is_some() && other.settings.group.as_ref() == group
        };
        self.vipas.iter().filter(moves).map(|(address, _)| *address).collect()
    }

    fn may_move(&self, vipa: IpAddr, to: &NodeName) -> Result<(), String> {
        let machine = self.known(vipa)?;
        let me = &self.settings.me;
        if machine.settings.rank(to).is_none() {
            let ranked: Vec<_> = machine.settings.ranks.iter().map(|(name, _)| name.as_str()).collect();
            return Err(format!("{to} has no rank for {vipa}; it can be moved to {}", ranked.join(", ")));
        }
        if to != me && !self.peers.contains_key(to) {
            return Err(format!(
                "{to} has no link to {me}, so it cannot take {vipa} over; `vipactl status` shows links"
            ));
        }
        for vipa in self.together_with(vipa) {
            if self.decision_log.has_left(to) {
                return Err(format!("{to} has left the cluster; `vipactl node join {to}` comes first"));
            }
            if !self.decision_log.may_own(vipa, to) {
                return Err(format!(
                    "{vipa} is deactivated on {to}; there, `vipactl vipa reactivate {vipa}` comes first"
                ));
            }
        }
        let unfit = if to == me { self.unfit.clone() } else { self.peers.get(to).and_then(|peer| peer.unfit.clone()) };
        unfit.map_or(Ok(()), |why| Err(format!("{to} cannot route at the moment: {why}")))
    }

    /// Whether another router can take what this one owns of these VIPAs.
    fn may_give_up(&self, vipas: &[IpAddr], force: bool) -> Result<(), String> {
        let overview = self.overview();
        let stuck = |vipa: &&IpAddr| {
            self.vipas
                .get(vipa)
                .is_some_and(|vipa| vipa.ownership().is_some() && vipa.best_successor(&overview).is_none())
        };
        match vipas.iter().find(stuck).filter(|_| !force) {
            Some(vipa) => Err(format!(
                "no other router is linked that may own {vipa}, so it would be nobody's and its connections would end; \
                 --force does it nevertheless"
            )),
            None => Ok(()),
        }
    }

    fn is_target(&self, target: IpAddr) -> Result<(), String> {
        let listed = |vipa: &Vipa| {
            vipa.candidates().contains(&target) || vipa.targets.values().any(|view| view.address == target)
        };
        if self.vipas.values().any(listed) {
            return Ok(());
        }
        Err(format!("{target} is no candidate of any service here; `vipactl distribution` lists them"))
    }

    fn is_node(&self, node: &NodeName) -> Result<(), String> {
        let ranked = |vipa: &Vipa| vipa.settings.rank(node).is_some() || vipa.targets.contains_key(node);
        let known = *node == self.settings.me || self.peers.contains_key(node) || self.vipas.values().any(ranked);
        if known || self.decision_log.has_left(node) {
            Ok(())
        } else {
            Err(format!("no node {node} is known here; `vipactl status` lists those that are"))
        }
    }

    fn service(&self, vipa: IpAddr, protocol: Protocol, port: u16, target: Option<IpAddr>) -> Result<Matter, String> {
        let services = self.known(vipa)?.services();
        let found = services.iter().find(|service| service.protocol == protocol && service.ports.contains(port));
        let Some(service) = found else {
            return Err(format!("{vipa} has no service on that port; `vipactl distribution` lists its services"));
        };
        if let Some(target) = target.filter(|target| !service.candidates.contains(target)) {
            return Err(format!("{target} is no candidate of that service; `vipactl distribution` lists them"));
        }
        // Named by its first port, whichever of its ports was given.
        Ok(Matter::Service { vipa, protocol, port: service.ports.first, target })
    }

    /// Handles decisions that are on the disk: they are in force, and are sent.
    pub(super) fn decisions_stored(&mut self, now: Moment, token: u64, out: &mut Outbox) {
        let mut made = Vec::new();
        let routers: BTreeSet<NodeName> = self.linked_routers().into_iter().collect();
        for order in &mut self.orders.pending {
            if let Progress::Deciding { store, decisions } = &order.progress
                && *store <= token
            {
                made.extend(decisions.iter().cloned().map(|decision| (order.order.clone(), decision)));
                let stamps =
                    decisions.iter().map(|decision| (decision.matter.clone(), decision.stamp.clone())).collect();
                order.progress = Progress::Decided { unconfirmed: routers.clone(), stamps };
            }
        }
        let later = self.orders.owed.split_off(&(token + 1));
        for (_, (peer, kept)) in std::mem::replace(&mut self.orders.owed, later) {
            self.send(now, &peer, Message::DecisionAck(DecisionAck { kept }), out);
        }
        if made.is_empty() {
            return;
        }
        let decisions: Vec<Decision> = made.iter().map(|(_, decision)| decision.clone()).collect();
        // Sent first: the consequence here may be a request that only makes sense to a router with the decision.
        for peer in self.peers.keys().cloned().collect::<Vec<_>>() {
            for decisions in decisions.chunks(DECISIONS_PART) {
                self.send(now, &peer, Message::Decisions(Decisions { decisions: decisions.to_vec() }), out);
            }
        }
        self.decide(now, decisions, out);
        for (order, decision) in made {
            self.follow_up(now, &order, &decision.matter, out);
        }
    }

    /// Carries out what an order does beyond its decision.
    fn follow_up(&mut self, now: Moment, order: &Order, matter: &Matter, out: &mut Outbox) {
        match (order, matter) {
            (Order::Takeback { .. }, Matter::Place { vipa }) => {
                let first = self.vipas.get(vipa).and_then(|vipa| vipa.rightful(&self.overview()).cloned());
                if first.as_ref() == Some(&self.settings.me) {
                    self.with_vipa(now, *vipa, out, |vipa, cx| vipa.take_back_now(cx));
                } else if let Some(first) = first {
                    self.send(now, &first, Message::TakebackRequest(TakebackRequest { vipa: *vipa }), out);
                }
            }
            (Order::Deactivate { force: true, .. }, _) | (Order::Leave { force: true, .. }, _) => {
                self.each_vipa(now, out, |vipa, cx| vipa.resign_if_barred(cx));
            }
            _ => {}
        }
    }

    /// Handles the decisions that a peer has.
    pub(super) fn heard_decisions(&mut self, now: Moment, from: &NodeName, decisions: Vec<Decision>, out: &mut Outbox) {
        let decisions = self.believed(from, decisions);
        let kept = decisions.iter().map(|decision| (decision.matter.clone(), decision.stamp.clone())).collect();
        let news = self.decide(now, decisions, out);
        for decision in &news {
            out.push(Output::Note(Note::Decided { decision: decision.clone() }));
        }
        let is_router = self.peers.get(from).is_some_and(|peer| peer.role == Role::Router);
        if news.is_empty() {
            if is_router {
                self.send(now, from, Message::DecisionAck(DecisionAck { kept }), out);
            }
            return;
        }
        // Not every node has a link to every other one: new decisions are passed on.
        for peer in self.peers.keys().filter(|peer| *peer != from).cloned().collect::<Vec<_>>() {
            self.send(now, &peer, Message::Decisions(Decisions { decisions: news.clone() }), out);
        }
        let token = self.orders.store();
        if is_router {
            self.orders.owed.insert(token, (from.clone(), kept));
        }
        out.push(Output::StoreDecisions { token });
    }

    /// Routers make decisions, and pass on those of others. Targets only store them, for a router whose disk is new
    /// while no other router is alive: their reports count once most of the linked targets, and two at least, report
    /// the same.
    fn believed(&mut self, from: &NodeName, decisions: Vec<Decision>) -> Vec<Decision> {
        let is_target = |peer: &super::Peer| matches!(peer.role, Role::Target { .. });
        if !self.peers.get(from).is_some_and(is_target) {
            return decisions;
        }
        let linked = self.peers.values().filter(|peer| is_target(peer)).count();
        let Self { orders, decision_log, .. } = self;
        orders.hearsay.retain(|decision, _| decision_log.is_new(decision));
        let mut believed = Vec::new();
        for decision in decisions.into_iter().filter(|decision| decision_log.is_new(decision)) {
            if orders.hearsay.len() >= MOST_MATTERS && !orders.hearsay.contains_key(&decision) {
                continue;
            }
            let said_by = orders.hearsay.entry(decision.clone()).or_default();
            said_by.insert(from.clone());
            if said_by.len() >= 2 && said_by.len() * 2 > linked {
                believed.push(decision);
            }
        }
        believed
    }

    /// Puts decisions in force; returns the new ones.
    fn decide(&mut self, now: Moment, decisions: Vec<Decision>, out: &mut Outbox) -> Vec<Decision> {
        let news: Vec<Decision> =
            decisions.into_iter().filter(|decision| self.decision_log.merge(decision.clone())).collect();
        if !news.is_empty() {
            self.each_vipa(now, out, |vipa, cx| {
                vipa.rest(cx);
                vipa.step(Input::Reordered, cx);
            });
        }
        news
    }

    pub(super) fn tell_decisions(&mut self, now: Moment, peer: &NodeName, out: &mut Outbox) {
        for decisions in self.decision_log.all().chunks(DECISIONS_PART) {
            self.send(now, peer, Message::Decisions(Decisions { decisions: decisions.to_vec() }), out);
        }
    }

    /// Reports the progress of every order, and ends those that are done or take too long.
    pub(super) fn review_orders(&mut self, now: Moment, out: &mut Outbox) {
        if self.orders.pending.is_empty() {
            return;
        }
        let mut given_up = Vec::new();
        let mut pending = std::mem::take(&mut self.orders.pending);
        pending.retain_mut(|order| {
            let stage = match self.reached(now, order) {
                OrderProgress::Done(sentence) => Some(Stage::Done(sentence)),
                OrderProgress::YieldRefused(sentence) if now.since(order.given) >= ORDER_LIMIT => {
                    let back = |(matter, ruling): &(Matter, Ruling)| (matter.clone(), ruling.clone(), order.by.clone());
                    given_up.extend(order.before.iter().map(back));
                    let limit = ORDER_LIMIT.as_secs();
                    Some(Stage::Refused(format!("given up after {limit} s, and taken back: {sentence}")))
                }
                OrderProgress::YieldRefused(sentence) => {
                    if now.since(order.told) >= NEWS {
                        order.told = now;
                        out.push(Output::Order { token: order.token, stage: Stage::Progress(sentence) });
                    }
                    None
                }
            };
            let over = stage.is_some();
            out.extend(stage.map(|stage| Output::Order { token: order.token, stage }));
            !over
        });
        self.orders.pending = pending;
        if !given_up.is_empty() {
            self.undo(now, given_up, out);
        }
    }

    /// Restores the rulings that were in force before.
    fn undo(&mut self, now: Moment, before: Vec<(Matter, Ruling, Option<Given>)>, out: &mut Outbox) {
        let propose = |(matter, ruling, by)| self.decision_log.propose(matter, ruling, &self.settings.me, by);
        let decisions: Vec<Decision> = before.into_iter().map(propose).collect();
        for peer in self.peers.keys().cloned().collect::<Vec<_>>() {
            self.send(now, &peer, Message::Decisions(Decisions { decisions: decisions.clone() }), out);
        }
        self.decide(now, decisions, out);
        let token = self.orders.store();
        out.push(Output::StoreDecisions { token });
    }

    fn reached(&self, now: Moment, order: &Pending) -> OrderProgress {
        let Progress::Decided { unconfirmed, .. } = &order.progress else {
            return OrderProgress::YieldRefused("it is being written to this router's disk".into());
        };
        let unconfirmed: Vec<&str> = unconfirmed.iter().map(NodeName::as_str).collect();
        let patient = now.since(order.given) < KEEP_LIMIT;
        if !unconfirmed.is_empty() && patient {
            return OrderProgress::YieldRefused(format!(
                "{} has not confirmed yet that it keeps this decision",
                unconfirmed.join(", ")
            ));
        }
        let unsure = if unconfirmed.is_empty() {
            String::new()
        } else {
            format!("; {} has not confirmed it and will hear of it on its next link", unconfirmed.join(", "))
        };
        match self.carried_out(now, &order.order) {
            OrderProgress::Done(sentence) => OrderProgress::Done(sentence + &unsure),
            waiting @ OrderProgress::YieldRefused(_) => waiting,
        }
    }

    fn carried_out(&self, now: Moment, order: &Order) -> OrderProgress {
        let me = &self.settings.me;
        match order {
            Order::Move { vipa, to } => self.all_owned_by(now, *vipa, to, "is at"),
            Order::Takeback { vipa } => {
                let overview = self.overview();
                match self.vipas.get(vipa).and_then(|vipa| vipa.rightful(&overview)) {
                    Some(first) => self.all_owned_by(now, *vipa, first, "is back at"),
                    None => OrderProgress::YieldRefused(format!("no router is there that may own {vipa}")),
                }
            }
            Order::Deactivate { vipa, .. } => {
                self.all_let_go(&self.together_with(*vipa), &format!("{vipa} is deactivated on {me}"))
            }
            Order::Reactivate { vipa } => OrderProgress::Done(format!("{vipa} is active on {me}")),
            Order::QuiesceTarget { target } => OrderProgress::Done(format!("{target} gets no new connections")),
            Order::ResumeTarget { target } => OrderProgress::Done(format!("{target} gets new connections")),
            Order::QuiesceService { target: None, .. } => {
                OrderProgress::Done("the service gets no new connections".into())
            }
            Order::ResumeService { target: None, .. } => OrderProgress::Done("the service gets new connections".into()),
            Order::QuiesceService { target: Some(target), .. } => {
                OrderProgress::Done(format!("the service gets no new connections at {target}"))
            }
            Order::ResumeService { target: Some(target), .. } => {
                OrderProgress::Done(format!("the service gets new connections at {target}"))
            }
            Order::Leave { node, .. } => {
                let node = node.as_ref().unwrap_or(me);
                if node == me {
                    let all: Vec<IpAddr> = self.vipas.keys().copied().collect();
                    return self.all_let_go(&all, &format!("{me} has left"));
                }
                match self.vipas.values().find(|vipa| vipa.owner.as_ref() == Some(node)) {
                    Some(vipa) => OrderProgress::YieldRefused(format!("{node} owns {} still", vipa.settings.address)),
                    None => OrderProgress::Done(format!("{node} has left")),
                }
            }
            Order::Join { node } => OrderProgress::Done(format!("{} takes part", node.as_ref().unwrap_or(me))),
        }
    }

    fn all_owned_by(&self, now: Moment, vipa: IpAddr, router: &NodeName, what: &str) -> OrderProgress {
        for address in self.together_with(vipa) {
            let Some(vipa) = self.vipas.get(&address) else { continue };
            let here = *router == self.settings.me;
            if vipa.owner.as_ref() == Some(router) && (!here || vipa.state() == State::Active) {
                continue;
            }
            let owner = vipa.owner.as_ref().map_or("nobody", NodeName::as_str);
            let why = match vipa.takeback(now, &self.overview()).filter(|_| here) {
                Some(Wait::Targets { unlinked, unread }) => {
                    format!("no link to: {}; not everything is read from: {}", listed(unlinked), listed(unread))
                }
                Some(Wait::Unfollowed { targets }) => {
                    format!("{} report to {owner} and not to {router}", listed(targets))
                }
                Some(Wait::Group) => "others of its group are not ready".into(),
                Some(Wait::Nothing | Wait::Delay { .. } | Wait::Idle { .. } | Wait::Order) | None => {
                    format!("{router} makes itself ready, or is being handed it")
                }
            };
            return OrderProgress::YieldRefused(format!("{address} belongs to {owner} still; {why}"));
        }
        OrderProgress::Done(format!("{vipa} {what} {router}"))
    }

    fn all_let_go(&self, vipas: &[IpAddr], done: &str) -> OrderProgress {
        let owned = |vipa: &&IpAddr| self.vipas.get(vipa).is_some_and(|vipa| vipa.ownership().is_some());
        match vipas.iter().find(owned) {
            Some(vipa) => OrderProgress::YieldRefused(format!("{vipa} waits for the next router in line to be ready")),
            None => OrderProgress::Done(done.into()),
        }
    }
}
