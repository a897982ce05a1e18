//! Connections for which the table has no place: how long there may be some, and which UDP flows are among them. One worker's alone.

use std::time::Duration;

use vipa_flow::FlowState;
use vipa_handoff::{Count, ForwardingAction, Reason, VipaRoute};
use vipa_model::{Moment, Stance, TargetId};

use super::{Admission, EXPIRED, TurnContext, count_admitted, open};
use crate::{batch::Verdict, family::Family};

/// How long after the table has had no place unknown segments may be of a connection without an entry. Its target's report
/// makes one as soon as there is a place.
const LASTS: Duration = Duration::from_secs(60);
/// UDP flows told apart, about.
const FLOWS: usize = 16_384;

/// What a worker remembers of connections without an entry.
pub(super) struct Unrecorded {
    /// Until then connections may go on that found no place.
    until: Moment,
    /// Fingerprints of UDP flows that the limits on new connections have let pass, found by hash: their number is fixed, and of two
    /// flows that share a place the one before passes the limits once more. Zero is none.
    flows: Box<[u32]>,
}

impl Unrecorded {
    pub(super) fn new() -> Self {
        Self { until: Moment::ZERO, flows: vec![0; FLOWS].into() }
    }

    /// Whether connections without an entry may be going on.
    pub(super) fn may_be(&self, now: Moment) -> bool {
        now < self.until
    }

    /// A new connection has found no place.
    pub(super) fn begin(&mut self, now: Moment) {
        if !self.may_be(now) {
            self.flows.fill(0);
        }
        self.until = now + LASTS;
    }

    /// Remembers the UDP flow that hashes to `hash`.
    pub(super) fn add(&mut self, hash: u64) {
        let (place, fingerprint) = split(hash);
        self.flows[place] = fingerprint;
    }

    /// Whether the UDP flow that hashes to `hash` goes on without an entry.
    pub(super) fn has(&self, hash: u64, now: Moment) -> bool {
        let (place, fingerprint) = split(hash);
        self.may_be(now) && self.flows[place] == fingerprint
    }
}

/// Where the flow is remembered, and what tells it from others there.
fn split(hash: u64) -> (usize, u32) {
    ((hash % FLOWS as u64) as usize, (hash >> 32) as u32 | 1)
}

/// A new connection for which the table has no place.
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

/// The next datagram of a UDP flow that found no place before: it is no new flow, so the limits on new ones do not count. It gets an
/// entry if there is a place now.
#[inline(always)]
pub(super) fn go_on_unrecorded<K: Family>(
    context: &TurnContext<'_>,
    vipa: &VipaRoute,
    key: &K,
    admission: &Admission,
) -> Option<Verdict> {
    if !admission.unrecorded.may_be(context.now) {
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

/// An ICMP error about a connection that may be going on without an entry: its target is the one that hashing names. Any other host
/// ignores an error about a connection that it does not hold.
#[cold]
#[inline(never)]
pub(super) fn about_unrecorded<K: Family>(
    context: &TurnContext<'_>,
    vipa: &VipaRoute,
    key: &K,
    admission: &Admission,
) -> Option<Verdict> {
    let is_owner = vipa.stance == Stance::Active && !vipa.lease.passed(context.now);
    if is_owner && admission.unrecorded.may_be(context.now) {
        without_entry(context, vipa, key, admission)
    } else {
        None
    }
}

/// Where a connection's packets go without an entry.
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

/// The target that consistent hashing names for each packet of a connection; what is translated needs an entry on its way back.
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
        // Two at one place.
        unrecorded.add(one);
        unrecorded.add(other);
        assert_eq!([one, other].map(|hash| unrecorded.has(hash, start + minute * 3)), [false, true]);
    }
}
