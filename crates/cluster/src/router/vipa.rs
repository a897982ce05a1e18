//! One VIPA at one router: who owns it, and how this router comes to own it or lets go of it.
//!
//! ```text
//!            owner missed, or it consents        majority would        majority grants        all reported
//!  Standby ────────────────────────────► Suspecting ──────► Claiming ───────────► Rebuilding ─────────► Active
//!     ▲  ▲                                    │                 │                      │      or late      │
//!     │  └──── owner heard, refused, late ────┴─────────────────┘                      │                   │
//!     │                                                                                │                   │
//!     ├────────────────────────── higher epoch, without our consent ───────────────────┴───────────────────┤
//!     └── lingered ── Yielding ◄── higher epoch, of the router we consented to ────────────────────────────┘
//! ```

use std::{collections::BTreeMap, fmt, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};
use vipa_model::{Connection, Epoch, Moment, NodeName, Protocol, Service, Stance};
use vipa_protocol::{
    Associate, Ballot, Claim, Connections, Distribution, Hello, Message, Owned, Part, Refuse, Role, Standing,
    TakeoverReport, Trigger, Yield,
};

use super::{
    Context, Note, Output, Peer,
    election::{Candidacy, Standings},
    reports::{Taken, TargetView},
    settings::{Settings, VipaSettings},
    tenure::{Consent, Tenure},
};

#[derive(Clone, Debug)]
pub(super) struct Vipa {
    pub(super) settings: VipaSettings,
    started: Moment,
    pub(super) phase: Phase,
    /// The highest epoch somebody is known to have owned it in, and who that is.
    pub(super) epoch: Epoch,
    pub(super) owner: Option<NodeName>,
    /// The highest epoch anybody spoke of.
    highest: Epoch,
    /// The owner's last beat here, and the first of the unbroken row of them.
    heard: Option<Moment>,
    heard_since: Option<Moment>,
    last_sequence: u64,
    /// Since when the owner has consented to this router.
    offered: Option<Moment>,
    /// The epoch of which the owner's whole table has come.
    table: Option<Epoch>,
    /// No ballot before this.
    not_before: Moment,
    /// Ballots lost since the owner was last heard or a voter last linked.
    ballots_lost: u32,
    /// When the owner was last asked to yield.
    asked: Option<Moment>,
    /// The owner's list, as it distributed it.
    distributed: Option<Vec<Service>>,
    pub(super) targets: BTreeMap<NodeName, TargetView>,
    pub(super) last_report: Option<TakeoverReport>,
}

#[derive(Clone, Debug)]
pub(super) enum Phase {
    Standby,
    Suspecting(Candidacy),
    Claiming(Candidacy),
    Rebuilding(Tenure),
    Active(Tenure),
    Yielding { until: Moment },
}

/// The phases without what they carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Standby,
    Suspecting,
    Claiming,
    Rebuilding,
    Active,
    Yielding,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Standby => "standby",
            Self::Suspecting => "suspecting",
            Self::Claiming => "claiming",
            Self::Rebuilding => "rebuilding",
            Self::Active => "active",
            Self::Yielding => "yielding",
        })
    }
}

/// What can move the machine.
#[derive(Clone, Debug)]
pub(super) enum Cue {
    /// Time has passed.
    Due,
    Heard {
        from: NodeName,
        epoch: Epoch,
        yielding_to: Option<NodeName>,
        sequence: u64,
    },
    Granted {
        from: NodeName,
        epoch: Epoch,
        ballot: Ballot,
    },
    Refused {
        from: NodeName,
        refuse: Refuse,
    },
    /// A voter took our beat of `epoch`.
    Acknowledged {
        voter: NodeName,
        epoch: Epoch,
        sent: Moment,
    },
    /// A voter has granted a higher epoch than our beat's.
    Superseded {
        voter: NodeName,
        mine: Epoch,
        epoch: Epoch,
        holder: NodeName,
    },
    /// What a target or the predecessor knows has come in.
    Reported,
    /// A router asks to be consented to.
    Asked {
        by: NodeName,
        epoch: Epoch,
    },
    Stop,
}

impl Vipa {
    pub(super) fn new(settings: VipaSettings, now: Moment) -> Self {
        Self {
            settings,
            started: now,
            phase: Phase::Standby,
            epoch: Epoch::NONE,
            owner: None,
            highest: Epoch::NONE,
            heard: None,
            heard_since: None,
            last_sequence: 0,
            offered: None,
            table: None,
            not_before: now,
            ballots_lost: 0,
            asked: None,
            distributed: None,
            targets: BTreeMap::new(),
            last_report: None,
        }
    }

