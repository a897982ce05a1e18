//! Tunnels unwrapped by the kernel's own devices: the same frames as for the BPF program (`tunnels`).
//!
//! Not every kernel has such devices. `make test-tunnels` runs these tests on one that does, as a process
//! (`tests/tunnels`). On one that does not, the tests check that the agent reports it.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    process::{Command, Stdio},
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{MsgFlags, SockProtocol, recv},
};
use vipa_model::Forwarding;

use crate::{
    host::{Agent, Host, on_a_host, run, until},
    router::{HERE, HERE6, PORT, PORT6, Router, VIPA, VIPA6},
    servers::{Server, nginx},
    tunnels::{
        CLIENT, CLIENT6, Wire, datagram, everything_arrives, good, next, packet_socket, serve, until_unwrapped,
        unwrapping, wrapped,
    },
};

/// Whether this machine's kernel has them; the Make target states that it must.
fn kernel_has_devices() -> bool {
    let mut probe = Command::new("ip");
    probe.args(["link", "add", "probe", "type", "ipip", "remote", "10.9.0.9"]);
    let has = probe.output().expect("ip is installed").status.success();
    if has {
        run("ip", "link del probe");
    }
    assert!(has || std::env::var_os("TUNNELS").is_none(), "this kernel was to have tunnel devices");
    has
}

/// A wire, and an address on it to which routers send; routers and clients are beyond it.
fn prepare(host: &Host, here: &str) -> Wire {
    host.configure_tunnels(here, "v0");
    host.configure("decap = \"kernel\"\nobserve = \"diag\"");
    run("ip", "address del 10.9.0.1/24 dev lo");
    let wire = Wire::new();
    for settings in
        ["address add 10.9.0.31/24 dev v0", "route add default dev v0", "-6 address add fd09::31/64 dev v0 nodad"]
    {
        run("ip", settings);
    }
    run("ip", "-6 route add default dev v0");
    wire
}

fn devices() -> usize {
    run("ip", "-o link show").matches("vipa-").count()
}

fn gue_ports() -> String {
    run("ip", "fou show")
}

fn tunnelled(host: &Host) -> (Agent, Router, Wire, UdpSocket) {
    unwrapping(host, prepare(host, HERE))
}

fn from(source: IpAddr, inner: &[u8]) -> Vec<u8> {
    wrapped(Forwarding::Ipip, source, HERE.parse().expect("an address"), 0, inner)
}

fn everything_is_unwrapped(host: &Host, here: &str, port: IpAddr) {
    everything_arrives(host, &prepare(host, here), here, port).stop();
    host.clean_up();
    assert_eq!((devices(), gue_ports().as_str()), (0, ""));
}

