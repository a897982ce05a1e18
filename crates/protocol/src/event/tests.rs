use super::*;

const VIPA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn alice() -> Operator {
    Operator { uid: 1000, name: Some("alice".into()) }
}

fn line(what: EventKind) -> String {
    ClusterEvent { unix_ms: 1_709_210_096_789, node: node("r2"), number: 7, what }.to_string()
}

#[test]
fn a_takeover_says_its_cause_and_who_ordered_it() {
    let owned = |cause| line(EventKind::Owned { vipa: VIPA, epoch: Epoch(7), from: Some(node("r1")), cause });
    let begin = "2024-02-29T12:34:56.789Z  r2  owns 192.0.2.10 from now on, epoch 7, after r1: ";
    let given = Some(Given { by: alice(), unix_ms: 1_709_210_096_000 });
    for (cause, end) in [
        (OwnershipCause::Silent { ms: 312 }, "its owner was silent for 312 ms"),
        (OwnershipCause::Unfit { why: "port p0 has no link".into() }, "its owner cannot route: port p0 has no link"),
        (
            OwnershipCause::Ordered { order: "vipa move 192.0.2.10 r2".into(), given },
            "ordered by alice (uid 1000) at 2024-02-29T12:34:56.000Z: vipa move 192.0.2.10 r2",
        ),
    ] {
        assert_eq!(owned(cause), format!("{begin}{end}"));
    }
}

#[test]
fn what_is_about_many_services_names_a_few_and_concerns_all() {
    let service = ServiceKey { vipa: VIPA, protocol: Protocol::Tcp, ports: PortRange::one(80) };
    let other: IpAddr = "192.0.2.11".parse().unwrap();
    let target = |more| EventKind::Target {
        target: "10.0.0.31".parse().unwrap(),
        eligibility: Eligibility::NotListening,
        services: vec![service],
        more,
    };
    assert_eq!(target(0).to_string(), "192.0.2.10 tcp/80: 10.0.0.31 gets no new connections, because nothing listens");
    assert!(target(3).to_string().starts_with("192.0.2.10 tcp/80 and 3 more services: "));
    assert_eq!((target(0).concerns(VIPA), target(0).concerns(other), target(3).concerns(other)), (true, false, true));
}

#[test]
fn an_order_concerns_the_vipa_that_it_names() {
    let other: IpAddr = "192.0.2.1".parse().unwrap();
    for order in ["vipa move 192.0.2.10 r2", "service quiesce 192.0.2.10:80/tcp 10.0.0.31"] {
        let ordered = EventKind::Ordered { order: order.into(), by: alice() };
        assert_eq!((ordered.concerns(VIPA), ordered.concerns(other)), (true, false), "{order}");
    }
    let six = EventKind::Ordered { order: "service resume [2001:db8::10]:53/udp".into(), by: alice() };
    assert!(six.concerns("2001:db8::10".parse().unwrap()));
}

#[test]
fn text_of_another_node_is_made_fit_for_a_terminal() {
    let sent = EventKind::LinkRefused { peer: None, address: None, why: "\u{1b}[2J".repeat(300) };
    let bytes = postcard::to_stdvec(&sent).unwrap();
    let EventKind::LinkRefused { why, .. } = postcard::from_bytes(&bytes).unwrap() else { panic!("another kind") };
    assert!(why.len() <= MAX_REASON && why.starts_with("\\u{1b}[2J"), "{why}");
}

#[test]
fn json_has_every_fact_by_name() {
    let event =
        ClusterEvent { unix_ms: 5, node: node("r1"), number: 1, what: EventKind::Link { peer: node("t1"), up: false } };
    let text = serde_json::to_string(&event).unwrap();
    assert_eq!(text, r#"{"unix_ms":5,"node":"r1","number":1,"what":{"link":{"peer":"t1","up":false}}}"#);
    assert_eq!(serde_json::from_str::<ClusterEvent>(&text).unwrap(), event);
}
