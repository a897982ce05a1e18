//! Connections without an entry, because the table has no slot: how long there may be some, and which UDP flows are
//! among them. Each worker has its own.

use std::time::Duration;

use vipa_flow::FlowState;
use vipa_handoff::{Count, ForwardingAction, Reason, VipaRoute};
use vipa_model::{Moment, Stance, TargetId};

use super::{Admission, EXPIRED, TurnContext, count_admitted, open};
use crate::{batch::Verdict, family::Family};

/// How long after the table last had no slot an unknown segment may belong to a connection without an entry. The
/// target's report makes an entry as soon as there is a slot.
const LIFETIME: Duration = Duration::from_secs(60);
/// UDP flows that are distinguished, about.
const FLOWS: usize = 16_384;

/// A worker's record of connections without an entry.
pub(super) struct Unrecorded {
    /// Until then there may be connections that found no slot.
    until: Moment,
    /// Fingerprints of UDP flows that the limits on new connections have let pass, by hash. Their number is fixed; of
    /// two flows that share an element the earlier one passes the limits once more. Zero is none.
    flows: Box<[u32]>,
}

impl Unrecorded {
    pub(super) fn new() -> Self {
        Self { until: Moment::ZERO, flows: vec![0; FLOWS].into() }
    }

    /// Whether there may be connections without an entry.
    pub(super) fn may_exist(&self, now: Moment) -> bool {
        now < self.until
    }

    /// Records that a new connection has found no slot.
    pub(super) fn begin(&mut self, now: Moment) {
        if !self.may_exist(now) {
            self.flows.fill(0);
        }
        self.until = now + LIFETIME;
    }

    /// Records the UDP flow that hashes to `hash`.
    pub(super) fn add(&mut self, hash: u64) {
        let (index, fingerprint) = split(hash);
        self.flows[index] = fingerprint;
    }

    /// Whether the UDP flow that hashes to `hash` is one without an entry.
    pub(super) fn has(&self, hash: u64, now: Moment) -> bool {
        let (index, fingerprint) = split(hash);
        self.may_exist(now) && self.flows[index] == fingerprint
    }
}

/// The flow's element, and the fingerprint that distinguishes it from other flows of that element.
fn split(hash: u64) -> (usize, u32) {
    ((hash % FLOWS as u64) as usize, (hash >> 32) as u32 | 1)
}

/// Verdict for a new connection for which the table has no slot.
#[cold]
#[inline(never)]
pub(super) fn unrecorded<K: Family>(
    context: &TurnContext<'_>,
    vipa: &VipaRoute,
    key: &K,
    state: FlowState,
    admission: &mut Admission,
) -> Verdict {
    let Some(verdict) = without_entry(context, vipa, key, admission) else { return Verdict::drop(Reason::TableFull) };
    admission.unrecorded.begin(context.now);
    if state == FlowState::Udp {
        admission.unrecorded.add(key.balance_hash(&context.routes.key, vipa.address));
    }
    if let Verdict::Forward(target) = verdict {
        count_admitted(context, target, state);
    }
    verdict
}

/// Verdict for the next datagram of a UDP flow that found no slot before. It is no new flow, so the limits on new ones
/// do not apply. It gets an entry if there is a slot now.
#[inline(always)]
pub(super) fn continue_unrecorded<K: Family>(
    context: &TurnContext<'_>,
    vipa: &VipaRoute,
    key: &K,
    admission: &Admission,
) -> Option<Verdict> {
    if !admission.unrecorded.may_exist(context.now) {
        return None;
    }
    go_on(context, vipa, key, admission)
}

#[cold]
#[inline(never)]
fn go_on<K: Family>(context: &TurnContext<'_>, vipa: &VipaRoute, key: &K, admission: &Admission) -> Option<Verdict> {
    let hash = key.balance_hash(&context.routes.key, vipa.address);
    if vipa.stance == Stance::Standby || vipa.lease.passed(context.now) || !admission.unrecorded.has(hash, context.now)
    {
        return None;
    }
    let target = hashed(context, vipa, key)?;
    if admission.expires(context, target) {
        return Some(EXPIRED);
    }
    let recorded = open(context, key, target, FlowState::Udp);
    recorded.or_else(|| without_entry(context, vipa, key, admission))
}

/// An ICMP error about a connection that may exist without an entry: it goes to the target that the hash names. Any
/// other host ignores an error about a connection that it does not hold.
#[cold]
#[inline(never)]
pub(super) fn about_unrecorded<K: Family>(
    context: &TurnContext<'_>,
    vipa: &VipaRoute,
    key: &K,
    admission: &Admission,
) -> Option<Verdict> {
    let is_owner = vipa.stance == Stance::Active && !vipa.lease.passed(context.now);
    if is_owner && admission.unrecorded.may_exist(context.now) {
        without_entry(context, vipa, key, admission)
    } else {
        None
    }
}

/// Target of a connection's packets without an entry.
#[cold]
#[inline(never)]
pub(super) fn without_entry<K: Family>(
    context: &TurnContext<'_>,
    vipa: &VipaRoute,
    key: &K,
    admission: &Admission,
) -> Option<Verdict> {
    let target = hashed(context, vipa, key)?;
    if admission.expires(context, target) {
        return Some(EXPIRED);
    }
    context.shared.counters.add(Count::FlowUnrecorded, 1);
    Some(Verdict::Forward(target))
}

/// The target that consistent hashing names for each packet of a connection. `None` for a translated connection, which
/// needs an entry on its way back.
fn hashed<K: Family>(context: &TurnContext<'_>, vipa: &VipaRoute, key: &K) -> Option<TargetId> {
    let service = vipa.find_service(key.protocol(), key.vipa_port())?;
    let target = service.picker.pick_without_memory(key.balance_hash(&context.routes.key, vipa.address))?;
    let is_translated =
        context.routes.target(target).is_none_or(|target| matches!(target.via, ForwardingAction::Nat { .. }));
    (!is_translated).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_remembered_until_a_minute_after_the_last_that_found_no_place() {
        let (start, minute) = (Moment(1), Duration::from_secs(60));
        let mut unrecorded = Unrecorded::new();
        let (one, other) = (7 << 32 | 5, 9 << 32 | 5);
        unrecorded.begin(start);
        unrecorded.add(one);
        assert_eq!([one, other].map(|hash| unrecorded.has(hash, start)), [true, false]);
        unrecorded.begin(start + minute / 2);
        assert!(unrecorded.has(one, start + minute) && !unrecorded.has(one, start + minute * 2));
        unrecorded.begin(start + minute * 3);
        assert!(!unrecorded.has(one, start + minute * 3), "another time, another flow");
        // Two flows in one element.
        unrecorded.add(one);
        unrecorded.add(other);
        assert_eq!([one, other].map(|hash| unrecorded.has(hash, start + minute * 3)), [false, true]);
    }
}
