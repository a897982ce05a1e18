//! Real servers, many clients, and crashes in between: the agent's reports equal the kernel's state.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    libc,
    sched::{CloneFlags, unshare},
    sys::{
        signal::{Signal, kill},
        socket::{setsockopt, sockopt::Linger},
    },
    unistd::Pid,
};
use vipa_model::{
    Connection,
    ConnectionState::{self, Closing, Established},
    PortRange, Protocol,
};

use crate::{
    host::{Host, on_a_host, on_a_host_by_both, run, until},
    router::{HERE, Router, VIPA, VIPA6, View},
    sockets::{Pair, abort, connect_from, open, open_as, reset, serve},
};

/// Time after the last change in which router and kernel agree. A tenth of a second is required, which a debug build of
/// the agent does not achieve on every machine.
const CONVERGENCE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 100 });
/// Connections a second.
const CHURN: u32 = 5_000;
/// Attempts at most, of a second each.
const ROUNDS: u64 = 8;
/// Threads that make them, and how many connections each holds at a time.
const MAKERS: u32 = 4;
const BATCH: u32 = 25;

/// The connections to the VIPA's port 80 as the kernel lists them.
fn kernel_list(vipa: IpAddr) -> BTreeMap<Connection, ConnectionState> {
    let listed = run("ss", &format!("-Htn src {}", SocketAddr::new(vipa, 80)));
    let connection = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let state = match words[0] {
            "ESTAB" => Established,
            "SYN-RECV" => ConnectionState::HalfOpen,
            "TIME-WAIT" | "CLOSED" => return None,
            _ => Closing,
        };
        let client: SocketAddr = words[4].parse().expect("an address and a port");
        let client = match client.ip() {
            IpAddr::V6(address) => (address.to_ipv4_mapped().map_or(client.ip(), IpAddr::V4), client.port()).into(),
            IpAddr::V4(_) => client,
        };
        Some((Connection { protocol: Protocol::Tcp, client, port: 80 }, state))
    };
    listed.lines().filter_map(connection).collect()
}

/// A server program of another project, ended with the test.
pub(crate) struct Server(pub(crate) Child);

impl Drop for Server {
    fn drop(&mut self) {
        // This also ends its workers.
        let pid = i32::try_from(self.0.id()).expect("a process id");
        let _ = (kill(Pid::from_raw(pid), Signal::SIGTERM), self.0.wait());
    }
}

/// An echo server with a process for each connection; it serves clients of both families by one socket, and shares the
/// port with other instances.
fn socat() -> Server {
    let listen = "TCP6-LISTEN:80,ipv6only=0,reuseaddr,reuseport,fork,backlog=512";
    let server = Command::new("socat").args([listen, "PIPE"]).stdin(Stdio::null()).stderr(Stdio::null()).spawn();
    Server(server.expect("socat is installed: make deps"))
}

/// nginx as Debian packages it: four workers, each with a listener of its own for each family.
pub(crate) fn nginx(host: &Host) -> Server {
    let folder = host.folder().display();
    let config = host.folder().join("nginx.conf");
    // It must write to no folder of the machine's own.
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = kinds.iter().map(|kind| format!("{kind}_temp_path {folder}/{kind}; ")).collect();
    let text = format!(
        "user root;\ndaemon off;\nworker_processes 4;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; {temporary}\
         server {{ listen 80 reuseport; listen [::]:80 reuseport; return 200 hello; }} }}\n"
    );
    fs::write(&config, text).expect("it is written");
    let log = host.folder().join("nginx.log");
    let server = Command::new("nginx")
        .arg("-e")
        .arg(log)
        .arg("-c")
        .arg(config)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Server(server.expect("nginx is installed: make deps"))
}

/// Gets a page, and keeps the connection.
fn get(to: SocketAddr) -> TcpStream {
    let mut client = connect_from(client_of(to.ip()), to).expect("nginx listens");
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    client.write_all(b"GET / HTTP/1.1\r\nHost: vipa\r\n\r\n").expect("it is open");
    let mut answer = Vec::new();
    let mut part = [0; 1024];
    while !answer.ends_with(b"hello") {
        let length = client.read(&mut part).expect("an answer");
        assert!(length > 0, "nginx has closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend(&part[..length]);
    }
    client
}

fn ask(to: SocketAddr) -> TcpStream {
    let mut client = connect_from(client_of(to.ip()), to).expect("socat listens");
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    client.write_all(b"hello").expect("it is open");
    let mut answer = [0; 5];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"hello");
    client
}

