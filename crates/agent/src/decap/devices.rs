//! The receiving end of tunnels by the kernel's own devices, for hosts that allow no BPF.
//!
//! ```text
//!   NIC ──► IP ──┬──────────► a device for each router and kind ──► filter: is it for a VIPA? ──► IP
//!                └► UDP 6080: fou takes UDP and GUE away ──┘                  └ no: dropped
//! ```
//! A device has a router's address as its remote end and this target's as its local one, so the kernel gives it nothing from
//! anybody else. Devices outlive their process, so a crash breaks no connection; their names follow from both addresses, so a
//! successor finds them. What was made is written down first.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use aya::programs::tc::qdisc_add_clsact;
use futures::{StreamExt, TryStreamExt};
use nix::libc;
use rtnetlink::{
    Handle, LinkGre, LinkGre6, LinkIp6Tnl, LinkIpIp, LinkSit, LinkUnspec,
    packet_core::{DefaultNla, NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkFlags, LinkMessage},
        tc::{
            TcAction, TcActionAttribute, TcActionOption, TcAttribute, TcFilterU32Option, TcHandle, TcMessage, TcStats2,
            TcU32Key, TcU32Selector, TcU32SelectorFlags,
        },
    },
};

use super::{
    Changes, DecapError, Tunnels, fou,
    interfaces::{Side, filters, has_clsact},
};
use crate::{
    netlink::{index_of, is, link_by_name},
    state_file::StateFile,
};

/// The priorities of a device's filters. VIPAs are passed by one of two pairs, IPv4 and IPv6, so that a new list is
/// there before the old one goes; what neither passes is dropped.
const PASS: [(u16, u16); 2] = [(1, 2), (3, 4)];
const DROP: u16 = 10;
const ETH_P_ALL: u16 = 0x0003;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// `TCA_GACT_PARMS` and `TC_ACT_SHOT` of the kernel's headers.
const GACT_PARMS: u16 = 2;
const SHOT: u32 = 2;

/// What the kernel calls a kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Ipip,
    Sit,
    Gre,
    Ip6tnl,
    Ip6gre,
}

impl Kind {
    /// Those that together take whatever a router wraps for an address of this family.
    pub(super) fn of(own: IpAddr) -> &'static [Self] {
        if own.is_ipv4() { &[Self::Ipip, Self::Sit, Self::Gre] } else { &[Self::Ip6tnl, Self::Ip6gre] }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Sit => "sit",
            Self::Gre => "gre",
            Self::Ip6tnl => "ip6tnl",
            Self::Ip6gre => "ip6gre",
        }
    }

    /// The module that has it.
    const fn module(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Sit => "sit",
            Self::Gre => "ip_gre",
            Self::Ip6tnl => "ip6_tunnel",
            Self::Ip6gre => "ip6_gre",
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Ipip => 'i',
            Self::Sit => 's',
            Self::Gre => 'g',
            Self::Ip6tnl => '6',
            Self::Ip6gre => 'r',
        }
    }

    const fn counted(self) -> &'static str {
        match self {
            Self::Ipip => "unwrapped by ipip devices",
            Self::Sit => "unwrapped by sit devices",
            Self::Gre => "unwrapped by gre devices",
            Self::Ip6tnl => "unwrapped by ip6tnl devices",
            Self::Ip6gre => "unwrapped by ip6gre devices",
        }
    }
}

/// One of our devices.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Device {
    kind: Kind,
    name: String,
    own: IpAddr,
    router: IpAddr,
}

impl Device {
    fn new(kind: Kind, own: IpAddr, router: IpAddr) -> Self {
        Self { kind, name: format!("vipa-{}-{:08x}", kind.letter(), digest(own, router)), own, router }
    }

    fn message(&self) -> LinkMessage {
        let name = self.name.as_str();
        let (own, router) = (self.own, self.router);
        match self.kind {
            Kind::Ipip => LinkIpIp::new(name).local(ipv4(own)).remote(ipv4(router)).build(),
            Kind::Sit => LinkSit::new(name).local(ipv4(own)).remote(ipv4(router)).build(),
            Kind::Gre => LinkGre::new(name).local(ipv4(own)).remote(ipv4(router)).build(),
            Kind::Ip6tnl => LinkIp6Tnl::new(name).local(ipv6(own)).remote(ipv6(router)).build(),
            Kind::Ip6gre => LinkGre6::new(name).local(ipv6(own)).remote(ipv6(router)).build(),
        }
    }
}

