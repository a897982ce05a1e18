//! Ownership of one VIPA, explored to the end of a bound: every order of claims, grants, beats and acknowledgements,
//! each of them lost, late or doubled, with voters and candidates that crash and clocks that run fast.
//!
//! The moving parts are the real ones: `Voter` decides, `Candidacy` counts, `Ownership` measures the lease. The model
//! is freer than a router: a candidate claims at any time and an owner consents to any router, so ranks and patience
//! prove nothing here.
//!
//! ```text
//!   candidate ──claim──► voter ──grant──► candidate, owner from a majority on
//!   owner ──beat, with consent or without──► voter ──acknowledgement──► owner
//! ```
//! A lease is two ticks, half of it margin for drift: an owner may admit for one tick, and a voter's clock may gain one.
//! Time has no bound. Worlds that differ only in expired things are one world (`Representative`), and so are worlds
//! that differ only in the numbering of voters.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::LazyLock,
    time::Duration,
};

use stateright::{Checker, HasDiscoveries, Model, Property, Representative};
use vipa_model::{Epoch, Incarnation, Moment, NodeName};
use vipa_protocol::{Ballot, Beat, Claim, Owned, Trigger, Vote};

use super::{
    super::{
        Settings, Timing,
        election::{Candidacy, Standings},
        ownership::{Consent, Ownership},
    },
    bench::{VIPA, name, report},
};
use crate::{Claimant, StoredVote, Verdict, Voter};

const VOTERS: usize = 3;
const TICK: Duration = Duration::from_nanos(1);
const LEASE_TICKS: u64 = 2;
const LEASE: Duration = Duration::from_nanos(LEASE_TICKS);
/// The part of the lease that is margin for drift.
const MARGIN_PERCENT: u32 = 50;
/// The present of a world that represents others: later than a lease, so that it has a past.
const PRESENT: Moment = Moment(10);

const I1: &str = "I1: one owner of each epoch";
const I2: &str = "I2: a voter's epochs never fall";
const I3: &str = "I3: who may admit has a majority's grant";
const SINGLE: &str = "I3: two may admit only by consent";
const OWNED: &str = "a VIPA is owned";
const SUCCEEDED: &str = "an owner is succeeded";
const CONSENTED: &str = "two may admit by consent";
const RENEWED: &str = "a lease is renewed";

static NAMES: LazyLock<[NodeName; VOTERS]> = LazyLock::new(|| [name("v1"), name("v2"), name("v3")]);
static ROUTERS: LazyLock<[NodeName; 3]> = LazyLock::new(|| [name("r1"), name("r2"), name("r3")]);

/// What is explored, and which rule is broken on purpose.
struct OwnershipModel {
    candidates: usize,
    epochs: u64,
    /// Ballots of one incarnation of a candidate, and beats of one ownership that can be succeeded.
    claims: usize,
    beats: usize,
    /// How often the same ballot is repeated.
    rounds: u8,
    /// Crashes of voters and candidates together.
    crashes: u8,
    /// Whether voters' clocks may gain a tick in a lease.
    drift: bool,
    flaw: Flaw,
    settings: Settings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// A voter that restarts has forgotten its vote.
    GrantNotKept,
    /// A voter that restarts answers at once.
    NoSilence,
    /// An owner counts its lease from the answer, not from the question.
    LeaseFromAnswer,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: Moment,
    seats: [Seat; VOTERS],
    runners: Vec<Runner>,
    /// Messages that were sent and may still matter: each may arrive at any time, again and again, or never.
    wire: BTreeSet<Letter>,
    crashes: u8,
    /// For the invariants: the owner of each epoch, the routers to which its owner ever consented, and whether a vote
    /// was ever withdrawn.
    owners: BTreeMap<Epoch, BTreeSet<(usize, u64)>>,
    consents: BTreeSet<(Epoch, usize)>,
    renewed: bool,
    fell: bool,
}

/// A voter with its clock and its disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Seat {
    voter: Voter,
    disk: Vec<StoredVote>,
    clock: Moment,
    /// Ticks since its clock gained one, up to a lease.
    steady: u64,
    /// The highest vote it ever gave.
    given: Option<(Epoch, Claimant)>,
}

