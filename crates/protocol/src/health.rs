//! Whether a node is healthy: a verdict on each of a list of checks, from what its status says. One function judges for the command
//! line, the service manager and whoever else shows it.
//!
//! | check | WARNING | CRITICAL |
//! |---|---|---|
//! | `owner` | | a VIPA has no owner, or two |
//! | `fenced` | | the lease of a VIPA has run out |
//! | `router` | this router cannot route | it cannot, and owns VIPAs |
//! | `targets` | a candidate gets no new connections, and no operator wants it so | nobody serves a service |
//! | `backup` | no other router could take a VIPA over | |
//! | `voters` | one cannot be reached | no majority can be |
//! | `conflicts` | | another station says that it has a VIPA |
//! | `certificate` | it expires within [`CERTIFICATE_WARNING`] | within [`CERTIFICATE_CRITICAL`], or has expired |
//! | `table` | [`TABLE_WARNING_PERCENT`] full, or a target is over its share | [`TABLE_CRITICAL_PERCENT`] full |
//! | `ports` | a NIC drops packets | |
//! | `links` | a node of the cluster has no link | |
//! | `peers` | a node is refused | |
//! | `configuration` | another router's differs | |
//! | `reload`, `audit` | the last one failed, found differences | |
//! | `flapping`, `kernel` | a VIPA flaps, the kernel interferes | |

use std::{fmt, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};
use vipa_model::{NodeName, Service, calendar};

use crate::{
    admin::{Link, Stance, Status, VipaStatus},
    eligibility::Eligibility,
};

/// A certificate that expires sooner is a warning.
pub const CERTIFICATE_WARNING: Duration = Duration::from_secs(30 * 86_400);
/// A certificate that expires sooner is critical.
pub const CERTIFICATE_CRITICAL: Duration = Duration::from_secs(3 * 86_400);
/// Of the connection table.
pub const TABLE_WARNING_PERCENT: u64 = 80;
pub const TABLE_CRITICAL_PERCENT: u64 = 95;
/// A peer that was refused so lately is named.
const REFUSED_WITHIN_MS: u64 = 120_000;
/// Things that one line names; more are counted.
const NAMED: usize = 4;

/// A verdict; the worse one is the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    #[default]
    Ok,
    Warning,
    Critical,
}

impl Severity {
    /// As monitoring systems expect it of a check: 0, 1 or 2.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        })
    }
}

/// One check and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HealthCheck {
    /// One word, always the same.
    pub name: String,
    pub severity: Severity,
    /// A sentence: what is so, and where there is something to do, what.
    pub finding: String,
}

/// The verdict on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Health {
    pub node: NodeName,
    /// That of the worst check.
    pub severity: Severity,
    /// Worst first.
    pub checks: Vec<HealthCheck>,
}

