use std::net::Ipv4Addr;

use vipa_balance::{Candidate, ClusterKey, Picker};
use vipa_flow::HashSeed;
use vipa_handoff::{RouteLists, Routes, ServiceRoute, VipaRoute};
use vipa_model::{Agentless, Balance, Choice, Orphans, Pace, PortRange, Question, Stance, TargetId, Unserved};

use super::*;

const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const BARE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));
const SPEAKING: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 22));

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn connection(client: u16) -> Connection {
    Connection { protocol: Protocol::Tcp, client: ([203, 0, 113, 4], client).into(), port: 80 }
}

/// One router: its table, its ways, its side of the mirror.
struct Router {
    flows: Flows,
    ways: Paths,
    replicas: TableReplicas,
    services: Vec<Service>,
    routes: Routes,
    now: Moment,
}

const KEY: ClusterKey = ClusterKey::new([7; 16]);
const UDP_LIFETIME: Duration = Duration::from_secs(120);

impl Router {
    fn new() -> Self {
        let second = Duration::from_secs(1);
        let pace = Pace { interval: second, timeout: second, rise: 1, fall: 1 };
        let agentless = vec![Agentless { address: BARE, question: Question::Ping, pace }];
        let service = Service {
            protocol: Protocol::Tcp,
            ports: PortRange::one(80),
            delivery: Default::default(),
            balance: Default::default(),
            choice: Choice { agentless, ..Choice::default() },
            orphans: Default::default(),
            sources: Default::default(),
            candidates: vec![BARE, SPEAKING],
        };
        let flows = Flows::new(4096, 1024, HashSeed::new([1, 2, 3, 4])).unwrap();
        let now = Moment(1_000_000_000);
        Self {
            flows,
            ways: Paths::default(),
            replicas: TableReplicas::default(),
            services: vec![service],
            routes: Routes::empty(KEY),
            now,
        }
    }

    fn key(client: u16) -> AnyKey {
        AnyKey::of(VipaId(0), VIPA, &connection(client)).unwrap()
    }

    fn way(&mut self, target: IpAddr) -> TargetId {
        let lists = Lists { services: &self.services, learned: &[] };
        self.ways.find(VipaId(0), lists, target, (Protocol::Tcp, 80)).unwrap()
    }

    fn admit(&mut self, client: u16, target: IpAddr, state: FlowState) {
        let way = self.way(target);
        self.flows.admit(&Self::key(client), way, state, Tick::from(self.now));
    }

    fn close(&self, client: u16) {
        assert!(self.flows.remove(&Self::key(client), None));
    }

    fn about(services: &[Service]) -> About<'_> {
        About { vipa: VIPA, id: VipaId(0), epoch: Epoch(1), lists: Lists { services, learned: &[] } }
    }

    fn tell(&mut self) -> Vec<(NodeName, TableReplica)> {
        self.now = self.now + Duration::from_millis(100);
        let about = Self::about(&self.services);
        if !self.replicas.is_followed(&about, |_| true) {
            return Vec::new();
        }
        let subjects = vec![Subject::new(VipaId(0), &self.services)];
        let mut walk = Walk::run(subjects, (&self.flows, &self.routes, &self.ways.addresses()), self.now);
        self.replicas.left_out = walk.left_out;
        let entries = walk.entries.remove(&VipaId(0)).expect("the VIPA was asked for");
        self.replicas.tell(&about, (entries, self.now), self.now)
    }

    fn follow(&mut self) -> bool {
        let about = Self::about(&self.services);
        let asked = self.replicas.follow(&about, &name("r1"), (&self.flows, UDP_LIFETIME), self.now);
        assert!(asked.as_ref().is_none_or(|mirror| mirror.copied == Copied::Wanted));
        asked.is_some()
    }

    fn receive(&mut self, told: Vec<(NodeName, TableReplica)>) {
        for (to, mirror) in told {
            assert_eq!((to, mirror.vipa, mirror.epoch), (name("r2"), VIPA, Epoch(1)));
            let Copied::Round(round) = mirror.copied else { panic!("{mirror:?}") };
            let about = Self::about(&self.services);
            self.replicas.receive(&about, &name("r1"), round, (&self.flows, &mut self.ways), self.now);
        }
    }

    /// The clients whose connections are in the table, and with whom.
    fn holds(&self) -> BTreeMap<u16, IpAddr> {
        let mut holds = BTreeMap::new();
        self.flows.export(VipaId(0), &mut |key, way, _| {
            holds.insert(key.connection().client.port(), self.ways.address(way).unwrap());
        });
        holds
    }
}

/// An owner with `clients` connections to the target without an agent, and a backup that follows it.
fn pair(clients: std::ops::Range<u16>) -> (Router, Router) {
    let (mut owner, mut backup) = (Router::new(), Router::new());
    clients.for_each(|client| owner.admit(client, BARE, FlowState::Open));
    assert!(backup.follow());
    owner.replicas.wanted(VIPA, Epoch(1), name("r2"));
    let told = owner.tell();
    backup.receive(told);
    (owner, backup)
}

