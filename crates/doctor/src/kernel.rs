//! What the kernel of a node's host does beside it with the packets of VIPAs.
//!
//! With `net_af_packet` the kernel receives every frame, too. If it has a VIPA as its own address, it answers clients with resets;
//! if it forwards packets, it sends each of them a second time. With other drivers a VIPA on an interface of the kernel's has it
//! answer ARP there. A running router goes on looking (`vipa-control`).

use std::{collections::BTreeMap, fmt, net::IpAddr};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use vipa_model::config::{Config, driver_of};

use crate::{Diagnosis, Root, ports::interface_of};

/// An interface of the kernel's that has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    /// Stations beyond it may ask for the address.
    pub answers: bool,
}

/// One thing that the kernel should not do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interference {
    /// It has the VIPA, and receives what clients send there.
    Receives { vipa: IpAddr, interface: String },
    /// It says that the VIPA is on this interface.
    Answers { vipa: IpAddr, interface: String },
    /// It sends a second time what comes to this interface.
    Forwards { interface: String, setting: String },
}

impl Interference {
    /// Whether connections break.
    #[must_use]
    pub fn breaks_traffic(&self) -> bool {
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

/// The interface whose frames this device shares with the kernel.
#[must_use]
pub fn shared_interface(device: &str) -> Option<&str> {
    if driver_of(device) == Some("net_af_packet") { interface_of(device) } else { None }
}

/// What the kernel does about one VIPA that it has on `interface`. `is_shared`: a port shares its frames with the kernel.
#[must_use]
pub fn interference(vipa: IpAddr, interface: &Interface, is_shared: bool) -> Option<Interference> {
    let Interface { name, answers } = interface;
    let interface = name.clone();
    if is_shared {
        Some(Interference::Receives { vipa, interface })
    } else {
        answers.then_some(Interference::Answers { vipa, interface })
    }
}

/// The settings by which the kernel forwards what comes to an interface, such as `net.ipv4.conf.eth0.forwarding`.
#[must_use]
pub fn forwarding_settings(root: &Root, interface: &str) -> Vec<String> {
    let settings = ["ipv4", "ipv6"].map(|family| format!("net/{family}/conf/{interface}/forwarding"));
    let is_on = |setting: &String| root.text(&format!("proc/sys/{setting}")).is_some_and(|value| value != "0");
    settings.into_iter().filter(is_on).map(|setting| setting.replace('/', ".")).collect()
}

/// Addresses of this network namespace and where they are.
fn addresses() -> BTreeMap<IpAddr, Interface> {
    let Ok(list) = getifaddrs() else { return BTreeMap::new() };
    let address = |entry: &nix::ifaddrs::InterfaceAddress| {
        let address = entry.address?;
        let ipv4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        ipv4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    list.filter_map(|entry| {
        let silent = InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_NOARP;
        let answers = !entry.flags.intersects(silent);
        Some((address(&entry)?, Interface { name: entry.interface_name, answers }))
    })
    .collect()
}

pub(crate) fn check(config: &Config, root: &Root) -> Vec<Diagnosis> {
    judge(config, root, &addresses())
}

fn judge(config: &Config, root: &Root, addresses: &BTreeMap<IpAddr, Interface>) -> Vec<Diagnosis> {
    let shared: Vec<&str> = config.ports.iter().filter_map(|port| shared_interface(&port.device)).collect();
    let mut findings = Vec::new();
    for vipa in &config.vipas {
        let found = addresses.get(&vipa.address).and_then(|at| interference(vipa.address, at, !shared.is_empty()));
        findings.extend(found.map(|found| Diagnosis::harm(format!("VIPA {}", vipa.address), found.to_string())));
    }
    findings.extend(of_ports(config, addresses));
    for interface in shared {
        for setting in forwarding_settings(root, interface) {
            let found = Interference::Forwards { interface: interface.into(), setting: setting.clone() };
            findings
                .push(Diagnosis::harm(format!("forwarding of {interface}"), format!("{found}: sysctl -w {setting}=0")));
        }
    }
    if let Some(agent) = &config.agent {
        findings.extend(target(agent.address, root, addresses));
    }
    if findings.is_empty() {
        findings.push(Diagnosis::ok(
            "this host's kernel",
            "it has no VIPA, no port's address, and forwards nothing a second time",
        ));
    }
    findings
}

/// Ports' addresses that the kernel has, too.
pub(crate) fn port_addresses(config: &Config) -> Vec<Diagnosis> {
    of_ports(config, &addresses())
}

fn of_ports(config: &Config, addresses: &BTreeMap<IpAddr, Interface>) -> Vec<Diagnosis> {
    let mut findings = Vec::new();
    for port in &config.ports {
        for address in port.addresses() {
            // Behind the exception path the kernel has the port's address on purpose.
            let at = addresses.get(&address).filter(|at| port.kernel_interface.as_ref() != Some(&at.name));
            findings.extend(at.map(|at| {
                let text = format!(
                    "this host's kernel has its address {address} on {interface}, too, and answers for it: ip address del {address} dev \
                     {interface}, or give the port another one",
                    interface = at.name
                );
                Diagnosis::harm(format!("port {}", port.name), text)
            }));
        }
    }
    findings
}

/// Of a target: its own address, and whether the kernel takes what clients send.
fn target(address: IpAddr, root: &Root, addresses: &BTreeMap<IpAddr, Interface>) -> Vec<Diagnosis> {
    let subject = format!("agent.address {address}");
    let Some(Interface { name, .. }) = addresses.get(&address) else {
        let text = "no interface here has it, so that no router's packet arrives: change `agent.address`, or add it to an interface";
        return vec![Diagnosis::harm(subject, text)];
    };
    let setting =
        |interface: &str| root.number(&format!("proc/sys/net/ipv4/conf/{interface}/rp_filter")).unwrap_or_default();
    // The larger of both counts (ip-sysctl.rst).
    if address.is_ipv4() && setting("all").max(setting(name)) == 1 {
        let text = format!(
            "reverse path filtering drops packets of clients that the kernel would answer by another interface than {name}: sysctl -w \
             net.ipv4.conf.{name}.rp_filter=2"
        );
        return vec![Diagnosis::warning("rp_filter", text)];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::tests::{config, root_with, said};

    const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));

    fn on(interface: &str, answers: bool) -> Interface {
        Interface { name: interface.into(), answers }
    }

    #[test]
    fn a_vipa_of_the_kernel_that_gets_the_frames_breaks_connections_wherever_it_is() {
        for interface in ["lo", "eth0"] {
            let found = interference(VIPA, &on(interface, interface != "lo"), true).unwrap();
            assert_eq!(found, Interference::Receives { vipa: VIPA, interface: interface.into() });
            assert!(found.breaks_traffic());
        }
    }

    #[test]
    fn a_router_that_is_its_own_target_has_the_vipa_on_its_loopback_and_another_interface_answers_for_it() {
        assert_eq!(interference(VIPA, &on("lo", false), false), None);
        let answers = Interference::Answers { vipa: VIPA, interface: "mgmt".into() };
        assert_eq!(interference(VIPA, &on("mgmt", true), false), Some(answers));
    }

    #[test]
    fn a_device_says_which_interface_it_shares() {
        assert_eq!(shared_interface("net_af_packet0,iface=eth0,blocksz=4096"), Some("eth0"));
        for device in ["net_af_xdp0,iface=eth0", "net_tap0,iface=tap0", "0000:03:00.0", "net_memif0"] {
            assert_eq!(shared_interface(device), None, "{device}");
        }
    }

    #[test]
    fn what_the_kernel_has_and_forwards_is_told_with_the_command() {
        let root = root_with(&[
            ("proc/sys/net/ipv4/conf/eth0/forwarding", "1\n"),
            ("proc/sys/net/ipv6/conf/eth0/forwarding", "0\n"),
        ]);
        let config = config("device = \"net_af_packet0,iface=eth0\"");
        let port: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
        let addresses = [(VIPA, on("eth0", true)), (port, on("eth0", true))].into();
        assert_eq!(
            said(&judge(&config, &root, &addresses)),
            [
                "HARM     VIPA 192.0.2.10: this host's kernel has 192.0.2.10 on eth0 and resets its connections: ip address del 192.0.2.10 \
                 dev eth0",
                "HARM     port p0: this host's kernel has its address 192.0.2.1 on eth0, too, and answers for it: ip address del 192.0.2.1 \
                 dev eth0, or give the port another one",
                "HARM     forwarding of eth0: this host's kernel forwards what comes to eth0 a second time: set \
                 net.ipv4.conf.eth0.forwarding to 0: sysctl -w net.ipv4.conf.eth0.forwarding=0",
            ]
        );
        assert_eq!(judge(&config, &root_with(&[]), &BTreeMap::new())[0].level, crate::DiagnosisLevel::Ok);
    }

    #[test]
    fn a_targets_address_and_filter_are_looked_at() {
        let address: IpAddr = Ipv4Addr::new(10, 0, 0, 31).into();
        assert!(
            said(&target(address, &root_with(&[]), &BTreeMap::new()))[0]
                .starts_with("HARM     agent.address 10.0.0.31: no interface")
        );
        let addresses = [(address, on("eth0", true))].into();
        let root =
            root_with(&[("proc/sys/net/ipv4/conf/all/rp_filter", "1"), ("proc/sys/net/ipv4/conf/eth0/rp_filter", "0")]);
        assert!(said(&target(address, &root, &addresses))[0].ends_with("sysctl -w net.ipv4.conf.eth0.rp_filter=2"));
        assert_eq!(target(address, &root_with(&[]), &addresses), []);
    }

    #[test]
    fn the_kernel_tells_where_its_addresses_are() {
        assert_eq!(addresses()[&IpAddr::V4(Ipv4Addr::LOCALHOST)], on("lo", false));
    }
}
