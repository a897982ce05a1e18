//! `[[vipa]]` and `[[vipa.service]]`.

use std::net::{IpAddr, SocketAddr};

use super::{
    Port, Takeback, Vipa,
    problems::Problems,
    read::{Section, Value, choice, flag, ipv4, list, number},
    sections::is_own,
};
use crate::{Balance, Forwarding, NodeName, Orphans, PortRange, Protocol, Rank, Service};

/// What VIPAs are checked against.
pub(super) struct Surroundings<'a> {
    /// Where these could not be read, what depends on them goes unchecked.
    pub(super) me: Option<&'a NodeName>,
    pub(super) routers: Option<&'a [(NodeName, SocketAddr)]>,
    pub(super) ports: &'a [Port],
}

pub(super) fn read_all(
    problems: &mut Problems,
    sections: Vec<Section<'_>>,
    around: &Surroundings<'_>,
) -> Option<Vec<Vipa>> {
    let count = sections.len();
    let mut vipas: Vec<Vipa> = Vec::new();
    for section in sections {
        let span = section.span.clone();
        let Some(vipa) = read(problems, section, around) else { continue };
        if vipas.iter().any(|other| other.address == vipa.address) {
            problems.add::<()>(span, format!("VIPA {} has a [[vipa]] already; keep one", vipa.address));
        }
        vipas.push(vipa);
    }
    (vipas.len() == count).then_some(vipas)
}

fn read(problems: &mut Problems, mut section: Section<'_>, around: &Surroundings<'_>) -> Option<Vipa> {
    let address = section.required(problems, "address", "address = \"192.0.2.10\"", ipv4);
    let ranks = section.required(problems, "ranks", "ranks = { r1 = 200, r2 = 100 }", |problems, value| {
        ranks(problems, value, around)
    });
    let activate = section.or(problems, "activate", true, flag);
    let takeback = section.or(problems, "takeback", Takeback::Immediate, choice(&[("immediate", Takeback::Immediate)]));
    let service_sections = section.tables(problems, "service", "vipa.service");
    section.finish(problems);

    let count = service_sections.len();
    let mut services: Vec<Service> = Vec::new();
    for service_section in service_sections {
        let span = service_section.span.clone();
        let Some(service) = read_service(problems, service_section) else { continue };
        let overlaps = |other: &&Service| {
            let (a, b) = (other.ports, service.ports);
            other.protocol == service.protocol && a.first <= b.last && b.first <= a.last
        };
        if let Some(other) = services.iter().find(overlaps) {
            let PortRange { first, last } = other.ports;
            problems.add::<()>(span, format!("another service of this VIPA has ports {first}-{last}; keep them apart"));
        }
        services.push(service);
    }

    let (address, ranks) = (address?, ranks?.value);
    if is_own(around.ports, address.value) {
        problems.add::<()>(address.span.clone(), "this is a port's own address; a VIPA needs one of its own");
    }
    if services.iter().any(|service| service.candidates.contains(&address.value)) {
        problems.add::<()>(address.span.clone(), "the VIPA is among its candidates; name the targets' own addresses");
    }
    if count == 0 && ranks.first().is_some_and(|(highest, _)| Some(highest) == around.me) {
        let message = "this node has the highest rank, so it must list the services: add [[vipa.service]]";
        problems.add::<()>(section.span, message);
    }
    let services = (services.len() == count).then_some(services)?;
    Some(Vipa {
        address: address.value,
        ranks,
        activate: activate?.value,
        takeback: takeback?.value,
        services: (count > 0).then_some(services),
    })
}

