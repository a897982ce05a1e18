//! What differs between two configurations of a node, and what of it a running router can take up.

use std::{fmt::Debug, net::IpAddr};

use super::{
    AdminAccess, Announce, Api, ApiListen, ApiRoles, ApiTls, Autonomics, Cluster, Config, Dpdk, Hooks, Metrics, Node,
    Pki, Table, Vipa, Workers,
};
use crate::{NodeName, PortRange, Protocol, Rank, Service, Voters};

/// One difference, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key, or the VIPA and what of it.
    pub what: String,
    pub from: String,
    pub to: String,
    pub effect: Effect,
}

/// What it takes for a change to have effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A running router takes it up.
    Live,
    Restart,
}

/// Said of what is not there.
const NONE: &str = "none";

impl Config {
    /// Every difference from this configuration to `next`, in the order of the file.
    #[must_use]
    pub fn changes(&self, next: &Self) -> Vec<Change> {
        let mut list = List::default();
        let Self {
            node,
            pki,
            cluster,
            dpdk,
            ports,
            workers,
            table,
            announce,
            hooks,
            autonomics,
            metrics,
            vipas,
            api,
            agent,
        } = self;
        list.node(node, &next.node);
        list.pki(pki, &next.pki);
        list.cluster(cluster, &next.cluster);
        list.dpdk(dpdk, &next.dpdk);
        for (place, port) in ports.iter().enumerate() {
            let same = next.ports.get(place);
            list.restart(
                &format!("port {}", port.name),
                Some(port).filter(|_| same != Some(port)),
                same.filter(|other| *other != port),
            );
        }
        for port in next.ports.iter().skip(ports.len()) {
            list.restart(&format!("port {}", port.name), None, Some(port));
        }
        list.workers(workers, &next.workers);
        list.table(table, &next.table);
        list.announce(announce, &next.announce);
        list.hooks(hooks, &next.hooks);
        list.autonomics(autonomics, &next.autonomics);
        let Metrics { listen } = metrics;
        list.restart("metrics.listen", listen, &next.metrics.listen);
        list.vipas(vipas, &next.vipas);
        list.api(api.as_ref(), next.api.as_ref());
        list.restart("agent", agent.as_ref(), next.agent.as_ref());
        list.0
    }

    /// This configuration with everything of `next` that a running router can take up.
    #[must_use]
    pub fn with_live_part_of(&self, next: &Self) -> Self {
        let Announce { repeat, refresh, interface: _, table: _ } = next.announce.clone();
        let table =
            Table { audit: next.table.audit, reserve_percent: next.table.reserve_percent, ..self.table.clone() };
        let live = may_follow(&self.cluster.voters, &next.cluster.voters);
        let voters = if live { &next.cluster.voters } else { &self.cluster.voters };
        let cluster = Cluster { voters: voters.clone(), ..self.cluster.clone() };
        let Pki { revoked_nodes, revoked_serials, .. } = next.pki.clone();
        let roles = |api: &Api| next.api.as_ref().map_or_else(|| api.roles.clone(), |next| next.roles.clone());
        Self {
            api: self.api.as_ref().map(|api| Api { roles: roles(api), ..api.clone() }),
            pki: Pki { revoked_nodes, revoked_serials, ..self.pki.clone() },
            table,
            announce: Announce { repeat, refresh, ..self.announce.clone() },
            hooks: next.hooks.clone(),
            autonomics: next.autonomics.clone(),
            cluster,
            vipas: if self.has_room_for(&next.vipas) { next.vipas.clone() } else { self.vipas.clone() },
            ..self.clone()
        }
    }

    /// The connection table of a family without VIPAs is made small at the start.
    fn has_room_for(&self, vipas: &[Vipa]) -> bool {
        vipas.iter().all(|vipa| self.vipas.is_empty() || has_family(&self.vipas, vipa.address))
    }
}

/// With a quorum and without one a cluster is another.
fn may_follow(voters: &Voters, next: &Voters) -> bool {
    !voters.are_known() || voters.names.is_empty() == next.names.is_empty()
}

