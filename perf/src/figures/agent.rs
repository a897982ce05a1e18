//! P11: what the agent costs a server.
//!
//! ```text
//!   ┌ a network namespace ───────────────────────────────────────────────┐
//!   │ clients ══ 5,000 connections/s ══ the VIPA on lo ══ servers        │
//!   │                                      │ ring                        │
//!   │ a router (transport) ◄── reports ── vipa-agent, its time is taken  │
//!   └────────────────────────────────────────────────────────────────────┘
//! ```
//! Time is that of all the agent's threads and of its BPF program, which the kernel accounts to whoever runs it. Memory and the
//! snapshot are measured at a million connections, more than a test machine's kernel has room for: the agent's own state
//! machine and its own transport, in this process.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt},
};
use tokio::runtime::Handle;
use vipa_cluster::{
    log::{KEPT_RECORDS, Live},
    target::{Event, Outbox, Output, Settings, Target},
};
use vipa_model::{
    Connection, ConnectionState, Delivery, Epoch, Incarnation, Moment, NodeName, PortRange, Protocol, Service,
};
use vipa_protocol::{Associate, Change, Distribution, Hello, Message, Record, Role, Run, Standing, VERSION};
use vipa_transport::{
    Admission, CertifiedRoles, Identity, LinkEvent, Receiver, Sender, Timing, TransportSettings, pki,
};

use crate::{
    figure::{Case, Owed},
    machine::Machine,
};

const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 31));
const PORT: u16 = 80;
/// Connections opened and closed, and how many a second.
const LIVES: u32 = 50_000;
const RATE: u32 = 5_000;
/// Those before them, more than ten seconds' worth.
const BEGINNING: u32 = 11 * RATE;
const MILLION: u32 = 1_000_000;
/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn measure(_: &Machine) -> Result<Vec<Case>> {
    let mut cases = vec![life()?];
    cases.push(memory("IPv4", |number| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | number >> 14)))?);
    cases.push(memory("IPv6", |number| {
        IpAddr::V6(Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(number >> 14) << 64 | 1))
    })?);
    cases.push(snapshot()?);
    Ok(cases)
}

/// A connection opened and closed: microseconds of the agent's time. By BPF; the lists of sock_diag do not see so short lives.
fn life() -> Result<Case> {
    // Threads and processes that this one starts are in its namespace.
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).context("no network namespace can be made: be root")?;
        let folder = Folder::new()?;
        let mut watched = Watched::start(&folder)?;
        watched.live()
    });
    let (agent_ns, program_ns) = thread.join().map_err(|_| anyhow::anyhow!("the measurement panicked"))??;
    let each = |ns: u64| ns as f64 / f64::from(LIVES) / 1_000.0;
    let case = Case::new("a connection's whole life", each(agent_ns + program_ns), "us", Owed::AtMost(10.0));
    Ok(case.beside("agent_us", each(agent_ns)).beside("bpf_program_us", each(program_ns)))
}

/// A temporary folder.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("vipa-perf-{}-{}", std::process::id(), nix::unistd::gettid()));
        fs::create_dir(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running agent, and the router it reports to.
struct Watched {
    agent: Child,
    router: Router,
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = (self.agent.kill(), self.agent.wait());
    }
}

impl Watched {
    fn start(folder: &Folder) -> Result<Self> {
        ip("link set lo up")?;
        ip("address add 10.9.0.1/24 dev lo")?;
        let folder = &folder.0;
        pki::init(folder)?;
        issue(folder)?;
        let configuration = format!(
            "[node]\nname = \"t1\"\nstate_dir = \"{state}\"\n\
             [pki]\nca = \"ca.pem\"\ncertificate = \"t1.pem\"\nkey = \"t1.key\"\n\
             [cluster]\nname = \"perf\"\nkey = \"000102030405060708090a0b0c0d0e0f\"\nvoters = [\"r1\", \"r2\", \"t1\"]\n\
             [cluster.routers]\nr1 = \"127.0.0.1:7401\"\nr2 = \"127.0.0.1:7402\"\n\
             [agent]\naddress = \"{HERE}\"\nobserve = \"bpf\"\n",
            state = folder.join("state").display(),
        );
        let file = folder.join("t1.toml");
        fs::write(&file, configuration)?;
        let program = std::env::current_exe()?.with_file_name("vipa-agent");
        let log = fs::File::create(folder.join("agent.log"))?;
        let agent = Command::new(&program).arg("--config").arg(&file).stdin(Stdio::null()).stderr(log).spawn();
        let agent = agent.with_context(|| format!("{} does not start: make build", program.display()))?;
        let router = Router::start(folder, "127.0.0.1:7401".parse()?)?;
        Ok(Self { agent, router })
    }

