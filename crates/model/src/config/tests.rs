use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::{
    Balance, Choice, Delivery, Forwarding, Orphans, Pace, PortRange, Probe, Protocol, Question, Sources, Unserved,
    Weights,
};

pub(super) const ROUTER: &str = r#"
[node]
name = "r1"
listen = "10.77.0.11:7400"

[pki]
ca = "ca.pem"
certificate = "/etc/vipa/r1.pem"
key = "keys/r1.key"

[cluster]
name = "demo"
key = "000102030405060708090a0b0c0d0e0f"
voters = ["t1", "r1", "r2"]

[cluster.routers]
r2 = "10.77.0.12:7400"
r1 = "10.77.0.11:7400"

[[port]]
name = "p0"
device = "net_af_packet0,iface=eth0"
address = "10.77.0.21/24"
gateway = "10.77.0.1"

[[vipa]]
address = "10.77.0.100"
ranks = { r2 = 100, r1 = 200 }

[[vipa.service]]
ports = 80
candidates = ["10.77.0.32", "10.77.0.31"]

[[vipa.service]]
protocol = "tcp"
ports = "8000-8099"
candidates = ["10.77.0.31"]
balance = "round-robin"
orphans = "drop"
"#;

const TARGET: &str = r#"
[node]
name = "t1"
[pki]
ca = "ca.pem"
certificate = "t1.pem"
key = "t1.key"
[cluster]
name = "demo"
key = "000102030405060708090a0b0c0d0e0f"
voters = ["r1", "r2", "t1"]
[cluster.routers]
r1 = "10.77.0.11:7400"
[agent]
address = "10.77.0.31"
"#;

fn name(text: &str) -> NodeName {
    text.parse().expect("a node name")
}

/// The router's configuration with one text replaced by another.
fn changed(from: &str, to: &str) -> Result<Config, ConfigErrors> {
    assert!(ROUTER.contains(from), "{from:?} is not in the example");
    Config::parse("r1.toml", &ROUTER.replacen(from, to, 1))
}

/// What is said of that configuration.
fn complaint(from: &str, to: &str) -> String {
    changed(from, to).expect_err("this must be refused").to_string()
}

#[test]
fn a_router_is_read_and_what_is_not_said_has_its_default() {
    let config = Config::parse_for(Program::Router, "/etc/vipa/r1.toml", ROUTER).unwrap();
    let at = |port| SocketAddr::from(([10, 77, 0, port], 7400));
    assert_eq!(
        config.node,
        Node {
            name: name("r1"),
            listen: Some(at(11)),
            state_dir: "/var/lib/vipad/r1".into(),
            admin: "/run/vipad/r1/admin.sock".into(),
            access: AdminAccess::default(),
        }
    );
    let pki = Pki {
        ca: "/etc/vipa/ca.pem".into(),
        certificate: "/etc/vipa/r1.pem".into(),
        key: "/etc/vipa/keys/r1.key".into(),
        revoked_nodes: vec![],
        revoked_serials: vec![],
    };
    assert_eq!(config.pki, pki);
    let cluster = Cluster {
        name: "demo".into(),
        key: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        voters: vec![name("r1"), name("r2"), name("t1")].into(),
        lease: Duration::from_millis(100),
        beat: Duration::from_millis(20),
        drift_percent: 10,
        rebuild_deadline: Duration::from_secs(1),
        grace: Duration::from_millis(200),
        routers: vec![(name("r1"), at(11)), (name("r2"), at(12))],
    };
    assert_eq!(config.cluster, cluster);
    let dpdk = Dpdk { memory: Memory::Auto, memory_mb: 256, file_prefix: "vipa-r1".into(), options: Vec::new() };
    assert_eq!(config.dpdk, dpdk);
    let port = Port {
        name: "p0".into(),
        device: "net_af_packet0,iface=eth0".into(),
        address: Ipv4Addr::new(10, 77, 0, 21),
        prefix_length: 24,
        gateway: Some(Ipv4Addr::new(10, 77, 0, 1)),
        address6: None,
        gateway6: None,
        vlan: None,
        kernel_interface: None,
        kernel_driver: KernelDriver::Tap,
        kernel_packets_per_second: 20_000,
        queues: 1,
        mtu: 1500,
        promiscuous: false,
    };
    assert_eq!(config.ports, [port]);
    let workers = Workers { cores: vec![0], idle: Idle::Sleep, idle_max: Duration::from_micros(1_000) };
    assert_eq!(config.workers, workers);
    let announce = Announce {
        repeat: [20, 100, 500, 1_000, 3_000, 10_000].map(Duration::from_millis).to_vec(),
        refresh: Some(Duration::from_secs(60)),
        interface: None,
        table: 7_400,
    };
    assert_eq!(config.announce, announce);
    let ms = Duration::from_millis;
    let autonomics = Autonomics { unfit_after: ms(500), fit_after: ms(5_000), stall: ms(250) };
    assert_eq!(config.autonomics, autonomics);
    assert_eq!(config.hooks, Hooks { owned: None, released: None, timeout: Duration::from_secs(5) });
    assert_eq!(config.metrics, Metrics { listen: None });
    assert_eq!(config.agent, None);
}

