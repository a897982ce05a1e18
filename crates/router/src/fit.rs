//! Whether the ports can carry what is configured. What does not fit would show as packets that silently go nowhere, so it is
//! said before a port is touched, and by `vipad --check`.

use std::{net::IpAddr, path::Path};

use anyhow::bail;
use vipa_handoff::{PortRoute, next_neighbour};
use vipa_model::{
    Forwarding, Mac,
    config::{Config, Port},
};
use vipa_packet::Encapsulation;

use crate::ports;

/// Every host takes so much (RFC 8200 §5), and no IPv6 sender ever sends less for being told to.
const LEAST_IPV6: u16 = 1_280;
/// The same of IPv4 (RFC 1122 §3.3.2).
const LEAST_IPV4: u16 = 576;

/// The first thing that does not fit, in a sentence.
pub(crate) fn check(config: &Config) -> anyhow::Result<()> {
    let nowhere = Mac([0; 6]);
    let routes: Vec<PortRoute> = config.ports.iter().map(|port| ports::route(port, nowhere)).collect();
    for vipa in &config.vipas {
        for service in vipa.services.iter().flatten() {
            for candidate in &service.candidates {
                let way = PathNeeds {
                    vipa: vipa.address,
                    candidate: *candidate,
                    how: service.delivery.forwarding_to(*candidate),
                };
                check_way(&config.ports, &routes, way)?;
            }
        }
    }
    config.ports.iter().try_for_each(check_vlan)
}

#[derive(Clone, Copy)]
struct PathNeeds {
    vipa: IpAddr,
    candidate: IpAddr,
    how: Forwarding,
}

fn check_way(ports: &[Port], routes: &[PortRoute], way: PathNeeds) -> anyhow::Result<()> {
    let PathNeeds { vipa, candidate, how } = way;
    let own = ports.iter().zip(routes).find(|(_, route)| route.has(candidate));
    if let Some((Port { name, kernel_interface, .. }, _)) = own {
        if kernel_interface.is_none() {
            bail!(
                "VIPA {vipa}: candidate {candidate} is port {name}'s own address, behind which nothing can listen: give the port a `kernel_interface`"
            );
        }
        return Ok(());
    }
    let Some((id, neighbour)) = next_neighbour(routes, candidate) else {
        let gateway = if candidate.is_ipv4() { "gateway" } else { "gateway6" };
        bail!(
            "VIPA {vipa}: candidate {candidate} is on no port's network: give a port the `{gateway}` that leads there"
        );
    };
    let port = &ports[usize::from(id.0)];
    let Some(tunnel) = encapsulation(how) else {
        if how == Forwarding::Direct && neighbour != candidate {
            bail!(
                "VIPA {vipa}: candidate {candidate} is on no port's network, and \"direct\" reaches no further: use a tunnel or \"nat\""
            );
        }
        return Ok(());
    };
    if candidate.is_ipv6() && port.address6.is_none() {
        bail!(
            "VIPA {vipa}: the tunnel to {candidate} has no address to come from: give port {} an `address6`",
            port.name
        );
    }
    let overhead = u16::try_from(tunnel.overhead(candidate.is_ipv6())).unwrap_or(u16::MAX);
    let (family, least) = if vipa.is_ipv6() { ("IPv6", LEAST_IPV6) } else { ("IPv4", LEAST_IPV4) };
    let room = port.mtu.saturating_sub(overhead);
    if room < least {
        bail!(
            "VIPA {vipa}: port {}'s mtu of {} leaves {room} bytes in \"{}\" to {candidate}, and {family} needs {least}: raise its `mtu` to {} at least",
            port.name,
            port.mtu,
            how.name(),
            least + overhead
        );
    }
    Ok(())
}

fn encapsulation(how: Forwarding) -> Option<Encapsulation> {
    match how {
        Forwarding::Direct | Forwarding::Nat => None,
        Forwarding::Ipip => Some(Encapsulation::Ipip),
        Forwarding::Gre => Some(Encapsulation::Gre),
        Forwarding::Gue => Some(Encapsulation::Gue { port: 0 }),
    }
}

