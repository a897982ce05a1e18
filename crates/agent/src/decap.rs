//! The receiving end of tunnels: a BPF program on the ingress of the interfaces they arrive at (`bpf/decap.bpf.c`).
//!
//! ```text
//!   Output::Unwrap ──► maps: VIPAs, routers, own address ──┐
//!   NIC ──► tc ingress ──► program ── unwrapped ──► the kernel, as if it had come bare
//!                             └── counters ──► the log
//! ```
//! It hangs there as a classic tc filter and not by a BPF link, because a link ends with its process: so an agent that crashes
//! breaks no connection, and its successor puts its own program in the same place, in one step. What was put where, and what
//! it unwraps, is written down first, in `tunnels.json` of the state folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::Path,
};

use aya::{
    Ebpf, EbpfError,
    maps::{HashMap, MapData, MapError, PerCpuArray},
    programs::{
        Link as _, ProgramError, SchedClassifier, TcAttachType,
        tc::{NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcHandle, qdisc_add_clsact},
    },
};
use ethtool::{EthtoolAttr, EthtoolFeatureAttr};
use futures_util::TryStreamExt;
use rtnetlink::{
    Handle,
    packet_route::{
        link::{LinkAttribute, LinkLayerType},
        tc::{TcAttribute, TcHandle as QdiscHandle, TcMessage},
    },
};
use serde::{Deserialize, Serialize};
use vipa_model::config;

use crate::{
    address::{index_of, interface_of},
    bpf::{Address, address_of},
    kept::{Inheritance, Kept, KeptError},
    setup::Item,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/decap.o"));
const PROGRAM: &str = "vipa_unwrap";
const FILE: &str = "tunnels.json";
/// Our place among an interface's filters; tc shows it as pref 22089, handle 0x1.
const PRIORITY: u16 = 22_089;
const HANDLE: TcHandle = TcHandle::new(0, 1);
/// What a tunnel adds at most: IPv6, UDP and GUE.
const MOST_OVERHEAD: u32 = 52;
/// What every IPv6 link carries (RFC 8200 §5).
const LEAST_MTU: u32 = 1_280;

/// Offloads that make one packet of several, whichever tunnel they are in.
const MERGING: [&str; 3] = ["rx-lro", "rx-gro-list", "rx-udp-gro-forwarding"];

/// What becomes of a tunnel's packet: the order of `enum fate` of the program, and how it is told.
const FATES: [&str; 9] = [
    "unwrapped from IPIP",
    "unwrapped from GRE",
    "unwrapped from GUE",
    "left to the kernel: not from a router of the cluster",
    "left to the kernel: a fragment",
    "dropped: not for a VIPA of this host",
    "dropped: malformed",
    "dropped: congested, and the connection knows no ECN",
    "dropped: the kernel could not unwrap it",
];

#[derive(Debug, thiserror::Error)]
pub(crate) enum DecapError {
    #[error(transparent)]
    Kept(#[from] KeptError),
    #[error(
        "no interface of this host has agent.address {0}; name those that tunnels arrive at in agent.decap_interfaces"
    )]
    NoInterface(IpAddr),
    #[error("there is no interface {0:?} on this host; correct agent.decap_interfaces")]
    NotThere(String),
    #[error("{0} is no Ethernet interface, and the agent unwraps tunnels only there; set agent.decap_interfaces")]
    NoEthernet(String),
    #[error("cannot ask the kernel for its interfaces: {0}")]
    Netlink(#[from] Box<rtnetlink::Error>),
    #[error(
        "cannot load the BPF program that unwraps tunnels: {0:#}; it needs CAP_BPF and CAP_NET_ADMIN; \
         or unwrap them otherwise and set agent.decap = \"none\""
    )]
    Load(#[source] anyhow::Error),
    #[error("cannot fill a BPF map of the program that unwraps tunnels: {0}")]
    Map(#[from] MapError),
    #[error(
        "cannot put the program that unwraps tunnels on {interface}: {source:#}; \
         `tc filter show dev {interface} ingress` shows what is there"
    )]
    Attach { interface: String, source: anyhow::Error },
}

