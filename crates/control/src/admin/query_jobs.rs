//! Answers that take asking other nodes first: audit, drill and diff, and the audit that goes on by itself.

use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use vipa_cluster::Event;
use vipa_model::{Moment, NodeName, TargetId, listed};
use vipa_protocol::{
    EventKind,
    admin::{Answer, Audit, AuditMode, AuditResult},
};

use crate::{
    admin::{
        compare,
        drill::{Cast, DrillContext, rehearse},
        queries::{QuerySender, settings},
    },
    control::{Control, vipa_id},
    settings::settings as cluster_settings,
    table::{
        audit::{Audited, Subject, audit},
        connection_counts::{ConnectionCounts, Counting},
    },
};

/// Where the answer to a client goes.
pub(crate) type Reply = oneshot::Sender<Answer>;

/// Audits that ended, waiting for the loop.
const FINISHED: usize = 16;

/// The audits of this router.
pub(crate) struct Audits {
    pub(crate) asker: QuerySender,
    finished: mpsc::Sender<Finished>,
    /// When the next one begins by itself, and at which target.
    next: Moment,
    turn: usize,
    /// One at a time; a client\'s are its own affair.
    running: bool,
    pub(crate) counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Targets compared, and of those: without an answer.
    pub(crate) done: u64,
    pub(crate) unanswered: u64,
    /// Connections found different, and put right.
    pub(crate) differences: u64,
    pub(crate) repaired: u64,
}

/// Comparisons that are over.
pub(crate) struct Finished {
    audited: Vec<Audited>,
    mode: AuditMode,
    /// `None`: it went on by itself.
    reply: Option<Reply>,
}

impl Audits {
    pub(crate) fn new(asker: QuerySender) -> (Self, mpsc::Receiver<Finished>) {
        let (finished, ends) = mpsc::channel(FINISHED);
        let counts = Counts::default();
        (Self { asker, finished, next: Moment::ZERO, turn: 0, running: false, counts }, ends)
    }

    pub(crate) fn named(&self) -> [(String, u64); 4] {
        let Counts { done, unanswered, differences, repaired } = self.counts;
        [
            ("audit.done".into(), done),
            ("audit.unanswered".into(), unanswered),
            ("audit.differences".into(), differences),
            ("audit.repaired".into(), repaired),
        ]
    }
}

impl Control {
    pub(crate) fn audit(&self, vipa: Option<IpAddr>, mode: AuditMode, reply: Reply) {
        if let Some(unknown) = vipa.filter(|vipa| self.routing.vipa_index(*vipa).is_none()) {
            let _ = reply.send(unknown_vipa(unknown));
            return;
        }
        self.start_audit(self.subjects(vipa), mode, Some(reply));
    }

    fn start_audit(&self, subjects: Vec<Subject>, mode: AuditMode, reply: Option<Reply>) {
        let (asker, flows, finished) =
            (self.audits.asker.clone(), Arc::clone(&self.flows), self.audits.finished.clone());
        let hold = self.reclaim.tasks.hold();
        tokio::spawn(async move {
            let _hold = hold;
            let mut looks = Vec::new();
            for subject in subjects {
                let (asker, flows) = (asker.clone(), Arc::clone(&flows));
                looks.push(tokio::spawn(async move { audit(&asker, &flows, &subject).await }));
            }
            let mut audited = Vec::new();
            for look in looks {
                audited.extend(look.await.ok());
            }
            // The loop may have ended meanwhile.
            let _ = finished.send(Finished { audited, mode, reply }).await;
        });
    }

    /// Once every `audit_s` the next target of the next VIPA has its turn.
    pub(crate) fn audit_by_turns(&mut self, now: Moment) {
        let Some(every) = self.config.table.audit else { return };
        if self.audits.running || now < self.audits.next {
            return;
        }
        let first = self.audits.next == Moment::ZERO;
        self.audits.next = now + every;
        let subjects = self.subjects(None);
        if first || subjects.is_empty() {
            return;
        }
        let turn = self.audits.turn % subjects.len();
        self.audits.turn = turn + 1;
        self.audits.running = true;
        self.start_audit(vec![subjects[turn].clone()], AuditMode::Repair, None);
    }

