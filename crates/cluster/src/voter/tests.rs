use proptest::prelude::*;

use super::*;

const LEASE: Duration = Duration::from_millis(100);
const REAL: Ballot = Ballot::Real { round: 0 };
const VIPA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn at(ms: u64) -> Moment {
    Moment(ms * 1_000_000)
}

/// A voter that has been up for long.
fn voter() -> Voter {
    Voter::new(LEASE, Vec::new(), Moment::ZERO)
}

fn life(router: &str, incarnation: u64) -> Claimant {
    Claimant { router: name(router), incarnation: Incarnation(incarnation) }
}

fn claim(voter: &mut Voter, now: Moment, claimant: &str, epoch: u64, ballot: Ballot) -> Verdict {
    voter.claim(now, &life(claimant, 1), &Claim { vipa: VIPA, epoch: Epoch(epoch), ballot })
}

fn beat(voter: &mut Voter, now: Moment, owner: &str, epoch: u64, sequence: u64, consent: Option<&str>) -> BeatAck {
    let owned = Owned { vipa: VIPA, epoch: Epoch(epoch), yielding_to: consent.map(name) };
    voter.beat(now, &name(owner), &Beat { sequence, owned: vec![owned] })
}

fn refusal(verdict: Verdict) -> Option<(Refusal, u64)> {
    match verdict {
        Verdict::Reply(Vote::Refuse(refuse)) => Some((refuse.reason, refuse.highest.0)),
        Verdict::Reply(_) | Verdict::Store { .. } => None,
    }
}

fn granted(claimant: &str, epoch: u64) -> Vec<(Claimant, Grant)> {
    vec![(life(claimant, 1), Grant { vipa: VIPA, epoch: Epoch(epoch), ballot: REAL })]
}

impl Voter {
    /// A voter that started so long ago that every promise of its earlier life is over.
    pub(crate) fn long_up(lease: Duration, votes: Vec<StoredVote>) -> Self {
        Self { silent_until: Moment::ZERO, ..Self::new(lease, votes, Moment::ZERO) }
    }

    /// A voter that will do the same at `origin` as this one will at `now`, without anything that makes no difference.
    pub(crate) fn as_if(&self, now: Moment, origin: Moment) -> Self {
        let shift = |until: &mut Moment| *until = if *until <= now { Moment::ZERO } else { origin + until.since(now) };
        let mut voter = Self { tokens: 0, ..self.clone() };
        shift(&mut voter.silent_until);
        voter
            .ledgers
            .values_mut()
            .filter_map(|ledger| ledger.promise.as_mut())
            .for_each(|promise| shift(&mut promise.until));
        voter
    }
}

#[test]
fn a_grant_is_sent_once_it_is_on_the_disk_and_not_before() {
    let mut voter = voter();
    let (holder, incarnation) = (name("r1"), Incarnation(1));
    let vote = StoredVote { vipa: VIPA, epoch: Epoch(1), holder, incarnation };
    assert_eq!(claim(&mut voter, at(200), "r1", 1, REAL), Verdict::Store { token: 1, vote: vote.clone() });
    assert_eq!(voter.to_store(), (1, vec![vote]));
    assert_eq!(voter.stored(0), []);
    assert_eq!(voter.stored(1), granted("r1", 1));
    assert_eq!(voter.stored(1), []);
}

#[test]
fn an_epoch_is_granted_to_one_claimant_and_again_to_the_same() {
    let mut voter = voter();
    claim(&mut voter, at(200), "r1", 1, REAL);
    voter.stored(1);
    assert_eq!(refusal(claim(&mut voter, at(900), "r2", 1, REAL)), Some((Refusal::Granted, 1)));
    let again = claim(&mut voter, at(900), "r1", 1, REAL);
    assert_eq!(again, Verdict::Reply(Vote::Grant(granted("r1", 1)[0].1.clone())));
}

#[test]
fn a_claimant_that_restarted_needs_an_epoch_of_its_own() {
    let mut voter = voter();
    claim(&mut voter, at(200), "r1", 1, REAL);
    voter.stored(1);
    let again = |epoch| Claim { vipa: VIPA, epoch: Epoch(epoch), ballot: REAL };
    assert_eq!(refusal(voter.claim(at(210), &life("r1", 2), &again(1))), Some((Refusal::Granted, 1)));
    assert_eq!(refusal(voter.claim(at(210), &life("r1", 2), &again(2))), None);
}

#[test]
fn an_epoch_somebody_owned_is_not_given_to_its_owners_next_life_by_a_voter_that_never_gave_it() {
    let mut voter = voter();
    beat(&mut voter, at(200), "r1", 4, 9, Some("r2"));
    assert_eq!(refusal(claim(&mut voter, at(900), "r1", 4, REAL)), Some((Refusal::Granted, 4)));
}

