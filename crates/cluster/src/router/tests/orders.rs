//! Orders, and what they change in the order of succession.

use std::time::Duration;

use vipa_model::{ConnectionState::Established, Protocol};
use vipa_protocol::{Message, Order, Trigger};

use super::{
    super::{Event, Output, Resting, Stage, State, Takeback, Wait},
    bench::{Bench, VIPA, address, name},
};

fn three() -> Bench {
    let lists: &[(&str, Option<&[&str]>)] = &[("r1", Some(&["t1", "t2", "t3"])), ("r2", None), ("r3", None)];
    let mut bench = Bench::with_voters(lists, &["t1", "t2", "t3"], &["r1", "r2", "r3", "t1", "t2"]);
    bench.run_ms(600);
    bench.assert_owner("r1");
    bench
}

fn refusal(stage: Option<Stage>) -> String {
    match stage {
        Some(Stage::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_moved_vipa_stays_where_it_was_moved_until_it_is_taken_back() {
    let mut bench = three();
    bench.obey("r1", Order::Move { vipa: VIPA, to: name("r3") }, 300);
    bench.assert_owner("r3");
    assert_eq!(bench.reports().pop().unwrap().trigger, Trigger::Takeback);
    bench.run_ms(5000);
    bench.assert_owner("r3");
    bench.obey("r2", Order::Takeback { vipa: VIPA }, 300);
    bench.assert_owner("r1");
    bench.run_ms(5000);
    bench.assert_owner("r1");
}

#[test]
fn a_move_can_be_ordered_at_any_router_and_outlives_the_death_of_all_of_them() {
    let mut bench = three();
    bench.obey("r3", Order::Move { vipa: VIPA, to: name("r2") }, 300);
    bench.assert_owner("r2");
    for router in ["r1", "r2", "r3"] {
        bench.kill(router);
    }
    bench.run_ms(1000);
    for router in ["r1", "r2", "r3"] {
        bench.start(router);
    }
    bench.run_ms(3000);
    bench.assert_owner("r2");
}

#[test]
fn a_moved_vipa_goes_by_rank_when_that_router_dies_and_returns_with_it() {
    let mut bench = three();
    bench.obey("r1", Order::Move { vipa: VIPA, to: name("r3") }, 300);
    bench.kill("r3");
    bench.run_ms(400);
    bench.assert_owner("r1");
    bench.start("r3");
    bench.run_ms(1000);
    bench.assert_owner("r3");
}

#[test]
fn a_move_nobody_could_carry_out_is_refused_with_the_reason() {
    let mut bench = three();
    let to = |router| Order::Move { vipa: VIPA, to: name(router) };
    assert!(refusal(bench.order("r1", to("r9"), 0)).contains("r9 has no rank for 192.0.2.10; it can be moved to r1"));
    bench.feed_router("r3", Event::Unfit { why: "port p0 is down".into() });
    assert!(refusal(bench.order("r1", to("r3"), 0)).contains("r3 cannot route at the moment: port p0 is down"));
    bench.obey("r2", Order::Deactivate { vipa: VIPA, force: false }, 100);
    assert!(refusal(bench.order("r1", to("r2"), 0)).contains("is deactivated on r2"));
    bench.part("r1", "r2");
    assert!(refusal(bench.order("r1", to("r2"), 0)).contains("r2 has no link to r1"));
    let vipa = "192.0.2.99".parse().unwrap();
    let unknown = bench.order("r1", Order::Takeback { vipa }, 0);
    assert!(refusal(unknown).contains("192.0.2.99 is not a VIPA of this router; it has 192.0.2.10"));
    bench.assert_owner("r1");
}

#[test]
fn a_move_that_does_not_happen_is_taken_back() {
    let mut bench = Bench::settled();
    // t3 reports to the owner and never to r2.
    bench.part("r2", "t3");
    bench.hold("t3", &[(1, Established)]);
    let stage = bench.order("r1", Order::Move { vipa: VIPA, to: name("r2") }, 31_000);
    assert!(refusal(stage).starts_with("given up after 30 s, and taken back: 192.0.2.10 belongs to r1 still"));
    bench.assert_owner("r1");
    bench.join("r2", "t3");
    bench.run_ms(3000);
    bench.assert_owner("r1");
}

#[test]
fn a_router_that_lacks_a_target_of_the_owners_is_told_and_shown_what_is_missing() {
    let mut bench = Bench::settled();
    bench.kill("r1");
    bench.run_ms(300);
    bench.cut("r1", "t3");
    bench.start("r1");
    bench.run_ms(4000);
    bench.assert_owner("r2");
    assert_eq!(bench.status("r1").takeback, Some(Wait::Unfollowed { targets: vec![name("t3")] }));
    assert!(bench.story().contains("not taken back yet, because t3 report to r2 and not here"));
}

#[test]
fn a_deactivated_vipa_is_owned_by_the_next_and_stays_so_across_restarts() {
    let mut bench = three();
    bench.obey("r1", Order::Deactivate { vipa: VIPA, force: false }, 300);
    bench.assert_owner("r2");
    bench.kill("r1");
    bench.run_ms(100);
    bench.start("r1");
    bench.run_ms(3000);
    bench.assert_owner("r2");
    bench.kill("r2");
    bench.run_ms(400);
    bench.assert_owner("r3");
    bench.kill("r3");
    bench.run_ms(5000);
    // A deactivated router stays deactivated, even when no other is left.
    assert_eq!(bench.owners(), [""; 0]);
    bench.obey("r1", Order::Reactivate { vipa: VIPA }, 4000);
    bench.assert_owner("r1");
}

#[test]
fn the_last_router_gives_nothing_up_unless_it_is_forced() {
    let mut bench = Bench::settled();
    bench.kill("r2");
    bench.part("r1", "r2");
    let order = |force| Order::Deactivate { vipa: VIPA, force };
    assert!(refusal(bench.order("r1", order(false), 0)).contains("no other router is linked that may own 192.0.2.10"));
    assert!(refusal(bench.order("r1", Order::Leave { node: None, force: false }, 0)).contains("no other router"));
    bench.assert_owner("r1");
    bench.obey("r1", order(true), 100);
    assert!(bench.outputs.contains(&(name("r1"), Output::Withdraw { vipa: VIPA })));
    assert_eq!(bench.owners(), [""; 0]);
}

#[test]
fn a_router_that_left_owns_nothing_until_it_joins() {
    let mut bench = three();
    bench.obey("r2", Order::Leave { node: Some(name("r1")), force: false }, 300);
    bench.assert_owner("r2");
    bench.obey("r2", Order::Leave { node: None, force: false }, 300);
    bench.assert_owner("r3");
    // It was asked to forward what still arrives, and does that first.
    bench.obey("r3", Order::Join { node: Some(name("r1")) }, 3000);
    bench.assert_owner("r1");
    assert_eq!(bench.status("r1").barred, [name("r2")]);
}

#[test]
fn a_quiesced_target_rests_at_every_router_also_at_one_that_comes_later() {
    let mut bench = Bench::settled();
    bench.kill("r2");
    bench.obey("r1", Order::QuiesceTarget { target: address("t1") }, 3500);
    let resting = Resting { protocol: Protocol::Tcp, ports: vipa_model::PortRange::one(80), target: address("t1") };
    let rest = Output::Rest { vipa: VIPA, resting: vec![resting] };
    assert!(bench.outputs.contains(&(name("r1"), rest.clone())));
    // It still receives requests, and still has the VIPA.
    assert_eq!(bench.status("r1").services[0].candidates.len(), 3);
    bench.start("r2");
    assert!(bench.outputs.contains(&(name("r2"), rest.clone())));
    bench.kill("r1");
    bench.run_ms(300);
    bench.assert_owner("r2");
    bench.outputs.clear();
    bench.obey("r2", Order::ResumeTarget { target: address("t1") }, 3500);
    assert!(bench.outputs.contains(&(name("r2"), Output::Rest { vipa: VIPA, resting: Vec::new() })));
    // The dead router comes back with its old decision, and receives the newer one.
    bench.outputs.clear();
    bench.start("r1");
    bench.run_ms(10);
    assert_eq!(bench.status("r1").resting, []);
    assert_eq!(bench.status("r2").resting, []);
}

#[test]
fn targets_remember_what_a_router_without_a_disk_forgot() {
    let mut bench = Bench::settled();
    bench.obey("r1", Order::QuiesceTarget { target: address("t1") }, 10);
    bench.kill("r1");
    bench.kill("r2");
    bench.forget("r1");
    bench.start("r1");
    bench.run_ms(1000);
    bench.assert_owner("r1");
    assert_eq!(bench.status("r1").resting.len(), 1);
}

#[test]
fn a_service_rests_at_one_target_or_at_all() {
    let mut bench = Bench::settled();
    let quiesce = |target| Order::QuiesceService { vipa: VIPA, protocol: Protocol::Tcp, port: 80, target };
    bench.obey("r2", quiesce(Some(address("t2"))), 10);
    assert_eq!(bench.status("r1").resting.len(), 1);
    bench.obey("r2", quiesce(None), 10);
    assert_eq!(bench.status("r1").resting.len(), 3);
    bench.obey("r1", Order::ResumeService { vipa: VIPA, protocol: Protocol::Tcp, port: 80, target: None }, 10);
    assert_eq!(bench.status("r2").resting.len(), 1);
    let other = Order::QuiesceService { vipa: VIPA, protocol: Protocol::Udp, port: 80, target: None };
    assert!(refusal(bench.order("r1", other, 0)).contains("192.0.2.10 has no service on that port"));
    let other = Order::QuiesceTarget { target: "198.51.100.99".parse().unwrap() };
    assert!(refusal(bench.order("r1", other, 0)).contains("198.51.100.99 is no candidate of any service here"));
}

#[test]
fn an_order_is_not_in_force_before_it_is_on_the_disk() {
    let mut bench = Bench::settled();
    bench.broken_disks = [name("r1")].into();
    let stage = bench.order("r1", Order::Move { vipa: VIPA, to: name("r2") }, 31_000);
    assert!(refusal(stage).contains("it is being written to this router's disk"));
    bench.assert_owner("r1");
    assert_eq!(bench.status("r1").epoch.0, 1);
}

#[test]
fn an_unfit_owner_hands_over_at_once_and_takes_it_back_when_it_is_fit() {
    let mut bench = three();
    bench.feed_router("r1", Event::Unfit { why: "port p0 is down".into() });
    bench.run_ms(20);
    bench.assert_owner("r2");
    assert_eq!(bench.reports().pop().unwrap().trigger, Trigger::Handover);
    bench.run_ms(5000);
    bench.assert_owner("r2");
    bench.feed_router("r1", Event::Fit);
    bench.run_ms(1000);
    bench.assert_owner("r1");
}

#[test]
fn an_unfit_owner_is_better_than_none() {
    let mut bench = Bench::settled();
    bench.feed_router("r2", Event::Unfit { why: "no target is reachable".into() });
    bench.feed_router("r1", Event::Unfit { why: "no target is reachable".into() });
    bench.run_ms(5000);
    bench.assert_owner("r1");
    bench.kill("r1");
    bench.run_ms(400);
    bench.assert_owner("r2");
}

#[test]
fn a_manual_takeback_waits_for_its_order() {
    let mut bench = Bench::settled();
    bench.takeback = Takeback::Manual;
    bench.kill("r1");
    bench.run_ms(300);
    bench.start("r1");
    bench.run_ms(5000);
    bench.assert_owner("r2");
    assert_eq!(bench.status("r1").takeback, Some(Wait::Order));
    bench.obey("r2", Order::Takeback { vipa: VIPA }, 300);
    bench.assert_owner("r1");
}

#[test]
fn a_takeback_when_idle_waits_for_the_last_connection() {
    let mut bench = Bench::settled();
    bench.takeback = Takeback::WhenIdle;
    bench.kill("r1");
    bench.run_ms(300);
    bench.start("r1");
    for _ in 0..5 {
        bench.feed_router("r1", Event::Counted { vipa: VIPA, connections: 7 });
        bench.run_ms(1000);
        bench.assert_owner("r2");
    }
    assert_eq!(bench.status("r1").takeback, Some(Wait::Idle { connections: Some(7) }));
    bench.feed_router("r1", Event::Counted { vipa: VIPA, connections: 0 });
    bench.run_ms(300);
    bench.assert_owner("r1");
}

#[test]
fn a_delayed_takeback_counts_from_when_the_router_is_ready() {
    let mut bench = Bench::settled();
    bench.takeback_delay = Duration::from_secs(5);
    bench.kill("r1");
    bench.run_ms(300);
    bench.start("r1");
    bench.run_ms(3000);
    assert!(matches!(bench.status("r1").takeback, Some(Wait::Delay { .. })));
    // A target's link is lost and comes back: the count begins again.
    bench.part("r1", "t2");
    bench.run_ms(100);
    bench.join("r1", "t2");
    bench.run_ms(2500);
    bench.assert_owner("r2");
    bench.run_ms(4000);
    bench.assert_owner("r1");
}

#[test]
fn the_yielding_router_shows_how_long_it_lingers() {
    let mut bench = three();
    bench.obey("r1", Order::Move { vipa: VIPA, to: name("r2") }, 300);
    let status = bench.status("r1");
    assert_eq!(status.state, State::Yielding);
    assert!(status.lingers_until.unwrap() > bench.now);
}

#[test]
fn a_vipa_that_the_configuration_loses_is_handed_over_and_dropped() {
    let mut bench = three();
    let mut settings = bench.settings("r1");
    let vipas = std::mem::take(&mut settings.vipas);
    bench.feed_router("r1", Event::Configured { settings: Box::new(settings.clone()) });
    bench.run_ms(100);
    bench.assert_owner("r2");
    bench.run_ms(2500);
    assert!(bench.outputs.contains(&(name("r1"), Output::Dropped { vipa: VIPA })));
    assert!(bench.wire.iter().any(|(from, _, message)| *from == name("r1") && matches!(message, Message::Release(_))));
    // The decision comes again.
    settings.vipas = vipas;
    bench.feed_router("r1", Event::Configured { settings: Box::new(settings) });
    bench.run_ms(1000);
    bench.assert_owner("r1");
}

#[test]
fn another_list_of_candidates_is_served_and_distributed() {
    let mut bench = Bench::settled();
    let mut settings = bench.settings("r1");
    let list = vec![super::bench::service(&["t1"])];
    settings.vipas[0].services = Some(list.clone());
    bench.outputs.clear();
    bench.feed_router("r1", Event::Configured { settings: Box::new(settings) });
    bench.run_ms(10);
    let served = |router| (name(router), Output::ServeWith { vipa: VIPA, services: list.clone() });
    assert!(bench.outputs.contains(&served("r1")) && bench.outputs.contains(&served("r2")));
    bench.assert_owner("r1");
    assert_eq!(bench.status("r1").epoch.0, 1);
}
