//! What is said of one connection's packet, and of connections counted.

use vipa_protocol::admin::{
    ConnectionFilter, ConnectionRow, CountBy, CountedConnections, ExplainedCandidate, ExplainedChoice, ExplainedEntry,
    ExplainedFate, ExplainedPacket, ExplainedPath, ExplainedService, Explanation,
};

use super::*;

fn connection() -> Connection {
    Connection { protocol: Protocol::Tcp, client: address("203.0.113.4:40000"), port: 80 }
}

fn request() -> Request {
    Request::Explain { vipa: address("10.77.0.100"), connection: connection() }
}

fn forwarded() -> Explanation {
    let candidate = |last: u8, fitness| ExplainedCandidate {
        target: address(&format!("10.77.0.{last}")),
        node: Some(name(&format!("t{}", last - 30))),
        fitness,
        weight: 10,
    };
    Explanation {
        vipa: address("10.77.0.100"),
        connection: connection(),
        stance: Stance::Active,
        epoch: Epoch(4),
        owner: Some(name("r1")),
        packet: ExplainedPacket::Syn,
        entry: None,
        service: Some(ExplainedService {
            name: "tcp/80".into(),
            method: "maglev".into(),
            candidates: vec![candidate(31, Eligibility::Fit), candidate(32, Eligibility::NotListening)],
            chosen: Some(address("10.77.0.31")),
            chosen_by: Some(ExplainedChoice::Hash),
        }),
        path: Some(ExplainedPath {
            target: address("10.77.0.31"),
            node: Some(name("t1")),
            kind: "tunnel".into(),
            encapsulation: Some("gue".into()),
            outer: Some((address("10.77.0.1"), address("10.77.0.31"))),
            target_port: None,
            port: Some("p0".into()),
            vlan: None,
            neighbour: Some(address("10.77.0.31")),
            mac: Some("02:56:49:50:41:31".into()),
            mtu: 1_468,
            path_mtu: 1_500,
        }),
        fate: ExplainedFate {
            name: "forwarded".into(),
            meaning: "given to the port towards its connection's target or, coming back from it, towards the client"
                .into(),
            remedy: String::new(),
            decided_in: None,
        },
        notes: vec![],
    }
}

fn dropped() -> Explanation {
    let mut dropped = forwarded();
    let service = dropped.service.as_mut().expect("it has one");
    service.candidates.remove(0);
    (service.chosen, service.chosen_by, dropped.path) = (None, None, None);
    dropped.fate = ExplainedFate {
        name: "dropped.no-target".into(),
        meaning: "new connections of a service of which no candidate listens".into(),
        remedy: "start the application; see vipactl distribution".into(),
        decided_in: Some("dataplane/src/decide.rs, pick".into()),
    };
    dropped
}

/// `vipactl` at a terminal of so many columns.
fn explained(columns: &str, explanation: Explanation, status: i32) -> String {
    let answer = Answer::Explanation(Box::new(explanation));
    let arguments = ["explain", "203.0.113.4:40000", "10.77.0.100:80/tcp"];
    said_with(&ask_within(&arguments, &request(), &answer, Some(columns)), status)
}

