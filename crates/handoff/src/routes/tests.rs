use proptest::prelude::*;

use super::*;

fn vipa(address: Ipv4Addr, services: Vec<ServiceRoute>) -> VipaRoute {
    VipaRoute { address, stance: Stance::Active, lease: Arc::default(), services, quiet_until: Moment::ZERO }
}

fn service(protocol: Protocol, first: u16, last: u16) -> ServiceRoute {
    ServiceRoute { protocol, ports: PortRange { first, last }, picker: Picker::None, orphans: Orphans::Reset }
}

fn routes(vipas: Vec<VipaRoute>) -> Routes {
    Routes::build(1, ClusterKey::new([0; 16]), Vec::new(), vipas, Vec::new())
}

#[test]
fn empty_routes_find_nothing() {
    let routes = Routes::empty(ClusterKey::new([0; 16]));
    assert_eq!((routes.find_vipa(0), routes.find_target(u32::MAX)), (None, None));
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
}