#[test]
#[ignore = "needs root: make test-agent"]
fn the_kernel_s_devices_unwrap_every_tunnel_of_ipv4_whichever_family_is_inside() {
    on_a_host(|host| {
        if kernel_has_devices() {
            everything_is_unwrapped(host, HERE, PORT.into());
        }
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn the_kernel_s_devices_unwrap_every_tunnel_of_ipv6_whichever_family_is_inside() {
    on_a_host(|host| {
        if kernel_has_devices() {
            everything_is_unwrapped(host, HERE6, PORT6.into());
        }
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn the_kernel_s_devices_take_nothing_from_others_and_nothing_for_others() {
    on_a_host(|host| {
        if !kernel_has_devices() {
            return;
        }
        let (agent, router, wire, socket) = tunnelled(host);
        let stranger = Ipv4Addr::new(10, 9, 0, 99).into();
        wire.send(&from(stranger, &datagram(VIPA.into(), 0, b"a stranger's")));
        let own: IpAddr = HERE.parse().expect("an address");
        let everywhere = UdpSocket::bind((own, 5_353)).expect("the address is here");
        everywhere.set_nonblocking(true).expect("a socket");
        wire.send(&from(PORT.into(), &datagram(own, 0, b"to no VIPA")));
        wire.send(&good(b"good"));
        assert_eq!(next(&socket), Some((CLIENT, b"good".to_vec())));
        assert!(everywhere.recv(&mut [0; 64]).is_err(), "what is inside was for no VIPA");
        // Another VIPA beside the first, through the same devices.
        router.distribute_by(Forwarding::Gre, 1, VIPA6.into(), HERE);
        let second = serve(VIPA6.into());
        until_unwrapped(&second, &wire, &from(PORT.into(), &datagram(VIPA6.into(), 0, b"?")));
        wire.send(&good(b"still"));
        assert_eq!(next(&socket), Some((CLIENT, b"still".to_vec())));
        let said = host.status();
        assert!(said.contains("packets from tunnels unwrapped by ipip devices"), "{said}");
        agent.stop();
        let log = host.log();
        for told in ["unwrapped by ipip devices", "unwrapped by sit devices", "1 dropped: not for a VIPA"] {
            assert!(log.contains(told), "{told}: {log}");
        }
        assert!(log.contains("because agent.decap = \"kernel\" says so"), "{log}");
        assert_eq!((devices(), gue_ports().as_str()), (0, ""));
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_crash_leaves_the_kernel_s_devices_at_work_and_the_successor_takes_them_over() {
    on_a_host(|host| {
        if !kernel_has_devices() {
            return;
        }
        let (agent, mut router, wire, socket) = tunnelled(host);
        let before = devices();
        agent.crash();
        wire.send(&good(b"nobody is there"));
        assert_eq!(next(&socket), Some((CLIENT, b"nobody is there".to_vec())));
        router.until("the link is lost", |view| !view.linked);

        let agent = host.start_agent();
        until("it has taken over", || host.log().matches("are unwrapped by the kernel's tunnel devices").count() == 2);
        assert_eq!(devices(), before, "none is doubled");
        wire.send(&good(b"before any router has spoken"));
        assert_eq!(next(&socket), Some((CLIENT, b"before any router has spoken".to_vec())));
        router.until_linked();
        router.distribute_by(Forwarding::Ipip, 2, VIPA.into(), HERE);
        wire.send(&good(b"after"));
        assert_eq!(next(&socket), Some((CLIENT, b"after".to_vec())));
        // What others remove is restored.
        let one = run("ip", "-o link show type ipip");
        let name = one.split([' ', '@']).find(|word| word.starts_with("vipa-")).expect("one is ours");
        run("ip", &format!("link del {name}"));
        until_unwrapped(&socket, &wire, &good(b"again"));
        agent.stop();
        host.clean_up();
        assert_eq!((devices(), gue_ports().as_str()), (0, ""));
    });
}

/// The other end of the wire, with tunnel devices of its own in the place of a router:
///
/// ```text
///   client 203.0.113.4 ── t0 ══ 10.9.0.21 v1 ═══ v0 10.9.0.31 ══ the agent's devices ── 192.0.2.10 nginx, iperf3
///                              ◄──────────────── answers, not wrapped ───────────────
/// ```
struct FarEnd(String);

impl FarEnd {
    fn new() -> Self {
        let far = Self(format!("vipa-far-{}", std::process::id()));
        run("ip", &format!("netns add {}", far.0));
        run("ip", &format!("link set v1 netns {}", far.0));
        for settings in [
            "ip link set lo up",
            "ip address add 10.9.0.21/24 dev v1",
            "ip -6 address add fd09::21/64 dev v1 nodad",
            "ip -6 address add 2001:db8:9::4/128 dev v1 nodad",
            "ip link set v1 up",
            "ip address add 203.0.113.4/32 dev lo",
        ] {
            far.run(settings);
        }
        far
    }

    fn run(&self, command: &str) -> String {
        run("ip", &format!("netns exec {} {command}", self.0))
    }

    /// Makes an interface `t0`, and encapsulates everything sent there in GUE until it is gone.
    fn wrap_in_gue(&self, to: &str) -> thread::JoinHandle<()> {
        for settings in [
            // The packets at the other end must be whole.
            "ip link add t0 mtu 1400 type veth peer name t1",
            "ethtool -K t0 tx off tso off gso off",
            "ip link set t0 arp off",
            "ip link set t1 up",
        ] {
            self.run(settings);
        }
        let namespace = File::open(format!("/run/netns/{}", self.0)).expect("it is there");
        let to = SocketAddr::new(to.parse().expect("an address"), 6_080);
        thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may");
            let from: IpAddr = if to.is_ipv4() { PORT.into() } else { PORT6.into() };
            let tunnel = UdpSocket::bind((from, 0)).expect("the address is here");
            let sent = packet_socket("t1", Some(SockProtocol::EthAll));
            let mut frame = [0; 2048];
            while let Ok(length) = recv(sent.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                let (head, packet) = frame[..length].split_at(14);
                let number = match head[12..] {
                    [0x08, 0x00] => 4,
                    [0x86, 0xdd] => 41,
                    _ => continue,
                };
                // TCP repeats what is lost.
                let _ = tunnel.send_to(&[&[0, number, 0, 0], packet].concat(), to);
            }
        })
    }
}

/// How the far end encapsulates what it sends.
#[derive(Debug)]
enum Wrapping {
    /// By a device of its kernel.
    Device(String),
    /// By hand, because not every kernel that receives GUE can send it.
    Gue,
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        // It fails only where there is nothing left.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// A host whose devices take tunnels, nginx and iperf3 on both VIPAs, and a client at the far end of the wire for each
/// of these: a device there, and the VIPA to which it leads.
fn curl_and_iperf3_pass(host: &Host, here: &str, ways: &[(Wrapping, &str)]) {
    let _wire = prepare(host, here);
    let far = FarEnd::new();
    let agent = host.start_agent();
    let mut router = Router::start(host, "r1");
    router.until_linked();
    for vipa in [IpAddr::from(VIPA), VIPA6.into()] {
        router.distribute_by(Forwarding::Ipip, 1, vipa, here);
        drop(serve(vipa));
    }
    let _nginx = nginx(host);
    let iperf = Command::new("iperf3").arg("--server").stdout(Stdio::null()).spawn();
    let _iperf = Server(iperf.expect("iperf3 is installed: make deps"));
    until("nginx serves", || TcpStream::connect((VIPA, 80)).is_ok());
    until("iperf3 serves", || TcpStream::connect((VIPA, 5201)).is_ok());
    for (wrapping, vipa) in ways {
        let (url, source) = if vipa.contains(':') {
            (format!("http://[{vipa}]/"), CLIENT6)
        } else {
            (format!("http://{vipa}/"), CLIENT)
        };
        let by_hand = match wrapping {
            Wrapping::Device(device) => {
                far.run(&format!("ip link add t0 type {device}"));
                None
            }
            Wrapping::Gue => Some(far.wrap_in_gue(here)),
        };
        far.run("ip link set t0 up");
        far.run(&format!("ip route add {vipa} dev t0 src {source}"));
        assert_eq!(far.run(&format!("curl -gsS --max-time 20 {url}")), "hello", "{wrapping:?}");
        far.run(&format!("iperf3 --client {vipa} --bytes 2M --connect-timeout 10000"));
        far.run("ip link del t0");
        if let Some(by_hand) = by_hand {
            by_hand.join().expect("it ends with its interface");
        }
    }
    let said = host.status();
    assert!(said.contains("  to know: v0 has MTU 1500: 1448 bytes fit into the longest headers"), "{said}");
    agent.stop();
    host.clean_up();
    drop(far);
    assert_eq!((devices(), gue_ports().as_str()), (0, ""));
}

#[test]
#[ignore = "needs root: make test-agent"]
fn curl_and_iperf3_pass_the_kernel_s_devices_in_both_families() {
    on_a_host(|host| {
        if !kernel_has_devices() {
            return;
        }
        let ends = "local 10.9.0.21 remote 10.9.0.31";
        let ways = [
            (Wrapping::Device(format!("ipip {ends}")), "192.0.2.10"),
            (Wrapping::Device(format!("gre {ends}")), "192.0.2.10"),
            (Wrapping::Gue, "192.0.2.10"),
            (Wrapping::Device(format!("sit {ends}")), "2001:db8::10"),
            (Wrapping::Device(format!("gre {ends}")), "2001:db8::10"),
            (Wrapping::Gue, "2001:db8::10"),
        ];
        curl_and_iperf3_pass(host, HERE, &ways);
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn curl_and_iperf3_pass_the_kernel_s_devices_over_ipv6_in_both_families() {
    on_a_host(|host| {
        if !kernel_has_devices() {
            return;
        }
        let ends = "local fd09::21 remote fd09::31";
        let ways = [
            (Wrapping::Device(format!("ip6tnl mode ipip6 {ends} encaplimit none")), "192.0.2.10"),
            (Wrapping::Device(format!("ip6gre {ends} encaplimit none")), "192.0.2.10"),
            (Wrapping::Gue, "192.0.2.10"),
            (Wrapping::Device(format!("ip6tnl mode ip6ip6 {ends} encaplimit none")), "2001:db8::10"),
            (Wrapping::Device(format!("ip6gre {ends} encaplimit none")), "2001:db8::10"),
            (Wrapping::Gue, "2001:db8::10"),
        ];
        curl_and_iperf3_pass(host, HERE6, &ways);
    });
}

/// By default the means is chosen: BPF where it may be used (`tunnels`); the kernel's devices where it may not; where
/// there are none either, the agent reports both in one sentence.
#[test]
#[ignore = "needs root: make test-agent"]
fn where_bpf_is_not_allowed_the_kernel_s_devices_unwrap_and_where_there_are_none_that_is_said() {
    on_a_host(|host| {
        let wire = prepare(host, HERE);
        host.configure_tunnels(HERE, "v0");
        let mut router = Router::start(host, "r1");
        let agent = host.start_agent_without_bpf();
        router.until_linked();
        router.distribute_by(Forwarding::Ipip, 1, VIPA.into(), HERE);
        let why = "cannot load the BPF program that unwraps tunnels";
        if kernel_has_devices() {
            let socket = serve(VIPA.into());
            until_unwrapped(&socket, &wire, &good(b"?"));
            let said = host.status();
            let chosen = format!("tunnels are unwrapped by the kernel's tunnel devices, because {why}");
            assert!(said.contains(&chosen), "{said}");
            agent.stop();
            host.clean_up();
            assert_eq!((devices(), gue_ports().as_str()), (0, ""));
        } else {
            let neither = "tunnels can be unwrapped neither by BPF nor by the kernel's devices: ";
            until("it is said", || host.status().contains(neither));
            let said = host.status();
            let line = said.lines().find(|line| line.contains(neither)).expect("one line");
            for part in [why, "it needs CAP_BPF", "this kernel has none of the tunnel devices"] {
                assert!(line.contains(part), "{part}: {line}");
            }
            agent.stop();
            host.clean_up();
        }
        assert!(!host.folder().join("state/tunnels.json").exists(), "nothing is left to be undone");
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_kernel_without_tunnel_devices_is_said_to_be_one_and_what_to_do() {
    on_a_host(|host| {
        if kernel_has_devices() {
            return;
        }
        let _wire = prepare(host, HERE);
        let said = host.setup();
        assert!(said.contains("device   ipip, sit, gre, from each router to 10.9.0.31"), "{said}");
        let agent = host.start_agent();
        let mut router = Router::start(host, "r1");
        router.until_linked();
        router.distribute_by(Forwarding::Ipip, 1, VIPA.into(), HERE);
        let lacks = "this kernel has no ipip devices, so what comes in such tunnels is not unwrapped: load its module ipip, \
                     or set agent.decap = \"bpf\"";
        until("it says so", || host.log().contains(lacks));
        until("and so", || host.log().contains("has none of the tunnel devices that agent.decap = \"kernel\" needs"));
        agent.stop();
        host.clean_up();
        assert!(!host.folder().join("state/tunnels.json").exists(), "nothing is left to be undone");
    });
}