#[test]
fn a_packet_that_is_forwarded_is_explained_by_choice_and_path() {
    let expected = "\
203.0.113.4:40000 to 10.77.0.100:80/tcp
VIPA        active here; epoch 4, owner r1
entry       none in the connection table
packet      a SYN, which opens the connection
service     tcp/80, balance maglev: 10.77.0.31, by the hash of addresses and ports
path        tunnel to 10.77.0.31 (t1); gue from 10.77.0.1 to 10.77.0.31; by port p0; neighbour 10.77.0.31 at 02:56:49:50:41:31; MTU 1468, 1500 with the tunnel's headers
fate        forwarded: given to the port towards its connection's target or, coming back from it, towards the client

  candidate   node  weight  new connections
  10.77.0.31  t1        10  yes
  10.77.0.32  t2        10  none: nothing listens
";
    assert_eq!(explained("200", forwarded(), 0), expected);
    let narrow = explained("80", forwarded(), 0);
    assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
    assert_eq!(narrow.split_whitespace().collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn a_packet_that_is_dropped_is_explained_by_its_fate_and_the_remedy() {
    let mut explanation = dropped();
    explanation.entry = Some(ExplainedEntry {
        target: address("10.77.0.31"),
        node: Some(name("t1")),
        stage: Stage::Closing,
        written_ms_ago: 61_000,
        linked: false,
    });
    explanation.notes = vec!["r2 owns 10.77.0.100 now; this is what would become of a packet that comes here".into()];
    let expected = "\
203.0.113.4:40000 to 10.77.0.100:80/tcp
VIPA        active here; epoch 4, owner r1
entry       at 10.77.0.31 (t1), closing, written 1 min 1 s ago; NO LINK to its
            agent
packet      a SYN, which opens the connection
service     tcp/80, balance maglev: no new target is chosen
fate        dropped.no-target: new connections of a service of which no
            candidate listens
decided in  crates/dataplane/src/decide.rs, pick
what to do  start the application; see vipactl distribution
note        r2 owns 10.77.0.100 now; this is what would become of a packet that
            comes here

  candidate   node  weight  new connections
  10.77.0.32  t2        10  none: nothing listens
";
    assert_eq!(explained("80", explanation, 5), expected);
}

#[test]
fn an_explanation_is_one_document() {
    let answer = Answer::Explanation(Box::new(dropped()));
    let output = ask(&["explain", "203.0.113.4:40000", "10.77.0.100:80/tcp", "--json"], &request(), &answer);
    assert_eq!(serde_json::from_str::<Explanation>(&said_with(&output, 5)).unwrap(), dropped());
}

#[test]
fn what_is_not_there_has_a_status_of_its_own() {
    let sentence = "10.77.0.100 is not a VIPA of this router; `vipactl status` lists them";
    let output =
        ask(&["explain", "203.0.113.4:40000", "10.77.0.100:80/tcp"], &request(), &Answer::NotFound(sentence.into()));
    assert_eq!(refused_with(&output, 3), format!("vipactl: the router says: {sentence}\n"));
}

#[test]
fn connections_are_counted_and_found_by_what_is_asked() {
    let filter = ConnectionFilter {
        vipa: None,
        client: Some(address("203.0.113.4")),
        target: Some(address("10.77.0.31")),
        state: Some(Stage::HalfOpen),
    };
    let counted = |name: &str, connections| CountedConnections { name: name.into(), connections };
    let counted = vec![counted("10.77.0.31", 1_500), counted("10.77.0.32", 400)];
    let answer = Answer::Connections(Connections { total: 2_000, shown: vec![], counted, others: 100 });
    let request = Request::Connections { limit: 2, filter, count_by: Some(CountBy::Target) };
    let filters = ["--client", "203.0.113.4", "--target", "10.77.0.31", "--state", "half-open"];
    let arguments = [&["connections", "--limit", "2", "--count-by", "target"][..], &filters].concat();
    let expected = "                              connections    share
10.77.0.31                          1,500   75.0 %
10.77.0.32                            400   20.0 %
others; --limit N shows more          100    5.0 %
all                                 2,000  100.0 %
";
    assert_eq!(stdout(&ask(&arguments, &request, &answer)), expected);

    let wrong = vipactl(&["connections", "--state", "new"]);
    let error = refused_with(&wrong, 2);
    assert!(error.contains("\"new\" is no state; there are half-open, open, confirmed, closing, udp"), "{error}");
    let error = refused_with(&vipactl(&["connections", "--count-by", "port"]), 2);
    assert!(error.contains("only by target, state, client, service"), "{error}");
}

#[test]
fn connections_are_shown_with_their_targets() {
    let row = |port, stage| ConnectionRow {
        vipa: address("10.77.0.100"),
        connection: Connection { protocol: Protocol::Tcp, client: address(&format!("10.77.0.50:{port}")), port: 80 },
        target: address("10.77.0.31"),
        node: Some(name("t1")),
        stage,
    };
    let shown = vec![row(40_000, Stage::Confirmed), row(7, Stage::HalfOpen)];
    let filter = ConnectionFilter { vipa: Some(address("10.77.0.100")), ..ConnectionFilter::default() };
    let request = Request::Connections { limit: 2, filter, count_by: None };
    let answer = Answer::Connections(Connections { total: 2_000, shown, ..Connections::default() });
    let output = ask(&["connections", "--limit", "2", "--vipa", "10.77.0.100"], &request, &answer);
    let expected = "\
client            vipa         service  target      node  state
10.77.0.50:40000  10.77.0.100  tcp/80   10.77.0.31  t1    confirmed
10.77.0.50:7      10.77.0.100  tcp/80   10.77.0.31  t1    half-open
2 of 2,000 connections; --limit N shows more
";
    assert_eq!(stdout(&output), expected);

    let none = Answer::Connections(Connections::default());
    let request = Request::Connections { limit: 20, filter: ConnectionFilter::default(), count_by: None };
    assert_eq!(stdout(&ask(&["connections"], &request, &none)), "0 of 0 connections\n");
}
