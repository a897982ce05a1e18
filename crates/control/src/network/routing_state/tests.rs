use std::net::Ipv4Addr;

use super::*;

const T1: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));
const T2: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 22));

fn service(ports: PortRange) -> Service {
    Service {
        protocol: Protocol::Tcp,
        ports,
        delivery: vipa_model::Delivery::default(),
        balance: Balance::Maglev,
        choice: vipa_model::Choice::default(),
        orphans: vipa_model::Orphans::Reset,
        sources: vipa_model::Sources::default(),
        candidates: vec![T1, T2],
    }
}

fn cut(ports: PortRange, listening: &[(IpAddr, u16)]) -> Vec<(u16, u16, usize)> {
    let segments = segments_of(&service(ports), listening, &mut Paths::default());
    segments.into_iter().map(|Segment { ports, eligible, .. }| (ports.first, ports.last, eligible.len())).collect()
}

fn segments_of(service: &Service, listening: &[(IpAddr, u16)], ways: &mut Paths) -> Vec<Segment> {
    let mut listeners: BTreeMap<IpAddr, BTreeSet<_>> = BTreeMap::new();
    for &(address, port) in listening {
        listeners.entry(address).or_default().insert((Protocol::Tcp, port));
    }
    let mut found = Vec::new();
    let judge = EligibilityRules {
        vipa: T1,
        listeners: &listeners,
        resting: &[],
        loads: &BTreeMap::new(),
        found: &HashMap::new(),
        reach: &Reachability::default(),
        accounts: &Accounts::default(),
    };
    segments(service, &judge, ways, |segment| found.push(segment));
    found
}

/// A client whose SYN it has answered sends the SYN again when the answer is lost.
#[test]
fn a_target_that_is_taken_from_the_list_keeps_what_is_half_open_while_it_listens() {
    let mut ways = Paths::default();
    for (candidates, listening, expected) in [
        (vec![T1, T2], vec![(T1, 80), (T2, 80)], vec![]),
        (vec![T1], vec![(T1, 80), (T2, 80)], vec![T2]),
        (vec![T1], vec![(T1, 80), (T2, 81)], vec![]),
        (vec![T1], vec![(T1, 80)], vec![]),
    ] {
        let service = Service { candidates, ..service(PortRange::ALL) };
        let segments = segments_of(&service, &listening, &mut ways);
        let of_80 = segments.iter().find(|segment| segment.ports == PortRange::one(80)).unwrap();
        let draining: Vec<_> = of_80.draining.iter().filter_map(|id| ways.address(*id)).collect();
        assert_eq!(draining, expected, "{listening:?}");
    }
}

#[test]
fn a_service_on_one_port_has_the_candidates_that_listen_there() {
    assert_eq!(cut(PortRange::one(80), &[]), [(80, 80, 0)]);
    assert_eq!(cut(PortRange::one(80), &[(T1, 80)]), [(80, 80, 1)]);
    assert_eq!(cut(PortRange::one(80), &[(T1, 80), (T2, 80), (T2, 81)]), [(80, 80, 2)]);
}

#[test]
fn a_service_on_all_ports_is_cut_where_the_listeners_change() {
    let found = cut(PortRange::ALL, &[(T1, 80), (T2, 80), (T1, 81), (T2, 65535)]);
    assert_eq!(found, [(1, 79, 0), (80, 80, 2), (81, 81, 1), (82, 65534, 0), (65535, 65535, 1)]);
}

/// A router of so many VIPAs, each with so many services, for which both targets listen.
fn routing(vipas: u16, services: u16, balance: Balance) -> RoutingState {
    let vipa = |n: u16| config::Vipa {
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, n as u8 + 1)),
        ranks: Vec::new(),
        activate: true,
        takeback: config::Takeback::Immediate,
        takeback_delay: std::time::Duration::ZERO,
        group: None,
        new_per_second: None,
        unserved: Unserved::Drop,
        services: None,
    };
    let vipas: Vec<_> = (0..vipas).map(vipa).collect();
    let port = PortRoute::new(vipa_model::Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(198, 51, 100, 1), 24);
    let mut routing = RoutingState::new(ClusterKey::new([7; 16]), vec![port], &vipas);
    for vipa in 0..vipas.len() {
        let service = |n| Service { balance, ..service(PortRange::one(1_000 + n)) };
        routing.serve_with(vipa, (0..services).map(service).collect());
        for target in [T1, T2] {
            let ports = (0..services).map(|n| (Protocol::Tcp, 1_000 + n));
            routing.listens(vipa, target, ports.collect());
        }
    }
    routing
}

#[test]
fn thousands_of_services_share_the_tables_of_the_same_candidates() {
    let mut routing = routing(40, 100, Balance::Maglev);
    let routes = routing.routes();
    assert_eq!(routes.vipas.iter().map(|vipa| vipa.services.len()).sum::<usize>(), 4_000);
    assert!(routes.vipas.iter().flat_map(|vipa| &*vipa.services).all(|service| service.picker.serves(TargetId(1))));
    assert_eq!((routing.pickers.known.len(), routes.targets.len()), (1, 2));
}