    /// The machine. Every phase answers every cue.
    pub(super) fn step(&mut self, cue: Cue, cx: &mut Context<'_>) {
        use {Cue as C, Phase as P};
        match (&mut self.phase, cue) {
            (P::Standby, C::Due | C::Reported) => self.watch(cx),
            (P::Suspecting(_) | P::Claiming(_), C::Due) => self.ballot_due(cx),
            (P::Rebuilding(_), C::Due) => {
                self.tend(cx);
                self.rebuilt(cx);
            }
            (P::Active(_), C::Due) => self.tend(cx),
            (P::Yielding { .. }, C::Due) => self.retire(cx),

            (P::Standby, C::Heard { from, epoch, yielding_to, sequence }) => {
                self.hear(from, epoch, yielding_to.as_ref(), sequence, cx);
                self.watch(cx);
            }
            (P::Suspecting(_), C::Heard { from, epoch, yielding_to, sequence }) => {
                if self.hear(from, epoch, yielding_to.as_ref(), sequence, cx) && self.offered.is_none() {
                    self.stand_by(cx);
                }
            }
            (P::Claiming(candidacy), C::Heard { from, epoch, yielding_to, sequence }) => {
                let lost = epoch >= candidacy.epoch;
                if self.hear(from, epoch, yielding_to.as_ref(), sequence, cx) && lost {
                    self.stand_by(cx);
                }
            }
            (P::Rebuilding(tenure) | P::Active(tenure), C::Heard { from, epoch, yielding_to, sequence }) => {
                if epoch > tenure.epoch {
                    self.step_down(epoch, &from, cx);
                    self.hear(from, epoch, yielding_to.as_ref(), sequence, cx);
                } else if epoch == tenure.epoch {
                    let (vipa, one) = (self.settings.address, cx.settings.me.clone());
                    cx.note(Note::TwoOwners { vipa, epoch, one, other: from });
                }
            }
            (P::Yielding { .. }, C::Heard { from, epoch, yielding_to, sequence }) => {
                self.hear(from, epoch, yielding_to.as_ref(), sequence, cx);
            }

            (P::Suspecting(candidacy), C::Granted { from, epoch, ballot: Ballot::Trial })
            | (P::Claiming(candidacy), C::Granted { from, epoch, ballot: Ballot::Real }) => {
                if candidacy.epoch == epoch {
                    candidacy.grant(from);
                    self.count(cx);
                }
            }
            (P::Rebuilding(tenure) | P::Active(tenure), C::Granted { from, epoch, ballot: Ballot::Real }) => {
                // One voter more than the majority needed.
                if tenure.epoch == epoch {
                    let claimed = tenure.claimed;
                    self.acknowledged(from, claimed, cx);
                }
            }
            (P::Suspecting(_), C::Granted { ballot: Ballot::Real, .. })
            | (P::Claiming(_) | P::Rebuilding(_) | P::Active(_), C::Granted { ballot: Ballot::Trial, .. })
            | (P::Standby | P::Yielding { .. }, C::Granted { .. }) => {}

            (P::Suspecting(candidacy) | P::Claiming(candidacy), C::Refused { from, refuse }) => {
                self.highest = self.highest.max(refuse.highest);
                if candidacy.epoch == refuse.epoch && cx.settings.voters.contains(&from) {
                    candidacy.refuse(from, refuse.reason);
                    self.count(cx);
                }
            }
            (P::Rebuilding(tenure) | P::Active(tenure), C::Refused { from, refuse }) => {
                self.highest = self.highest.max(refuse.highest);
                if refuse.reason == vipa_protocol::Refusal::Superseded && refuse.highest > tenure.epoch {
                    self.step_down(refuse.highest, &from, cx);
                }
            }
            (P::Standby | P::Yielding { .. }, C::Refused { refuse, .. }) => {
                self.highest = self.highest.max(refuse.highest);
            }

            (P::Rebuilding(tenure) | P::Active(tenure), C::Acknowledged { voter, epoch, sent }) => {
                if tenure.epoch == epoch {
                    self.acknowledged(voter, sent, cx);
                }
            }
            (P::Rebuilding(tenure) | P::Active(tenure), C::Superseded { voter, mine, epoch, holder }) => {
                self.highest = self.highest.max(epoch);
                if tenure.epoch == mine {
                    tenure.superseded.insert(voter);
                    if tenure.is_lost(cx.now, cx.settings.voters.len()) {
                        self.step_down(epoch, &holder, cx);
                    }
                }
            }
            (
                P::Standby | P::Suspecting(_) | P::Claiming(_) | P::Yielding { .. },
                C::Acknowledged { .. } | C::Superseded { .. },
            ) => {}

            (P::Rebuilding(_), C::Reported) => self.rebuilt(cx),
            (P::Suspecting(_) | P::Claiming(_) | P::Active(_) | P::Yielding { .. }, C::Reported) => {}

            (P::Active(tenure), C::Asked { by, epoch }) => {
                if tenure.epoch == epoch && self.may_succeed(&by, cx) {
                    self.consent(by, cx);
                }
            }
            // Asked too early or too late; who still wants it asks again.
            (
                P::Standby | P::Suspecting(_) | P::Claiming(_) | P::Rebuilding(_) | P::Yielding { .. },
                C::Asked { .. },
            ) => {}

            (P::Suspecting(_) | P::Claiming(_), C::Stop) => self.stand_by(cx),
            (P::Rebuilding(_) | P::Active(_), C::Stop) => self.hand_over(cx),
            (P::Standby | P::Yielding { .. }, C::Stop) => {}
        }
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Standby => State::Standby,
            Phase::Suspecting(_) => State::Suspecting,
            Phase::Claiming(_) => State::Claiming,
            Phase::Rebuilding(_) => State::Rebuilding,
            Phase::Active(_) => State::Active,
            Phase::Yielding { .. } => State::Yielding,
        }
    }

    fn enter(&mut self, phase: Phase, cx: &mut Context<'_>) {
        let from = self.state();
        self.phase = phase;
        let (vipa, to) = (self.settings.address, self.state());
        cx.note(Note::Transition { vipa, epoch: self.epoch, from, to });
        let grace = cx.settings.timing.grace;
        let (stance, quiet_until) = match &self.phase {
            Phase::Standby | Phase::Suspecting(_) | Phase::Claiming(_) => (Stance::Standby, cx.now),
            Phase::Rebuilding(tenure) => (Stance::Rebuilding, tenure.rebuild_until + grace),
            Phase::Active(_) => (Stance::Active, cx.now + grace),
            Phase::Yielding { until } => (Stance::Yielding, *until),
        };
        let tells = !matches!(from, State::Standby | State::Suspecting | State::Claiming);
        if stance != Stance::Standby || tells {
            cx.out.push(Output::Stance { vipa, epoch: self.epoch, stance, quiet_until });
        }
    }

    pub(super) fn tenure(&self) -> Option<&Tenure> {
        match &self.phase {
            Phase::Rebuilding(tenure) | Phase::Active(tenure) => Some(tenure),
            Phase::Standby | Phase::Suspecting(_) | Phase::Claiming(_) | Phase::Yielding { .. } => None,
        }
    }

    fn tenure_mut(&mut self) -> Option<&mut Tenure> {
        match &mut self.phase {
            Phase::Rebuilding(tenure) | Phase::Active(tenure) => Some(tenure),
            Phase::Standby | Phase::Suspecting(_) | Phase::Claiming(_) | Phase::Yielding { .. } => None,
        }
    }

    /// What this router's beats say of the VIPA.
    pub(super) fn owned(&self) -> Option<Owned> {
        let tenure = self.tenure()?;
        let yielding_to = tenure.consent.as_ref().map(|consent| consent.to.clone());
        Some(Owned { vipa: self.settings.address, epoch: tenure.epoch, yielding_to })
    }

    /// Whether a stopping router has nothing left to do here.
    pub(super) fn is_at_rest(&self) -> bool {
        matches!(self.phase, Phase::Standby)
    }
}