#[test]
fn metrics_are_served_at_an_address_or_a_socket() {
    let listen = |value: &str| {
        let section = format!("[metrics]\nlisten = \"{value}\"\n[[port]]");
        changed("[[port]]", &section).map(|config| config.metrics.listen)
    };
    for value in ["127.0.0.1:9781", "[::1]:9781", "unix:/run/vipa/metrics.sock"] {
        assert_eq!(listen(value).unwrap().unwrap().to_string(), value);
    }
    for value in ["9781", "localhost:9781", "unix:metrics.sock", "unix:", "/run/vipa/metrics.sock"] {
        let error = listen(value).unwrap_err().to_string();
        assert!(
            error.contains("an IP address and a port such as \"127.0.0.1:9781\", or \"unix:\" and a whole path"),
            "{error}"
        );
    }
}

#[test]
fn a_vipa_lists_its_routers_by_rank_and_its_services_as_written() {
    let config = changed("r1 = 200", "r1 = 200").unwrap();
    let target = |last| IpAddr::V4(Ipv4Addr::new(10, 77, 0, last));
    let web = Service {
        protocol: Protocol::Tcp,
        ports: PortRange::one(80),
        delivery: Delivery::default(),
        balance: Balance::Maglev,
        choice: Choice::default(),
        orphans: Orphans::Reset,
        sources: Sources::default(),
        candidates: vec![target(32), target(31)],
    };
    let games = Service {
        ports: PortRange { first: 8000, last: 8099 },
        balance: Balance::RoundRobin,
        orphans: Orphans::Drop,
        candidates: vec![target(31)],
        ..web.clone()
    };
    let vipa = Vipa {
        address: target(100),
        ranks: vec![(name("r1"), Rank(200)), (name("r2"), Rank(100))],
        activate: true,
        takeback: Takeback::Immediate,
        takeback_delay: Duration::ZERO,
        group: None,
        new_per_second: None,
        unserved: Unserved::Drop,
        services: Some(vec![web, games]),
    };
    assert_eq!(config.vipas, [vipa]);
}

#[test]
fn what_nobody_serves_is_refused_where_the_vipa_says_so() {
    let refuse =
        |word: &str| changed("address = \"10.77.0.100\"", &format!("address = \"10.77.0.100\"\nunserved = \"{word}\""));
    assert_eq!(refuse("refuse").unwrap().vipas[0].unserved, Unserved::Refuse);
    assert_eq!(refuse("drop").unwrap().vipas[0].unserved, Unserved::Drop);
    assert!(refuse("reset").unwrap_err().to_string().contains("\"refuse\""));
}