fn ranks(problems: &mut Problems, value: &Value<'_>, around: &Surroundings<'_>) -> Option<Vec<(NodeName, Rank)>> {
    let mut section = Section::of("vipa.ranks", Some(value), problems);
    if !section.is_present() {
        return None;
    }
    let mut ranks: Vec<(NodeName, Rank)> = Vec::new();
    let mut complete = true;
    for (key, span, value) in section.entries() {
        let known = |routers: &[(NodeName, SocketAddr)]| routers.iter().any(|(router, _)| router.as_str() == key);
        let name = key.parse::<NodeName>().ok().filter(|_| around.routers.is_none_or(known));
        let rank = number(1..=254, "a rank")(problems, value).map(Rank);
        let (name, rank) = match (name, rank) {
            (Some(name), Some(rank)) => (name, rank),
            (name, _) => {
                if name.is_none() {
                    problems.add::<()>(span, format!("{key} is not in [cluster.routers]; only routers have ranks"));
                }
                complete = false;
                continue;
            }
        };
        if let Some((other, Rank(rank))) = ranks.iter().find(|(_, other)| *other == rank) {
            let message = format!("{other} has rank {rank} too; the order of succession needs them different");
            complete = false;
            problems.add::<()>(value.span(), message);
        }
        ranks.push((name, rank));
    }
    if let Some(me) = around.me.filter(|me| complete && !ranks.iter().any(|(name, _)| name == *me)) {
        return problems
            .add(value.span(), format!("this node needs a rank here: add {me} = 100, or take the [[vipa]] out"));
    }
    ranks.sort_by_key(|(_, rank)| std::cmp::Reverse(*rank));
    complete.then_some(ranks)
}

fn read_service(problems: &mut Problems, mut section: Section<'_>) -> Option<Service> {
    let protocol =
        section.or(problems, "protocol", Protocol::Tcp, choice(&[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)]));
    let ports = section.required(problems, "ports", "ports = 80", ports);
    let candidates = section.required(problems, "candidates", "candidates = [\"10.0.0.31\"]", candidates);
    let balances = [("maglev", Balance::Maglev), ("round-robin", Balance::RoundRobin)];
    let balance = section.or(problems, "balance", Balance::Maglev, choice(&balances));
    let orphan_words = [("reset", Orphans::Reset), ("drop", Orphans::Drop), ("balance", Orphans::Balance)];
    let orphans = section.or(problems, "orphans", Orphans::Reset, choice(&orphan_words));
    let forwarding = section.or(problems, "forwarding", Forwarding::Direct, choice(&[("direct", Forwarding::Direct)]));
    section.finish(problems);
    if let (Some(protocol), Some(balance)) = (&protocol, &balance)
        && (protocol.value, balance.value) == (Protocol::Udp, Balance::RoundRobin)
    {
        let message = "udp needs \"maglev\": no target reports its clients, and only maglev finds each one's again";
        problems.add::<()>(balance.span.clone(), message);
    }
    Some(Service {
        protocol: protocol?.value,
        ports: ports?.value,
        forwarding: forwarding?.value,
        balance: balance?.value,
        orphans: orphans?.value,
        candidates: candidates?.value,
    })
}

/// `80`, `"80"`, `"8000-8099"` or `"all"`.
fn ports(problems: &mut Problems, value: &Value<'_>) -> Option<PortRange> {
    let Some(text) = value.get_ref().as_str() else {
        return number(1..=u16::MAX, "a port")(problems, value).map(PortRange::one);
    };
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let range = match text.split_once('-') {
        _ if text == "all" => Some(PortRange::ALL),
        None => port(text).map(PortRange::one),
        Some((first, last)) => port(first).zip(port(last)).map(|(first, last)| PortRange { first, last }),
    };
    let what = format!("ports are 80, \"8000-8099\" (the lower first) or \"all\", and not {text:?}");
    range.filter(|range| range.first <= range.last).or_else(|| problems.add(value.span(), what))
}

fn candidates(problems: &mut Problems, value: &Value<'_>) -> Option<Vec<IpAddr>> {
    let candidates = list(ipv4)(problems, value)?;
    if candidates.is_empty() {
        return problems.add(value.span(), "a service without candidates serves nobody: name at least one target");
    }
    Some(candidates)
}
