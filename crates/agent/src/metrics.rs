//! What Prometheus is told of a target.

use std::{collections::BTreeMap, time::SystemTime};

use tokio::sync::{mpsc, watch};
use vipa_metrics::{Label, MetricsServer, ServerError, Snapshot, SnapshotRequest, catalogue};
use vipa_model::{NodeName, config::Config};
use vipa_protocol::{Intent, Message, Run, load::FULL_HEADROOM};
use vipa_transport::CertificateExpiry;

use crate::agent::Agent;

/// What is served, and what only scrapes want to know.
pub(crate) struct Metrics {
    /// Serves as long as it is there.
    _server: Option<MetricsServer>,
    node: Label,
    cluster: Label,
    started_unix: f64,
    /// Of each router of the configuration.
    sent: BTreeMap<NodeName, Sent>,
    /// VIPAs that the host was told to have last.
    vipas: usize,
    reload_succeeded: bool,
    configured_unix: f64,
    certificates: watch::Receiver<CertificateExpiry>,
}

#[derive(Clone, Copy, Default)]
struct Sent {
    link_changes: u64,
    beats: u64,
    ballots: u64,
    connections: u64,
}

impl Metrics {
    /// Listens where the configuration says; the other end is for the agent's loop. Call it within the runtime.
    pub(crate) fn start(config: &Config) -> Result<(Self, mpsc::Receiver<SnapshotRequest>), ServerError> {
        let (requests, scrapes) = mpsc::channel(1);
        let server = config.metrics.listen.as_ref().map(|listen| MetricsServer::start(listen, requests)).transpose()?;
        let (told, certificates) = watch::channel(CertificateExpiry::default());
        if server.is_some() {
            tokio::spawn(CertificateExpiry::watch(config.pki.clone(), told));
        }
        let routers = config.cluster.routers.iter().map(|(name, _)| (name.clone(), Sent::default()));
        let metrics = Self {
            _server: server,
            node: Label::text(config.node.name.as_str()),
            cluster: Label::text(&config.cluster.name),
            started_unix: unix_seconds(),
            sent: routers.collect(),
            vipas: 0,
            reload_succeeded: true,
            configured_unix: unix_seconds(),
            certificates,
        };
        Ok((metrics, scrapes))
    }

    /// A link came up or went down.
    pub(crate) fn link_changed(&mut self, peer: &NodeName) {
        if let Some(sent) = self.sent.get_mut(peer) {
            sent.link_changes += 1;
        }
    }

    /// A message goes to a router.
    pub(crate) fn sends(&mut self, to: &NodeName, message: &Message) {
        let Some(sent) = self.sent.get_mut(to) else { return };
        match message {
            Message::BeatAck(_) => sent.beats += 1,
            Message::Votes(votes) => sent.ballots += votes.votes.len() as u64,
            Message::Connections(connections) => {
                sent.connections += match &connections.run {
                    Run::Tail { records, .. } => records.len(),
                    Run::Snapshot { connections, .. } => connections.len(),
                } as u64;
            }
            _ => {}
        }
    }

    /// The host was told to have so many VIPAs.
    pub(crate) fn serves(&mut self, vipas: usize) {
        self.vipas = vipas;
    }

