use proptest::prelude::*;

use super::*;

fn vipa(address: impl Into<IpAddr>, services: Vec<ServiceRoute>) -> VipaRoute {
    VipaRoute {
        address: address.into(),
        stance: Stance::Active,
        lease: Arc::default(),
        services: services.into(),
        quiet_until: Moment::ZERO,
        by_hash_until: Moment::ZERO,
        new_per_second: None,
        unserved: Unserved::Drop,
    }
}

fn service(protocol: Protocol, first: u16, last: u16) -> ServiceRoute {
    ServiceRoute {
        protocol,
        ports: PortRange { first, last },
        picker: Picker::None,
        draining: Arc::default(),
        turns: Arc::default(),
        orphans: Orphans::Reset,
        sources: None,
    }
}

fn routes(vipas: Vec<VipaRoute>) -> Routes {
    Routes::build(1, ClusterKey::new([0; 16]), RouteLists { vipas, ..RouteLists::default() })
}

#[test]
fn the_l2_rewrite_is_direct_untagged_found_and_for_what_fits() {
    let port = PortRoute::new(Mac([2; 6]), Ipv4Addr::new(198, 51, 100, 1), 24);
    let direct = TargetRoute::direct(Ipv4Addr::new(198, 51, 100, 21), (PortId(3), &port), Mac([4; 6]));
    let tagged = PortRoute { vlan: Some(5), ..port };
    let targets = vec![
        direct,
        TargetRoute { next_hop: None, ..direct },
        TargetRoute { via: ForwardingAction::Nat { port: None }, ..direct },
        TargetRoute::direct(direct.address, (PortId(3), &tagged), Mac([4; 6])),
    ];
    let routes = Routes::build(1, ClusterKey::new([0; 16]), RouteLists { targets, ..RouteLists::default() });
    let rewrite = routes.l2_rewrite(TargetId(0), 1514).expect("a frame of 1,500 bytes of IP fits");
    assert_eq!((rewrite.macs, rewrite.port), ([4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2], PortId(3)));
    for (target, length) in [(0, 1515), (1, 64), (2, 64), (3, 64), (4, 64)] {
        assert_eq!(routes.l2_rewrite(TargetId(target), length), None, "target {target}, {length} bytes");
    }
}

#[test]
fn empty_routes_find_nothing() {
    let routes = Routes::empty(ClusterKey::new([0; 16]));
    assert_eq!(
        (routes.find_vipa(0), routes.find_vipa6(0), routes.is_target(Ipv4Addr::BROADCAST.into())),
        (None, None, false)
    );
}

#[test]
fn a_port_belongs_to_the_service_of_its_protocol_whose_range_has_it() {
    let services = vec![
        service(Protocol::Udp, 53, 53),
        service(Protocol::Tcp, 8000, 8099),
        service(Protocol::Tcp, 80, 80),
        service(Protocol::Tcp, 65_535, 65_535),
    ];
    let routes = routes(vec![vipa(Ipv4Addr::new(192, 0, 2, 10), services)]);
    let found = |protocol, port| routes.vipas[0].find_service(protocol, port).map(|service| service.ports.first);
    for (port, first) in [(80, 80), (8000, 8000), (8050, 8000), (8099, 8000), (65_535, 65_535)] {
        assert_eq!(found(Protocol::Tcp, port), Some(first));
    }
    for port in [0, 53, 79, 81, 7999, 8100, 65_534] {
        assert_eq!(found(Protocol::Tcp, port), None);
    }
    assert_eq!((found(Protocol::Udp, 53), found(Protocol::Udp, 80)), (Some(53), None));
}

#[test]
fn routes_can_be_printed() {
    let text = format!("{:?}", routes(vec![vipa(Ipv4Addr::new(192, 0, 2, 10), Vec::new())]));
    assert!(text.contains("192.0.2.10") && text.contains("Active"), "{text}");
}

fn port(address: &str, length: u8, gateway: Option<&str>) -> PortRoute {
    PortRoute {
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        address6: Some(("2001:db8::1".parse().unwrap(), 64)),
        ..PortRoute::new(Mac([2, 0, 0, 0, 0, 1]), address.parse().unwrap(), length)
    }
}

#[test]
fn a_host_is_reached_by_its_own_network_else_by_a_gateway_else_not() {
    let ports = [port("10.0.0.1", 24, Some("10.0.0.254")), port("10.1.0.1", 16, None)];
    let towards = |address: &str| next_neighbour(&ports, address.parse().unwrap());
    let on = |port, neighbour: &str| Some((PortId(port), neighbour.parse().unwrap()));
    assert_eq!(towards("10.0.0.9"), on(0, "10.0.0.9"));
    assert_eq!(towards("10.1.9.9"), on(1, "10.1.9.9"));
    assert_eq!(towards("203.0.113.1"), on(0, "10.0.0.254"));
    assert_eq!(towards("2001:db8::9"), on(0, "2001:db8::9"));
    assert_eq!(towards("2001:db9::9"), None);
}