/// What only health looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct HealthFacts {
    /// The node's clock, milliseconds since 1970.
    pub now_unix_ms: u64,
    pub vipas: Vec<VipaFacts>,
    /// VIPAs of which two routers have said in the last minute that they own them.
    pub two_owners: Vec<IpAddr>,
    pub ports: Vec<PortFacts>,
    /// Routers whose configuration differs, and in what; a sentence without its end.
    pub other_configurations: Vec<(NodeName, String)>,
    pub reload: Option<ReloadFacts>,
    pub audit: Option<AuditFacts>,
    pub certificates: Vec<CertificateFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VipaFacts {
    pub vipa: IpAddr,
    /// Routers beside the owner that are linked, fit and allowed to own it, the first in line first. This router is one of them only
    /// while it could lose nothing.
    pub backups: Vec<NodeName>,
    pub services: Vec<ServiceFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceFacts {
    pub service: String,
    /// The candidates that get no new connections, and why.
    pub unfit: Vec<(IpAddr, Eligibility)>,
    /// How many get them, the last resort among them.
    pub served_by: u32,
}

/// A port and what its NIC has dropped since it was last looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PortFacts {
    pub port: String,
    pub dropped: u64,
    pub within_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReloadFacts {
    pub unix_ms: u64,
    /// Why it changed nothing, if it should have.
    pub failed: Option<String>,
}

/// The last comparison of each target's connections with the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditFacts {
    pub agreeing: u64,
    /// Target and VIPA.
    pub differing: Vec<(NodeName, IpAddr)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CertificateFacts {
    /// Whose it is: "this router", "the authority".
    pub subject: String,
    pub expires_unix_ms: u64,
}

impl Health {
    /// Sorts the checks, worst first, and takes the worst for the whole.
    #[must_use]
    pub fn new(node: NodeName, mut checks: Vec<HealthCheck>) -> Self {
        checks.sort_by_key(|check| std::cmp::Reverse(check.severity));
        let severity = checks.first().map(|check| check.severity).unwrap_or_default();
        Self { node, severity, checks }
    }

    /// One line: the verdict, and what is wrong.
    #[must_use]
    pub fn summary(&self) -> String {
        let wrong: Vec<&str> =
            self.checks.iter().filter(|check| check.severity > Severity::Ok).map(|check| &*check.finding).collect();
        match (wrong.first(), wrong.len()) {
            (None, _) => format!("ok: {} checks passed", self.checks.len()),
            (Some(first), 1) => format!("{}: {first}", self.severity),
            (Some(first), more) => format!("{}: {first} (and {} more; `vipactl health`)", self.severity, more - 1),
        }
    }
}

impl HealthCheck {
    /// A check that found something.
    #[must_use]
    pub fn new(name: &str, severity: Severity, finding: impl Into<String>) -> Self {
        Self { name: name.into(), severity, finding: finding.into() }
    }
}

/// The worst of some findings in one line; `well` when there are none.
fn worst(name: &str, well: impl Into<String>, mut findings: Vec<(Severity, String)>) -> HealthCheck {
    findings.sort_by_key(|(severity, _)| std::cmp::Reverse(*severity));
    let Some((severity, _)) = findings.first() else { return HealthCheck::new(name, Severity::Ok, well) };
    let severity = *severity;
    let mut texts: Vec<String> = findings.iter().take(NAMED).map(|(_, text)| text.clone()).collect();
    if findings.len() > NAMED {
        texts.push(format!("and {} more", findings.len() - NAMED));
    }
    HealthCheck::new(name, severity, texts.join("; "))
}

/// The verdict on a router, from its status alone.
#[must_use]
pub fn assess(status: &Status) -> Health {
    let facts = &status.health;
    let checks = vec![
        owner(status),
        fenced(status),
        router(status),
        targets(facts),
        backup(status),
        voters(status),
        conflicts(status),
        certificate(facts),
        table(status),
        ports(facts),
        links(status),
        peers(status),
        configuration(status),
        reload(facts),
        audit(facts),
        flapping(status),
        kernel(status),
    ];
    Health::new(status.node.clone(), checks)
}

fn owner(status: &Status) -> HealthCheck {
    let ownerless = status.vipas.iter().filter(|vipa| vipa.owner.is_none());
    let mut findings: Vec<_> = ownerless
        .map(|vipa| (Severity::Critical, format!("{} has no owner: its clients get no answer", vipa.address)))
        .collect();
    let two = status.health.two_owners.iter();
    findings.extend(two.map(|vipa| (Severity::Critical, format!("two routers say that they own {vipa}"))));
    worst("owner", format!("every VIPA has one owner ({})", status.vipas.len()), findings)
}

fn fenced(status: &Status) -> HealthCheck {
    let fenced = status.vipas.iter().filter(|vipa| vipa.fenced);
    let finding = |vipa: &VipaStatus| {
        let why = "its lease has run out, so that it takes no new connections: look at the links to the voters";
        (Severity::Critical, format!("{} is fenced: {why}", vipa.address))
    };
    worst("fenced", "no lease has run out", fenced.map(finding).collect())
}

fn owns(vipa: &VipaStatus) -> bool {
    matches!(vipa.stance, Stance::Active | Stance::Rebuilding)
}

fn router(status: &Status) -> HealthCheck {
    let finding = |why: &String| {
        let owned = status.vipas.iter().filter(|vipa| owns(vipa)).count();
        match owned {
            0 => (Severity::Warning, format!("this router cannot route: {why}")),
            owned => (Severity::Critical, format!("this router cannot route, and owns {owned} VIPAs: {why}")),
        }
    };
    worst("router", "this router is fit to route", status.unfit.iter().map(finding).collect())
}

fn targets(facts: &HealthFacts) -> HealthCheck {
    let (mut findings, mut services) = (Vec::new(), 0);
    for VipaFacts { vipa, services: of_vipa, .. } in &facts.vipas {
        for ServiceFacts { service, unfit, served_by } in of_vipa {
            services += 1;
            let wanted =
                |eligibility: &Eligibility| matches!(eligibility, Eligibility::Quiesced | Eligibility::Draining);
            let reasons: Vec<_> =
                unfit.iter().filter(|(_, eligibility)| *served_by == 0 || !wanted(eligibility)).collect();
            let Some((target, why)) = reasons.first() else {
                if *served_by == 0 {
                    findings.push((Severity::Critical, format!("{vipa} {service} has no candidates")));
                }
                continue;
            };
            let more =
                if reasons.len() > 1 { format!(" (and {} more targets)", reasons.len() - 1) } else { String::new() };
            findings.push(match served_by {
                0 => (Severity::Critical, format!("nobody serves {vipa} {service}: {target}: {why}{more}")),
                _ => (Severity::Warning, format!("{target} gets no new connections of {vipa} {service}: {why}{more}")),
            });
        }
    }
    worst("targets", format!("every candidate of {services} services gets new connections"), findings)
}

fn backup(status: &Status) -> HealthCheck {
    let mut findings = Vec::new();
    for VipaFacts { vipa, backups, .. } in &status.health.vipas {
        let ranked = status.vipas.iter().find(|known| known.address == *vipa).map_or(0, |known| known.ranks.len());
        if backups.is_empty() && ranked > 1 {
            findings.push((Severity::Warning, format!("{vipa} has no backup that could take it over")));
        }
    }
    worst("backup", "every VIPA with more than one router has a backup", findings)
}

fn voters(status: &Status) -> HealthCheck {
    let Status { node, voters, voters_version, links, .. } = status;
    if *voters_version == 0 {
        return HealthCheck::new("voters", Severity::Warning, "the voters are not known yet");
    }
    let reached = |voter: &&NodeName| *voter == node || links.iter().any(|link| link.node == **voter && link.up);
    let missing: Vec<&str> = voters.iter().filter(|voter| !reached(voter)).map(NodeName::as_str).collect();
    let (all, linked) = (voters.len(), voters.len() - missing.len());
    if missing.is_empty() {
        return HealthCheck::new("voters", Severity::Ok, format!("{linked} of {all} voters are reached"));
    }
    let severity = if linked * 2 > all { Severity::Warning } else { Severity::Critical };
    let consequence =
        if severity == Severity::Critical { ", which is no majority: nothing can be taken over" } else { "" };
    let finding = format!("{linked} of {all} voters are reached{consequence}; missing: {}", missing.join(", "));
    HealthCheck::new("voters", severity, finding)
}

fn conflicts(status: &Status) -> HealthCheck {
    let finding = |conflict: &crate::admin::AddressConflict| {
        let crate::admin::AddressConflict { vipa, mac, port, .. } = conflict;
        (
            Severity::Critical,
            format!("station {mac} on port {port} says that it has {vipa}: take the address away there"),
        )
    };
    worst("conflicts", "nobody else has a VIPA's address", status.conflicts.iter().map(finding).collect())
}

fn certificate(facts: &HealthFacts) -> HealthCheck {
    let mut findings = Vec::new();
    for CertificateFacts { subject, expires_unix_ms } in &facts.certificates {
        let left = expires_unix_ms.saturating_sub(facts.now_unix_ms);
        let at = calendar::rfc3339(*expires_unix_ms);
        let within = |limit: Duration| u128::from(left) < limit.as_millis();
        if left == 0 {
            findings.push((Severity::Critical, format!("the certificate of {subject} has expired at {at}")));
        } else if within(CERTIFICATE_WARNING) {
            let severity = if within(CERTIFICATE_CRITICAL) { Severity::Critical } else { Severity::Warning };
            findings
                .push((severity, format!("the certificate of {subject} expires in {}, at {at}", calendar::span(left))));
        }
    }
    let first = facts.certificates.iter().map(|certificate| certificate.expires_unix_ms).min();
    let well = match first {
        Some(first) => format!("no certificate expires before {}", calendar::rfc3339(first)),
        None => "not looked at".into(),
    };
    worst("certificate", well, findings)
}

fn table(status: &Status) -> HealthCheck {
    let Status { connections, capacity, .. } = status;
    let percent = if *capacity == 0 { 0 } else { connections.saturating_mul(100) / capacity };
    let severity = match percent {
        TABLE_CRITICAL_PERCENT.. => Severity::Critical,
        TABLE_WARNING_PERCENT.. => Severity::Warning,
        _ => Severity::Ok,
    };
    let advice = if severity == Severity::Ok { "" } else { ": raise table.connections, or see who opens so many" };
    let fill = format!("the connection table is {percent} % full{advice}");
    let mut findings: Vec<_> = (severity > Severity::Ok).then(|| (severity, fill.clone())).into_iter().collect();
    findings.extend(status.over_share.iter().map(|over| {
        (Severity::Warning, format!("{} reports more connections than its share of the table", over.target))
    }));
    worst("table", fill, findings)
}

fn ports(facts: &HealthFacts) -> HealthCheck {
    let dropping = facts.ports.iter().filter(|port| port.dropped > 0);
    let finding = |PortFacts { port, dropped, within_ms }: &PortFacts| {
        let within = calendar::span(*within_ms);
        (
            Severity::Warning,
            format!("the NIC of port {port} dropped {dropped} packets in {within}: workers do not keep up"),
        )
    };
    worst("ports", "no NIC drops packets", dropping.map(finding).collect())
}

fn links(status: &Status) -> HealthCheck {
    let down = status.links.iter().filter(|link| !link.up && !status.left.contains(&link.node));
    let finding = |link: &Link| {
        let what = if link.target.is_some() { "target" } else { "router" };
        (Severity::Warning, format!("{what} {} has no link", link.node))
    };
    worst("links", format!("all {} nodes are linked", status.links.len()), down.map(finding).collect())
}

fn peers(status: &Status) -> HealthCheck {
    let lately = status.refused.iter().filter(|peer| peer.last_ms_ago < REFUSED_WITHIN_MS);
    let finding = |peer: &crate::admin::RefusedPeer| {
        let who = match (&peer.node, &peer.address) {
            (Some(node), _) => node.to_string(),
            (None, Some(address)) => address.to_string(),
            (None, None) => "a node".into(),
        };
        (Severity::Warning, format!("{who} is refused: {}", peer.why))
    };
    worst("peers", "nobody was refused lately", lately.map(finding).collect())
}

fn configuration(status: &Status) -> HealthCheck {
    let others = status.health.other_configurations.iter();
    let mut findings: Vec<_> =
        others.map(|(node, what)| (Severity::Warning, format!("{node} is configured otherwise: {what}"))).collect();
    let voters = status.other_voters.iter();
    findings.extend(voters.map(|(node, _)| (Severity::Warning, format!("{node} goes by other voters"))));
    findings.extend(
        status
            .voters_wait
            .iter()
            .map(|why| (Severity::Warning, format!("the configured voters do not count yet: {why}"))),
    );
    worst("configuration", "the linked routers are configured alike", findings)
}

fn reload(facts: &HealthFacts) -> HealthCheck {
    let well = match &facts.reload {
        Some(ReloadFacts { unix_ms, .. }) => format!("last reloaded at {}", calendar::rfc3339(*unix_ms)),
        None => "not reloaded since the start".into(),
    };
    let failed = facts.reload.iter().filter_map(|reload| Some((reload.unix_ms, reload.failed.as_ref()?)));
    let finding = |(at, why): (u64, &String)| {
        (Severity::Warning, format!("the reload at {} failed: {}", calendar::rfc3339(at), why.replace('\n', " ")))
    };
    worst("reload", well, failed.map(finding).collect())
}

fn audit(facts: &HealthFacts) -> HealthCheck {
    let Some(AuditFacts { agreeing, differing }) = &facts.audit else {
        return HealthCheck::new("audit", Severity::Ok, "the table was not compared with the targets yet");
    };
    let finding = |(node, vipa): &(NodeName, IpAddr)| {
        (Severity::Warning, format!("the table of {vipa} differs from what {node} holds: `vipactl audit {vipa}`"))
    };
    worst("audit", format!("the table agrees with {agreeing} targets"), differing.iter().map(finding).collect())
}

fn flapping(status: &Status) -> HealthCheck {
    let finding = |flapping: &crate::admin::Flapping| {
        let crate::admin::Flapping { vipa, changes } = flapping;
        (Severity::Warning, format!("{vipa} has changed its owner {changes} times in the last minute"))
    };
    worst("flapping", "no VIPA flaps", status.flapping.iter().map(finding).collect())
}

fn kernel(status: &Status) -> HealthCheck {
    let finding = |what: &String| (Severity::Warning, what.clone());
    worst("kernel", "this host's kernel leaves VIPAs alone", status.interferences.iter().map(finding).collect())
}

/// As facts and findings name a service.
#[must_use]
pub fn service_name(service: &Service) -> String {
    format!("{}/{}", service.protocol.name(), service.ports)
}

#[cfg(test)]
mod tests;
