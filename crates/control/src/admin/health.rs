//! What this router remembers for its events and its verdict on its own health: what lasts, what was told already, and how the last
//! reload, audits and comparisons ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use tokio::sync::mpsc;
use vipa_cluster::{Note, State};
use vipa_model::{Moment, NodeName, listed};
use vipa_protocol::{
    Eligibility, EventKind, Health, HealthFacts, OwnershipCause, Question, Reply as QueryAnswer,
    admin::{AuditResult, TakeoverRecord, TargetAudit},
    event::{LimitKind, MAX_EVENT_NAMES, event_text},
    health::{AuditFacts, CertificateFacts, ReloadFacts, ServiceFacts, VipaFacts, assess, service_name},
};
use vipa_transport::CertificateInfo;

use crate::{
    admin::{queries, status},
    control::Control,
    ownership::restart_gap::unix_ms,
    table::connection_counts::ConnectionCounts,
};

/// Two routers that say they own a VIPA are remembered for so long.
const TWO_OWNERS_FOR: Duration = Duration::from_secs(60);
/// Lost ballots in a row of a VIPA after which the voters are said to grant nothing. A backup that loses a race loses fewer.
const UNGRANTED: u32 = 5;
/// The same refusal of the same node is an event again after so long.
const REFUSED_AGAIN: Duration = Duration::from_secs(600);
/// Nodes and addresses remembered for that.
const MAX_REFUSED: usize = 64;
/// Between two events that say that a limit is reached.
const LIMIT_AGAIN: Duration = Duration::from_secs(60);
/// Between two comparisons of the configuration with the other routers'.
const COMPARE: Duration = Duration::from_secs(30);
/// Between two verdicts for the service manager. With more VIPAs than that they would cost the loop too much time.
const JUDGE: Duration = Duration::from_secs(10);
const MOST_JUDGED: usize = 128;
/// Between two looks at limits.
const LOOK: Duration = Duration::from_secs(1);
/// Answers of other routers that wait for the loop.
const WAITING: usize = 64;

/// A router, and a digest of each VIPA's settings there.
type SettingsDigests = (NodeName, Vec<(IpAddr, u64)>);

#[derive(Debug)]
pub(crate) struct HealthState {
    two_owners: BTreeMap<IpAddr, Moment>,
    /// Whom this router has consented to be succeeded by.
    consents: BTreeMap<IpAddr, NodeName>,
    /// Routers whose VIPAs were taken over because they were silent, and that have said nothing since.
    silent: BTreeSet<NodeName>,
    ballots_lost: BTreeMap<IpAddr, u32>,
    refused: BTreeMap<(Option<NodeName>, Option<IpAddr>), (String, Moment)>,
    pub(crate) reload: Option<ReloadFacts>,
    /// Whether the last audit of a target agreed, by target and VIPA.
    audits: BTreeMap<(NodeName, IpAddr), bool>,
    /// VIPAs for which a linked router is configured otherwise.
    other_configurations: BTreeMap<NodeName, Vec<IpAddr>>,
    answers_in: mpsc::Sender<SettingsDigests>,
    answers: mpsc::Receiver<SettingsDigests>,
    compare_next: Moment,
    look_next: Moment,
    /// For the service manager.
    pub(crate) verdict: Option<String>,
    judge_next: Moment,
    evictions: u64,
    limit_told: BTreeMap<(LimitKind, Option<IpAddr>), Moment>,
}

impl Default for HealthState {
    fn default() -> Self {
        let (answers_in, answers) = mpsc::channel(WAITING);
        Self {
            two_owners: BTreeMap::new(),
            consents: BTreeMap::new(),
            silent: BTreeSet::new(),
            ballots_lost: BTreeMap::new(),
            refused: BTreeMap::new(),
            reload: None,
            audits: BTreeMap::new(),
            other_configurations: BTreeMap::new(),
            answers_in,
            answers,
            compare_next: Moment::ZERO,
            look_next: Moment::ZERO,
            verdict: None,
            judge_next: Moment::ZERO,
            evictions: 0,
            limit_told: BTreeMap::new(),
        }
    }
}

