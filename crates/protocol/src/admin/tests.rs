use super::*;
use crate::Trigger;

fn line<T: Serialize>(body: T) -> String {
    serde_json::to_string(&Versioned::new(body)).expect("admin types are JSON")
}

#[test]
fn a_request_is_one_flat_document() {
    let limit = Request::Connections { limit: 20, vipa: Some("192.0.2.10".parse().unwrap()) };
    assert_eq!(line(&Request::Status), r#"{"version":2,"ask":"status"}"#);
    assert_eq!(line(&limit), r#"{"version":2,"ask":"connections","limit":20,"vipa":"192.0.2.10"}"#);
    let read: Versioned<Request> = serde_json::from_str(&line(&limit)).unwrap();
    assert_eq!(read.current(), Ok(limit));
}

#[test]
fn an_answer_comes_back_as_it_was_sent() {
    let report = TakeoverReport {
        vipa: "192.0.2.10".parse().unwrap(),
        epoch: Epoch(4),
        trigger: Trigger::Failure,
        cause: crate::OwnershipCause::Silent { ms: 300 },
        predecessor: Some("r1".parse().unwrap()),
        detect_us: 1,
        collect_us: 2,
        rebuild_us: 3,
        targets_answered: 3,
        targets_expected: 3,
        targets_warm: 2,
        connections_reported: 7,
    };
    let record = TakeoverRecord {
        report,
        finished_unix_ms: 1_700_000_000_000,
        announce_us: 5,
        first_forward_us: None,
        connections_known_before: 2_000,
        connections_rebuilt: 9,
        unowned_ms: None,
        unowned_frames: None,
        held: 4,
        released: 4,
        expired: 0,
    };
    let answers = [
        Answer::Takeovers(Takeovers { records: vec![record] }),
        Answer::Counters(Counters { total: [("received".into(), 3)].into(), workers: vec![BTreeMap::new()] }),
        Answer::Error("no".into()),
    ];
    for answer in answers {
        let read: Versioned<Answer> = serde_json::from_str(&line(&answer)).unwrap();
        assert_eq!(read.current(), Ok(answer));
    }
}

#[test]
fn another_version_is_said_to_be_one() {
    let read: Versioned<Request> = serde_json::from_str(r#"{"version":3,"ask":"status","new":true}"#).unwrap();
    assert_eq!(read.current(), Err(WrongVersion(3)));
}