/// A candidate, in one of its incarnations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Runner {
    life: u64,
    /// The highest epoch that this incarnation has claimed, and how many.
    claimed: Epoch,
    claims: usize,
    part: Part,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Idle,
    Claiming(Candidacy),
    /// With the moments at which its beats were sent.
    Owning(Box<Ownership>, Vec<Moment>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Letter {
    Claim { voter: usize, by: usize, life: u64, epoch: Epoch, round: u8 },
    Grant { voter: usize, to: usize, epoch: Epoch, round: u8 },
    Beat { voter: usize, by: usize, epoch: Epoch, sequence: u64, consent: Option<usize> },
    Ack { voter: usize, to: usize, epoch: Epoch, sequence: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Tick,
    Rush { voter: usize },
    Claim { by: usize, epoch: Epoch },
    ClaimAgain { by: usize },
    Beat { by: usize, consent: Option<usize> },
    Arrive(Letter),
    VoterCrashes { voter: usize },
    CandidateCrashes { candidate: usize },
}

impl Model for OwnershipModel {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let voter = Voter::long_up(LEASE, Vec::new());
        let seat = Seat { voter, disk: Vec::new(), clock: PRESENT, steady: LEASE_TICKS, given: None };
        let runner = Runner { life: 1, claimed: Epoch::NONE, claims: 0, part: Part::Idle };
        vec![World {
            now: PRESENT,
            seats: std::array::from_fn(|_| seat.clone()),
            runners: vec![runner; self.candidates],
            wire: BTreeSet::new(),
            crashes: 0,
            owners: BTreeMap::new(),
            consents: BTreeSet::new(),
            renewed: false,
            fell: false,
        }]
    }

    /// What is explored first comes last.
    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.crashes < self.crashes {
            steps.extend((0..VOTERS).map(|voter| Step::VoterCrashes { voter }));
            steps.extend((0..self.candidates).map(|candidate| Step::CandidateCrashes { candidate }));
        }
        steps.push(Step::Tick);
        if self.drift {
            let steady = (0..VOTERS).filter(|voter| world.seats[*voter].steady == LEASE_TICKS);
            steps.extend(steady.map(|voter| Step::Rush { voter }));
        }
        for (by, runner) in world.runners.iter().enumerate() {
            let epochs = runner.claimed.0 + 1..=self.epochs;
            let epochs = epochs.filter(|_| runner.claims < self.claims);
            steps.extend(epochs.map(|epoch| Step::Claim { by, epoch: Epoch(epoch) }));
            match &runner.part {
                Part::Claiming(candidacy) if candidacy.round < self.rounds => steps.push(Step::ClaimAgain { by }),
                Part::Owning(ownership, beats) if beats.len() < self.beats && ownership.epoch.0 < self.epochs => {
                    let others = (0..self.candidates).filter(|other| *other != by).map(Some);
                    steps.extend(others.chain([None]).map(|consent| Step::Beat { by, consent }));
                }
                Part::Idle | Part::Claiming(_) | Part::Owning(..) => {}
            }
        }
        steps.extend(world.wire.iter().cloned().map(Step::Arrive));
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        match step {
            Step::Tick => {
                world.now = world.now + TICK;
                for seat in &mut world.seats {
                    (seat.clock, seat.steady) = (seat.clock + TICK, LEASE_TICKS.min(seat.steady + 1));
                }
            }
            Step::Rush { voter } => {
                let seat = &mut world.seats[voter];
                (seat.clock, seat.steady) = (seat.clock + TICK, 0);
            }
            Step::Claim { by, epoch } => {
                let candidacy = Candidacy::new(epoch, world.now, Trigger::Failure, world.now);
                let runner = &mut world.runners[by];
                (runner.claimed, runner.claims, runner.part) = (epoch, runner.claims + 1, Part::Claiming(candidacy));
                world.ask(by, epoch, 0);
            }
            Step::ClaimAgain { by } => {
                let now = world.now;
                let Part::Claiming(candidacy) = &mut world.runners[by].part else { return None };
                *candidacy = candidacy.again(now)?;
                let (epoch, round) = (candidacy.epoch, candidacy.round);
                world.ask(by, epoch, round);
            }
            Step::Beat { by, consent } => self.beat(&mut world, by, consent),
            Step::Arrive(letter) => self.arrive(&mut world, &letter),
            Step::VoterCrashes { voter } => {
                world.crashes += 1;
                let Seat { voter, disk, clock, .. } = &mut world.seats[voter];
                if self.flaw == Flaw::GrantNotKept {
                    disk.clear();
                }
                *voter = match self.flaw {
                    Flaw::NoSilence => Voter::long_up(LEASE, disk.clone()),
                    Flaw::None | Flaw::GrantNotKept | Flaw::LeaseFromAnswer => Voter::new(LEASE, disk.clone(), *clock),
                };
            }
            Step::CandidateCrashes { candidate } => {
                world.crashes += 1;
                let life = world.runners[candidate].life + 1;
                world.runners[candidate] = Runner { life, claimed: Epoch::NONE, claims: 0, part: Part::Idle };
            }
        }
        world.forget_the_pointless();
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(I1, |_, world: &World| world.owners.values().all(|owners| owners.len() <= 1)),
            Property::always(I2, |_, world: &World| !world.fell),
            Property::always(I3, |_, world: &World| {
                world.admitting().all(|(runner, epoch)| world.granters(runner, epoch) * 2 > VOTERS)
            }),
            Property::always(SINGLE, |_, world: &World| world.admit_together().all(|by_consent| by_consent)),
            Property::sometimes(OWNED, |_, world: &World| world.admitting().count() == 1),
            Property::sometimes(SUCCEEDED, |_, world: &World| world.owners.len() > 1 && world.consents.is_empty()),
        ];
        if self.beats > 0 {
            properties.push(Property::sometimes(CONSENTED, |_, world: &World| world.admit_together().count() > 0));
            properties.push(Property::sometimes(RENEWED, |_, world: &World| world.renewed));
        }
        properties
    }
}