/// FNV-1a of both addresses: the same device has the same name in every life of the agent.
fn digest(own: IpAddr, router: IpAddr) -> u32 {
    let octets = |address| match address {
        IpAddr::V4(address) => Ipv4Addr::octets(&address).to_vec(),
        IpAddr::V6(address) => Ipv6Addr::octets(&address).to_vec(),
    };
    let both = [octets(own), octets(router)].concat();
    both.iter().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn ipv4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!("devices join addresses of one family"),
    }
}

fn ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(_) => unreachable!("devices join addresses of one family"),
    }
}

/// The devices of this host that are ours.
#[derive(Debug)]
pub(super) struct Devices {
    own: IpAddr,
    handle: Handle,
    /// By name: what kind it is, and the VIPAs it passes.
    up: BTreeMap<String, (Kind, BTreeSet<IpAddr>)>,
    has_fou: bool,
    /// What this kernel lacks and that has been said.
    lacking: BTreeSet<&'static str>,
}

impl Devices {
    pub(super) fn new(own: IpAddr, handle: Handle) -> Self {
        Self { own, handle, up: BTreeMap::new(), has_fou: false, lacking: BTreeSet::new() }
    }

    /// Makes it so that exactly what these routers wrap for these VIPAs is unwrapped.
    pub(super) async fn unwrap(&mut self, tunnels: &Tunnels, kept: &mut StateFile<Changes>) -> Result<(), DecapError> {
        let routers = tunnels.routers.iter().filter(|router| router.is_ipv4() == self.own.is_ipv4());
        let kinds = Kind::of(self.own);
        let wanted: Vec<Device> =
            routers.flat_map(|router| kinds.iter().map(|kind| Device::new(*kind, self.own, *router))).collect();
        let before: Vec<String> = kept.value.devices.iter().cloned().collect();
        for name in before.into_iter().filter(|name| wanted.iter().all(|device| device.name != *name)) {
            self.remove(&name, kept).await?;
        }
        let mut made = wanted.is_empty();
        for device in &wanted {
            match self.make(device, kept).await {
                Ok(()) => made = true,
                Err(DecapError::Lacks { kind, module }) => {
                    if self.lacking.insert(kind) {
                        tracing::warn!("{}", DecapError::Lacks { kind, module });
                    }
                }
                Err(error) => return Err(error),
            }
            if let Some((_, passed)) = self.up.get(&device.name)
                && *passed != tunnels.vipas
            {
                self.pass(&device.name, &tunnels.vipas).await?;
            }
        }
        if !made {
            return Err(DecapError::NoDevices);
        }
        self.open_gue(kept).await
    }

    /// Removes every device that is ours.
    pub(super) async fn clear(&mut self, kept: &mut StateFile<Changes>) -> Result<(), DecapError> {
        for name in kept.value.devices.iter().cloned().collect::<Vec<_>>() {
            self.remove(&name, kept).await?;
        }
        if kept.value.fou {
            match fou::close(self.own).await {
                // Gone with a reboot.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => {}
                done => done.map_err(DecapError::Gue)?,
            }
            self.has_fou = false;
            kept.value.fou = false;
            kept.save()?;
        }
        Ok(())
    }

    /// Whether others have taken one away, or down.
    pub(super) async fn are_gone(&mut self) -> Result<bool, DecapError> {
        let mut gone = Vec::new();
        for name in self.up.keys() {
            let link = link_by_name(&self.handle, name).await.map_err(Box::new)?;
            if !link.is_some_and(|link| link.header.flags.contains(LinkFlags::Up)) {
                gone.push(name.clone());
            }
        }
        for name in &gone {
            tracing::warn!(device = %name, "somebody has taken away what unwraps tunnels");
            self.up.remove(name);
        }
        Ok(!gone.is_empty())
    }

