//! A cluster in namespaces: routers, targets with servers, and a client, all on one switch.
//!
//! ```text
//!   10.77.0.11  r1 vipad ─┐                        ┌─ t1 vipa-agent + server  10.77.0.31
//!          .21  its port  │                        │
//!                         ├── switch 10.77.0.0/24 ─┼─ t2 …                           .32
//!   10.77.0.12  r2 vipad ─┤                        │
//!          .22  its port  │                        └─ t3 …                           .33
//!                         └─ client 10.77.0.51 …        VIPA 10.77.0.100, port 80
//! ```
//!
//! A router's kernel has an address of its own, for messages between nodes; its DPDK port has another one on the same
//! wire. No wait is a guessed time: readiness is queried with `vipactl`.

mod agreement;
mod config;
mod node;
mod view;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    str::FromStr,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use anyhow::{Context, Result, bail};

pub use agreement::Unreported;
pub use node::{Presence, Router, Served, Target};
pub use view::View;

use crate::{
    load::{Client, ClientPlan},
    netns::{Host, Lab},
    process::tail,
};

pub const VIPA: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
pub const VIPA6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);
pub const SERVICE_PORT: u16 = 80;

/// Time limit for steps that an idle machine does in a moment.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// More connections than this from one address would run out of ports.
const CONNECTIONS_PER_ADDRESS: usize = 25_000;
/// Connections per server: a target's port is shared by so many servers that each stays below the number of files that
/// a process may open.
const CONNECTIONS_PER_SERVER: usize = 8_000;

/// Kind of a router's DPDK port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// A packet socket on the very interface that the kernel uses.
    AfPacket,
    /// A TAP device bridged to the interface.
    Tap,
}

impl FromStr for Ports {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "af_packet" => Ok(Self::AfPacket),
            "tap" => Ok(Self::Tap),
            other => bail!("PORTS is {other:?}, but must be af_packet or tap"),
        }
    }
}

/// Properties of a cluster; the defaults are the demo's.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the folder for the logs: `target/lab/<name>`.
    pub name: String,
    pub routers: u8,
    pub targets: u8,
    pub ports: Ports,
    /// Names of nodes. Empty: all routers, and targets up to five in all (three, when there are fewer nodes).
    pub voters: Vec<String>,
    /// No node votes: the routers' ranks alone decide.
    pub no_quorum: bool,
    pub lease_ms: u64,
    /// Candidates by router, numbers of targets; a router not named here has all of them.
    pub candidates: BTreeMap<String, Vec<u8>>,
    /// Routers without services of their own: they use those that the owner distributes.
    pub inherits: Vec<String>,
    /// Targets without a server.
    pub silent: Vec<u8>,
    /// Targets without an agent: the routers probe them themselves.
    pub agentless: Vec<u8>,
    /// Routers that are not started.
    pub absent: Vec<String>,
    /// Routers of the cluster without a rank for any VIPA.
    pub rankless: Vec<String>,
    /// Targets without a kernel, and how many connections each reports; see [`crate::replay`].
    pub replays: BTreeMap<u8, u32>,
    /// Connections that each server must be able to hold.
    pub connections: usize,
    /// How the VIPAs' packets get to the targets.
    pub way: TargetPlan,
    /// Routers whose own lists have another forwarding than `way`, by router.
    pub forwarding_of: BTreeMap<String, &'static str>,
    /// Further lines of every router's `[[port]]`, and of every service.
    pub port_lines: String,
    pub service_lines: String,
    /// Further lines of every router's `[table]`.
    pub table_lines: String,
    /// Further lines of every target's `[agent]`.
    pub agent_lines: String,
    /// Further sections of one router's configuration, by router: other VIPAs.
    pub further_of: BTreeMap<String, String>,
    /// The first router is a target too, [`Cluster::OWN_TARGET`]: its port's address is a candidate. Needs a
    /// `kernel_interface` and TAP ports.
    pub serves_itself: bool,
    /// Further sections of every router's configuration.
    pub further: String,
    /// Workers of each router, with a queue each; one or two.
    pub workers: u8,
    /// It needs the whole machine: no other cluster of this process runs beside it.
    pub alone: bool,
}

