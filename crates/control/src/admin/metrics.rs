//! What Prometheus is told: the facts of a scrape, and what is counted for scrapes alone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use tokio::sync::{mpsc, oneshot, watch};
use vipa_cluster::VipaStatus;
use vipa_handoff::{Count, Fate};
use vipa_metrics::{Histogram, Label, MAX_SERIES, MetricsServer, Snapshot, SnapshotRequest, catalogue};
use vipa_model::{Moment, NodeName, Stance, VipaId, config::Config};
use vipa_protocol::{
    Eligibility, OwnershipCause, TakeoverReport, Trigger,
    admin::{Answer, PeerAnswer},
    load::FULL_HEADROOM,
};
use vipa_transport::CertificateExpiry;

use crate::{
    admin::{hardware, status},
    control::{Control, vipa_id},
};

/// Between two questions to other routers how they are configured, each about one VIPA.
const COMPARE: Duration = Duration::from_secs(2);

/// What is served, and what only scrapes want to know.
pub(crate) struct Metrics {
    /// `None`: nobody is told.
    server: Option<MetricsServer>,
    node: Label,
    cluster: Label,
    started_unix: f64,
    link_changes: BTreeMap<NodeName, u64>,
    takeovers: BTreeMap<(&'static str, &'static str), u64>,
    phases: [(&'static str, Histogram); 3],
    reload_succeeded: bool,
    configured_unix: f64,
    certificates: watch::Receiver<CertificateExpiry>,
    comparison: Comparison,
    traffic: Traffic,
}

/// What workers count by the number of a VIPA, summed up for the VIPA that it stands for. A number is given to another VIPA only after
/// half a minute without any packet, so that each look finds what came since the last one for what it stands for now.
#[derive(Default)]
struct Traffic {
    by_vipa: HashMap<VipaId, u64>,
    opened: BTreeMap<IpAddr, u64>,
}

impl Traffic {
    /// So many connections had been counted for a VIPA.
    fn advance_vipa(&mut self, id: VipaId, vipa: IpAddr, counted: u64) {
        let before = std::mem::replace(self.by_vipa.entry(id).or_default(), counted);
        *self.opened.entry(vipa).or_default() += counted.wrapping_sub(before);
    }
}

/// How other routers are configured, asked one VIPA at a time.
#[derive(Default)]
struct Comparison {
    due: Moment,
    turn: usize,
    answer: Option<oneshot::Receiver<Answer>>,
    /// Settings that differ, by router and VIPA.
    found: BTreeMap<NodeName, BTreeMap<IpAddr, usize>>,
}

impl Metrics {
    /// Listens where the configuration says; the other end is for the control loop. Call it within the runtime.
    pub(crate) fn start(config: &Config) -> Result<(Self, mpsc::Receiver<SnapshotRequest>), vipa_metrics::ServerError> {
        let (requests, scrapes) = mpsc::channel(1);
        let server = config.metrics.listen.as_ref().map(|listen| MetricsServer::start(listen, requests)).transpose()?;
        let (told, certificates) = watch::channel(CertificateExpiry::default());
        if server.is_some() {
            tokio::spawn(CertificateExpiry::watch(config.pki.clone(), told));
        }
        let phases = ["detect", "collect", "rebuild"].map(|phase| (phase, Histogram::new(Histogram::TAKEOVER)));
        let metrics = Self {
            server,
            node: Label::text(config.node.name.as_str()),
            cluster: Label::text(&config.cluster.name),
            started_unix: unix_seconds(),
            link_changes: BTreeMap::new(),
            takeovers: BTreeMap::new(),
            phases,
            reload_succeeded: true,
            configured_unix: unix_seconds(),
            certificates,
            comparison: Comparison::default(),
            traffic: Traffic::default(),
        };
        Ok((metrics, scrapes))
    }

    /// A link came up or went down.
    pub(crate) fn link_changed(&mut self, peer: &NodeName) {
        if let Some(changes) = self.link_changes.get_mut(peer) {
            *changes += 1;
        } else if self.link_changes.len() < MAX_SERIES {
            self.link_changes.insert(peer.clone(), 1);
        }
    }

    /// A takeover is complete.
    pub(crate) fn took_over(&mut self, report: &TakeoverReport) {
        let trigger = match report.trigger {
            Trigger::First => "first",
            Trigger::Failure => "failure",
            Trigger::Takeback => "takeback",
            Trigger::Handover => "handover",
        };
        *self.takeovers.entry((trigger, cause(report))).or_default() += 1;
        let spans = [report.detect_us, report.collect_us, report.rebuild_us];
        for ((_, histogram), us) in self.phases.iter_mut().zip(spans) {
            histogram.observe(Duration::from_micros(us).as_secs_f64());
        }
    }

    /// The configuration was read again, and taken up or not.
    pub(crate) fn reloaded(&mut self, succeeded: bool) {
        self.reload_succeeded = succeeded;
        if succeeded {
            self.configured_unix = unix_seconds();
        }
    }
}

/// A word for the cause; what else is known of it is in `vipactl events`.
fn cause(report: &TakeoverReport) -> &'static str {
    match report.cause {
        OwnershipCause::First => "first",
        OwnershipCause::Silent { .. } => "silent",
        OwnershipCause::Unfit { .. } => "unfit",
        OwnershipCause::HandedOver => "handed-over",
        OwnershipCause::Rank => "rank",
        OwnershipCause::Group => "group",
        OwnershipCause::Ordered { .. } => "ordered",
        OwnershipCause::Unknown => "unknown",
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Control {
    /// Answers a scrape.
    pub(crate) fn scraped(&mut self, reply: SnapshotRequest) {
        let began = self.clock.now();
        self.look_at_traffic();
        let mut snapshot = Snapshot::default();
        self.write_process(&mut snapshot);
        self.write_packets(&mut snapshot);
        self.write_cluster(&mut snapshot, began);
        self.write_targets(&mut snapshot);
        let took = self.clock.now().since(began);
        snapshot.set(catalogue::SNAPSHOT_TIME, [], took.as_secs_f64());
        snapshot.set(catalogue::SERIES_LEFT_OUT, [], snapshot.left_out() as f64);
        // Who asked may have given up.
        let _ = reply.send(snapshot);
    }

    fn look_at_traffic(&mut self) {
        let traffic = &mut self.metrics.traffic;
        for (index, vipa) in self.routing.vipas.iter().enumerate() {
            let id = vipa_id(index);
            traffic.advance_vipa(id, vipa.address, self.channel.opened(id));
        }
        let vipas: BTreeSet<IpAddr> = self.routing.vipas.iter().map(|vipa| vipa.address).collect();
        traffic.opened.retain(|vipa, _| vipas.contains(vipa));
    }

    fn write_process(&self, snapshot: &mut Snapshot) {
        let metrics = &self.metrics;
        snapshot.info(catalogue::BUILD, ["vipad".into(), Label::Name(env!("CARGO_PKG_VERSION"))]);
        snapshot.info(catalogue::NODE, [metrics.node.clone(), metrics.cluster.clone()]);
        snapshot.set(catalogue::START_TIME, [], metrics.started_unix);
        let CertificateExpiry { certificate, authority } = *metrics.certificates.borrow();
        for (name, expiry) in [("node", certificate), ("authority", authority)] {
            if let Some(seconds) = expiry {
                snapshot.set(catalogue::CERTIFICATE_EXPIRY, [name.into()], seconds as f64);
            }
        }
        snapshot.flag(catalogue::CONFIG_RELOAD_OK, [], metrics.reload_succeeded);
        snapshot.set(catalogue::CONFIG_RELOAD_TIME, [], metrics.configured_unix);
        for (node, found) in &metrics.comparison.found {
            let differences: usize = found.values().sum();
            snapshot.set(catalogue::CONFIG_DIFFERENCES, [Label::text(node.as_str())], differences as f64);
        }
    }

    fn write_packets(&self, snapshot: &mut Snapshot) {
        let mut names = BTreeSet::new();
        // A kernel's interface may be called as a port is; a series may be there once only.
        for port in hardware::ports(self).ports.into_iter().filter(|port| names.insert(port.name.clone())) {
            let name = Label::text(&port.name);
            if let Some(up) = port.up {
                snapshot.flag(catalogue::PORT_UP, [name.clone()], up);
            }
            snapshot.set(catalogue::PORT_BUFFERS_FREE, [name.clone()], port.buffers_free.into());
            snapshot.set(catalogue::PORT_BUFFERS, [name.clone()], port.buffers.into());
            let Some(counted) = port.statistics else { continue };
            for (family, count) in [
                (catalogue::PORT_RECEIVED_PACKETS, counted.received),
                (catalogue::PORT_RECEIVED_BYTES, counted.received_bytes),
                (catalogue::PORT_SENT_PACKETS, counted.sent),
                (catalogue::PORT_SENT_BYTES, counted.sent_bytes),
                (catalogue::PORT_MISSED, counted.missed),
                (catalogue::PORT_RECEIVE_ERRORS, counted.receive_errors),
                (catalogue::PORT_SEND_ERRORS, counted.send_errors),
                (catalogue::PORT_NO_BUFFER, counted.no_buffer),
            ] {
                snapshot.count(family, [name.clone()], count);
            }
        }
        for worker in hardware::workers(self).workers {
            let label = || [worker.worker.into()];
            snapshot.count_seconds(catalogue::WORKER_BUSY, label(), worker.busy_ns as f64 / 1e9);
            snapshot.count(catalogue::WORKER_TURNS, label(), worker.turns);
            snapshot.count(catalogue::WORKER_BUSY_TURNS, label(), worker.busy_turns);
            snapshot.count(catalogue::WORKER_RECEIVED, label(), worker.received);
        }
        let totals = self.channel.totals();
        for fate in Fate::all() {
            snapshot.count(catalogue::PACKET_FATES, [fate.name().into()], totals.fate(fate));
        }
        for count in Count::ALL {
            match count {
                // The only one that falls.
                Count::Holding => snapshot.set(catalogue::HELD_PACKETS, [], totals.count(count) as f64),
                _ => snapshot.count(catalogue::DATAPLANE_EVENTS, [count.name().into()], totals.count(count)),
            }
        }
        for (name, count) in status::control_counts(self) {
            snapshot.count(catalogue::CONTROL_EVENTS, [Label::text(&name)], count);
        }
        for (family, entries, capacity) in [
            ("ipv4", self.flows.ipv4.count().live(), self.flows.ipv4.capacity()),
            ("ipv6", self.flows.ipv6.count().live(), self.flows.ipv6.capacity()),
        ] {
            snapshot.set(catalogue::TABLE_ENTRIES, [family.into()], entries as f64);
            snapshot.set(catalogue::TABLE_CAPACITY, [family.into()], capacity as f64);
        }
        snapshot.count(catalogue::TABLE_EVICTIONS, [], self.flows.evictions());
    }

    fn write_cluster(&self, snapshot: &mut Snapshot, now: Moment) {
        let peers: BTreeSet<NodeName> = self.cluster.peers().into_iter().map(|peer| peer.node).collect();
        let voters = &self.cluster.voters().names;
        let is_present = |node: &&NodeName| **node == self.config.node.name || peers.contains(*node);
        snapshot.flag(catalogue::FIT, [], self.cluster.unfit().is_none());
        snapshot.set(catalogue::VOTERS, [], voters.len() as f64);
        snapshot.set(catalogue::VOTERS_LINKED, [], voters.iter().filter(is_present).count() as f64);
        for (voter, beats) in self.cluster.beats_unanswered(now) {
            snapshot.set(catalogue::BEATS_UNANSWERED, [Label::text(voter.as_str())], beats as f64);
        }
        snapshot.count(catalogue::LEASES_LOST, [], self.steadiness.leases.total());
        for ((trigger, cause), count) in &self.metrics.takeovers {
            snapshot.count(catalogue::TAKEOVERS, [(*trigger).into(), (*cause).into()], *count);
        }
        for (phase, histogram) in &self.metrics.phases {
            snapshot.observed(catalogue::TAKEOVER_TIME, [(*phase).into()], histogram);
        }
        for (name, count) in self.audits.named() {
            match name.as_str() {
                "audit.done" => snapshot.count(catalogue::AUDITS, [], count),
                "audit.differences" => snapshot.count(catalogue::AUDIT_DIFFERENCES, [], count),
                "audit.repaired" => snapshot.count(catalogue::AUDIT_REPAIRED, [], count),
                _ => {}
            }
        }
        let vipas = self.cluster.vipas();
        self.write_links(snapshot, &vipas, &peers);
        let flapping: BTreeSet<IpAddr> =
            self.steadiness.owners.flapping(now).into_iter().map(|(vipa, _)| vipa).collect();
        let conflicts: BTreeSet<IpAddr> = self.conflicts.all().map(|(vipa, _)| vipa).collect();
        let ranks: HashMap<IpAddr, _> = self.config.vipas.iter().map(|vipa| (vipa.address, &vipa.ranks)).collect();
        let mut margin: Option<Duration> = None;
        for vipa in &vipas {
            let label = || [vipa.vipa.into()];
            let is_owned = matches!(vipa.stance, Stance::Rebuilding | Stance::Active);
            snapshot.flag(catalogue::OWNED, label(), is_owned);
            snapshot.flag(catalogue::REBUILDING, label(), vipa.stance == Stance::Rebuilding);
            snapshot.flag(catalogue::FENCED, label(), is_owned && vipa.fenced);
            snapshot.flag(catalogue::OWNER_KNOWN, label(), vipa.owner.is_some());
            snapshot.set(catalogue::EPOCH, label(), vipa.epoch.0 as f64);
            let opened = self.metrics.traffic.opened.get(&vipa.vipa).copied().unwrap_or_default();
            snapshot.count(catalogue::VIPA_OPENED, label(), opened);
            snapshot.flag(catalogue::FLAPPING, label(), flapping.contains(&vipa.vipa));
            snapshot.flag(catalogue::ADDRESS_CONFLICT, label(), conflicts.contains(&vipa.vipa));
            let ranked = ranks.get(&vipa.vipa).into_iter().flat_map(|ranks| ranks.iter());
            let ready = ranked.filter(|(node, _)| peers.contains(node) && !vipa.barred.contains(node)).count();
            snapshot.set(catalogue::BACKUPS_READY, label(), ready as f64);
            let changed = self.steadiness.owners.changed(vipa.vipa).map_or(Duration::ZERO, |at| at.since(Moment::ZERO));
            snapshot.set(catalogue::OWNERSHIP_CHANGED, label(), self.metrics.started_unix + changed.as_secs_f64());
            if let Some(lease) = vipa.lease.filter(|_| is_owned) {
                let left = lease.since(now);
                margin = Some(margin.map_or(left, |least| least.min(left)));
            }
            self.write_services(snapshot, vipa);
        }
        if let Some(margin) = margin {
            snapshot.set(catalogue::LEASE_MARGIN, [], margin.as_secs_f64());
        }
    }

    fn write_links(&self, snapshot: &mut Snapshot, vipas: &[VipaStatus], peers: &BTreeSet<NodeName>) {
        let me = &self.config.node.name;
        let routers = self.config.cluster.routers.iter().map(|(node, _)| node).filter(|node| *node != me);
        let targets = vipas.iter().flat_map(|vipa| &vipa.targets).map(|target| &target.node);
        let known: BTreeSet<&NodeName> = routers.chain(targets).chain(peers).collect();
        for node in known {
            let label = Label::text(node.as_str());
            snapshot.flag(catalogue::LINK_UP, [label.clone()], peers.contains(node));
            let changes = self.metrics.link_changes.get(node).copied().unwrap_or_default();
            snapshot.count(catalogue::LINK_CHANGES, [label], changes);
        }
        snapshot.count(catalogue::LINKS_REFUSED, [], self.refusals.total());
    }

    fn write_services(&self, snapshot: &mut Snapshot, vipa: &VipaStatus) {
        let Some(index) = self.routing.vipa_index(vipa.vipa) else { return };
        let judge = self.routing.judge(index);
        for service in &vipa.services {
            let label = Label::text(&super::compare::service_name(service));
            let fit = |target: &&IpAddr| judge.standing(service, **target).fitness == Eligibility::Fit;
            let fit = service.candidates.iter().filter(fit).count();
            snapshot.set(
                catalogue::SERVICE_TARGETS,
                [vipa.vipa.into(), label.clone()],
                service.candidates.len() as f64,
            );
            snapshot.set(catalogue::SERVICE_TARGETS_FIT, [vipa.vipa.into(), label], fit as f64);
        }
    }

    fn write_targets(&self, snapshot: &mut Snapshot) {
        for (target, opened) in self.routing.ways.sent(|way| self.channel.admitted(way)) {
            snapshot.count(catalogue::TARGET_OPENED, [target.into()], opened);
        }
        // By address: whether it is linked, and of how many VIPAs not all that it reports has been read.
        let mut known: BTreeMap<IpAddr, bool> = BTreeMap::new();
        for (target, is_linked) in self.cluster.target_links() {
            *known.entry(target).or_default() |= is_linked;
        }
        let behind = self.cluster.targets_behind();
        for (target, is_linked) in known {
            snapshot.flag(catalogue::TARGET_LINKED, [target.into()], is_linked);
            let vipas = behind.get(&target).copied().unwrap_or_default();
            snapshot.set(catalogue::TARGET_LOG_LAG, [target.into()], vipas as f64);
            if let Some(served) = self.routing.accounts.of_target(target).percent() {
                snapshot.set(catalogue::TARGET_SERVED, [target.into()], f64::from(served) / 100.0);
            }
        }
        for (target, load) in &self.routing.loads {
            let headroom = f64::from(load.headroom) / f64::from(FULL_HEADROOM);
            snapshot.set(catalogue::TARGET_HEADROOM, [(*target).into()], headroom);
        }
    }

    /// Asks the other routers now and then how they are configured.
    pub(crate) fn compare_configurations(&mut self, now: Moment) {
        if self.metrics.server.is_none() || now < self.metrics.comparison.due {
            return;
        }
        self.metrics.comparison.due = now + COMPARE;
        self.look_at_traffic();
        if let Some(Ok(Answer::Diff(diff))) = self.metrics.comparison.answer.take().map(|mut answer| answer.try_recv())
        {
            for peer in diff.peers {
                let differences = match peer.answer {
                    PeerAnswer::Differs(rows) => rows.len(),
                    PeerAnswer::NotConfigured | PeerAnswer::Refused(_) => 1,
                    // Its link says enough.
                    PeerAnswer::Silent => continue,
                };
                self.metrics.comparison.found.entry(peer.node).or_default().insert(diff.vipa, differences);
            }
        }
        let is_vipa = |vipa: &IpAddr| self.routing.vipa_index(*vipa).is_some();
        for found in self.metrics.comparison.found.values_mut() {
            found.retain(|vipa, _| is_vipa(vipa));
        }
        let vipas = &self.config.vipas;
        let Some(vipa) = vipas.get(self.metrics.comparison.turn % vipas.len().max(1)).map(|vipa| vipa.address) else {
            return;
        };
        self.metrics.comparison.turn += 1;
        let (reply, answer) = oneshot::channel();
        self.diff(vipa, reply);
        self.metrics.comparison.answer = Some(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_number_counted_for_another_vipa_is_not_counted_for_this_one() {
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut traffic = Traffic::default();
        traffic.advance_vipa(VipaId(0), one, 5);
        traffic.advance_vipa(VipaId(0), other, 7);
        assert_eq!(traffic.opened, BTreeMap::from([(one, 5), (other, 2)]));
    }
}
