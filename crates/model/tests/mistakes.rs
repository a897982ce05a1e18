//! Deliberate mistakes in a configuration, each with the exact words that meet it: what is wrong, where, and what would be right.

use vipa_model::config::{Config, Program};

const ROUTER: &str = r#"[node]
name = "r1"
listen = "10.77.0.11:7400"

[pki]
ca = "ca.pem"
certificate = "r1.pem"
key = "r1.key"

[cluster]
name = "demo"
key = "000102030405060708090a0b0c0d0e0f"
voters = ["r1", "r2", "t1"]

[cluster.routers]
r1 = "10.77.0.11:7400"
r2 = "10.77.0.12:7400"

[[port]]
name = "p0"
device = "net_af_packet0,iface=eth0"
address = "10.77.0.21/24"
gateway = "10.77.0.1"

[[vipa]]
address = "10.77.0.100"
ranks = { r1 = 200, r2 = 100 }

[[vipa.service]]
ports = 80
candidates = ["10.77.0.31", "10.77.0.32"]
"#;

const TARGET: &str = r#"[node]
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
r2 = "10.77.0.12:7400"

[agent]
address = "10.77.0.31"
"#;

/// A mistake: the file, the text that is replaced, what it is replaced by, and what is said.
type Mistake = (Program, &'static str, &'static str, &'static [&'static str]);

use Program::{Agent, Router};

