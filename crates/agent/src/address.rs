//! What direct return needs of a host: the VIPAs on an interface that asks nobody for them, and a kernel that does
//! not answer ARP for them.
//!
//! Everything changed is written down first, in `host.json` of the state folder, with what was there before: a
//! clean stop undoes exactly that, and an agent that starts after a crash takes it over instead of doubling it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use futures_util::TryStreamExt;
use rtnetlink::{
    Handle,
    packet_route::address::{AddressAttribute, AddressMessage},
};
use serde::{Deserialize, Serialize};

/// Answer ARP only for addresses of the interface that was asked (1); ask with an address of the interface that asks
/// (2). See ip-sysctl of the kernel's documentation.
const SYSCTLS: [(&str, &str); 2] =
    [("/proc/sys/net/ipv4/conf/all/arp_ignore", "1"), ("/proc/sys/net/ipv4/conf/all/arp_announce", "2")];

#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("cannot use {path} to remember what is changed on this host: {source}; check state_dir")]
    State { path: PathBuf, source: io::Error },
    #[error("{path} is damaged: {source}; check the addresses of this host by hand, then remove the file")]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
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
    file: PathBuf,
    changes: Changes,
}

impl Addresses {
    /// Takes over what a crashed predecessor left. Call it within a runtime.
    pub(crate) async fn open(interface: &str, state_dir: &Path) -> Result<Self, AddressError> {
        fs::create_dir_all(state_dir).map_err(|source| AddressError::State { path: state_dir.into(), source })?;
        let file = state_dir.join("host.json");
        let mut changes: Changes = match fs::read(&file) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|source| AddressError::Damaged { path: file.clone(), source })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Changes::default(),
            Err(source) => return Err(AddressError::State { path: file, source }),
        };
        let (connection, handle, _) = rtnetlink::new_connection().map_err(AddressError::Open)?;
        tokio::spawn(connection);
        let index = index_of(&handle, interface).await.ok_or_else(|| AddressError::NoInterface(interface.into()))?;
        if changes.interface != interface {
            // Configured anew since: what is left on the old interface is taken away, if that is still there.
            let old = std::mem::replace(&mut changes.interface, interface.into());
            if let Some(index) = index_of(&handle, &old).await {
                let file = file.clone();
                let sysctls = changes.sysctls.clone();
                let added = std::mem::take(&mut changes.added);
                let changes = Changes { interface: old, added, sysctls };
                Self { handle: handle.clone(), index, file, changes }.serve(&[]).await?;
            }
            changes.added.clear();
        }
        let mut addresses = Self { handle, index, file, changes };
        addresses.forget_what_is_gone().await?;
        Ok(addresses)
    }

    /// A reboot takes the addresses and leaves the file; they are ours to put there again.
    async fn forget_what_is_gone(&mut self) -> Result<(), AddressError> {
        for address in self.changes.added.clone() {
            if self.find(address).await?.is_none() {
                self.changes.added.remove(&address);
            }
        }
        Ok(())
    }

    /// Makes `vipas` and no others of ours be there.
    pub(crate) async fn serve(&mut self, vipas: &[IpAddr]) -> Result<(), AddressError> {
        let wanted: BTreeSet<IpAddr> = vipas.iter().copied().collect();
        if !wanted.is_empty() {
            self.set_sysctls()?;
        }
        for address in wanted.difference(&self.changes.added.clone()) {
            self.add(*address).await?;
        }
        for address in self.changes.added.clone().difference(&wanted) {
            self.remove(*address).await?;
        }
        Ok(())
    }

    /// Undoes everything.
    pub(crate) async fn restore(mut self) -> Result<(), AddressError> {
        self.serve(&[]).await?;
        for (path, value) in std::mem::take(&mut self.changes.sysctls) {
            fs::write(&path, value).map_err(|source| AddressError::Sysctl { path, source })?;
        }
        fs::remove_file(&self.file)
            .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
            .map_err(|source| AddressError::State { path: self.file.clone(), source })
    }

    fn set_sysctls(&mut self) -> Result<(), AddressError> {
        for (path, value) in SYSCTLS {
            let fail = |source| AddressError::Sysctl { path: path.into(), source };
            let before = fs::read_to_string(path).map_err(fail)?.trim().to_string();
            if before == value {
                continue;
            }
            self.changes.sysctls.entry(path.into()).or_insert(before);
            self.remember()?;
            fs::write(path, value).map_err(fail)?;
        }
        Ok(())
    }

    async fn add(&mut self, address: IpAddr) -> Result<(), AddressError> {
        if self.find(address).await?.is_some() {
            // Somebody put it there before us; it is theirs to take away.
            tracing::info!(%address, interface = %self.changes.interface, "the VIPA is there already");
            return Ok(());
        }
        self.changes.added.insert(address);
        self.remember()?;
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let done = self.handle.address().add(self.index, address, prefix).execute().await;
        done.map_err(|source| self.error("put", address, source))?;
        tracing::info!(%address, interface = %self.changes.interface, "the VIPA is on this host");
        Ok(())
    }

    async fn remove(&mut self, address: IpAddr) -> Result<(), AddressError> {
        if let Some(message) = self.find(address).await? {
            let done = self.handle.address().del(message).execute().await;
            done.map_err(|source| self.error("remove", address, source))?;
        }
        self.changes.added.remove(&address);
        tracing::info!(%address, interface = %self.changes.interface, "the VIPA is off this host");
        self.remember()
    }

    /// The address as the kernel has it on our interface.
    async fn find(&self, address: IpAddr) -> Result<Option<AddressMessage>, AddressError> {
        let mut list = self.handle.address().get().set_link_index_filter(self.index).execute();
        let is_it = |attribute: &AddressAttribute| match attribute {
            AddressAttribute::Address(found) | AddressAttribute::Local(found) => *found == address,
            _ => false,
        };
        let fail = |source| self.error("look for", address, source);
        while let Some(message) = list.try_next().await.map_err(fail)? {
            if message.attributes.iter().any(is_it) {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn remember(&self) -> Result<(), AddressError> {
        let beside = self.file.with_extension("json.new");
        let text = serde_json::to_vec_pretty(&self.changes).expect("addresses and strings are JSON");
        fs::write(&beside, text)
            .and_then(|()| fs::rename(&beside, &self.file))
            .map_err(|source| AddressError::State { path: self.file.clone(), source })
    }

    fn error(&self, what: &'static str, address: IpAddr, source: rtnetlink::Error) -> AddressError {
        let interface = self.changes.interface.clone();
        AddressError::Address { what, address, interface, source: Box::new(source) }
    }
}

async fn index_of(handle: &Handle, interface: &str) -> Option<u32> {
    let mut links = handle.link().get().match_name(interface.to_string()).execute();
    links.try_next().await.ok().flatten().map(|link| link.header.index)
}