/// How packets get to the targets, and in which families.
#[derive(Clone, Copy, Debug)]
pub struct TargetPlan {
    /// The configuration's word.
    pub forwarding: &'static str,
    /// Services on all ports, TCP and UDP, instead of the one on port 80.
    pub all_ports: bool,
    /// There is an IPv6 VIPA beside the other.
    pub vipa6: bool,
    /// There is an IPv4 VIPA; not where `nat` has IPv6 targets alone.
    pub vipa4: bool,
    /// Targets have their IPv6 addresses as their names.
    pub targets6: bool,
}

impl Default for TargetPlan {
    fn default() -> Self {
        Self { forwarding: "direct", all_ports: false, vipa6: false, vipa4: true, targets6: false }
    }
}

impl TargetPlan {
    fn has_ipv6(&self) -> bool {
        self.vipa6 || self.targets6
    }
}

impl Plan {
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            routers: 2,
            targets: 3,
            ports: Ports::AfPacket,
            voters: Vec::new(),
            no_quorum: false,
            lease_ms: 200,
            candidates: BTreeMap::new(),
            inherits: Vec::new(),
            silent: Vec::new(),
            replays: BTreeMap::new(),
            agentless: Vec::new(),
            absent: Vec::new(),
            rankless: Vec::new(),
            connections: 2_000,
            way: TargetPlan::default(),
            forwarding_of: BTreeMap::new(),
            port_lines: String::new(),
            service_lines: String::new(),
            table_lines: String::new(),
            agent_lines: String::new(),
            further_of: BTreeMap::new(),
            serves_itself: false,
            further: String::new(),
            workers: 1,
            alone: false,
        }
    }

    /// Starts the cluster, waits until it is ready, runs `story` and takes everything down again.
    ///
    /// # Panics
    /// When anything fails. The failure, the routers' counters, and the ends of all logs are printed before,
    /// in this order.
    pub fn run(self, story: impl FnOnce(&mut Cluster) -> Result<()>) {
        // A test that failed has cleaned up all the same, so a poisoned lock may be used.
        let _alone = self.alone.then(|| MACHINE.write().unwrap_or_else(PoisonError::into_inner));
        let _beside = (!self.alone).then(|| MACHINE.read().unwrap_or_else(PoisonError::into_inner));
        let mut cluster = None;
        let end = catch_unwind(AssertUnwindSafe(|| {
            let cluster = cluster.insert(Cluster::start(self)?);
            cluster.wait_ready()?;
            story(cluster)
        }));
        if let (Some(cluster), Ok(Err(error))) = (&cluster, &end) {
            println!("{error:?}\n{}", cluster.counters());
        }
        if let (Some(cluster), Ok(Err(_)) | Err(_)) = (&cluster, &end) {
            cluster.show_logs();
        }
        drop(cluster);
        match end {
            Ok(Ok(())) => {}
            Ok(Err(error)) => panic!("{error}"),
            Err(panic) => resume_unwind(panic),
        }
    }

    fn voters(&self) -> Vec<String> {
        if !self.voters.is_empty() {
            return self.voters.clone();
        }
        let routers = (1..=self.routers).map(|number| format!("r{number}"));
        let targets = (1..=self.targets).map(|number| format!("t{number}"));
        let mut voters: Vec<_> = routers.chain(targets).take(5).collect();
        if voters.len() == 4 {
            voters.pop();
        }
        voters
    }
}

/// The machine is shared by clusters that wait most of their time, or used by one that does not.
static MACHINE: RwLock<()> = RwLock::new(());

/// A running cluster.
pub struct Cluster {
    // Dropped in this order: the processes first, then the network they live in.
    routers: BTreeMap<String, Router>,
    targets: BTreeMap<String, Target>,
    client: Host,
    plan: Plan,
    lab: Lab,
    /// The epoch of the latest takeover that was waited for.
    seen: u64,
}

impl Cluster {
    /// Node name of the agent on the first router's host.
    pub const OWN_TARGET: &str = "own";

