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
    let segments = segments_of(&service(ports), listening, &mut Ways::default());
    segments.into_iter().map(|Segment { ports, eligible, .. }| (ports.first, ports.last, eligible.len())).collect()
}

fn segments_of(service: &Service, listening: &[(IpAddr, u16)], ways: &mut Ways) -> Vec<Segment> {
    let mut listeners: BTreeMap<IpAddr, BTreeSet<_>> = BTreeMap::new();
    for &(address, port) in listening {
        listeners.entry(address).or_default().insert((Protocol::Tcp, port));
    }
    let mut found = Vec::new();
    let judge = Judge {
        vipa: T1,
        listeners: &listeners,
        resting: &[],
        loads: &BTreeMap::new(),
        found: &HashMap::new(),
        reach: &Reach::default(),
        accounts: &Accounts::default(),
    };
    segments(service, &judge, ways, |segment| found.push(segment));
    found
}

/// A client whose SYN it has answered sends the SYN again when the answer is lost.
#[test]
fn a_target_that_is_taken_from_the_list_keeps_what_is_half_open_while_it_listens() {
    let mut ways = Ways::default();
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
fn view(vipas: u16, services: u16, balance: Balance) -> View {
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
    let mut view = View::new(ClusterKey::new([7; 16]), vec![port], &vipas);
    for vipa in &mut view.vipas {
        let service = |n| Service { balance, ..service(PortRange::one(1_000 + n)) };
        vipa.services = (0..services).map(service).collect();
        for target in [T1, T2] {
            let ports = (0..services).map(|n| (Protocol::Tcp, 1_000 + n));
            vipa.listeners.insert(target, ports.collect());
        }
    }
    view
}

#[test]
fn thousands_of_services_share_the_tables_of_the_same_candidates() {
    let mut view = view(40, 100, Balance::Maglev);
    let routes = view.routes();
    assert_eq!(routes.vipas.iter().map(|vipa| vipa.services.len()).sum::<usize>(), 4_000);
    assert!(routes.vipas.iter().flat_map(|vipa| &vipa.services).all(|service| service.picker.serves(TargetId(1))));
    assert_eq!((view.pickers.used.len(), routes.targets.len()), (1, 2));
}

#[test]
fn word_of_a_narrow_path_lowers_what_a_tunnel_takes_until_it_is_tried_again() {
    let mut view = view(1, 1, Balance::Maglev);
    view.vipas[0].services[0].delivery.exceptions = vec![(T1, Forwarding::Ipip)];
    let mtus = |view: &mut View| view.routes().targets.iter().map(|way| (way.mtu, way.path_mtu)).collect::<Vec<_>>();
    assert_eq!(mtus(&mut view), [(1480, 1500), (1500, 1500)]);
    let now = Moment(1_000_000_000);
    assert_eq!(view.narrow_path(T1, 1400, now), Some(1400));
    assert_eq!(view.narrow_path(T2, 1400, now), None, "no tunnel leads there");
    assert_eq!(view.narrow_path(Ipv4Addr::new(198, 51, 100, 99).into(), 1400, now), None, "nobody is there");
    assert_eq!(mtus(&mut view), [(1380, 1400), (1500, 1500)]);
    view.path_mtus.expire(now + std::time::Duration::from_secs(600));
    assert_eq!(mtus(&mut view), [(1480, 1500), (1500, 1500)]);
}

/// Who gets the next connections of the VIPA's service.
fn next(routes: &Routes, service: usize, count: usize) -> Vec<u16> {
    let service = &routes.vipas[0].services[service];
    (0..count).map(|_| service.picker.pick(0, || service.turns.take()).expect("somebody").0).collect()
}

#[test]
fn each_service_has_turns_of_its_own_and_a_new_snapshot_goes_on_with_them() {
    let mut view = view(1, 2, Balance::RoundRobin);
    let routes = view.routes();
    assert_eq!([0, 1, 0, 1].map(|service| next(&routes, service, 1)[0]), [0, 0, 1, 1]);
    assert_eq!(next(&routes, 0, 1), [0]);
    assert_eq!(next(&view.routes(), 0, 2), [1, 0]);
    assert_eq!(view.pickers.used.len(), 1);
}

#[test]
fn turns_that_make_up_for_fewer_connections_are_taken_once() {
    let mut view = view(1, 1, Balance::WeightedActive);
    view.vipas[0].stance = Stance::Active;
    view.vipas[0].turns.insert(0, Turns { first: vec![T2, T2, T2, T1], taken: Arc::default() });
    assert_eq!(next(&view.routes(), 0, 2), [1, 1]);
    assert_eq!(next(&view.routes(), 0, 6), [1, 0, 0, 1, 0, 1]);
    // Nobody has any: after the count both are level again, and only a connection that came renews their turns.
    assert!(view.recount(&Census::default(), 0));
    assert_eq!(next(&view.routes(), 0, 1), [0]);
    assert!(!view.recount(&Census::default(), 0));
    assert_eq!(next(&view.routes(), 0, 1), [1]);
    assert!(view.recount(&Census::default(), 1));
    assert_eq!(next(&view.routes(), 0, 1), [0]);
}

#[test]
fn a_service_that_goes_by_connections_no_more_forgets_who_had_fewer() {
    let mut view = view(1, 1, Balance::WeightedActive);
    view.vipas[0].turns.insert(0, Turns { first: vec![T2, T2, T2], taken: Arc::default() });
    view.vipas[0].services[0].balance = Balance::RoundRobin;
    assert_eq!(next(&view.routes(), 0, 3), [0, 1, 0]);
}

#[test]
fn who_becomes_fit_after_the_count_has_its_share_at_once() {
    let mut view = view(1, 1, Balance::WeightedActive);
    view.vipas[0].stance = Stance::Active;
    let listeners = view.vipas[0].listeners.remove(&T2).expect("it listens");
    assert!(view.recount(&Census::default(), 9));
    assert_eq!(next(&view.routes(), 0, 3), [0, 0, 0]);
    view.vipas[0].listeners.insert(T2, listeners);
    assert_eq!(next(&view.routes(), 0, 8).iter().filter(|target| **target == 1).count(), 4);
}