impl HealthState {
    /// A message of this node has come.
    pub(crate) fn hear_from(&mut self, node: &NodeName) {
        if !self.silent.is_empty() {
            self.silent.remove(node);
        }
    }

    /// Whether a router's VIPAs were taken over because it was silent, and it has said nothing since: its link is not up, whatever the
    /// transport still believes.
    pub(crate) fn is_silent(&self, node: &NodeName) -> bool {
        self.silent.contains(node)
    }

    pub(crate) fn audited(&mut self, audit: &TargetAudit) {
        let agrees = match &audit.result {
            AuditResult::Agrees { .. } => true,
            AuditResult::Differs { repaired, .. } => *repaired,
            AuditResult::NoAnswer => return,
        };
        self.audits.insert((audit.node.clone(), audit.vipa), agrees);
    }

    /// The event that this note is, if it is one.
    fn event_of(&mut self, note: &Note, owner: impl Fn(IpAddr) -> Option<NodeName>, now: Moment) -> Option<EventKind> {
        let is_owning = |state: &State| matches!(state, State::Rebuilding | State::Active);
        Some(match note.clone() {
            Note::Linked { peer } => {
                self.silent.remove(&peer);
                self.ballots_lost.clear();
                EventKind::Link { peer, up: true }
            }
            Note::Unlinked { peer } => {
                self.silent.remove(&peer);
                EventKind::Link { peer, up: false }
            }
            Note::Refused { peer, mismatch } => return self.refused((Some(peer), None), &mismatch.to_string(), now),
            Note::Owned { vipa, epoch, from, cause } => {
                self.ballots_lost.remove(&vipa);
                if let (Some(from), OwnershipCause::Silent { .. }) = (&from, &cause) {
                    self.silent.insert(from.clone());
                }
                EventKind::Owned { vipa, epoch, from, cause }
            }
            Note::Consented { vipa, to, .. } => {
                self.consents.insert(vipa, to);
                return None;
            }
            Note::ConsentWithdrawn { vipa, .. } => {
                self.consents.remove(&vipa);
                return None;
            }
            Note::Transition { vipa, epoch, from, to } if is_owning(&from) && !is_owning(&to) => {
                EventKind::Released { vipa, epoch, to: self.consents.remove(&vipa).or_else(|| owner(vipa)) }
            }
            Note::BallotLost { vipa, epoch, refusals } => {
                let lost = self.ballots_lost.entry(vipa).or_default();
                *lost = lost.saturating_add(1);
                if *lost != UNGRANTED {
                    return None;
                }
                let refusals = refusals.iter().map(|(voter, refusal)| format!("{voter}: {refusal}"));
                let why = Some(listed(refusals)).filter(|why| !why.is_empty());
                let why = event_text(&why.unwrap_or_else(|| "no voter answers".into()));
                EventKind::NotGranted { vipa, epoch, why }
            }
            Note::Fenced { vipa, epoch } => EventKind::Fenced { vipa, epoch },
            Note::Unfenced { vipa, epoch } => EventKind::Unfenced { vipa, epoch },
            Note::TwoOwners { vipa, epoch, one, other } => {
                let told = self.two_owners.insert(vipa, now);
                if told.is_some_and(|told| now.since(told) < TWO_OWNERS_FOR) {
                    return None;
                }
                EventKind::TwoOwners { vipa, epoch, one, other }
            }
            Note::Eligibility { router, unfit } => EventKind::RouterCheck { router, unfit },
            Note::Voters { voters } => {
                EventKind::Voters { names: event_text(&listed(&voters.names)), version: voters.version }
            }
            Note::Transition { .. }
            | Note::Denied { .. }
            | Note::Superseded { .. }
            | Note::TargetLate { .. }
            | Note::Decided { .. }
            | Note::TakebackTooEarly { .. }
            | Note::OtherVoters { .. } => return None,
        })
    }

    /// A node is refused: an event when that is new, or long ago.
    pub(crate) fn refused(
        &mut self,
        (peer, address): (Option<NodeName>, Option<IpAddr>),
        why: &str,
        now: Moment,
    ) -> Option<EventKind> {
        let who = (peer.clone(), address);
        let known = self.refused.get(&who);
        if known.is_some_and(|(before, told)| before == why && now.since(*told) < REFUSED_AGAIN) {
            return None;
        }
        if self.refused.len() >= MAX_REFUSED && known.is_none() {
            self.refused.retain(|_, (_, told)| now.since(*told) < REFUSED_AGAIN);
            if self.refused.len() >= MAX_REFUSED {
                return None;
            }
        }
        self.refused.insert(who, (why.to_owned(), now));
        Some(EventKind::LinkRefused { peer, address, why: event_text(why) })
    }