impl OwnershipModel {
    /// The bound that every check explores.
    fn narrow(flaw: Flaw) -> Self {
        let timing = Timing { drift_percent: MARGIN_PERCENT, ..Timing::of_lease(LEASE) };
        let settings = Settings {
            cluster: String::from("model"),
            key: vipa_protocol::KeyDigest::default(),
            me: ROUTERS[0].clone(),
            addresses: Vec::new(),
            incarnation: Incarnation(1),
            voters: NAMES.to_vec().into(),
            timing,
            vipas: Vec::new(),
        };
        Self { candidates: 2, epochs: 2, beats: 0, crashes: 0, claims: 1, rounds: 0, drift: false, flaw, settings }
    }

    fn beat(&self, world: &mut World, by: usize, consent: Option<usize>) {
        let now = world.now;
        let Part::Owning(ownership, beats) = &mut world.runners[by].part else { return };
        beats.push(now);
        let epoch = ownership.epoch;
        ownership.consent =
            consent.map(|to| Consent { to: ROUTERS[to].clone(), since: Moment::ZERO, until: Moment::NEVER });
        world.consents.extend(consent.map(|to| (epoch, to)));
        let sequence = beats.len() as u64;
        world.wire.extend((0..VOTERS).map(|voter| Letter::Beat { voter, by, epoch, sequence, consent }));
    }