#[test]
fn a_claim_repeated_after_a_failed_store_is_stored_again() {
    let mut voter = voter();
    claim(&mut voter, at(200), "r1", 1, REAL);
    assert!(matches!(claim(&mut voter, at(210), "r1", 1, REAL), Verdict::Store { token: 2, .. }));
    assert_eq!(voter.stored(2), granted("r1", 1));
}

#[test]
fn a_claim_asked_again_is_granted_with_the_first_store_and_binds_from_the_last_question() {
    let mut voter = voter();
    claim(&mut voter, at(200), "r1", 1, REAL);
    claim(&mut voter, at(290), "r1", 1, Ballot::Real { round: 1 });
    let grant = Grant { vipa: VIPA, epoch: Epoch(1), ballot: Ballot::Real { round: 1 } };
    assert_eq!(voter.stored(1), [(life("r1", 1), grant)]);
    assert_eq!(voter.stored(2), []);
    assert_eq!(refusal(claim(&mut voter, at(389), "r2", 2, REAL)), Some((Refusal::OwnerAlive, 1)));
    assert_eq!(refusal(claim(&mut voter, at(390), "r2", 2, REAL)), None);
}

#[test]
fn a_grant_overtaken_on_its_way_to_the_disk_is_never_sent() {
    let mut voter = voter();
    claim(&mut voter, at(200), "r1", 1, REAL);
    claim(&mut voter, at(400), "r2", 2, REAL);
    assert_eq!(voter.stored(1), []);
    assert_eq!(voter.stored(2), granted("r2", 2));
}

#[test]
fn an_acknowledged_beat_binds_for_exactly_one_lease() {
    let mut voter = voter();
    assert_eq!(beat(&mut voter, at(200), "r1", 4, 1, None).superseded, []);
    assert_eq!(refusal(claim(&mut voter, Moment(at(300).0 - 1), "r2", 5, REAL)), Some((Refusal::OwnerAlive, 4)));
    assert_eq!(refusal(claim(&mut voter, at(300), "r2", 5, REAL)), None);
}

#[test]
fn a_grant_binds_for_one_lease_too() {
    let mut voter = voter();
    claim(&mut voter, at(200), "r1", 1, REAL);
    assert_eq!(refusal(claim(&mut voter, at(299), "r2", 2, REAL)), Some((Refusal::OwnerAlive, 1)));
    assert_eq!(refusal(claim(&mut voter, at(300), "r2", 2, REAL)), None);
}

#[test]
fn a_trial_binds_nobody_and_changes_nothing() {
    let mut voter = voter();
    let grant = Grant { vipa: VIPA, epoch: Epoch(1), ballot: Ballot::Trial };
    assert_eq!(claim(&mut voter, at(200), "r1", 1, Ballot::Trial), Verdict::Reply(Vote::Grant(grant)));
    assert_eq!(voter.to_store(), (0, vec![]));
    assert_eq!(refusal(claim(&mut voter, at(200), "r2", 1, REAL)), None);
}

#[test]
fn consent_lets_the_named_router_succeed_a_living_owner_and_nobody_else() {
    let mut voter = voter();
    beat(&mut voter, at(200), "r2", 4, 1, Some("r1"));
    assert_eq!(refusal(claim(&mut voter, at(201), "r3", 5, REAL)), Some((Refusal::OwnerAlive, 4)));
    assert_eq!(refusal(claim(&mut voter, at(201), "r1", 5, REAL)), None);
}

#[test]
fn consent_ends_with_the_first_beat_without_it_and_no_late_beat_brings_it_back() {
    let mut voter = voter();
    beat(&mut voter, at(200), "r2", 4, 1, Some("r1"));
    beat(&mut voter, at(220), "r2", 4, 3, None);
    beat(&mut voter, at(230), "r2", 4, 2, Some("r1"));
    assert_eq!(refusal(claim(&mut voter, at(231), "r1", 5, Ballot::Trial)), Some((Refusal::OwnerAlive, 4)));
}

#[test]
fn an_owner_of_the_past_is_told_by_whom_it_was_superseded() {
    let mut voter = voter();
    beat(&mut voter, at(200), "r1", 4, 1, None);
    claim(&mut voter, at(400), "r2", 5, REAL);
    let superseded = vec![Superseded { vipa: VIPA, epoch: Epoch(5), holder: name("r2") }];
    assert_eq!(beat(&mut voter, at(401), "r1", 4, 2, None), BeatAck { sequence: 2, superseded });
    assert_eq!(refusal(claim(&mut voter, at(402), "r1", 5, REAL)), Some((Refusal::Granted, 5)));
}