    /// A limit is reached: an event, unless it was told a moment ago.
    fn reached(&mut self, limit: LimitKind, target: Option<IpAddr>, now: Moment) -> bool {
        let told = self.limit_told.insert((limit, target), now);
        let is_new = told.is_none_or(|told| now.since(told) >= LIMIT_AGAIN);
        if !is_new && let Some(told) = told {
            self.limit_told.insert((limit, target), told);
        }
        is_new
    }

    /// Another router has said how it is configured. The VIPAs for which it differs, if that is new.
    fn compared(&mut self, (peer, theirs): SettingsDigests, mine: &BTreeMap<IpAddr, u64>) -> Option<EventKind> {
        let differs = |(vipa, digest): &(IpAddr, u64)| mine.get(vipa).is_some_and(|mine| mine != digest);
        let differing: Vec<IpAddr> = theirs.iter().filter(|known| differs(known)).map(|(vipa, _)| *vipa).collect();
        if differing.is_empty() {
            self.other_configurations.remove(&peer);
            return None;
        }
        let before = self.other_configurations.insert(peer.clone(), differing.clone());
        if before.as_ref() == Some(&differing) {
            return None;
        }
        let more = differing.len().saturating_sub(MAX_EVENT_NAMES) as u32;
        let vipas = differing.into_iter().take(MAX_EVENT_NAMES).collect();
        Some(EventKind::ConfigurationDiffers { peer, vipas, more })
    }
}

fn certificate_facts(certificate: &CertificateInfo) -> CertificateFacts {
    let subject = match &certificate.node {
        Some(node) => node.to_string(),
        None => format!("the authority \"{}\"", certificate.subject),
    };
    let expires_unix_ms = u64::try_from(certificate.not_after).unwrap_or_default().saturating_mul(1_000);
    CertificateFacts { subject, expires_unix_ms }
}

impl Control {
    /// Writes down what a note of the cluster tells operators.
    pub(crate) fn write_note_down(&mut self, note: &Note) {
        let (cluster, me, now) = (&self.cluster, &self.config.node.name, self.clock.now());
        let owner = |vipa| cluster.brief(vipa).and_then(|brief| brief.owner).filter(|owner| owner != me);
        if let Some(event) = self.health.event_of(note, owner, now) {
            self.write_down(event);
        }
    }

    /// A takeover by this router is over.
    pub(crate) fn write_takeover_down(&mut self, record: &TakeoverRecord) {
        let report = &record.report;
        self.write_down(EventKind::Rebuilt {
            vipa: report.vipa,
            epoch: report.epoch,
            took_us: report.detect_us + report.collect_us + report.rebuild_us,
            connections: report.connections_reported,
            missing: report.targets_expected.saturating_sub(report.targets_answered),
        });
    }

    /// Looks at limits now and then, and asks the other routers how they are configured.
    pub(crate) fn look_at_health(&mut self, now: Moment) {
        if now < self.health.look_next {
            return;
        }
        self.health.look_next = now + LOOK;
        let evictions = self.flows.evictions();
        if evictions > std::mem::replace(&mut self.health.evictions, evictions)
            && self.health.reached(LimitKind::Table, None, now)
        {
            let of = self.flows.capacity() as u64;
            self.write_down(EventKind::Limit { limit: LimitKind::Table, of, target: None });
        }
        let over: Vec<IpAddr> = self.reports.shares.over(now.into()).map(|(target, _)| target).collect();
        for target in over {
            if self.health.reached(LimitKind::TargetShare, Some(target), now) {
                self.write_down(EventKind::Limit { limit: LimitKind::TargetShare, of: 0, target: Some(target) });
            }
        }
        self.health.limit_told.retain(|_, told| now.since(*told) < LIMIT_AGAIN);
        while let Ok(answer) = self.health.answers.try_recv() {
            let mine = queries::settings_digests(&self.config).into_iter().collect();
            if let Some(event) = self.health.compared(answer, &mine) {
                self.happened(event);
            }
        }
        if now >= self.health.judge_next && self.config.vipas.len() <= MOST_JUDGED {
            self.health.judge_next = now + JUDGE;
            self.health.verdict = Some(self.assess().summary());
        }
        if now >= self.health.compare_next {
            self.health.compare_next = now + COMPARE;
            self.ask_for_settings();
        }
    }