#[test]
fn a_host_is_known_by_the_port_it_was_found_on() {
    let client: IpAddr = "10.0.0.9".parse().unwrap();
    let build = |neighbours| {
        let lists = RouteLists { ports: vec![port("10.0.0.1", 24, None)], neighbours, ..RouteLists::default() };
        Routes::build(1, ClusterKey::new([0; 16]), lists)
    };
    assert_eq!(build(HashMap::new()).hop(client), Hop::Unknown(PortId(0), client));
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let found = build(HashMap::from([(client, (PortId(0), mac))]));
    assert!(matches!(found.hop(client), Hop::Known(hop) if hop.link.destination == mac.0));
    assert_eq!(found.hop("203.0.113.1".parse().unwrap()), Hop::None);
}

#[test]
fn the_l2_rewrite_to_a_host_is_the_hop_to_it_where_that_is_known_and_has_no_tag() {
    let tagged = PortRoute { vlan: Some(5), ..port("10.1.0.1", 16, None) };
    let ports = vec![PortRoute { mtu: 1400, ..port("10.0.0.1", 24, Some("10.0.0.254")) }, tagged];
    let found = [("10.0.0.254", 0), ("10.0.0.9", 0), ("10.0.0.7", 1), ("10.1.0.9", 1), ("2001:db8::9", 0)];
    let mac = |n: usize| Mac([2, 0, 0, 0, 1, n as u8]);
    let neighbours =
        found.iter().enumerate().map(|(n, (host, port))| (host.parse().unwrap(), (PortId(*port), mac(n)))).collect();
    let lists = RouteLists { ports, neighbours, ..RouteLists::default() };
    let routes = Routes::build(1, ClusterKey::new([0; 16]), lists);
    let macs = |host: &str, length| routes.l2_rewrite_to(host.parse().unwrap(), length).map(|rewrite| rewrite.macs[5]);
    for (host, by) in [("203.0.113.1", 0), ("10.0.0.9", 1), ("2001:db8::9", 4)] {
        assert_eq!((macs(host, 1414), macs(host, 1415)), (Some(by), None), "{host}");
        let Hop::Known(hop) = routes.hop(host.parse().unwrap()) else { panic!("{host} is known") };
        let rewrite = routes.l2_rewrite_to(host.parse().unwrap(), 60).unwrap();
        assert_eq!((&rewrite.macs[..6], &rewrite.macs[6..]), (&hop.link.destination[..], &hop.link.source[..]));
        assert_eq!(rewrite.port, hop.port);
    }
    // Not resolved, resolved on another port, behind a tag, without a gateway.
    for host in ["10.0.0.8", "10.0.0.7", "10.1.0.9", "2001:db9::9"] {
        assert_eq!(macs(host, 60), None, "{host}");
    }
}

#[test]
fn a_return_has_the_port_of_its_service_or_its_own() {
    let route = |ports, vipa_port| ReturnRoute {
        protocol: Protocol::Tcp,
        ports,
        vipa: VipaId(0),
        vipa_port,
        target: TargetId(0),
    };
    let moved = route(PortRange::one(8080), Some(80));
    assert_eq!(moved.port_on_vipa(Protocol::Tcp, 8080), Some(80));
    assert_eq!(moved.port_on_vipa(Protocol::Tcp, 80), None);
    assert_eq!(moved.port_on_vipa(Protocol::Udp, 8080), None);
    assert_eq!(route(PortRange::ALL, None).port_on_vipa(Protocol::Tcp, 443), Some(443));
}

proptest! {
    #[test]
    fn every_address_is_found_and_no_other(
        addresses in prop::collection::hash_set(any::<u32>(), 0..200),
        strangers in prop::collection::vec(any::<u32>(), 50),
    ) {
        let list: Vec<_> = addresses.iter().copied().collect();
        let routes = routes(list.iter().map(|&address| vipa(Ipv4Addr::from_bits(address), Vec::new())).collect());
        for (id, &address) in list.iter().enumerate() {
            prop_assert_eq!(routes.find_vipa(address), Some(VipaId(id as u16)));
        }
        for stranger in strangers.into_iter().filter(|stranger| !addresses.contains(stranger)) {
            prop_assert_eq!(routes.find_vipa(stranger), None);
        }
    }

    #[test]
    fn every_ipv6_address_is_found_and_no_other(
        addresses in prop::collection::hash_set(any::<u128>(), 0..200),
        stranger in any::<u128>(),
    ) {
        let list: Vec<_> = addresses.iter().copied().collect();
        let address = |bits: &u128| std::net::Ipv6Addr::from_bits(*bits);
        let routes = routes(list.iter().map(|bits| vipa(address(bits), Vec::new())).collect());
        for (id, bits) in list.iter().enumerate() {
            prop_assert_eq!(routes.find_vipa6(*bits), Some(VipaId(id as u16)));
        }
        prop_assert!(addresses.contains(&stranger) || routes.find_vipa6(stranger).is_none());
    }
}