    /// Opens and closes `LIVES` connections; the nanoseconds the agent and its BPF program took for it.
    fn live(&mut self) -> Result<(u64, u64)> {
        let _statistics = Statistics::start()?;
        self.router.until("the agent is linked", |view| view.linked)?;
        self.router.send(&Message::Distribution(distribution()));
        self.router.send(&Message::Associate(associate(1)));
        self.router.until("the agent has answered", |view| view.answered)?;
        let listener = wait_for(|| TcpListener::bind((VIPA, PORT)).ok()).context("the VIPA does not come")?;
        // What is done at the beginning is not counted: for ten seconds the agent looks out for older connections.
        churn(&listener, BEGINNING)?;
        let before = self.spent()?;
        churn(&listener, LIVES)?;
        self.router.until("all has been told", |view| view.closed >= u64::from(BEGINNING + LIVES))?;
        let after = self.spent()?;
        Ok((after.0 - before.0, after.1 - before.1))
    }

    /// Nanoseconds so far: of all threads of the agent, and of its programs.
    fn spent(&self) -> Result<(u64, u64)> {
        let process = PathBuf::from(format!("/proc/{}", self.agent.id()));
        let mut agent = 0;
        for thread in fs::read_dir(process.join("task"))? {
            // The first number is the time on a processor (kernel documentation, scheduler/sched-stats).
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            agent += text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).context("no schedstat")?;
        }
        let mut programs = 0;
        for file in fs::read_dir(process.join("fdinfo"))? {
            let text = fs::read_to_string(file?.path()).unwrap_or_default();
            let time = text.lines().find_map(|line| line.strip_prefix("run_time_ns:"));
            programs += time.and_then(|time| time.trim().parse::<u64>().ok()).unwrap_or(0);
        }
        Ok((agent, programs))
    }
}

/// The kernel takes BPF programs' time while this lives.
struct Statistics(String);

const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Statistics {
    fn start() -> Result<Self> {
        let before = fs::read_to_string(STATISTICS).context("the kernel takes no BPF program's time")?;
        fs::write(STATISTICS, "1")?;
        Ok(Self(before))
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        let _ = fs::write(STATISTICS, self.0.trim());
    }
}

/// Opens and closes connections, `RATE` a second.
fn churn(listener: &TcpListener, count: u32) -> Result<()> {
    let began = Instant::now();
    for number in 0..count {
        if number % 50 == 0 {
            thread::sleep((Duration::from_secs(1) * number / RATE).saturating_sub(began.elapsed()));
        }
        let client = connect(number)?;
        let (server, _) = listener.accept()?;
        // The client first, as with most servers.
        drop(client);
        drop(server);
    }
    Ok(())
}

/// A client's end. Clients have many addresses, lest they run out of ports.
fn connect(number: u32) -> Result<TcpStream> {
    let [.., address] = (1 + number % 250).to_be_bytes();
    let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&client, sockopt::IpBindAddressNoPort, &true)?;
    bind(client.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from(([10, 9, 0, address], 0))))?;
    socket::connect(client.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((VIPA, PORT))))?;
    Ok(client.into())
}

#[derive(Debug, Default)]
struct View {
    linked: bool,
    answered: bool,
    closed: u64,
    /// Connections of a snapshot.
    told: u64,
}

/// The other end of the agent's link.
struct Router {
    runtime: Handle,
    sender: Sender,
    receiver: Receiver,
    view: View,
}

