//! The sections of the file in their order, and the rules between them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use toml::{Spanned, de::DeTable};

use super::{
    ADMIN_SOCKET, AdminAccess, Agent, Cluster, Config, ConfigErrors, Decap, Dpdk, Fit, Idle, KernelDriver, Memory,
    Misfit, Node, Observe, Pki, Port, Program, Table, Workers, announce, api, check, device, metrics,
    problems::Problems,
    read::{At, Section, Value, choice, flag, host, list, node, number, parsed, text},
    vipa,
};
use crate::{NodeName, Voters};

const DEFAULT_LEASE_MS: u64 = 100;
const LONGEST_SETTING_MS: u64 = 60_000;
const LAST_VOTERS_VERSION: u32 = 1_000_000;
/// Longest age the connection table can tell, seconds: `vipa_flow::LONGEST_AGE`.
const LONGEST_SILENCE_S: u64 = 14_400;

const SOCKET: &str = "an IP address and a port such as \"10.0.0.1:7400\"";

pub(super) fn config(
    file: &str,
    text: &str,
    program: Option<Program>,
    fit: Option<Fit>,
) -> Result<Config, ConfigErrors> {
    let mut problems = Problems::default();
    let (tree, syntax) = DeTable::parse_recoverable(text);
    for error in syntax {
        problems.add::<()>(error.span().unwrap_or(0..0), error.message());
    }
    if !problems.is_empty() {
        // What was recovered would be blamed for things that are there but could not be read.
        return Err(problems.into_errors(file, text));
    }
    let further = fit.map(|fit| Further { fit, tree: &tree });
    match read(&mut problems, file, Section::top(&tree), program, further) {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems.into_errors(file, text)),
    }
}

/// Asks for everything there may be, and gives the names asked for.
pub(super) fn all_keys() -> Vec<String> {
    let every_section = "[cluster.routers]\n[[port]]\n[[vipa]]\n[[vipa.service]]\n[agent]\n[[agent.check]]\n";
    let (tree, _) = DeTable::parse_recoverable(every_section);
    let mut problems = Problems::default();
    // What is wrong with it is beside the point.
    let _ = read(&mut problems, "", Section::top(&tree), None, None);
    problems.keys.sort();
    problems.keys.dedup();
    problems.keys
}

/// What else ports and VIPAs must meet, and where in the file they are.
struct Further<'d> {
    fit: Fit,
    tree: &'d Spanned<DeTable<'d>>,
}

fn read(
    problems: &mut Problems,
    file: &str,
    mut top: Section<'_>,
    program: Option<Program>,
    further: Option<Further<'_>>,
) -> Option<Config> {
    let mut section = |problems: &mut Problems, path| {
        let value = top.get(problems, path);
        Section::of(path, value, problems)
    };
    let (node_section, pki_section) = (section(problems, "node"), section(problems, "pki"));
    let admin_section = section(problems, "admin");
    let cluster_section = section(problems, "cluster");
    let (dpdk_section, workers_section) = (section(problems, "dpdk"), section(problems, "workers"));
    let (table_section, agent_section) = (section(problems, "table"), section(problems, "agent"));
    let (announce_section, hooks_section) = (section(problems, "announce"), section(problems, "hooks"));
    let (autonomics_section, metrics_section) = (section(problems, "autonomics"), section(problems, "metrics"));
    let api_section = section(problems, "api");
    let port_sections = top.tables(problems, "port", "port");
    let vipa_sections = top.tables(problems, "vipa", "vipa");
    top.finish(problems);

    let is_router = program == Some(Program::Router) || !port_sections.is_empty() || !vipa_sections.is_empty();
    let is_target = program == Some(Program::Agent) || agent_section.is_present();
    let node_span = node_section.span.clone();
    let user = if program == Some(Program::Router) || program.is_none() && is_router {
        Program::Router
    } else {
        Program::Agent
    };
    let access = announce::read_admin(problems, admin_section);
    let node = read_node(problems, node_section, user).zip(access).map(|(node, access)| Node { access, ..node });
    let pki = read_pki(problems, pki_section, file);
    let cluster = read_cluster(problems, cluster_section);
    let dpdk = read_dpdk(problems, dpdk_section, node.as_ref());
    let workers = read_workers(problems, workers_section);
    let table = read_table(problems, table_section);
    let announce = announce::read_announce(problems, announce_section);
    let hooks = announce::read_hooks(problems, hooks_section);
    let autonomics = announce::read_autonomics(problems, autonomics_section);
    if !is_router && api_section.is_present() {
        problems.add::<()>(api_section.span.clone(), "[api] is of a router, and this is a target; leave it out");
    }
    let api = api::read_api(problems, api_section, pki.as_ref(), file);
    let metrics = metrics::read_metrics(problems, metrics_section);
    let agent = if is_target { Some(read_agent(problems, agent_section)) } else { None };
    let ports = read_ports(problems, port_sections);

    let surroundings = vipa::Surroundings {
        me: node.as_ref().map(|node| &node.name),
        routers: cluster.as_ref().map(|cluster| &cluster.value.routers[..]),
        ports: ports.as_deref().unwrap_or_default(),
    };
    let vipas = vipa::read_all(problems, vipa_sections, &surroundings);
    if let (Some(Further { fit, tree }), Some(ports), Some(vipas)) = (further, &ports, &vipas) {
        for Misfit { place, message } in fit(ports, vipas) {
            problems.add::<()>(place.span(tree), message);
        }
    }
    let (node, cluster) = (node?, cluster?);
    if is_router || node.listen.is_some() {
        check_router(problems, &node, &cluster, ports.as_deref(), node_span);
    } else if !is_target {
        let message = "this is neither a router (add `listen` here and a [[port]]) nor a target (add [agent])";
        problems.add::<()>(node_span, message);
    }
    let agent = match agent {
        Some(agent) => Some(agent?),
        None => None,
    };
    let (pki, dpdk, ports, workers, table) = (pki?, dpdk?, ports?, workers?, table?);
    let (announce, hooks, autonomics, metrics, vipas, api) = (announce?, hooks?, autonomics?, metrics?, vipas?, api?);
    Some(Config {
        node,
        pki,
        cluster: cluster.value,
        dpdk,
        ports,
        workers,
        table,
        announce,
        hooks,
        autonomics,
        metrics,
        vipas,
        api,
        agent,
    })
}

