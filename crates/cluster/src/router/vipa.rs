//! One VIPA at one router: which router owns it, and how this router takes it over or lets it go.
//!
//! ```text
//!            owner missed, or it consents        majority would        majority grants        all reported
//!  Standby ────────────────────────────► Suspecting ──────► Claiming ───────────► Rebuilding ─────────► Active
//!     ▲  ▲                                    │                 │                      │      or late      │
//!     │  └─── owner's beat, refused, late ────┴─────────────────┘                      │                   │
//!     │                                                                                │                   │
//!     ├────────────────────────── higher epoch, without our consent ───────────────────┴───────────────────┤
//!     └── lingered ── Yielding ◄── higher epoch, of the router we consented to ────────────────────────────┘
//! ```

mod owning;
mod taking;
mod telling;
mod watching;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use vipa_model::{Epoch, Incarnation, Moment, NodeName, Service, Stance};
use vipa_protocol::{Ballot, Owned, Refusal, Refuse, TakeoverReport};

use super::{
    Context, Note, Output, election::Candidacy, io::Resting, ownership::Ownership, reports::TargetView,
    settings::VipaSettings,
};
use crate::paths::{LearnedPaths, StoredLists};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Vipa {
    pub(super) settings: VipaSettings,
    started: Moment,
    pub(super) phase: Phase,
    /// The highest epoch in which a router is known to have owned it.
    pub(super) epoch: Epoch,
    pub(super) owner: Option<NodeName>,
    /// The highest epoch in any message.
    highest: Epoch,
    /// When the owner's last beat was received.
    heard: Option<Moment>,
    heard_since: Option<Moment>,
    last_sequence: u64,
    /// Since when the owner has consented to this router.
    offered: Option<Moment>,
    /// The epoch of the owner whose whole table has been received.
    table: Option<Epoch>,
    /// No ballot before this.
    not_before: Moment,
    /// Ballots lost since the owner was last received or a voter last linked.
    ballots_lost: u32,
    /// When the owner was last asked to yield, and the targets that it then missed here.
    asked: Option<Moment>,
    unfollowed: Vec<NodeName>,
    /// Since when this router has had all it needs to own it.
    ready_since: Option<Moment>,
    /// Since when an operator has ordered it back here.
    ordered_back: Option<Moment>,
    /// The last count of its connections in the table.
    counted: Option<(Moment, u64)>,
    /// Since when this owner is to own it no more.
    leaving_since: Option<Moment>,
    /// The router that was last consented to and did not take it.
    declined_by: Option<NodeName>,
    /// It is no longer in the configuration.
    pub(super) retired: bool,
    resting: Vec<Resting>,
    /// The owner's list, as it was distributed.
    distributed: Option<Vec<Service>>,
    /// The paths to targets that the list here does not name.
    paths: LearnedPaths,
    pub(super) targets: BTreeMap<NodeName, TargetView>,
    /// When silent targets were last asked once more.
    asked_again: Moment,
    pub(super) last_report: Option<TakeoverReport>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Phase {
    Standby,
    Suspecting(Candidacy),
    Claiming(Candidacy),
    Rebuilding(Ownership),
    Active(Ownership),
    Yielding { until: Moment, to: NodeName },
}

/// The phases without their contents.
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

/// Inputs of the machine.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// Time has passed.
    Due,
    /// A beat of the owner.
    Beat {
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
    /// A voter acknowledged our beat of `epoch`.
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
    /// A report of a target or the predecessor's table has arrived.
    Reported,
    /// A router asks for consent; it follows the logs of these targets.
    Asked {
        by: NodeName,
        epoch: Epoch,
        follows: Vec<(NodeName, Incarnation)>,
    },
    /// The order of succession may have changed.
    Reordered,
    Stop,
}

impl Vipa {
    pub(super) fn new(settings: VipaSettings, stored: StoredLists, now: Moment) -> Self {
        let StoredLists { distributed, paths } = stored;
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
            unfollowed: Vec::new(),
            ready_since: None,
            ordered_back: None,
            counted: None,
            leaving_since: None,
            declined_by: None,
            retired: false,
            resting: Vec::new(),
            distributed,
            paths: LearnedPaths::new(paths),
            targets: BTreeMap::new(),
            asked_again: now,
            last_report: None,
        }
    }

    /// The machine. Every phase answers every input.
    pub(super) fn step(&mut self, input: Input, cx: &mut Context<'_>) {
        use {Input as C, Phase as P};
        // A single voter that reports an epoch of later voters would otherwise keep this router from ever claiming one
        // of its own.
        let epochs = cx.settings.voters.epochs();
        let told = |epoch: Epoch| if epoch < epochs.end { epoch } else { Epoch::NONE };
        match (&mut self.phase, input) {
            (P::Standby, C::Due | C::Reported) => self.watch(cx),
            (P::Suspecting(_) | P::Claiming(_), C::Due) => self.ballot_due(cx),
            (P::Rebuilding(_), C::Due) => {
                self.tend(cx);
                self.rebuilt(cx);
            }
            (P::Active(_), C::Due) => {
                self.ask_silent(cx);
                self.tend(cx);
            }
            (P::Yielding { .. }, C::Due) => self.end_lingering(cx),

            (P::Standby, C::Beat { from, epoch, yielding_to, sequence }) => {
                self.take_beat(from, epoch, yielding_to.as_ref(), sequence, cx);
                self.watch(cx);
            }
            (P::Suspecting(_), C::Beat { from, epoch, yielding_to, sequence }) => {
                if self.take_beat(from, epoch, yielding_to.as_ref(), sequence, cx) && self.offered.is_none() {
                    self.stand_by(cx);
                }
            }
            (P::Claiming(candidacy), C::Beat { from, epoch, yielding_to, sequence }) => {
                let lost = epoch >= candidacy.epoch;
                if self.take_beat(from, epoch, yielding_to.as_ref(), sequence, cx) && lost {
                    self.stand_by(cx);
                }
            }
            (P::Rebuilding(ownership) | P::Active(ownership), C::Beat { from, epoch, yielding_to, sequence }) => {
                if epoch > ownership.epoch {
                    self.step_down(epoch, &from, cx);
                    self.take_beat(from, epoch, yielding_to.as_ref(), sequence, cx);
                } else if epoch == ownership.epoch {
                    self.meet_another_owner(epoch, &from, cx);
                }
            }
            (P::Yielding { .. }, C::Beat { from, epoch, yielding_to, sequence }) => {
                self.take_beat(from, epoch, yielding_to.as_ref(), sequence, cx);
            }

            (P::Suspecting(candidacy), C::Granted { from, epoch, ballot: Ballot::Trial }) => {
                if candidacy.epoch == epoch {
                    candidacy.grant(from);
                    self.count(cx);
                }
            }
            (P::Claiming(candidacy), C::Granted { from, epoch, ballot: Ballot::Real { round } }) => {
                if (candidacy.epoch, candidacy.round) == (epoch, round) {
                    candidacy.grant(from);
                    self.count(cx);
                }
            }
            (
                P::Rebuilding(ownership) | P::Active(ownership),
                C::Granted { from, epoch, ballot: Ballot::Real { round } },
            ) => {
                // One voter more than the majority needed.
                let (asked, sent) = ownership.claimed;
                if (ownership.epoch, asked) == (epoch, round) {
                    self.acknowledged(from, sent, cx);
                }
            }
            (P::Suspecting(_), C::Granted { ballot: Ballot::Real { .. }, .. })
            | (P::Claiming(_) | P::Rebuilding(_) | P::Active(_), C::Granted { ballot: Ballot::Trial, .. })
            | (P::Standby | P::Yielding { .. }, C::Granted { .. }) => {}

            (P::Suspecting(candidacy) | P::Claiming(candidacy), C::Refused { from, refuse }) => {
                self.highest = self.highest.max(told(refuse.highest));
                if candidacy.epoch == refuse.epoch && cx.settings.electors().contains(&from) {
                    candidacy.refuse(from, refuse.reason);
                    self.count(cx);
                }
            }
            (P::Rebuilding(ownership) | P::Active(ownership), C::Refused { from, refuse }) => {
                self.highest = self.highest.max(told(refuse.highest));
                if refuse.reason == Refusal::Superseded && refuse.highest > ownership.epoch {
                    // One voter's report decides nothing; without voters a target's report is all there is.
                    ownership.superseded.insert(from.clone());
                    let electors = cx.settings.electors();
                    if cx.settings.voters.names.is_empty() || ownership.is_lost(cx.now, electors.len()) {
                        self.step_down(refuse.highest, &from, cx);
                    }
                }
            }
            (P::Standby | P::Yielding { .. }, C::Refused { refuse, .. }) => {
                self.highest = self.highest.max(told(refuse.highest));
            }

            (P::Rebuilding(ownership) | P::Active(ownership), C::Acknowledged { voter, epoch, sent }) => {
                if ownership.epoch == epoch {
                    self.acknowledged(voter, sent, cx);
                }
            }
            (P::Rebuilding(ownership) | P::Active(ownership), C::Superseded { voter, mine, epoch, holder }) => {
                self.highest = self.highest.max(told(epoch));
                if ownership.epoch == mine {
                    ownership.superseded.insert(voter);
                    if ownership.is_lost(cx.now, cx.settings.electors().len()) {
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

            (P::Active(ownership), C::Asked { by, epoch, follows }) => {
                if ownership.epoch == epoch && self.may_succeed(&by, cx) {
                    self.answer_asker(by, &follows, cx);
                }
            }
            // Asked too early or too late; a router that still wants it asks again.
            (
                P::Standby | P::Suspecting(_) | P::Claiming(_) | P::Rebuilding(_) | P::Yielding { .. },
                C::Asked { .. },
            ) => {}

            (P::Standby, C::Reordered) => self.watch(cx),
            (P::Suspecting(_) | P::Claiming(_), C::Reordered) => {
                if self.own_precedence(&cx.overview()).is_none() {
                    self.stand_by(cx);
                }
            }
            (P::Rebuilding(_) | P::Active(_), C::Reordered) => self.tend(cx),
            (P::Yielding { .. }, C::Reordered) => {}

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
        let tells = !matches!(from, State::Standby | State::Suspecting | State::Claiming);
        let silent = matches!(self.phase, Phase::Standby | Phase::Suspecting(_) | Phase::Claiming(_));
        if !silent || tells {
            self.emit_stance(cx);
        }
    }

    /// Emits the stance of the phase for the workers.
    fn emit_stance(&self, cx: &mut Context<'_>) {
        let grace = cx.settings.timing.grace;
        let (stance, quiet_until) = match &self.phase {
            Phase::Standby | Phase::Suspecting(_) | Phase::Claiming(_) => (Stance::Standby, cx.now),
            Phase::Rebuilding(ownership) => (Stance::Rebuilding, ownership.rebuild_until + grace),
            Phase::Active(ownership) => {
                let quiet = cx.now + grace + ownership.overlap(&cx.settings.timing);
                let consent = ownership.consent.as_ref().map_or(quiet, |consent| consent.until + grace);
                (Stance::Active, quiet.max(consent))
            }
            Phase::Yielding { until, .. } => (Stance::Yielding, *until),
        };
        cx.out.push(Output::Stance { vipa: self.settings.address, epoch: self.epoch, stance, quiet_until });
    }

    pub(super) fn ownership(&self) -> Option<&Ownership> {
        match &self.phase {
            Phase::Rebuilding(ownership) | Phase::Active(ownership) => Some(ownership),
            Phase::Standby | Phase::Suspecting(_) | Phase::Claiming(_) | Phase::Yielding { .. } => None,
        }
    }

    fn ownership_mut(&mut self) -> Option<&mut Ownership> {
        match &mut self.phase {
            Phase::Rebuilding(ownership) | Phase::Active(ownership) => Some(ownership),
            Phase::Standby | Phase::Suspecting(_) | Phase::Claiming(_) | Phase::Yielding { .. } => None,
        }
    }

    /// What this router's beats state about the VIPA.
    pub(super) fn owned(&self) -> Option<Owned> {
        let ownership = self.ownership()?;
        let yielding_to = ownership.consent.as_ref().map(|consent| consent.to.clone());
        Some(Owned { vipa: self.settings.address, epoch: ownership.epoch, yielding_to })
    }

    /// Whether a router may state that it owns the VIPA: it has a rank, or it owns it or has handed it over here,
    /// although the configuration has removed its rank since.
    pub(super) fn may_be_owned_by(&self, router: &NodeName) -> bool {
        let predecessor = self.ownership().and_then(|ownership| ownership.report.predecessor.as_ref());
        self.settings.rank(router).is_some() || self.owner.as_ref() == Some(router) || predecessor == Some(router)
    }

    /// The epoch of an owner that was received, or of this router.
    pub(super) fn owned_epoch(&self) -> Epoch {
        self.epoch
    }

    /// Paths that were forgotten, because there was no room for more.
    pub(super) fn paths_forgotten(&self) -> u64 {
        self.paths.forgotten()
    }

    /// Whether a stopping router has nothing left to do here.
    pub(super) fn is_at_rest(&self) -> bool {
        matches!(self.phase, Phase::Standby)
    }
}