impl Router {
    fn start(folder: &Path, listen: SocketAddr) -> Result<Self> {
        let identity = Identity::load(&folder.join("ca.pem"), &folder.join("r1.pem"), &folder.join("r1.key"))?;
        let runtime = runtime()?;
        let hello = hello("r1", Role::Router);
        let (admission, timing) = (admission(), Timing::default());
        let settings = TransportSettings { hello, listen: Some(listen), dial: vec![], admission, timing };
        let entered = runtime.enter();
        let (sender, receiver) = vipa_transport::start(settings, &identity)?;
        drop(entered);
        Ok(Self { runtime, sender, receiver, view: View::default() })
    }

    fn send(&self, message: &Message) {
        self.sender.send(&name("t1"), message);
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&View) -> bool) -> Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !is_so(&self.view) {
            let heard = self.runtime.block_on(async { tokio::time::timeout_at(deadline, self.receiver.recv()).await });
            let event = heard.with_context(|| format!("waited in vain until {what}: {:?}", self.view))?;
            self.take(event.context("the transport has ended")?)?;
        }
        Ok(())
    }

    fn take(&mut self, event: LinkEvent) -> Result<()> {
        match event {
            LinkEvent::Up { .. } => self.view.linked = true,
            LinkEvent::Down { .. } => bail!("the link is lost"),
            LinkEvent::Refused(refusal) => bail!("refused: {refusal}"),
            LinkEvent::Message { message: Message::Connections(report), .. } => {
                self.view.answered |= report.answers.is_some();
                match report.run {
                    Run::Tail { records, .. } => {
                        let closed = records.iter().filter(|record| record.change == Change::Closed);
                        self.view.closed += closed.count() as u64;
                    }
                    Run::Snapshot { connections, .. } => self.view.told += connections.len() as u64,
                }
            }
            LinkEvent::Message { .. } => {}
        }
        Ok(())
    }
}

/// One that runs on a thread of its own, as long as this process.
fn runtime() -> Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    Ok(handle)
}

fn name(text: &str) -> NodeName {
    text.parse().expect("a node name")
}

fn hello(node: &str, role: Role) -> Hello {
    Hello {
        version: VERSION,
        cluster: "perf".into(),
        key: vipa_transport::key_digest("perf", &std::array::from_fn(|byte| byte as u8)),
        node: name(node),
        role,
        addresses: Vec::new(),
        incarnation: Incarnation(1),
        voters: ["r1", "r2", "t1"].map(name).to_vec().into(),
    }
}

fn distribution() -> Distribution {
    let service = Service {
        protocol: Protocol::Tcp,
        ports: PortRange::one(PORT),
        delivery: Delivery::default(),
        balance: Default::default(),
        choice: Default::default(),
        orphans: Default::default(),
        sources: Default::default(),
        candidates: vec![HERE],
    };
    let (ranks, services) = (Vec::new(), vec![service]);
    Distribution { vipa: VIPA, epoch: Epoch(1), sender: Standing::Owner, ranks, services, paths: Vec::new() }
}

fn associate(epoch: u64) -> Associate {
    Associate { vipa: VIPA, epoch: Epoch(epoch), standing: Standing::Owner, seen: None }
}

fn ip(arguments: &str) -> Result<()> {
    let status = Command::new("ip").args(arguments.split(' ')).status()?;
    ensure!(status.success(), "ip {arguments} failed");
    Ok(())
}