    fn arrive(&self, world: &mut World, letter: &Letter) {
        let now = world.now;
        match *letter {
            Letter::Claim { voter, by, life, epoch, round } => world.judge(voter, by, life, epoch, round),
            Letter::Beat { voter, by, epoch, sequence, consent } => {
                let owned = Owned { vipa: VIPA, epoch, yielding_to: consent.map(|to| ROUTERS[to].clone()) };
                let seat = &mut world.seats[voter];
                let ack = seat.voter.beat(seat.clock, &ROUTERS[by], &Beat { sequence, owned: vec![owned] });
                if ack.superseded.is_empty() {
                    world.wire.insert(Letter::Ack { voter, to: by, epoch, sequence });
                }
            }
            Letter::Grant { voter, to, round, .. } => match &mut world.runners[to].part {
                Part::Claiming(candidacy) if candidacy.round == round => {
                    candidacy.grant(NAMES[voter].clone());
                    if candidacy.standings(VOTERS) == Standings::Won {
                        self.take_over(world, to);
                    }
                }
                Part::Owning(ownership, _) if ownership.claimed.0 == round => {
                    let sent = if self.flaw == Flaw::LeaseFromAnswer { now } else { ownership.claimed.1 };
                    ownership.acknowledge(NAMES[voter].clone(), sent, &self.settings);
                }
                Part::Idle | Part::Claiming(_) | Part::Owning(..) => {}
            },
            Letter::Ack { voter, to, sequence, .. } => {
                if let Part::Owning(ownership, beats) = &mut world.runners[to].part {
                    let sent = if self.flaw == Flaw::LeaseFromAnswer { now } else { beats[sequence as usize - 1] };
                    world.renewed |= ownership.acknowledge(NAMES[voter].clone(), sent, &self.settings);
                }
            }
        }
    }

    fn take_over(&self, world: &mut World, by: usize) {
        let now = world.now;
        let Runner { part, life, .. } = &mut world.runners[by];
        let Part::Claiming(candidacy) = part else { return };
        let (epoch, granted) = (candidacy.epoch, candidacy.granted.clone());
        let claimed = (candidacy.round, if self.flaw == Flaw::LeaseFromAnswer { now } else { candidacy.sent });
        let ownership = Ownership::new(granted, claimed, now, &self.settings, report(epoch));
        // As `Vipa::take_over`: grants that took longer than a lease are worth nothing.
        if ownership.lease <= now {
            *part = Part::Idle;
            return;
        }
        *part = Part::Owning(Box::new(ownership), Vec::new());
        world.owners.entry(epoch).or_default().insert((by, *life));
    }
}

impl World {
    fn ask(&mut self, by: usize, epoch: Epoch, round: u8) {
        let life = self.runners[by].life;
        self.wire.extend((0..VOTERS).map(|voter| Letter::Claim { voter, by, life, epoch, round }));
    }

    fn judge(&mut self, voter: usize, by: usize, life: u64, epoch: Epoch, round: u8) {
        let seat = &mut self.seats[voter];
        let claimant = Claimant { router: ROUTERS[by].clone(), incarnation: Incarnation(life) };
        let claim = Claim { vipa: VIPA, epoch, ballot: Ballot::Real { round } };
        let granted = match seat.voter.claim(seat.clock, &claimant, &claim) {
            Verdict::Store { .. } => {
                let (token, votes) = seat.voter.to_store();
                seat.disk = votes;
                !seat.voter.stored(token).is_empty()
            }
            Verdict::Reply(reply) => matches!(reply, Vote::Grant(_)),
        };
        if !granted {
            return;
        }
        let vote = (epoch, claimant);
        let fell = |given: &(Epoch, Claimant)| given.0 > epoch || given.0 == epoch && *given != vote;
        self.fell |= seat.given.as_ref().is_some_and(fell);
        seat.given = Some(vote);
        if self.runners[by].life == life {
            self.wire.insert(Letter::Grant { voter, to: by, epoch, round });
        }
    }

    /// Answers to claims that a candidate no longer makes.
    fn forget_the_pointless(&mut self) {
        let runners = &self.runners;
        self.wire.retain(|letter| match *letter {
            Letter::Claim { .. } | Letter::Beat { .. } => true,
            Letter::Grant { to, epoch, round, .. } => match &runners[to].part {
                Part::Claiming(candidacy) => (candidacy.epoch, candidacy.round) == (epoch, round),
                Part::Owning(ownership, _) => (ownership.epoch, ownership.claimed.0) == (epoch, round),
                Part::Idle => false,
            },
            Letter::Ack { to, epoch, .. } => {
                matches!(&runners[to].part, Part::Owning(ownership, _) if ownership.epoch == epoch)
            }
        });
    }

