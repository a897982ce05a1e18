//! The receiving end of tunnels: a BPF program on the interfaces they arrive at (`program`), or the kernel's own tunnel
//! devices (`devices`).
//!
//! ```text
//!   Output::Unwrap ──► Decap ──┬── "bpf", "auto" ─────────────────────► program
//!                              └── "kernel", "auto" without BPF ──────► devices
//! ```
//! Either unwraps only what comes from the cluster's routers for its VIPAs, and goes on without the agent: what was put where, and
//! what it unwraps, is written down first, in `tunnels.json` of the state folder. The next agent takes it over without a gap, and
//! `vipa-agent cleanup` undoes it.

mod devices;
mod fou;
mod interfaces;
mod program;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::Path,
};

use aya::maps::MapError;
use rtnetlink::Handle;
use serde::{Deserialize, Serialize};
use vipa_model::config;

use self::{
    devices::{Devices, Kind},
    interfaces::{Link, has_clsact, interfaces, remarks},
    program::{PRIORITY, PROGRAM, Program},
};
use crate::{
    inheritance::Inherited,
    setup::Item,
    state_file::{StateFile, StateFileError},
};

const FILE: &str = "tunnels.json";

#[derive(Debug, thiserror::Error)]
pub(crate) enum DecapError {
    #[error(transparent)]
    StateFile(#[from] StateFileError),
    #[error(
        "no interface of this host has agent.address {0}; name those that tunnels arrive at in agent.decap_interfaces"
    )]
    NoInterface(IpAddr),
    #[error("there is no interface {0:?} on this host; correct agent.decap_interfaces")]
    NotThere(String),
    #[error(
        "{0} is no Ethernet interface, and the BPF program unwraps tunnels only there; \
         set agent.decap_interfaces, or agent.decap = \"kernel\""
    )]
    NoEthernet(String),
    #[error("cannot ask the kernel for its interfaces: {0}")]
    Netlink(#[from] Box<rtnetlink::Error>),
    #[error(
        "cannot load the BPF program that unwraps tunnels: {0:#}; it needs CAP_BPF and CAP_NET_ADMIN; \
         or have them unwrapped otherwise: agent.decap = \"kernel\", or \"none\""
    )]
    Load(#[source] anyhow::Error),
    #[error("cannot fill a BPF map of the program that unwraps tunnels: {0}")]
    Map(#[from] MapError),
    #[error(
        "cannot put the program that unwraps tunnels on {interface}: {source:#}; \
         `tc filter show dev {interface} ingress` shows what is there"
    )]
    Attach { interface: String, source: anyhow::Error },
    #[error(
        "this kernel has no {kind} devices, so what comes in such tunnels is not unwrapped: load its module {module}, \
         or set agent.decap = \"bpf\""
    )]
    Lacks { kind: &'static str, module: &'static str },
    #[error(
        "this kernel has none of the tunnel devices that agent.decap = \"kernel\" needs, see above: load their modules, \
         or set agent.decap = \"bpf\""
    )]
    NoDevices,
    #[error(
        "cannot set the tunnel device {name} up: {source:#}; \
         it needs CAP_NET_ADMIN, and a kernel with clsact, cls_u32 and act_gact"
    )]
    Device { name: String, source: anyhow::Error },
    #[error(
        "cannot have the kernel take GUE at UDP port 6080: {0}; `ip fou show` and `ss -ulpn` say who has that port"
    )]
    Gue(#[source] io::Error),
    #[error("tunnels can be unwrapped neither by BPF nor by the kernel's devices: {bpf}; and {kernel}")]
    Neither { bpf: Box<DecapError>, kernel: Box<DecapError> },
}

impl DecapError {
    /// Whether the kernel's devices may do all the same what BPF cannot.
    fn is_for_devices(&self) -> bool {
        matches!(self, Self::Load(_) | Self::NoEthernet(_))
    }
}

/// What would be changed on this host.
pub(crate) async fn plan(agent: &config::Agent, handle: &Handle) -> Vec<Item> {
    match agent.decap {
        config::Decap::None => vec![Item::new("tunnels", "are not unwrapped: agent.decap = \"none\"")],
        config::Decap::Kernel => plan_of_devices(agent, handle).await,
        config::Decap::Bpf => plan_of_program(agent, handle).await,
        config::Decap::Auto => {
            let mut plan = plan_of_program(agent, handle).await;
            plan.push(Item::new(
                "to know",
                "where BPF cannot, the kernel's tunnel devices unwrap: agent.decap = \"auto\"",
            ));
            plan
        }
    }
}