#[test]
fn an_epoch_heard_of_is_not_granted_although_this_voter_never_gave_it() {
    let mut voter = voter();
    beat(&mut voter, at(200), "r1", 4, 1, None);
    assert_eq!(refusal(claim(&mut voter, at(900), "r2", 4, Ballot::Trial)), Some((Refusal::Granted, 4)));
    assert_eq!(refusal(claim(&mut voter, at(900), "r2", 5, Ballot::Trial)), None);
}

#[test]
fn a_restarted_voter_is_silent_for_one_lease_and_remembers_its_votes() {
    let (holder, incarnation) = (name("r1"), Incarnation(1));
    let mut voter = Voter::new(LEASE, vec![StoredVote { vipa: VIPA, epoch: Epoch(7), holder, incarnation }], at(1000));
    assert_eq!(refusal(claim(&mut voter, at(1099), "r2", 8, REAL)), Some((Refusal::Recovering, 7)));
    assert_eq!(refusal(claim(&mut voter, at(1100), "r2", 7, REAL)), Some((Refusal::Granted, 7)));
    assert_eq!(refusal(claim(&mut voter, at(1100), "r2", 8, REAL)), None);
}

#[test]
fn one_write_confirms_every_vote_that_waited_when_it_began() {
    let mut voter = voter();
    let vipas = [VIPA, "192.0.2.11".parse().unwrap(), "192.0.2.12".parse().unwrap()];
    let ask = |voter: &mut Voter, vipa| {
        let claim = Claim { vipa, epoch: Epoch(1), ballot: REAL };
        assert!(matches!(voter.claim(at(200), &life("r1", 1), &claim), Verdict::Store { .. }));
    };
    ask(&mut voter, vipas[0]);
    ask(&mut voter, vipas[1]);
    let (token, votes) = voter.to_store();
    ask(&mut voter, vipas[2]);
    assert_eq!((token, votes.len()), (2, 2));
    let granted: Vec<IpAddr> = voter.stored(token).into_iter().map(|(_, grant)| grant.vipa).collect();
    assert_eq!(granted, vipas[..2]);
    let (token, votes) = voter.to_store();
    assert_eq!((token, votes.len()), (3, 3));
    assert_eq!(voter.stored(token).len(), 1);
}

#[derive(Clone, Debug)]
enum Act {
    Claim { claimant: u8, epoch: u64, real: bool },
    Beat { owner: u8, epoch: u64, consent: Option<u8> },
    Wait { ms: u64 },
    DiskDone,
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1..4_u8, 1..8_u64, any::<bool>()).prop_map(|(claimant, epoch, real)| Act::Claim { claimant, epoch, real }),
        3 => (1..4_u8, 1..8_u64, proptest::option::of(1..4_u8))
            .prop_map(|(owner, epoch, consent)| Act::Beat { owner, epoch, consent }),
        3 => (1..150_u64).prop_map(|ms| Act::Wait { ms }),
        3 => Just(Act::DiskDone),
        1 => Just(Act::Restart),
    ]
}

proptest! {
    /// Through restarts and disks that never finish: one grantee per epoch, epochs that never fall, and no grant to
    /// another router while a promise stands.
    #[test]
    fn whatever_happens_grants_are_unique_and_promises_are_kept(acts in proptest::collection::vec(act(), 1..80)) {
        let node = |number: u8| name(&format!("r{number}"));
        let mut now = at(1000);
        let (mut voter, mut disk, mut under_way) = (voter(), Vec::new(), None);
        let mut grants: BTreeMap<Epoch, NodeName> = BTreeMap::new();
        let mut promised: Option<(NodeName, Option<NodeName>, Moment)> = None;
        for (sequence, act) in acts.into_iter().enumerate() {
            match act {
                Act::Claim { claimant, epoch, real } => {
                    let ballot = if real { REAL } else { Ballot::Trial };
                    let verdict = voter.claim(now, &life(node(claimant).as_str(), 1), &Claim { vipa: VIPA, epoch: Epoch(epoch), ballot });
                    if !matches!(&verdict, Verdict::Reply(Vote::Refuse(_)))
                        && let Some((to, consent, until)) = &promised
                    {
                        let allowed = *to == node(claimant) || consent.as_ref() == Some(&node(claimant)) || *until <= now;
                        prop_assert!(allowed, "granted against a promise");
                    }
                    if let Verdict::Store { .. } = verdict {
                        under_way = Some(voter.to_store());
                    }
                }
                Act::Beat { owner, epoch, consent } => {
                    let owned = Owned { vipa: VIPA, epoch: Epoch(epoch), yielding_to: consent.map(node) };
                    let ack = voter.beat(now, &node(owner), &Beat { sequence: sequence as u64, owned: vec![owned] });
                    if ack.superseded.is_empty() {
                        promised = Some((node(owner), consent.map(node), now + LEASE));
                    }
                }
                Act::Wait { ms } => now = now + Duration::from_millis(ms),
                Act::DiskDone => {
                    if let Some((token, votes)) = under_way.take() {
                        disk = votes;
                        for (holder, grant) in voter.stored(token) {
                            let before = grants.insert(grant.epoch, holder.router.clone());
                            prop_assert!(before.is_none_or(|before| before == holder.router), "one epoch, two owners");
                        }
                        let epoch = disk.last().map(|vote: &StoredVote| vote.epoch);
                        prop_assert!(grants.keys().last().copied() <= epoch, "an epoch fell");
                    }
                }
                Act::Restart => {
                    voter = Voter::new(LEASE, disk.clone(), now);
                    under_way = None;
                }
            }
        }
    }
}