fn check_router(
    problems: &mut Problems,
    node: &Node,
    cluster: &At<Cluster>,
    ports: Option<&[Port]>,
    node_span: std::ops::Range<usize>,
) {
    let name = &node.name;
    if node.listen.is_none() {
        problems.add::<()>(node_span.clone(), "a router needs `node.listen`, such as listen = \"10.0.0.1:7400\"");
    }
    if !cluster.value.routers.iter().any(|(router, _)| router == name) {
        let message = format!("[cluster.routers] lacks this node: add {name} = \"IP:PORT\", where the others reach it");
        problems.add::<()>(cluster.span.clone(), message);
    }
    if ports.is_some_and(<[_]>::is_empty) {
        let message = "a router needs a [[port]] with `name`, `device` and `address`; see dpdk-config/";
        problems.add::<()>(node_span, message);
    }
}

/// A router and an agent on one machine, and several of each, have folders of their own.
fn read_node(problems: &mut Problems, mut section: Section<'_>, user: Program) -> Option<Node> {
    let name = section.required(problems, "name", "name = \"r1\"", node);
    let listen = section.optional(problems, "listen", parsed::<SocketAddr>(SOCKET));
    let state_dir = section.optional(problems, "state_dir", text);
    let admin = section.optional(problems, "admin", text);
    section.finish(problems);
    let name = name?.value;
    let state_dir = state_dir?.map_or_else(|| Path::new(user.state_root()).join(name.as_str()), |dir| dir.value.into());
    let default_admin = || Path::new(user.runtime_root()).join(name.as_str()).join(ADMIN_SOCKET);
    let admin = admin?.map_or_else(default_admin, |admin| admin.value.into());
    let listen = listen?;
    if let Some(At { span, .. }) = listen.as_ref().filter(|listen| listen.value.port() == 0) {
        return problems.add(span.clone(), "`node.listen` needs a port other nodes can know, such as 7400: not 0");
    }
    let listen = listen.map(|listen| listen.value);
    Some(Node { name, listen, state_dir, admin, access: AdminAccess::default() })
}

