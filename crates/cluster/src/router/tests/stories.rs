use vipa_model::ConnectionState::Established;
use vipa_protocol::Trigger;

use super::{
    super::{Event, Output, State},
    bench::{Bench, name},
};

#[test]
fn the_highest_ranked_router_becomes_the_first_owner() {
    let bench = Bench::settled();
    let report = bench.reports().pop().unwrap();
    assert_eq!((report.trigger, report.epoch.0), (Trigger::First, 1));
    assert_eq!((report.targets_answered, report.targets_expected), (3, 3));
    assert_eq!(bench.status("r2").state, State::Standby);
}

#[test]
fn a_backup_takes_over_when_the_owner_dies_and_asks_only_for_the_tail() {
    let mut bench = Bench::settled();
    bench.hold("t1", &[(1, Established), (2, Established)]);
    bench.kill("r1");
    bench.run_ms(200);
    bench.assert_owner("r2");
    let report = bench.reports().pop().unwrap();
    assert_eq!((report.trigger, report.targets_answered, report.targets_warm), (Trigger::Failure, 3, 3));
    assert_eq!(report.connections_reported, 0);
    assert_eq!(report.rebuild_us, 0);
}

#[test]
fn the_old_owner_takes_the_vipa_back_when_it_returns() {
    let mut bench = Bench::settled();
    bench.kill("r1");
    bench.run_ms(300);
    bench.start("r1");
    bench.run_ms(1000);
    bench.assert_owner("r1");
    let report = bench.reports().pop().unwrap();
    assert_eq!(report.trigger, Trigger::Takeback);
    assert_eq!(bench.status("r2").state, State::Yielding);
    bench.run_ms(2000);
    assert_eq!(bench.status("r2").state, State::Standby);
    bench.assert_owner("r1");
}

#[test]
fn an_orderly_stop_hands_the_vipa_over_and_only_then_ends() {
    let mut bench = Bench::settled();
    bench.feed_router("r1", Event::Stop);
    bench.run_ms(50);
    bench.assert_owner("r2");
    assert_eq!(bench.reports().pop().unwrap().trigger, Trigger::Handover);
    assert_eq!(bench.status("r1").state, State::Yielding);
    assert!(!bench.outputs.contains(&(name("r1"), Output::Stopped)));
    bench.run_ms(1500);
    assert!(bench.outputs.contains(&(name("r1"), Output::Stopped)));
}

#[test]
fn a_backup_that_alone_misses_the_owner_disturbs_nobody() {
    let mut bench = Bench::settled();
    bench.mute("r1", "r2");
    bench.run_ms(2000);
    bench.assert_owner("r1");
    assert_eq!(bench.status("r1").epoch.0, 1);
    bench.join("r1", "r2");
    bench.run_ms(100);
    assert_eq!(bench.status("r2").state, State::Standby);
}

#[test]
fn an_owner_cut_off_from_the_voters_is_fenced_before_the_next_one_owns() {
    let mut bench = Bench::settled();
    for other in ["r2", "t1", "t2", "t3"] {
        bench.part("r1", other);
    }
    let mut fenced = false;
    for _ in 0..400 {
        bench.run_ms(1);
        assert!(bench.owners().len() <= 1, "{}", bench.story());
        fenced |= bench.owners().is_empty();
    }
    assert!(fenced);
    bench.assert_owner("r2");
}
