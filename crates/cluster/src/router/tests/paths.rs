//! The path to a target is known at every router with a rank, whatever its own list names.

use vipa_model::Forwarding;

use super::{
    super::{Event, Output},
    bench::{Bench, VIPA, address, service},
};

/// r1's list has t1 to t3 by a tunnel, r2's has t1 alone and directly; r1 owns the VIPA.
fn lists_that_differ() -> Bench {
    let mut bench = Bench::new(&[], &["t1", "t2", "t3"]);
    bench.list_by("r1", Forwarding::Gre, &["t1", "t2", "t3"]);
    bench.list("r2", &["t1"]);
    bench.start("r1");
    bench.start("r2");
    bench.run_ms(600);
    bench.assert_owner("r1");
    bench
}

fn by_tunnel() -> Vec<(std::net::IpAddr, Forwarding)> {
    vec![(address("t2"), Forwarding::Gre), (address("t3"), Forwarding::Gre)]
}

#[test]
fn a_backup_knows_how_the_targets_are_reached_that_its_own_list_leaves_out() {
    let bench = lists_that_differ();
    assert_eq!(bench.paths("r2"), by_tunnel(), "t1 is reached as its own list says");
    assert_eq!(bench.paths("r1"), []);
}

#[test]
fn a_router_that_restarts_alone_knows_it_from_its_disk_before_it_serves() {
    let mut bench = lists_that_differ();
    for node in ["r1", "r2", "t2", "t3"] {
        bench.kill(node);
    }
    bench.outputs.clear();
    bench.start("r2");
    bench.run_ms(1);
    assert_eq!(bench.paths("r2"), by_tunnel());
    let place = |wanted: fn(&Output) -> bool| bench.outputs.iter().position(|(_, output)| wanted(output));
    let (paths, serves) = (
        place(|output| matches!(output, Output::Paths { .. })),
        place(|output| matches!(output, Output::ServeWith { .. })),
    );
    assert!(paths.unwrap() < serves.unwrap());
}

#[test]
fn a_router_with_an_empty_disk_hears_it_from_the_targets_before_their_connections() {
    let mut bench = lists_that_differ();
    bench.kill("r1");
    bench.kill("r2");
    bench.forget("r2");
    bench.hold("t2", &[(1, vipa_model::ConnectionState::Established)]);
    bench.outputs.clear();
    bench.start("r2");
    bench.run_ms(800);
    bench.assert_owner("r2");
    let mut known = bench.paths("r2");
    known.sort_unstable();
    assert_eq!(known, by_tunnel());
    let place = |wanted: &dyn Fn(&Output) -> bool| bench.outputs.iter().position(|(_, output)| wanted(output));
    let of_t2 = |output: &Output| matches!(output, Output::Paths { paths, .. } if paths.iter().any(|path| path.target == address("t2")));
    let reported = |output: &Output| matches!(output, Output::Install { target, .. } if *target == address("t2"));
    assert!(place(&of_t2).unwrap() < place(&reported).unwrap());
}

#[test]
fn a_target_that_its_own_list_has_lost_is_reached_as_before() {
    let mut bench = lists_that_differ();
    bench.list_by("r1", Forwarding::Gre, &["t1"]);
    bench.reload("r1");
    assert_eq!(bench.paths("r1"), by_tunnel());
    assert_eq!(bench.paths("r2"), by_tunnel(), "nor does the backup forget it");
}

#[test]
fn what_only_the_owner_has_heard_reaches_a_router_that_comes_later() {
    let mut bench = lists_that_differ();
    bench.list_by("r1", Forwarding::Gre, &["t1"]);
    bench.reload("r1");
    for target in ["t2", "t3"] {
        bench.kill(target);
    }
    bench.list("r3", &["t1"]);
    bench.start("r3");
    bench.run_ms(100);
    assert_eq!(bench.paths("r3"), by_tunnel());
}

#[test]
fn a_router_without_a_list_of_its_own_has_the_owners_also_after_it_restarts_alone() {
    let mut bench = Bench::settled();
    bench.kill("r1");
    bench.kill("r2");
    bench.outputs.clear();
    bench.start("r2");
    bench.feed_router("r2", Event::Timeout);
    let served = Output::ServeWith { vipa: VIPA, services: vec![service(&["t1", "t2", "t3"])] };
    assert!(bench.outputs.iter().any(|(_, output)| *output == served));
}

#[test]
fn a_list_that_lost_a_target_while_its_router_was_down_leaves_the_path_to_the_owner() {
    let mut bench = Bench::new(&[], &["t1", "t2"]);
    bench.list_by("r1", Forwarding::Gre, &["t1", "t2"]);
    bench.list_by("r2", Forwarding::Gre, &["t1", "t2"]);
    bench.start("r1");
    bench.start("r2");
    bench.run_ms(600);
    assert_eq!(bench.paths("r2"), []);
    bench.kill("r2");
    bench.kill("t2");
    bench.list_by("r2", Forwarding::Direct, &["t1"]);
    bench.start("r2");
    bench.run_ms(600);
    assert_eq!(bench.paths("r2"), [(address("t2"), Forwarding::Gre)]);
}