/// Not the VIPA, which the kernel would choose by itself.
fn client_of(vipa: IpAddr) -> IpAddr {
    let address = if vipa.is_ipv4() { "10.9.0.1" } else { "fd09::1" };
    address.parse().expect("an address")
}

fn clients_of_servers_are_told(vipa: IpAddr) -> impl Fn(&Host) + Copy + Send + 'static {
    move |host| {
        run("ip", "-6 address add fd09::1/128 dev lo");
        let _agent = host.start_agent();
        let mut router = Router::take_over_of(host, vipa);
        let _servers = [socat(), socat(), socat()];
        router.until("it listens", |view| view.listening == [(Protocol::Tcp, 80)]);
        let to = SocketAddr::new(vipa, 80);
        until("the VIPA is here", || connect_from(client_of(vipa), to).is_ok());
        let mut clients: Vec<TcpStream> = (0..300).map(|_| ask(to)).collect();
        for client in clients.drain(..100) {
            drop(client);
        }
        // The server answers what it has received and closes.
        for client in &clients[..50] {
            client.shutdown(Shutdown::Write).expect("it is open");
        }
        router.until("150 are left", |view| view.live.len() == 150 && view.live == kernel_list(vipa));
        let client = clients.last().expect("150 are left").local_addr().expect("an address");
        let connection = Connection { protocol: Protocol::Tcp, client, port: 80 };
        assert_eq!(router.view.live.get(&connection), Some(&Established));
        drop(clients);
        router.until("none is left", |view| view.live.is_empty() && kernel_list(vipa).is_empty());
    }
}

#[test]
#[ignore = "needs root: make test-agent"]
fn the_clients_of_servers_that_share_a_port_are_told() {
    on_a_host_by_both(clients_of_servers_are_told(VIPA.into()));
}

#[test]
#[ignore = "needs root: make test-agent"]
fn its_ipv6_clients_too() {
    on_a_host_by_both(clients_of_servers_are_told(VIPA6.into()));
}

#[test]
#[ignore = "needs root: make test-agent"]
fn nginx_s_clients_are_told_as_the_kernel_lists_them() {
    on_a_host_by_both(|host| {
        run("ip", "-6 address add fd09::1/128 dev lo");
        let _agent = host.start_agent();
        for vipa in [IpAddr::from(VIPA), VIPA6.into()] {
            let mut router = Router::take_over_of(host, vipa);
            let server = nginx(host);
            router.until("it listens", |view| view.listening == [(Protocol::Tcp, 80)]);
            let to = SocketAddr::new(vipa, 80);
            until("the VIPA is here", || connect_from(client_of(vipa), to).is_ok());
            let mut clients: Vec<TcpStream> = (0..200).map(|_| get(to)).collect();
            clients.truncate(80);
            router.until("80 are left", |view| view.live.len() == 80 && view.live == kernel_list(vipa));
            // Most of them at once, by the server.
            drop(server);
            drop(clients);
            router.until("none is left", |view| view.live.is_empty() && view.listening.is_empty());
            assert_eq!(kernel_list(vipa), BTreeMap::new());
        }
    });
}

/// Opens and ends connections in every way, `CHURN` a second, until it is stopped. One thread alone would be the limit.
struct Churn {
    /// Each with the sender that stops it when dropped.
    makers: Vec<(mpsc::Sender<()>, thread::JoinHandle<u32>)>,
}

impl Churn {
    fn start(listener: &TcpListener) -> Self {
        let maker = |number| {
            let (stop, stopped) = mpsc::channel();
            let listener = listener.try_clone().expect("a socket");
            (stop, thread::spawn(move || make(number, &listener, &stopped)))
        };
        Self { makers: (0..MAKERS).map(maker).collect() }
    }

