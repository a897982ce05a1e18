use std::collections::BTreeMap;

use proptest::prelude::*;
use vipa_model::{ConnectionState::*, Protocol};

use super::*;

fn connection(client: u16) -> Connection {
    Connection { protocol: Protocol::Tcp, client: ([203, 0, 113, 4], client).into(), port: 80 }
}

fn log(limit: usize) -> ConnectionLog {
    ConnectionLog::new(Incarnation(1), limit)
}

fn at(sequence: u64) -> Position {
    Position { incarnation: Incarnation(1), sequence }
}

fn tail(log: &ConnectionLog, sequence: u64) -> Option<Vec<(u16, Change)>> {
    let tail = log.tail_after(at(sequence))?;
    Some(tail.map(|record| (record.connection.client.port(), record.change)).collect())
}

#[test]
fn only_what_changed_since_the_last_look_is_a_record() {
    let mut log = log(10);
    assert!(log.observe(vec![(connection(1), Established), (connection(2), HalfOpen)]));
    assert!(!log.observe(vec![(connection(2), HalfOpen), (connection(1), Established)]));
    assert!(log.observe(vec![(connection(2), Established), (connection(3), Established)]));
    let opened = Change::Opened;
    assert_eq!(tail(&log, 2).unwrap(), [(1, Change::Closed), (2, opened(Established)), (3, opened(Established))]);
    assert_eq!(log.position(), at(5));
}

#[test]
fn closing_what_is_not_open_is_no_record() {
    let mut log = log(10);
    assert!(!log.apply(Record { connection: connection(1), change: Change::Closed }));
    assert_eq!(log.position(), at(0));
}

#[test]
fn a_position_too_old_or_of_another_life_or_of_the_future_has_no_tail() {
    let mut log = log(2);
    log.observe(vec![(connection(1), Established), (connection(2), Established), (connection(3), Established)]);
    assert_eq!(tail(&log, 0), None);
    assert_eq!(tail(&log, 1).unwrap().len(), 2);
    assert_eq!(tail(&log, 3).unwrap(), []);
    assert_eq!(tail(&log, 4), None);
    assert!(log.tail_after(Position { incarnation: Incarnation(0), sequence: 3 }).is_none());
}

#[test]
fn who_knows_nothing_gets_a_snapshot_in_parts_even_of_nothing() {
    let mut log = log(10);
    assert_eq!(log.runs_after(None), [(Run::Snapshot { part: Part::Only, connections: vec![] }, at(0))]);
    log.observe(
        (0..u16::try_from(2 * RUN_LENGTH + 1).unwrap()).map(|client| (connection(client), Established)).collect(),
    );
    let parts: Vec<_> = log
        .runs_after(None)
        .into_iter()
        .map(|(run, _)| match run {
            Run::Snapshot { part, connections } => (part, connections.len()),
            Run::Tail { .. } => panic!("a tail"),
        })
        .collect();
    assert_eq!(parts, [(Part::First, RUN_LENGTH), (Part::Middle, RUN_LENGTH), (Part::Last, 1)]);
}

#[test]
fn a_long_tail_comes_in_runs_that_follow_each_other() {
    let mut log = log(3 * RUN_LENGTH);
    log.observe((0..u16::try_from(RUN_LENGTH + 5).unwrap()).map(|client| (connection(client), Established)).collect());
    let runs: Vec<_> = log
        .runs_after(Some(at(2)))
        .into_iter()
        .map(|(run, upto)| match run {
            Run::Tail { after, records } => (after, records.len(), upto.sequence),
            Run::Snapshot { .. } => panic!("a snapshot"),
        })
        .collect();
    let length = RUN_LENGTH as u64;
    assert_eq!(runs, [(2, RUN_LENGTH, length + 2), (length + 2, 3, length + 5)]);
}

proptest! {
    /// A reader that falls behind by any amount and catches up holds what the target holds.
    #[test]
    fn a_reader_that_catches_up_holds_the_same(
        looks in proptest::collection::vec((proptest::collection::btree_map(0..20_u16, 0..3_u8, 0..12), any::<bool>()), 1..30)
    ) {
        let mut log = log(16);
        let mut seen = None;
        let mut copy = BTreeMap::new();
        for (held, reads) in looks {
            let state = |number| [HalfOpen, Established, Closing][usize::from(number)];
            log.observe(held.into_iter().map(|(client, number)| (connection(client), state(number))).collect());
            if !reads {
                continue;
            }
            for (run, upto) in log.runs_after(seen) {
                match run {
                    Run::Tail { records, .. } => for record in records {
                        match record.change {
                            Change::Opened(state) => copy.insert(record.connection, state),
                            Change::Closed => copy.remove(&record.connection),
                        };
                    },
                    Run::Snapshot { connections, .. } => copy = connections.into_iter().collect(),
                }
                seen = Some(upto);
            }
            prop_assert_eq!(&copy, &log.live().iter().collect::<BTreeMap<_, _>>());
        }
    }
}

#[test]
fn what_is_held_is_told_in_digests_and_by_name_where_asked() {
    let connection = |port: u16| Connection {
        protocol: vipa_model::Protocol::Tcp,
        client: std::net::SocketAddr::from(([203, 0, 113, 4], port)),
        port: 80,
    };
    let mut log = ConnectionLog::new(Incarnation(7), 1_024);
    let opened = |port, state| Record { connection: connection(port), change: Change::Opened(state) };
    for port in 1..=500 {
        log.apply(opened(port, ConnectionState::HalfOpen));
        log.apply(opened(port, ConnectionState::Established));
    }
    log.apply(opened(501, ConnectionState::HalfOpen));
    log.apply(opened(2, ConnectionState::Closing));
    log.apply(Record { connection: connection(3), change: Change::Closed });
    let mut expected = vipa_protocol::Digests::default();
    // The second is closing and counts as held; the third has ended, and the last is not established yet.
    (1..=500).filter(|port| *port != 3).for_each(|port| expected.add(&connection(port)));
    let part = vipa_protocol::question::bucket(&connection(4));
    let holds = log.holds(&[part]);
    assert_eq!((holds.digests, holds.upto), (expected, log.position()));
    assert!(holds.connections.contains(&connection(4)));
    let of_part = |port: &u16| *port != 3 && vipa_protocol::question::bucket(&connection(*port)) == part;
    assert_eq!(holds.connections.len(), (1..=500).filter(of_part).count());
    assert!(log.holds(&[]).connections.is_empty());
}