#[rustfmt::skip]
const MISTAKES: &[Mistake] = &[
    (Router, "name = \"demo\"", "name = \"demo", &[
        "vipa.toml:11:13: invalid basic string, expected `\"`",
    ]),
    (Router, "name = \"r1\"", "", &[
        "vipa.toml:1:1: `node.name` is missing; such as name = \"r1\"",
    ]),
    (Router, "name = \"r1\"", "name = \"R_1\"", &[
        "vipa.toml:2:8: \"R_1\" is not a node name: use 1 to 63 of a-z, 0-9 and '-', with no '-' at either end",
    ]),
    (Router, "name = \"r1\"", "nmae = \"r1\"", &[
        "vipa.toml:1:1: `node.name` is missing; such as name = \"r1\"",
        "vipa.toml:2:1: unknown key `nmae` in [node]; did you mean `name`?",
    ]),
    (Router, "listen = \"10.77.0.11:7400\"", "", &[
        "vipa.toml:1:1: a router needs `node.listen`, such as listen = \"10.0.0.1:7400\"",
    ]),
    (Router, "listen = \"10.77.0.11:7400\"", "listen = \"10.77.0.11\"", &[
        "vipa.toml:3:10: this must be an IP address and a port such as \"10.0.0.1:7400\", and is the text \"10.77.0.11\"",
    ]),
    (Router, "listen = \"10.77.0.11:7400\"", "listen = \"10.77.0.11:0\"", &[
        "vipa.toml:3:10: `node.listen` needs a port other nodes can know, such as 7400: not 0",
    ]),
    (Router, "[pki]\n", "[pkj]\n", &[
        "vipa.toml:1:1: section [pki] is missing; it needs `ca`, such as ca = \"ca.pem\" (`vipactl pki init` makes it)",
        "vipa.toml:1:1: section [pki] is missing; it needs `certificate`, such as certificate = \"r1.pem\" (`vipactl pki issue r1 --router` makes it)",
        "vipa.toml:1:1: section [pki] is missing; it needs `key`, such as key = \"r1.key\" (`vipactl pki issue r1 --router` makes it)",
        "vipa.toml:5:2: unknown key `pkj`; did you mean `pki`?",
    ]),
    (Router, "key = \"r1.key\"", "", &[
        "vipa.toml:5:1: `pki.key` is missing; such as key = \"r1.key\" (`vipactl pki issue r1 --router` makes it)",
    ]),
    (Router, "ca = \"ca.pem\"", "ca = \"\"", &[
        "vipa.toml:6:6: this must not be empty",
    ]),
    (Router, "ca = \"ca.pem\"", "ca = \"ca.pem\"\nrevoked_serials = [\"0x12\"]", &[
        "vipa.toml:7:20: this must be a serial number of 1 to 40 hexadecimal digits; `openssl x509 -serial -noout -in FILE` prints it",
    ]),
    (Router, "ca = \"ca.pem\"", "ca = \"ca.pem\"\nrevoked = [\"12\"]", &[
        "vipa.toml:7:1: unknown key `revoked` in [pki]; here may stand `ca`, `certificate`, `key`, `revoked_nodes`, `revoked_serials`",
    ]),
    (Router, "key = \"000102030405060708090a0b0c0d0e0f\"", "key = \"secret\"", &[
        "vipa.toml:12:7: this must be 32 hexadecimal digits, the same on every node; `openssl rand -hex 16` makes some",
    ]),
    (Router, "voters = [\"r1\", \"r2\", \"t1\"]", "voters = [\"r1\", \"r2\"]", &[
        "vipa.toml:13:10: 2 voters make no good majority: name 3, 5 or 7 nodes, routers or targets, the same on every node",
    ]),
    (Router, "voters = [\"r1\", \"r2\", \"t1\"]", "voters = [\"r1\", \"r2\", \"r1\"]", &[
        "vipa.toml:13:23: r1 is in this list already; name each once",
    ]),
    (Router, "voters = [\"r1\", \"r2\", \"t1\"]", "voters = [\"r1\", \"r2\", \"t1\", \"t2\"]", &[
        "vipa.toml:13:10: 4 voters make no good majority: name 3, 5 or 7 nodes, routers or targets, the same on every node; an even number is for the way from one to the next, with voters_version above 1",
    ]),
    (Router, "voters = [\"r1\", \"r2\", \"t1\"]", "voters = \"r1\"", &[
        "vipa.toml:13:10: this must be a list in brackets [ ], and is the text \"r1\"",
    ]),
    (Router, "voters = [\"r1\", \"r2\", \"t1\"]", "", &[
        "vipa.toml:10:1: `cluster.voters` is missing; such as voters = [\"r1\", \"r2\", \"t1\"]",
    ]),
    (Router, "voters = [\"r1\", \"r2\", \"t1\"]", "voters = [\"r1\", \"r2\", \"t1\"]\nquorum = \"none\"", &[
        "vipa.toml:13:10: with quorum = \"none\" nobody votes: leave `voters` out",
    ]),
    (Router, "voters = [\"r1\", \"r2\", \"t1\"]", "voters = [\"r1\", \"r2\", \"t1\"]\nlease_ms = 10", &[
        "vipa.toml:14:12: this must be a number of milliseconds from 20 to 60000, and is the number 10",
    ]),
    (Router, "voters = [\"r1\", \"r2\", \"t1\"]", "voters = [\"r1\", \"r2\", \"t1\"]\nlease_ms = \"100\"", &[
        "vipa.toml:14:12: this must be a number of milliseconds from 20 to 60000, and is the text \"100\"",
    ]),
    (Router, "voters = [\"r1\", \"r2\", \"t1\"]", "voters = [\"r1\", \"r2\", \"t1\"]\nbeat_ms = 50", &[
        "vipa.toml:14:11: this must be a number of milliseconds (a quarter of lease_ms) from 1 to 25, and is the number 50",
    ]),
    (Router, "voters = [\"r1\", \"r2\", \"t1\"]", "voters = [\"r1\", \"r2\", \"t1\"]\nlease_mss = 100", &[
        "vipa.toml:14:1: unknown key `lease_mss` in [cluster]; did you mean `lease_ms`?",
    ]),
    (Router, "r1 = \"10.77.0.11:7400\"\n", "r3 = \"10.77.0.13:7400\"\n", &[
        "vipa.toml:15:1: [cluster.routers] lacks this node: add r1 = \"IP:PORT\", where the others reach it",
        "vipa.toml:27:11: r1 is not in [cluster.routers]; only routers have ranks",
    ]),
    (Router, "r2 = \"10.77.0.12:7400\"", "r2 = \"10.77.0.11:7400\"", &[
        "vipa.toml:17:6: 10.77.0.11:7400 is r1's already; each router has its own",
    ]),
    (Router, "[[port]]", "[port]", &[
        "vipa.toml:1:1: a router needs a [[port]] with `name`, `device` and `address`; see dpdk-config/",
        "vipa.toml:19:1: `port` may stand more than once: write [[port]]",
    ]),
    (Router, "device = \"net_af_packet0,iface=eth0\"", "device = \"af_packet,iface=eth0\"", &[
        "vipa.toml:21:10: DPDK has no driver \"af_packet\"; did you mean \"net_af_packet0,iface=eth0\"?",
    ]),
    (Router, "device = \"net_af_packet0,iface=eth0\"", "device = \"net_af_paket0,iface=eth0\"", &[
        "vipa.toml:21:10: DPDK has no driver \"net_af_paket\"; did you mean \"net_af_packet0,iface=eth0\"?",
    ]),
    (Router, "device = \"net_af_packet0,iface=eth0\"", "device = \"net_af_packet0\"", &[
        "vipa.toml:21:10: net_af_packet needs the argument `iface`, such as \"net_af_packet0,iface=eth0\"",
    ]),
    (Router, "device = \"net_af_packet0,iface=eth0\"", "device = \"net_af_packet0,ifname=eth0\"", &[
        "vipa.toml:21:10: net_af_packet has no argument `ifname`; did you mean `iface`?",
    ]),
    (Router, "device = \"net_af_packet0,iface=eth0\"", "device = \"eth0\"", &[
        "vipa.toml:21:10: \"eth0\" is no device of DPDK's; write a PCI address such as \"0000:03:00.0\", or a virtual device such as \"net_af_packet0,iface=eth0\"; an interface of the kernel's is one as \"net_af_packet0,iface=eth0\"",
    ]),
    (Router, "device = \"net_af_packet0,iface=eth0\"", "device = \"03:00\"", &[
        "vipa.toml:21:10: \"03:00\" is no PCI address; write a PCI address such as \"0000:03:00.0\", or a virtual device such as \"net_af_packet0,iface=eth0\" (`dpdk-devbind.py --status-dev net` lists them)",
    ]),
    (Router, "device = \"net_af_packet0,iface=eth0\"", "device = \"net_af_packet0,iface=eth0\"\nmtu = 9000", &[
        "vipa.toml:22:7: net_af_packet carries no more than an mtu of 1500: set mtu = 1500, or use a driver for larger frames, such as net_af_xdp",
    ]),
    (Router, "device = \"net_af_packet0,iface=eth0\"", "device = \"net_af_packet0,iface=eth0\"\nmtu = 100", &[
        "vipa.toml:22:7: this must be a number of bytes from 576 to 9600, and is the number 100",
    ]),
    (Router, "device = \"net_af_packet0,iface=eth0\"", "device = \"net_af_packet0,iface=eth0\"\nqueues = 0", &[
        "vipa.toml:22:10: this must be a number of queues from 1 to 64, and is the number 0",
    ]),
    (Router, "device = \"net_af_packet0,iface=eth0\"", "device = \"net_af_packet0,iface=eth0\"\nvlan = 4095", &[
        "vipa.toml:22:8: this must be a VLAN identifier from 1 to 4094, and is the number 4095",
    ]),
    (Router, "device = \"net_af_packet0,iface=eth0\"", "device = \"net_af_packet0,iface=eth0\"\nkernel_interface = \"a-name-that-is-too-long\"", &[
        "vipa.toml:22:20: an interface's name has at most 15 letters, digits, '-', '_' or '.'",
    ]),
    (Router, "device = \"net_af_packet0,iface=eth0\"", "device = \"net_af_packet0,iface=eth0\"\nkernel_driver = \"kni\"", &[
        "vipa.toml:22:17: this must be \"tap\" or \"virtio-user\", and is the text \"kni\"",
    ]),
    (Router, "address = \"10.77.0.21/24\"", "address = \"10.77.0.21\"", &[
        "vipa.toml:22:11: this must be an IPv4 address and its network's prefix length from 8 to 30, such as \"10.0.0.1/24\"",
    ]),
    (Router, "gateway = \"10.77.0.1\"", "gateway = \"10.78.0.1\"", &[
        "vipa.toml:23:11: the gateway must be another host on the port's network 10.77.0.21/24",
    ]),
    (Router, "gateway = \"10.77.0.1\"", "gateway6 = \"2001:db8::1\"", &[
        "vipa.toml:23:12: the gateway must be link-local (fe80::…), or another host on the network of `address6`",
    ]),
    (Router, "gateway = \"10.77.0.1\"\n", "gateway = \"10.77.0.1\"\n\n[[port]]\nname = \"p1\"\ndevice = \"net_af_packet0,iface=eth0\"\naddress = \"10.78.0.21/24\"\n", &[
        "vipa.toml:25:1: port p0 has this device already; each port needs its own",
    ]),
    (Router, "[[port]]", "[workers]\ncores = []\n\n[[port]]", &[
        "vipa.toml:20:9: name at least one core, such as [0]",
    ]),
    (Router, "[[port]]", "[workers]\nidle = \"busy\"\n\n[[port]]", &[
        "vipa.toml:20:8: this must be \"sleep\" or \"pause\" or \"spin\", and is the text \"busy\"",
    ]),
    (Router, "[[port]]", "[table]\nconnections = 10\n\n[[port]]", &[
        "vipa.toml:20:15: this must be a number of connections from 1024 to 1000000000, and is the number 10",
    ]),
    (Router, "[[port]]", "[dpdk]\nmemory = \"huge\"\n\n[[port]]", &[
        "vipa.toml:20:10: this must be \"auto\" or \"hugepages\" or \"no-huge\", and is the text \"huge\"",
    ]),
    (Router, "[[port]]", "[announce]\ntable = 254\n\n[[port]]", &[
        "vipa.toml:20:9: this table is the kernel's own; use one of yours, such as 7400",
    ]),
    (Router, "[[port]]", "[hooks]\nowned = [\"logger\"]\n\n[[port]]", &[
        "vipa.toml:20:10: name the program by its whole path, such as \"/usr/bin/logger\"",
    ]),
    (Router, "address = \"10.77.0.100\"", "address = \"10.77.0.300\"", &[
        "vipa.toml:26:11: this must be an IP address such as \"192.0.2.10\", and is the text \"10.77.0.300\"",
    ]),
    (Router, "address = \"10.77.0.100\"", "address = \"224.0.0.1\"", &[
        "vipa.toml:26:11: 224.0.0.1 is no host's address; use one such as \"192.0.2.10\" or \"2001:db8::10\"",
    ]),
    (Router, "address = \"10.77.0.100\"", "address = \"10.77.0.21\"", &[
        "vipa.toml:26:11: this is a port's own address; a VIPA needs one of its own",
    ]),
    (Router, "address = \"10.77.0.100\"", "address = \"10.77.0.31\"", &[
        "vipa.toml:26:11: the VIPA is among its candidates; name the targets' own addresses",
    ]),
    (Router, "ranks = { r1 = 200, r2 = 100 }", "ranks = { r1 = 200, r2 = 200 }", &[
        "vipa.toml:27:26: r1 has rank 200 too; the order of succession needs them different",
    ]),
    (Router, "ranks = { r1 = 200, r2 = 100 }", "ranks = { r1 = 200, r2 = 255 }", &[
        "vipa.toml:27:26: this must be a rank from 1 to 254, and is the number 255",
    ]),
    (Router, "ranks = { r1 = 200, r2 = 100 }", "ranks = { r1 = 200, t1 = 100 }", &[
        "vipa.toml:27:21: t1 is not in [cluster.routers]; only routers have ranks",
    ]),
    (Router, "ranks = { r1 = 200, r2 = 100 }", "ranks = { r2 = 100 }", &[
        "vipa.toml:27:9: this node needs a rank here: add r1 = 100, or take the [[vipa]] out",
    ]),
    (Router, "ranks = { r1 = 200, r2 = 100 }", "ranks = { r1 = 200, r2 = 100 }\ntakeback = \"never\"", &[
        "vipa.toml:28:12: this must be \"immediate\" or \"when-idle\" or \"manual\", and is the text \"never\"",
    ]),
    (Router, "ports = 80", "ports = \"90-80\"", &[
        "vipa.toml:30:9: ports are 80, \"8000-8099\" (the lower first) or \"all\", and not \"90-80\"",
    ]),
    (Router, "ports = 80", "ports = 80\nprotocol = \"sctp\"", &[
        "vipa.toml:31:12: this must be \"tcp\" or \"udp\", and is the text \"sctp\"",
    ]),
    (Router, "ports = 80", "ports = 80\nprotocol = \"udp\"\nbalance = \"round-robin\"", &[
        "vipa.toml:32:11: udp needs \"maglev\": no target reports its clients, and only maglev finds each one's again",
    ]),
    (Router, "ports = 80", "ports = 80\nforwarding = \"vxlan\"", &[
        "vipa.toml:31:14: this must be \"direct\" or \"ipip\" or \"gre\" or \"gue\" or \"nat\", and is the text \"vxlan\"",
    ]),
    (Router, "ports = 80", "ports = 80\ntarget_port = 8080", &[
        "vipa.toml:31:15: only forwarding = \"nat\" changes the port; the other ways keep it",
    ]),
    (Router, "ports = 80", "ports = 80\nallow = [\"10.1.2.3/8\"]", &[
        "vipa.toml:31:10: 10.1.2.3/8 has bits beyond its length; did you mean \"10.0.0.0/8\"?",
    ]),
    (Router, "candidates = [\"10.77.0.31\", \"10.77.0.32\"]", "candidates = []", &[
        "vipa.toml:31:14: a service without candidates serves nobody: name at least one target",
    ]),
    (Router, "candidates = [\"10.77.0.31\", \"10.77.0.32\"]", "candidates = [\"10.77.0.31\", \"10.77.0.31\"]", &[
        "vipa.toml:31:29: 10.77.0.31 is in this list already; name each once",
    ]),
    (Router, "candidates = [\"10.77.0.31\", \"10.77.0.32\"]", "candidates = [{ address = \"10.77.0.31\", wieght = 2 }]", &[
        "vipa.toml:31:41: unknown key `wieght` in [vipa.service.candidates]; did you mean `weight`?",
    ]),
    (Router, "candidates = [\"10.77.0.31\", \"10.77.0.32\"]", "candidates = [\"web1.example.org\"]", &[
        "vipa.toml:31:15: this must be an IP address such as \"192.0.2.10\", and is the text \"web1.example.org\"",
    ]),
    (Router, "candidates = [\"10.77.0.31\", \"10.77.0.32\"]", "candidates = [\"10.77.0.31\", \"10.77.0.32\"]\n\n[[vipa.service]]\nports = \"70-90\"\ncandidates = [\"10.77.0.31\"]", &[
        "vipa.toml:33:1: another service of this VIPA has ports 80-80; keep them apart",
    ]),
    (Router, "candidates = [\"10.77.0.31\", \"10.77.0.32\"]", "candidates = [\"10.77.0.31\", \"10.77.0.32\"]\n\n[[vipa]]\naddress = \"10.77.0.100\"\nranks = { r2 = 200, r1 = 100 }", &[
        "vipa.toml:33:1: VIPA 10.77.0.100 has a [[vipa]] already; keep one",
    ]),
    (Router, "[[vipa.service]]\nports = 80\ncandidates = [\"10.77.0.31\", \"10.77.0.32\"]", "", &[
        "vipa.toml:25:1: this node has the highest rank, so it must list the services: add [[vipa.service]]",
    ]),
    (Agent, "[agent]\naddress = \"10.77.0.31\"", "", &[
        "vipa.toml:1:1: section [agent] is missing; it needs `address`, such as address = \"10.0.0.31\"",
    ]),
    (Agent, "address = \"10.77.0.31\"", "", &[
        "vipa.toml:18:1: `agent.address` is missing; such as address = \"10.0.0.31\"",
    ]),
    (Agent, "address = \"10.77.0.31\"", "address = \"10.77.0.31\"\nobserve = \"ebpf\"", &[
        "vipa.toml:20:11: this must be \"auto\" or \"bpf\" or \"diag\", and is the text \"ebpf\"",
    ]),
    (Agent, "address = \"10.77.0.31\"", "address = \"10.77.0.31\"\n\n[[agent.check]]\nname = \"web\"\nprobe = \"tcp\"", &[
        "vipa.toml:21:1: name the `port` it is about, or the `address` to connect to, such as \"127.0.0.1:8080\"",
    ]),
    (Agent, "address = \"10.77.0.31\"", "address = \"10.77.0.31\"\n\n[[agent.check]]\nname = \"web\"\nprobe = \"http\"\nport = 80\npath = \"health\"", &[
        "vipa.toml:25:8: a path begins with '/' and has no spaces, such as \"/health\"",
    ]),
    (Agent, "address = \"10.77.0.31\"", "address = \"10.77.0.31\"\n\n[[agent.check]]\nname = \"ready\"\nprobe = \"command\"\ncommand = [\"ready\"]", &[
        "vipa.toml:24:11: a command is a list, its first word a program's whole path",
    ]),
];