/// Watching the owner.
impl Vipa {
    /// The moment of the next thing that time alone brings about.
    pub(super) fn deadline(
        &self,
        settings: &Settings,
        peers: &BTreeMap<NodeName, Peer>,
        stopping: bool,
    ) -> Option<Moment> {
        match &self.phase {
            Phase::Standby if stopping => None,
            Phase::Standby => self.suspicion(settings, peers),
            Phase::Suspecting(candidacy) => Some(candidacy.sent + settings.timing.lease / 2),
            Phase::Claiming(candidacy) => Some(candidacy.sent + settings.timing.lease - settings.timing.margin()),
            Phase::Rebuilding(tenure) => tenure.deadline().into_iter().chain([tenure.rebuild_until]).min(),
            Phase::Active(tenure) => tenure.deadline(),
            Phase::Yielding { until } if stopping => Some(*until),
            Phase::Yielding { until } => self.suspicion(settings, peers).into_iter().chain([*until]).min(),
        }
    }

    /// When this router stops believing in the owner: a lease and the margin after its last beat, and a step later for
    /// each live router that is ranked higher.
    fn suspicion(&self, settings: &Settings, peers: &BTreeMap<NodeName, Peer>) -> Option<Moment> {
        let timing = &settings.timing;
        self.settings.rank(&settings.me)?;
        if let Some(offered) = self.offered {
            // The table makes the youngest connections known; it is not worth waiting for without end.
            let patience = if self.table == Some(self.epoch) { Duration::ZERO } else { timing.lease * 5 };
            return Some((offered + patience).max(self.not_before));
        }
        let above = self.settings.ranked_above(&settings.me).filter(|name| Some(*name) != self.owner.as_ref());
        let mut live = 0;
        let mut absent = 0;
        for name in above {
            if peers.contains_key(name) { live += 1 } else { absent += 1 }
        }
        let patience = timing.lease + timing.margin();
        let base = match self.heard {
            Some(heard) => heard + patience,
            None if self.epoch == Epoch::NONE && !self.settings.activate => return None,
            // Nobody was ever heard: first the voters come to speak, then better-ranked routers get their chance.
            None => self.started + patience + timing.lease * 2 * absent.min(1),
        };
        Some((base + timing.claim_step * live).max(self.not_before))
    }

