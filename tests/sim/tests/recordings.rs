//! Recordings of routers in the simulator, made as `vipad` makes them, and replayed.

use std::time::Duration;

use vipa_cluster::{Event, Router, Settings, Stored, Timing, recording};
use vipa_model::{Incarnation, Moment};
use vipa_sim::{
    recordings,
    replay::{Detail, Fault, Replayed, replay},
};

#[test]
fn whatever_a_router_goes_through_another_goes_through_again() {
    let (mut files, mut events) = (0, 0);
    for seed in 0..8 {
        for (index, bytes) in recordings(seed).iter().enumerate() {
            match replay(bytes, Detail::InShort, &mut |_| ()) {
                Ok(Replayed { events: these, broken_off: false, .. }) => events += these,
                other => panic!("seed {seed}, recording {index}: {other:?}"),
            }
            files += 1;
        }
    }
    assert!(files > 40 && events > 30_000, "{files} recordings with {events} events");
}

#[test]
fn the_first_output_that_differs_is_named_with_both() {
    let mut bytes = a_recording();
    let event = Event::Unfit { why: "no reason".into() };
    recording::append_event(&mut bytes, Moment(5_000_000), &event);
    recording::append_outputs(&mut bytes, &[vipa_cluster::Output::Stopped]);
    let mut lines = Vec::new();
    let error = replay(&bytes, Detail::InShort, &mut |line| lines.push(line.to_owned())).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("event 2, 00:00:00.004 (+0.004 s): Unfit { why: \"no reason\" }\nled to"), "{text}");
    assert!(text.contains("output 1 was, as recorded,\n  Stopped\nand is, as replayed,\n  Note(Eligibility"), "{text}");
    assert_eq!(lines[0].split(';').next(), Some("router r1 of cluster replayed, release 0.1.0, incarnation 1"));
    assert!(lines.last().is_some_and(|line| line.ends_with("r1 is unfit to route: no reason")), "{lines:?}");
}

#[test]
fn what_is_cut_off_or_damaged_is_an_error_and_no_panic() {
    let whole = recordings(3).into_iter().max_by_key(Vec::len).expect("routers of seed 3");
    let mut ends = [0, 0];
    for length in (0..whole.len()).step_by(whole.len() / 50) {
        match replay(&whole[..length], Detail::InShort, &mut |_| ()) {
            Ok(_) => ends[0] += 1,
            Err(error) => {
                assert!(matches!(error.fault, Fault::Unreadable(_)), "{error}");
                ends[1] += 1;
            }
        }
    }
    assert!(ends[1] > 40, "{ends:?}");
    for place in (0..whole.len()).step_by(whole.len() / 50) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x55;
        // It may still be a recording, with other contents.
        let _ = replay(&damaged, Detail::InShort, &mut |_| ());
    }
}

/// The recording of a router that is alone, with one event.
fn a_recording() -> Vec<u8> {
    let settings = Settings {
        cluster: "replayed".into(),
        key: vipa_protocol::KeyDigest::default(),
        me: "r1".parse().unwrap(),
        addresses: Vec::new(),
        incarnation: Incarnation(1),
        voters: vec!["r1".parse().unwrap()].into(),
        timing: Timing::of_lease(Duration::from_millis(100)),
        vipas: Vec::new(),
    };
    let mut router = Router::new(settings, Stored::default(), Moment(1_000_000));
    let mut bytes = recording::begin(&router, Moment(1_000_000), 0);
    let mut out = Vec::new();
    recording::append_event(&mut bytes, Moment(2_000_000), &Event::Timeout);
    router.handle(Moment(2_000_000), Event::Timeout, &mut out);
    recording::append_outputs(&mut bytes, &out);
    bytes
}
