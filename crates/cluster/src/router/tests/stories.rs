use std::time::Duration;

use vipa_model::{ConnectionState::Established, Epoch, NodeName, Stance};
use vipa_protocol::{Beat, Message, Owned, Run, Trigger};

use super::{
    super::{Event, Output, State},
    bench::{Bench, VIPA, address, name, service},
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
fn an_owner_whose_clock_stands_still_is_succeeded_and_lets_go_when_it_hears_of_it() {
    let mut bench = Bench::settled();
    bench.stop_clock("r1");
    bench.run_ms(300);
    // By its own clock its lease has not passed; the new owner's first message ends its ownership all the same.
    assert_eq!(bench.status("r2").state, State::Active);
    assert_eq!(bench.status("r1").state, State::Standby);
    assert_eq!((bench.status("r1").owner, bench.status("r1").epoch), (Some(name("r2")), Epoch(2)));
    bench.start_clock("r1");
    bench.run_ms(3000);
    bench.assert_owner("r1");
}

#[test]
fn a_backup_or_voter_whose_clock_stands_still_disturbs_nobody() {
    let mut bench = Bench::settled();
    for node in ["r2", "t1"] {
        bench.stop_clock(node);
        bench.run_ms(1000);
        bench.assert_owner("r1");
        assert_eq!(bench.status("r1").epoch.0, 1);
        bench.start_clock(node);
        bench.run_ms(1000);
        bench.assert_owner("r1");
        assert_eq!(bench.status("r1").epoch.0, 1);
    }
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

#[test]
fn a_candidate_that_does_not_answer_delays_the_takeover_only_to_the_deadline() {
    let mut bench = Bench::settled();
    bench.kill("t3");
    bench.part("r2", "t2");
    bench.kill("r1");
    bench.run_ms(300);
    assert_eq!(bench.status("r2").state, State::Rebuilding);
    bench.run_ms(1000);
    bench.assert_owner("r2");
    let report = bench.reports().pop().unwrap();
    // t3 still counts as linked, but is silent.
    assert_eq!((report.targets_answered, report.targets_expected), (1, 3));
}

#[test]
fn a_late_report_is_merged_after_the_deadline() {
    let mut bench = Bench::settled();
    bench.part("r2", "t2");
    bench.hold("t2", &[(7, Established)]);
    bench.kill("r1");
    bench.run_ms(1500);
    bench.assert_owner("r2");
    bench.outputs.clear();
    bench.join("r2", "t2");
    let install =
        |(_, output): &(_, Output)| matches!(output, Output::Install { target, .. } if *target == address("t2"));
    assert!(bench.outputs.iter().any(install));
}

#[test]
fn a_backup_that_just_started_takes_over_from_snapshots() {
    let mut bench = Bench::settled();
    bench.hold("t1", &[(1, Established), (2, Established)]);
    bench.kill("r2");
    bench.outputs.clear();
    bench.start("r2");
    bench.kill("r1");
    bench.run_ms(300);
    bench.assert_owner("r2");
    let installs = bench.outputs.iter().filter(|(node, output)| {
        *node == name("r2") && matches!(output, Output::Install { run: Run::Snapshot { .. }, .. })
    });
    assert_eq!(installs.count(), 3);
}

#[test]
fn the_second_backup_takes_over_when_the_first_dies_while_rebuilding() {
    let lists: &[(&str, Option<&[&str]>)] = &[("r1", Some(&["t1", "t2", "t9"])), ("r2", None), ("r3", None)];
    let mut bench = Bench::with_voters(lists, &["t1", "t2", "t3"], &["r1", "r2", "r3", "t1", "t2"]);
    bench.run_ms(2000);
    bench.assert_owner("r1");
    bench.kill("r1");
    bench.run_ms(250);
    // t9 never answers.
    assert_eq!(bench.status("r2").state, State::Rebuilding, "{}", bench.story());
    bench.kill("r2");
    bench.run_ms(1500);
    bench.assert_owner("r3");
    assert_eq!(bench.status("r3").epoch.0, 3);
}

#[test]
fn a_returning_owner_that_cannot_hear_the_new_one_claims_nothing_while_the_voters_can() {
    let mut bench = Bench::settled();
    bench.kill("r1");
    bench.run_ms(300);
    bench.assert_owner("r2");
    bench.cut("r1", "r2");
    bench.start("r1");
    for _ in 0..2000 {
        bench.run_ms(1);
        assert_eq!(bench.owners(), ["r2"], "{}", bench.story());
    }
    assert_eq!(bench.status("r2").epoch.0, 2);
}

#[test]
fn a_voter_whose_disk_fails_gives_no_grant() {
    let mut bench = Bench::settled();
    bench.broken_disks = [name("r2"), name("t1")].into();
    bench.kill("r1");
    bench.run_ms(1000);
    assert_eq!(bench.owners(), [""; 0], "{}", bench.story());
    bench.broken_disks.clear();
    bench.run_ms(1000);
    bench.assert_owner("r2");
}

#[test]
fn an_owner_without_voters_lets_the_one_backup_it_reaches_succeed_it() {
    let mut bench = Bench::settled();
    // r1 reaches r2 only one way: no acknowledgement comes back, from any node.
    for target in ["t1", "t2", "t3"] {
        bench.part("r1", target);
    }
    bench.mute("r2", "r1");
    bench.run_ms(600);
    bench.assert_owner("r2");
    assert_eq!(bench.reports().pop().unwrap().trigger, Trigger::Handover);
}

#[test]
fn a_backup_with_its_own_list_serves_with_it_after_the_takeover() {
    let lists: &[(&str, Option<&[&str]>)] = &[("r1", Some(&["t1", "t2"])), ("r2", Some(&["t3"]))];
    let mut bench = Bench::new(lists, &["t1", "t2", "t3"]);
    bench.run_ms(600);
    bench.kill("r1");
    bench.run_ms(300);
    bench.assert_owner("r2");
    assert_eq!(bench.status("r2").services, [service(&["t3"])]);
    // The owner's candidates were asked all the same: they hold the connections.
    assert_eq!(bench.reports().pop().unwrap().targets_answered, 3);
}

#[test]
fn a_backup_without_a_list_serves_with_the_owners() {
    let mut bench = Bench::settled();
    assert_eq!(bench.status("r2").services, [service(&["t1", "t2", "t3"])]);
    let served = Output::ServeWith { vipa: VIPA, services: vec![service(&["t1", "t2", "t3"])] };
    assert!(bench.outputs.contains(&(name("r2"), served)));
    bench.kill("r1");
    bench.run_ms(300);
    assert_eq!(bench.status("r2").services, [service(&["t1", "t2", "t3"])]);
}

#[test]
fn the_workers_know_before_the_network_and_the_network_before_the_targets() {
    let mut bench = Bench::settled();
    bench.outputs.clear();
    bench.wire.clear();
    bench.kill("r1");
    bench.run_ms(300);
    let place = |wanted: fn(&Output) -> bool| {
        bench.outputs.iter().position(|(node, output)| *node == name("r2") && wanted(output)).unwrap()
    };
    let stance = place(|output| matches!(output, Output::Stance { stance: Stance::Rebuilding, .. }));
    let lease = place(|output| matches!(output, Output::Lease { .. }));
    let announce = place(|output| matches!(output, Output::Announce { .. }));
    let active = place(|output| matches!(output, Output::Stance { stance: Stance::Active, .. }));
    let report = place(|output| matches!(output, Output::Report(_)));
    assert!(stance < lease && lease < announce && announce < active && active < report);
}

#[test]
fn a_restarted_agent_answers_with_a_snapshot_and_its_dead_listeners_are_forgotten() {
    let mut bench = Bench::settled();
    bench.part("r1", "t1");
    let gone = Output::Listeners { vipa: VIPA, target: address("t1"), listening: Vec::new() };
    assert_eq!(bench.outputs.iter().filter(|(_, output)| *output == gone).count(), 1);
    bench.kill("t1");
    bench.outputs.clear();
    bench.start("t1");
    let snapshots = bench.outputs.iter().filter(|(_, output)| {
        matches!(output, Output::Install { run: Run::Snapshot { .. }, target, .. } if *target == address("t1"))
    });
    assert_eq!(snapshots.count(), 2);
}

#[test]
fn a_lost_record_is_asked_for_again() {
    let mut bench = Bench::settled();
    bench.mute("t1", "r1");
    bench.hold("t1", &[(1, Established)]);
    bench.unmute("t1", "r1");
    bench.outputs.clear();
    bench.hold("t1", &[(1, Established), (2, Established)]);
    let records = |(node, output): &(_, Output)| match output {
        Output::Install { run: Run::Tail { records, .. }, .. } if *node == name("r1") => Some(records.len()),
        _ => None,
    };
    assert_eq!(bench.outputs.iter().filter_map(records).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_node_of_other_voters_is_refused_by_name_and_not_listened_to() {
    let mut bench = Bench::settled();
    let mut hello = bench.hello(&name("r2"));
    (hello.node, hello.voters) = (name("r9"), vec![name("r9")].into());
    bench.feed_router("r1", Event::Connected { peer: name("r9"), hello });
    let owned = vec![Owned { vipa: VIPA, epoch: Epoch(99), yielding_to: None }];
    let message = Message::Beat(Beat { sequence: 1, owned });
    bench.feed_router("r1", Event::Received { peer: name("r9"), message });
    bench.assert_owner("r1");
    assert!(bench.story().contains("r1: r9: not listened to, because its voters are r9"));
}

#[test]
fn a_targets_load_is_passed_on_by_its_address_and_forgotten_with_its_link() {
    use vipa_protocol::Load;
    let mut bench = Bench::settled();
    let loads = |bench: &Bench| -> Vec<Option<Load>> {
        let of_t1 = |(node, output): &(_, Output)| match output {
            Output::Load { target, load } if *node == name("r1") && *target == address("t1") => Some(load.clone()),
            _ => None,
        };
        bench.outputs.iter().filter_map(of_t1).collect()
    };
    bench.outputs.clear();
    let load = Load { headroom: 5, ..Load::unknown() };
    let say = |load: &Load| Event::Received { peer: name("t1"), message: Message::Load(load.clone()) };
    bench.feed_router("r1", say(&load));
    bench.feed_router("r1", say(&Load { headroom: 0, ..load.clone() }));
    bench.feed_router("r1", Event::Received { peer: name("r2"), message: Message::Load(load.clone()) });
    assert_eq!(loads(&bench), [Some(load)], "neither what no agent says nor what no target says");
    bench.part("r1", "t1");
    assert_eq!(loads(&bench).last(), Some(&None));
}

#[test]
fn a_targets_ethernet_address_is_passed_on_by_its_address_and_forgotten_with_its_link() {
    use vipa_model::Mac;
    use vipa_protocol::LinkAddress;
    let mut bench = Bench::settled();
    bench.outputs.clear();
    let mac = Some(Mac([2, 0, 0, 0, 0, 1]));
    let say = |of, mac| Event::Received { peer: name(of), message: Message::LinkAddress(LinkAddress { mac }) };
    bench.feed_router("r1", say("t1", mac));
    bench.feed_router("r1", say("t1", Some(Mac::BROADCAST)));
    bench.feed_router("r1", say("r2", mac));
    bench.part("r1", "t1");
    let told = bench.outputs.iter().filter_map(|(node, output)| match output {
        Output::LinkAddress { target, mac } if *node == name("r1") => Some((*target, *mac)),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [(address("t1"), mac), (address("t1"), None)]);
}

#[test]
fn a_takeback_waits_for_voters_with_slow_disks_and_the_yielding_router_serves_meanwhile() {
    let mut bench = Bench::settled();
    bench.kill("r1");
    bench.run_ms(300);
    bench.disks_take = Duration::from_millis(350);
    bench.start("r1");
    while bench.status("r2").state != State::Yielding {
        bench.run_ms(1);
    }
    let epoch = bench.status("r2").epoch;
    while bench.status("r1").state == State::Claiming {
        assert_eq!(bench.status("r2").stance, Stance::Yielding);
        bench.run_ms(1);
    }
    bench.assert_owner("r1");
    assert_eq!(bench.status("r1").epoch, epoch.next());
}

#[test]
fn an_owner_that_consents_answers_no_orphan_until_the_consent_is_over() {
    let mut bench = Bench::settled();
    bench.kill("r1");
    bench.run_ms(3000);
    bench.start("r1");
    while bench.status("r2").state != State::Yielding {
        bench.run_ms(1);
    }
    let quiet = |(node, output): &(NodeName, Output)| match output {
        Output::Stance { stance: Stance::Active, quiet_until, .. } if node.as_str() == "r2" => Some(*quiet_until),
        _ => None,
    };
    let quiet_until = bench.outputs.iter().filter_map(quiet).next_back().unwrap();
    assert!(quiet_until > bench.now + Duration::from_secs(1), "{}", bench.story());
}

/// Seed 408 of `make chaos`: the owner took its successor's announcement for a conflict and announced the VIPA once more.
#[test]
fn an_owner_announces_until_it_consents_or_its_lease_passes() {
    let mut bench = Bench::settled();
    bench.kill("r1");
    bench.run_ms(3000);
    let brief = bench.brief("r2");
    let lease = brief.lease.unwrap();
    assert!(brief.may_announce(bench.now));
    assert!(!brief.may_announce(lease), "another router may own it from then on");
    bench.disks_take = Duration::from_millis(20);
    bench.start("r1");
    let mut consented_under_lease = 0;
    for _ in 0..3000 {
        bench.run_ms(1);
        let (successor, yielding) = (bench.brief("r1"), bench.brief("r2"));
        let both = successor.may_announce(bench.now) && yielding.may_announce(bench.now);
        assert!(!both, "{}", bench.story());
        if yielding.yielding_to.is_some() {
            assert!(!yielding.may_announce(bench.now), "its successor may have announced the VIPA already");
            consented_under_lease += u32::from(yielding.lease.is_some_and(|lease| bench.now < lease));
        }
    }
    assert!(consented_under_lease > 0, "its lease alone would have let it announce");
    assert!(bench.brief("r1").may_announce(bench.now), "{}", bench.story());
}
