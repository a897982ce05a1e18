use std::{net::Ipv4Addr, sync::Arc};

use vipa_flow::HashSeed;
use vipa_model::{Connection, ConnectionState, Protocol, VipaId};
use vipa_protocol::{Change, Part, Record, Run};

use super::*;
use crate::{
    network::paths::Lists,
    table::reports::{Reporter, Reports, Taken},
};

const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const CAPACITY: u64 = 8_000;
/// A quarter of the table, halved.
const GUARANTEE: u64 = 1_000;

struct Bench {
    flows: Arc<Flows>,
    ways: Paths,
    reports: Reports,
    now: Tick,
    percent: u8,
    /// Numbers of the targets that a list names.
    listed: Vec<u8>,
}

impl Bench {
    /// With two targets, of which each holds one connection.
    fn new() -> Self {
        let flows = Arc::new(Flows::new(CAPACITY as usize, 1, HashSeed::new([7; 4])).unwrap());
        let reports = Reports::new(Arc::clone(&flows));
        let mut bench = Self { flows, ways: Paths::default(), reports, now: Tick(0), percent: 25, listed: vec![1, 2] };
        bench.snapshot(1, 0..1, ConnectionState::Established);
        bench.snapshot(2, 1..2, ConnectionState::Established);
        bench.now = Tick(1);
        bench
    }

    fn report(&mut self, number: u8, run: &Run) -> (Taken, bool) {
        let Self { flows: _, ways, reports, now, percent, listed } = self;
        let from = target(number);
        let reporter = Reporter {
            vipa: VipaId(0),
            vipa_address: VIPA,
            lists: Lists { services: &[], learned: &[] },
            target: from,
            ways,
            now: *now,
            is_listed: &|address, _| listed.iter().any(|number| target(*number) == address),
            reserve_percent: *percent,
        };
        let taken = reports.install(reporter, run);
        (taken, reports.shares.take_news() == Some(from))
    }

    fn snapshot(&mut self, target: u8, clients: std::ops::Range<u32>, state: ConnectionState) -> Taken {
        let connections = clients.map(|client| (connection(client), state)).collect();
        self.report(target, &Run::Snapshot { part: Part::Middle, connections }).0
    }

    fn held(&self, number: u8) -> u64 {
        self.ways.to(target(number)).iter().map(|way| self.flows.held(false, *way)).sum()
    }

    fn way(&self, number: u8) -> TargetId {
        *self.ways.to(target(number)).iter().next().unwrap()
    }
}

fn target(number: u8) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, number).into()
}

fn connection(client: u32) -> Connection {
    let client = (Ipv4Addr::from_bits(0x0a00_0000 + client), 4000).into();
    Connection { protocol: Protocol::Tcp, client, port: 80 }
}

fn key(client: u32) -> AnyKey {
    AnyKey::of(VipaId(0), VIPA, &connection(client)).unwrap()
}

#[test]
fn a_target_that_reports_what_does_not_exist_leaves_the_others_their_guarantee() {
    let mut bench = Bench::new();
    let taken = bench.snapshot(1, 100_000..140_000, ConnectionState::Established);
    assert_eq!(bench.held(1), CAPACITY - GUARANTEE);
    assert_eq!(taken.over_share, 40_000 - (CAPACITY - GUARANTEE - 1));
    assert_eq!(taken.refused, 0);
    // However long it goes on.
    for round in 0..20 {
        bench.now = Tick(2 + round);
        bench.snapshot(1, 200_000 + 10_000 * round..210_000 + 10_000 * round, ConnectionState::Established);
    }
    assert_eq!(bench.held(1), CAPACITY - GUARANTEE);
    let taken = bench.snapshot(2, 1..1_000, ConnectionState::Established);
    assert_eq!((taken.opened, taken.over_share, bench.held(2)), (998, 0, 999), "the other one has its part");
}

#[test]
fn one_target_may_hold_nearly_everything_and_one_alone_all_of_it() {
    let mut bench = Bench::new();
    let most = (CAPACITY - GUARANTEE) as u32;
    assert_eq!(bench.snapshot(1, 10..9 + most, ConnectionState::Established).over_share, 0);
    let mut alone = Bench::new();
    alone.ways = Paths::default();
    assert_eq!(alone.snapshot(1, 10..CAPACITY as u32, ConnectionState::Established).over_share, 0);
    let mut boundless = Bench::new();
    boundless.percent = 0;
    assert_eq!(boundless.snapshot(1, 10..CAPACITY as u32, ConnectionState::Established).over_share, 0);
}

