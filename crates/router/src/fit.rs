//! Whether the ports can carry what is configured. What does not fit would show as packets that silently go nowhere, so it is
//! said before a port is touched, and by `vipad --check`.

use std::{net::IpAddr, path::Path};

use anyhow::bail;
use vipa_handoff::{PortRoute, next_neighbour};
use vipa_model::{
    Forwarding, Mac,
    config::{Config, ConfigPlace, Misfit, Port, Vipa},
};
use vipa_packet::Encapsulation;

use crate::ports;

/// Every host takes so much (RFC 8200 §5), and no IPv6 sender ever sends less for being told to.
const LEAST_IPV6: u16 = 1_280;
/// The same of IPv4 (RFC 1122 §3.3.2).
const LEAST_IPV4: u16 = 576;

/// Everything that does not fit, in a sentence each, with its place in the file.
pub(crate) fn misfits(ports: &[Port], vipas: &[Vipa]) -> Vec<Misfit> {
    let nowhere = Mac([0; 6]);
    let routes: Vec<PortRoute> = ports.iter().map(|port| ports::route(port, nowhere)).collect();
    let mut misfits: Vec<Misfit> =
        ports.iter().enumerate().filter_map(|(index, port)| check_vlan(index, port)).collect();
    for (vipa, of) in vipas.iter().enumerate() {
        for (service, settings) in of.services.iter().flatten().enumerate() {
            for (candidate, &address) in settings.candidates.iter().enumerate() {
                let how = settings.delivery.forwarding_to(address);
                let place = ConfigPlace::Candidate { vipa, service, candidate };
                let way = PathNeeds { vipa: of.address, candidate: address, how };
                misfits.extend(check_way(ports, &routes, way, place));
            }
        }
    }
    misfits
}

/// As [`misfits`], in one text.
pub(crate) fn check(config: &Config) -> anyhow::Result<()> {
    let messages: Vec<String> =
        misfits(&config.ports, &config.vipas).into_iter().map(|misfit| misfit.message).collect();
    if messages.is_empty() { Ok(()) } else { bail!(messages.join("; ")) }
}

#[derive(Clone, Copy)]
struct PathNeeds {
    vipa: IpAddr,
    candidate: IpAddr,
    how: Forwarding,
}

fn check_way(ports: &[Port], routes: &[PortRoute], way: PathNeeds, candidate_place: ConfigPlace) -> Option<Misfit> {
    let PathNeeds { vipa, candidate, how } = way;
    let at = |place, message| Some(Misfit { place, message });
    let own = ports.iter().zip(routes).find(|(_, route)| route.has(candidate));
    if let Some((Port { name, kernel_interface, .. }, _)) = own {
        if kernel_interface.is_none() {
            let message = format!(
                "VIPA {vipa}: candidate {candidate} is port {name}'s own address, behind which nothing can listen: give the port a `kernel_interface`"
            );
            return at(candidate_place, message);
        }
        return None;
    }
    let Some((id, neighbour)) = next_neighbour(routes, candidate) else {
        let gateway = if candidate.is_ipv4() { "gateway" } else { "gateway6" };
        let message = format!(
            "VIPA {vipa}: candidate {candidate} is on no port's network: give a port the `{gateway}` that leads there"
        );
        return at(candidate_place, message);
    };
    let (index, port) = (usize::from(id.0), &ports[usize::from(id.0)]);
    let Some(tunnel) = encapsulation(how) else {
        if how == Forwarding::Direct && neighbour != candidate {
            let message = format!(
                "VIPA {vipa}: candidate {candidate} is on no port's network, and \"direct\" reaches no further: use a tunnel or \"nat\""
            );
            return at(candidate_place, message);
        }
        return None;
    };
    if candidate.is_ipv6() && port.address6.is_none() {
        let message = format!(
            "VIPA {vipa}: the tunnel to {candidate} has no address to come from: give port {} an `address6`",
            port.name
        );
        return at(candidate_place, message);
    }
    let overhead = u16::try_from(tunnel.overhead(candidate.is_ipv6())).unwrap_or(u16::MAX);
    let (family, least) = if vipa.is_ipv6() { ("IPv6", LEAST_IPV6) } else { ("IPv4", LEAST_IPV4) };
    let room = port.mtu.saturating_sub(overhead);
    if room < least {
        let message = format!(
            "VIPA {vipa}: port {}'s mtu of {} leaves {room} bytes in \"{}\" to {candidate}, and {family} needs {least}: raise its `mtu` to {} at least",
            port.name,
            port.mtu,
            how.name(),
            least + overhead
        );
        return at(ConfigPlace::Port { port: index, key: "mtu" }, message);
    }
    None
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
fn check_vlan(index: usize, port: &Port) -> Option<Misfit> {
    let interface = port.device.split(',').find_map(|argument| argument.strip_prefix("iface="))?;
    let vlan = port.vlan?;
    let is_vlan = Path::new("/proc/net/vlan").join(interface).exists();
    is_vlan.then(|| Misfit {
        place: ConfigPlace::Port { port: index, key: "vlan" },
        message: format!(
            "port {}: {interface} is an interface of a VLAN already, whose frames have no tag {vlan}: take `vlan` out, or use the interface beneath",
            port.name
        ),
    })
}

#[cfg(test)]
mod tests {
    use vipa_model::config::Program;

    use super::*;

    /// What is said of a router with these lines in its `[[port]]`, this VIPA and these lines in its service.
    fn said(port: &str, vipa: &str, service: &str) -> String {
        let text = text(port, vipa, service);
        let config = Config::parse_for(Program::Router, "r1.toml", &text).unwrap_or_else(|errors| panic!("{errors}"));
        check(&config).map_or_else(|error| error.to_string(), |()| "it fits".into())
    }

    fn text(port: &str, vipa: &str, service: &str) -> String {
        format!(
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
        )
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

    #[test]
    fn every_misfit_is_said_where_it_stands_beside_the_other_mistakes() {
        let text = text(
            "mtu = 590",
            "192.0.2.10",
            "candidates = [\"10.7.0.31\", { address = \"10.0.0.32\", forwarding = \"ipip\" }]",
        );
        let text = text.replace("ca = \"ca.pem\"", "cert = \"ca.pem\"");
        let errors = Config::parse_fitting(Program::Router, "r1.toml", &text, misfits).unwrap_err();
        let places: Vec<_> = errors.problems.iter().map(|problem| (problem.line, problem.column)).collect();
        assert_eq!(places, [(5, 1), (6, 1), (19, 7), (25, 15)], "{errors}");
        assert!(errors.problems[2].message.contains("raise its `mtu` to 596 at least"), "{errors}");
        assert!(errors.problems[3].message.contains("candidate 10.7.0.31 is on no port's network"), "{errors}");
    }
}
