//! What routers say of themselves, asked with `vipactl`, and waiting for what they shall say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{Cluster, PATIENCE, Router};
use crate::process::wait;

/// One router's view of the VIPA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub epoch: u64,
    pub owner: Option<String>,
    /// It takes itself for the owner, be it rebuilding or active.
    pub owns: bool,
    pub rebuilding: bool,
    /// Its lease has run out.
    pub fenced: bool,
    /// Candidates of the list it would use, or uses, for new connections.
    pub candidates: BTreeSet<Ipv4Addr>,
    /// Targets whose connection log it has, up to date.
    pub warm: BTreeSet<String>,
    /// Targets that listen on the service's port.
    pub listening: BTreeSet<String>,
    /// Nodes it has a link to.
    pub linked: BTreeSet<String>,
    /// Connections in its table.
    pub connections: u64,
    /// Those of them that a target has reported.
    pub confirmed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    First,
    Failure,
    Takeback,
    Handover,
}

/// One takeover as its router reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    pub router: String,
    pub epoch: u64,
    pub trigger: Trigger,
    pub detect_us: u64,
    pub collect_us: u64,
    pub announce_us: u64,
    pub rebuild_us: u64,
    pub answered: u64,
    pub expected: u64,
    pub known_before: u64,
    pub reported: u64,
    pub held: u64,
    pub released: u64,
}

impl Router {
    pub fn view(&self) -> Result<View> {
        bail!("not yet")
    }

    /// Its takeovers that are complete, oldest first.
    pub fn takeovers(&self) -> Result<Vec<Takeover>> {
        bail!("not yet")
    }

    /// Its workers' counters by name.
    pub fn counters(&self) -> Result<BTreeMap<String, u64>> {
        bail!("not yet")
    }
}

impl Cluster {
    /// Waits until the highest-ranked router that was started owns the VIPA, all that were started know it and have
    /// heard of every target, and every target that has servers is known to listen.
    pub fn wait_ready(&mut self) -> Result<()> {
        let started: Vec<_> = self.routers.keys().filter(|name| !self.plan.absent.contains(name)).cloned().collect();
        let owner = started.first().context("the plan starts no router")?.clone();
        let targets = self.targets.len();
        let listening = targets - self.plan.silent.len();
        for name in &started {
            let owns = *name == owner;
            self.wait_view(name, "the cluster to be ready", |view| {
                view.owns == owns
                    && view.owner.as_ref() == Some(&owner)
                    && !view.rebuilding
                    && view.warm.len() == targets
                    && view.listening.len() == listening
                    && !view.candidates.is_empty()
            })?;
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

    /// Waits until `router` has completed a takeover with this trigger since it was started; the latest such.
    pub fn wait_takeover(&mut self, router: &str, trigger: Trigger) -> Result<Takeover> {
        let mut last = None;
        let found = wait(&format!("{router} to complete a {trigger:?}"), PATIENCE, || {
            let takeovers = self.router(router).takeovers();
            let found = takeovers.as_ref().ok()?.iter().rev().find(|takeover| takeover.trigger == trigger).cloned();
            last = Some(takeovers);
            found
        });
        found.with_context(|| format!("{router}'s last word: {last:#?}; its view: {:#?}", self.router(router).view()))
    }

    /// A node that ended by itself, and how.
    fn ended(&mut self) -> Option<String> {
        self.routers
            .values_mut()
            .find_map(Router::ended)
            .or_else(|| self.targets.values_mut().find_map(|target| target.ended()))
    }
}

/// Between two questions to a router, besides the time the question takes.
const LOOK: Duration = Duration::from_millis(20);