    /// The number of connections.
    fn stop(self) -> u32 {
        let (stops, makers): (Vec<_>, Vec<_>) = self.makers.into_iter().unzip();
        drop(stops);
        makers.into_iter().map(|maker| maker.join().expect("it ended well")).sum()
    }
}

/// One maker's share. It accepts any connection, also another maker's client.
fn make(maker: u32, listener: &TcpListener, stopped: &mpsc::Receiver<()>) -> u32 {
    let began = Instant::now();
    let mut count = 0;
    while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
        let due = Duration::from_secs(1) * count / (CHURN / MAKERS);
        thread::sleep(due.saturating_sub(began.elapsed()));
        let batch: Vec<Pair> =
            (count..count + BATCH).map(|number| open_as(number * MAKERS + maker, listener)).collect();
        count += BATCH;
        // The server may be that of another maker's client.
        for (index, Pair { client, server, .. }) in batch.into_iter().enumerate() {
            match index % 4 {
                // The client closes first, the server closes first, half of it is closed, or it is reset.
                0 => drop((client, server)),
                1 => drop((server, client)),
                2 => {
                    client.shutdown(Shutdown::Write).expect("it is open");
                    drop((server, client));
                }
                _ => {
                    reset(client);
                    drop(server);
                }
            }
        }
    }
    count
}