fn read_pki(problems: &mut Problems, mut section: Section<'_>, file: &str) -> Option<Pki> {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    let mut path =
        |key, example| -> Option<PathBuf> { Some(folder.join(section.required(problems, key, example, text)?.value)) };
    let ca = path("ca", "ca = \"ca.pem\" (`vipactl pki init` makes it)");
    let certificate = path("certificate", "certificate = \"r1.pem\" (`vipactl pki issue r1 --router` makes it)");
    let key = path("key", "key = \"r1.key\" (`vipactl pki issue r1 --router` makes it)");
    let revoked_nodes = section.or(problems, "revoked_nodes", Vec::new(), list(node));
    let revoked_serials = section.or(problems, "revoked_serials", Vec::new(), list(serial));
    section.finish(problems);
    Some(Pki {
        ca: ca?,
        certificate: certificate?,
        key: key?,
        revoked_nodes: revoked_nodes?.value,
        revoked_serials: revoked_serials?.value,
    })
}

/// A certificate's serial number, as `openssl x509 -serial` prints it, with or without colons.
fn serial(problems: &mut Problems, value: &Value<'_>) -> Option<String> {
    let digits = text(problems, value)?.replace(':', "").to_lowercase();
    let is_serial = (1..=40).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let what =
        "this must be a serial number of 1 to 40 hexadecimal digits; `openssl x509 -serial -noout -in FILE` prints it";
    if is_serial { Some(digits) } else { problems.add(value.span(), what) }
}

fn read_cluster(problems: &mut Problems, mut section: Section<'_>) -> Option<At<Cluster>> {
    let milliseconds = |from| number(from..=LONGEST_SETTING_MS, "a number of milliseconds");
    let name = section.required(problems, "name", "name = \"demo\"", text);
    let key = section.required(problems, "key", "key = \"000102030405060708090a0b0c0d0e0f\"", key);
    let quorums = [("majority", Quorum::Majority), ("none", Quorum::None)];
    let quorum = section.or(problems, "quorum", Quorum::Majority, choice(&quorums));
    let voters = match quorum.as_ref().map(|quorum| quorum.value) {
        Some(Quorum::None) => no_voters(problems, &mut section),
        Some(Quorum::Majority) => section.required(problems, "voters", "voters = [\"r1\", \"r2\", \"t1\"]", voters),
        // What is wrong is said already, and whether there must be voters is not known.
        None => section.optional(problems, "voters", voters).flatten(),
    };
    let version = section.or(problems, "voters_version", 1, number(1..=LAST_VOTERS_VERSION, "a number"));
    let lease = section.or(problems, "lease_ms", DEFAULT_LEASE_MS, milliseconds(20));
    let lease_ms = lease.as_ref().map_or(DEFAULT_LEASE_MS, |lease| lease.value);
    let beat = section.or(
        problems,
        "beat_ms",
        lease_ms / 5,
        number(1..=lease_ms / 4, "a number of milliseconds (a quarter of lease_ms)"),
    );
    let drift_percent = section.or(problems, "drift_percent", 10, number(0..=50, "a percentage"));
    let rebuild_deadline = section.or(problems, "rebuild_deadline_ms", 1_000, milliseconds(10));
    let grace = section.or(problems, "grace_ms", 200, milliseconds(0));
    let routers_value = section.get(problems, "routers");
    section.finish(problems);

    let routers_section = Section::of("cluster.routers", routers_value, problems);
    let routers = read_routers(problems, routers_section, &section.span);
    if let (Some(At { value: Quorum::None, span }), Some(routers)) = (&quorum, &routers)
        && routers.len() != 2
    {
        let message = format!(
            "without a quorum there may be two routers and no more, but [cluster.routers] has {}; name voters instead",
            routers.len()
        );
        problems.add::<()>(span.clone(), message);
    }
    let (voters, version) = (voters?, version?.value);
    if voters.value.len() % 2 == 0 && version == 1 && !voters.value.is_empty() {
        let message = format!(
            "{} voters make no good majority: name 3, 5 or 7 nodes, routers or targets, the same on every node; an even \
             number is for the way from one to the next, with voters_version above 1",
            voters.value.len()
        );
        problems.add::<()>(voters.span.clone(), message);
    }
    let cluster = Cluster {
        name: name?.value,
        key: key?.value,
        voters: Voters::new(version, voters.value),
        lease: Duration::from_millis(lease?.value),
        beat: Duration::from_millis(beat?.value),
        drift_percent: drift_percent?.value,
        rebuild_deadline: Duration::from_millis(rebuild_deadline?.value),
        grace: Duration::from_millis(grace?.value),
        routers: routers?,
    };
    Some(At { value: cluster, span: routers_value.map_or(section.span, Value::span) })
}