fn has_family(vipas: &[Vipa], address: IpAddr) -> bool {
    vipas.iter().any(|vipa| vipa.address.is_ipv4() == address.is_ipv4())
}

#[derive(Default)]
struct List(Vec<Change>);

impl List {
    fn add<T: Debug + PartialEq + ?Sized>(&mut self, what: &str, from: &T, to: &T, effect: Effect) {
        if from != to {
            self.say(what, shown(from), shown(to), effect);
        }
    }

    fn say(&mut self, what: &str, from: String, to: String, effect: Effect) {
        self.0.push(Change { what: what.into(), from, to, effect });
    }

    #[expect(clippy::needless_pass_by_value, reason = "what is compared is a reference nearly always")]
    fn restart<T: Debug + PartialEq>(&mut self, what: &str, from: T, to: T) {
        self.add(what, &from, &to, Effect::Restart);
    }

    #[expect(clippy::needless_pass_by_value, reason = "what is compared is a reference nearly always")]
    fn live<T: Debug + PartialEq>(&mut self, what: &str, from: T, to: T) {
        self.add(what, &from, &to, Effect::Live);
    }

    fn node(&mut self, old: &Node, new: &Node) {
        let Node { name, listen, state_dir, admin, access: AdminAccess { group, read_group } } = old;
        self.restart("node.name", name.as_str(), new.name.as_str());
        self.restart("node.listen", listen, &new.listen);
        self.restart("node.state_dir", state_dir, &new.state_dir);
        self.restart("node.admin", admin, &new.admin);
        self.restart("admin.group", group, &new.access.group);
        self.restart("admin.read_group", read_group, &new.access.read_group);
    }

    fn pki(&mut self, old: &Pki, new: &Pki) {
        let Pki { ca, certificate, key, revoked_nodes, revoked_serials } = old;
        self.restart("pki.ca", ca, &new.ca);
        self.restart("pki.certificate", certificate, &new.certificate);
        self.restart("pki.key", key, &new.key);
        self.add("pki.revoked_nodes", &names(revoked_nodes), &names(&new.revoked_nodes), Effect::Live);
        let serials = |serials: &[String]| Words(serials.to_vec());
        self.live("pki.revoked_serials", serials(revoked_serials), serials(&new.revoked_serials));
    }

    fn cluster(&mut self, old: &Cluster, new: &Cluster) {
        let Cluster { name, key, voters, lease, beat, drift_percent, rebuild_deadline, grace, routers } = old;
        self.restart("cluster.name", name, &new.name);
        if *key != new.key {
            // A secret is not shown.
            self.say("cluster.key", "as it was".into(), "another".into(), Effect::Restart);
        }
        let effect = if may_follow(voters, &new.voters) { Effect::Live } else { Effect::Restart };
        self.add("cluster.voters", &names(&voters.names), &names(&new.voters.names), effect);
        self.add("cluster.voters_version", &voters.version, &new.voters.version, effect);
        self.restart("cluster.lease_ms", lease, &new.lease);
        self.restart("cluster.beat_ms", beat, &new.beat);
        self.restart("cluster.drift_percent", drift_percent, &new.drift_percent);
        self.restart("cluster.rebuild_deadline_ms", rebuild_deadline, &new.rebuild_deadline);
        self.restart("cluster.grace_ms", grace, &new.grace);
        let listed = |routers: &[(NodeName, std::net::SocketAddr)]| -> Vec<String> {
            routers.iter().map(|(name, address)| format!("{name} {address}")).collect()
        };
        self.restart("cluster.routers", Words(listed(routers)), Words(listed(&new.routers)));
    }

    fn dpdk(&mut self, old: &Dpdk, new: &Dpdk) {
        let Dpdk { memory, memory_mb, file_prefix, options } = old;
        self.restart("dpdk.memory", memory, &new.memory);
        self.restart("dpdk.memory_mb", memory_mb, &new.memory_mb);
        self.restart("dpdk.file_prefix", file_prefix, &new.file_prefix);
        self.restart("dpdk.options", options, &new.options);
    }