#[test]
fn word_of_a_narrow_path_lowers_what_a_tunnel_takes_until_it_is_tried_again() {
    let mut routing = routing(1, 1, Balance::Maglev);
    let mut services = routing.vipas[0].services.clone();
    services[0].delivery.exceptions = vec![(T1, Forwarding::Ipip)];
    routing = self::routing(1, 0, Balance::Maglev);
    routing.serve_with(0, services);
    let mtus = |routing: &mut RoutingState| {
        routing.routes().targets.iter().map(|way| (way.mtu, way.path_mtu)).collect::<Vec<_>>()
    };
    assert_eq!(mtus(&mut routing), [(1480, 1500), (1500, 1500)]);
    let now = Moment(1_000_000_000);
    assert_eq!(routing.narrow_path(T1, 1400, now), Some(1400));
    assert_eq!(routing.narrow_path(T2, 1400, now), None, "no tunnel leads there");
    assert_eq!(routing.narrow_path(Ipv4Addr::new(198, 51, 100, 99).into(), 1400, now), None, "nobody is there");
    assert_eq!(mtus(&mut routing), [(1380, 1400), (1500, 1500)]);
    routing.path_mtus.expire(now + std::time::Duration::from_secs(600));
    assert_eq!(mtus(&mut routing), [(1480, 1500), (1500, 1500)]);
}

/// Who gets the next connections of the VIPA's service.
fn next(routes: &Routes, service: usize, count: usize) -> Vec<u16> {
    let service = &routes.vipas[0].services[service];
    (0..count).map(|_| service.picker.pick(0, || service.turns.take()).expect("somebody").0).collect()
}

#[test]
fn each_service_has_turns_of_its_own_and_a_new_snapshot_goes_on_with_them() {
    let mut routing = routing(1, 2, Balance::RoundRobin);
    let routes = routing.routes();
    assert_eq!([0, 1, 0, 1].map(|service| next(&routes, service, 1)[0]), [0, 0, 1, 1]);
    assert_eq!(next(&routes, 0, 1), [0]);
    assert_eq!(next(&routing.routes(), 0, 2), [1, 0]);
    assert_eq!(routing.pickers.known.len(), 1);
}

#[test]
fn turns_that_make_up_for_fewer_connections_are_taken_once() {
    let mut routing = routing(1, 1, Balance::WeightedActive);
    routing.vipas[0].stance = Stance::Active;
    routing.vipas[0].turns.insert(0, Turns { first: vec![T2, T2, T2, T1], taken: Arc::default() });
    assert_eq!(next(&routing.routes(), 0, 2), [1, 1]);
    assert_eq!(next(&routing.routes(), 0, 6), [1, 0, 0, 1, 0, 1]);
    // Nobody has any: after the count both are level again, and only a connection that came renews their turns.
    assert!(routing.recount(&ConnectionCounts::default(), 0));
    assert_eq!(next(&routing.routes(), 0, 1), [0]);
    assert!(!routing.recount(&ConnectionCounts::default(), 0));
    assert_eq!(next(&routing.routes(), 0, 1), [1]);
    assert!(routing.recount(&ConnectionCounts::default(), 1));
    assert_eq!(next(&routing.routes(), 0, 1), [0]);
}

#[test]
fn a_service_that_goes_by_connections_no_more_forgets_who_had_fewer() {
    let mut routing = routing(1, 1, Balance::WeightedActive);
    routing.vipas[0].turns.insert(0, Turns { first: vec![T2, T2, T2], taken: Arc::default() });
    assert_eq!(next(&routing.routes(), 0, 1), [1]);
    let mut services = routing.vipas[0].services.clone();
    services[0].balance = Balance::RoundRobin;
    routing.serve_with(0, services);
    assert_eq!(next(&routing.routes(), 0, 3), [1, 0, 1], "one turn is taken");
}

#[test]
fn who_becomes_fit_after_the_count_has_its_share_at_once() {
    let mut routing = routing(1, 1, Balance::WeightedActive);
    routing.vipas[0].stance = Stance::Active;
    let listeners = routing.vipas[0].listeners[&T2].clone();
    routing.listens(0, T2, BTreeSet::new());
    assert!(routing.recount(&ConnectionCounts::default(), 9));
    assert_eq!(next(&routing.routes(), 0, 3), [0, 0, 0]);
    routing.listens(0, T2, listeners);
    assert_eq!(next(&routing.routes(), 0, 8).iter().filter(|target| **target == 1).count(), 4);
}

/// What is kept of the routes before is what would be made now.
fn assert_kept(routing: &mut RoutingState, what: &str) {
    for index in 0..routing.vipas.len() {
        let kept = format!("{:?}", routing.services_of(index));
        assert_eq!(kept, format!("{:?}", routing.make_services(index)), "{what}");
    }
}