fn read_routers(
    problems: &mut Problems,
    mut section: Section<'_>,
    cluster: &std::ops::Range<usize>,
) -> Option<Vec<(NodeName, SocketAddr)>> {
    let mut routers: Vec<(NodeName, SocketAddr)> = Vec::new();
    let mut complete = true;
    for (key, span, value) in section.entries() {
        let name = key.parse::<NodeName>().map_err(|error| problems.add::<()>(span, error.to_string()));
        let (Ok(name), Some(listen)) = (name, parsed::<SocketAddr>(SOCKET)(problems, value)) else {
            complete = false;
            continue;
        };
        if let Some((other, _)) = routers.iter().find(|(_, address)| *address == listen) {
            complete = false;
            problems.add::<()>(value.span(), format!("{listen} is {other}'s already; each router has its own"));
        }
        routers.push((name, listen));
    }
    if complete && routers.is_empty() {
        let message = "[cluster.routers] needs every router of the cluster, such as r1 = \"10.0.0.1:7400\"";
        return problems.add(cluster.clone(), message);
    }
    routers.sort();
    complete.then_some(routers)
}

fn key(problems: &mut Problems, value: &Value<'_>) -> Option<[u8; 16]> {
    let digits = text(problems, value)?;
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32 && !digits.starts_with('+'));
    let what = "this must be 32 hexadecimal digits, the same on every node; `openssl rand -hex 16` makes some";
    number.map(u128::to_be_bytes).or_else(|| problems.add(value.span(), what))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quorum {
    Majority,
    None,
}

/// Where there is no quorum, a list of voters would be believed to mean something.
fn no_voters(problems: &mut Problems, section: &mut Section<'_>) -> Option<At<Vec<NodeName>>> {
    if let Some(value) = section.get(problems, "voters") {
        return problems.add(value.span(), "with quorum = \"none\" nobody votes: leave `voters` out");
    }
    Some(At { value: Vec::new(), span: section.span.clone() })
}

fn voters(problems: &mut Problems, value: &Value<'_>) -> Option<Vec<NodeName>> {
    let voters = list(node)(problems, value)?;
    let mut distinct = voters.clone();
    distinct.sort();
    distinct.dedup();
    if distinct.len() == voters.len() && (3..=Voters::MOST).contains(&voters.len()) {
        return Some(voters);
    }
    let message = format!(
        "{} voters make no good majority: name 3, 5 or 7 nodes, routers or targets, the same on every node",
        distinct.len()
    );
    problems.add(value.span(), message)
}

fn read_dpdk(problems: &mut Problems, mut section: Section<'_>, node: Option<&Node>) -> Option<Dpdk> {
    let memories = [("auto", Memory::Auto), ("hugepages", Memory::Hugepages), ("no-huge", Memory::NoHuge)];
    let memory = section.or(problems, "memory", Memory::Auto, choice(&memories));
    let memory_mb = section.or(problems, "memory_mb", 256, number(64..=1 << 20, "a number of megabytes"));
    let prefix = node.map_or_else(String::new, |node| format!("vipa-{}", node.name));
    let file_prefix = section.or(problems, "file_prefix", prefix, text);
    let options = section.or(problems, "options", Vec::new(), list(text));
    section.finish(problems);
    Some(Dpdk {
        memory: memory?.value,
        memory_mb: memory_mb?.value,
        file_prefix: file_prefix?.value,
        options: options?.value,
    })
}

fn read_ports(problems: &mut Problems, sections: Vec<Section<'_>>) -> Option<Vec<Port>> {
    let count = sections.len();
    let mut ports: Vec<Port> = Vec::new();
    for mut section in sections {
        let Some(port) = read_port(problems, &mut section) else { continue };
        let clash = ports.iter().find_map(|other| {
            let same = [
                ("name", other.name == port.name),
                ("device", other.device == port.device),
                ("address", other.address == port.address),
            ];
            same.iter()
                .find(|(_, same)| *same)
                .map(|(what, _)| format!("port {} has this {what} already; each port needs its own", other.name))
        });
        if let Some(message) = clash {
            problems.add::<()>(section.span, message);
        }
        ports.push(port);
    }
    (ports.len() == count).then_some(ports)
}

