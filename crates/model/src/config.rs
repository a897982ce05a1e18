//! A node's configuration: one TOML file, read whole and judged whole.
//!
//! ```text
//! text ─► toml's spanned tree ─► sections, each key read by its kind ─► rules between keys ─► Config
//!                                     └────────── every mistake, with line and column ─────► ConfigErrors
//! ```
//! A `Config` that exists is valid: nothing that uses one has to check it again. Every key is described in
//! `docs/configuration.md`; a test holds the page to it. The tree is walked by our own reader and not by serde's
//! derive, because serde stops at the first mistake and knows no place for what is missing.

mod announce;
mod api;
mod changes;
mod check;
mod device;
mod metrics;
mod place;
mod problems;
mod read;
mod sections;
mod vipa;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

pub use api::{Api, ApiListen, ApiRoles, ApiTls};
pub use changes::{Change, Effect};
pub use device::{driver_of, largest_mtu};
pub use metrics::{Metrics, MetricsListen};
pub use place::{ConfigPlace, Fit, Misfit};
pub use problems::{ConfigErrors, Problem};

use crate::{Check, NodeName, Rank, Service, Unserved, Voters};

/// What a node is told to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub node: Node,
    pub pki: Pki,
    pub cluster: Cluster,
    pub dpdk: Dpdk,
    /// At least one at a router, none at a mere target; a `PortId` indexes it.
    pub ports: Vec<Port>,
    pub workers: Workers,
    pub table: Table,
    pub announce: Announce,
    pub hooks: Hooks,
    pub autonomics: Autonomics,
    pub metrics: Metrics,
    pub vipas: Vec<Vipa>,
    /// Present where the router has an HTTP API.
    pub api: Option<Api>,
    /// Present at a target.
    pub agent: Option<Agent>,
}

/// The program that is going to use a configuration, and so what must be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `vipad`: wants `node.listen`, its own place in `[cluster.routers]`, and a `[[port]]`.
    Router,
    /// `vipa-agent`: wants `[agent]`.
    Agent,
}

/// Name of the admin socket in a node's folder below [`Program::runtime_root`].
pub const ADMIN_SOCKET: &str = "admin.sock";

impl Program {
    /// Below it each node has a folder of its name, the default of `node.state_dir`. The systemd units make it.
    #[must_use]
    pub const fn state_root(self) -> &'static str {
        match self {
            Self::Router => "/var/lib/vipad",
            Self::Agent => "/var/lib/vipa-agent",
        }
    }

    /// Below it each node has a folder of its name with its admin socket, the default of `node.admin`. The systemd units make it.
    #[must_use]
    pub const fn runtime_root(self) -> &'static str {
        match self {
            Self::Router => "/run/vipad",
            Self::Agent => "/run/vipa-agent",
        }
    }
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: NodeName,
    /// Where other nodes reach this one (UDP); `Some` at every router.
    pub listen: Option<SocketAddr>,
    pub state_dir: PathBuf,
    pub admin: PathBuf,
    pub access: AdminAccess,
}

/// `[admin]`: who may ask and order at the socket `node.admin`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminAccess {
    /// Its members may ask and order. The socket's file belongs to it.
    pub group: Option<String>,
    /// Its members may ask.
    pub read_group: Option<String>,
}

/// `[pki]`: PEM files; relative paths are relative to the folder of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pki {
    /// One authority, or several while one takes the place of another.
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Nodes that may not link, whatever certificate they show.
    pub revoked_nodes: Vec<NodeName>,
    /// Certificates that count no more, by serial number: hexadecimal digits in lower case.
    pub revoked_serials: Vec<String>,
}

/// `[cluster]`: the same on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub name: String,
    /// Secret of the balancing hash, so that outsiders cannot choose their target.
    pub key: [u8; 16],
    /// Sorted, 3, 5 or 7 of them; none with `quorum = "none"`.
    pub voters: Voters,
    pub lease: Duration,
    /// At most a quarter of `lease`.
    pub beat: Duration,
    pub drift_percent: u8,
    pub rebuild_deadline: Duration,
    pub grace: Duration,
    /// Every router and where it listens, sorted by name.
    pub routers: Vec<(NodeName, SocketAddr)>,
}

/// `[dpdk]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dpdk {
    pub memory: Memory,
    pub memory_mb: u32,
    pub file_prefix: String,
    /// Further EAL options, as they are.
    pub options: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Hugepages where enough are free, else none.
    Auto,
    Hugepages,
    NoHuge,
}

/// `[[port]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    /// A DPDK device: a PCI address or a virtual device with its arguments.
    pub device: String,
    pub address: Ipv4Addr,
    pub prefix_length: u8,
    /// On the port's own network.
    pub gateway: Option<Ipv4Addr>,
    /// Its IPv6 address and network; without one, IPv6 targets are not reached through this port.
    pub address6: Option<(Ipv6Addr, u8)>,
    /// On the port's own link.
    pub gateway6: Option<Ipv6Addr>,
    /// Every frame of this port carries this tag (802.1Q).
    pub vlan: Option<u16>,
    /// The kernel's end of the exception path.
    pub kernel_interface: Option<String>,
    pub kernel_driver: KernelDriver,
    pub kernel_packets_per_second: u32,
    pub queues: u16,
    pub mtu: u16,
    pub promiscuous: bool,
}

impl Port {
    /// Its own, of either family.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(self.address.into()).chain(self.address6.map(|(address, _)| address.into()))
    }
}