fn wait_for<T>(mut what: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(found) = what() {
            return Some(found);
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

/// A target that serves the VIPA.
fn target() -> Target {
    let settings = Settings {
        cluster: "perf".into(),
        key: vipa_protocol::KeyDigest::default(),
        me: name("t1"),
        address: HERE,
        incarnation: Incarnation(1),
        voters: ["r1", "r2", "t1"].map(name).to_vec().into(),
        lease: Duration::from_millis(100),
        kept_records: KEPT_RECORDS,
    };
    let mut target = Target::new(settings, Vec::new(), Moment::ZERO);
    let peer = name("r1");
    feed(&mut target, Event::Connected { peer: peer.clone(), hello: hello("r1", Role::Router) });
    feed(&mut target, Event::Received { peer, message: Message::Distribution(distribution()) });
    target
}

fn feed(target: &mut Target, event: Event) -> Outbox {
    let mut out = Outbox::new();
    target.handle(Moment::ZERO, event, &mut out);
    out
}

fn connection(number: u32, address: impl Fn(u32) -> IpAddr) -> Connection {
    // In no order, as connections come.
    let number = number.wrapping_mul(0x9e37_79b1) % (1 << 24);
    let port = 16_384 + u16::try_from(number % 16_384).expect("14 bits");
    Connection { protocol: Protocol::Tcp, client: SocketAddr::from((address(number), port)), port: PORT }
}

/// Makes the target hold a million connections, as its changes come.
fn fill(target: &mut Target, mut each: impl FnMut(Connection), address: impl Fn(u32) -> IpAddr + Copy) {
    for begin in (0..MILLION).step_by(1_000) {
        let record = |number| {
            let connection = connection(number, address);
            each(connection);
            Record { connection, change: Change::Opened(ConnectionState::Established) }
        };
        let records = (begin..begin + 1_000).map(record).collect();
        drop(feed(target, Event::Changed { vipa: VIPA, records }));
    }
}

/// What the agent keeps of a million connections: its log, and what the observing thread knows.
fn memory(family: &str, address: impl Fn(u32) -> IpAddr + Copy) -> Result<Case> {
    let mut target = target();
    let mut known = Live::default();
    let before = resident()?;
    fill(&mut target, |connection| _ = known.insert(connection, ConnectionState::Established), address);
    let after = resident()?;
    let held = target.held().values().map(|live| live.len()).sum::<usize>();
    ensure!(held == known.len() && held > MILLION as usize * 9 / 10, "{held} connections are held");
    let bytes = after.saturating_sub(before) as f64 / held as f64;
    Ok(Case::new(format!("{family}, each of a million live connections"), bytes, "B", Owed::AtMost(64.0)))
}

/// The certificates of both nodes.
fn issue(folder: &Path) -> Result<()> {
    pki::issue(folder, &name("r1"), &CertifiedRoles::router())?;
    pki::issue(folder, &name("t1"), &CertifiedRoles::target([HERE]))?;
    Ok(())
}

fn admission() -> Admission {
    Admission { routers: vec![name("r1")], ..Admission::default() }
}

/// Resident bytes of this process.
fn resident() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).context("no Rss")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// A million connections, from the question for them to the last of them at the router.
fn snapshot() -> Result<Case> {
    let folder = Folder::new()?;
    pki::init(&folder.0)?;
    issue(&folder.0)?;
    let mut router = Router::start(&folder.0, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let listens = router.sender.local_address()?;
    let file = |ending: &str| folder.0.join(ending);
    let identity = Identity::load(&file("ca.pem"), &file("t1.pem"), &file("t1.key"))?;
    let settings = TransportSettings {
        hello: hello("t1", Role::Target { address: HERE }),
        admission: admission(),
        listen: None,
        dial: vec![(name("r1"), listens)],
        timing: Timing::default(),
    };
    let agent = runtime()?;
    let entered = agent.enter();
    let (sender, _receiver) = vipa_transport::start(settings, &identity)?;
    drop(entered);
    router.until("it is linked", |view| view.linked)?;
    wait_for(|| (!sender.linked().is_empty()).then_some(())).context("it is linked one way only")?;

    let mut target = target();
    fill(&mut target, |_| {}, |number| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | number >> 14)));
    let held: u64 = target.held().values().map(|live| live.len() as u64).sum();
    let began = Instant::now();
    let asked = feed(&mut target, Event::Received { peer: name("r1"), message: Message::Associate(associate(1)) });
    let token = asked.iter().find_map(|output| match output {
        Output::Look { token } => Some(*token),
        _ => None,
    });
    for output in feed(&mut target, Event::Looked { token: token.context("no look is asked for")? }) {
        if let Output::Send { to, message } = output {
            sender.send(&to, &message);
        }
    }
    let handed_over = began.elapsed();
    router.until("all has come", |view| view.told >= held)?;
    let case = Case::new("a snapshot of a million, to the last", began.elapsed().as_secs_f64(), "s", Owed::AtMost(1.0));
    Ok(case.beside("handed_over_s", handed_over.as_secs_f64()).beside("connections", held as f64))
}