    /// What became of tunnels' packets since their devices were made.
    pub(super) async fn counts(&mut self) -> Vec<(&'static str, u64)> {
        let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (name, (kind, _)) in &self.up {
            let Ok(Some(link)) = link_by_name(&self.handle, name).await else { continue };
            let stats = link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Stats64(stats) => Some(*stats),
                _ => None,
            });
            let Some(stats) = stats else { continue };
            let dropped = u64::from(dropped(&self.handle, link.header.index).await);
            *counts.entry(kind.counted()).or_default() += stats.rx_packets.saturating_sub(dropped);
            *counts.entry("dropped: not for a VIPA of this host").or_default() += dropped;
            *counts.entry("dropped: malformed").or_default() += stats.rx_errors;
        }
        counts.into_iter().collect()
    }

    async fn make(&mut self, device: &Device, kept: &mut StateFile<Changes>) -> Result<(), DecapError> {
        let Device { kind, name, .. } = device;
        if self.up.contains_key(name) {
            return Ok(());
        }
        let is_ours = !kept.value.devices.insert(name.clone());
        kept.save()?;
        match self.handle.link().add(device.message()).execute().await {
            Ok(()) => {}
            Err(error) if is(&error, libc::EEXIST) && is_ours => {}
            Err(error) => {
                if !is_ours {
                    kept.value.devices.remove(name);
                    kept.save()?;
                }
                return Err(if is(&error, libc::EOPNOTSUPP) {
                    DecapError::Lacks { kind: kind.name(), module: kind.module() }
                } else {
                    self.failed(name, anyhow::Error::new(error))
                });
            }
        }
        let index = index_of(&self.handle, name).await.map_err(Box::new)?;
        let index = index.ok_or_else(|| DecapError::NotThere(name.clone()))?;
        apply_sysctls(name).map_err(|error| self.failed(name, error.into()))?;
        if !has_clsact(&self.handle, index).await.map_err(Box::new)? {
            qdisc_add_clsact(name).map_err(|error| self.failed(name, error.into()))?;
        }
        let there = filters(&self.handle, index, Side::Ingress).await.map_err(Box::new)?;
        if !there.contains(&DROP) {
            let selector = selector(vec![TcU32Key::default()]);
            let options = [selector, TcFilterU32Option::Action(vec![drop_it()])];
            self.filter(index, DROP, ETH_P_ALL, &options).await.map_err(|error| self.failed(name, error.into()))?;
        }
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(up).execute().await.map_err(Box::new)?;
        // What a predecessor passed stays until the list is known, which is at once.
        self.up.insert(name.clone(), (*kind, BTreeSet::new()));
        tracing::info!(device = %name, router = %device.router, "what this router wraps for this host is unwrapped by a {} device", kind.name());
        Ok(())
    }

    /// Makes a device pass what is for these VIPAs, and nothing else.
    async fn pass(&mut self, name: &str, vipas: &BTreeSet<IpAddr>) -> Result<(), DecapError> {
        let index = index_of(&self.handle, name).await.map_err(Box::new)?;
        let index = index.ok_or_else(|| DecapError::NotThere(name.into()))?;
        let there = filters(&self.handle, index, Side::Ingress).await.map_err(Box::new)?;
        let [first, second] = PASS;
        let is_there = |(ipv4, ipv6): (u16, u16)| there.contains(&ipv4) || there.contains(&ipv6);
        let (new, old) = if is_there(first) { (second, first) } else { (first, second) };
        // What a predecessor began and did not end.
        self.forget(index, new, &there).await?;
        for vipa in vipas {
            let (priority, protocol, keys) = match vipa {
                IpAddr::V4(vipa) => (new.0, ETH_P_IP, vec![key(16, u32::from(*vipa))]),
                IpAddr::V6(vipa) => {
                    let words = vipa.octets();
                    let word = |at: usize| u32::from_be_bytes(words[at..at + 4].try_into().expect("four bytes"));
                    (new.1, ETH_P_IPV6, (0..4).map(|n| key(24 + 4 * n, word(4 * n as usize))).collect())
                }
            };
            let added = self.filter(index, priority, protocol, &[selector(keys)]).await;
            added.map_err(|error| self.failed(name, error.into()))?;
        }
        self.forget(index, old, &there).await?;
        if let Some((_, passed)) = self.up.get_mut(name) {
            passed.clone_from(vipas);
        }
        Ok(())
    }

    async fn forget(&mut self, index: u32, pair: (u16, u16), there: &BTreeSet<u16>) -> Result<(), DecapError> {
        for (priority, protocol) in [(pair.0, ETH_P_IP), (pair.1, ETH_P_IPV6)] {
            if there.contains(&priority) {
                self.unfilter(index, priority, protocol).await.map_err(Box::new)?;
            }
        }
        Ok(())
    }

    async fn filter(
        &self,
        index: u32,
        priority: u16,
        protocol: u16,
        options: &[TcFilterU32Option],
    ) -> Result<(), rtnetlink::Error> {
        let mut filters = self.handle.traffic_filter(index.cast_signed());
        let filter = filters.add().ingress().priority(priority).protocol(protocol.to_be());
        filter.u32(options)?.execute().await
    }

    async fn unfilter(&mut self, index: u32, priority: u16, protocol: u16) -> Result<(), rtnetlink::Error> {
        let mut filter = TcMessage::with_index(index.cast_signed());
        filter.header.parent = TcHandle { major: u16::MAX, minor: TcHandle::MIN_INGRESS };
        filter.header.info = u32::from(priority) << 16 | u32::from(protocol.to_be());
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::DelTrafficFilter(filter));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        let mut answers = self.handle.request(request)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(rtnetlink::Error::NetlinkError(error));
            }
        }
        Ok(())
    }

    async fn remove(&mut self, name: &str, kept: &mut StateFile<Changes>) -> Result<(), DecapError> {
        // With a device everything on it is gone.
        if let Some(index) = index_of(&self.handle, name).await.map_err(Box::new)? {
            self.handle.link().del(index).execute().await.map_err(Box::new)?;
            tracing::info!(device = %name, "it unwraps nothing any more");
        }
        self.up.remove(name);
        kept.value.devices.remove(name);
        Ok(kept.save()?)
    }

    async fn open_gue(&mut self, kept: &mut StateFile<Changes>) -> Result<(), DecapError> {
        if self.has_fou || self.lacking.contains("fou") {
            return Ok(());
        }
        let is_ours = std::mem::replace(&mut kept.value.fou, true);
        kept.save()?;
        match fou::open(self.own).await {
            Ok(()) => {}
            Err(error) if is_ours && matches!(error.raw_os_error(), Some(libc::EADDRINUSE | libc::EALREADY)) => {}
            Err(error) => {
                kept.value.fou = is_ours;
                kept.save()?;
                if error.raw_os_error() != Some(libc::ENOENT) {
                    return Err(DecapError::Gue(error));
                }
                self.lacking.insert("fou");
                tracing::warn!("{}", DecapError::Lacks { kind: "fou", module: "fou" });
                return Ok(());
            }
        }
        self.has_fou = true;
        Ok(())
    }

    fn failed(&self, name: &str, source: anyhow::Error) -> DecapError {
        DecapError::Device { name: name.into(), source }
    }
}