#[test]
fn a_backup_learns_all_and_then_every_change_of_targets_that_do_not_speak() {
    let (mut owner, mut backup) = pair(1..4);
    assert_eq!(backup.holds(), BTreeMap::from([(1, BARE), (2, BARE), (3, BARE)]));
    owner.close(2);
    owner.admit(5, BARE, FlowState::Closing);
    owner.admit(6, SPEAKING, FlowState::Open);
    owner.admit(7, BARE, FlowState::HalfOpen);
    let told = owner.tell();
    backup.receive(told);
    assert_eq!(backup.holds(), BTreeMap::from([(1, BARE), (3, BARE), (5, BARE)]));
    let state = backup.replicas.state(VIPA, backup.now + Duration::from_millis(30));
    let behind = Some(Duration::from_millis(130));
    assert_eq!(state, Some(State::Following { from: name("r1"), connections: 3, behind }));
    let followers = vec![name("r2")];
    assert_eq!(owner.replicas.state(VIPA, owner.now), Some(State::Telling { followers, connections: 3, left_out: 0 }));
}

#[test]
fn many_connections_come_in_parts_of_limited_size() {
    let (owner, backup) = pair(1..3_001);
    assert_eq!(backup.holds().len(), 3_000);
    let (mut again, _) = pair(0..0);
    (again.flows, again.ways) = (owner.flows, owner.ways);
    again.replicas.wanted(VIPA, Epoch(1), name("r2"));
    let told = again.tell();
    let parts: Vec<Part> = told
        .iter()
        .map(|(_, mirror)| match &mirror.copied {
            Copied::Round(round) => round.part,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(parts, [Part::First, Part::Last]);
}

#[test]
fn a_missing_round_is_noticed_and_the_whole_asked_for_and_what_it_lacks_is_over() {
    let (mut owner, mut backup) = pair(1..4);
    owner.close(1);
    let lost = owner.tell();
    assert_eq!(lost.len(), 1);
    owner.admit(9, BARE, FlowState::Open);
    let told = owner.tell();
    backup.receive(told);
    assert_eq!(backup.holds().len(), 3, "a round after a missing one is not believed");
    backup.now = backup.now + Duration::from_secs(4);
    assert!(backup.follow());
    owner.replicas.wanted(VIPA, Epoch(1), name("r2"));
    let told = owner.tell();
    backup.receive(told);
    assert_eq!(backup.holds(), BTreeMap::from([(2, BARE), (3, BARE), (9, BARE)]));
    assert!(!backup.follow());
}

#[test]
fn a_silent_owner_is_asked_again_and_an_owner_that_nobody_follows_looks_at_nothing() {
    let (_, mut backup) = pair(1..2);
    assert!(!backup.follow());
    backup.now = backup.now + Duration::from_millis(3_500);
    assert!(backup.follow() && !backup.follow());
    let mut owner = Router::new();
    owner.admit(1, BARE, FlowState::Open);
    assert!(owner.tell().is_empty());
}

#[test]
fn a_former_owner_that_follows_forgets_what_its_successor_does_not_name() {
    let (mut owner, mut backup) = (Router::new(), Router::new());
    backup.admit(1, BARE, FlowState::Open);
    backup.admit(2, SPEAKING, FlowState::Open);
    owner.admit(3, BARE, FlowState::Open);
    assert!(backup.follow());
    owner.replicas.wanted(VIPA, Epoch(1), name("r2"));
    let told = owner.tell();
    backup.receive(told);
    assert_eq!(backup.holds(), BTreeMap::from([(2, SPEAKING), (3, BARE)]));
}

/// Routers whose only service is UDP with these candidates; the clients' flows are admitted by hashing.
impl Router {
    const PORT: u16 = 5_353;

    fn udp() -> Self {
        let mut router = Self::new();
        router.services[0].protocol = Protocol::Udp;
        router.services[0].ports = PortRange::one(Self::PORT);
        router.services[0].choice = Choice::default();
        router.serve(&[BARE, SPEAKING]);
        router
    }

    /// New flows go to these targets.
    fn serve(&mut self, targets: &[IpAddr]) {
        let candidate = |address: &IpAddr| {
            let lists = Lists { services: &self.services, learned: &[] };
            let target = self.ways.find(VipaId(0), lists, *address, (Protocol::Udp, Self::PORT)).unwrap();
            Candidate { address: *address, weight: 1, target }
        };
        let candidates: Vec<_> = targets.iter().map(candidate).collect();
        let service = ServiceRoute {
            protocol: Protocol::Udp,
            ports: PortRange::one(Self::PORT),
            picker: Picker::build(&KEY, Balance::Maglev, &candidates),
            draining: Default::default(),
            turns: Default::default(),
            orphans: Orphans::Drop,
            sources: None,
        };
        let vipa = VipaRoute {
            address: VIPA,
            stance: Stance::Active,
            lease: Default::default(),
            services: [service].into(),
            quiet_until: Moment::ZERO,
            by_hash_until: Moment::ZERO,
            new_per_second: None,
            unserved: Unserved::Drop,
        };
        self.routes = Routes::build(1, KEY, RouteLists { vipas: vec![vipa], ..RouteLists::default() });
    }

    fn flow(client: u16) -> AnyKey {
        let client = ([203, 0, 113, 4], client).into();
        let connection = Connection { protocol: Protocol::Udp, client, port: Self::PORT };
        AnyKey::of(VipaId(0), VIPA, &connection).unwrap()
    }

    /// The target that a router without an entry chooses.
    fn hashed(&self, client: u16) -> TargetId {
        let service = &self.routes.vipas[0].services[0];
        service.picker.pick_by_hash(Self::flow(client).balance_hash(&KEY, VIPA).unwrap()).unwrap()
    }

    fn open(&self, client: u16) -> IpAddr {
        let target = self.hashed(client);
        self.flows.admit(&Self::flow(client), target, FlowState::Udp, Tick::from(self.now));
        self.ways.address(target).unwrap()
    }
}

#[test]
fn a_backup_learns_the_udp_flows_that_hashing_does_not_find_and_no_others() {
    const THIRD: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 23));
    let (mut owner, mut backup) = (Router::udp(), Router::udp());
    assert!(backup.follow());
    owner.replicas.wanted(VIPA, Epoch(1), name("r2"));
    let opened: BTreeMap<u16, IpAddr> = (1..=90).map(|client| (client, owner.open(client))).collect();
    let told = owner.tell();
    backup.receive(told);
    assert_eq!(backup.holds(), BTreeMap::new(), "hashing finds them all");

    // A candidate more: a third of the flows are elsewhere than hashing says now.
    owner.serve(&[BARE, SPEAKING, THIRD]);
    backup.serve(&[BARE, SPEAKING, THIRD]);
    let pinned = |client: &u16| owner.ways.address(owner.hashed(*client)) != Some(opened[client]);
    let pinned: BTreeMap<u16, IpAddr> =
        opened.keys().filter(|client| pinned(client)).map(|client| (*client, opened[client])).collect();
    assert!((15..45).contains(&pinned.len()), "{}", pinned.len());
    // What is left at the backup of an ownership of its own is older than the owner's word.
    let (&first, &at) = pinned.first_key_value().unwrap();
    let elsewhere = [BARE, SPEAKING].into_iter().find(|target| *target != at).unwrap();
    let lists = Lists { services: &backup.services, learned: &[] };
    let stale = backup.ways.find(VipaId(0), lists, elsewhere, (Protocol::Udp, Router::PORT)).unwrap();
    backup.flows.admit(&Router::flow(first), stale, FlowState::Udp, Tick::from(backup.now));
    let told = owner.tell();
    backup.receive(told);
    assert_eq!(backup.holds(), pinned);

    // They end, or hashing finds them again.
    assert!(owner.flows.remove(&Router::flow(first), None));
    let told = owner.tell();
    backup.receive(told);
    assert_eq!(backup.holds().len(), pinned.len() - 1);
    owner.serve(&[BARE, SPEAKING]);
    let told = owner.tell();
    backup.receive(told);
    assert_eq!(backup.holds(), BTreeMap::new());
}

