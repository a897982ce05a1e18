//! A few seeds for every check; `make sim` runs many.

use vipa_sim::{Attacks, HostileRole, Relapse};

#[test]
fn the_first_seeds_hold() {
    for seed in 0..16 {
        if let Err(failure) = vipa_sim::simulate(seed, false) {
            panic!("seed {seed}: at {:.3} ms: {}", failure.at_ms, failure.what);
        }
    }
}

/// Seeds that once failed, and the fault that they found.
#[test]
fn seeds_that_once_failed_hold() {
    for (seed, found) in [
        (50_565, "what an earlier ownership left unconfirmed stood in the way of what the predecessor told"),
        (2_069, "the simulated network let a message overtake those that waited for a cut to end"),
        (22, "a target's claim was forgotten when the end of another's connection left an entry for the next SYN"),
        (894, "what the predecessor told to be at the target that claims it stayed unconfirmed until the next tick"),
        (987, "a successor whose claim took several attempts went by the table of the first one"),
        (1_436, "of two targets that hold a connection the successor went by the one that had missed its end"),
        (4_233, "a connection begun between the owner's consent and its yielding was not told"),
        (4_840, "a half-open connection that a target reported was taken for a SYN that had passed here"),
        (
            4_340,
            "after a takeover segments went to where an earlier connection had ended, before its next one was reported",
        ),
    ] {
        if let Err(failure) = vipa_sim::simulate(seed, false) {
            panic!("seed {seed} ({found}): at {:.3} ms: {}", failure.at_ms, failure.what);
        }
    }
}

#[track_caller]
fn assert_holds_against(role: HostileRole, seed: u64, found: &str) {
    if let Err(failure) = vipa_sim::simulate_attacked(seed, Attacks::Messages(role), false) {
        panic!("seed {seed} with a hostile {role:?} ({found}): at {:.3} ms: {}", failure.at_ms, failure.what);
    }
}

#[test]
fn the_first_seeds_hold_against_a_hostile_peer_of_each_role() {
    for role in HostileRole::ALL {
        (0..6).for_each(|seed| assert_holds_against(role, seed, "one of the first"));
    }
}

/// Seeds that once failed, and the fault that they found.
#[test]
fn seeds_that_once_failed_hold_against_a_hostile_router_without_a_rank() {
    for (seed, found) in [
        (
            56,
            "a target whose agent restarted believed the hostile router before the others, and refused the owner ever after",
        ),
        (
            193,
            "a target believed it because only one other router had told its ranks, and refused the owner ever after",
        ),
    ] {
        assert_holds_against(HostileRole::Router, seed, found);
    }
}

/// Asserts that one of the first few seeds fails when a rule of a connection's life is broken.
#[track_caller]
fn assert_noticed(relapse: Relapse) {
    let noticed = (0..SEEDS_TO_NOTICE).any(|seed| vipa_sim::simulate_relapse(seed, relapse).is_err());
    assert!(noticed, "{relapse:?} is noticed by none of {SEEDS_TO_NOTICE} seeds");
}

const SEEDS_TO_NOTICE: u64 = 24;

#[test]
fn that_a_late_end_removes_the_next_connection_of_the_port_is_noticed() {
    assert_noticed(Relapse::EndsRemove);
}

#[test]
fn that_a_half_closed_connection_ages_is_noticed() {
    assert_noticed(Relapse::ClosingAges);
}

#[test]
fn that_anybodys_fin_takes_back_what_a_target_has_reported_is_noticed() {
    assert_noticed(Relapse::FlagsDecide);
}

#[test]
fn that_ended_connections_come_back_with_a_hand_over_is_noticed() {
    assert_noticed(Relapse::EndsComeBack);
}

#[test]
fn a_seed_decides_everything() {
    let run = |seed| vipa_sim::simulate(seed, true).map(|summary| (summary.steps, summary.connections)).ok();
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn what_a_router_of_many_owned_is_owned_again_soon_after_its_death() {
    let size = vipa_sim::scale::Size { routers: 8, targets: 24, vipas: 32 };
    assert_eq!(vipa_sim::scale::run(size, 0).map(|bill| bill.moved), Ok(4));
}
