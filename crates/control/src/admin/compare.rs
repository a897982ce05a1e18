//! Where two routers' configurations for a VIPA differ (`vipactl diff`).

use std::{collections::BTreeMap, net::IpAddr};

use vipa_model::{NodeName, Rank, Service, printable};
use vipa_protocol::{
    Question, Reply,
    admin::{Diff, DiffRow, Peer, PeerAnswer},
    question::VipaSettings,
    text::MAX_SETTING,
};

use crate::admin::queries::QuerySender;

/// Asks each of `others` for its settings and compares them with `mine`. `refused`: those who are not listened to, and why.
pub(crate) async fn compare(
    asker: &QuerySender,
    vipa: IpAddr,
    mine: VipaSettings,
    (others, refused): (Vec<NodeName>, BTreeMap<NodeName, String>),
) -> Diff {
    let mut asked = Vec::new();
    for node in others {
        let asker = asker.clone();
        let name = node.clone();
        asked.push((node, tokio::spawn(async move { asker.ask(&name, Question::Settings { vipa }).await })));
    }
    let mut peers = Vec::new();
    for (node, answer) in asked {
        let answer = match answer.await.ok().flatten() {
            Some(Reply::Settings(theirs)) => PeerAnswer::Differs(rows(&mine, &theirs)),
            Some(Reply::Unknown | Reply::Holds(_) | Reply::Events(_) | Reply::SettingsDigests(_)) => {
                PeerAnswer::NotConfigured
            }
            None => refused.get(&node).cloned().map_or(PeerAnswer::Silent, PeerAnswer::Refused),
        };
        peers.push(Peer { node, answer });
    }
    Diff { vipa, peers }
}

fn rows(mine: &VipaSettings, theirs: &VipaSettings) -> Vec<DiffRow> {
    let mut rows = Vec::new();
    let mut row = |what: &str, here: String, there: String| {
        if here != there {
            rows.push(DiffRow { what: what.into(), here, there });
        }
    };
    row("ranks", ranks(&mine.ranks), ranks(&theirs.ranks));
    for (name, here) in &mine.others {
        let there = theirs.others.iter().find(|(other, _)| other == name);
        // As the other's was made when it came.
        row(
            name,
            printable(here, MAX_SETTING),
            there.map_or_else(|| "not known to that release".into(), |(_, value)| value.clone()),
        );
    }
    match (&mine.services, &theirs.services) {
        (None, None) => {}
        (Some(here), Some(there)) => services(here, there, &mut row),
        (here, there) => {
            let whose = |services: &Option<Vec<Service>>| match services {
                Some(_) => "a list of its own".to_owned(),
                None => "what the owner distributes".to_owned(),
            };
            row("services", whose(here), whose(there));
        }
    }
    rows
}

fn services(here: &[Service], there: &[Service], row: &mut impl FnMut(&str, String, String)) {
    let key = |service: &Service| (service.protocol, service.ports);
    for service in here {
        let name = service_name(service);
        let Some(other) = there.iter().find(|other| key(other) == key(service)) else {
            row(&name, "served".into(), "not served".into());
            continue;
        };
        let list = |candidates: &[IpAddr]| {
            let mut sorted: Vec<_> = candidates.iter().map(ToString::to_string).collect();
            sorted.sort();
            sorted.join(" ")
        };
        row(&format!("{name} candidates"), list(&service.candidates), list(&other.candidates));
        for ((key, here), (_, there)) in service.settings().into_iter().zip(other.settings()) {
            let shown = |text: String| if text.is_empty() { "not set".into() } else { text };
            row(&format!("{name} {key}"), shown(here), shown(there));
        }
    }
    for service in there.iter().filter(|service| !here.iter().any(|other| key(other) == key(service))) {
        row(&service_name(service), "not served".into(), "served".into());
    }
}

pub(crate) fn service_name(service: &Service) -> String {
    let protocol = service.protocol.name();
    let (first, last) = (service.ports.first, service.ports.last);
    if first == last { format!("{protocol}/{first}") } else { format!("{protocol}/{first}-{last}") }
}

fn ranks(ranks: &[(NodeName, Rank)]) -> String {
    let ranks: Vec<_> = ranks.iter().map(|(name, Rank(rank))| format!("{name} {rank}")).collect();
    ranks.join(", ")
}

#[cfg(test)]
mod tests {
    use vipa_model::{Balance, Delivery, Orphans, PortRange, Protocol, Sources};

    use super::*;

    fn web(candidates: &[&str]) -> Service {
        Service {
            protocol: Protocol::Tcp,
            ports: PortRange::one(80),
            delivery: Delivery::default(),
            balance: Balance::Maglev,
            choice: vipa_model::Choice::default(),
            orphans: Orphans::Reset,
            sources: Sources::default(),
            candidates: candidates.iter().map(|address| address.parse().unwrap()).collect(),
        }
    }

    fn settings(services: Option<Vec<Service>>, lease: &str) -> VipaSettings {
        VipaSettings {
            ranks: vec![("r1".parse().unwrap(), Rank(200))],
            services,
            others: vec![("cluster.lease_ms".into(), lease.into())],
        }
    }

    fn said(mine: &VipaSettings, theirs: &VipaSettings) -> Vec<String> {
        let said = |row: DiffRow| format!("{}: {} / {}", row.what, row.here, row.there);
        rows(mine, theirs).into_iter().map(said).collect()
    }

    #[test]
    fn only_what_differs_is_shown() {
        let mine = settings(Some(vec![web(&["10.0.0.1", "10.0.0.2"])]), "100");
        assert!(said(&mine, &mine).is_empty());
        let reordered = settings(Some(vec![web(&["10.0.0.2", "10.0.0.1"])]), "100");
        assert!(said(&mine, &reordered).is_empty(), "the order of candidates chooses nobody");
        let theirs = settings(Some(vec![web(&["10.0.0.1", "10.0.0.3"])]), "200");
        let expected = ["cluster.lease_ms: 100 / 200", "tcp/80 candidates: 10.0.0.1 10.0.0.2 / 10.0.0.1 10.0.0.3"];
        assert_eq!(said(&mine, &theirs), expected);
    }

    #[test]
    fn a_router_that_uses_the_owners_list_says_so() {
        let said = said(&settings(Some(vec![web(&["10.0.0.1"])]), "100"), &settings(None, "100"));
        assert_eq!(said, ["services: a list of its own / what the owner distributes"]);
    }
}