#[test]
fn udp_flows_of_a_copy_do_not_age_while_their_packets_pass_elsewhere() {
    let (mut owner, mut backup) = (Router::udp(), Router::udp());
    assert!(backup.follow());
    owner.replicas.wanted(VIPA, Epoch(1), name("r2"));
    let target = owner.open(1);
    owner.serve(&[if target == BARE { SPEAKING } else { BARE }]);
    let told = owner.tell();
    backup.receive(told);
    for _ in 0..10 {
        let before = backup.now;
        backup.now = backup.now + UDP_LIFETIME / 3;
        backup.follow();
        let hit = backup.flows.lookup(&Router::flow(1)).expect("the backup has it");
        assert!(u32::from(hit.silence(Tick::from(backup.now))) <= 1, "{before:?}");
    }
}

#[test]
fn numbers_that_an_owner_makes_up_are_bounded() {
    let (_, mut backup) = pair(0..1);
    let round = |(number, whole), span_ms, clients: std::ops::Range<u16>| {
        let entry = |client| Entry { connection: connection(client), target: BARE, state: EntryState::Open };
        let (opened, closed) = (clients.map(entry).collect(), Vec::new());
        let round = Round { number, part: Part::Only, whole, span_ms, opened, closed };
        vec![(name("r2"), TableReplica { vipa: VIPA, epoch: Epoch(1), copied: Copied::Round(round) })]
    };
    backup.receive(round((u64::MAX, true), u32::MAX, 0..60_000));
    let known = backup.replicas.copies[&VIPA].known.len();
    assert!(known <= backup.flows.capacity(), "{known}");
    backup.receive(round((0, false), 0, 0..1));
    assert_eq!(backup.replicas.copies[&VIPA].round, None, "no number follows the last one");
    backup.receive(round((u64::MAX, true), u32::MAX, 0..1));
    assert!(!backup.follow(), "it was told a moment ago");
    backup.now = backup.now + Duration::from_secs(121);
    assert!(backup.follow(), "it asks again, whatever span it was told");
}