/// What would be changed on this host.
pub(crate) async fn plan(agent: &config::Agent, handle: &Handle) -> Vec<Item> {
    if agent.decap == config::Decap::None {
        return vec![Item::new("tunnels", "are not unwrapped: agent.decap = \"none\"")];
    }
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
        plan.extend(remarks(&interface, &link).await.into_iter().map(|remark| Item::new("to know", remark)));
    }
    plan
}

/// What may keep packets from getting through on an interface.
async fn remarks(interface: &str, link: &Link) -> Vec<String> {
    let mut remarks = Vec::new();
    if !link.is_ethernet {
        remarks.push(DecapError::NoEthernet(interface.into()).to_string());
    }
    let inside = link.mtu.saturating_sub(MOST_OVERHEAD);
    let least = if inside < LEAST_MTU { "; IPv6 needs 1280: raise the MTU" } else { "" };
    remarks.push(format!("{interface} has MTU {}: {inside} bytes fit into the longest headers{least}", link.mtu));
    // The larger of both counts (ip-sysctl of the kernel's documentation).
    let rp_filter = ["all", interface].map(|which| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{which}/rp_filter")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    });
    if rp_filter.into_iter().max() == Some(1) {
        remarks.push(format!(
            "{interface} has rp_filter 1: clients that are reached by another interface are not heard in tunnels; 2 hears them"
        ));
    }
    for offload in merging(interface).await {
        remarks.push(format!(
            "{interface} has {offload} on, which makes one packet of several before they are unwrapped: \
             turn it off with ethtool -K {interface} {offload} off"
        ));
    }
    remarks
}

/// The offloads of this interface that are on and merge what is in tunnels.
async fn merging(interface: &str) -> Vec<&'static str> {
    let Ok((connection, mut handle, _)) = ethtool::new_connection() else { return Vec::new() };
    let connection = tokio::spawn(connection);
    let mut on = Vec::new();
    if let Ok(mut features) = handle.feature().get(Some(interface)).execute().await {
        while let Ok(Some(features)) = features.try_next().await {
            for attribute in features.payload.nlas {
                if let EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) = attribute {
                    let is_on = |name: &&str| bits.iter().any(|bit| bit.name == *name && bit.value);
                    on.extend(MERGING.into_iter().filter(is_on));
                }
            }
        }
    }
    connection.abort();
    on
}

/// What was put on this host and what it does.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Changes {
    /// By interface.
    filters: BTreeMap<String, Filter>,
    tunnels: Tunnels,
}

/// What is unwrapped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Tunnels {
    vipas: BTreeSet<IpAddr>,
    routers: BTreeSet<IpAddr>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Filter {
    /// The clsact qdisc that filters hang on is ours too.
    qdisc: bool,
}

/// A program in the kernel, and the ends of its maps.
struct Loaded {
    bpf: Ebpf,
    vipas: HashMap<MapData, Address, u8>,
    routers: HashMap<MapData, Address, u8>,
    fates: PerCpuArray<MapData, u64>,
    /// Interfaces it hangs on.
    attached: BTreeSet<String>,
}

/// What is unwrapped on this host.
pub(crate) struct Decap {
    mode: config::Decap,
    own: IpAddr,
    /// As configured.
    interfaces: Vec<String>,
    handle: Handle,
    kept: Kept<Changes>,
    wanted: Tunnels,
    inherited: Inheritance<Tunnels>,
    loaded: Option<Loaded>,
    /// Counters, as last told.
    told: [u64; FATES.len()],
}

impl Decap {
    /// Knows what a crashed predecessor left, and changes nothing yet.
    pub(crate) fn open(agent: &config::Agent, state_dir: &Path, handle: Handle) -> Result<Self, DecapError> {
        let kept: Kept<Changes> = Kept::open(state_dir, FILE)?;
        let inherited = Inheritance::new(kept.value.tunnels.clone());
        Ok(Self {
            mode: agent.decap,
            own: agent.address,
            interfaces: agent.decap_interfaces.clone(),
            handle,
            kept,
            wanted: Tunnels::default(),
            inherited,
            loaded: None,
            told: Default::default(),
        })
    }