#[test]
fn a_connection_whose_packets_pass_here_is_taken_in_whatever_the_share() {
    let mut bench = Bench::new();
    bench.snapshot(1, 100_000..140_000, ConnectionState::Established);
    let (way, now) = (bench.way(1), bench.now);
    bench.flows.admit(&key(5), way, FlowState::Open, now);
    let taken = bench.snapshot(1, 5..6, ConnectionState::Established);
    assert_eq!((taken.over_share, bench.held(1)), (0, CAPACITY - GUARANTEE + 1));
}

#[test]
fn half_open_reports_are_no_way_around_the_share() {
    let mut bench = Bench::new();
    for state in [ConnectionState::HalfOpen, ConnectionState::Established] {
        for round in 0..20 {
            bench.now = Tick(bench.now.0 + 1);
            bench.snapshot(1, 100_000 + 1_000 * round..101_000 + 1_000 * round, state);
        }
    }
    assert!(bench.held(1) <= CAPACITY - GUARANTEE, "{}", bench.held(1));
    let taken = bench.snapshot(2, 2..900, ConnectionState::Established);
    assert_eq!((taken.opened + taken.refused, taken.over_share), (898, 0));
    // The table is at three quarters of its slots: a few find both of their buckets full.
    assert!(taken.refused < 20, "{taken:?}");
}

#[test]
fn what_has_ended_may_be_held_again() {
    let mut bench = Bench::new();
    bench.snapshot(1, 100_000..140_000, ConnectionState::Established);
    let records = (100_000..100_100).map(|client| Record { connection: connection(client), change: Change::Closed });
    let (taken, _) = bench.report(1, &Run::Tail { after: 0, records: records.collect() });
    assert_eq!(taken.closed, 100);
    bench.now = Tick(2);
    let taken = bench.snapshot(1, 300_000..300_200, ConnectionState::Established);
    assert_eq!((taken.opened, taken.over_share), (100, 100));
}

#[test]
fn a_target_over_its_share_is_named_once_and_for_ten_minutes() {
    let mut bench = Bench::new();
    let connections = |from: u32| (from..from + 9_000).map(|client| (connection(client), ConnectionState::Established));
    let run = |from| Run::Snapshot { part: Part::Middle, connections: connections(from).collect() };
    let (first, is_stale) = bench.report(1, &run(100_000));
    assert!(is_stale);
    let (second, is_stale) = bench.report(1, &run(200_000));
    assert!(!is_stale);
    let over: Vec<_> = bench.reports.shares.over(bench.now).map(|(target, over)| (target, over.refused)).collect();
    assert_eq!(over, [(target(1), first.over_share + second.over_share)]);
    assert_eq!(bench.reports.shares.over(Tick(bench.now.0 + NAMED_FOR)).count(), 0);
}

#[test]
fn a_target_that_no_list_names_takes_nothing_from_one_that_is_away_and_gives_way_to_it() {
    let mut bench = Bench::new();
    bench.reports.set_linked(target(1), &bench.ways, true);
    let taken = bench.snapshot(3, 0..2, ConnectionState::Established);
    assert_eq!(
        (taken.opened, taken.unlisted, taken.disputed),
        (0, 2, 0),
        "neither from the linked one nor from the other"
    );
    let taken = bench.snapshot(3, 10..12, ConnectionState::Established);
    assert_eq!(taken.opened, 2);
    bench.reports.set_linked(target(3), &bench.ways, true);
    let taken = bench.snapshot(1, 10..11, ConnectionState::Established);
    assert_eq!((taken.opened, taken.disputed), (1, 0));
    assert_eq!(bench.flows.lookup(&key(10)).map(|hit| bench.ways.address(hit.target)), Some(Some(target(1))));
    // Two that no list names are equals.
    bench.listed.clear();
    assert_eq!(bench.snapshot(2, 11..12, ConnectionState::Established).disputed, 1);
}