    fn watch(&mut self, cx: &mut Context<'_>) {
        if cx.stopping {
            return;
        }
        if self.suspicion(cx.settings, cx.peers).is_none_or(|due| due > cx.now) {
            self.ask_back(cx);
            return;
        }
        let (trigger, since) = match (self.offered, self.asked) {
            (Some(_), Some(asked)) => (Trigger::Takeback, asked),
            (Some(offered), None) => (Trigger::Handover, offered),
            (None, _) if self.epoch == Epoch::NONE => (Trigger::First, self.started),
            (None, _) => (Trigger::Failure, self.heard.unwrap_or(self.started)),
        };
        self.suspect(trigger, since, cx);
    }

    /// Takes a beat of the owner in. False: it is of the past.
    fn hear(
        &mut self,
        from: NodeName,
        epoch: Epoch,
        yielding_to: Option<&NodeName>,
        sequence: u64,
        cx: &mut Context<'_>,
    ) -> bool {
        if epoch < self.epoch || epoch == self.epoch && self.owner.as_ref().is_some_and(|owner| *owner != from) {
            return false;
        }
        let timing = &cx.settings.timing;
        let same = epoch == self.epoch && self.owner.as_ref() == Some(&from);
        if same && sequence <= self.last_sequence {
            return false;
        }
        let unbroken = same && self.heard.is_some_and(|heard| cx.now.since(heard) < timing.lease);
        if !unbroken {
            self.heard_since = Some(cx.now);
        }
        if !same {
            (self.asked, self.offered) = (None, None);
        }
        self.epoch = epoch;
        self.highest = self.highest.max(epoch);
        self.owner = Some(from);
        self.last_sequence = sequence;
        self.heard = Some(cx.now);
        self.ballots_lost = 0;
        let consents = yielding_to == Some(&cx.settings.me);
        self.offered = if consents { self.offered.or(Some(cx.now)) } else { None };
        true
    }

    /// Asks a lower-ranked owner to yield, once everything this router needs is at hand.
    fn ask_back(&mut self, cx: &mut Context<'_>) {
        let timing = &cx.settings.timing;
        let Some(owner) = self.owner.clone() else { return };
        let recently = |moment: Option<Moment>, span| moment.is_some_and(|moment| cx.now.since(moment) < span);
        if !recently(self.heard, timing.lease) || recently(self.asked, timing.lease * 10) || !cx.is_linked(&owner) {
            return;
        }
        let Some(my_rank) = self.settings.rank(&cx.settings.me) else { return };
        if self.settings.rank(&owner).is_some_and(|rank| rank >= my_rank) || !self.is_ready(cx) {
            return;
        }
        self.asked = Some(cx.now);
        cx.send(&owner, Message::Yield(Yield { vipa: self.settings.address, epoch: self.epoch }));
    }

    /// Whether this router could own the VIPA without losing anything: it has a list, every linked target's log, and
    /// a link to every candidate, or to half of them if the others have kept away for long.
    fn is_ready(&self, cx: &Context<'_>) -> bool {
        if self.services().is_empty() || !self.targets.values().filter(|view| view.linked).all(TargetView::is_warm) {
            return false;
        }
        let candidates = self.candidates();
        let linked = |address: &&IpAddr| self.targets.values().any(|view| view.linked && view.address == **address);
        let present = candidates.iter().filter(linked).count();
        let settled =
            self.heard_since.is_some_and(|since| cx.now.since(since) >= cx.settings.timing.rebuild_deadline * 2);
        present == candidates.len() || settled && present * 2 >= candidates.len()
    }
}

/// Coming to own it.
impl Vipa {
    fn suspect(&mut self, trigger: Trigger, since: Moment, cx: &mut Context<'_>) {
        let epoch = self.epoch.max(self.highest).next();
        self.enter(Phase::Suspecting(Candidacy::new(epoch, cx.now, trigger, since)), cx);
        self.campaign(Ballot::Trial, epoch, cx);
    }