    /// Builds the network, makes the certificates, and starts every process; does not wait for them to agree.
    pub fn start(plan: Plan) -> Result<Self> {
        let lab = Lab::new(&plan.name)?;
        config::make_certificates(&lab, &plan)?;
        let sources = u8::try_from(plan.connections.div_ceil(CONNECTIONS_PER_ADDRESS).max(1))?;
        let addresses: Vec<_> = (0..sources).map(|number| Ipv4Addr::new(10, 77, 0, 51 + number)).collect();
        let client = lab.host("client", &addresses)?;
        client.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
        if plan.way.has_ipv6() {
            node::enable_ipv6(&client, 51)?;
        }
        let mut cluster = Self { routers: BTreeMap::new(), targets: BTreeMap::new(), client, plan, lab, seen: 0 };
        for number in 1..=cluster.plan.targets {
            let target = Target::prepare(&cluster.lab, &cluster.plan, number)?;
            let target = cluster.targets.entry(target.name().into()).or_insert(target);
            if cluster.plan.agentless.contains(&number) {
                target.serve_without_agent()?;
            } else {
                target.start_agent()?;
            }
        }
        for number in 1..=cluster.plan.routers {
            let router = Router::prepare(&cluster.lab, &cluster.plan, number)?;
            let router = cluster.routers.entry(router.name().into()).or_insert(router);
            if !cluster.plan.absent.contains(&router.name().into()) {
                router.start()?;
            }
        }
        Ok(cluster)
    }

    /// The router of that name, `r1` …
    pub fn router(&mut self, name: &str) -> &mut Router {
        self.routers.get_mut(name).unwrap_or_else(|| panic!("the plan has no router {name}"))
    }

    /// The target of that name, `t1` …
    pub fn target(&mut self, name: &str) -> &mut Target {
        self.targets.get_mut(name).unwrap_or_else(|| panic!("the plan has no target {name}"))
    }

    #[must_use]
    pub fn targets(&self) -> Vec<String> {
        self.targets.keys().cloned().collect()
    }

    #[must_use]
    pub fn target_hosts(&self) -> Vec<Host> {
        self.targets.values().map(|target| target.host().clone()).collect()
    }

    #[must_use]
    pub fn delivery(&self) -> &TargetPlan {
        &self.plan.way
    }

    /// Node name of a target.
    #[must_use]
    pub fn own_address(&self, target: &str) -> IpAddr {
        let number = target.trim_start_matches('t').parse().unwrap_or(0);
        config::agent_address(&self.plan, number)
    }

    /// Waits until every target has every VIPA on its loopback interface.
    pub fn wait_addresses(&self) -> Result<()> {
        for target in self.targets.values() {
            for (_, vipa) in self.vipas() {
                target.wait_address(vipa, Presence::Present)?;
            }
        }
        Ok(())
    }

    fn vipas(&self) -> impl Iterator<Item = (bool, IpAddr)> + use<> {
        let TargetPlan { vipa4, vipa6, .. } = self.plan.way;
        [(vipa4, IpAddr::from(VIPA)), (vipa6, IpAddr::from(VIPA6))].into_iter().filter(|(there, _)| *there)
    }

    /// Starts an agent and a server on the first router's own host, for `serves_itself`.
    pub fn start_own_target(&self) -> Result<Target> {
        let host = self.routers.get("r1").map(|router| router.host().clone()).context("the plan has no r1")?;
        Target::on_router(&self.lab, &self.plan, host)
    }

    #[must_use]
    pub fn client_host(&self) -> &Host {
        &self.client
    }

    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    #[must_use]
    pub fn service() -> SocketAddr {
        (VIPA, SERVICE_PORT).into()
    }

    /// Starts a client of the service with this many long-lived connections, and waits until all are open.
    pub fn client(&self, connections: usize) -> Result<Client> {
        self.client_with(&ClientPlan::new(Self::service(), connections))
    }

    pub fn client_with(&self, plan: &ClientPlan) -> Result<Client> {
        let mut client = self.start_client(plan)?;
        client.wait_open(PATIENCE + Duration::from_millis(plan.connections as u64))?;
        Ok(client)
    }

    /// As `client_with`, on a target's host.
    pub fn client_on(&mut self, target: &str, plan: &ClientPlan) -> Result<Client> {
        let mut client = Client::start(self.target(target).host(), &format!("{target}-client"), plan)?;
        client.wait_open(PATIENCE + Duration::from_millis(plan.connections as u64))?;
        Ok(client)
    }

