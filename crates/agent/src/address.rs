//! What direct return needs of a host: the VIPAs on an interface that asks nobody for them, and a kernel that does
//! not answer ARP for them.
//!
//! Everything changed is written down first, in `host.json` of the state folder, with what was there before: a
//! clean stop undoes exactly that, and an agent that starts after a crash takes it over instead of doubling it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::Path,
};

use futures::TryStreamExt;
use rtnetlink::{
    Handle,
    packet_route::{
        address::{AddressAttribute, AddressFlags, AddressMessage},
        link::LinkAttribute,
    },
};
use serde::{Deserialize, Serialize};
use vipa_model::config;

use crate::{
    kept::{Inheritance, Kept, KeptError},
    setup::Item,
};

const FILE: &str = "host.json";

/// Answer ARP only for addresses of the interface that was asked (1); ask with an address of the interface that asks
/// (2). See ip-sysctl of the kernel's documentation.
const SYSCTLS: [(&str, &str); 2] =
    [("/proc/sys/net/ipv4/conf/all/arp_ignore", "1"), ("/proc/sys/net/ipv4/conf/all/arp_announce", "2")];

/// What would be changed on this host.
pub(crate) fn plan(agent: &config::Agent) -> Vec<Item> {
    let sysctl = |(path, value): &(&str, &str)| {
        let name = path.trim_start_matches("/proc/sys/").replace('/', ".");
        let how = match fs::read_to_string(path) {
            Ok(before) if before.trim() == *value => format!("{name} is {value} already, and stays"),
            Ok(before) => format!("{name} from {} to {value}", before.trim()),
            Err(error) => format!("{name} to {value}, which cannot be read now: {error}"),
        };
        Item::new("sysctl", how)
    };
    let config::Agent { address, interface, .. } = agent;
    let vipas = format!("each VIPA that a list of candidates sends to {address}: as /32 or /128 on {interface}");
    SYSCTLS.iter().map(sysctl).chain([Item::new("address", vipas)]).collect()
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressError {
    #[error(transparent)]
    Kept(#[from] KeptError),
    #[error("there is no interface {0:?} on this host; set agent.interface, usually \"lo\"")]
    NoInterface(String),
    #[error("cannot set {path}: {source}; the agent needs CAP_NET_ADMIN, run it as root")]
    Sysctl { path: String, source: io::Error },
    #[error("cannot {what} {address} on {interface}: {source}; the agent needs CAP_NET_ADMIN, run it as root")]
    Address { what: &'static str, address: IpAddr, interface: String, source: Box<rtnetlink::Error> },
}

/// What was changed, and what was there before.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Changes {
    interface: String,
    added: BTreeSet<IpAddr>,
    /// Path and previous value.
    sysctls: BTreeMap<String, String>,
}

/// The addresses of this host that are the agent's business.
#[derive(Debug)]
pub(crate) struct Addresses {
    handle: Handle,
    index: u32,
    kept: Kept<Changes>,
    wanted: BTreeSet<IpAddr>,
    inherited: Inheritance<BTreeSet<IpAddr>>,
}

impl Addresses {
    /// Takes over what a crashed predecessor left.
    pub(crate) async fn open(interface: &str, state_dir: &Path, handle: Handle) -> Result<Self, AddressError> {
        let mut kept: Kept<Changes> = Kept::open(state_dir, FILE)?;
        let index = index_of(&handle, interface).await.ok_or_else(|| AddressError::NoInterface(interface.into()))?;
        let old = std::mem::replace(&mut kept.value.interface, interface.into());
        if old != interface {
            // Configured anew since: what is left on the old interface is taken away, if that is still there.
            let added = std::mem::take(&mut kept.value.added);
            if let Some(index) = index_of(&handle, &old).await {
                for address in added {
                    remove(&handle, index, address).await.map_err(|source| error("remove", address, &old, source))?;
                }
            }
        }
        let inherited = Inheritance::new(BTreeSet::new());
        let mut addresses = Self { handle, index, kept, wanted: BTreeSet::new(), inherited };
        addresses.forget_what_is_gone().await?;
        addresses.inherited = Inheritance::new(addresses.kept.value.added.clone());
        Ok(addresses)
    }

    /// A reboot takes the addresses and leaves the file; they are ours to put there again.
    async fn forget_what_is_gone(&mut self) -> Result<(), AddressError> {
        for address in self.kept.value.added.clone() {
            if self.find(address).await?.is_none() {
                self.kept.value.added.remove(&address);
            }
        }
        Ok(())
    }

    /// What is to be served, if something of ours has been taken away by others.
    pub(crate) async fn gone(&mut self) -> Option<Vec<IpAddr>> {
        let before = self.kept.value.added.clone();
        self.forget_what_is_gone().await.ok()?;
        let gone: Vec<_> = before.difference(&self.kept.value.added).collect();
        if gone.is_empty() {
            return None;
        }
        tracing::warn!(interface = %self.kept.value.interface, "somebody has taken away {gone:?}");
        Some(self.wanted.iter().copied().collect())
    }

    /// What is to be served once a predecessor's addresses have been left alone for long enough, at that moment.
    pub(crate) fn outlived(&mut self) -> Option<Vec<IpAddr>> {
        self.inherited.ends_now().then(|| self.wanted.iter().copied().collect())
    }

    /// Makes `vipas` and no others of ours be there.
    pub(crate) async fn serve(&mut self, vipas: &[IpAddr]) -> Result<(), AddressError> {
        self.wanted = vipas.iter().copied().collect();
        let wanted: BTreeSet<IpAddr> = self.wanted.union(self.inherited.get()).copied().collect();
        if !wanted.is_empty() {
            self.set_sysctls()?;
        }
        for address in wanted.difference(&self.kept.value.added.clone()) {
            self.add(*address).await?;
        }
        for address in self.kept.value.added.clone().difference(&wanted) {
            self.remove(*address).await?;
        }
        Ok(())
    }

    /// What is changed on this host now, a line each.
    pub(crate) fn changed(&self) -> Vec<String> {
        let Changes { interface, added, sysctls } = &self.kept.value;
        let addresses = added.iter().map(|address| format!("{address} is on {interface}"));
        let setting = |(path, before): (&String, &String)| {
            let name = path.trim_start_matches("/proc/sys/").replace('/', ".");
            let now = fs::read_to_string(path).unwrap_or_default();
            format!("{name} is {}, and was {before}", now.trim())
        };
        addresses.chain(sysctls.iter().map(setting)).collect()
    }

    /// Undoes everything.
    pub(crate) async fn restore(mut self) -> Result<(), AddressError> {
        self.inherited.give_up();
        self.serve(&[]).await?;
        for (path, value) in std::mem::take(&mut self.kept.value.sysctls) {
            fs::write(&path, value).map_err(|source| AddressError::Sysctl { path, source })?;
        }
        Ok(self.kept.remove()?)
    }

    fn set_sysctls(&mut self) -> Result<(), AddressError> {
        for (path, value) in SYSCTLS {
            let fail = |source| AddressError::Sysctl { path: path.into(), source };
            let before = fs::read_to_string(path).map_err(fail)?.trim().to_string();
            if before == value {
                continue;
            }
            self.kept.value.sysctls.entry(path.into()).or_insert(before);
            self.kept.save()?;
            fs::write(path, value).map_err(fail)?;
        }
        Ok(())
    }

    async fn add(&mut self, address: IpAddr) -> Result<(), AddressError> {
        if self.find(address).await?.is_some() {
            // Somebody put it there before us; it is theirs to take away.
            tracing::info!(%address, interface = %self.kept.value.interface, "the VIPA is there already");
            return Ok(());
        }
        self.kept.value.added.insert(address);
        self.kept.save()?;
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let mut request = self.handle.address().add(self.index, address, prefix);
        if address.is_ipv6() {
            // Every target has it, so nobody asks whether another has (RFC 4862 §5.4). The kernel's answer to who asks on a
            // link is none: it advertises on an interface the addresses of that interface only.
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let done = request.execute().await;
        done.map_err(|source| self.error("put", address, source))?;
        tracing::info!(%address, interface = %self.kept.value.interface, "the VIPA is on this host");
        Ok(())
    }

    async fn remove(&mut self, address: IpAddr) -> Result<(), AddressError> {
        let done = remove(&self.handle, self.index, address).await;
        done.map_err(|source| self.error("remove", address, source))?;
        self.kept.value.added.remove(&address);
        tracing::info!(%address, interface = %self.kept.value.interface, "the VIPA is off this host");
        Ok(self.kept.save()?)
    }

    async fn find(&self, address: IpAddr) -> Result<Option<AddressMessage>, AddressError> {
        find(&self.handle, self.index, address).await.map_err(|source| self.error("look for", address, source))
    }

    fn error(&self, what: &'static str, address: IpAddr, source: rtnetlink::Error) -> AddressError {
        error(what, address, &self.kept.value.interface, source)
    }
}

fn error(what: &'static str, address: IpAddr, interface: &str, source: rtnetlink::Error) -> AddressError {
    AddressError::Address { what, address, interface: interface.into(), source: Box::new(source) }
}

/// The address as the kernel has it on this interface.
async fn find(handle: &Handle, index: u32, address: IpAddr) -> Result<Option<AddressMessage>, rtnetlink::Error> {
    let mut list = handle.address().get().set_link_index_filter(index).execute();
    let is_it = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(found) | AddressAttribute::Local(found) => *found == address,
        _ => false,
    };
    while let Some(message) = list.try_next().await? {
        if message.attributes.iter().any(is_it) {
            return Ok(Some(message));
        }
    }
    Ok(None)
}

async fn remove(handle: &Handle, index: u32, address: IpAddr) -> Result<(), rtnetlink::Error> {
    match find(handle, index, address).await? {
        Some(message) => handle.address().del(message).execute().await,
        None => Ok(()),
    }
}

pub(crate) async fn index_of(handle: &Handle, interface: &str) -> Option<u32> {
    let mut links = handle.link().get().match_name(interface.to_string()).execute();
    links.try_next().await.ok().flatten().map(|link| link.header.index)
}

/// The interface that has this address.
pub(crate) async fn interface_of(handle: &Handle, address: IpAddr) -> Result<Option<String>, rtnetlink::Error> {
    let mut list = handle.address().get().set_address_filter(address).execute();
    let Some(found) = list.try_next().await? else { return Ok(None) };
    let mut links = handle.link().get().match_index(found.header.index).execute();
    let Some(link) = links.try_next().await? else { return Ok(None) };
    Ok(link.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    }))
}