    fn campaign(&self, ballot: Ballot, epoch: Epoch, cx: &mut Context<'_>) {
        let settings = cx.settings;
        for voter in &settings.voters {
            cx.send(voter, Message::Claim(Claim { vipa: self.settings.address, epoch, ballot }));
        }
    }

    fn count(&mut self, cx: &mut Context<'_>) {
        let voters = cx.settings.voters.len();
        match &self.phase {
            Phase::Suspecting(candidacy) => match candidacy.standings(voters) {
                Standings::Won => {
                    let candidacy = candidacy.in_earnest(cx.now);
                    let epoch = candidacy.epoch;
                    self.enter(Phase::Claiming(candidacy), cx);
                    self.campaign(Ballot::Real, epoch, cx);
                }
                Standings::Lost => self.lose_ballot(cx),
                Standings::Open => {}
            },
            Phase::Claiming(candidacy) => match candidacy.standings(voters) {
                Standings::Won => self.take_over(cx),
                Standings::Lost => self.lose_ballot(cx),
                Standings::Open => {}
            },
            Phase::Standby | Phase::Rebuilding(_) | Phase::Active(_) | Phase::Yielding { .. } => {}
        }
    }

    fn ballot_due(&mut self, cx: &mut Context<'_>) {
        if self.deadline(cx.settings, cx.peers, false).is_some_and(|due| due <= cx.now) {
            self.lose_ballot(cx);
        }
    }

    /// Back to watching, for as long as keeps two losers of one ballot apart.
    fn lose_ballot(&mut self, cx: &mut Context<'_>) {
        let timing = &cx.settings.timing;
        let above = self.settings.ranked_above(&cx.settings.me).count();
        let step = timing.claim_step * u32::try_from(above).unwrap_or(u32::MAX);
        let (candidacy, pause) = match &self.phase {
            // Doubled each time, so that a router without voters does not ask them for ever at the pace of beats.
            Phase::Suspecting(candidacy) => (candidacy, timing.beat * (1 << self.ballots_lost.min(6))),
            Phase::Claiming(candidacy) => (candidacy, timing.lease / 2 + step),
            Phase::Standby | Phase::Rebuilding(_) | Phase::Active(_) | Phase::Yielding { .. } => return,
        };
        let refusals = candidacy.refused.iter().map(|(voter, refusal)| (voter.clone(), *refusal)).collect();
        let note = Note::BallotLost { vipa: self.settings.address, epoch: candidacy.epoch, refusals };
        self.highest = match self.phase {
            // Some voters gave this epoch away; it is used up.
            Phase::Claiming(_) => self.highest.max(candidacy.epoch),
            _ => self.highest,
        };
        self.not_before = cx.now + pause.min(timing.lease * 10);
        self.ballots_lost += 1;
        cx.note(note);
        self.stand_by(cx);
    }

    fn stand_by(&mut self, cx: &mut Context<'_>) {
        if let Phase::Claiming(candidacy) = &self.phase {
            self.highest = self.highest.max(candidacy.epoch);
        }
        self.enter(Phase::Standby, cx);
    }

    /// A majority granted it: from here on the order of the outputs matters. First the workers must know, then the
    /// network, then the targets are asked.
    fn take_over(&mut self, cx: &mut Context<'_>) {
        let Phase::Claiming(candidacy) = &self.phase else { return };
        let us = |from: Moment, to: Moment| u64::try_from(to.since(from).as_micros()).unwrap_or(u64::MAX);
        let (vipa, epoch, claimed) = (self.settings.address, candidacy.epoch, candidacy.sent);
        let report = TakeoverReport {
            vipa,
            epoch,
            trigger: candidacy.trigger,
            predecessor: self.owner.clone(),
            detect_us: us(candidacy.since, candidacy.asked_first),
            collect_us: us(candidacy.asked_first, cx.now),
            rebuild_us: 0,
            targets_answered: 0,
            targets_expected: 0,
            targets_warm: u32::try_from(self.targets.values().filter(|view| view.is_warm()).count())
                .unwrap_or(u32::MAX),
            connections_reported: 0,
        };
        let tenure = Tenure::new(candidacy.granted.clone(), claimed, cx.now, cx.settings, report);
        let until = tenure.lease;
        if until <= cx.now {
            // The grants took so long that others may have been granted the next epoch already.
            self.lose_ballot(cx);
            return;
        }
        self.epoch = epoch;
        self.highest = self.highest.max(epoch);
        self.owner = Some(cx.settings.me.clone());
        (self.heard, self.heard_since, self.offered, self.asked) = (None, None, None, None);
        self.ballots_lost = 0;
        cx.out.push(Output::ServeWith { vipa, services: self.services().to_vec() });
        self.enter(Phase::Rebuilding(tenure), cx);
        cx.out.push(Output::Lease { vipa, until });
        cx.out.push(Output::Announce { vipa });
        cx.beats.hurry();
        self.tell_all(cx);
        self.rebuilt(cx);
    }

