//! The receiving end of tunnels by a BPF program on the ingress of the interfaces they arrive at (`bpf/decap.bpf.c`).
//!
//! ```text
//!   maps: VIPAs, routers, own address ──┐
//!   NIC ──► tc ingress ──► program ── unwrapped ──► the kernel, as if it had come bare
//!                             └── counters
//! ```
//! It hangs there as a classic tc filter and not by a BPF link, because a link ends with its process: so an agent that stops or
//! crashes breaks no connection, and its successor puts its own program in the same place, in one step.

use std::{collections::BTreeSet, io, net::IpAddr};

use aya::{
    Ebpf, EbpfError,
    maps::{HashMap, MapData, MapError, PerCpuArray},
    programs::{
        Link as _, ProgramError, SchedClassifier, TcAttachType,
        tc::{NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcHandle, qdisc_add_clsact},
    },
};
use rtnetlink::Handle;
use vipa_model::config;

use super::{
    Changes, DecapError, Filter, Tunnels,
    interfaces::{Link, Side, filters, has_clsact, interfaces, is_bare, remove_clsact},
};
use crate::{
    bpf::{Address, address_of},
    netlink::index_of,
    state_file::StateFile,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/decap.o"));
pub(super) const PROGRAM: &str = "vipa_unwrap";
/// Our place among an interface's filters; tc shows it as pref 22089, handle 0x1.
pub(super) const PRIORITY: u16 = 22_089;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// What becomes of a tunnel's packet: the order of `enum fate` of the program, and how it is told.
const FATES: [&str; 10] = [
    "unwrapped from IPIP",
    "unwrapped from GRE",
    "unwrapped from GUE",
    "left to the kernel: not from a router of the cluster",
    "left to the kernel: a fragment",
    "left to the kernel: not readable",
    "dropped: not for a VIPA of this host",
    "dropped: malformed",
    "dropped: congested, and the connection knows no ECN",
    "dropped: the kernel could not unwrap it",
];

/// A program in the kernel, and the ends of its maps.
struct Loaded {
    bpf: Ebpf,
    vipas: HashMap<MapData, Address, u8>,
    routers: HashMap<MapData, Address, u8>,
    fates: PerCpuArray<MapData, u64>,
    /// Interfaces it hangs on.
    attached: BTreeSet<String>,
}

/// The program, where it hangs.
pub(super) struct Program {
    own: IpAddr,
    /// As configured.
    interfaces: Vec<String>,
    handle: Handle,
    loaded: Option<Loaded>,
}

impl Program {
    pub(super) fn new(agent: &config::Agent, handle: Handle) -> Self {
        Self { own: agent.address, interfaces: agent.decap_interfaces.clone(), handle, loaded: None }
    }

    /// Whether it has been taken from an interface by others.
    pub(super) async fn is_gone(&mut self) -> Result<bool, DecapError> {
        let Some(loaded) = &mut self.loaded else { return Ok(false) };
        let mut is_gone = false;
        for interface in loaded.attached.clone() {
            let hangs_there = match index_of(&self.handle, &interface).await.map_err(Box::new)? {
                Some(index) => {
                    let there = filters(&self.handle, index, Side::Ingress).await.map_err(Box::new)?;
                    there.contains(&PRIORITY)
                }
                None => false,
            };
            if !hangs_there {
                tracing::warn!(interface, "somebody has taken away what unwraps tunnels");
                loaded.attached.remove(&interface);
                is_gone = true;
            }
        }
        Ok(is_gone)
    }

    /// Makes it so that exactly what these routers wrap for these VIPAs is unwrapped.
    pub(super) async fn unwrap(&mut self, tunnels: &Tunnels, kept: &mut StateFile<Changes>) -> Result<(), DecapError> {
        let interfaces = interfaces(&self.interfaces, self.own, &self.handle).await?;
        // First the maps, so that a program never hangs there that knows too little.
        let loaded = match &mut self.loaded {
            Some(loaded) => loaded,
            None => self.loaded.insert(Loaded::load(self.own)?),
        };
        fill(&mut loaded.vipas, &tunnels.vipas)?;
        fill(&mut loaded.routers, &tunnels.routers)?;
        for interface in kept.value.filters.keys().cloned().collect::<Vec<_>>() {
            if !interfaces.contains(&interface) {
                self.detach(&interface, kept).await?;
            }
        }
        for interface in interfaces {
            self.attach(&interface, kept).await?;
        }
        Ok(())
    }

    /// What became of tunnels' packets since the program was loaded.
    pub(super) fn counts(&self) -> Vec<(&'static str, u64)> {
        let Some(loaded) = &self.loaded else { return Vec::new() };
        let counted = |index| loaded.fates.get(&index, 0).map_or(0, |counted| counted.iter().sum());
        (0..).zip(FATES).map(|(index, what)| (what, counted(index))).collect()
    }

    /// Takes it away everywhere.
    pub(super) async fn clear(&mut self, kept: &mut StateFile<Changes>) -> Result<(), DecapError> {
        for interface in kept.value.filters.keys().cloned().collect::<Vec<_>>() {
            self.detach(&interface, kept).await?;
        }
        self.loaded = None;
        Ok(())
    }

    async fn attach(&mut self, interface: &str, kept: &mut StateFile<Changes>) -> Result<(), DecapError> {
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
        if !(kept.value.filters.contains_key(interface) && replace(program, interface).is_ok()) {
            let qdisc = !has_clsact(&self.handle, link.index).await.map_err(Box::new)?;
            kept.value.filters.insert(interface.into(), Filter { qdisc });
            kept.save()?;
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
        Ok(())
    }

    async fn detach(&mut self, interface: &str, kept: &mut StateFile<Changes>) -> Result<(), DecapError> {
        let Some(filter) = kept.value.filters.get(interface).copied() else { return Ok(()) };
        // With the interface everything on it is gone.
        if let Some(index) = index_of(&self.handle, interface).await.map_err(Box::new)? {
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
        kept.value.filters.remove(interface);
        Ok(kept.save()?)
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
    let there: BTreeSet<Address> = map.keys().collect::<Result<_, _>>()?;
    for gone in there.difference(&wanted) {
        map.remove(gone)?;
    }
    wanted.difference(&there).try_for_each(|address| map.insert(address, 1, 0))
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