async fn plan_of_devices(agent: &config::Agent, handle: &Handle) -> Vec<Item> {
    let kinds: Vec<&str> = Kind::of(agent.address).iter().map(|kind| kind.name()).collect();
    let own = agent.address;
    let mut plan = vec![
        Item::new(
            "device",
            format!(
                "{}, from each router to {own}, once a list of candidates sends tunnels here; with clsact and filters \
                 that drop what is for no VIPA",
                kinds.join(", ")
            ),
        ),
        Item::new("fou", format!("UDP port 6080 at {own} for GUE, then too")),
    ];
    let remarks = remarks_of(Means::Devices, &agent.decap_interfaces, own, handle).await;
    plan.extend(remarks.into_iter().map(|remark| Item::new("to know", remark)));
    plan
}

/// What may keep tunnels' packets from getting through where they arrive, a sentence each.
async fn remarks_of(means: Means, configured: &[String], own: IpAddr, handle: &Handle) -> Vec<String> {
    let interfaces = match interfaces(configured, own, handle).await {
        Ok(interfaces) => interfaces,
        Err(error) => return vec![error.to_string()],
    };
    let mut found = Vec::new();
    for interface in interfaces {
        match Link::of(handle, &interface).await {
            Ok(Some(link)) => found.extend(remarks(&interface, &link, means, handle).await),
            Ok(None) => found.push(DecapError::NotThere(interface).to_string()),
            Err(error) => found.push(DecapError::Netlink(error).to_string()),
        }
    }
    found
}

async fn plan_of_program(agent: &config::Agent, handle: &Handle) -> Vec<Item> {
    let interfaces = match interfaces(&agent.decap_interfaces, agent.address, handle).await {
        Ok(interfaces) => interfaces,
        Err(error) => return vec![Item::new("tunnels", format!("cannot be unwrapped: {error}"))],
    };
    let mut plan = Vec::new();
    for interface in interfaces {
        let Ok(Some(link)) = Link::of(handle, &interface).await else {
            plan.push(Item::new("tunnels", DecapError::NotThere(interface).to_string()));
            continue;
        };
        if !has_clsact(handle, link.index).await.unwrap_or_default() {
            plan.push(Item::new(
                "qdisc",
                format!("clsact on {interface}, once a list of candidates sends tunnels here"),
            ));
        }
        let how = format!("BPF program {PROGRAM} on the ingress of {interface}, pref {PRIORITY}, handle 0x1, then too");
        plan.push(Item::new("filter", how));
        let remarks = remarks(&interface, &link, Means::Bpf, handle).await;
        plan.extend(remarks.into_iter().map(|remark| Item::new("to know", remark)));
    }
    plan
}

/// What was put on this host and what it does.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Changes {
    /// By interface.
    filters: BTreeMap<String, Filter>,
    /// Tunnel devices.
    devices: BTreeSet<String>,
    /// The kernel's port for GUE is open.
    fou: bool,
    tunnels: Tunnels,
}

/// What is unwrapped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tunnels {
    pub(crate) vipas: BTreeSet<IpAddr>,
    pub(crate) routers: BTreeSet<IpAddr>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Filter {
    /// The clsact qdisc that filters hang on is ours too.
    qdisc: bool,
}

/// What unwraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    Bpf,
    Devices,
}

/// What is unwrapped on this host.
pub(crate) struct Decap {
    mode: config::Decap,
    own: IpAddr,
    /// Where tunnels arrive, as configured.
    interfaces: Vec<String>,
    handle: Handle,
    kept: StateFile<Changes>,
    /// What an earlier agent unwrapped and nobody has released.
    inherited: Tunnels,
    program: Program,
    devices: Devices,
    /// What unwraps now, and why that.
    chosen: Option<(Means, String)>,
    /// Counters, as last told.
    told: BTreeMap<&'static str, u64>,
}

impl Decap {
    /// Knows what an earlier agent left, and changes nothing yet.
    pub(crate) fn open(agent: &config::Agent, state_dir: &Path, handle: Handle) -> Result<Self, DecapError> {
        let kept: StateFile<Changes> = StateFile::open(state_dir, FILE)?;
        let inherited = kept.value.tunnels.clone();
        Ok(Self {
            mode: agent.decap,
            own: agent.address,
            interfaces: agent.decap_interfaces.clone(),
            handle: handle.clone(),
            kept,
            inherited,
            program: Program::new(agent, handle.clone()),
            devices: Devices::new(agent.address, handle),
            chosen: None,
            told: BTreeMap::new(),
        })
    }

    /// Whether what unwraps has been taken away by others.
    pub(crate) async fn is_gone(&mut self) -> Result<bool, DecapError> {
        Ok(self.program.is_gone().await? || self.devices.are_gone().await?)
    }