    /// Ends the rebuilding when everybody has answered, or the time for it is over.
    fn rebuilt(&mut self, cx: &mut Context<'_>) {
        let Phase::Rebuilding(tenure) = &self.phase else { return };
        let (expected, missing) = self.census(tenure.epoch);
        if !missing.is_empty() && cx.now < tenure.rebuild_until {
            return;
        }
        let mut tenure = tenure.clone();
        for &target in &missing {
            cx.note(Note::TargetLate { vipa: self.settings.address, epoch: tenure.epoch, target });
        }
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        tenure.report.targets_expected = count(expected);
        tenure.report.targets_answered = count(expected - missing.len());
        tenure.report.rebuild_us = u64::try_from(cx.now.since(tenure.granted_at).as_micros()).unwrap_or(u64::MAX);
        let report = tenure.report.clone();
        self.last_report = Some(report.clone());
        self.enter(Phase::Active(tenure), cx);
        cx.out.push(Output::Report(report));
    }

    /// How many targets are expected to answer for `epoch`, and those that have not: the linked ones and every
    /// candidate, whether of this router's list or of the owner's before.
    fn census(&self, epoch: Epoch) -> (usize, Vec<IpAddr>) {
        let mut expected = self.candidates();
        expected.extend(self.targets.values().filter(|view| view.linked).map(|view| view.address));
        expected.sort_unstable();
        expected.dedup();
        let answered =
            |address: &IpAddr| self.targets.values().any(|view| view.address == *address && view.has_answered(epoch));
        let missing = expected.iter().filter(|address| !answered(address)).copied().collect();
        (expected.len(), missing)
    }
}

/// Owning it, and letting go.
impl Vipa {
    fn acknowledged(&mut self, voter: NodeName, sent: Moment, cx: &mut Context<'_>) {
        let vipa = self.settings.address;
        let Some(tenure) = self.tenure_mut() else { return };
        tenure.superseded.remove(&voter);
        if tenure.acknowledge(voter, sent, cx.settings) {
            cx.out.push(Output::Lease { vipa, until: tenure.lease });
            if cx.now < tenure.lease && tenure.fenced.take().is_some() {
                let epoch = tenure.epoch;
                cx.note(Note::Unfenced { vipa, epoch });
            }
        }
    }

    /// What an owner does as time passes: it notices the end of its lease and the end of its consent.
    fn tend(&mut self, cx: &mut Context<'_>) {
        let vipa = self.settings.address;
        let Some(tenure) = self.tenure_mut() else { return };
        let epoch = tenure.epoch;
        if tenure.fenced.is_none() && cx.now >= tenure.lease {
            tenure.fenced = Some(cx.now);
            cx.note(Note::Fenced { vipa, epoch });
        }
        if tenure.fenced.is_some() && tenure.is_lost(cx.now, cx.settings.voters.len()) {
            let (by, holder) = (self.highest, cx.settings.me.clone());
            self.step_down(by, &holder, cx);
            return;
        }
        if tenure.consent.as_ref().is_some_and(|consent| cx.now >= consent.until) {
            let from = tenure.consent.take().expect("just seen").to;
            cx.note(Note::ConsentWithdrawn { vipa, epoch, from });
            cx.beats.hurry();
            if cx.stopping {
                self.resign(cx);
                return;
            }
        }
        // Without a majority for a whole lease: whoever has one shall not wait for our beats to end.
        let tenure = self.tenure().expect("still owned");
        let cut_off = tenure.fenced.is_some_and(|since| cx.now.since(since) >= cx.settings.timing.lease);
        if cut_off
            && tenure.consent.is_none()
            && let Some(best) = self.best_successor(cx)
        {
            self.consent(best, cx);
        }
    }

    fn may_succeed(&self, router: &NodeName, cx: &Context<'_>) -> bool {
        let rank = self.settings.rank(router);
        let better = |than: &NodeName| rank > self.settings.rank(than);
        let consent = self.tenure().and_then(|tenure| tenure.consent.as_ref());
        better(&cx.settings.me) && consent.is_none_or(|consent| consent.to == *router || better(&consent.to))
    }

