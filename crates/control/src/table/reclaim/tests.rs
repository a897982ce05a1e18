use std::collections::HashMap;

use proptest::prelude::*;
use vipa_balance::ClusterKey;
use vipa_flow::{FlowState, HashSeed, Tick};
use vipa_handoff::PortRoute;
use vipa_model::{
    Balance, Choice, Connection, ConnectionState, Delivery, Forwarding, Mac, Orphans, PortRange, Protocol, Service,
    Sources, Unserved,
};
use vipa_protocol::{Change, Record, Run};

use super::*;
use crate::table::{identifiers::TaskHold, reports::Reporter};

const CLIENTS: u16 = 40;

fn vipa(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, number + 1).into()
}

fn target(number: u8) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, number + 1).into()
}

fn configured(number: u8, targets: &[u8]) -> config::Vipa {
    let service = Service {
        protocol: Protocol::Tcp,
        ports: PortRange::one(80),
        delivery: Delivery { forwarding: Forwarding::ALL[usize::from(number) % 2], ..Delivery::default() },
        balance: Balance::RoundRobin,
        choice: Choice::default(),
        orphans: Orphans::Reset,
        sources: Sources::default(),
        candidates: targets.iter().map(|number| target(*number)).collect(),
    };
    config::Vipa {
        address: vipa(number),
        ranks: Vec::new(),
        activate: true,
        takeback: config::Takeback::Immediate,
        takeback_delay: Duration::ZERO,
        group: None,
        new_per_second: None,
        unserved: Unserved::Drop,
        services: Some(vec![service]),
    }
}

/// What ids stand for.
#[derive(Clone, Debug)]
struct Meaning {
    vipa: (VipaId, IpAddr),
    ways: Vec<(TargetId, TargetAndPath)>,
}

/// A router's control, its table, and a worker that lags behind.
struct Bench {
    routing: RoutingState,
    reports: Reports,
    flows: Arc<Flows>,
    reclaim: Reclaim,
    now: Moment,
    /// By version, from 1.
    snapshots: Vec<Vec<Meaning>>,
    seen: usize,
    walk: Option<BTreeSet<VipaId>>,
    tasks: Vec<(TaskHold, Vec<Meaning>)>,
    /// What each entry stood for when it was made.
    entries: HashMap<AnyKey, (IpAddr, TargetAndPath)>,
    counted: u64,
}

#[derive(Clone, Debug)]
enum Step {
    /// The VIPAs that are configured from now on, and the targets of all of them.
    Reload {
        vipas: u8,
        targets: u8,
    },
    Publish,
    MoveOn,
    /// The worker admits a connection by a snapshot that it may still have.
    Admit {
        behind: usize,
        vipa: usize,
        way: usize,
        client: u16,
    },
    /// Any target reports a connection.
    Report {
        vipa: u8,
        target: u8,
        client: u16,
    },
    End {
        client: u16,
    },
    BeginTask,
    EndTask,
    BeginWalk,
    EndWalk,
    Wait {
        seconds: u64,
    },
}

impl Bench {
    fn new() -> Self {
        let flows = Arc::new(Flows::new(1_000, 1, HashSeed::new([7; 4])).unwrap());
        let port = PortRoute::new(Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(198, 51, 100, 254), 24);
        Self {
            routing: RoutingState::new(ClusterKey::new([7; 16]), vec![port], &[]),
            reports: Reports::new(Arc::clone(&flows)),
            flows,
            reclaim: Reclaim::default(),
            now: Moment(1_000_000_000),
            snapshots: vec![Vec::new()],
            seen: 1,
            walk: None,
            tasks: Vec::new(),
            entries: HashMap::new(),
            counted: 0,
        }
    }

    fn versions(&self) -> Versions {
        Versions { newest: self.snapshots.len() as u64, seen: self.seen as u64 }
    }

