//! Checks that every router's connection table equals what the targets' kernels hold: no connection missing, none too
//! many, each at the target that holds it.
//!
//! ```text
//!   ss in each target's host ──► what is held ──┐
//!                                               ├── the same set of (client, target), at every router that runs
//!   vipactl connections at each router ─────────┘
//!   vipactl audit at each router ──► every target agrees
//! ```
//! Clients must be quiet meanwhile, because a report takes some time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use vipa_model::Protocol;
use vipa_protocol::admin::{Audit, AuditResult, ConnectionRow, Connections, Stage};

use super::{Cluster, PATIENCE, Router, VIPA};
use crate::{netns::Host, process::wait};

/// A client's address and port, and the target that holds its connection.
type Held = (SocketAddr, String);

/// Between two comparisons: `vipactl` and `ss` each take some milliseconds.
const LOOK: Duration = Duration::from_millis(100);
/// More connections than any test of the lab opens.
const LIMIT: &str = "1000000";
/// Differences shown in an error.
const SHOWN: usize = 8;

/// Entries that no target has reported: a connection may have come and gone between two looks of an agent, or another
/// router has sent the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreported {
    /// They may still be there: the table keeps them for some 15 seconds.
    MayBe,
    /// They are gone, too.
    Gone,
}

impl Cluster {
    /// Waits until every running router's table holds exactly the TCP connections to the VIPA that the targets' kernels
    /// hold, and an audit at each finds no difference. Targets whose agent does not run, and those that have none, are
    /// left out.
    ///
    /// Handshakes may differ: a SYN is lost before it reaches its target, and in a flood the table forgets half-open
    /// connections that targets still hold.
    pub fn wait_agreement(&mut self, unreported: Unreported) -> Result<()> {
        let routers = self.running_routers();
        let mut last = String::new();
        let patience = match unreported {
            Unreported::MayBe => PATIENCE,
            Unreported::Gone => PATIENCE * 2,
        };
        let agree = wait("tables and targets to agree", patience, || {
            let differing = self.differing(&routers, unreported);
            match differing {
                Ok(None) => return Some(()),
                Ok(Some(differences)) => last = differences,
                Err(error) => last = format!("{error:#}"),
            }
            std::thread::sleep(LOOK);
            None
        });
        agree.with_context(|| last)?;
        let followed = self.followed();
        for name in &routers {
            self.router(name).audit_agrees(&followed)?;
        }
        Ok(())
    }

    /// The names of the routers whose process has not been ended.
    pub(crate) fn running_routers(&self) -> Vec<String> {
        self.routers.values().filter(|router| router.is_running()).map(|router| router.name().to_owned()).collect()
    }

    /// The targets whose agents report what their kernels hold.
    fn followed(&self) -> BTreeSet<String> {
        let followed = self.targets.values().filter(|target| target.is_followed());
        followed.map(|target| target.name().to_owned()).collect()
    }

    /// The present differences between tables and targets, in words.
    fn differing(&mut self, routers: &[String], unreported: Unreported) -> Result<Option<String>> {
        let followed = self.followed();
        let mut held = BTreeMap::new();
        for target in self.targets.values().filter(|target| target.is_followed()) {
            held.extend(held_by(target.host(), self.own_address(target.name()))?);
        }
        let may_stay = |stage: Stage| match stage {
            Stage::HalfOpen => true,
            Stage::Open | Stage::Closing => unreported == Unreported::MayBe,
            Stage::Confirmed | Stage::Udp | Stage::Ended => false,
        };
        let mut differences = String::new();
        for name in routers {
            let mut known = self.router(name).known()?;
            known.retain(|(_, target), _| followed.contains(target));
            let missing: Vec<_> =
                held.iter().filter(|(entry, stage)| **stage != Stage::HalfOpen && !known.contains_key(entry)).collect();
            let beyond: Vec<_> =
                known.iter().filter(|(entry, stage)| !may_stay(**stage) && !held.contains_key(entry)).collect();
            if missing.len() + beyond.len() > 0 {
                differences.push_str(&format!(
                    "{name} knows {} connections of the {} that targets hold; {} are missing: {:?}; {} are held nowhere: {:?}\n",
                    known.len(),
                    held.len(),
                    missing.len(),
                    &missing[..missing.len().min(SHOWN)],
                    beyond.len(),
                    &beyond[..beyond.len().min(SHOWN)],
                ));
            }
        }
        Ok((!differences.is_empty()).then_some(differences))
    }
}

impl Router {
    /// The TCP connections in its table.
    pub(crate) fn known(&self) -> Result<BTreeMap<Held, Stage>> {
        let text = self.vipactl(&["connections", "--json", "--limit", LIMIT])?;
        let Connections { shown, .. } = serde_json::from_str(&text).context("vipactl connections")?;
        let tcp = shown.into_iter().filter(|row| row.connection.protocol == Protocol::Tcp);
        let name = |row: &ConnectionRow| row.node.as_ref().map_or(row.target.to_string(), ToString::to_string);
        Ok(tcp.map(|row| ((row.connection.client, name(&row)), row.stage)).collect())
    }

    /// Audits once; an error when one of these targets holds anything else than the table has.
    fn audit_agrees(&self, followed: &BTreeSet<String>) -> Result<()> {
        let text = self.vipactl(&["audit", "--json"])?;
        let Audit { targets } = serde_json::from_str(&text).context("vipactl audit")?;
        let mut audited = targets.iter().filter(|audited| followed.contains(audited.node.as_str()));
        let agrees = audited.all(|audited| matches!(audited.result, AuditResult::Agrees { .. }));
        ensure!(agrees, "an audit at {} found differences: {targets:#?}", self.name());
        Ok(())
    }
}

/// The connections to the VIPA, or to the target's own address where `nat` translates to it, that a host's kernel
/// holds.
fn held_by(host: &Host, own: IpAddr) -> Result<BTreeMap<Held, Stage>> {
    let text = host.run("ss", ["-Htn", "state", "connected", "exclude", "time-wait"])?;
    let mut held = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [state, .., local, remote] = words[..] else { continue };
        let (Some(local), Some(remote)) = (address(local), address(remote)) else { continue };
        // The servers serve VIPAs alone; a target's other connections are its agent's, which use UDP.
        if local.ip() == VIPA || local.ip() == super::VIPA6 || local.ip() == own {
            let stage = if state == "SYN-RECV" { Stage::HalfOpen } else { Stage::Open };
            held.insert((remote, host.name().to_owned()), stage);
        }
    }
    Ok(held)
}

/// An address as `ss` writes it; an IPv4-mapped one is returned as the IPv4 address.
fn address(text: &str) -> Option<SocketAddr> {
    let address: SocketAddr = text.parse().ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_ss_writes_them() {
        let is = |text: &str| address(text).map(|address| address.to_string());
        assert_eq!(is("10.77.0.51:40000").as_deref(), Some("10.77.0.51:40000"));
        assert_eq!(is("[::ffff:10.77.0.51]:40000").as_deref(), Some("10.77.0.51:40000"));
        assert_eq!(is("[fd77::51]:40000").as_deref(), Some("[fd77::51]:40000"));
        assert_eq!(is("*:80"), None);
    }
}