    /// Makes it so that exactly what these routers wrap for these VIPAs is unwrapped, beside what is inherited.
    pub(crate) async fn unwrap(&mut self, wanted: &Tunnels, inherited: Inherited) -> Result<(), DecapError> {
        if inherited == Inherited::Release {
            self.inherited = Tunnels::default();
        }
        let tunnels = wanted.and(&self.inherited);
        if tunnels.vipas.is_empty() || self.mode == config::Decap::None {
            return self.clear().await;
        }
        if self.kept.value.tunnels != tunnels {
            self.kept.value.tunnels = tunnels.clone();
            self.kept.save()?;
        }
        match self.mode {
            config::Decap::Bpf => self.by_program(&tunnels, "agent.decap = \"bpf\" says so").await,
            config::Decap::Kernel => self.by_devices(&tunnels, "agent.decap = \"kernel\" says so").await,
            config::Decap::Auto => match self.by_program(&tunnels, "this kernel takes the program").await {
                Err(bpf) if bpf.is_for_devices() => {
                    let by_devices = self.by_devices(&tunnels, &bpf.to_string()).await;
                    by_devices.map_err(|kernel| DecapError::Neither { bpf: Box::new(bpf), kernel: Box::new(kernel) })
                }
                done => done,
            },
            config::Decap::None => unreachable!("answered above"),
        }
    }

    /// Undoes everything.
    pub(crate) async fn restore(mut self) -> Result<(), DecapError> {
        self.report().await;
        self.clear().await?;
        Ok(self.kept.remove()?)
    }

    /// Says what was unwrapped and what was not since the last time.
    pub(crate) async fn report(&mut self) {
        let mut news = Vec::new();
        for (what, counted) in self.counts().await {
            let told = self.told.insert(what, counted).unwrap_or_default();
            if counted > told {
                news.push(format!("{} {what}", counted - told));
            }
        }
        if !news.is_empty() {
            tracing::info!("packets from tunnels: {}", news.join(", "));
        }
    }

    /// How often what was put on this host has been written down.
    pub(crate) fn files_written(&self) -> u64 {
        self.kept.written()
    }

    /// What an earlier agent has left and this one has not taken over, a line each.
    pub(crate) fn left(&self) -> Vec<String> {
        let Changes { filters, devices, fou, tunnels: _ } = &self.kept.value;
        let filters =
            filters.keys().map(|interface| format!("BPF program {PROGRAM} is off the ingress of {interface}"));
        let devices = devices.iter().map(|device| format!("tunnel device {device} is gone"));
        filters.chain(devices).chain(fou.then(|| "UDP port 6080 is closed".to_owned())).collect()
    }

    /// What became of tunnels' packets, each under its name.
    pub(crate) async fn counts(&mut self) -> Vec<(&'static str, u64)> {
        match self.chosen {
            Some((Means::Bpf, _)) => self.program.counts(),
            Some((Means::Devices, _)) => self.devices.counts().await,
            None => Vec::new(),
        }
    }

    /// What unwraps, and why that; a sentence without its end.
    pub(crate) fn chosen(&self) -> Option<String> {
        self.chosen.as_ref().map(|(_, sentence)| sentence.clone())
    }

    /// What may keep tunnels' packets from getting through on this host, a sentence each.
    pub(crate) async fn remarks(&self) -> Vec<String> {
        match &self.chosen {
            Some((means, _)) => remarks_of(*means, &self.interfaces, self.own, &self.handle).await,
            None => Vec::new(),
        }
    }

    async fn by_program(&mut self, tunnels: &Tunnels, why: &str) -> Result<(), DecapError> {
        self.program.unwrap(tunnels, &mut self.kept).await?;
        self.choose(Means::Bpf, why).await;
        // Of an agent that was configured otherwise.
        self.devices.clear(&mut self.kept).await
    }

    async fn by_devices(&mut self, tunnels: &Tunnels, why: &str) -> Result<(), DecapError> {
        self.devices.unwrap(tunnels, &mut self.kept).await?;
        self.choose(Means::Devices, why).await;
        self.program.clear(&mut self.kept).await
    }

    async fn choose(&mut self, means: Means, why: &str) {
        if self.chosen.as_ref().is_some_and(|(chosen, _)| *chosen == means) {
            return;
        }
        let how = match means {
            Means::Bpf => "a BPF program",
            Means::Devices => "the kernel's tunnel devices",
        };
        let sentence = format!("tunnels are unwrapped by {how}, because {why}");
        tracing::info!("{sentence}");
        self.chosen = Some((means, sentence));
        self.remarks().await.iter().for_each(|remark| tracing::info!("{remark}"));
    }

    async fn clear(&mut self) -> Result<(), DecapError> {
        self.program.clear(&mut self.kept).await?;
        self.devices.clear(&mut self.kept).await?;
        self.chosen = None;
        self.told.clear();
        if self.kept.value != Changes::default() {
            self.kept.value = Changes::default();
            self.kept.save()?;
        }
        Ok(())
    }
}

impl Tunnels {
    fn and(&self, others: &Self) -> Self {
        Self { vipas: &self.vipas | &others.vipas, routers: &self.routers | &others.routers }
    }
}
