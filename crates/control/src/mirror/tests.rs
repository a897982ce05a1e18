use std::net::Ipv4Addr;

use vipa_flow::HashSeed;
use vipa_model::{Agentless, Choice, Pace, PortRange, Question, TargetId};

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
    ways: Ways,
    mirrors: Mirrors,
    services: Vec<Service>,
    now: Moment,
}

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
        Self { flows, ways: Ways::default(), mirrors: Mirrors::default(), services: vec![service], now }
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

    fn tell(&mut self) -> Vec<(NodeName, Mirror)> {
        self.now = self.now + Duration::from_millis(100);
        let now = self.now;
        let about = About {
            vipa: VIPA,
            id: VipaId(0),
            epoch: Epoch(1),
            lists: Lists { services: &self.services, learned: &[] },
        };
        self.mirrors.tell(&about, (&self.flows, &self.ways), |_| true, || now)
    }

    fn follow(&mut self) -> bool {
        let about = About {
            vipa: VIPA,
            id: VipaId(0),
            epoch: Epoch(1),
            lists: Lists { services: &self.services, learned: &[] },
        };
        let asked = self.mirrors.follow(&about, &name("r1"), &self.flows, self.now);
        assert!(asked.as_ref().is_none_or(|mirror| mirror.copied == Copied::Wanted));
        asked.is_some()
    }

    fn hear(&mut self, told: Vec<(NodeName, Mirror)>) {
        for (to, mirror) in told {
            assert_eq!((to, mirror.vipa, mirror.epoch), (name("r2"), VIPA, Epoch(1)));
            let Copied::Round(round) = mirror.copied else { panic!("{mirror:?}") };
            let about = About {
                vipa: VIPA,
                id: VipaId(0),
                epoch: Epoch(1),
                lists: Lists { services: &self.services, learned: &[] },
            };
            self.mirrors.hear(&about, &name("r1"), round, (&self.flows, &mut self.ways), self.now);
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
    owner.mirrors.wanted(VIPA, Epoch(1), name("r2"));
    let told = owner.tell();
    backup.hear(told);
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
    backup.hear(told);
    assert_eq!(backup.holds(), BTreeMap::from([(1, BARE), (3, BARE), (5, BARE)]));
    let state = backup.mirrors.state(VIPA, backup.now + Duration::from_millis(30));
    let behind = Some(Duration::from_millis(130));
    assert_eq!(state, Some(State::Following { from: name("r1"), connections: 3, behind }));
    let followers = vec![name("r2")];
    assert_eq!(owner.mirrors.state(VIPA, owner.now), Some(State::Telling { followers, connections: 3 }));
}

#[test]
fn many_connections_come_in_parts_of_limited_size() {
    let (owner, backup) = pair(1..3_001);
    assert_eq!(backup.holds().len(), 3_000);
    let (mut again, _) = pair(0..0);
    (again.flows, again.ways) = (owner.flows, owner.ways);
    again.mirrors.wanted(VIPA, Epoch(1), name("r2"));
    let told = again.tell();
    let parts: Vec<Part> = told
        .iter()
        .map(|(_, mirror)| match &mirror.copied {
            Copied::Round(round) => round.part,
            Copied::Wanted => panic!("{mirror:?}"),
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
    backup.hear(told);
    assert_eq!(backup.holds().len(), 3, "a round after a missing one is not believed");
    backup.now = backup.now + Duration::from_secs(2);
    assert!(backup.follow());
    owner.mirrors.wanted(VIPA, Epoch(1), name("r2"));
    let told = owner.tell();
    backup.hear(told);
    assert_eq!(backup.holds(), BTreeMap::from([(2, BARE), (3, BARE), (9, BARE)]));
    assert!(!backup.follow());
}

#[test]
fn a_silent_owner_is_asked_once_a_second_and_an_owner_that_nobody_follows_looks_at_nothing() {
    let (_, mut backup) = pair(1..2);
    assert!(!backup.follow());
    backup.now = backup.now + Duration::from_millis(1_500);
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
    owner.mirrors.wanted(VIPA, Epoch(1), name("r2"));
    let told = owner.tell();
    backup.hear(told);
    assert_eq!(backup.holds(), BTreeMap::from([(2, SPEAKING), (3, BARE)]));
}