/// What makes a kernel interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelDriver {
    Tap,
    /// By way of the kernel's `vhost-net`, which moves packets in bursts.
    VirtioUser,
}

/// `[workers]`: one poll-mode thread for each core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    pub cores: Vec<u16>,
    pub idle: Idle,
    /// Longest sleep of an idle worker.
    pub idle_max: Duration,
}

/// What a worker does between two empty polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    Sleep,
    Pause,
    Spin,
}

/// `[table]`: the connection table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub connections: u64,
    /// Without a packet for this long, a connection in that state is forgotten. One that its target has reported is
    /// not: the target says when it ends.
    pub half_open: Duration,
    pub established: Duration,
    pub closing: Duration,
    pub udp: Duration,
    /// Between two targets whose connections are compared with the table's.
    pub audit: Option<Duration>,
    /// Of the table, guaranteed to the reports of all known targets in equal parts. 0 to 100.
    pub reserve_percent: u8,
}

/// `[announce]`: how the network learns where a VIPA is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Gratuitous ARP and unsolicited neighbour advertisements go out at once when a VIPA is taken, and again after each
    /// of these; growing.
    pub repeat: Vec<Duration>,
    /// And then for as long as it is owned.
    pub refresh: Option<Duration>,
    /// A TUN interface that bears a route to each owned VIPA, for a routing daemon to pass on.
    pub interface: Option<String>,
    /// The kernel's routing table those routes are in.
    pub table: u32,
}

/// `[hooks]`: programs that are told when a VIPA comes and goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Program and arguments, at least the former.
    pub owned: Option<Vec<String>>,
    pub released: Option<Vec<String>>,
    /// One that runs longer is killed.
    pub timeout: Duration,
}

/// `[autonomics]`: when this router takes itself for unfit to route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autonomics {
    /// A fault that lasts so long makes unfit.
    pub unfit_after: Duration,
    /// So long without a fault makes fit again.
    pub fit_after: Duration,
    /// A worker that has not turned for so long stands still.
    pub stall: Duration,
}

/// `[[vipa]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vipa {
    pub address: IpAddr,
    /// Highest first, no two alike; contains this node.
    pub ranks: Vec<(NodeName, Rank)>,
    /// May claim the VIPA when nobody has owned it yet.
    pub activate: bool,
    pub takeback: Takeback,
    /// How long it must have been ready before that.
    pub takeback_delay: Duration,
    /// VIPAs of one group move together.
    pub group: Option<String>,
    /// Most new connections a second; the rest wait for their next SYN.
    pub new_per_second: Option<u32>,
    /// What becomes of new connections that nobody serves, while this router owns the VIPA.
    pub unserved: Unserved,
    /// This router's own list; `None`: it uses what the owner distributes.
    pub services: Option<Vec<Service>>,
}

/// When a returning router of higher rank gets its VIPA back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeback {
    /// As soon as its table is complete.
    Immediate,
    /// When the VIPA has no connections.
    WhenIdle,
    /// When an operator orders it.
    Manual,
}

impl Takeback {
    pub const ALL: [Self; 3] = [Self::Immediate, Self::WhenIdle, Self::Manual];

    /// As in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::WhenIdle => "when-idle",
            Self::Manual => "manual",
        }
    }
}

/// `[agent]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Where routers send this target's packets.
    pub address: IpAddr,
    /// The interface that carries the VIPAs.
    pub interface: String,
    pub observe: Observe,
    /// Shortest time between two looks at the kernel's sockets.
    pub observe_every: Duration,
    /// Network namespaces whose sockets are looked at beside the agent's own: names of `ip netns`, or paths.
    pub namespaces: Vec<String>,
    /// Changes kept for routers that were away; an older position gets a snapshot.
    pub log_records: u32,
    pub decap: Decap,
    /// Where tunnels arrive; none: at the interface that has `address`.
    pub decap_interfaces: Vec<String>,
    /// How long SIGTERM waits for connections to run out; zero: not at all.
    pub drain_timeout: Duration,
    /// What this target checks of its own applications.
    pub checks: Vec<Check>,
}

/// How a target's agent learns of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observe {
    /// By BPF where the kernel allows it, else by sock_diag.
    Auto,
    Bpf,
    Diag,
}

/// Who unwraps what comes in tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decap {
    /// The agent, in whatever way works here.
    Auto,
    /// The agent, by a BPF program.
    Bpf,
    /// The agent, by the kernel's own tunnel devices.
    Kernel,
    /// Somebody else.
    None,
}

impl Config {
    /// Reads `text`, the content of `file`. Routers and targets tell themselves apart by what they configure.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigErrors> {
        sections::config(file, text, None, None)
    }

    /// As `parse`, and what `program` needs must be there.
    pub fn parse_for(program: Program, file: &str, text: &str) -> Result<Self, ConfigErrors> {
        sections::config(file, text, Some(program), None)
    }

    /// As `parse_for`; ports and VIPAs must fit each other, too, and what does not is among the mistakes.
    pub fn parse_fitting(program: Program, file: &str, text: &str, fit: Fit) -> Result<Self, ConfigErrors> {
        sections::config(file, text, Some(program), Some(fit))
    }

    /// Every key there is, as `section.key`: what the documentation must name.
    #[must_use]
    pub fn keys() -> Vec<String> {
        sections::all_keys()
    }
}

#[cfg(test)]
mod tests;