    fn workers(&mut self, old: &Workers, new: &Workers) {
        let Workers { cores, idle, idle_max } = old;
        self.restart("workers.cores", cores, &new.cores);
        self.restart("workers.idle", idle, &new.idle);
        self.restart("workers.idle_max_us", idle_max, &new.idle_max);
    }

    fn table(&mut self, old: &Table, new: &Table) {
        let Table { connections, half_open, established, closing, udp, audit, reserve_percent } = old;
        self.restart("table.connections", connections, &new.connections);
        self.restart("table.half_open_s", half_open, &new.half_open);
        self.restart("table.established_s", established, &new.established);
        self.restart("table.closing_s", closing, &new.closing);
        self.restart("table.udp_s", udp, &new.udp);
        self.live("table.audit_s", audit, &new.audit);
        self.live("table.reserve_percent", reserve_percent, &new.reserve_percent);
    }

    fn announce(&mut self, old: &Announce, new: &Announce) {
        let Announce { repeat, refresh, interface, table } = old;
        self.live("announce.repeat_ms", repeat, &new.repeat);
        self.live("announce.refresh_s", refresh, &new.refresh);
        self.restart("announce.interface", interface, &new.interface);
        self.restart("announce.table", table, &new.table);
    }

    fn hooks(&mut self, old: &Hooks, new: &Hooks) {
        let Hooks { owned, released, timeout } = old;
        self.live("hooks.owned", owned, &new.owned);
        self.live("hooks.released", released, &new.released);
        self.live("hooks.timeout_ms", timeout, &new.timeout);
    }

    fn autonomics(&mut self, old: &Autonomics, new: &Autonomics) {
        let Autonomics { unfit_after, fit_after, stall } = old;
        self.live("autonomics.unfit_after_ms", unfit_after, &new.unfit_after);
        self.live("autonomics.fit_after_ms", fit_after, &new.fit_after);
        self.live("autonomics.stall_ms", stall, &new.stall);
    }

    fn api(&mut self, old: Option<&Api>, new: Option<&Api>) {
        let (Some(old), Some(new)) = (old, new) else {
            let shown = |api: Option<&Api>| api.map_or_else(|| NONE.into(), |api| listen(&api.listen));
            if old.is_some() || new.is_some() {
                self.say("api", shown(old), shown(new), Effect::Restart);
            }
            return;
        };
        let Api { listen: place, roles, page } = old;
        if *place != new.listen {
            self.say("api.listen", listen(place), listen(&new.listen), Effect::Restart);
        }
        self.restart("api.page", page, &new.page);
        let ApiRoles { read, operate, read_group, operate_group } = roles;
        self.live("api.read", Words(read.clone()), Words(new.roles.read.clone()));
        self.live("api.operate", Words(operate.clone()), Words(new.roles.operate.clone()));
        self.live("api.read_group", read_group, &new.roles.read_group);
        self.live("api.operate_group", operate_group, &new.roles.operate_group);
    }

    fn vipas(&mut self, old: &[Vipa], new: &[Vipa]) {
        for vipa in old {
            match new.iter().find(|other| other.address == vipa.address) {
                Some(next) => self.vipa(vipa, next),
                None => self.say(&format!("vipa {}", vipa.address), ranks(&vipa.ranks), NONE.into(), Effect::Live),
            }
        }
        for vipa in new.iter().filter(|vipa| !old.iter().any(|other| other.address == vipa.address)) {
            let effect = if old.is_empty() || has_family(old, vipa.address) { Effect::Live } else { Effect::Restart };
            self.say(&format!("vipa {}", vipa.address), NONE.into(), ranks(&vipa.ranks), effect);
        }
    }