/// A kernel interface that is in a VLAN itself has no use for another tag.
fn check_vlan(port: &Port) -> anyhow::Result<()> {
    let interface = port.device.split(',').find_map(|argument| argument.strip_prefix("iface="));
    if let (Some(vlan), Some(interface)) = (port.vlan, interface)
        && Path::new("/proc/net/vlan").join(interface).exists()
    {
        bail!(
            "port {}: {interface} is an interface of a VLAN already, whose frames have no tag {vlan}: take `vlan` out, or use the interface beneath",
            port.name
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vipa_model::config::Program;

    use super::*;

    /// What is said of a router with these lines in its `[[port]]`, this VIPA and these lines in its service.
    fn said(port: &str, vipa: &str, service: &str) -> String {
        let text = format!(
            r#"
[node]
name = "r1"
listen = "10.0.9.1:7400"
[pki]
ca = "ca.pem"
certificate = "r1.pem"
key = "r1.key"
[cluster]
name = "demo"
key = "000102030405060708090a0b0c0d0e0f"
voters = ["r1", "t1", "t2"]
[cluster.routers]
r1 = "10.0.9.1:7400"
[[port]]
name = "p0"
device = "net_tap0,iface=dtap0"
address = "10.0.0.1/24"
{port}
[[vipa]]
address = "{vipa}"
ranks = {{ r1 = 200 }}
[[vipa.service]]
ports = 80
{service}
"#
        );
        let config = Config::parse_for(Program::Router, "r1.toml", &text).unwrap_or_else(|errors| panic!("{errors}"));
        check(&config).map_or_else(|error| error.to_string(), |()| "it fits".into())
    }

    #[test]
    fn what_fits_is_passed_over_in_silence() {
        for (port, service) in [
            ("", "candidates = [\"10.0.0.31\"]"),
            ("", "candidates = [\"10.0.0.31\"]\nforwarding = \"gue\""),
            ("gateway = \"10.0.0.254\"", "candidates = [\"10.7.0.31\"]\nforwarding = \"ipip\""),
            ("kernel_interface = \"k0\"", "candidates = [\"10.0.0.1\"]"),
            ("address6 = \"2001:db8::1/64\"", "candidates = [\"2001:db8::31\"]"),
        ] {
            assert_eq!(said(port, "192.0.2.10", service), "it fits", "{port} {service}");
        }
    }

    #[test]
    fn an_mtu_too_small_for_a_tunnel_is_said_with_the_one_that_is_not() {
        let tunnel = "candidates = [\"10.0.0.31\"]\nforwarding = \"ipip\"";
        assert_eq!(
            said("mtu = 1290", "2001:db8:1::10", tunnel),
            "VIPA 2001:db8:1::10: port p0's mtu of 1290 leaves 1270 bytes in \"ipip\" to 10.0.0.31, and IPv6 needs 1280: \
             raise its `mtu` to 1300 at least"
        );
        assert_eq!(said("mtu = 1300", "2001:db8:1::10", tunnel), "it fits");
        assert!(said("mtu = 580", "192.0.2.10", tunnel).contains("raise its `mtu` to 596 at least"));
    }

    #[test]
    fn a_candidate_that_no_port_reaches_is_named_with_the_remedy() {
        let direct = "candidates = [\"10.7.0.31\"]";
        assert!(said("", "192.0.2.10", direct).contains("on no port's network: give a port the `gateway`"));
        assert!(said("gateway = \"10.0.0.254\"", "192.0.2.10", direct).contains("\"direct\" reaches no further"));
        let six = "candidates = [\"2001:db8::31\"]\nforwarding = \"gre\"";
        assert!(said("", "192.0.2.10", six).contains("give a port the `gateway6`"));
        assert!(said("gateway6 = \"fe80::1\"", "192.0.2.10", six).contains("give port p0 an `address6`"));
        let own = "candidates = [\"10.0.0.1\"]";
        assert!(said("", "192.0.2.10", own).contains("give the port a `kernel_interface`"));
    }
}