    fn ask_for_settings(&mut self) {
        let (cluster, routers) = (&self.cluster, &self.config.cluster.routers);
        let linked: Vec<NodeName> =
            routers.iter().map(|(name, _)| name).filter(|name| cluster.is_linked(name)).cloned().collect();
        self.health.other_configurations.retain(|router, _| linked.contains(router));
        for router in linked {
            let (asker, answers) = (self.audits.asker.clone(), self.health.answers_in.clone());
            tokio::spawn(async move {
                if let Some(QueryAnswer::SettingsDigests(digests)) = asker.ask(&router, Question::SettingsDigests).await
                {
                    // Compared again before long.
                    let _ = answers.try_send((router, digests));
                }
            });
        }
    }

    /// A question of another router about what this one has seen or is configured as.
    pub(crate) fn answer_query(&self, question: &Question) -> QueryAnswer {
        match question {
            Question::Events { since_unix_ms } => QueryAnswer::Events(self.events.since(*since_unix_ms)),
            Question::SettingsDigests => QueryAnswer::SettingsDigests(queries::settings_digests(&self.config)),
            question => queries::reply(&self.config, question),
        }
    }

    /// What only health looks at.
    pub(crate) fn health_facts(&self) -> HealthFacts {
        let now = self.clock.now();
        let (agreeing, differing): (Vec<_>, Vec<_>) = self.health.audits.iter().partition(|(_, agrees)| **agrees);
        let audit = AuditFacts {
            agreeing: agreeing.len() as u64,
            differing: differing.into_iter().map(|(of, _)| of.clone()).collect(),
        };
        let two = self.health.two_owners.iter().filter(|(_, at)| now.since(**at) < TWO_OWNERS_FOR);
        let others = self.health.other_configurations.iter();
        let differs = |(router, vipas): (&NodeName, &Vec<IpAddr>)| {
            let named = listed(vipas.iter().take(MAX_EVENT_NAMES));
            (router.clone(), format!("settings of {named}; `vipactl diff {}` shows them", vipas[0]))
        };
        HealthFacts {
            now_unix_ms: unix_ms(),
            vipas: self.cluster.vipas().iter().map(|vipa| self.vipa_facts(vipa)).collect(),
            two_owners: two.map(|(vipa, _)| *vipa).collect(),
            ports: Vec::new(),
            other_configurations: others.map(differs).collect(),
            reload: self.health.reload.clone(),
            audit: Some(audit).filter(|_| !self.health.audits.is_empty()),
            certificates: self.links.certificates().iter().map(certificate_facts).collect(),
        }
    }

    fn vipa_facts(&self, vipa: &vipa_cluster::VipaStatus) -> VipaFacts {
        let index = self.routing.vipa_index(vipa.vipa).unwrap_or_default();
        let judge = self.routing.judge(index);
        let service = |service: &vipa_model::Service| {
            let all = service.candidates.iter().map(|target| (*target, judge.standing(service, *target).fitness));
            let (fit, unfit): (Vec<_>, Vec<_>) = all.partition(|(_, fitness)| *fitness == Eligibility::Fit);
            let served_by = match fit.len() {
                // Better a slow server than none.
                0 => unfit.iter().filter(|(_, fitness)| fitness.is_last_resort()).count(),
                fit => fit,
            };
            ServiceFacts { service: service_name(service), unfit, served_by: served_by as u32 }
        };
        VipaFacts {
            vipa: vipa.vipa,
            backups: self.cluster.backups(vipa.vipa),
            services: vipa.services.iter().map(service).collect(),
        }
    }

    /// The verdict on this router.
    pub(crate) fn assess(&self) -> Health {
        assess(&status::status(self, &ConnectionCounts::default()))
    }
}