    fn vipa(&mut self, old: &Vipa, new: &Vipa) {
        let Vipa {
            address,
            ranks: old_ranks,
            activate,
            takeback,
            takeback_delay,
            group,
            new_per_second,
            unserved,
            services,
        } = old;
        let of = |what: &str| format!("vipa {address}: {what}");
        if *old_ranks != new.ranks {
            self.say(&of("ranks"), ranks(old_ranks), ranks(&new.ranks), Effect::Live);
        }
        self.live(&of("activate"), activate, &new.activate);
        self.live(&of("takeback"), takeback.name(), new.takeback.name());
        self.live(&of("takeback_delay_s"), takeback_delay, &new.takeback_delay);
        self.live(&of("group"), group, &new.group);
        self.live(&of("new_per_second"), new_per_second, &new.new_per_second);
        self.live(&of("unserved"), unserved.name(), new.unserved.name());
        let inherits = |services: &Option<Vec<Service>>| if services.is_some() { "its own" } else { "the owner's" };
        self.live(
            &of("list of services"),
            Words(vec![inherits(services).into()]),
            Words(vec![inherits(&new.services).into()]),
        );
        let (old_list, new_list) =
            (services.as_deref().unwrap_or_default(), new.services.as_deref().unwrap_or_default());
        let key = |service: &Service| (service.protocol, service.ports);
        for service in old_list {
            let what = of(&service_name(service.protocol, service.ports));
            match new_list.iter().find(|other| key(other) == key(service)) {
                Some(next) => self.service(&what, service, next),
                None => self.say(&what, addresses(&service.candidates), NONE.into(), Effect::Live),
            }
        }
        for service in new_list.iter().filter(|service| !old_list.iter().any(|other| key(other) == key(service))) {
            let what = of(&service_name(service.protocol, service.ports));
            self.say(&what, NONE.into(), addresses(&service.candidates), Effect::Live);
        }
    }

    fn service(&mut self, what: &str, old: &Service, new: &Service) {
        let candidates = &old.candidates;
        if *candidates != new.candidates {
            let gone: Vec<_> = candidates.iter().filter(|address| !new.candidates.contains(address)).copied().collect();
            let come: Vec<_> = new.candidates.iter().filter(|address| !candidates.contains(address)).copied().collect();
            // A new order alone is a change, if a small one.
            let (from, to) = match (gone.is_empty(), come.is_empty()) {
                (true, true) => (addresses(candidates), addresses(&new.candidates)),
                (false, true) => (addresses(&gone), "taken out".into()),
                (true, false) => ("not there".into(), addresses(&come)),
                (false, false) => (addresses(&gone), addresses(&come)),
            };
            self.say(&format!("{what} candidates"), from, to, Effect::Live);
        }
        for ((key, from), (_, to)) in old.settings().into_iter().zip(new.settings()) {
            if from != to {
                let shown = |text: String| if text.is_empty() { NONE.into() } else { text };
                self.say(&format!("{what} {key}"), shown(from), shown(to), Effect::Live);
            }
        }
    }
}

/// A list that is shown as its words.
#[derive(PartialEq)]
struct Words(Vec<String>);

impl Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// As the configuration has it, and the files where there are some.
fn listen(listen: &ApiListen) -> String {
    match listen {
        ApiListen::Unix(path) => format!("unix:{}", path.display()),
        ApiListen::Loopback(address) => format!("{address}, tls none"),
        ApiListen::Tls(ApiTls { address, certificate, key, authority }) => {
            format!("{address}, {}, {}, {}", certificate.display(), key.display(), authority.display())
        }
    }
}

fn names(nodes: &[NodeName]) -> Words {
    Words(nodes.iter().map(ToString::to_string).collect())
}

fn ranks(ranks: &[(NodeName, Rank)]) -> String {
    let ranks: Vec<_> = ranks.iter().map(|(name, Rank(rank))| format!("{name} {rank}")).collect();
    ranks.join(", ")
}

fn addresses(addresses: &[IpAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(", ")
}

fn service_name(protocol: Protocol, ports: PortRange) -> String {
    format!("{}/{ports}", protocol.name())
}

/// As its `Debug` says, without the wrapping of what may be missing.
fn shown<T: Debug + ?Sized>(value: &T) -> String {
    let text = format!("{value:?}");
    match text.strip_prefix("Some(").and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) => inner.into(),
        None if text == "None" => NONE.into(),
        None => text,
    }
}

#[cfg(test)]
mod tests;
