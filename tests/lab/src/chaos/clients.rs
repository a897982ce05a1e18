//! Clients of the service during the run: connections with steady traffic, connections that are silent for long, and
//! connections of one request, which are half closed for a while or use their ports again at once.

use std::time::Duration;

use anyhow::Result;

use super::Settings;
use crate::{
    cluster::{Cluster, PATIENCE},
    load::{Client, ClientPlan, Ending, Report, RequestReport, RequestSettings, Requests},
};

/// Connections with steady traffic for each silent one.
const TALKING_PER_SILENT: usize = 20;
/// Ports of each client, below those that the kernel chooses from.
const FIRST_PORT: u16 = 700;
const PORTS: u16 = 4;
/// Longest silence, however long the run is.
const LONGEST_SILENCE: Duration = Duration::from_secs(150);

pub(super) struct Clients {
    pub(super) talking: Client,
    silent: Client,
    requests: Requests,
}

pub(super) struct Reports {
    pub(super) talking: Report,
    pub(super) silent: Report,
    pub(super) requests: RequestReport,
}

/// A quarter of the run.
fn silence(settings: &Settings) -> Duration {
    (settings.time / 4).min(LONGEST_SILENCE)
}

impl Clients {
    /// Starts all clients and waits until the long-lived connections are open.
    pub(super) fn start(cluster: &Cluster, settings: &Settings) -> Result<Self> {
        let longest = silence(settings);
        let talking = cluster.client_with(&ClientPlan::new(Cluster::service(), settings.connections))?;
        let quiet = (settings.connections / TALKING_PER_SILENT).max(1);
        let every = longest.as_secs().max(1);
        let silent = cluster.client_with(&ClientPlan {
            messages_per_second: u32::try_from(quiet as u64 / every).unwrap_or(1).max(1),
            fresh_per_second: 0,
            ..ClientPlan::new(Cluster::service(), quiet)
        })?;
        let endings = vec![
            Ending::ServerCloses,
            Ending::ClientResets,
            Ending::ServerPauses,
            Ending::ClientHalfCloses,
            Ending::ServerHalfCloses,
        ];
        let requests = RequestSettings {
            clients: settings.requesters * endings.len() as u16,
            endings,
            first_port: FIRST_PORT,
            ports: PORTS,
            silence_ms: (0, longest.as_millis() as u64),
            answer_bytes: 100_000,
            late_bytes: 100_000,
            // As many as leave the machine to the cluster.
            interval: Duration::from_millis(50),
            patience: Duration::from_secs(30),
            ..RequestSettings::new(Cluster::service(), Ending::ServerCloses)
        };
        let requests = Requests::start(cluster.client_host(), "requests", &requests)?;
        Ok(Self { talking, silent, requests })
    }

    pub(super) fn report(&self) -> Reports {
        Reports { talking: self.talking.report(), silent: self.silent.report(), requests: self.requests.report() }
    }

    /// Ends all clients in good order.
    pub(super) fn finish(self, settings: &Settings) -> Result<Reports> {
        let requests = self.requests.finish(PATIENCE + silence(settings))?;
        Ok(Reports {
            requests,
            silent: self.silent.finish(PATIENCE + silence(settings))?,
            talking: self.talking.finish(PATIENCE)?,
        })
    }
}
