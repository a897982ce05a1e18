//! The routers' own state, queried with `vipactl`, and waits for a wanted state.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use vipa_model::Protocol;
use vipa_protocol::{
    Eligibility, HealthCheck, Trigger,
    admin::{
        Counters, Distribution, DistributionRow, MirrorStatus, Stance, Status, TakeoverRecord, Takeovers, TargetStatus,
    },
    event::Events,
    health::assess,
};

use super::{Cluster, PATIENCE, Router, SERVICE_PORT, VIPA};
use crate::process::wait;

/// One router's view of the VIPA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub epoch: u64,
    pub owner: Option<String>,
    /// Whether it is the owner by its own state, rebuilding or active.
    pub owns: bool,
    pub rebuilding: bool,
    /// Its lease has run out.
    pub fenced: bool,
    /// Candidates of the list that it would use, or uses, for new connections.
    pub candidates: BTreeSet<IpAddr>,
    /// Linked targets whose connections it has read completely.
    pub warm: BTreeSet<String>,
    /// Linked targets that listen on the service's port.
    pub listening: BTreeSet<String>,
    /// Nodes it has a link to.
    pub linked: BTreeSet<String>,
    /// Connections in its table.
    pub connections: u64,
    /// Those of them that a target has reported.
    pub confirmed: u64,
}

impl Router {
    pub fn view(&self) -> Result<View> {
        self.view_of(VIPA.into())
    }

    /// The same view of another VIPA.
    pub fn view_of(&self, address: IpAddr) -> Result<View> {
        let status: Status = self.ask(&["status"])?;
        // There may be an IPv6 one alone.
        let vipa = status.vipas.iter().find(|vipa| vipa.address == address).or(status.vipas.first());
        let vipa = vipa.with_context(|| format!("{} knows nothing of {address}", self.name()))?;
        let linked = status.links.iter().filter(|link| link.up).map(|link| link.node.to_string());
        let names = |wanted: fn(&TargetStatus) -> bool| -> BTreeSet<String> {
            let targets = vipa.targets.iter().filter(|target| target.linked && wanted(target));
            targets.map(|target| target.node.as_ref().map_or(target.address.to_string(), ToString::to_string)).collect()
        };
        Ok(View {
            epoch: vipa.epoch.0,
            owner: vipa.owner.as_ref().map(ToString::to_string),
            owns: matches!(vipa.stance, Stance::Rebuilding | Stance::Active),
            rebuilding: vipa.stance == Stance::Rebuilding,
            fenced: vipa.fenced,
            candidates: vipa.services.iter().flat_map(|service| service.candidates.iter().copied()).collect(),
            warm: names(|target| target.complete),
            listening: names(|target| target.listening.contains(&(Protocol::Tcp, SERVICE_PORT))),
            linked: linked.collect(),
            connections: vipa.connections,
            confirmed: vipa.confirmed,
        })
    }

    /// How many VIPAs this router owns by its own state; those whose owner's lease has run out do not count.
    pub fn owned_by(&self, owner: &str) -> Result<u32> {
        let status: Status = self.ask(&["status"])?;
        let owned = |vipa: &&vipa_protocol::admin::VipaStatus| {
            vipa.owner.as_ref().is_some_and(|name| name.as_str() == owner)
                && !vipa.fenced
                && vipa.stance != Stance::Rebuilding
        };
        Ok(status.vipas.iter().filter(owned).count() as u32)
    }

    /// How it learns the connections of targets without an agent.
    pub fn table_replica_of(&self) -> Result<Option<MirrorStatus>> {
        let status: Status = self.ask(&["status"])?;
        Ok(status.vipas.into_iter().find(|vipa| vipa.address == VIPA).and_then(|vipa| vipa.mirror))
    }

    /// Its takeovers that are complete since it was last started, oldest first.
    pub fn takeovers(&self) -> Result<Vec<TakeoverRecord>> {
        let now = |record: &TakeoverRecord| record.finished_unix_ms >= self.started_unix_ms;
        Ok(self.takeovers_ever()?.into_iter().filter(now).collect())
    }

    /// Also those of its earlier starts.
    pub fn takeovers_ever(&self) -> Result<Vec<TakeoverRecord>> {
        let Takeovers { records } = self.ask(&["takeovers"])?;
        Ok(records.into_iter().filter(|record| record.report.vipa == VIPA).collect())
    }

    /// Shares of new connections of the VIPA's first service, by node.
    pub fn distribution(&self) -> Result<BTreeMap<String, DistributionRow>> {
        let Distribution { vipas } = self.ask(&["distribution"])?;
        let vipa = vipas.into_iter().find(|vipa| vipa.vipa == VIPA).context("no such VIPA")?;
        let service = vipa.services.into_iter().next().context("it has no service")?;
        let name = |row: &DistributionRow| row.node.as_ref().map_or(row.target.to_string(), ToString::to_string);
        Ok(service.targets.into_iter().map(|row| (name(&row), row)).collect())
    }

    /// Its counters by name, all workers together.
    pub fn counters(&self) -> Result<BTreeMap<String, u64>> {
        let Counters { total, .. } = self.ask(&["counters"])?;
        Ok(total)
    }

    /// Its counters, worker by worker.
    pub fn workers_counters(&self) -> Result<Vec<BTreeMap<String, u64>>> {
        let Counters { workers, .. } = self.ask(&["counters"])?;
        Ok(workers)
    }

