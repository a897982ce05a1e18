use std::net::{Ipv4Addr, SocketAddr};

use vipa_flow::{FlowState, HashSeed, Tick};
use vipa_model::{Incarnation, Protocol};
use vipa_protocol::{Message, Position};
use vipa_sync::Flag;

use super::*;
use crate::admin::queries::{Query, Waiting};

const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const T1: TargetId = TargetId(1);
const T2: TargetId = TargetId(2);

fn connection(number: u16) -> Connection {
    let client = SocketAddr::from(([203, 0, 113, 4], 1_024 + number));
    Connection { protocol: Protocol::Tcp, client, port: 80 }
}

fn name() -> NodeName {
    "t1".parse().unwrap()
}

struct Bench {
    flows: Arc<Flows>,
    subject: Subject,
    held: BTreeSet<Connection>,
}

impl Bench {
    /// A table and a target that agree on connections 0 to 999.
    fn new() -> Self {
        let flows = Flows::new(4_096, 4_096, HashSeed::random()).unwrap();
        let address = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));
        let subject = Subject { vipa: VIPA, id: VipaId(0), node: name(), target: address, ways: [T1].into() };
        let bench = Self { flows: Arc::new(flows), subject, held: (0..1_000).map(connection).collect() };
        (0..1_000).for_each(|number| bench.put(number, T1, FlowState::Confirmed));
        bench
    }

    fn key(&self, number: u16) -> AnyKey {
        AnyKey::of(self.subject.id, VIPA, &connection(number)).unwrap()
    }

    fn put(&self, number: u16, target: TargetId, state: FlowState) {
        self.flows.remove(&self.key(number), None);
        self.flows.confirm(&self.key(number), target, state, Tick::from(vipa_model::Moment::ZERO));
    }

    /// Audits, with a target that answers from what `held` says of the question\'s number.
    async fn audit(&self, held: impl Fn(usize) -> BTreeSet<Connection>) -> Audited {
        let (asker, mut asked) = QuerySender::new();
        let mut waiting = Waiting::default();
        let mut count = 0;
        let audit = audit(&asker, &self.flows, &self.subject);
        tokio::pin!(audit);
        loop {
            tokio::select! {
                done = &mut audit => return done,
                Some(asking) = asked.recv() => {
                    answer(&mut waiting, asking, &held(count));
                    count += 1;
                }
            }
        }
    }
}

fn answer(waiting: &mut Waiting, asking: Query, held: &BTreeSet<Connection>) {
    let (_, message) = waiting.ask(asking).unwrap();
    let Message::QueryRequest(vipa_protocol::QueryRequest { token, question: Question::Holds { buckets, .. } }) =
        message
    else {
        panic!("{message:?}")
    };
    let mut digests = Digests::default();
    held.iter().for_each(|connection| digests.add(connection));
    let connections = held.iter().filter(|connection| buckets.contains(&bucket(connection))).copied().collect();
    let upto = Position { incarnation: Incarnation(1), sequence: 7 };
    waiting
        .told(&name(), vipa_protocol::QueryReply { token, reply: Reply::Holds(Holds { upto, digests, connections }) });
}

#[tokio::test]
async fn a_table_that_has_what_the_target_holds_agrees() {
    let bench = Bench::new();
    bench.put(2_000, T2, FlowState::Confirmed);
    bench.put(2_001, T1, FlowState::HalfOpen);
    bench.put(2_002, T1, FlowState::Closing);
    bench.put(2_003, T1, FlowState::Ended);
    bench.put(7, T1, FlowState::Reopened);
    let audited = bench.audit(|_| bench.held.clone()).await;
    assert_eq!(audited.result.result, AuditResult::Agrees { connections: 1_000 });
    assert_eq!(audited.differences, 0);
}

#[tokio::test]
async fn every_difference_is_found_and_named() {
    let bench = Bench::new();
    bench.flows.remove(&bench.key(1), None);
    bench.put(2, T2, FlowState::Confirmed);
    bench.put(3, T1, FlowState::Closing);
    bench.put(5_000, T1, FlowState::Confirmed);
    let audited = bench.audit(|_| bench.held.clone()).await;
    let AuditResult::Differs { differences, examples, parts_left, .. } = audited.result.result else {
        panic!("{audited:?}")
    };
    let expected =
        [(Difference::Missing, 1), (Difference::Elsewhere, 1), (Difference::Unconfirmed, 1), (Difference::Stale, 1)];
    assert_eq!((differences, examples.len(), parts_left), (expected.to_vec(), 4, 0));
    assert_eq!(audited.differences, 4);
}

#[tokio::test]
async fn what_was_on_its_way_is_no_difference() {
    let bench = Bench::new();
    let younger: BTreeSet<_> = bench.held.iter().copied().chain([connection(3_000)]).collect();
    // The target has a connection that is in nobody\'s report yet; by the second look it has ended.
    let audited = bench.audit(|question| if question < 2 { younger.clone() } else { bench.held.clone() }).await;
    assert_eq!(audited.result.result, AuditResult::Agrees { connections: 1_001 });
}

#[tokio::test]
async fn a_silent_target_is_said_to_be_one() {
    let bench = Bench::new();
    let (asker, asked) = QuerySender::new();
    drop(asked);
    let audited = audit(&asker, &bench.flows, &bench.subject).await;
    assert_eq!(audited.result.result, AuditResult::NoAnswer);
}

#[tokio::test]
async fn one_audit_looks_at_all_parts_and_puts_right_a_table_that_lost_everything() {
    let bench = Bench::new();
    for number in 0..1_000 {
        bench.flows.remove(&bench.key(number), None);
    }
    let audited = bench.audit(|_| bench.held.clone()).await;
    let AuditResult::Differs { differences, parts_left, .. } = audited.result.result else { panic!("{audited:?}") };
    assert_eq!((differences, parts_left), (vec![(Difference::Missing, 1_000)], 0));
    assert_eq!(audited.differences, 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_under_traffic_agrees_although_entries_move() {
    let bench = Bench::new();
    let (flows, vipa) = (Arc::clone(&bench.flows), bench.subject.id);
    let stop = Arc::new(Flag::default());
    let stopped = Arc::clone(&stop);
    // Connections of another VIPA come and go, and fill the table so far that entries move out of their way.
    let traffic = std::thread::spawn(move || {
        let other = VipaId(vipa.0 + 1);
        for round in (0..u32::MAX).take_while(|_| !stopped.is_raised()) {
            for number in 0..3_600_u16 {
                let key = AnyKey::of(other, VIPA, &connection(number)).unwrap();
                if round % 2 == 0 {
                    let _ = flows.confirm(&key, T2, FlowState::Confirmed, Tick(0));
                } else {
                    flows.remove(&key, None);
                }
            }
        }
    });
    for _ in 0..20 {
        // The digests agree, so nothing else is asked.
        let audited = bench
            .audit(|question| {
                assert_eq!(question, 0, "the digests differ");
                bench.held.clone()
            })
            .await;
        assert_eq!(audited.result.result, AuditResult::Agrees { connections: 1_000 });
    }
    stop.raise();
    traffic.join().unwrap();
}
