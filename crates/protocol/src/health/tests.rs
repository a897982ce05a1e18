use vipa_model::{Epoch, Incarnation, Rank};

use super::*;
use crate::admin::{AddressConflict, Flapping, RefusedPeer, Succession};

const VIPA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));
const NOW: u64 = 1_709_210_096_789;

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn target(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn service(unfit: Vec<(IpAddr, Eligibility)>, served_by: u32) -> ServiceFacts {
    ServiceFacts { service: "tcp/80".into(), unfit, served_by }
}

/// A healthy owner of one VIPA.
fn healthy() -> Status {
    let vipa = VipaStatus {
        address: VIPA,
        epoch: Epoch(7),
        stance: Stance::Active,
        owner: Some(node("r1")),
        fenced: false,
        ranks: vec![(node("r1"), Rank(200)), (node("r2"), Rank(100))],
        services: Vec::new(),
        targets: Vec::new(),
        connections: 10,
        confirmed: 10,
        mirror: None,
        succession: Succession::default(),
    };
    let link = |name: &str, target| Link { node: node(name), target, up: true };
    Status {
        node: node("r1"),
        cluster: "demo".into(),
        incarnation: Incarnation(1),
        uptime_ms: 1_000,
        voters: ["r1", "r2", "t1"].map(node).to_vec(),
        voters_version: 1,
        other_voters: Vec::new(),
        voters_wait: None,
        links: vec![link("r2", None), link("t1", Some(target(31)))],
        vipas: vec![vipa],
        connections: 10,
        capacity: 1_000,
        refused: Vec::new(),
        unfit: None,
        left: Vec::new(),
        narrow_paths: Vec::new(),
        over_share: Vec::new(),
        flapping: Vec::new(),
        conflicts: Vec::new(),
        interferences: Vec::new(),
        leases_lost: 0,
        recording: None,
        config_file: None,
        unconfirmed_ms: None,
        health: HealthFacts {
            now_unix_ms: NOW,
            vipas: vec![VipaFacts { vipa: VIPA, backups: vec![node("r2")], services: vec![service(vec![], 1)] }],
            ..HealthFacts::default()
        },
    }
}

fn worst_line(status: &Status) -> String {
    let health = assess(status);
    let worst = &health.checks[0];
    assert_eq!(health.severity, worst.severity);
    format!("{} {}: {}", worst.severity, worst.name, worst.finding)
}

#[test]
fn a_healthy_router_passes_every_check() {
    let health = assess(&healthy());
    assert_eq!((health.severity, health.severity.exit_status()), (Severity::Ok, 0));
    assert!(health.checks.iter().all(|check| check.severity == Severity::Ok), "{health:?}");
    assert_eq!(health.summary(), format!("ok: {} checks passed", health.checks.len()));
}

#[test]
fn each_fault_is_named_in_a_line_with_its_severity() {
    type Fault = fn(&mut Status);
    let faults: &[(Fault, &str)] = &[
        (|s| s.vipas[0].owner = None, "CRITICAL owner: 192.0.2.10 has no owner: its clients get no answer"),
        (|s| s.health.two_owners.push(VIPA), "CRITICAL owner: two routers say that they own 192.0.2.10"),
        (
            |s| s.vipas[0].fenced = true,
            "CRITICAL fenced: 192.0.2.10 is fenced: its lease has run out, so that it takes no new connections: look at the \
             links to the voters",
        ),
        (
            |s| s.unfit = Some("port p0 has no link".into()),
            "CRITICAL router: this router cannot route, and owns 1 VIPAs: port p0 has no link",
        ),
        (
            |s| (s.unfit, s.vipas[0].stance) = (Some("no target is reachable".into()), Stance::Standby),
            "WARNING router: this router cannot route: no target is reachable",
        ),
        (
            |s| s.health.vipas[0].services[0] = service(vec![(target(31), Eligibility::NotListening)], 0),
            "CRITICAL targets: nobody serves 192.0.2.10 tcp/80: 10.0.0.31: nothing listens",
        ),
        (
            |s| s.health.vipas[0].services[0] = service(vec![(target(31), Eligibility::NotListening)], 1),
            "WARNING targets: 10.0.0.31 gets no new connections of 192.0.2.10 tcp/80: nothing listens",
        ),
        (
            |s| s.health.vipas[0].services[0] = service(vec![(target(31), Eligibility::Quiesced)], 0),
            "CRITICAL targets: nobody serves 192.0.2.10 tcp/80: 10.0.0.31: it is quiesced by an operator",
        ),
        (|s| s.health.vipas[0].backups.clear(), "WARNING backup: 192.0.2.10 has no backup that could take it over"),
        (|s| s.voters[2] = node("t9"), "WARNING voters: 2 of 3 voters are reached; missing: t9"),
        (
            |s| s.voters = ["r1", "r8", "r9"].map(node).to_vec(),
            "CRITICAL voters: 1 of 3 voters are reached, which is no majority: nothing can be taken over; missing: r8, r9",
        ),
        (
            |s| {
                s.conflicts.push(AddressConflict {
                    vipa: VIPA,
                    mac: "02:00:00:00:00:99".into(),
                    port: "p0".into(),
                    also: None,
                    claims: 3,
                    ago_s: 1,
                });
            },
            "CRITICAL conflicts: station 02:00:00:00:00:99 on port p0 says that it has 192.0.2.10: take the address away there",
        ),
        (
            |s| {
                let expires_unix_ms = NOW + 86_400_000;
                s.health.certificates.push(CertificateFacts { subject: "this router".into(), expires_unix_ms });
            },
            "CRITICAL certificate: the certificate of this router expires in 1 d 0 h, at 2024-03-01T12:34:56.789Z",
        ),
        (
            |s| s.health.certificates.push(CertificateFacts { subject: "this router".into(), expires_unix_ms: NOW }),
            "CRITICAL certificate: the certificate of this router has expired at 2024-02-29T12:34:56.789Z",
        ),
        (
            |s| s.connections = 960,
            "CRITICAL table: the connection table is 96 % full: raise table.connections, or see who opens so many",
        ),
        (
            |s| s.health.ports.push(PortFacts { port: "p0".into(), dropped: 17, within_ms: 10_000 }),
            "WARNING ports: the NIC of port p0 dropped 17 packets in 10 s: workers do not keep up",
        ),
        (|s| s.links[1].up = false, "WARNING voters: 2 of 3 voters are reached; missing: t1"),
        (
            |s| s.links.push(Link { node: node("t7"), target: Some(target(37)), up: false }),
            "WARNING links: target t7 has no link",
        ),
        (
            |s| {
                s.refused.push(RefusedPeer {
                    node: Some(node("r3")),
                    address: None,
                    why: "its cluster.key is another one".into(),
                    times: 3,
                    last_ms_ago: 1_000,
                });
            },
            "WARNING peers: r3 is refused: its cluster.key is another one",
        ),
        (
            |s| s.health.other_configurations.push((node("r2"), "2 settings of 192.0.2.10".into())),
            "WARNING configuration: r2 is configured otherwise: 2 settings of 192.0.2.10",
        ),
        (
            |s| s.health.reload = Some(ReloadFacts { unix_ms: NOW, failed: Some("line 3:\nno such key".into()) }),
            "WARNING reload: the reload at 2024-02-29T12:34:56.789Z failed: line 3: no such key",
        ),
        (
            |s| s.health.audit = Some(AuditFacts { agreeing: 1, differing: vec![(node("t1"), VIPA)] }),
            "WARNING audit: the table of 192.0.2.10 differs from what t1 holds: `vipactl audit 192.0.2.10`",
        ),
        (
            |s| s.flapping.push(Flapping { vipa: VIPA, changes: 6 }),
            "WARNING flapping: 192.0.2.10 has changed its owner 6 times in the last minute",
        ),
    ];
    for (fault, expected) in faults {
        let mut status = healthy();
        fault(&mut status);
        assert_eq!(worst_line(&status), *expected);
    }
}

#[test]
fn what_operators_want_is_no_fault() {
    let mut status = healthy();
    let resting = vec![(target(31), Eligibility::Quiesced), (target(32), Eligibility::Draining)];
    status.health.vipas[0].services[0] = service(resting, 1);
    status.links.push(Link { node: node("t7"), target: Some(target(37)), up: false });
    status.left.push(node("t7"));
    status.vipas[0].ranks.truncate(1);
    status.health.vipas[0].backups.clear();
    assert_eq!(assess(&status).severity, Severity::Ok, "{:?}", assess(&status).checks[0]);
}

#[test]
fn many_of_one_kind_are_one_line_that_names_a_few() {
    let mut status = healthy();
    for last in 1..=9 {
        status.flapping.push(Flapping { vipa: IpAddr::from([192, 0, 2, last]), changes: 5 });
    }
    let line = worst_line(&status);
    assert!(line.contains("192.0.2.4 has") && !line.contains("192.0.2.5") && line.ends_with("; and 5 more"), "{line}");
}

#[test]
fn the_worst_comes_first_and_the_summary_counts_the_rest() {
    let mut status = healthy();
    status.flapping.push(Flapping { vipa: VIPA, changes: 6 });
    status.vipas[0].fenced = true;
    let health = assess(&status);
    assert_eq!((health.checks[0].name.as_str(), health.checks[1].name.as_str()), ("fenced", "flapping"));
    assert!(health.summary().starts_with("CRITICAL: 192.0.2.10 is fenced"), "{}", health.summary());
    assert!(health.summary().ends_with("(and 1 more; `vipactl health`)"), "{}", health.summary());
}