fn said(program: Program, from: &str, to: &str) -> Option<String> {
    let text = match program {
        Router => ROUTER,
        Agent => TARGET,
    };
    assert!(text.contains(from), "{from:?} is not in the file");
    Config::parse_for(program, "vipa.toml", &text.replacen(from, to, 1)).err().map(|errors| errors.to_string())
}

#[test]
fn the_files_without_a_mistake_are_valid() {
    for (program, text) in [(Router, ROUTER), (Agent, TARGET)] {
        Config::parse_for(program, "vipa.toml", text).unwrap();
    }
}

#[test]
fn each_mistake_is_met_with_what_where_and_what_to_do() {
    assert!(MISTAKES.len() >= 68, "{}", MISTAKES.len());
    let mut wrong = String::new();
    for (program, from, to, expected) in MISTAKES {
        let said = said(*program, from, to).unwrap_or_else(|| "nothing".into());
        if said != expected.join("\n") {
            wrong += &format!("{from:?} -> {to:?}\n  expected {}\n  said     {said}\n", expected.join("\n"));
        }
    }
    assert_eq!(wrong, "");
}

#[test]
fn all_of_them_in_one_file_are_said_at_once() {
    let text = ROUTER
        .replace("voters = [\"r1\", \"r2\", \"t1\"]", "voters = [\"r1\", \"r2\", \"t1\"]\nlease_ms = 10")
        .replace("iface=eth0\"", "iface=eth0\"\nmtu = 9000\nqeues = 2")
        .replace("ports = 80", "ports = \"90-80\"")
        .replace("r2 = 100 }", "r2 = 300 }");
    let errors = Config::parse_for(Router, "vipa.toml", &text).unwrap_err();
    let lines: Vec<usize> = errors.problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [14, 23, 24, 30, 33], "{errors}");
}