    /// The configuration was read again, and taken up or not.
    pub(crate) fn reloaded(&mut self, succeeded: bool) {
        self.reload_succeeded = succeeded;
        if succeeded {
            self.configured_unix = unix_seconds();
        }
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Agent {
    /// Answers a scrape.
    pub(crate) fn scraped(&self, reply: SnapshotRequest) {
        let began = self.now();
        let mut snapshot = Snapshot::default();
        self.write_process(&mut snapshot);
        self.write_links(&mut snapshot);
        self.write_target(&mut snapshot);
        snapshot.set(catalogue::SNAPSHOT_TIME, [], self.now().since(began).as_secs_f64());
        snapshot.set(catalogue::SERIES_LEFT_OUT, [], snapshot.left_out() as f64);
        // Who asked may have given up.
        let _ = reply.send(snapshot);
    }

    fn write_process(&self, snapshot: &mut Snapshot) {
        let metrics = &self.metrics;
        snapshot.info(catalogue::BUILD, ["vipa-agent".into(), Label::Name(env!("CARGO_PKG_VERSION"))]);
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
    }

    fn write_links(&self, snapshot: &mut Snapshot) {
        for (router, sent) in &self.metrics.sent {
            let label = || [Label::text(router.as_str())];
            snapshot.flag(catalogue::LINK_UP, label(), self.target.is_linked(router));
            snapshot.count(catalogue::LINK_CHANGES, label(), sent.link_changes);
            snapshot.count(catalogue::AGENT_BEATS, label(), sent.beats);
            snapshot.count(catalogue::AGENT_VOTES, label(), sent.ballots);
            snapshot.count(catalogue::AGENT_TOLD, label(), sent.connections);
        }
    }

    fn write_target(&self, snapshot: &mut Snapshot) {
        let facts = self.kernel.facts();
        snapshot.flag(catalogue::AGENT_OBSERVER, ["bpf".into()], self.kernel.follows_by_bpf());
        snapshot.flag(catalogue::AGENT_OBSERVER, ["sock_diag".into()], !self.kernel.follows_by_bpf());
        snapshot.count(catalogue::AGENT_OVERFLOWS, [], facts.overflows);
        snapshot.count(catalogue::AGENT_REPAIRED, [], facts.repaired);
        snapshot.set(catalogue::AGENT_VIPAS, [], self.metrics.vipas as f64);
        for summary in self.target.summaries() {
            let label = || [summary.vipa.into()];
            snapshot.set(catalogue::AGENT_CONNECTIONS, label(), summary.connections as f64);
            snapshot.set(catalogue::AGENT_LOG_RECORDS, label(), summary.records as f64);
            snapshot.set(catalogue::AGENT_LISTENERS, label(), summary.listening.len() as f64);
        }
        if let Some(load) = &self.told {
            snapshot.set(catalogue::AGENT_HEADROOM, [], f64::from(load.headroom) / f64::from(FULL_HEADROOM));
            snapshot.flag(catalogue::AGENT_DRAINING, [], load.intent == Intent::Drain);
            // Of two checks with one name the worse one counts: a series may be there once only.
            let mut checks: BTreeMap<&str, bool> = BTreeMap::new();
            for check in &load.checks {
                *checks.entry(&check.name).or_insert(true) &= check.passing;
            }
            for (name, passing) in checks {
                snapshot.flag(catalogue::AGENT_CHECKS, [Label::text(name)], passing);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use vipa_protocol::BeatAck;

    use super::*;

    #[test]
    fn only_what_goes_to_routers_of_the_configuration_is_counted() {
        let node = |name: &str| name.parse::<NodeName>().unwrap();
        let (_told, certificates) = watch::channel(CertificateExpiry::default());
        let mut metrics = Metrics {
            _server: None,
            node: "t1".into(),
            cluster: "demo".into(),
            started_unix: 0.0,
            sent: BTreeMap::from([(node("r1"), Sent::default())]),
            vipas: 0,
            reload_succeeded: true,
            configured_unix: 0.0,
            certificates,
        };
        let answer = Message::BeatAck(BeatAck { sequence: 1, superseded: Vec::new() });
        for to in ["r1", "r1", "r9"] {
            metrics.sends(&node(to), &answer);
            metrics.link_changed(&node(to));
        }
        let Sent { link_changes, beats, ballots, connections } = metrics.sent[&node("r1")];
        assert_eq!((link_changes, beats, ballots, connections), (2, 2, 0, 0));
        assert_eq!(metrics.sent.len(), 1, "names that others may choose make no series");
    }
}