    /// What is wanted at the beginning, if there was a predecessor: nothing beside what is inherited. VIPAs and routers.
    pub(crate) fn left_behind(&self) -> Option<(Vec<IpAddr>, Vec<IpAddr>)> {
        (!self.kept.value.filters.is_empty()).then(Default::default)
    }

    /// What is to be unwrapped once a predecessor's tunnels have been left alone for long enough, at that moment.
    pub(crate) fn outlived(&mut self) -> Option<(Vec<IpAddr>, Vec<IpAddr>)> {
        self.inherited.ends_now().then(|| self.wanted.lists())
    }

    /// What is to be unwrapped, if our program has been taken from an interface by others.
    pub(crate) async fn gone(&mut self) -> Option<(Vec<IpAddr>, Vec<IpAddr>)> {
        let loaded = self.loaded.as_mut()?;
        let mut is_gone = false;
        for interface in loaded.attached.clone() {
            let hangs_there = match index_of(&self.handle, &interface).await {
                Some(index) => filters(&self.handle, index, Side::Ingress).await.ok()?.contains(&PRIORITY),
                None => false,
            };
            if !hangs_there {
                tracing::warn!(interface, "somebody has taken away what unwraps tunnels");
                loaded.attached.remove(&interface);
                is_gone = true;
            }
        }
        is_gone.then(|| self.wanted.lists())
    }

    /// Makes it so that exactly what these routers wrap for these VIPAs is unwrapped.
    pub(crate) async fn unwrap(&mut self, vipas: &[IpAddr], routers: &[IpAddr]) -> Result<(), DecapError> {
        self.wanted = Tunnels { vipas: vipas.iter().copied().collect(), routers: routers.iter().copied().collect() };
        let tunnels = self.wanted.and(self.inherited.get());
        if tunnels.vipas.is_empty() || self.mode == config::Decap::None {
            return self.clear().await;
        }
        let interfaces = interfaces(&self.interfaces, self.own, &self.handle).await?;
        self.kept.value.tunnels = tunnels.clone();
        self.kept.save()?;
        // First the maps, so that a program never hangs there that knows too little.
        let loaded = match &mut self.loaded {
            Some(loaded) => loaded,
            None => self.loaded.insert(Loaded::load(self.own)?),
        };
        fill(&mut loaded.vipas, &tunnels.vipas)?;
        fill(&mut loaded.routers, &tunnels.routers)?;
        for interface in self.kept.value.filters.keys().cloned().collect::<Vec<_>>() {
            if !interfaces.contains(&interface) {
                self.detach(&interface).await?;
            }
        }
        for interface in interfaces {
            self.attach(&interface).await?;
        }
        Ok(())
    }

    /// Undoes everything.
    pub(crate) async fn restore(mut self) -> Result<(), DecapError> {
        self.inherited.give_up();
        self.report();
        self.clear().await?;
        Ok(self.kept.remove()?)
    }

    /// Says what was unwrapped and what was not since the last time.
    pub(crate) fn report(&mut self) {
        let Some(loaded) = &self.loaded else { return };
        let mut news = Vec::new();
        for (index, (what, told)) in (0..).zip(FATES.iter().zip(&mut self.told)) {
            let Ok(counted) = loaded.fates.get(&index, 0) else { continue };
            let counted: u64 = counted.iter().sum();
            if counted != *told {
                news.push(format!("{} {what}", counted - *told));
                *told = counted;
            }
        }
        if !news.is_empty() {
            tracing::info!("packets from tunnels: {}", news.join(", "));
        }
    }

    async fn clear(&mut self) -> Result<(), DecapError> {
        for interface in self.kept.value.filters.keys().cloned().collect::<Vec<_>>() {
            self.detach(&interface).await?;
        }
        self.loaded = None;
        self.told = Default::default();
        if self.kept.value != Changes::default() {
            self.kept.value = Changes::default();
            self.kept.save()?;
        }
        Ok(())
    }