    fn best_successor(&self, cx: &Context<'_>) -> Option<NodeName> {
        let others = self.settings.ranks.iter().filter(|(name, _)| *name != cx.settings.me && cx.is_linked(name));
        others.max_by_key(|(_, rank)| *rank).map(|(name, _)| name.clone())
    }

    fn consent(&mut self, to: NodeName, cx: &mut Context<'_>) {
        let vipa = self.settings.address;
        let until = cx.now + cx.settings.timing.consent();
        let Some(tenure) = self.tenure_mut() else { return };
        let epoch = tenure.epoch;
        tenure.consent = Some(Consent { to: to.clone(), until });
        cx.beats.hurry();
        cx.note(Note::Consented { vipa, epoch, to: to.clone() });
        cx.out.push(Output::SendTable { to, vipa, epoch });
    }

    /// The router stops: the best live router shall go on.
    fn hand_over(&mut self, cx: &mut Context<'_>) {
        match self.best_successor(cx) {
            Some(best) => self.consent(best, cx),
            None => self.resign(cx),
        }
    }

    /// Nobody goes on; the VIPA is left alone.
    fn resign(&mut self, cx: &mut Context<'_>) {
        cx.out.push(Output::Withdraw { vipa: self.settings.address });
        self.owner = None;
        self.heard = Some(cx.now);
        self.enter(Phase::Standby, cx);
    }

    /// Somebody holds a higher epoch.
    fn step_down(&mut self, by: Epoch, holder: &NodeName, cx: &mut Context<'_>) {
        let Some(tenure) = self.tenure() else { return };
        let vipa = self.settings.address;
        let epoch = tenure.epoch;
        let consented = tenure.consent.is_some();
        cx.note(Note::Superseded { vipa, epoch, by, holder: holder.clone() });
        self.highest = self.highest.max(by);
        self.owner = None;
        // The new owner gets the time a beat may take before it is missed.
        (self.heard, self.heard_since, self.offered, self.asked) = (Some(cx.now), None, None, None);
        cx.out.push(Output::Withdraw { vipa });
        let timing = &cx.settings.timing;
        // A stopping router cannot linger for long.
        let linger = if cx.stopping { timing.yield_linger / 2 } else { timing.yield_linger };
        let next = if consented { Phase::Yielding { until: cx.now + linger } } else { Phase::Standby };
        self.enter(next, cx);
        self.tell_targets(cx);
    }

    fn retire(&mut self, cx: &mut Context<'_>) {
        if self.deadline(cx.settings, cx.peers, cx.stopping).is_some_and(|due| due <= cx.now) {
            self.enter(Phase::Standby, cx);
            self.watch(cx);
        }
    }
}

/// Lists, links and reports.
impl Vipa {
    /// The list new connections use here.
    pub(super) fn services(&self) -> &[Service] {
        self.settings.services.as_deref().or(self.distributed.as_deref()).unwrap_or_default()
    }

    /// Every candidate of this router's list and of the owner's.
    fn candidates(&self) -> Vec<IpAddr> {
        let lists = self.services().iter().chain(self.distributed.iter().flatten());
        let mut candidates: Vec<IpAddr> = lists.flat_map(|service| service.candidates.iter().copied()).collect();
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }

    /// First thing of all: the list, so that the candidates' neighbours are known before they are needed.
    pub(super) fn greet(&mut self, cx: &mut Context<'_>) {
        if !self.services().is_empty() {
            cx.out.push(Output::ServeWith { vipa: self.settings.address, services: self.services().to_vec() });
        }
    }

    pub(super) fn linked(&mut self, peer: &NodeName, hello: &Hello, cx: &mut Context<'_>) {
        if self.tenure().is_some() {
            cx.beats.hurry();
        }
        match hello.role {
            Role::Router => {
                if self.tenure().is_some() {
                    self.distribute(peer, cx);
                }
            }
            Role::Target { address } => {
                self.targets.entry(peer.clone()).or_insert_with(|| TargetView::new(address)).link(address);
                self.tell_target(peer, cx);
            }
        }
        let ballot = match &self.phase {
            Phase::Suspecting(candidacy) => Some((Ballot::Trial, candidacy.epoch)),
            Phase::Claiming(candidacy) => Some((Ballot::Real, candidacy.epoch)),
            Phase::Standby | Phase::Rebuilding(_) | Phase::Active(_) | Phase::Yielding { .. } => None,
        };
        if cx.settings.voters.contains(peer) {
            if self.ballots_lost > 0 {
                (self.ballots_lost, self.not_before) = (0, cx.now);
            }
            if let Some((ballot, epoch)) = ballot {
                cx.send(peer, Message::Claim(Claim { vipa: self.settings.address, epoch, ballot }));
            }
        }
    }

