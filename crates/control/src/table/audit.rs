//! Whether the connection table agrees with what the targets hold, and putting right what does not.
//!
//! ```text
//!   digests of a target ──equal──► agrees
//!        │ some parts differ
//!   its connections of those parts, compared one by one ──none──► agrees: it was on its way
//!        │ suspects
//!   a moment later, once more ── those found both times ──► differences, repaired when asked to
//! ```
//! A report under way differs for a moment and is no difference, hence the second look. Differences are put right by reading
//! everything the target holds anew: only its log tells a connection from the next one of the same addresses and ports. Scanning the table happens beside
//! the control loop, which waits for none of this.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use vipa_handoff::{AnyKey, Flows};
use vipa_model::{Connection, NodeName, TargetId, VipaId};
use vipa_protocol::{
    Digests, Holds, Question, Reply,
    admin::{AuditExample, AuditResult, Difference, TargetAudit},
    question::{MOST_BUCKETS, bucket},
};

use crate::admin::queries::QuerySender;

/// Between the two looks: longer than an agent takes to report.
const SETTLE: Duration = Duration::from_millis(400);
/// Parts compared connection by connection in one walk of the table: what the target holds of them is in memory meanwhile.
const PARTS_AT_ONCE: usize = 32;
/// Differences after which an audit looks at no more parts. Once these are repaired, the next audit finds the others.
const MOST_DIFFERENCES: usize = 65_536;
/// Differences shown one by one.
const EXAMPLES: usize = 5;

/// Whose connections are compared.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) vipa: IpAddr,
    pub(crate) id: VipaId,
    pub(crate) node: NodeName,
    pub(crate) target: IpAddr,
    /// The ways that lead to it.
    pub(crate) ways: HashSet<TargetId>,
}

/// What an audit came to, and what would put it right.
#[derive(Debug)]
pub(crate) struct Audited {
    pub(crate) result: TargetAudit,
    /// How long the target took to answer.
    pub(crate) answered_in: Duration,
    /// The place in its log at which it answered.
    pub(crate) upto: Option<vipa_protocol::Position>,
    /// Connections that are known otherwise than the target holds them, among the parts that were looked at.
    pub(crate) differences: u64,
}

/// Compares the table with what one target holds.
pub(crate) async fn audit(asker: &QuerySender, flows: &Arc<Flows>, subject: &Subject) -> Audited {
    let began = Instant::now();
    let first = ask(asker, subject, Vec::new()).await;
    let answered_in = began.elapsed();
    let upto = first.as_ref().map(|holds| holds.upto);
    let found = match first {
        Some(holds) => compare(asker, flows, subject, &holds).await,
        None => None,
    };
    let Subject { vipa, node, target, .. } = subject.clone();
    let done = |result, found| Audited {
        result: TargetAudit { vipa, target, node, result },
        answered_in,
        upto,
        differences: found,
    };
    match found {
        None => done(AuditResult::NoAnswer, 0),
        Some(Comparison { connections, differences, .. }) if differences.is_empty() => {
            done(AuditResult::Agrees { connections }, 0)
        }
        Some(Comparison { connections, differences, parts_left }) => {
            let mut counts: BTreeMap<Difference, u64> = BTreeMap::new();
            differences.values().for_each(|difference| *counts.entry(*difference).or_default() += 1);
            let examples = differences.iter().take(EXAMPLES);
            let examples = examples
                .map(|(connection, difference)| AuditExample { connection: *connection, difference: *difference });
            let result = AuditResult::Differs {
                connections,
                differences: counts.into_iter().collect(),
                examples: examples.collect(),
                parts_left,
                repaired: false,
            };
            done(result, differences.len() as u64)
        }
    }
}

struct Comparison {
    connections: u64,
    differences: BTreeMap<Connection, Difference>,
    parts_left: u64,
}

/// Looks at every part that differs, unless there are very many differences.
async fn compare(asker: &QuerySender, flows: &Arc<Flows>, subject: &Subject, holds: &Holds) -> Option<Comparison> {
    let connections = holds.digests.count();
    let parts = holds.digests.differing(&digests(flows, subject).await?);
    let (mut differences, mut looked_at) = (BTreeMap::new(), 0);
    for some in parts.chunks(PARTS_AT_ONCE) {
        if differences.len() >= MOST_DIFFERENCES {
            break;
        }
        differences.append(&mut look(asker, flows, subject, some.to_vec()).await?);
        looked_at += some.len();
    }
    if !differences.is_empty() {
        tokio::time::sleep(SETTLE).await;
        let parts: BTreeSet<u16> = differences.keys().map(bucket).collect();
        let mut again = BTreeMap::new();
        for some in Vec::from_iter(parts).chunks(PARTS_AT_ONCE) {
            again.append(&mut look(asker, flows, subject, some.to_vec()).await?);
        }
        differences.retain(|connection, difference| again.get(connection) == Some(difference));
    }
    Some(Comparison { connections, differences, parts_left: (parts.len() - looked_at) as u64 })
}

async fn ask(asker: &QuerySender, subject: &Subject, buckets: Vec<u16>) -> Option<Holds> {
    match asker.ask(&subject.node, Question::Holds { vipa: subject.vipa, buckets }).await? {
        Reply::Holds(holds) => Some(holds),
        // It has never heard of the VIPA: it holds nothing of it, and says so in time.
        Reply::Unknown | Reply::Settings(_) | Reply::Events(_) | Reply::SettingsDigests(_) => None,
    }
}

/// What the table says the target holds.
async fn digests(flows: &Arc<Flows>, subject: &Subject) -> Option<Digests> {
    let (flows, subject) = (Arc::clone(flows), subject.clone());
    let scan = tokio::task::spawn_blocking(move || {
        let mut digests = Digests::default();
        flows.export(subject.id, &mut |key, target, state| {
            if state.is_held() && subject.ways.contains(&target) {
                digests.add(&key.connection());
            }
        });
        digests
    });
    scan.await.ok()
}

/// Compares the connections of these parts one by one.
async fn look(
    asker: &QuerySender,
    flows: &Arc<Flows>,
    subject: &Subject,
    parts: Vec<u16>,
) -> Option<BTreeMap<Connection, Difference>> {
    let mut held = BTreeSet::new();
    for parts in parts.chunks(MOST_BUCKETS) {
        held.extend(ask(asker, subject, parts.to_vec()).await?.connections);
    }
    let (flows, subject) = (Arc::clone(flows), subject.clone());
    let compare = tokio::task::spawn_blocking(move || differences(&flows, &subject, &parts, &held));
    compare.await.ok()
}

fn differences(
    flows: &Flows,
    subject: &Subject,
    parts: &[u16],
    held: &BTreeSet<Connection>,
) -> BTreeMap<Connection, Difference> {
    let mut found = BTreeMap::new();
    for connection in held {
        let Some(key) = AnyKey::of(subject.id, subject.vipa, connection) else { continue };
        let difference = match flows.lookup(&key) {
            None => Difference::Missing,
            Some(hit) if !subject.ways.contains(&hit.target) => Difference::Elsewhere,
            Some(hit) if !hit.state.is_held() => Difference::Unconfirmed,
            Some(_) => continue,
        };
        found.insert(*connection, difference);
    }
    flows.export(subject.id, &mut |key, target, state| {
        if state.is_held() && subject.ways.contains(&target) {
            let connection = key.connection();
            if parts.contains(&bucket(&connection)) && !held.contains(&connection) {
                found.insert(connection, Difference::Stale);
            }
        }
    });
    found
}

#[cfg(test)]
mod tests;