    async fn attach(&mut self, interface: &str) -> Result<(), DecapError> {
        let Some(loaded) = self.loaded.as_mut().filter(|loaded| !loaded.attached.contains(interface)) else {
            return Ok(());
        };
        let link = Link::of(&self.handle, interface).await?.ok_or_else(|| DecapError::NotThere(interface.into()))?;
        if !link.is_ethernet {
            return Err(DecapError::NoEthernet(interface.into()));
        }
        let program = loaded.program()?;
        let failed = |source: anyhow::Error| DecapError::Attach { interface: interface.into(), source };
        // A predecessor's program hangs there, unless the machine was started anew since.
        if !(self.kept.value.filters.contains_key(interface) && replace(program, interface).is_ok()) {
            let qdisc = !has_clsact(&self.handle, link.index).await.map_err(Box::new)?;
            self.kept.value.filters.insert(interface.into(), Filter { qdisc });
            self.kept.save()?;
            if qdisc {
                qdisc_add_clsact(interface).map_err(|error| failed(error.into()))?;
            }
            let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
            let options = TcAttachOptions::Netlink(options);
            let id = program.attach_with_options(interface, TcAttachType::Ingress, options);
            keep(program, id.map_err(|error| failed(error.into()))?);
        }
        loaded.attached.insert(interface.into());
        tracing::info!(interface, "what routers wrap for this host is unwrapped by BPF as it arrives");
        remarks(interface, &link).await.iter().for_each(|remark| tracing::info!("{remark}"));
        Ok(())
    }

    async fn detach(&mut self, interface: &str) -> Result<(), DecapError> {
        let Some(filter) = self.kept.value.filters.get(interface).copied() else { return Ok(()) };
        // With the interface everything on it is gone.
        if let Some(index) = index_of(&self.handle, interface).await {
            let failed = |source: anyhow::Error| DecapError::Attach { interface: interface.into(), source };
            let hangs_there = filters(&self.handle, index, Side::Ingress).await.map_err(Box::new)?;
            if hangs_there.contains(&PRIORITY) {
                let link = ours(interface).map_err(|error| failed(error.into()))?;
                link.detach().map_err(|error| failed(error.into()))?;
            }
            if filter.qdisc && is_bare(&self.handle, index).await.map_err(Box::new)? {
                remove_clsact(&self.handle, index).await.map_err(Box::new)?;
            }
            tracing::info!(interface, "tunnels are not unwrapped any more");
        }
        if let Some(loaded) = &mut self.loaded {
            loaded.attached.remove(interface);
        }
        self.kept.value.filters.remove(interface);
        Ok(self.kept.save()?)
    }
}

impl Tunnels {
    fn lists(&self) -> (Vec<IpAddr>, Vec<IpAddr>) {
        (self.vipas.iter().copied().collect(), self.routers.iter().copied().collect())
    }

    fn and(&self, others: &Self) -> Self {
        Self { vipas: &self.vipas | &others.vipas, routers: &self.routers | &others.routers }
    }
}

impl Loaded {
    fn load(own: IpAddr) -> Result<Self, DecapError> {
        let fail = |error: EbpfError| DecapError::Load(error.into());
        let mut bpf = Ebpf::load(OBJECT).map_err(fail)?;
        let mut map = |name: &str| bpf.take_map(name).expect("the object has it");
        let mut own_address: HashMap<_, Address, u8> = HashMap::try_from(map("own"))?;
        let vipas = HashMap::try_from(map("vipas"))?;
        let (routers, fates) = (HashMap::try_from(map("routers"))?, PerCpuArray::try_from(map("fates"))?);
        own_address.insert(address_of(own), 1, 0)?;
        let mut loaded = Self { bpf, vipas, routers, fates, attached: BTreeSet::new() };
        loaded.program()?.load().map_err(|error| fail(error.into()))?;
        Ok(loaded)
    }