    /// The verdict on it: a line for each check, `WARNING links: router r2 has no link`, the worst first.
    pub fn health(&self) -> Result<Vec<String>> {
        let status: Status = self.ask(&["status"])?;
        let line = |check: HealthCheck| format!("{} {}: {}", check.severity, check.name, check.finding);
        Ok(assess(&status).checks.into_iter().map(line).collect())
    }

    /// What happened in the cluster lately, as this router tells it: the router that saw it, and the sentence.
    pub fn events(&self) -> Result<Vec<String>> {
        let Events { events, .. } = self.ask(&["events", "--since", "10m"])?;
        Ok(events.into_iter().map(|row| format!("{}: {}", row.event.node, row.sentence)).collect())
    }

    fn ask<T: DeserializeOwned>(&self, question: &[&str]) -> Result<T> {
        let text = self.vipactl(&[question, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("{} says {text}", self.name()))
    }
}

impl Cluster {
    /// Waits until the highest-ranked router that was started owns the VIPA, all that were started have it and a link
    /// to every target, and every target that has servers is known to listen.
    pub fn wait_ready(&mut self) -> Result<()> {
        let started: Vec<_> = self.routers.keys().filter(|name| !self.plan.absent.contains(name)).cloned().collect();
        let owner = started.first().context("the plan starts no router")?.clone();
        let targets = self.targets.len() - self.plan.agentless.len();
        let listening = targets - self.plan.silent.len() - self.plan.replays.len();
        for name in &started {
            let owns = *name == owner;
            let view = self.wait_view(name, "the cluster to be ready", |view| {
                view.owns == owns
                    && view.owner.as_ref() == Some(&owner)
                    && !view.rebuilding
                    && view.warm.len() == targets
                    && view.listening.len() == listening
                    && !view.candidates.is_empty()
            })?;
            self.seen = self.seen.max(view.epoch);
        }
        Ok(())
    }

    /// Waits until a router's view meets the condition.
    pub fn wait_view(&mut self, router: &str, what: &str, met: impl Fn(&View) -> bool) -> Result<View> {
        let mut last = None;
        let found = wait(&format!("{router}: {what}"), PATIENCE, || {
            if let Some(end) = self.ended() {
                return Some(Err(end));
            }
            let view = self.router(router).view();
            let enough = view.as_ref().is_ok_and(&met);
            let found = if enough {
                view.ok().map(Ok)
            } else {
                last = Some(view);
                None
            };
            if found.is_none() {
                std::thread::sleep(LOOK);
            }
            found
        });
        match found {
            Ok(Ok(view)) => Ok(view),
            Ok(Err(end)) => bail!("while waiting for {router}: {what}: {end}"),
            Err(error) => Err(error.context(format!("{router}'s last word: {last:#?}"))),
        }
    }

    /// Waits until `router` reports the wanted fitness of a target for new connections.
    pub fn wait_fitness(
        &mut self,
        router: &str,
        target: &str,
        what: &str,
        met: impl Fn(&Eligibility) -> bool,
    ) -> Result<DistributionRow> {
        let mut last = None;
        let found = wait(&format!("{router}: {target} {what}"), PATIENCE, || {
            let row = self.router(router).distribution().map(|mut rows| rows.remove(target));
            match row {
                Ok(Some(row)) if met(&row.fitness) => Some(row),
                other => {
                    last = Some(other);
                    std::thread::sleep(LOOK);
                    None
                }
            }
        });
        found.with_context(|| format!("{router}'s last word of {target}: {last:#?}"))
    }

    /// Waits until `router` has completed a takeover with this trigger after the last one that was waited for, or after
    /// the cluster was ready: on a busy machine the first owner is not always the highest-ranked router, and the VIPA
    /// was taken back once.
    pub fn wait_takeover(&mut self, router: &str, trigger: Trigger) -> Result<TakeoverRecord> {
        let mut last = None;
        let found = wait(&format!("{router} to complete a {trigger:?}"), PATIENCE, || {
            let takeovers = self.router(router).takeovers();
            let new = |TakeoverRecord { report, .. }: &&TakeoverRecord| {
                report.trigger == trigger && report.epoch.0 > self.seen
            };
            let found = takeovers.as_ref().ok()?.iter().rev().find(new).cloned();
            last = Some(takeovers);
            found
        });
        if let Ok(TakeoverRecord { report, .. }) = &found {
            self.seen = report.epoch.0;
        }
        found.with_context(|| format!("{router}'s last word: {last:#?}; its view: {:#?}", self.router(router).view()))
    }

    /// The counters of all routers that are not zero, for messages about missing packets.
    #[must_use]
    pub fn counters(&self) -> String {
        let mut text = String::new();
        for router in self.routers.values() {
            text.push_str(&format!("{}:", router.name()));
            for (name, count) in router.counters().unwrap_or_default().iter().filter(|(_, count)| **count > 0) {
                text.push_str(&format!(" {name} {count}"));
            }
            text.push_str("; ");
        }
        text
    }

    /// A node that ended by itself, and how.
    pub fn ended(&mut self) -> Option<String> {
        self.routers
            .values_mut()
            .find_map(Router::ended)
            .or_else(|| self.targets.values_mut().find_map(|target| target.ended()))
    }
}

/// Between two queries to a router, besides the time that the query takes.
const LOOK: Duration = Duration::from_millis(20);