    /// Starts a client and does not wait.
    pub fn start_client(&self, plan: &ClientPlan) -> Result<Client> {
        let mut plan = plan.clone();
        let sources = plan.connections.div_ceil(CONNECTIONS_PER_ADDRESS);
        if plan.sources.is_empty() && sources > 1 {
            plan.sources = (0..sources).map(|number| Ipv4Addr::new(10, 77, 0, 51 + number as u8).into()).collect();
        }
        Client::start(&self.client, "client", &plan)
    }

    /// Drops messages between `router` and `node`, in both directions; packets of clients pass as before.
    pub fn cut(&mut self, router: &str, node: &str) -> Result<()> {
        let address = self.control_address(node);
        self.router(router).host().nft(&format!(
            "add table ip cut-{node}\n\
             add chain ip cut-{node} in {{ type filter hook prerouting priority -300; }}\n\
             add chain ip cut-{node} out {{ type filter hook output priority -300; }}\n\
             add rule ip cut-{node} in ip saddr {address} udp dport 1-65535 drop\n\
             add rule ip cut-{node} out ip daddr {address} udp dport 1-65535 drop\n"
        ))
    }

    /// Undoes [`Self::cut`].
    pub fn mend(&mut self, router: &str, node: &str) -> Result<()> {
        self.router(router).host().nft(&format!("delete table ip cut-{node}\n"))
    }

    /// Drops packets between the clients and `router`, in both directions; messages between nodes pass as before.
    pub fn cut_clients(&self, router: &str) -> Result<()> {
        let client = self.client.name();
        self.lab.switch().nft(&format!(
            "add table bridge cut-{router}\n\
             add chain bridge cut-{router} through {{ type filter hook forward priority 0; }}\n\
             add rule bridge cut-{router} through iifname {client} oifname {router} drop\n\
             add rule bridge cut-{router} through iifname {router} oifname {client} drop\n"
        ))
    }

    /// Undoes [`Self::cut_clients`].
    pub fn mend_clients(&self, router: &str) -> Result<()> {
        self.lab.switch().nft(&format!("delete table bridge cut-{router}\n"))
    }

    /// Makes the switch drop this percentage of the packets.
    pub fn lose(&self, percent: u8) -> Result<()> {
        self.lab.switch().nft(&format!(
            "add table bridge loss\n\
             add chain bridge loss through {{ type filter hook forward priority 0; }}\n\
             add rule bridge loss through numgen random mod 100 < {percent} drop\n"
        ))
    }

    /// Undoes [`Self::lose`].
    pub fn lose_no_more(&self) -> Result<()> {
        self.lab.switch().nft("delete table bridge loss\n")
    }

    /// The running `vipad` and `vipa-agent` processes: the node's name, and the process number.
    #[must_use]
    pub fn processes(&mut self) -> Vec<(String, u32)> {
        let routers =
            self.routers.iter_mut().filter_map(|(name, router)| Some((name.clone(), router.process_id().ok()?)));
        let agents = self.targets.iter().filter_map(|(name, target)| Some((name.clone(), target.agent_id()?)));
        routers.chain(agents).collect()
    }

    /// Every router and every target, by name.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        self.routers.keys().chain(self.targets.keys()).cloned().collect()
    }

    /// The address at which the other nodes reach `node`.
    fn control_address(&mut self, node: &str) -> Ipv4Addr {
        match self.targets.get(node) {
            Some(target) => target.address(),
            None => self.router(node).control_address(),
        }
    }

    /// An agent on a host of its own that claims to be `name` and trusts the cluster, but has its certificate from
    /// another authority.
    pub fn foreign_target(&self, name: &str) -> Result<Target> {
        Target::foreign(&self.lab, &self.plan, name)
    }

    /// Prints the ends of all logs on standard error.
    pub fn show_logs(&self) {
        let logs = self.lab.logs();
        let mut files: Vec<_> =
            std::fs::read_dir(logs).into_iter().flatten().flatten().map(|file| file.path()).collect();
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "log")) {
            eprintln!("──── {}\n{}", file.display(), tail(file, 40));
        }
        eprintln!("──── all of it is in {}", logs.display());
    }
}