/// A claim of one of many VIPAs that are added and removed.
fn claim_of(voter: &mut Voter, now: Moment, vipa: u32, router: &str, epoch: u64) -> Verdict {
    let vipa = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + vipa));
    voter.claim(now, &life(router, 1), &Claim { vipa, epoch: Epoch(epoch), ballot: REAL })
}

#[test]
fn votes_of_vipas_that_come_and_go_are_forgotten_and_none_of_their_epochs_is_given_to_anybody_else() {
    let (mut voter, mut now) = (voter(), at(200));
    let mut epoch = 0;
    for vipa in 0..20_000 {
        now = now + Duration::from_millis(100);
        epoch = match claim_of(&mut voter, now, vipa, "r1", epoch + 1) {
            Verdict::Reply(refused) => {
                let (_, highest) = refusal(Verdict::Reply(refused)).expect("a new VIPA's first epoch");
                assert!(matches!(claim_of(&mut voter, now, vipa, "r1", highest + 1), Verdict::Store { .. }));
                0
            }
            Verdict::Store { .. } => 0,
        };
        voter.stored(u64::MAX);
    }
    let (_, votes) = voter.to_store();
    assert!(votes.len() < 302 + LOOK_EVERY, "{} votes after 20,000 VIPAs", votes.len());
    // The first VIPA comes again, and so does its old epoch, of another router; also after a restart.
    let mut restarted = Voter::long_up(LEASE, votes);
    for voter in [&mut voter, &mut restarted] {
        let (reason, highest) = refusal(claim_of(voter, now, 0, "r2", 1)).expect("granted once");
        assert_eq!(reason, Refusal::Granted);
        assert!(highest > 1);
        assert!(matches!(claim_of(voter, now, 0, "r2", highest + 1), Verdict::Store { .. }));
    }
}

#[test]
fn an_owner_that_beats_keeps_its_vote() {
    let (mut voter, mut now) = (voter(), at(200));
    claim(&mut voter, now, "r1", 5, REAL);
    voter.stored(1);
    for vipa in 0..10_000 {
        now = now + Duration::from_millis(50);
        beat(&mut voter, now, "r1", 5, u64::from(vipa) + 1, None);
        let _ = claim_of(&mut voter, now, vipa, "r2", u64::from(vipa) + 1);
        voter.stored(u64::MAX);
    }
    assert_eq!(
        refusal(claim(&mut voter, now, "r2", 100_000, REAL)).map(|refused| refused.0),
        Some(Refusal::OwnerAlive)
    );
    assert_eq!(refusal(claim(&mut voter, now, "r2", 5, REAL)).map(|refused| refused.0), Some(Refusal::Granted));
}

#[test]
fn nothing_is_granted_or_promised_of_the_address_that_the_floor_has_in_the_file() {
    let floor = StoredVote { vipa: FLOOR, epoch: Epoch(7), holder: name("r1"), incarnation: Incarnation(1) };
    let mut voter = Voter::long_up(LEASE, vec![floor.clone()]);
    let claim = Claim { vipa: FLOOR, epoch: Epoch(9), ballot: REAL };
    assert_eq!(refusal(voter.claim(at(200), &life("r9", 1), &claim)), Some((Refusal::Granted, 7)));
    let owned = Owned { vipa: FLOOR, epoch: Epoch(9), yielding_to: None };
    let ack = voter.beat(at(200), &name("r9"), &Beat { sequence: 1, owned: vec![owned] });
    assert_eq!(ack.superseded, [Superseded { vipa: FLOOR, epoch: Epoch(9), holder: name("r9") }]);
    assert_eq!(voter.to_store().1, [floor]);
}

#[test]
fn of_two_votes_that_an_earlier_release_stored_as_the_floor_the_higher_one_is() {
    let stored =
        |epoch| StoredVote { vipa: FLOOR, epoch: Epoch(epoch), holder: name("r1"), incarnation: Incarnation(1) };
    let voter = Voter::long_up(LEASE, vec![stored(1_048_577), stored(1_048_579)]);
    assert_eq!(voter.to_store().1, [stored(1_048_579)]);
}