/// Clients are reached by another way than they come, nothing is forwarded, and nobody on this device has a say.
fn apply_sysctls(name: &str) -> io::Result<()> {
    let set = |file: &str, value: &str| fs::write(format!("/proc/sys/net/{file}"), value);
    let of_all = fs::read_to_string("/proc/sys/net/ipv4/conf/all/rp_filter")?;
    // The larger of both counts (ip-sysctl of the kernel's documentation), and 2 hears what has any way back.
    set(&format!("ipv4/conf/{name}/rp_filter"), if of_all.trim() == "1" { "2" } else { "0" })?;
    set(&format!("ipv4/conf/{name}/forwarding"), "0")?;
    match set(&format!("ipv6/conf/{name}/forwarding"), "0") {
        // A kernel without IPv6, or one that keeps it from this device.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// What the filters of a device have dropped.
async fn dropped(handle: &Handle, index: u32) -> u32 {
    let list: Result<Vec<TcMessage>, _> = handle.qdisc().get().execute().try_collect().await;
    let of_it = list.unwrap_or_default().into_iter().filter(|qdisc| qdisc.header.index == index.cast_signed());
    let drops = |attribute| match attribute {
        TcAttribute::Stats2(stats) => stats.into_iter().find_map(|stats| match stats {
            TcStats2::Queue(queue) => Some(queue.drops),
            _ => None,
        }),
        _ => None,
    };
    of_it.flat_map(|qdisc| qdisc.attributes).filter_map(drops).sum()
}

/// Compares the word at an offset of the IP header.
fn key(offset: i32, word: u32) -> TcU32Key {
    let mut key = TcU32Key::default();
    (key.off, key.val, key.mask) = (offset, word, u32::MAX);
    key
}

fn selector(keys: Vec<TcU32Key>) -> TcFilterU32Option {
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = u8::try_from(keys.len()).expect("four at most");
    selector.keys = keys;
    TcFilterU32Option::Selector(selector)
}

/// `struct tc_gact`: index, capabilities, action, and two counts of the kernel's own.
fn drop_it() -> TcAction {
    let parms = [0, 0, SHOT, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind("gact".into()),
        TcActionAttribute::Options(vec![TcActionOption::Other(DefaultNla::new(GACT_PARMS, parms))]),
    ];
    action
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_router_has_devices_of_its_own_and_the_same_in_every_life() {
        let own: IpAddr = "10.9.0.31".parse().unwrap();
        let routers: [IpAddr; 2] = ["10.9.0.21".parse().unwrap(), "10.9.0.22".parse().unwrap()];
        let names = || {
            let kinds = Kind::of(own).iter();
            let devices = kinds.flat_map(|kind| routers.map(|router| Device::new(*kind, own, router)));
            devices.map(|device| device.name).collect::<BTreeSet<_>>()
        };
        assert_eq!((names().len(), names()), (6, names()));
        // What the kernel takes as a name.
        assert!(names().iter().all(|name| name.len() < 16));
    }
}