#[test]
#[ignore = "needs root: make test-agent"]
fn what_is_told_converges_at_once_whatever_comes_and_goes() {
    on_a_host_by_both(|host| {
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        let listener = serve();
        let held: Vec<Pair> = (0..500).map(|_| open(&listener)).collect();
        let mut rounds: Vec<(f64, Duration)> = Vec::new();
        // A busy machine may be late, but not always.
        let is_met = |(rate, time): &(f64, Duration)| *rate >= f64::from(CHURN) && *time < CONVERGENCE;
        for epoch in 2..2 + ROUNDS {
            let began = Instant::now();
            let churn = Churn::start(&listener);
            router.listen_for(Duration::from_secs(1));
            let count = churn.stop();
            let ended = Instant::now();
            let rate = f64::from(count) / (ended - began).as_secs_f64();
            // Changes are reported in their order: a router that has this one has received all before it.
            let last = open(&listener);
            let is_last = |view: &View| view.live.contains_key(&last.connection);
            let is_told = |view: &View| is_last(view) && view.live.len() == held.len() + 1;
            router.until("only the held ones are left", |view| !view.linked || is_told(view));
            if !router.view.linked {
                // The machine was so busy that the link was lost; that round proves nothing.
                router.until_linked();
                router.distribute(epoch, PortRange::one(80), &[HERE]);
                router.associate(epoch);
                abort(last);
                continue;
            }
            rounds.push((rate, ended.elapsed()));
            assert_eq!(router.view.live, kernel_list(VIPA.into()));
            abort(last);
            if rounds.last().is_some_and(is_met) {
                break;
            }
        }
        eprintln!("connections a second, and when the last was told: {rounds:.0?}");
        assert!(rounds.last().is_some_and(is_met), "no round met {CHURN} a second and {CONVERGENCE:?}: {rounds:.0?}");
        for pair in &held {
            let connection = pair.connection;
            let wrong = router.view.story_of(&connection).contains(&vipa_protocol::Change::Closed);
            assert!(!wrong, "{connection:?} lives");
        }
        assert!(!host.log().contains("differed about"), "BPF and the lists agree: {}", host.log());
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn an_agent_killed_in_the_middle_of_it_all_is_followed_by_one_that_knows_everything() {
    on_a_host_by_both(|host| {
        let mut agent = host.start_agent();
        let mut router = Router::take_over(host);
        let listener = serve();
        let held: Vec<Pair> = (0..500).map(|_| open(&listener)).collect();
        let churn = Churn::start(&listener);
        for epoch in 2..5 {
            router.listen_for(Duration::from_millis(300));
            agent.crash();
            router.until("the link is lost", |view| !view.linked);
            agent = host.start_agent();
            router.until_linked();
            router.distribute(epoch, PortRange::one(80), &[HERE]);
            router.associate(epoch);
            for pair in &held {
                assert_eq!(router.view.live.get(&pair.connection), Some(&Established), "in epoch {epoch}");
            }
        }
        churn.stop();
        router.until("only the held ones are left", |view| view.live.len() == held.len());
        assert_eq!(router.view.live, kernel_list(VIPA.into()));
        // Connections that are older than the agent end like any other.
        held.into_iter().for_each(abort);
        router.until("none is left", |view| view.live.is_empty());
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn a_connection_that_this_host_opened_from_the_vipa_is_told_too() {
    on_a_host_by_both(|host| {
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        drop(serve());
        let elsewhere = TcpListener::bind("10.9.0.1:9000").expect("the address is on lo");
        let client = connect_from(VIPA.into(), elsewhere.local_addr().expect("an address")).expect("it listens");
        let port = client.local_addr().expect("an address").port();
        let peer = elsewhere.local_addr().expect("an address");
        let connection = Connection { protocol: Protocol::Tcp, client: peer, port };
        router.until("it is told", |view| view.live.get(&connection) == Some(&Established));
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&client, Linger, &linger).expect("a socket");
        drop(client);
        router.until("it has ended", |view| view.live.is_empty());
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn sockets_of_another_network_namespace_count_when_it_is_configured() {
    on_a_host_by_both(|host| {
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let container = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            run("ip", "link set lo up");
            run("ip", "address add 10.9.0.1/24 dev lo");
            run("ip", "address add 192.0.2.10/32 dev lo");
            tell.send(format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid())).expect("heard");
            let _ = ended.recv();
            let listener = serve();
            let pair = open(&listener);
            tell.send(pair.connection.client.to_string()).expect("heard");
            let _ = ended.recv();
            abort(pair);
            let _ = ended.recv();
        });
        host.configure_namespace(&told.recv().expect("it is there"));
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        end.send(()).expect("it waits");
        let client: SocketAddr = told.recv().expect("it is open").parse().expect("an address");
        let connection = Connection { protocol: Protocol::Tcp, client, port: 80 };
        router.until("it is told", |view| view.live.get(&connection) == Some(&Established));
        router.until("its listener is told", |view| view.listening == [(Protocol::Tcp, 80)]);
        end.send(()).expect("it waits");
        router.until("it has ended", |view| view.live.is_empty());
        drop(end);
        container.join().expect("it ended well");
    });
}

#[test]
#[ignore = "needs root: make test-agent"]
fn thousands_at_once_are_told_and_gone_at_once() {
    on_a_host_by_both(|host| {
        let _agent = host.start_agent();
        let mut router = Router::take_over(host);
        let listener = serve();
        for _ in 0..2 {
            let pairs: Vec<Pair> = (0..4_000).map(|_| open(&listener)).collect();
            router.until("all are told", |view| view.live.len() == 4_000);
            // As when a server dies.
            drop(pairs);
            router.until("none is left", |view| view.live.is_empty());
            assert_eq!(kernel_list(VIPA.into()), BTreeMap::new());
        }
    });
}

/// While the agent is stopped, more happens than the ring between it and the kernel has room for.
#[test]
#[ignore = "needs root: make test-agent"]
fn what_the_ring_had_no_room_for_is_found_by_looking() {
    const MORE_THAN_FITS: u32 = 35_000;
    on_a_host(|host| {
        let agent = host.start_agent();
        let mut router = Router::take_over(host);
        let listener = serve();
        let mut held: Vec<Pair> = (0..200).map(|_| open(&listener)).collect();
        router.until("they are told", |view| view.live.len() == held.len());
        agent.signal(Signal::SIGSTOP);
        // Three changes each.
        (0..MORE_THAN_FITS).for_each(|number| drop(open_as(number, &listener)));
        held.drain(..100).for_each(abort);
        held.extend((0..50).map(|_| open(&listener)));
        agent.signal(Signal::SIGCONT);
        until("the loss is noticed", || host.log().contains("more happened to connections than the ring has room for"));
        router.listen_for(Duration::from_millis(500));
        // The stop may have been long enough to lose the link.
        router.until_linked();
        router.distribute(2, PortRange::one(80), &[HERE]);
        router.associate(2);
        router.until("all is known again", |view| view.live.len() == held.len());
        assert_eq!(router.view.live, kernel_list(VIPA.into()));
    });
}