    pub(crate) fn audited(&mut self, finished: Finished) {
        let Finished { audited, mode, reply } = finished;
        let mut targets = Vec::new();
        for Audited { mut result, differences, answered_in: _, upto: _ } in audited {
            let counts = &mut self.audits.counts;
            counts.done += 1;
            counts.unanswered += u64::from(result.result == AuditResult::NoAnswer);
            counts.differences += differences;
            if let AuditResult::Differs { differences, connections, .. } = &result.result {
                let counted = differences.iter().map(|(difference, count)| format!("{count} {}", difference.name()));
                let counted = listed(counted);
                tracing::warn!(vipa = %result.vipa, target = %result.node, "the table differs: {counted} of {connections}");
            }
            let is_different = matches!(result.result, AuditResult::Differs { .. });
            if let (AuditMode::Repair, AuditResult::Differs { repaired, .. }) = (mode, &mut result.result) {
                *repaired = true;
                counts.repaired += differences;
                self.feed(Event::ReadAnew { vipa: result.vipa, target: result.node.clone() });
            }
            self.health.audited(&result);
            if is_different {
                let (vipa, target) = (result.vipa, result.node.clone());
                self.write_down(EventKind::AuditDiffers {
                    vipa,
                    target,
                    differences,
                    repaired: mode == AuditMode::Repair,
                });
            }
            targets.push(result);
        }
        match reply {
            // Who asked may be gone.
            Some(reply) => drop(reply.send(Answer::Audit(Audit { targets }))),
            None => self.audits.running = false,
        }
    }

    /// Every target whose log is followed, by VIPA.
    fn subjects(&self, only: Option<IpAddr>) -> Vec<Subject> {
        let mut subjects = Vec::new();
        for vipa in self.cluster.vipas().into_iter().filter(|vipa| only.is_none_or(|only| only == vipa.vipa)) {
            let Some(index) = self.routing.vipa_index(vipa.vipa) else { continue };
            for target in vipa.targets.iter().filter(|target| target.linked && target.complete) {
                subjects.push(Subject {
                    vipa: vipa.vipa,
                    id: vipa_id(index),
                    node: target.node.clone(),
                    target: target.address,
                    ways: self.routing.ways.to(target.address),
                });
            }
        }
        subjects
    }

    pub(crate) fn drill(&self, vipa: IpAddr, counting: Counting<'_>, reply: Reply) {
        let counts = match counting {
            Ok(counts) => counts,
            Err(failed) => {
                let _ = reply.send(Answer::Error(failed.to_string()));
                return;
            }
        };
        let Some(scene) = self.scene(vipa, counts) else {
            let _ = reply.send(unknown_vipa(vipa));
            return;
        };
        let (asker, flows) = (self.audits.asker.clone(), Arc::clone(&self.flows));
        let hold = self.reclaim.tasks.hold();
        tokio::spawn(async move {
            let _hold = hold;
            let _ = reply.send(Answer::Drill(rehearse(&asker, &flows, scene).await));
        });
    }

    fn scene(&self, address: IpAddr, counts: &ConnectionCounts) -> Option<DrillContext> {
        let vipa = self.cluster.vipa(address)?;
        let me = &self.config.node.name;
        let peers = self.cluster.peers();
        let linked = |node: &NodeName| peers.iter().any(|peer| peer.node == *node);
        let ranks = self.ranks(address);
        let owned_here = vipa.owner.as_ref() == Some(me);
        let others = ranks.iter().map(|(name, _)| name).take_while(|name| owned_here || *name != me);
        let before: Vec<_> =
            others.filter(|name| Some(*name) != vipa.owner.as_ref() && linked(name)).cloned().collect();
        let timing = cluster_settings(&self.config, self.cluster.hello().incarnation).timing;
        let steps = u32::try_from(before.len()).unwrap_or(u32::MAX);
        let detect: Duration = timing.lease + timing.margin() + timing.claim_step * steps;
        let voters = match &self.config.cluster.voters.names[..] {
            // Without a quorum a router elects itself.
            [] => std::slice::from_ref(me),
            voters => voters,
        };
        let voters_linked = voters.iter().filter(|voter| *voter == me || linked(voter)).count();
        Some(DrillContext {
            vipa: address,
            owned_here,
            owner: vipa.owner.clone(),
            before,
            voters: voters.len(),
            voters_linked,
            detect,
            services: vipa.services.clone(),
            targets: self.cast(address, &vipa, counts),
        })
    }