fn read_port(problems: &mut Problems, section: &mut Section<'_>) -> Option<Port> {
    let name = section.required(problems, "name", "name = \"p0\"", text);
    let device = section.required(problems, "device", "device = \"net_af_packet0,iface=eth0\"", device::device);
    let address = section.required(problems, "address", "address = \"10.0.0.1/24\"", network);
    let gateway = section.optional(problems, "gateway", parsed::<Ipv4Addr>("an IPv4 address such as \"10.0.0.254\""));
    let address6 = section.optional(problems, "address6", network6);
    let gateway6 = section.optional(problems, "gateway6", parsed::<Ipv6Addr>("an IPv6 address such as \"fe80::1\""));
    let vlan = section.optional(problems, "vlan", number(1..=4_094, "a VLAN identifier"));
    let kernel_interface = section.optional(problems, "kernel_interface", interface_name);
    let drivers = [("tap", KernelDriver::Tap), ("virtio-user", KernelDriver::VirtioUser)];
    let kernel_driver = section.or(problems, "kernel_driver", KernelDriver::Tap, choice(&drivers));
    let kernel_rate =
        section.or(problems, "kernel_packets_per_second", 20_000, number(1..=10_000_000, "a number of packets"));
    let queues = section.or(problems, "queues", 1, number(1..=64, "a number of queues"));
    let mtu = section.or(problems, "mtu", 1_500, number(576..=9_600, "a number of bytes"));
    let promiscuous = section.or(problems, "promiscuous", false, flag);
    section.finish(problems);
    if let (Some(At { value: device, .. }), Some(At { value: mtu, span })) = (&device, &mtu)
        && let Some(largest) = device::largest_mtu(device).filter(|largest| mtu > largest)
    {
        let message = format!(
            "{} carries no more than an mtu of {largest}: set mtu = {largest}, or use a driver for larger frames, such as net_af_xdp",
            device::driver_of(device).unwrap_or(device)
        );
        problems.add::<()>(span.clone(), message);
    }
    let (address, prefix_length) = address?.value;
    let gateway = gateway?;
    if let Some(At { value: gateway, span }) = &gateway {
        let mask = u32::MAX << (32 - prefix_length);
        if (gateway.to_bits() ^ address.to_bits()) & mask != 0 || *gateway == address {
            let message = format!("the gateway must be another host on the port's network {address}/{prefix_length}");
            problems.add::<()>(span.clone(), message);
        }
    }
    let address6 = address6?.map(|network| network.value);
    let gateway6 = gateway6?;
    if let Some(At { value: gateway, span }) = &gateway6 {
        let on_link = |(address, length): (Ipv6Addr, u8)| {
            let mask = u128::MAX << (128 - length);
            (gateway.to_bits() ^ address.to_bits()) & mask == 0 && *gateway != address
        };
        if !gateway.is_unicast_link_local() && !address6.is_some_and(on_link) {
            let message = "the gateway must be link-local (fe80::…), or another host on the network of `address6`";
            problems.add::<()>(span.clone(), message);
        }
    }
    Some(Port {
        name: name?.value,
        device: device?.value,
        address,
        prefix_length,
        gateway: gateway.map(|gateway| gateway.value),
        address6,
        gateway6: gateway6.map(|gateway| gateway.value),
        vlan: vlan?.map(|vlan| vlan.value),
        kernel_interface: kernel_interface?.map(|name| name.value),
        kernel_driver: kernel_driver?.value,
        kernel_packets_per_second: kernel_rate?.value,
        queues: queues?.value,
        mtu: mtu?.value,
        promiscuous: promiscuous?.value,
    })
}

fn network(problems: &mut Problems, value: &Value<'_>) -> Option<(Ipv4Addr, u8)> {
    let text = text(problems, value)?;
    let split = text.split_once('/').and_then(|(address, length)| Some((address.parse().ok()?, length.parse().ok()?)));
    let what = "this must be an IPv4 address and its network's prefix length from 8 to 30, such as \"10.0.0.1/24\"";
    split.filter(|(_, length)| (8..=30).contains(length)).or_else(|| problems.add(value.span(), what))
}

fn network6(problems: &mut Problems, value: &Value<'_>) -> Option<(Ipv6Addr, u8)> {
    let text = text(problems, value)?;
    let split = text.split_once('/').and_then(|(address, length)| Some((address.parse().ok()?, length.parse().ok()?)));
    let what =
        "this must be an IPv6 address and its network's prefix length from 16 to 126, such as \"2001:db8::1/64\"";
    split.filter(|(_, length)| (16..=126).contains(length)).or_else(|| problems.add(value.span(), what))
}

