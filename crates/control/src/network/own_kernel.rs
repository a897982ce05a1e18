//! Goes on looking at what the kernel of this router's host does beside it with the packets of VIPAs; `vipa_doctor::kernel` says what
//! that may be.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use futures::TryStreamExt;
use rtnetlink::{
    Error, Handle,
    packet_route::{
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkFlags},
    },
};
use tokio::sync::watch;
use vipa_doctor::{
    Root,
    kernel::{self, Interface, Interference},
};
use vipa_model::config;

use crate::control::Control;

/// How often the kernel is asked.
const LOOK: Duration = Duration::from_secs(1);
/// VIPAs that are named.
const NAMED: usize = 8;

/// What the kernel was found to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KernelState {
    addresses: BTreeMap<IpAddr, Interface>,
    /// Interfaces beneath ports that share their frames with the kernel and where the kernel forwards packets, with the setting.
    forwarding: Vec<(String, String)>,
}

/// What the kernel is asked, and what came of it.
#[derive(Debug)]
pub(crate) struct OwnKernel {
    state: watch::Receiver<KernelState>,
    /// Interfaces whose frames the kernel gets as well.
    shared: Vec<String>,
    found: Vec<Interference>,
}

impl OwnKernel {
    /// Begins to look. Call it within a runtime.
    pub(crate) fn start(ports: &[config::Port]) -> Self {
        let shared: Vec<String> =
            ports.iter().filter_map(|port| kernel::shared_interface(&port.device).map(str::to_owned)).collect();
        let (tell, state) = watch::channel(KernelState::default());
        tokio::spawn(watch_kernel(shared.clone(), tell));
        Self { state, shared, found: Vec::new() }
    }

    pub(crate) fn all(&self) -> &[Interference] {
        &self.found
    }

    /// What it does about these VIPAs.
    fn interferences(&self, is_vipa: impl Fn(IpAddr) -> bool) -> Vec<Interference> {
        let state = self.state.borrow();
        let vipas = state.addresses.iter().filter(|(address, _)| is_vipa(**address));
        let found = vipas.filter_map(|(vipa, at)| kernel::interference(*vipa, at, !self.shared.is_empty()));
        let forwards = |(interface, setting): &(String, String)| Interference::Forwards {
            interface: interface.clone(),
            setting: setting.clone(),
        };
        found.take(NAMED).chain(state.forwarding.iter().map(forwards)).collect()
    }
}

/// Looks until nobody wants to know any more.
async fn watch_kernel(shared: Vec<String>, tell: watch::Sender<KernelState>) {
    let handle = match rtnetlink::new_connection() {
        Ok((connection, handle, _)) => {
            tokio::spawn(connection);
            handle
        }
        Err(error) => return tracing::error!(%error, "no netlink: whether this host's kernel has a VIPA is not known"),
    };
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut has_failed = false;
    while !tell.is_closed() {
        look.tick().await;
        let root = Root::default();
        let settings = |interface: &String| kernel::forwarding_settings(&root, interface);
        let named =
            |interface: &String| settings(interface).into_iter().map(|setting| (interface.clone(), setting)).collect();
        let forwarding = shared.iter().flat_map(|interface| -> Vec<_> { named(interface) }).collect();
        match addresses(&handle).await {
            Ok(addresses) => {
                let state = KernelState { addresses, forwarding };
                tell.send_if_modified(|told| {
                    let is_stale = *told != state;
                    if is_stale {
                        *told = state;
                    }
                    is_stale
                });
                has_failed = false;
            }
            Err(error) if !has_failed => {
                tracing::warn!(%error, "this host's kernel does not tell its addresses");
                has_failed = true;
            }
            Err(_) => {}
        }
    }
}

async fn addresses(handle: &Handle) -> Result<BTreeMap<IpAddr, Interface>, Error> {
    let mut interfaces = BTreeMap::new();
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await? {
        let answers = !link.header.flags.intersects(LinkFlags::Loopback | LinkFlags::Noarp);
        let name = link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        interfaces.insert(link.header.index, Interface { name: name.unwrap_or_default(), answers });
    }
    let mut addresses = BTreeMap::new();
    let list: Vec<AddressMessage> = handle.address().get().execute().try_collect().await?;
    for message in list {
        let Some(interface) = interfaces.get(&message.header.index) else { continue };
        for attribute in message.attributes {
            if let AddressAttribute::Local(address) | AddressAttribute::Address(address) = attribute {
                addresses.insert(address, interface.clone());
            }
        }
    }
    Ok(addresses)
}

impl Control {
    /// Takes in what the kernel does by now; the log tells of what is new.
    pub(crate) fn look_at_own_kernel(&mut self) {
        let found = self.own_kernel.interferences(|address| self.routing.places.contains_key(&address));
        for new in found.iter().filter(|new| !self.own_kernel.found.contains(new)) {
            self.counts.kernel_interferences += 1;
            tracing::error!("{new}");
        }
        for gone in self.own_kernel.found.iter().filter(|gone| !found.contains(gone)) {
            tracing::info!("no longer so: {gone}");
        }
        self.own_kernel.found = found;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn the_kernel_tells_where_its_addresses_are() {
        let mut kernel = OwnKernel::start(&[]);
        kernel.state.changed().await.unwrap();
        let state = kernel.state.borrow().clone();
        let here: IpAddr = Ipv4Addr::LOCALHOST.into();
        assert_eq!(state.addresses[&here], Interface { name: "lo".into(), answers: false });
    }
}