#[cfg(test)]
mod tests {
    use vipa_model::Epoch;

    use super::*;

    const VIPA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    fn nobody(_: IpAddr) -> Option<NodeName> {
        None
    }

    #[test]
    fn a_router_whose_vipas_were_taken_over_for_its_silence_is_silent_until_it_speaks() {
        let mut health = HealthState::default();
        let owned = |cause| Note::Owned { vipa: VIPA, epoch: Epoch(7), from: Some(name("r1")), cause };
        health.event_of(&owned(OwnershipCause::HandedOver), nobody, at(0));
        assert!(!health.is_silent(&name("r1")));
        health.event_of(&owned(OwnershipCause::Silent { ms: 130 }), nobody, at(0));
        assert!(health.is_silent(&name("r1")));
        health.hear_from(&name("r2"));
        assert!(health.is_silent(&name("r1")));
        health.hear_from(&name("r1"));
        assert!(!health.is_silent(&name("r1")));
    }

    #[test]
    fn an_isolated_router_says_once_that_it_is_granted_nothing() {
        let mut health = HealthState::default();
        let lost = Note::BallotLost { vipa: VIPA, epoch: Epoch(8), refusals: Vec::new() };
        let told = |health: &mut HealthState| (0..1_000).filter_map(|_| health.event_of(&lost, nobody, at(1))).count();
        assert_eq!(told(&mut health), 1);
        assert_eq!(told(&mut health), 0);
        health.event_of(&Note::Linked { peer: name("r2") }, nobody, at(2));
        assert_eq!(told(&mut health), 1, "after a link it is news again");
    }

    #[test]
    fn a_vipa_that_is_let_go_names_who_was_consented_to() {
        let mut health = HealthState::default();
        health.event_of(&Note::Consented { vipa: VIPA, epoch: Epoch(7), to: name("r2") }, nobody, at(0));
        let gone = Note::Transition { vipa: VIPA, epoch: Epoch(7), from: State::Active, to: State::Yielding };
        let expected = EventKind::Released { vipa: VIPA, epoch: Epoch(7), to: Some(name("r2")) };
        assert_eq!(health.event_of(&gone, nobody, at(0)), Some(expected));
        let back = Note::Transition { vipa: VIPA, epoch: Epoch(7), from: State::Yielding, to: State::Standby };
        assert_eq!(health.event_of(&back, nobody, at(1)), None);
    }

    #[test]
    fn a_node_that_tries_again_and_again_is_refused_in_one_event() {
        let mut health = HealthState::default();
        let mut refuse = |why: &str, seconds| health.refused((Some(name("r3")), None), why, at(seconds)).is_some();
        assert!(refuse("its cluster.key is another one", 1));
        assert!(!(2..500).any(|second| refuse("its cluster.key is another one", second)));
        assert!(refuse("it is revoked", 500), "another reason");
        assert!(refuse("it is revoked", 1_100), "long ago");
        for number in 0..1_000_u32 {
            health.refused((None, Some(IpAddr::from(number.to_be_bytes()))), "no", at(1_100));
        }
        assert!(health.refused.len() <= MAX_REFUSED);
    }

    #[test]
    fn a_router_that_is_configured_otherwise_is_told_once() {
        let mut health = HealthState::default();
        let mine = BTreeMap::from([(VIPA, 1)]);
        let other = "192.0.2.99".parse().unwrap();
        let mut compared = |digest| health.compared((name("r2"), vec![(VIPA, digest), (other, 9)]), &mine);
        assert_eq!(compared(1), None);
        let differs = EventKind::ConfigurationDiffers { peer: name("r2"), vipas: vec![VIPA], more: 0 };
        assert_eq!((compared(2), compared(2)), (Some(differs.clone()), None));
        assert_eq!((compared(1), compared(2)), (None, Some(differs)));
    }

    #[test]
    fn a_limit_that_is_reached_all_the_time_is_told_once_a_minute() {
        let mut health = HealthState::default();
        let told: Vec<u64> = (0..150).filter(|second| health.reached(LimitKind::Table, None, at(*second))).collect();
        assert_eq!(told, [0, 60, 120]);
    }
}
