//! `[[vipa]]` and `[[vipa.service]]`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    Port, Takeback, Vipa,
    check::{self, Asked},
    problems::Problems,
    read::{At, Section, Value, choice, flag, host, list, number, prefix, text},
    sections::is_own,
};
use crate::{
    Agentless, Balance, Choice, Delivery, Forwarding, MAX_PATHS, MAX_VIPAS, NodeName, Orphans, PortRange, Protocol,
    Rank, Service, Sources, Unserved, Weights,
};

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
    let mut paths = BTreeSet::new();
    for (index, section) in sections.into_iter().enumerate() {
        let span = section.span.clone();
        if index == MAX_VIPAS {
            let message = format!("a router has at most {MAX_VIPAS} VIPAs, and this is one more of {count}");
            problems.add::<()>(span.clone(), message);
        }
        let Some(vipa) = read(problems, section, around) else { continue };
        if vipas.iter().any(|other| other.address == vipa.address) {
            problems.add::<()>(span.clone(), format!("VIPA {} has a [[vipa]] already; keep one", vipa.address));
        }
        if let Some(other) = vipas.iter().find(|other| other.group.is_some() && other.group == vipa.group)
            && (&other.ranks, other.takeback, other.takeback_delay) != (&vipa.ranks, vipa.takeback, vipa.takeback_delay)
        {
            let message = format!(
                "VIPA {} is of the same group and moves with it: give both the same ranks, takeback and takeback_delay_s",
                other.address
            );
            problems.add::<()>(span.clone(), message);
        }
        let had_room = paths.len() <= MAX_PATHS;
        paths.extend(vipa.services.iter().flatten().flat_map(paths_of));
        if had_room && paths.len() > MAX_PATHS {
            let message = format!(
                "a router has at most {MAX_PATHS} paths, each a candidate and how it is reached, and with this VIPA there are \
                 more: list fewer candidates, or reach each in one way for all services"
            );
            problems.add::<()>(span, message);
        }
        vipas.push(vipa);
    }
    (vipas.len() == count).then_some(vipas)
}

/// What tells one path from another: the candidate, and all that decides how packets get there.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct PathKey {
    candidate: IpAddr,
    forwarding: Forwarding,
    target_port: Option<u16>,
    path_mtu: bool,
    clamp_mss: bool,
}

fn paths_of(service: &Service) -> Vec<PathKey> {
    let delivery = &service.delivery;
    let path = |&candidate: &IpAddr| {
        let forwarding = delivery.forwarding_to(candidate);
        let target_port = delivery.target_port.filter(|_| forwarding == Forwarding::Nat);
        PathKey { candidate, forwarding, target_port, path_mtu: delivery.path_mtu, clamp_mss: delivery.clamp_mss }
    };
    service.candidates.iter().map(path).collect()
}