/// The kernel's limit is 15 bytes (IFNAMSIZ), none of them a slash or a space.
pub(super) fn interface_name(problems: &mut Problems, value: &Value<'_>) -> Option<String> {
    let name = text(problems, value)?;
    let fits = name.len() <= 15 && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b',');
    let what = "an interface's name has at most 15 letters, digits, '-', '_' or '.'";
    if fits { Some(name) } else { problems.add(value.span(), what) }
}

fn read_workers(problems: &mut Problems, mut section: Section<'_>) -> Option<Workers> {
    let cores = section.or(problems, "cores", vec![0], |problems, value| {
        let cores = list(number(0..=1_023, "a core"))(problems, value)?;
        if cores.is_empty() { problems.add(value.span(), "name at least one core, such as [0]") } else { Some(cores) }
    });
    let idles = [("sleep", Idle::Sleep), ("pause", Idle::Pause), ("spin", Idle::Spin)];
    let idle = section.or(problems, "idle", Idle::Sleep, choice(&idles));
    let idle_max = section.or(problems, "idle_max_us", 1_000, number(1..=10_000, "a number of microseconds"));
    section.finish(problems);
    Some(Workers { cores: cores?.value, idle: idle?.value, idle_max: Duration::from_micros(idle_max?.value) })
}

fn read_table(problems: &mut Problems, mut section: Section<'_>) -> Option<Table> {
    let seconds = || number(1..=LONGEST_SILENCE_S, "a number of seconds");
    let connections =
        section.or(problems, "connections", 1_000_000, number(1_024..=1_000_000_000, "a number of connections"));
    let half_open = section.or(problems, "half_open_s", 60, seconds());
    let established = section.or(problems, "established_s", 10_800, seconds());
    let closing = section.or(problems, "closing_s", 120, seconds());
    let udp = section.or(problems, "udp_s", 120, seconds());
    let audit = section.or(problems, "audit_s", 30, number(0..=86_400_u64, "a number of seconds (0: never)"));
    let reserve = section.or(problems, "reserve_percent", 25, number(0..=100, "a percentage (0: nothing)"));
    section.finish(problems);
    Some(Table {
        connections: connections?.value,
        half_open: Duration::from_secs(half_open?.value),
        established: Duration::from_secs(established?.value),
        closing: Duration::from_secs(closing?.value),
        udp: Duration::from_secs(udp?.value),
        audit: Some(audit?.value).filter(|seconds| *seconds > 0).map(Duration::from_secs),
        reserve_percent: reserve?.value,
    })
}

fn read_agent(problems: &mut Problems, mut section: Section<'_>) -> Option<Agent> {
    let address = section.required(problems, "address", "address = \"10.0.0.31\"", host);
    let interface = section.or(problems, "interface", "lo".into(), text);
    let sights = [("auto", Observe::Auto), ("bpf", Observe::Bpf), ("diag", Observe::Diag)];
    let observe = section.or(problems, "observe", Observe::Auto, choice(&sights));
    let namespaces = section.or(problems, "namespaces", Vec::new(), list(text));
    let observe_every =
        section.or(problems, "observe_ms", 50, number(1..=LONGEST_SETTING_MS, "a number of milliseconds"));
    let drain_timeout = section.or(problems, "drain_timeout_s", 0, number(0..=86_400, "a number of seconds"));
    let check_sections = section.tables(problems, "check", "agent.check");
    let log_records = section.or(problems, "log_records", 65_536, number(1_024..=1 << 24, "a number of records"));
    let decaps = [("auto", Decap::Auto), ("bpf", Decap::Bpf), ("kernel", Decap::Kernel), ("none", Decap::None)];
    let decap = section.or(problems, "decap", Decap::Auto, choice(&decaps));
    let decap_interfaces = section.or(problems, "decap_interfaces", Vec::new(), list(interface_name));
    section.finish(problems);
    let checks = check::read_all(problems, check_sections);
    Some(Agent {
        address: address?.value,
        interface: interface?.value,
        decap: decap?.value,
        decap_interfaces: decap_interfaces?.value,
        observe: observe?.value,
        observe_every: Duration::from_millis(observe_every?.value),
        namespaces: namespaces?.value,
        log_records: log_records?.value,
        drain_timeout: Duration::from_secs(drain_timeout?.value),
        checks: checks?,
    })
}

/// The address of one of this node's own ports, so that nothing else takes it.
pub(super) fn is_own(ports: &[Port], address: IpAddr) -> bool {
    ports.iter().any(|port| match address {
        IpAddr::V4(address) => address == port.address,
        IpAddr::V6(address) => port.address6.is_some_and(|(own, _)| own == address),
    })
}
