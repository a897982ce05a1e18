//! What the kernel of this router's host does beside it with the packets of VIPAs.
//!
//! With `net_af_packet` the kernel receives every frame, too. If it has a VIPA as its own address, it answers clients with resets;
//! if it forwards packets, it sends each of them a second time. With other drivers a VIPA on an interface of the kernel's has it
//! answer ARP there.

use std::{collections::BTreeMap, fmt, fs, net::IpAddr, time::Duration};

use futures::TryStreamExt;
use rtnetlink::{
    Error, Handle,
    packet_route::{
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkFlags},
    },
};
use tokio::sync::watch;
use vipa_model::config;

use crate::control::Control;

/// How often the kernel is asked.
const LOOK: Duration = Duration::from_secs(1);
/// VIPAs that are named.
const NAMED: usize = 8;

/// An interface of the kernel's that has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interface {
    name: String,
    /// Stations beyond it may ask for the address.
    answers: bool,
}

/// What the kernel was found to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KernelState {
    addresses: BTreeMap<IpAddr, Interface>,
    /// Interfaces beneath ports that share their frames with the kernel and where the kernel forwards packets, with the setting.
    forwarding: Vec<(String, String)>,
}

/// One thing that the kernel should not do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Interference {
    /// It has the VIPA, and receives what clients send there.
    Receives {
        vipa: IpAddr,
        interface: String,
    },
    /// It says that the VIPA is on this interface.
    Answers {
        vipa: IpAddr,
        interface: String,
    },
    Forwards {
        interface: String,
        setting: String,
    },
}

impl Interference {
    /// Whether connections break.
    pub(crate) fn breaks_traffic(&self) -> bool {
        matches!(self, Self::Receives { .. })
    }
}

impl fmt::Display for Interference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receives { vipa, interface } => write!(
                f,
                "this host's kernel has {vipa} on {interface} and resets its connections: ip address del {vipa} dev {interface}"
            ),
            Self::Answers { vipa, interface } => write!(
                f,
                "this host's kernel has {vipa} on {interface} and answers for it there: ip address del {vipa} dev {interface}"
            ),
            Self::Forwards { interface, setting } => {
                write!(f, "this host's kernel forwards what comes to {interface} a second time: set {setting} to 0")
            }
        }
    }
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
        let shared: Vec<String> = ports.iter().filter_map(|port| shared_interface(&port.device)).collect();
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
        let found = vipas.filter_map(|(vipa, Interface { name, answers })| {
            let (vipa, interface) = (*vipa, name.clone());
            if !self.shared.is_empty() {
                Some(Interference::Receives { vipa, interface })
            } else {
                answers.then_some(Interference::Answers { vipa, interface })
            }
        });
        let forwards = |(interface, setting): &(String, String)| Interference::Forwards {
            interface: interface.clone(),
            setting: setting.clone(),
        };
        found.take(NAMED).chain(state.forwarding.iter().map(forwards)).collect()
    }
}

/// The interface whose frames this device shares with the kernel.
fn shared_interface(device: &str) -> Option<String> {
    let arguments = device.strip_prefix("net_af_packet")?.split(',');
    arguments
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == "iface").then(|| value.to_owned()))
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
        let forwarding = shared.iter().flat_map(|interface| forwards(interface)).collect();
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

/// The settings by which the kernel forwards what comes to an interface.
fn forwards(interface: &str) -> Vec<(String, String)> {
    let families = ["ipv4", "ipv6"].into_iter();
    let settings = families.map(|family| format!("net/{family}/conf/{interface}/forwarding"));
    let is_on =
        |setting: &String| fs::read_to_string(format!("/proc/sys/{setting}")).is_ok_and(|value| value.trim() != "0");
    settings.filter(is_on).map(|setting| (interface.to_owned(), setting.replace('/', "."))).collect()
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

    const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));

    fn found(shared: &[&str], interface: &str, answers: bool) -> Vec<Interference> {
        let state = KernelState {
            addresses: [(VIPA, Interface { name: interface.into(), answers })].into(),
            forwarding: Vec::new(),
        };
        let shared = shared.iter().map(|name| (*name).to_owned()).collect();
        let kernel = OwnKernel { state: watch::channel(state).1, shared, found: Vec::new() };
        kernel.interferences(|address| address == VIPA)
    }

    #[test]
    fn a_vipa_of_the_kernel_that_gets_the_frames_breaks_connections_wherever_it_is() {
        for interface in ["lo", "eth0"] {
            let found = found(&["eth0"], interface, interface != "lo");
            assert_eq!(found, [Interference::Receives { vipa: VIPA, interface: interface.into() }]);
            assert!(found[0].breaks_traffic());
        }
    }

    #[test]
    fn a_router_that_is_its_own_target_has_the_vipa_on_its_loopback_and_another_interface_answers_for_it() {
        assert_eq!(found(&[], "lo", false), []);
        assert_eq!(found(&[], "mgmt", true), [Interference::Answers { vipa: VIPA, interface: "mgmt".into() }]);
    }

    #[test]
    fn a_device_says_which_interface_it_shares() {
        assert_eq!(shared_interface("net_af_packet0,iface=eth0,blocksz=4096"), Some("eth0".into()));
        for device in ["net_af_xdp0,iface=eth0", "net_tap0,iface=tap0", "0000:03:00.0", "net_memif0"] {
            assert_eq!(shared_interface(device), None, "{device}");
        }
    }

    #[tokio::test]
    async fn the_kernel_tells_where_its_addresses_are() {
        let mut kernel = OwnKernel::start(&[]);
        kernel.state.changed().await.unwrap();
        let state = kernel.state.borrow().clone();
        let here: IpAddr = Ipv4Addr::LOCALHOST.into();
        assert_eq!(state.addresses[&here], Interface { name: "lo".into(), answers: false });
    }
}
