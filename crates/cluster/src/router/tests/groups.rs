//! VIPAs of one group move together, whatever moves them.

use vipa_protocol::Order;

use super::{
    super::{Event, Wait},
    bench::{Bench, VIPA, VIPA2, name, service},
};

/// r1 owns both.
fn grouped() -> Bench {
    let mut bench = Bench::new(&[], &["t1", "t2", "t3"]);
    bench.grouped = true;
    bench.list("r1", &["t1", "t2", "t3"]);
    bench.start("r1");
    bench.start("r2");
    bench.run_ms(600);
    assert_both(&bench, "r1");
    bench
}

fn assert_both(bench: &Bench, router: &str) {
    assert_eq!(
        (bench.owners_of(VIPA), bench.owners_of(VIPA2)),
        (vec![router.into()], vec![router.into()]),
        "{}",
        bench.story()
    );
}

#[test]
fn an_order_for_one_moves_all_and_so_does_its_end() {
    let mut bench = grouped();
    bench.obey("r1", Order::Move { vipa: VIPA2, to: name("r2") }, 300);
    bench.run_ms(100);
    assert_both(&bench, "r2");
    bench.obey("r2", Order::Takeback { vipa: VIPA }, 3_000);
    bench.run_ms(100);
    assert_both(&bench, "r1");
}

#[test]
fn a_failure_and_the_return_move_all() {
    let mut bench = grouped();
    bench.kill("r1");
    bench.run_ms(500);
    assert_both(&bench, "r2");
    bench.start("r1");
    bench.run_ms(1000);
    assert_both(&bench, "r1");
    bench.feed_router("r1", Event::Unfit { why: "port p0 is down".into() });
    bench.run_ms(300);
    assert_both(&bench, "r2");
}

#[test]
fn none_is_taken_back_before_all_can_be() {
    let mut bench = grouped();
    bench.kill("r1");
    bench.run_ms(500);
    // The returning router reaches no candidate of the second VIPA, t9.
    bench.candidates2 = Some(vec![service(&["t9"])]);
    bench.start("r1");
    bench.run_ms(1_000);
    assert_both(&bench, "r2");
    assert_eq!(bench.status_of("r1", VIPA).takeback, Some(Wait::Group));
    assert!(matches!(bench.status_of("r1", VIPA2).takeback, Some(Wait::Targets { .. })));
    // A candidate that has been away from the owner for long is not waited for.
    bench.run_ms(3_000);
    assert_both(&bench, "r1");
}