    fn program(&mut self) -> Result<&mut SchedClassifier, DecapError> {
        let program = self.bpf.program_mut(PROGRAM).expect("the object has it");
        program.try_into().map_err(|error: ProgramError| DecapError::Load(error.into()))
    }
}

/// Makes exactly these be in the map.
fn fill(map: &mut HashMap<MapData, Address, u8>, addresses: &BTreeSet<IpAddr>) -> Result<(), MapError> {
    let wanted: BTreeSet<Address> = addresses.iter().copied().map(address_of).collect();
    for gone in map.keys().filter(|key| key.as_ref().is_ok_and(|key| !wanted.contains(key))).collect::<Vec<_>>() {
        map.remove(&gone?)?;
    }
    wanted.iter().try_for_each(|address| map.insert(address, 1, 0))
}

/// Our program's place on an interface, whoever of us put it there.
fn ours(interface: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, TcAttachType::Ingress, PRIORITY, HANDLE, None)
}

fn replace(program: &mut SchedClassifier, interface: &str) -> anyhow::Result<()> {
    let id = program.attach_to_link(ours(interface)?)?;
    keep(program, id);
    Ok(())
}

/// Lets the program hang there when this process is gone.
fn keep(program: &mut SchedClassifier, id: SchedClassifierLinkId) {
    std::mem::forget(program.take_link(id));
}

/// What there is to know of an interface.
struct Link {
    index: u32,
    is_ethernet: bool,
    mtu: u32,
}

impl Link {
    async fn of(handle: &Handle, interface: &str) -> Result<Option<Self>, Box<rtnetlink::Error>> {
        let Some(index) = index_of(handle, interface).await else { return Ok(None) };
        let mut links = handle.link().get().match_index(index).execute();
        let Some(link) = links.try_next().await? else { return Ok(None) };
        let is_ethernet = link.header.link_layer_type == LinkLayerType::Ether;
        let mtu = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
        Ok(Some(Self { index, is_ethernet, mtu: mtu.unwrap_or_default() }))
    }
}

async fn interfaces(configured: &[String], own: IpAddr, handle: &Handle) -> Result<Vec<String>, DecapError> {
    if !configured.is_empty() {
        return Ok(configured.to_vec());
    }
    let found = interface_of(handle, own).await.map_err(Box::new)?;
    Ok(vec![found.ok_or(DecapError::NoInterface(own))?])
}

enum Side {
    Ingress,
    Egress,
}

/// The priorities of the filters on an interface.
async fn filters(handle: &Handle, index: u32, side: Side) -> Result<BTreeSet<u16>, rtnetlink::Error> {
    let request = handle.traffic_filter(index.cast_signed()).get();
    let request = match side {
        Side::Ingress => request.ingress(),
        Side::Egress => request.egress(),
    };
    let list: Vec<TcMessage> = request.execute().try_collect().await?;
    Ok(list.iter().filter_map(|filter| u16::try_from(filter.header.info >> 16).ok()).collect())
}

async fn is_bare(handle: &Handle, index: u32) -> Result<bool, rtnetlink::Error> {
    Ok(filters(handle, index, Side::Ingress).await?.is_empty()
        && filters(handle, index, Side::Egress).await?.is_empty())
}

async fn has_clsact(handle: &Handle, index: u32) -> Result<bool, rtnetlink::Error> {
    let qdiscs: Vec<TcMessage> = handle.qdisc().get().execute().try_collect().await?;
    let is_clsact = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "clsact");
    let is_it = |qdisc: &TcMessage| qdisc.header.index == index.cast_signed() && qdisc.attributes.iter().any(is_clsact);
    Ok(qdiscs.iter().any(is_it))
}

async fn remove_clsact(handle: &Handle, index: u32) -> Result<(), rtnetlink::Error> {
    let mut request = handle.qdisc().del(index.cast_signed());
    let header = &mut request.message_mut().header;
    (header.handle, header.parent) = (QdiscHandle { major: u16::MAX, minor: 0 }, QdiscHandle::CLSACT);
    request.execute().await
}