    fn meanings(&self) -> Vec<Meaning> {
        let meaning = |(&address, &place): (&IpAddr, &usize)| {
            let services = &self.routing.vipas[place].services;
            let named = services.iter().flat_map(|service| {
                service
                    .candidates
                    .iter()
                    .map(|&address| TargetAndPath { address, path: service.delivery.path_to(address) })
            });
            let ids = named.filter_map(|way| Some((self.routing.ways.id_of(&way)?, way)));
            Meaning { vipa: (vipa_id(place), address), ways: ids.collect() }
        };
        let mut all: Vec<_> = self.routing.places.iter().map(meaning).collect();
        all.sort_by_key(|meaning| meaning.vipa.0);
        all
    }

    fn reload(&mut self, vipas: u8, targets: u8) {
        let targets: Vec<u8> = (0..8).filter(|number| targets & 1 << number != 0).collect();
        let next: Vec<_> = (0..8).filter(|number| vipas & 1 << number != 0).map(|n| configured(n, &targets)).collect();
        assert_eq!(self.routing.has_room(&next), Ok(()));
        self.routing.configure(&next);
        let gone = (0..8).filter(|number| vipas & 1 << number == 0).map(vipa);
        for address in gone {
            if let Some(id) = self.routing.retire(address, self.versions()) {
                self.reports.forget(id);
            }
        }
        for vipa in next {
            let place = self.routing.vipa_index(vipa.address).unwrap();
            self.routing.serve_with(place, vipa.services.unwrap());
        }
    }

    /// The table is the judge of where an entry went; what it stands for is what it stood for to whoever made it.
    fn note(&mut self, key: AnyKey, address: IpAddr, way: impl Fn(TargetId) -> Option<TargetAndPath>) {
        if let Some(hit) = self.flows.lookup(&key)
            && let Some(way) = way(hit.target)
        {
            self.entries.insert(key, (address, way));
        }
    }