    /// The candidates that may admit connections now, and in which epoch.
    fn admitting(&self) -> impl Iterator<Item = (usize, Epoch)> {
        self.runners.iter().enumerate().filter_map(|(index, runner)| match &runner.part {
            Part::Owning(ownership, _) if self.now < ownership.lease => Some((index, ownership.epoch)),
            Part::Owning(..) | Part::Claiming(_) | Part::Idle => None,
        })
    }

    /// Voters whose disks have its grant, or a later one that came after it.
    fn granters(&self, runner: usize, epoch: Epoch) -> usize {
        let has = |vote: &StoredVote| vote.epoch > epoch || vote.epoch == epoch && vote.holder == ROUTERS[runner];
        self.seats.iter().filter(|seat| seat.disk.iter().any(has)).count()
    }

    /// For each two of them that follow each other: whether the earlier has consented to the later.
    fn admit_together(&self) -> impl Iterator<Item = bool> {
        let mut admitting: Vec<_> = self.admitting().map(|(runner, epoch)| (epoch, runner)).collect();
        admitting.sort_unstable();
        let pairs: Vec<bool> =
            admitting.windows(2).map(|pair| self.consents.contains(&(pair[0].0, pair[1].1))).collect();
        pairs.into_iter()
    }

    /// A number that is the same for every voter of which all this is true.
    fn look_of(&self, voter: usize) -> u64 {
        let mut look = DefaultHasher::new();
        self.seats[voter].hash(&mut look);
        for letter in self.wire.iter().filter(|letter| letter.voter() == voter) {
            letter.of(0).hash(&mut look);
        }
        for runner in &self.runners {
            match &runner.part {
                Part::Idle => {}
                Part::Claiming(candidacy) => candidacy.granted.contains(&NAMES[voter]).hash(&mut look),
                Part::Owning(ownership, _) => ownership.acknowledged.get(&NAMES[voter]).hash(&mut look),
            }
        }
        look.finish()
    }

    /// The same world with `PRESENT` as its time, and with expired things expired for long.
    fn in_the_present(&self) -> Self {
        let mut world = Self { now: PRESENT, ..self.clone() };
        for seat in &mut world.seats {
            seat.voter = seat.voter.as_if(seat.clock, PRESENT);
            seat.clock = PRESENT;
        }
        // Anything older than a lease is as old as a lease.
        let sent = |at: Moment| Moment(PRESENT.0 - LEASE_TICKS.min(self.now.since(at).as_nanos() as u64));
        for runner in &mut world.runners {
            match &mut runner.part {
                Part::Idle => {}
                Part::Claiming(candidacy) => {
                    let sent = sent(candidacy.sent);
                    (candidacy.sent, candidacy.since, candidacy.asked_first) = (sent, sent, sent);
                }
                Part::Owning(ownership, beats) => {
                    ownership.acknowledged.values_mut().for_each(|at| *at = sent(*at));
                    ownership.claimed.1 = sent(ownership.claimed.1);
                    ownership.lease = PRESENT + ownership.lease.since(self.now);
                    (ownership.granted_at, ownership.rebuild_until) = (PRESENT, PRESENT);
                    beats.iter_mut().for_each(|at| *at = sent(*at));
                }
            }
        }
        world
    }

    /// The same world with voter `order[0]` in the first place, and so on.
    fn reseated(self, order: [usize; VOTERS]) -> Self {
        let mut place = [0; VOTERS];
        order.iter().enumerate().for_each(|(new, old)| place[*old] = new);
        let renamed = |name: &NodeName| NAMES[place[NAMES.iter().position(|known| known == name).unwrap()]].clone();
        let moved = |letter: Letter| letter.of(place[letter.voter()]);
        let seats = order.map(|old| self.seats[old].clone());
        let wire = self.wire.into_iter().map(moved).collect();
        let mut world = Self { seats, wire, ..self };
        for runner in &mut world.runners {
            match &mut runner.part {
                Part::Idle => {}
                Part::Claiming(candidacy) => candidacy.granted = candidacy.granted.iter().map(renamed).collect(),
                Part::Owning(ownership, _) => {
                    let old = std::mem::take(&mut ownership.acknowledged);
                    ownership.acknowledged = old.iter().map(|(voter, sent)| (renamed(voter), *sent)).collect();
                }
            }
        }
        world
    }
}