    fn cast(&self, address: IpAddr, vipa: &vipa_cluster::VipaStatus, counts: &ConnectionCounts) -> Vec<Cast> {
        let index = self.routing.vipa_index(address);
        let held = index.map(|index| counts.of(index).by_target(&self.routing.ways)).unwrap_or_default();
        let confirmed = index.map(|index| counts.of(index).confirmed_by_target(&self.routing.ways)).unwrap_or_default();
        let by_way = |ways: HashSet<TargetId>| {
            let counted = index.map(|index| counts.of(index).by_way(&self.routing.ways, |way| ways.contains(&way)));
            counted.unwrap_or_default()
        };
        let unreached = by_way(self.routing.unreached());
        let guessed = index.map(|index| self.routing.ways.guessed(vipa_id(index), self.routing.vipas[index].lists()));
        let guessed = by_way(guessed.unwrap_or_default());
        let subjects = self.subjects(Some(address));
        let mut addresses: Vec<IpAddr> =
            vipa.services.iter().flat_map(|service| &service.candidates).copied().collect();
        addresses.extend(vipa.targets.iter().map(|target| target.address).chain(held.keys().copied()));
        addresses.sort_unstable();
        addresses.dedup();
        let cast = |target: IpAddr| {
            let known = vipa.targets.iter().find(|known| known.address == target);
            Cast {
                node: known.map(|known| known.node.clone()),
                address: target,
                candidate: vipa.services.iter().any(|service| service.candidates.contains(&target)),
                linked: known.is_some_and(|known| known.linked),
                position: known.and_then(|known| known.position),
                listening: known.map(|known| known.listening.clone()).unwrap_or_default(),
                reached: self.routing.reaches(target),
                known: held.get(&target).copied().unwrap_or_default(),
                confirmed: confirmed.get(&target).copied().unwrap_or_default(),
                unreached: unreached.get(&target).copied().unwrap_or_default(),
                guessed: guessed.get(&target).copied().unwrap_or_default(),
                subject: subjects.iter().find(|subject| subject.target == target).cloned(),
            }
        };
        addresses.into_iter().map(cast).collect()
    }

    pub(crate) fn diff(&self, vipa: IpAddr, reply: Reply) {
        let Some(mine) = self.config.vipas.iter().find(|known| known.address == vipa) else {
            let _ = reply.send(unknown_vipa(vipa));
            return;
        };
        let me = &self.config.node.name;
        let others: Vec<_> = mine.ranks.iter().map(|(name, _)| name).filter(|name| *name != me).cloned().collect();
        let refused = self.refusals.recent(|_| 0, self.clock.now()).into_iter();
        let unlinked =
            refused.filter_map(|peer| Some((peer.node?, peer.why))).filter(|(node, _)| !self.cluster.is_linked(node));
        let refused = unlinked.collect();
        let (asker, mine) = (self.audits.asker.clone(), settings(&self.config, mine));
        tokio::spawn(async move {
            let _ = reply.send(Answer::Diff(compare::compare(&asker, vipa, mine, (others, refused)).await));
        });
    }
}

fn unknown_vipa(vipa: IpAddr) -> Answer {
    Answer::Error(format!("{vipa} is not a VIPA of this router; `vipactl status` lists them"))
}