#[test]
fn services_are_made_anew_when_something_they_come_of_has_changed_and_only_then() {
    let mut routing = routing(3, 2, Balance::WeightedActive);
    let now = Moment(1_000_000_000);
    let made = |routing: &mut RoutingState| (0..3).map(|vipa| routing.services_of(vipa)).collect::<Vec<_>>();
    let same = |one: &[Arc<_>], other: &[Arc<_>]| one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other));
    routing.routes();
    let before = made(&mut routing);
    routing.vipas[1].stance = Stance::Active;
    routing.routes();
    assert!(same(&made(&mut routing), &before), "an owner's stance is not among it");

    let ports = BTreeSet::from([(Protocol::Tcp, 1_001)]);
    let resting = Resting { protocol: Protocol::Tcp, ports: PortRange::one(1_001), target: T1 };
    let load = Load { intent: vipa_protocol::Intent::Drain, ..Load::unknown() };
    let agentless = Agentless {
        address: T1,
        question: vipa_model::Question::Tcp(80),
        pace: vipa_model::Pace {
            interval: std::time::Duration::from_secs(1),
            timeout: std::time::Duration::from_secs(1),
            rise: 1,
            fall: 1,
        },
    };
    let mut asking = service(PortRange::one(1_000));
    asking.choice.agentless = vec![agentless.clone()];
    type Change<'a> = (&'a str, Box<dyn Fn(&mut RoutingState) + 'a>);
    let changes: Vec<Change<'_>> = vec![
        ("a listener goes", Box::new(|routing| routing.listens(1, T2, ports.clone()))),
        ("a target is quiesced", Box::new(|routing| routing.rest(1, vec![resting.clone()]))),
        ("a target drains", Box::new(|routing| drop(routing.fares(T2, Some(load.clone()))))),
        ("a target is unlinked", Box::new(|routing| drop(routing.fares(T2, None)))),
        ("turns are dealt", Box::new(|routing| assert!(routing.recount(&ConnectionCounts::default(), 9)))),
        ("a list comes", Box::new(|routing| routing.serve_with(1, vec![asking.clone()]))),
        (
            "an answer comes",
            Box::new(|routing| {
                drop(routing.found((agentless.clone(), ProbeVerdict { passes: true, detail: String::new() })))
            }),
        ),
        ("it counts no more", Box::new(|routing| routing.keep_answers_of(&[]))),
        (
            "a target is lost",
            Box::new(|routing| {
                routing.fares(T1, Some(Load::unknown()));
                routing.compare(now, |_| 100);
                routing.compare(now + std::time::Duration::from_secs(1), |_| 200);
                routing.compare(now + std::time::Duration::from_secs(9), |_| 300);
                assert!(routing.reach.in_vain(T1).is_some());
            }),
        ),
    ];
    for (what, change) in changes {
        let before = made(&mut routing);
        change(&mut routing);
        assert_kept(&mut routing, what);
        assert!(!Arc::ptr_eq(&made(&mut routing)[1], &before[1]), "{what}");
    }
}

#[test]
fn what_changes_for_thousands_of_services_is_one_line() {
    let mut routing = routing(40, 100, Balance::Maglev);
    let drains = Load { intent: vipa_protocol::Intent::Drain, ..Load::unknown() };
    routing.fares(T1, Some(Load::unknown()));
    let changes = routing.fares(T1, Some(drains)).expect("it decides otherwise");
    assert_eq!(changes.len(), 1);
    let said = changes[0].to_string();
    let (named, what) = said.split_once(" and ").unwrap();
    assert_eq!((named.split(", ").count(), named.split(", ").next()), (8, Some("192.0.2.1 tcp/1000")));
    assert!(what.starts_with("3992 more services: 198.51.100.21 gets no new connections, because "), "{what}");
    let changes = routing.fares(T1, Some(Load::unknown())).expect("it decides otherwise");
    assert!(
        changes[0].to_string().ends_with(" and 3992 more services: 198.51.100.21 gets new connections again"),
        "{changes:?}"
    );
}

#[test]
fn a_server_that_stops_and_one_that_starts_again_are_told() {
    let mut routing = routing(2, 1, Balance::Maglev);
    routing.fares(T1, Some(Load::unknown()));
    routing.take_listener_changes();
    routing.listens(1, T1, BTreeSet::new());
    let said = |changes: Vec<EventKind>| changes.iter().map(ToString::to_string).collect::<Vec<_>>();
    let stopped = "192.0.2.2 tcp/1000: 198.51.100.21 gets no new connections, because nothing listens";
    assert_eq!(said(routing.take_listener_changes()), [stopped]);
    assert!(routing.take_listener_changes().is_empty());
    routing.listens(1, T1, BTreeSet::from([(Protocol::Tcp, 1_000)]));
    routing.listens(0, T1, BTreeSet::from([(Protocol::Tcp, 1_000), (Protocol::Tcp, 1_001)]));
    assert_eq!(said(routing.take_listener_changes()), ["192.0.2.2 tcp/1000: 198.51.100.21 gets new connections again"]);
}
