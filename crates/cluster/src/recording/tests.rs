use std::time::Duration;

use proptest::prelude::*;
use vipa_model::{Incarnation, Rank};
use vipa_protocol::Order;

use super::*;
use crate::{Settings, Stored, StoredVote, Takeback, Timing, VipaSettings};

const START: Moment = Moment(7_000_000);
/// Enough for it to wait for its own silence, to vote for itself, to own, and to carry out an order.
const EVENTS: usize = 40;

/// A router that is alone: its own voter, whose vote is granted as soon as it is stored.
fn lone_router() -> Router {
    let me: NodeName = "r1".parse().unwrap();
    let vipa = VipaSettings {
        address: "192.0.2.10".parse().unwrap(),
        ranks: vec![(me.clone(), Rank(200))],
        services: Some(Vec::new()),
        activate: true,
        takeback: Takeback::Immediate,
        takeback_delay: Duration::ZERO,
        group: None,
    };
    let settings = Settings {
        cluster: "alone".into(),
        key: vipa_protocol::KeyDigest::default(),
        me: me.clone(),
        addresses: Vec::new(),
        incarnation: Incarnation(3),
        voters: vec![me.clone()].into(),
        timing: Timing::of_lease(Duration::from_millis(100)),
        vipas: vec![vipa.clone()],
    };
    let vote = StoredVote { vipa: vipa.address, epoch: vipa_model::Epoch(4), holder: me, incarnation: Incarnation(2) };
    Router::new(settings, Stored { votes: vec![vote], ..Stored::default() }, START)
}

/// The beginning of its life, recorded from event number `after` on.
fn a_life(after: usize) -> (Vec<u8>, Vec<Step>) {
    let (mut router, mut bytes, mut steps) = (lone_router(), Vec::new(), Vec::new());
    let order = Order::QuiesceTarget { target: "198.51.100.31".parse().unwrap() };
    let (mut now, mut next) = (START, vec![Event::Order { token: 1, order, given: None }]);
    for count in 0..EVENTS {
        let event = next.pop().unwrap_or(Event::Timeout);
        if event == Event::Timeout {
            let wait = router.deadline().map_or(Duration::ZERO, |deadline| deadline.since(now));
            now = now + wait.max(Duration::from_millis(1));
        }
        if count == after {
            bytes = begin(&router, now, 1_700_000_000_000);
        }
        let mut outputs = Vec::new();
        if count >= after {
            append_event(&mut bytes, now, &event);
        }
        router.handle(now, event.clone(), &mut outputs);
        for output in &outputs {
            match output {
                Output::StoreVote { token, .. } => next.push(Event::VotesStored { token: *token }),
                Output::StoreDecisions { token } => next.push(Event::DecisionsStored { token: *token }),
                _ => {}
            }
        }
        if count >= after {
            append_outputs(&mut bytes, &outputs);
            steps.push(Step { at: now, event, outputs: Some(outputs) });
        }
    }
    (bytes, steps)
}

fn read(bytes: &[u8]) -> Result<Vec<Step>, RecordingError> {
    let mut recording = Recording::read(bytes)?;
    std::iter::from_fn(|| recording.step().transpose()).collect()
}

#[test]
fn what_a_router_went_through_is_read_as_it_was_and_leads_another_to_the_same() {
    for after in [0, 1, 5, 20] {
        let (bytes, steps) = a_life(after);
        let recording = Recording::read(&bytes).unwrap();
        assert_eq!(read(&bytes), Ok(steps.clone()));
        let Title { node, began_unix_ms, .. } = recording.title;
        assert_eq!((node.as_str(), began_unix_ms), ("r1", 1_700_000_000_000));
        let mut other = recording.router;
        for step in steps {
            let mut outputs = Vec::new();
            other.handle(step.at, step.event, &mut outputs);
            assert_eq!(Some(outputs), step.outputs);
        }
    }
    let (_, steps) = a_life(0);
    let owned = |output: &Output| matches!(output, Output::Announce { .. });
    assert!(steps.iter().flat_map(|step| step.outputs.iter().flatten()).any(owned), "its life is worth replaying");
}

#[test]
fn a_recording_that_breaks_off_gives_what_is_whole_and_then_says_where() {
    let (bytes, steps) = a_life(0);
    let mut lengths = std::collections::BTreeSet::new();
    for length in 0..bytes.len() {
        match Recording::read(&bytes[..length]) {
            Err(RecordingError::Foreign) => assert!(length < MAGIC.len()),
            Err(error) => assert!(matches!(error, RecordingError::CutOff { .. }), "{error}"),
            Ok(mut recording) => {
                let mut whole = Vec::new();
                let end = loop {
                    match recording.step() {
                        Ok(Some(step)) => whole.push(step),
                        Ok(None) => break None,
                        Err(error) => break Some(error),
                    }
                };
                assert!(matches!(end, None | Some(RecordingError::CutOff { .. })), "{end:?}");
                for (step, full) in whole.iter().zip(&steps) {
                    assert!(step == full || *step == Step { outputs: None, ..full.clone() });
                }
                lengths.insert(whole.len());
            }
        }
    }
    assert_eq!(lengths, (0..=steps.len()).collect());
}

#[test]
fn another_releases_recording_is_said_to_be_one() {
    let (bytes, _) = a_life(0);
    let release = env!("CARGO_PKG_VERSION").as_bytes();
    let place = bytes.windows(release.len()).position(|window| window == release).unwrap();
    let mut other = bytes;
    other[place] = b'9';
    let said = Recording::read(&other).unwrap_err().to_string();
    assert!(said.starts_with("r1 recorded this with release 9"), "{said}");
}

#[test]
fn time_that_runs_backwards_is_an_error() {
    let mut bytes = begin(&lone_router(), START, 0);
    let at = bytes.len();
    append_event(&mut bytes, Moment(START.0 - 1), &Event::Timeout);
    assert_eq!(read(&bytes), Err(RecordingError::Damaged { at, what: "an event of another time".into() }));
}

proptest! {
    #[test]
    fn damaged_bytes_are_an_error_or_something_else_and_never_a_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        static WHOLE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| a_life(0).0);
        let mut bytes = WHOLE.clone();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let _ = read(&bytes);
    }
}