impl Representative for World {
    fn representative(&self) -> Self {
        let world = self.in_the_present();
        let mut order: [usize; VOTERS] = std::array::from_fn(|voter| voter);
        let looks = order.map(|voter| world.look_of(voter));
        order.sort_by_key(|voter| looks[*voter]);
        world.reseated(order)
    }
}

impl Letter {
    fn voter(&self) -> usize {
        match *self {
            Self::Claim { voter, .. }
            | Self::Grant { voter, .. }
            | Self::Beat { voter, .. }
            | Self::Ack { voter, .. } => voter,
        }
    }

    /// The same message to or from another voter.
    fn of(&self, other: usize) -> Self {
        let mut letter = self.clone();
        match &mut letter {
            Self::Claim { voter, .. }
            | Self::Grant { voter, .. }
            | Self::Beat { voter, .. }
            | Self::Ack { voter, .. } => {
                *voter = other;
            }
        }
        letter
    }
}

/// Explores everything within the bound: nothing forbidden is found, and everything that must be possible is.
fn prove(bound: OwnershipModel) {
    let checker = bound.checker().threads(2).symmetry().spawn_dfs().join();
    println!("{} states, {} of them different", checker.state_count(), checker.unique_state_count());
    checker.assert_properties();
}

/// A model that cannot fail proves nothing: with this rule broken, one of these must be found violated.
fn refute(flawed: OwnershipModel, violated: &[&'static str]) {
    let flaw = flawed.flaw;
    let checker = flawed.checker().finish_when(HasDiscoveries::AnyFailures).symmetry().spawn_dfs().join();
    let found: Vec<_> = violated.iter().filter(|property| checker.discovery(property).is_some()).collect();
    assert!(!found.is_empty(), "{flaw:?} went unnoticed in {} states", checker.unique_state_count());
}

#[test]
fn two_candidates_never_own_together() {
    prove(OwnershipModel::narrow(Flaw::None));
}

#[test]
#[ignore = "minutes: make model"]
fn nor_do_three() {
    prove(OwnershipModel { candidates: 3, ..OwnershipModel::narrow(Flaw::None) });
}

#[test]
#[ignore = "minutes: make model"]
fn nor_when_they_claim_again() {
    prove(OwnershipModel { claims: 2, ..OwnershipModel::narrow(Flaw::None) });
}

#[test]
#[ignore = "minutes: make model"]
fn nor_when_they_ask_again() {
    prove(OwnershipModel { rounds: 1, ..OwnershipModel::narrow(Flaw::None) });
}

#[test]
#[ignore = "minutes: make model"]
fn nor_when_an_owner_beats_and_consents() {
    prove(OwnershipModel { beats: 1, ..OwnershipModel::narrow(Flaw::None) });
}

#[test]
#[ignore = "minutes: make model"]
fn nor_when_anyone_crashes() {
    prove(OwnershipModel { crashes: 1, ..OwnershipModel::narrow(Flaw::None) });
}

#[test]
#[ignore = "minutes: make model"]
fn nor_when_clocks_drift() {
    prove(OwnershipModel { drift: true, ..OwnershipModel::narrow(Flaw::None) });
}

#[test]
fn a_forgotten_grant_would_be_noticed() {
    refute(OwnershipModel { crashes: 1, ..OwnershipModel::narrow(Flaw::GrantNotKept) }, &[I1, I2, I3]);
}

#[test]
fn a_voter_that_speaks_too_early_would_be_noticed() {
    refute(OwnershipModel { crashes: 1, ..OwnershipModel::narrow(Flaw::NoSilence) }, &[SINGLE]);
}

#[test]
fn a_lease_counted_from_the_answer_would_be_noticed() {
    refute(OwnershipModel::narrow(Flaw::LeaseFromAnswer), &[SINGLE]);
}