    pub(super) fn unlinked(&mut self, peer: &NodeName, cx: &mut Context<'_>) {
        if let Some(view) = self.targets.get_mut(peer) {
            view.unlink();
            let (vipa, target) = (self.settings.address, view.address);
            cx.out.push(Output::Listeners { vipa, target, listening: Vec::new() });
        }
        self.step(Cue::Reported, cx);
    }

    fn tell_all(&mut self, cx: &mut Context<'_>) {
        let routers: Vec<NodeName> =
            cx.peers.iter().filter(|(_, peer)| peer.role == Role::Router).map(|(name, _)| name.clone()).collect();
        for router in routers {
            self.distribute(&router, cx);
        }
        self.tell_targets(cx);
    }

    fn tell_targets(&mut self, cx: &mut Context<'_>) {
        let linked: Vec<NodeName> =
            self.targets.iter().filter(|(_, view)| view.linked).map(|(name, _)| name.clone()).collect();
        for target in linked {
            self.tell_target(&target, cx);
        }
    }

    /// Gives a target the list, and asks it to report from where its log is known.
    fn tell_target(&mut self, target: &NodeName, cx: &mut Context<'_>) {
        if !self.services().is_empty() {
            self.distribute(target, cx);
        }
        let (vipa, epoch, standing) = (self.settings.address, self.epoch, self.standing());
        let Some(view) = self.targets.get_mut(target) else { return };
        view.asked = Some((epoch, standing));
        cx.send(target, Message::Associate(Associate { vipa, epoch, standing, seen: view.seen }));
    }

    fn standing(&self) -> Standing {
        if self.tenure().is_some() { Standing::Owner } else { Standing::Backup }
    }

    fn distribute(&self, to: &NodeName, cx: &mut Context<'_>) {
        let distribution = Distribution {
            vipa: self.settings.address,
            epoch: self.epoch,
            sender: self.standing(),
            ranks: self.settings.ranks.clone(),
            services: self.services().to_vec(),
        };
        cx.send(to, Message::Distribution(distribution));
    }

    /// The owner's list comes: it is kept for the day this router takes over, and used if there is no own one.
    pub(super) fn distributed(&mut self, from: &NodeName, distribution: Distribution, cx: &mut Context<'_>) {
        let Distribution { vipa, epoch, sender, ranks: _, services } = distribution;
        let is_news = sender == Standing::Owner && epoch >= self.epoch && *from != cx.settings.me;
        if is_news && self.tenure().is_some_and(|tenure| tenure.epoch < epoch) {
            self.step_down(epoch, from, cx);
        }
        if !is_news || self.tenure().is_some() || self.distributed.as_ref() == Some(&services) {
            return;
        }
        let before = self.services().to_vec();
        self.distributed = Some(services);
        if before != self.services() {
            cx.out.push(Output::ServeWith { vipa, services: self.services().to_vec() });
        }
    }

    pub(super) fn listening(&mut self, from: &NodeName, listening: Vec<(Protocol, u16)>, cx: &mut Context<'_>) {
        let Some(view) = self.targets.get_mut(from) else { return };
        let (vipa, target) = (self.settings.address, view.address);
        view.listening = Some(listening.clone());
        cx.out.push(Output::Listeners { vipa, target, listening });
        self.step(Cue::Reported, cx);
    }

    pub(super) fn reported(&mut self, from: &NodeName, connections: Connections, cx: &mut Context<'_>) {
        let vipa = self.settings.address;
        let Some(view) = self.targets.get_mut(from) else { return };
        let target = view.address;
        match view.take(connections) {
            Taken::Run(run, count) => {
                cx.out.push(Output::Install { vipa, target, run });
                if let Phase::Rebuilding(tenure) = &mut self.phase {
                    tenure.report.connections_reported += count;
                }
            }
            Taken::Nothing => {}
            Taken::Gap => self.tell_target(from, cx),
        }
        self.step(Cue::Reported, cx);
    }

    pub(super) fn table(
        &mut self,
        from: &NodeName,
        epoch: Epoch,
        entries: Vec<(Connection, IpAddr)>,
        part: Part,
        cx: &mut Context<'_>,
    ) {
        let current = epoch == self.epoch && self.owner.as_ref() == Some(from);
        // The last parts of a long table may come after we no longer waited for them.
        let predecessor = self.tenure().is_some_and(|tenure| tenure.report.predecessor.as_ref() == Some(from));
        if !current && !predecessor {
            return;
        }
        if !entries.is_empty() {
            cx.out.push(Output::InstallTable { vipa: self.settings.address, entries });
        }
        if matches!(part, Part::Only | Part::Last) {
            self.table = Some(epoch);
            self.step(Cue::Reported, cx);
        }
    }
}
