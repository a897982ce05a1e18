//! Two routers without voters: ranks decide, and there may be two owners until they receive each other's beats.

use vipa_protocol::Trigger;

use super::{
    super::{Event, State},
    bench::Bench,
};

fn settled() -> Bench {
    let mut bench = Bench::with_voters(&[("r1", Some(&["t1", "t2"])), ("r2", None)], &["t1", "t2"], &[]);
    bench.run_ms(600);
    bench.assert_owner("r1");
    bench
}

#[test]
fn the_backup_takes_over_by_itself_and_the_higher_rank_takes_back() {
    let mut bench = settled();
    bench.kill("r1");
    bench.run_ms(300);
    bench.assert_owner("r2");
    assert_eq!(bench.reports().pop().unwrap().trigger, Trigger::Failure);
    bench.start("r1");
    bench.run_ms(1000);
    bench.assert_owner("r1");
    assert_eq!(bench.reports().pop().unwrap().trigger, Trigger::Takeback);
}

#[test]
fn an_orderly_stop_hands_over() {
    let mut bench = settled();
    bench.feed_router("r1", Event::Stop);
    bench.run_ms(50);
    bench.assert_owner("r2");
}

#[test]
fn an_owner_needs_nobody_s_word_to_go_on() {
    let mut bench = settled();
    bench.kill("r2");
    for target in ["t1", "t2"] {
        bench.part("r1", target);
    }
    bench.run_ms(2000);
    bench.assert_owner("r1");
    assert!(!bench.status("r1").fenced);
}

#[test]
fn routers_that_do_not_hear_each_other_both_own_until_the_targets_say_who_came_later() {
    let mut bench = settled();
    bench.part("r1", "r2");
    bench.run_ms(100);
    let mut both = false;
    for _ in 0..500 {
        bench.run_ms(1);
        both |= bench.owners().len() == 2;
    }
    // The targets refuse the lower epoch, so that one of the routers is informed before the two receive each other's
    // beats.
    assert!(both || bench.owners().len() == 1, "{}", bench.story());
    bench.join("r1", "r2");
    bench.run_ms(3000);
    bench.assert_owner("r1");
    assert_eq!(bench.status("r2").state, State::Standby);
}

#[test]
fn of_two_owners_of_one_epoch_the_higher_rank_goes_on() {
    // Started apart, and without a target in between: both own epoch 1.
    let mut bench = Bench::with_voters(&[("r1", Some(&["t1"])), ("r2", Some(&["t1"]))], &[], &[]);
    bench.part("r1", "r2");
    bench.run_ms(3000);
    assert_eq!(bench.owners().len(), 2, "{}", bench.story());
    assert_eq!(bench.status("r1").epoch, bench.status("r2").epoch);
    bench.join("r1", "r2");
    bench.run_ms(500);
    bench.assert_owner("r1");
}