fn read(problems: &mut Problems, mut section: Section<'_>, around: &Surroundings<'_>) -> Option<Vipa> {
    let address = section.required(problems, "address", "address = \"192.0.2.10\"", host);
    let ranks = section.required(problems, "ranks", "ranks = { r1 = 200, r2 = 100 }", |problems, value| {
        ranks(problems, value, around)
    });
    let activate = section.or(problems, "activate", true, flag);
    let takebacks = Takeback::ALL.map(|takeback| (takeback.name(), takeback));
    let takeback = section.or(problems, "takeback", Takeback::Immediate, choice(&takebacks));
    let delay = section.or(problems, "takeback_delay_s", 0_u32, number(0..=86_400, "a number of seconds"));
    let group = section.optional(problems, "group", text);
    let new_per_second = section.optional(problems, "new_per_second", number(1..=u32::MAX, "a number of connections"));
    let unserved_words = [Unserved::Drop, Unserved::Refuse].map(|unserved| (unserved.name(), unserved));
    let unserved = section.or(problems, "unserved", Unserved::default(), choice(&unserved_words));
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
    for service in &services {
        check_families(problems, &address, service);
    }
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
        takeback_delay: Duration::from_secs(delay?.value.into()),
        group: group?.map(|group| group.value),
        new_per_second: new_per_second?.map(|limit| limit.value),
        unserved: unserved?.value,
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
    let balances = Balance::ALL.map(|balance| (balance.name(), balance));
    let balance = section.or(problems, "balance", Balance::Maglev, choice(&balances));
    let weights = section.or(
        problems,
        "weights",
        Weights::Static,
        choice(&Weights::ALL.map(|weights| (weights.name(), weights))),
    );
    let orphan_words = Orphans::ALL.map(|orphans| (orphans.name(), orphans));
    let orphans = section.or(problems, "orphans", Orphans::Reset, choice(&orphan_words));
    let forwarding = section.or(problems, "forwarding", Forwarding::Direct, forwarding);
    let target_port = section.optional(problems, "target_port", number(1..=u16::MAX, "a port"));
    let path_mtu = section.or(problems, "path_mtu", true, flag);
    let clamp_mss = section.or(problems, "clamp_mss", true, flag);
    let allow = section.or(problems, "allow", Vec::new(), list(prefix));
    let deny = section.or(problems, "deny", Vec::new(), list(prefix));
    let new_per_second =
        section.optional(problems, "new_per_second_per_source", number(1..=u32::MAX, "a number of connections"));
    section.finish(problems);
    let (candidates_span, candidates) = candidates.map(|candidates| (candidates.span, candidates.value))?;
    let Candidates { addresses: candidates, ways: exceptions, weights: own_weights, asked } = candidates;
    let (forwarding, target_port, ports) = (forwarding?.value, target_port?, ports?);
    if let Some(target_port) = &target_port {
        let nat = forwarding == Forwarding::Nat || exceptions.iter().any(|(_, how)| *how == Forwarding::Nat);
        if !nat {
            let message = "only forwarding = \"nat\" changes the port; the other ways keep it";
            problems.add::<()>(target_port.span.clone(), message);
        } else if ports.value.first != ports.value.last {
            let message =
                "one target port for several ports cannot be told apart on the way back: give the service one port";
            problems.add::<()>(target_port.span.clone(), message);
        }
    }
    if let (Some(protocol), Some(balance)) = (&protocol, &balance)
        && protocol.value == Protocol::Udp
        && balance.value != Balance::Maglev
    {
        let message = "udp needs \"maglev\": no target reports its clients, and only maglev finds each one's again";
        problems.add::<()>(balance.span.clone(), message);
    }
    let own_port = match &target_port {
        Some(port) => Some(port.value),
        None => (ports.value.first == ports.value.last).then_some(ports.value.first),
    };
    let mut agentless = Vec::new();
    for (address, asked) in asked {
        let pace = asked.pace;
        match asked.question(own_port) {
            Some(question) => agentless.push(Agentless { address, question, pace }),
            None => {
                let message = format!("which port of {address} is asked? Name it: check = {{ port = 80 }}, or ping it");
                problems.add::<()>(candidates_span.clone(), message);
            }
        }
    }
    let delivery = Delivery {
        forwarding,
        exceptions,
        target_port: target_port.map(|port| port.value),
        path_mtu: path_mtu?.value,
        clamp_mss: clamp_mss?.value,
    };
    let sources =
        Sources { allow: allow?.value, deny: deny?.value, new_per_second: new_per_second?.map(|limit| limit.value) };
    Some(Service {
        protocol: protocol?.value,
        ports: ports.value,
        delivery,
        balance: balance?.value,
        choice: Choice { weights: weights?.value, exceptions: own_weights, agentless },
        orphans: orphans?.value,
        sources,
        candidates,
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

fn forwarding(problems: &mut Problems, value: &Value<'_>) -> Option<Forwarding> {
    choice(&Forwarding::ALL.map(|forwarding| (forwarding.name(), forwarding)))(problems, value)
}

/// A list of candidates, and what is said of single ones.
struct Candidates {
    addresses: Vec<IpAddr>,
    ways: Vec<(IpAddr, Forwarding)>,
    weights: Vec<(IpAddr, u16)>,
    asked: Vec<(IpAddr, Asked)>,
}

/// Each an address, or `{ address = "10.0.0.31", forwarding = "ipip", weight = 2 }`.
fn candidates(problems: &mut Problems, value: &Value<'_>) -> Option<Candidates> {
    let candidates = list(candidate)(problems, value)?;
    if candidates.is_empty() {
        return problems.add(value.span(), "a service without candidates serves nobody: name at least one target");
    }
    Some(Candidates {
        addresses: candidates.iter().map(|candidate| candidate.address).collect(),
        ways: candidates.iter().filter_map(|candidate| Some((candidate.address, candidate.forwarding?))).collect(),
        asked: candidates.iter().filter_map(|candidate| Some((candidate.address, candidate.asked.clone()?))).collect(),
        weights: candidates.iter().filter_map(|candidate| Some((candidate.address, candidate.weight?))).collect(),
    })
}

struct Candidate {
    address: IpAddr,
    forwarding: Option<Forwarding>,
    weight: Option<u16>,
    asked: Option<Asked>,
}

/// Who is in a list is in it once, whichever way it is reached.
impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

impl std::fmt::Display for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)
    }
}

fn candidate(problems: &mut Problems, value: &Value<'_>) -> Option<Candidate> {
    if value.get_ref().as_table().is_none() {
        return Some(Candidate { address: host(problems, value)?, forwarding: None, weight: None, asked: None });
    }
    let mut section = Section::of("vipa.service.candidates", Some(value), problems);
    let address = section.required(problems, "address", "address = \"10.0.0.31\"", host);
    let way = section.optional(problems, "forwarding", forwarding);
    let weight = section.optional(problems, "weight", number(1..=Choice::MAX_WEIGHT, "a weight"));
    let agent = section.or(problems, "agent", true, flag);
    let check = section.get(problems, "check");
    let asked = match agent.as_ref().is_none_or(|agent| agent.value) {
        true => {
            if let Some(check) = check {
                let message =
                    "only a candidate with agent = false is asked by the routers; an agent has [[agent.check]]";
                problems.add::<()>(check.span(), message);
            }
            None
        }
        false => Some(check::read_question(problems, check)?),
    };
    section.finish(problems);
    Some(Candidate {
        address: address?.value,
        forwarding: way?.map(|way| way.value),
        weight: weight?.map(|weight| weight.value),
        asked,
    })
}

/// Direct return rewrites the MAC alone, whichever address it was found by, and a tunnel carries either family; only a
/// translation needs both ends of one.
fn check_families(problems: &mut Problems, vipa: &At<IpAddr>, service: &Service) {
    for candidate in &service.candidates {
        let forwarding = service.delivery.forwarding_to(*candidate);
        if forwarding == Forwarding::Nat && candidate.is_ipv4() != vipa.value.is_ipv4() {
            let message = format!(
                "candidate {candidate} is of the other family, into which \"nat\" does not translate; \"direct\" and the tunnels reach it"
            );
            problems.add::<()>(vipa.span.clone(), message);
        }
    }
}
