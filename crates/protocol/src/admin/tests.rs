use super::*;
use crate::Trigger;

fn line<T: Serialize>(body: T) -> String {
    serde_json::to_string(&Versioned::new(body)).expect("admin types are JSON")
}

#[test]
fn a_request_is_one_flat_document() {
    let vipa = "192.0.2.10".parse().unwrap();
    let connection = Connection { protocol: Protocol::Tcp, client: "203.0.113.4:40000".parse().unwrap(), port: 80 };
    let explain = Request::Explain { vipa, connection };
    assert_eq!(line(&Request::Status), r#"{"version":3,"ask":"status"}"#);
    let flat = r#"{"version":3,"ask":"explain","vipa":"192.0.2.10","connection":{"protocol":"tcp","client":"203.0.113.4:40000","port":80}}"#;
    assert_eq!(line(&explain), flat);
    let read: Versioned<Request> = serde_json::from_str(&line(&explain)).unwrap();
    assert_eq!(read.current(), Ok(explain));
    let short = r#"{"version":3,"ask":"connections","limit":20}"#;
    let all = Request::Connections { limit: 20, filter: ConnectionFilter::default(), count_by: None };
    assert_eq!(serde_json::from_str::<Versioned<Request>>(short).unwrap().current(), Ok(all));
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
        Answer::Counters(Counters { at_us: 7, total: [("received".into(), 3)].into(), workers: vec![BTreeMap::new()] }),
        Answer::Error("no".into()),
    ];
    for answer in answers {
        let read: Versioned<Answer> = serde_json::from_str(&line(&answer)).unwrap();
        assert_eq!(read.current(), Ok(answer));
    }
}

#[test]
fn another_version_is_said_to_be_one() {
    let read: Versioned<Request> = serde_json::from_str(r#"{"version":9,"ask":"status","new":true}"#).unwrap();
    assert_eq!(read.current(), Err(WrongVersion(9)));
}
