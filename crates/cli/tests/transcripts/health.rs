//! What `vipactl health`, `events` and `diff` say, in terminals of 80 and 200 columns.

use vipa_protocol::{
    ClusterEvent, EventKind, Given, Health, HealthCheck, Operator, OwnershipCause, Severity,
    event::{EventRow, Events},
};

use super::*;

fn verdict() -> Health {
    let check = |name: &str, severity, finding: &str| HealthCheck::new(name, severity, finding);
    let nobody =
        "nobody serves 10.77.0.100 tcp/80: 10.77.0.31: its check \"web\" fails: status 503 (and 1 more targets)";
    Health::new(
        name("r1"),
        vec![
            check("owner", Severity::Ok, "every VIPA has one owner (1)"),
            check("links", Severity::Warning, "router r2 has no link"),
            check("targets", Severity::Critical, nobody),
        ],
    )
}

#[test]
fn health_is_a_line_a_check_the_worst_first_and_its_verdict_is_the_exit_status() {
    let wide = "\
r1: CRITICAL: nobody serves 10.77.0.100 tcp/80: 10.77.0.31: its check \"web\" fails: status 503 (and 1 more targets) (and 1 more; `vipactl health`)
verdict   check    finding
CRITICAL  targets  nobody serves 10.77.0.100 tcp/80: 10.77.0.31: its check \"web\" fails: status 503 (and 1 more targets)
WARNING   links    router r2 has no link
ok        owner    every VIPA has one owner (1)
";
    let answer = Answer::Health(verdict());
    let at = |columns| said_with(&ask_within(&["health"], &Request::Health, &answer, columns), 2);
    assert_eq!((at(None), at(Some("200"))), (wide.into(), wide.into()));
    let narrow = at(Some("80"));
    let row = "\
CRITICAL  targets  nobody serves 10.77.0.100 tcp/80: 10.77.0.31: its check \"web\"
                   fails: status 503 (and 1 more targets)
WARNING   links    router r2 has no link
";
    assert!(narrow.contains(row), "{narrow}");
}

#[test]
fn each_verdict_has_its_exit_status_and_json_is_the_verdict_itself() {
    for (severity, status) in [(Severity::Ok, 0), (Severity::Warning, 1), (Severity::Critical, 2)] {
        let health =
            Health::new(name("r1"), vec![HealthCheck::new("table", severity, "the connection table is 1 % full")]);
        let output = ask(&["health", "--json"], &Request::Health, &Answer::Health(health.clone()));
        assert_eq!(serde_json::from_str::<Health>(&said_with(&output, status)).expect("JSON"), health);
    }
}

#[test]
fn status_begins_with_the_verdict() {
    let text = stdout(&ask(&["status"], &Request::Status, &Answer::Status(Box::new(status()))));
    assert!(
        text.starts_with("WARNING: 2 of 3 voters are reached; missing: r2 (and 1 more; `vipactl health`)\n"),
        "{text}"
    );
}

/// What an agent or an old router says; asked with whatever time it is.
fn events_from(arguments: &[&str], events: &Events) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let line = serde_json::to_string(&Versioned::new(Answer::Events(events.clone()))).expect("JSON") + "\n";
    let (socket, router) = router(folder.path(), line);
    let output = vipactl(&[&["--socket", socket.to_str().expect("UTF-8"), "events"], arguments].concat());
    let asked: Versioned<Request> = serde_json::from_str(&router.join().expect("the router")).expect("a request");
    let Request::Events { since_unix_ms, .. } = asked.current().expect("this version") else {
        panic!("another question")
    };
    assert!(since_unix_ms > 1_700_000_000_000, "it is a time of this age");
    output
}

fn events() -> Events {
    let alice = Operator { uid: 1000, name: Some("alice".into()) };
    let order = "vipa move 10.77.0.100 r2".to_owned();
    let given = Some(Given { by: alice.clone(), unix_ms: 1_709_210_096_000 });
    let cause = OwnershipCause::Ordered { order: order.clone(), given };
    let owned = EventKind::Owned { vipa: address("10.77.0.100"), epoch: Epoch(5), from: Some(name("r1")), cause };
    let kinds = [EventKind::Ordered { order, by: alice }, owned, EventKind::Link { peer: name("t1"), up: false }];
    let event = |(number, what)| ClusterEvent { unix_ms: 1_709_210_096_000 + number, node: name("r2"), number, what };
    let rows = (1..).zip(kinds).map(event).map(EventRow::from);
    Events { events: rows.collect(), cut: false, silent: vec![name("r3")] }
}

#[test]
fn events_are_lines_with_time_router_and_sentence() {
    let expected = "\
2024-02-29T12:34:56.001Z  r2  alice (uid 1000) orders: vipa move 10.77.0.100 r2
2024-02-29T12:34:56.002Z  r2  owns 10.77.0.100 from now on, epoch 5, after r1: ordered by alice (uid 1000) at 2024-02-29T12:34:56.000Z: vipa move 10.77.0.100 r2
2024-02-29T12:34:56.003Z  r2  WARNING: lost its link to t1
(r3 did not answer: what only they saw is missing)
";
    assert_eq!(stdout(&events_from(&[], &events())), expected);
    let none = Events { events: vec![], cut: false, silent: vec![] };
    assert_eq!(stdout(&events_from(&["--since", "10m"], &none)), "nothing has happened in that time\n");
}

#[test]
fn events_as_json_have_their_facts_their_time_and_their_sentence() {
    let text = stdout(&events_from(&["--json"], &events()));
    assert_eq!(serde_json::from_str::<Events>(&text).expect("JSON"), events());
    assert!(
        text.contains(r#""time":"2024-02-29T12:34:56.003Z","level":"warning","sentence":"lost its link to t1""#),
        "{text}"
    );
}

#[test]
fn a_span_that_is_none_is_refused_with_what_would_be_one() {
    let text = refused_with(&vipactl(&["events", "--since", "soon"]), 2);
    assert!(text.contains("write 500ms, 30s, 10m, 1h or 7d"), "{text}");
}

#[test]
fn a_router_with_another_key_is_named_by_diff() {
    let vipa = address("10.77.0.100");
    let why = "its cluster.key is another one than this node's: give all nodes the same key";
    let peers = vec![Peer { node: name("r2"), answer: PeerAnswer::Refused(why.into()) }];
    let output = ask(&["diff", "10.77.0.100"], &Request::Diff { vipa }, &Answer::Diff(Diff { vipa, peers }));
    assert_eq!(said_with(&output, 5), format!("VIPA 10.77.0.100: r2 is not listened to: {why}\n"));
}