#[test]
fn candidates_may_weigh_differently_and_by_their_load() {
    let list = r#"candidates = ["10.77.0.32", { address = "10.77.0.31", weight = 3 }]"#;
    let config =
        changed(r#"candidates = ["10.77.0.32", "10.77.0.31"]"#, &format!("weights = \"load\"\n{list}")).unwrap();
    let service = &config.vipas[0].services.as_ref().unwrap()[0];
    let [heavy, usual] = ["10.77.0.31", "10.77.0.32"].map(|address| address.parse().unwrap());
    assert_eq!(service.choice, Choice { weights: Weights::Load, exceptions: vec![(heavy, 3)], agentless: vec![] });
    assert_eq!([heavy, usual].map(|candidate| service.choice.weight_of(candidate)), [3, 1]);
}

#[test]
fn a_candidate_without_an_agent_is_asked_by_the_routers() {
    let list = r#"candidates = [
        { address = "10.77.0.32", agent = false },
        { address = "10.77.0.31", agent = false, check = { probe = "http", path = "/up", status = 204, interval_ms = 200, fall = 1 } },
        { address = "10.77.0.33", agent = false, check = { probe = "ping" } },
    ]"#;
    let config = changed(r#"candidates = ["10.77.0.32", "10.77.0.31"]"#, list).unwrap();
    let service = &config.vipas[0].services.as_ref().unwrap()[0];
    let asked: Vec<_> = service.choice.agentless.iter().map(|agentless| agentless.question.clone()).collect();
    let http = Question::Http { port: 80, path: "/up".into(), statuses: (204, 204) };
    assert_eq!(asked, [Question::Tcp(80), http, Question::Ping]);
    let ms = Duration::from_millis;
    let pace = Pace { interval: ms(200), timeout: ms(200), rise: 2, fall: 1 };
    assert_eq!(service.choice.agentless("10.77.0.31".parse().unwrap()).unwrap().pace, pace);

    let said = changed(r#"candidates = ["10.77.0.31"]"#, r#"candidates = [{ address = "10.77.0.31", agent = false }]"#);
    let said = said.unwrap_err().to_string();
    assert!(said.contains("which port of 10.77.0.31 is asked?"), "{said}");
    let said = changed(r#"candidates = ["10.77.0.31"]"#, r#"candidates = [{ address = "10.77.0.31", check = {} }]"#);
    assert!(said.unwrap_err().to_string().contains("only a candidate with agent = false"));
}

#[test]
fn a_service_says_how_its_targets_are_reached_and_who_may_come() {
    let keys = r#"ports = 80
forwarding = "gue"
clamp_mss = false
allow = ["203.0.113.0/24", "2001:db8::/32"]
deny = ["203.0.113.7"]
new_per_second_per_source = 100"#;
    let config = changed("ports = 80", keys).unwrap();
    let service = &config.vipas[0].services.as_ref().unwrap()[0];
    let delivery = Delivery { forwarding: Forwarding::Gue, clamp_mss: false, ..Delivery::default() };
    assert_eq!(service.delivery, delivery);
    let sources = Sources {
        allow: vec!["203.0.113.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        deny: vec!["203.0.113.7/32".parse().unwrap()],
        new_per_second: Some(100),
    };
    assert_eq!(service.sources, sources);
}

#[test]
fn a_candidate_may_be_reached_another_way_than_the_others_and_in_another_family() {
    let list = r#"["10.77.0.32", { address = "2001:db8::31", forwarding = "ipip" }]"#;
    let config = changed("[\"10.77.0.32\", \"10.77.0.31\"]", list).unwrap();
    let service = &config.vipas[0].services.as_ref().unwrap()[0];
    let other = "2001:db8::31".parse().unwrap();
    assert_eq!(service.candidates, ["10.77.0.32".parse::<IpAddr>().unwrap(), other]);
    assert_eq!(service.delivery.forwarding_to(other), Forwarding::Ipip);
    assert_eq!(service.delivery.forwarding_to(service.candidates[0]), Forwarding::Direct);
}

#[test]
fn a_target_needs_no_port_and_a_router_no_agent() {
    let config = Config::parse_for(Program::Agent, "t1.toml", TARGET).unwrap();
    let agent = Agent {
        address: "10.77.0.31".parse().unwrap(),
        interface: "lo".into(),
        observe: Observe::Auto,
        observe_every: Duration::from_millis(50),
        namespaces: vec![],
        log_records: 65_536,
        decap: Decap::Auto,
        decap_interfaces: vec![],
        drain_timeout: Duration::ZERO,
        checks: vec![],
    };
    assert_eq!((config.agent, config.ports), (Some(agent), vec![]));
    assert_eq!(
        Config::parse_for(Program::Router, "t1.toml", TARGET).unwrap_err().to_string(),
        "t1.toml:2:1: a router needs `node.listen`, such as listen = \"10.0.0.1:7400\"\n\
         t1.toml:2:1: a router needs a [[port]] with `name`, `device` and `address`; see dpdk-config/\n\
         t1.toml:12:1: [cluster.routers] lacks this node: add t1 = \"IP:PORT\", where the others reach it"
    );
    assert_eq!(
        Config::parse_for(Program::Agent, "r1.toml", ROUTER).unwrap_err().to_string(),
        "r1.toml:1:1: section [agent] is missing; it needs `address`, such as address = \"10.0.0.31\""
    );
}

#[test]
fn a_backup_may_leave_its_services_to_the_owner_but_the_highest_rank_may_not() {
    let services = ROUTER.find("[[vipa.service]]").unwrap();
    let without = &ROUTER[..services];
    assert_eq!(
        Config::parse("r1.toml", without).unwrap_err().to_string(),
        "r1.toml:26:1: this node has the highest rank, so it must list the services: add [[vipa.service]]"
    );
    let backup = without.replace("r1 = 200", "r1 = 50");
    assert_eq!(Config::parse("r1.toml", &backup).unwrap().vipas[0].services, None);
}

#[test]
fn every_mistake_of_a_file_is_said_at_once_with_its_place() {
    let text = ROUTER
        .replace("name = \"r1\"", "name = \"R1\"")
        .replace("[cluster]", "[cluster]\nlease_sm = 5\nbeat_ms = 26")
        .replace("\"10.77.0.21/24\"", "\"10.77.0.21\"")
        .replace("ports = 80", "ports = \"90-80\"");
    assert_eq!(
        Config::parse("r1.toml", &text).unwrap_err().to_string(),
        "r1.toml:3:8: \"R1\" is not a node name: use 1 to 63 of a-z, 0-9 and '-', with no '-' at either end\n\
         r1.toml:12:1: unknown key `lease_sm` in [cluster]; did you mean `lease_ms`?\n\
         r1.toml:13:11: this must be a number of milliseconds (a quarter of lease_ms) from 1 to 25, and is the number 26\n\
         r1.toml:25:11: this must be an IPv4 address and its network's prefix length from 8 to 30, such as \"10.0.0.1/24\"\n\
         r1.toml:33:9: ports are 80, \"8000-8099\" (the lower first) or \"all\", and not \"90-80\""
    );
}

#[test]
fn toml_that_cannot_be_read_is_pointed_at() {
    assert_eq!(complaint("name = \"demo\"", "name = \"demo"), "r1.toml:12:13: invalid basic string, expected `\"`");
}

#[test]
fn without_a_quorum_there_are_two_routers_and_no_voters() {
    let text = ROUTER.replace("voters = [\"t1\", \"r1\", \"r2\"]", "quorum = \"none\"");
    assert_eq!(Config::parse("r1.toml", &text).unwrap().cluster.voters.names, []);
    let three = text.replace("r2 = \"10.77.0.12:7400\"", "r2 = \"10.77.0.12:7400\"\nr3 = \"10.77.0.13:7400\"");
    assert_eq!(
        Config::parse("r1.toml", &three).unwrap_err().to_string(),
        "r1.toml:14:10: without a quorum there may be two routers and no more, but [cluster.routers] has 3; name voters \
         instead"
    );
}

#[test]
fn each_rule_has_its_sentence() {
    let rules = [
        (
            "\"t1\", \"r1\", \"r2\"",
            "\"t1\", \"r1\"",
            "14:10: 2 voters make no good majority: name 3, 5 or 7 nodes, routers or targets, the same on every node",
        ),
        (
            "voters = [\"t1\", \"r1\", \"r2\"]",
            "voters = [\"t1\", \"r1\", \"r2\"]\nquorum = \"none\"",
            "14:10: with quorum = \"none\" nobody votes: leave `voters` out",
        ),
        (
            "voters = [\"t1\", \"r1\", \"r2\"]",
            "quorum = \"ranks\"",
            "14:10: this must be \"majority\" or \"none\", and is the text \"ranks\"",
        ),
        (
            "voters = [\"t1\", \"r1\", \"r2\"]",
            "",
            "11:1: `cluster.voters` is missing; such as voters = [\"r1\", \"r2\", \"t1\"]",
        ),
        ("\"t1\", \"r1\", \"r2\"", "\"t1\", \"r1\", \"t1\"", "14:23: t1 is in this list already; name each once"),
        (
            "key = \"0001",
            "key = \"01",
            "13:7: this must be 32 hexadecimal digits, the same on every node; `openssl rand -hex 16` makes some",
        ),
        (
            "r2 = \"10.77.0.12:7400\"",
            "r2 = \"10.77.0.11:7400\"",
            "18:6: 10.77.0.11:7400 is r2's already; each router has its own",
        ),
        (
            "r1 = \"10.77.0.11:7400\"",
            "r3 = \"10.77.0.11:7400\"",
            "16:1: [cluster.routers] lacks this node: add r1 = \"IP:PORT\", where the others reach it",
        ),
        (
            "gateway = \"10.77.0.1\"",
            "gateway = \"10.78.0.1\"",
            "24:11: the gateway must be another host on the port's network 10.77.0.21/24",
        ),
        (
            "ranks = { r2 = 100, r1 = 200 }",
            "ranks = { r2 = 200, r1 = 200 }",
            "28:26: r2 has rank 200 too; the order of succession needs them different",
        ),
        (
            "ranks = { r2 = 100, r1 = 200 }",
            "ranks = { r2 = 200, r1 = 300 }",
            "28:26: this must be a rank from 1 to 254, and is the number 300",
        ),
        (
            "ranks = { r2 = 100, r1 = 200 }",
            "ranks = { r2 = 100 }",
            "28:9: this node needs a rank here: add r1 = 100, or take the [[vipa]] out",
        ),
        (
            "ranks = { r2 = 100, r1 = 200 }",
            "ranks = { t1 = 100, r1 = 200 }",
            "28:11: t1 is not in [cluster.routers]; only routers have ranks",
        ),
        ("8000-8099", "70-8099", "34:1: another service of this VIPA has ports 80-80; keep them apart"),
        (
            "address = \"10.77.0.100\"",
            "address = \"10.77.0.21\"",
            "27:11: this is a port's own address; a VIPA needs one of its own",
        ),
        (
            "address = \"10.77.0.100\"",
            "address = \"10.77.0.31\"",
            "27:11: the VIPA is among its candidates; name the targets' own addresses",
        ),
        (
            "address = \"10.77.0.100\"",
            "address = \"::1:2:3:4\"\nranks = { r2 = 100, r1 = 200 }\n[[vipa.service]]\nports = 80\nforwarding = \"nat\"\ncandidates = [\"10.0.0.1\"]\n[[vipa]]\naddress = \"10.77.0.100\"",
            "27:11: candidate 10.0.0.1 is of the other family, into which \"nat\" does not translate",
        ),
        ("address = \"10.77.0.100\"", "address = \"ff02::1\"", "27:11: ff02::1 is no host's address"),
        ("ports = 80", "ports = 80\ntarget_port = 8080", "32:15: only forwarding = \"nat\" changes the port"),
        (
            "ports = \"8000-8099\"",
            "ports = \"8000-8099\"\nforwarding = \"nat\"\ntarget_port = 8080",
            "38:15: one target port for several ports cannot be told apart",
        ),
        ("ports = 80", "ports = 80\nforwarding = \"vxlan\"", "32:14: this must be \"direct\" or \"ipip\" or"),
        ("ports = 80", "ports = 80\nallow = [\"10.1.2.3/8\"]", "32:10: 10.1.2.3/8 has bits beyond its length"),
        (
            "gateway = \"10.77.0.1\"",
            "gateway6 = \"2001:db8::1\"",
            "24:12: the gateway must be link-local (fe80::…), or another host on the network of `address6`",
        ),
        ("gateway = \"10.77.0.1\"", "vlan = 4095", "24:8: this must be a VLAN identifier from 1 to 4094"),
        (
            "gateway = \"10.77.0.1\"",
            "kernel_interface = \"a name with spaces\"",
            "24:20: an interface's name has at most 15",
        ),
        ("[\"10.77.0.31\"]", "[]", "37:14: a service without candidates serves nobody: name at least one target"),
        ("\"tcp\"", "\"sctp\"", "35:12: this must be \"tcp\" or \"udp\", and is the text \"sctp\""),
        (
            "\"tcp\"",
            "\"udp\"",
            "38:11: udp needs \"maglev\": no target reports its clients, and only maglev finds each one's again",
        ),
        (
            "listen = \"10.77.0.11:7400\"",
            "listen = 7400",
            "4:10: this must be an IP address and a port such as \"10.0.0.1:7400\", and is the number 7400",
        ),
        (
            "listen = ",
            "color = ",
            "2:1: a router needs `node.listen`, such as listen = \"10.0.0.1:7400\"\nr1.toml:4:1: unknown key `color` in [node]; here may stand `name`, `listen`, `state_dir`, `admin`",
        ),
        (
            "[[port]]",
            "[port]",
            "20:1: `port` may stand more than once: write [[port]]\nr1.toml:2:1: a router needs a [[port]] with `name`, `device` and `address`; see dpdk-config/",
        ),
        ("[pki]", "[pkj]", "1:1: section [pki] is missing"),
        (
            "[[port]]",
            "[announce]\nrepeat_ms = [100, 20]\n[[port]]",
            "21:13: these are counted from the takeover, so each must be later than the last",
        ),
        (
            "[[port]]",
            "[announce]\ntable = 254\n[[port]]",
            "21:9: this table is the kernel's own; use one of yours, such as 7400",
        ),
        (
            "[[port]]",
            "[hooks]\nowned = [\"logger\", \"-s\"]\n[[port]]",
            "21:10: name the program by its whole path, such as \"/usr/bin/logger\"",
        ),
        ("[[port]]", "[hooks]\nreleased = []\n[[port]]", "21:12: this must be a program and its arguments"),
    ];
    let mut wrong = String::new();
    for (from, to, expected) in rules {
        let said = complaint(from, to);
        let mut lines: Vec<_> = said.lines().map(str::to_owned).collect();
        lines.sort();
        let met = expected.split('\n').all(|line| {
            let line = if line.starts_with("r1.toml") { line.to_owned() } else { format!("r1.toml:{line}") };
            lines.iter().any(|said| said.starts_with(&line))
        });
        if !met {
            wrong += &format!("{from} -> {to}\n  expected {expected}\n  said {said}\n");
        }
    }
    assert_eq!(wrong, "");
}

/// A target's file that ends with these lines.
fn target_with(lines: &str) -> Result<Config, ConfigErrors> {
    Config::parse_for(Program::Agent, "t1.toml", &format!("{TARGET}\n{lines}"))
}

#[test]
fn checks_say_what_is_asked_how_often_and_for_whom() {
    let lines = r#"drain_timeout_s = 30
[[agent.check]]
name = "web"
probe = "http"
port = 80
path = "/health"
status = "200-204"
interval_ms = 500
[[agent.check]]
name = "database"
probe = "tcp"
address = "[::1]:5432"
fall = 1
[[agent.check]]
name = "mine"
probe = "command"
command = ["/bin/ready", "-v", "-v"]"#;
    let agent = target_with(lines).unwrap().agent.unwrap();
    assert_eq!(agent.drain_timeout, Duration::from_secs(30));
    let ms = Duration::from_millis;
    let usual = Pace { interval: ms(1_000), timeout: ms(1_000), rise: 2, fall: 3 };
    let http = Probe::Http { address: "127.0.0.1:80".parse().unwrap(), path: "/health".into(), statuses: (200, 204) };
    let check = |name: &str, probe, port, pace| Check { name: name.into(), probe, port, pace };
    let expected = [
        check("web", http, Some(80), Pace { interval: ms(500), timeout: ms(500), ..usual }),
        check("database", Probe::Connect("[::1]:5432".parse().unwrap()), None, Pace { fall: 1, ..usual }),
        check("mine", Probe::Command(["/bin/ready", "-v", "-v"].map(String::from).to_vec()), None, usual),
    ];
    assert_eq!(agent.checks, expected);
}

#[test]
fn each_rule_of_checks_has_its_sentence() {
    let rules = [
        ("probe = \"tcp\"", "name the `port` it is about, or the `address` to connect to"),
        ("probe = \"tcp\"\nport = 80\npath = \"/\"", "only probe = \"http\" asks for a path"),
        ("probe = \"command\"", "probe = \"command\" needs `command`"),
        ("probe = \"command\"\ncommand = [\"ready\"]", "its first word a program's whole path"),
        ("probe = \"http\"\nport = 80\npath = \"health\"", "a path begins with '/'"),
        ("probe = \"http\"\nport = 80\nstatus = \"300-200\"", "statuses are 200 or \"200-399\""),
        ("probe = \"tcp\"\nport = 80\ntimeout_ms = 2000", "at most interval_ms"),
        (
            "probe = \"tcp\"\nport = 80\n[[agent.check]]\nname = \"x\"\nprobe = \"tcp\"\nport = 81",
            "another check is called \"x\"",
        ),
    ];
    for (lines, expected) in rules {
        let said = target_with(&format!("[[agent.check]]\nname = \"x\"\n{lines}")).unwrap_err().to_string();
        assert!(said.contains(expected), "{lines}: {said}");
    }
}

#[test]
fn every_key_is_documented() {
    let page = include_str!("../../../../docs/configuration.md");
    let keys = Config::keys();
    assert!(keys.len() > 45, "{keys:?}");
    let chapters: Vec<_> = page.split("\n## ").collect();
    let chapter = |section: &str| {
        let headings = [format!("`[{section}]`"), format!("`[[{section}]]`")];
        chapters.iter().find(|chapter| headings.iter().any(|heading| chapter.starts_with(heading)))
    };
    for key in keys.iter().filter(|key| chapter(key).is_none()) {
        let (section, name) = key.rsplit_once('.').unwrap_or_else(|| panic!("no chapter on [{key}]"));
        let chapter = chapter(section).unwrap_or_else(|| panic!("no chapter on [{section}]"));
        assert!(chapter.contains(&format!("| `{name}` |")), "docs/configuration.md does not describe {key}");
    }
}

#[test]
fn the_commented_examples_are_valid_and_show_the_defaults() {
    let router = include_str!("../../../../dist/examples/router.toml");
    let agent = include_str!("../../../../dist/examples/agent.toml");
    let examples = [
        (Program::Router, router, ["state_dir", "admin", "lease_ms"]),
        (Program::Agent, agent, ["state_dir", "admin", "interface"]),
    ];
    for (program, text, keys) in examples {
        let example = Config::parse_for(program, "/etc/vipa/example.toml", text).unwrap();
        // What is commented out changes nothing when it is not.
        let mut spelt = text.to_owned();
        for key in keys {
            assert!(spelt.contains(&format!("\n# {key} = ")), "{key}");
            spelt = spelt.replace(&format!("\n# {key} = "), &format!("\n{key} = "));
        }
        assert_eq!(Config::parse_for(program, "/etc/vipa/example.toml", &spelt).unwrap(), example);
    }
}

#[test]
fn a_router_and_an_agent_of_one_name_share_no_folder() {
    let both = format!("{ROUTER}[agent]\naddress = \"10.77.0.31\"\n");
    let folders = |program| {
        let node = Config::parse_for(program, "r1.toml", &both).unwrap().node;
        (node.state_dir, node.admin)
    };
    assert_eq!(folders(Program::Router), ("/var/lib/vipad/r1".into(), "/run/vipad/r1/admin.sock".into()));
    assert_eq!(folders(Program::Agent), ("/var/lib/vipa-agent/r1".into(), "/run/vipa-agent/r1/admin.sock".into()));
}

#[test]
fn the_examples_in_the_documentation_are_valid() {
    let page = include_str!("../../../../docs/configuration.md");
    let examples: Vec<_> = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 2, "one router, one target");
    for example in examples {
        Config::parse("example.toml", example).unwrap();
    }
}

proptest! {
    #[test]
    fn no_text_whatever_makes_reading_panic(text in "\\PC*") {
        let _ = Config::parse("any.toml", &text);
    }

    #[test]
    fn a_damaged_configuration_is_refused_or_valid_but_never_a_panic(at in 0..ROUTER.len(), with in "[\\[\\]\"=0-9a-z{}.\n]{0,3}", cut in 0usize..6) {
        prop_assume!(ROUTER.is_char_boundary(at));
        let end = (at + cut).min(ROUTER.len());
        let text = format!("{}{with}{}", &ROUTER[..at], &ROUTER[end..]);
        if let Err(errors) = Config::parse("r1.toml", &text) {
            prop_assert!(!errors.problems.is_empty());
        }
    }
}

/// What is wrong with a router that has so many VIPAs, each with so many candidates of its own.
fn sized(vipas: u32, candidates: u32) -> Result<(), String> {
    let (start, _) = ROUTER.split_once("[[vipa]]").expect("the VIPA comes last");
    let mut text = start.to_owned();
    for vipa in 0..vipas {
        let own = |n| format!("\"{}\"", Ipv4Addr::from_bits(0x0a20_0000 + vipa * candidates + n));
        let list: Vec<String> = (0..candidates).map(own).collect();
        let address = Ipv4Addr::from_bits(0x0a10_0000 + vipa);
        text += &format!("[[vipa]]\naddress = \"{address}\"\nranks = {{ r2 = 100, r1 = 200 }}\n");
        text += &format!("[[vipa.service]]\nports = 80\ncandidates = [{}]\n", list.join(", "));
    }
    Config::parse_for(Program::Router, "r1.toml", &text).map(|_| ()).map_err(|errors| errors.to_string())
}

#[test]
fn what_the_connection_table_cannot_tell_apart_is_refused_with_its_place_and_the_limit() {
    assert_eq!(sized(4_096, 1), Ok(()));
    // Each takes six lines, after the first twenty-five.
    let line = 26 + 6 * 4_096;
    let expected = format!("r1.toml:{line}:1: a router has at most 4096 VIPAs, and this is one more of 5000");
    assert!(sized(5_000, 1).unwrap_err().starts_with(&expected), "{}", sized(5_000, 1).unwrap_err());
    assert_eq!(sized(4, 2_048), Ok(()));
    let message = sized(4, 2_049).unwrap_err();
    assert!(message.starts_with("r1.toml:44:1: a router has at most 8192 paths"), "{message}");
    assert_eq!(message.lines().count(), 1);
}