    fn key(id: VipaId, address: IpAddr, client: u16) -> (AnyKey, Connection) {
        let client = ([203, 0, 113, 4], 4_000 + client % CLIENTS).into();
        let connection = Connection { protocol: Protocol::Tcp, client, port: 80 };
        (AnyKey::of(id, address, &connection).unwrap(), connection)
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Reload { vipas, targets } => self.reload(vipas, targets),
            Step::Publish => {
                // As in the loop, the routing makes the snapshot.
                let _ = self.routing.routes();
                self.snapshots.push(self.meanings());
            }
            Step::MoveOn => self.seen = self.snapshots.len(),
            Step::Admit { behind, vipa, way, client } => {
                let held = &self.snapshots[self.seen - 1..];
                let snapshot = &held[held.len() - 1 - behind % held.len()];
                if snapshot.is_empty() {
                    return;
                }
                let Meaning { vipa: (id, address), ways } = snapshot[vipa % snapshot.len()].clone();
                if ways.is_empty() {
                    return;
                }
                let (way_id, way) = ways[way % ways.len()];
                let (key, _) = Self::key(id, address, client);
                self.counted += 1;
                if self.flows.lookup(&key).is_none() {
                    let _ = self.flows.admit(&key, way_id, FlowState::Open, Tick(0));
                    self.note(key, address, |hit| (hit == way_id).then_some(way));
                }
            }
            Step::Report { vipa: number, target: of, client } => {
                let Some(place) = self.routing.vipa_index(vipa(number)) else { return };
                let (id, address) = (vipa_id(place), vipa(number));
                let (key, connection) = Self::key(id, address, client);
                let reporter = Reporter {
                    vipa: id,
                    vipa_address: address,
                    lists: self.routing.vipas[place].lists(),
                    target: target(of),
                    ways: &mut self.routing.ways,
                    now: Tick(0),
                    is_listed: &|_, _| true,
                    reserve_percent: 0,
                };
                let record = Record { connection, change: Change::Opened(ConnectionState::Established) };
                self.reports.install(reporter, &Run::Tail { after: 0, records: vec![record] });
                let places = self.routing.ways.by_id().to_vec();
                self.note(key, address, |hit| places[usize::from(hit.0)]);
                self.routing.lists_stale |= !self.routing.ways.take_new().is_empty();
            }
            Step::End { client } => {
                let ended: Vec<_> = self
                    .entries
                    .keys()
                    .filter(|key| key.connection().client.port() % CLIENTS == client % CLIENTS)
                    .copied()
                    .collect();
                for key in ended {
                    self.flows.remove(&key, None);
                    self.entries.remove(&key);
                }
            }
            Step::BeginTask => {
                if self.tasks.len() < 3 {
                    self.tasks.push((self.reclaim.tasks.hold(), self.meanings()));
                }
            }
            Step::EndTask => drop(self.tasks.pop()),
            Step::BeginWalk => {
                if self.walk.is_none() {
                    self.walk = self.reclaim.begin_walk(&mut self.routing, self.now);
                }
            }
            Step::EndWalk => {
                if let Some(gone) = self.walk.take() {
                    let walked = walk(&self.flows, &gone);
                    self.entries.retain(|key, _| self.flows.lookup(key).is_some());
                    self.reclaim.end_walk(&mut self.routing, &walked, self.now);
                }
            }
            Step::Wait { seconds } => self.now = self.now + Duration::from_secs(seconds),
        }
        let versions = self.versions();
        let holders = Holders { routing: &mut self.routing, reports: &self.reports, flows: &self.flows, versions };
        let counted = self.counted;
        self.reclaim.advance(self.now, holders, |_| counted);
        self.check();
    }

    fn stands_for(&self, (id, address): (VipaId, IpAddr)) -> bool {
        let now = self.routing.vipas[usize::from(id.0)].address;
        now == address || now.is_unspecified()
    }

    /// Nothing that somebody has stands for anything else than when it got it.
    fn check(&self) {
        for (key, (address, way)) in &self.entries {
            assert!(self.stands_for((key.vipa(), *address)), "{key:?} was of {address}");
            let Some(hit) = self.flows.lookup(key) else { continue };
            let now = self.routing.ways.by_id()[usize::from(hit.target.0)];
            assert_eq!(now.map(|now| now.address), Some(way.address), "{key:?} at {:?}", hit.target);
        }
        let snapshots = self.snapshots[self.seen - 1..].iter();
        let held = snapshots.chain(self.tasks.iter().map(|(_, meanings)| meanings));
        for Meaning { vipa, ways } in held.flatten() {
            assert!(self.stands_for(*vipa), "{vipa:?}");
            for (id, way) in ways {
                let now = self.routing.ways.by_id()[usize::from(id.0)];
                assert!(now.is_none_or(|now| now == *way), "{id:?} was {way:?} and is {now:?}");
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<u8>(), any::<u8>()).prop_map(|(vipas, targets)| Step::Reload { vipas, targets }),
        4 => Just(Step::Publish),
        3 => Just(Step::MoveOn),
        4 => (0..4_usize, 0..8_usize, 0..8_usize, any::<u16>())
            .prop_map(|(behind, vipa, way, client)| Step::Admit { behind, vipa, way, client }),
        2 => (0..8_u8, 0..10_u8, any::<u16>()).prop_map(|(vipa, target, client)| Step::Report { vipa, target, client }),
        2 => any::<u16>().prop_map(|client| Step::End { client }),
        1 => Just(Step::BeginTask),
        1 => Just(Step::EndTask),
        2 => Just(Step::BeginWalk),
        2 => Just(Step::EndWalk),
        2 => (1..45_u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn an_entry_never_changes_whose_vipa_and_target_it_names(steps in proptest::collection::vec(step(), 1..300)) {
        let mut bench = Bench::new();
        steps.iter().for_each(|step| bench.take(step));
    }
}

/// Everything that has to happen before ids are given back.
fn pass(bench: &mut Bench) {
    for _ in 0..3 {
        bench.take(&Step::Publish);
        bench.take(&Step::MoveOn);
        bench.take(&Step::Wait { seconds: 61 });
        bench.take(&Step::BeginWalk);
        bench.take(&Step::EndWalk);
    }
    bench.take(&Step::Wait { seconds: 31 });
    for _ in 0..3 {
        bench.take(&Step::Publish);
        bench.take(&Step::MoveOn);
    }
}

#[test]
fn vipas_and_paths_that_come_and_go_need_no_more_ids_than_there_are_at_a_time() {
    let mut bench = Bench::new();
    for round in 0..40_u8 {
        bench.take(&Step::Reload { vipas: 1 << (round % 8), targets: 1 << (round % 7) });
        bench.take(&Step::Publish);
        bench.take(&Step::MoveOn);
        bench.take(&Step::Admit { behind: 0, vipa: 0, way: 0, client: round.into() });
        bench.take(&Step::Report { vipa: round % 8, target: 9, client: 77 });
        // The connections of a VIPA that is gone go with it.
        pass(&mut bench);
    }
    assert!(bench.routing.vipas.len() <= 3, "{} VIPAs", bench.routing.vipas.len());
    assert!(bench.routing.ways.by_id().len() <= 9, "{} paths", bench.routing.ways.by_id().len());
    let counts = bench.routing.vipa_identifiers.counts();
    assert!(counts.reused >= 36 && counts.exhausted == 0, "{counts:?}");
}

#[test]
fn a_path_keeps_its_id_as_long_as_a_connection_has_it_and_a_new_one_starts_clean() {
    let mut bench = Bench::new();
    bench.take(&Step::Reload { vipas: 1, targets: 1 });
    bench.take(&Step::Publish);
    bench.take(&Step::MoveOn);
    bench.take(&Step::Admit { behind: 0, vipa: 0, way: 0, client: 1 });
    let id = *bench.routing.ways.to(target(0)).iter().next().unwrap();
    bench.flows.set_linked(id, true);
    bench.flows.note_diverged(id);
    bench.take(&Step::Reload { vipas: 1, targets: 0 });
    pass(&mut bench);
    pass(&mut bench);
    assert_eq!(bench.routing.ways.address(id), Some(target(0)), "a connection goes on there");
    bench.take(&Step::End { client: bench.entries.keys().next().unwrap().connection().client.port() % CLIENTS });
    assert!(bench.entries.is_empty());
    pass(&mut bench);
    assert_eq!(bench.routing.ways.address(id), None);
    assert!(!bench.flows.is_linked(id) && !bench.flows.has_diverged(id));
    bench.take(&Step::Reload { vipas: 1, targets: 2 });
    assert_eq!(bench.routing.ways.address(id), Some(target(1)), "the id is used again");
    assert_eq!(bench.routing.ways.sent(|_| bench.counted)[&target(1)], 0, "what was sent to another is not counted");
}

#[test]
fn what_was_sent_to_a_target_is_not_forgotten_with_one_of_its_paths() {
    let mut bench = Bench::new();
    bench.take(&Step::Reload { vipas: 0b11, targets: 1 });
    bench.counted = 10;
    assert_eq!(bench.routing.ways.sent(|_| 10)[&target(0)], 20, "by two paths");
    bench.take(&Step::Reload { vipas: 0b01, targets: 1 });
    pass(&mut bench);
    assert_eq!(bench.routing.ways.to(target(0)).len(), 1);
    assert_eq!(bench.routing.ways.sent(|_| 10)[&target(0)], 20);
}

#[test]
fn a_configuration_that_needs_more_ids_than_are_free_is_refused_with_the_reason() {
    let routing = RoutingState::new(ClusterKey::new([7; 16]), Vec::new(), &[]);
    let many = |count: usize| -> Vec<_> {
        let address = |number: usize| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number as u32));
        (0..count).map(|number| config::Vipa { address: address(number), ..configured(0, &[1]) }).collect()
    };
    assert_eq!(routing.has_room(&many(MAX_VIPAS)), Ok(()));
    let why = routing.has_room(&many(MAX_VIPAS + 1)).unwrap_err();
    assert!(why.starts_with("4097 VIPAs are new, and only 4096 more can be told apart now"), "{why}");
}
