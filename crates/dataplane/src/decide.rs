//! Decision about a packet that has a connection, once the table has answered.
//!
//! | | Standby | Rebuilding | Active, Yielding until `quiet_until` | Active after | Yielding after |
//! |---|---|---|---|---|---|
//! | hit | forward | forward | forward | forward | forward |
//! | miss, SYN or UDP | drop (*) | admit | admit | admit | admit |
//! | miss, SYN-ACK | drop | hold | hold | hold briefly, drop | drop |
//! | miss, other TCP | drop | hold | hold | orphan policy | drop |
//!
//! (*) Except packets that the owner has sent here because this router is a target too: see [`to_own`].
//!
//! A SYN-ACK answers a connection that a target opens with the VIPA as its source. The target's report is on its way; a
//! reset would break the connection at a server that is no client here.
//!
//! Where the table has no slot for a new connection, its packets are forwarded by the service's hash without an entry,
//! if the hash names the same target for each ([`without_entry`]). The same applies to orphans that would be reset and
//! to ICMP errors about unknown connections, for a minute after that.
//!
//! Admitting a connection and answering an orphan need a valid lease. Forwarding a known connection never does, because
//! it can only go to the target that holds it.

mod doubt;
mod unrecorded;

use vipa_flow::{Admitted, FlowState, FlowTable, Hit};
use vipa_handoff::{AnyKey, Count, Fate, LocalReply, Reason, ServiceRoute, VipaCount, VipaRoute};
use vipa_model::{Orphans, PortId, Protocol, Stance, TargetId};
use vipa_packet::{PacketBuf, TcpFlags, has_last_hop};

use doubt::{awaits_reports, begins_elsewhere, has_ended_earlier, is_in_doubt};

use crate::{
    BURST, TurnContext,
    batch::{Batch, FamilyBatch, Kind, Verdict},
    family::Family,
    hold::HeldPacket,
    limit::{SourceLimits, TokenBucket},
    mask::BurstMask,
    path::{Prepared, prepare, prepare_return},
};
use unrecorded::{Unrecorded, about_unrecorded, continue_unrecorded, unrecorded, without_entry};

/// Limits on the new connections that this worker opens.
pub(crate) struct Admission {
    /// New connections to each VIPA, by `VipaId`; a VIPA without a limit uses none.
    vipas: Vec<TokenBucket>,
    sources: SourceLimits,
    workers: u32,
    /// Datagrams of the burst that may still open a connection; SYNs beyond the budget are not even looked up.
    new_flows_left: u32,
    /// The packet that is being decided has no hop left.
    has_last_hop: bool,
    unrecorded: Unrecorded,
}

impl Admission {
    /// For one of `workers` workers.
    pub(crate) fn new(workers: usize) -> Self {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        let (vipas, sources, unrecorded) = (Vec::new(), SourceLimits::new(), Unrecorded::new());
        Self { vipas, sources, workers, new_flows_left: 0, has_last_hop: false, unrecorded }
    }

    /// How many packets of the burst that was decided last may still open a connection.
    pub(crate) fn new_flows_left(&self) -> u32 {
        self.new_flows_left
    }

    /// Makes room for these VIPAs and takes their limits. Called between turns.
    pub(crate) fn limit(&mut self, vipas: &[VipaRoute]) {
        let share = |vipa: &VipaRoute| vipa.new_per_second.unwrap_or(u32::MAX).div_ceil(self.workers);
        self.vipas.truncate(vipas.len());
        for (bucket, vipa) in self.vipas.iter_mut().zip(vipas) {
            bucket.set_rate(share(vipa));
        }
        let further = vipas[self.vipas.len()..].iter().map(|vipa| TokenBucket::new(share(vipa)));
        self.vipas.extend(further);
    }

    /// Whether the packet ends here: its time to live does not reach this target.
    fn expires(&self, context: &TurnContext<'_>, target: TargetId) -> bool {
        self.has_last_hop && context.routes.counts_hop(target)
    }

    /// Whether the VIPA and the service accept another connection of this client now.
    fn permits<K: Family>(
        &mut self,
        context: &TurnContext<'_>,
        vipa: &VipaRoute,
        service: &ServiceRoute,
        key: &K,
    ) -> Option<Reason> {
        if let Some(rule) = &service.sources {
            if !rule.admits(key.client()) {
                return Some(Reason::Denied);
            }
            if let Some(limit) = rule.new_per_second
                && !self.sources.take(key.source_hash(&context.routes.key), limit.div_ceil(self.workers), context.now)
            {
                return Some(Reason::SourceLimit);
            }
        }
        if vipa.new_per_second.is_some()
            && let Some(bucket) = self.vipas.get_mut(usize::from(key.vipa().0))
            && !bucket.take(context.now)
        {
            return Some(Reason::VipaLimit);
        }
        None
    }
}

/// Decides about all packets of a burst that have a connection, and prepares those that need nothing out of the
/// ordinary. After each packet the lookup of one packet of the next burst begins: a processor can have only a limited
/// number of memory accesses in flight.
#[inline(always)]
pub(crate) fn decide<B: PacketBuf>(
    context: &TurnContext<'_>,
    (burst, batch): (&mut [B], &mut Batch),
    next: &mut Batch,
    admission: &mut Admission,
) {
    admission.new_flows_left = batch.new_flows_left;
    let Batch { ipv4, ipv6, verdicts, prepared, .. } = batch;
    decide_family(context, ipv4, burst, (verdicts, prepared), &mut next.ipv4, admission);
    decide_family(context, ipv6, burst, (verdicts, prepared), &mut next.ipv6, admission);
}

/// First, in one short loop, the mid-stream packets of connections in their primary bucket: nearly all packets, and
/// there is nothing to decide about them.
#[inline(always)]
fn decide_family<K: Family, B: PacketBuf>(
    context: &TurnContext<'_>,
    family: &FamilyBatch<K>,
    burst: &mut [B],
    (verdicts, prepared): (&mut [Verdict; BURST], &mut Prepared),
    next: &mut FamilyBatch<K>,
    admission: &mut Admission,
) {
    let table = K::table(context.flows);
    // During a rebuilding even these are not forwarded to their entry's target without a check of that target.
    let mid_stream = if context.routes.is_rebuilding { BurstMask::NONE } else { family.mid_stream };
    let (mut others, mut stale) = (family.with_connection & !mid_stream, BurstMask::NONE);
    if !others.is_empty() {
        others = others & !decide_returning(context, family, burst, (verdicts, prepared), &mut stale);
        others.for_each(|index| prefetch_secondary(table, family, index));
    }
    if !mid_stream.is_empty() || !next.unprefetched.is_empty() {
        let mut pass = Pass {
            context,
            table,
            family,
            burst,
            verdicts,
            port: prepared.port,
            others,
            stale,
            unprepared: BurstMask::NONE,
        };
        pass.decide_all(mid_stream, next);
        let found = mid_stream & !pass.others;
        *prepared = Prepared { packets: prepared.packets | found & !pass.unprepared, port: pass.port };
        (others, stale) = (pass.others, pass.stale);
    }
    if !stale.is_empty() {
        refresh(context, family, stale);
    }
    if !others.is_empty() {
        decide_others(context, (family, others), burst, verdicts, admission);
    }
}

/// One pass over the mid-stream packets of a family.
struct Pass<'a, K: Family, B> {
    context: &'a TurnContext<'a>,
    table: &'a FlowTable<K>,
    family: &'a FamilyBatch<K>,
    burst: &'a mut [B],
    verdicts: &'a mut [Verdict; BURST],
    /// The port by which the prepared packets leave.
    port: PortId,
    /// Packets whose connection was not found, and those that are not mid-stream.
    others: BurstMask,
    /// Packets whose connection's last-seen tick is stale.
    stale: BurstMask,
    /// Packets whose connection was found, but that need more than the fast path.
    unprepared: BurstMask,
}

impl<K: Family, B: PacketBuf> Pass<'_, K, B> {
    /// After each packet the lookup of one packet of the next burst begins.
    #[inline(always)]
    fn decide_all(&mut self, mid_stream: BurstMask, next: &mut FamilyBatch<K>) {
        let table = self.table;
        let ahead = std::mem::take(&mut next.unprefetched);
        if ahead.is_empty() {
            for index in mid_stream {
                self.decide(index);
            }
            return;
        }
        for index in mid_stream {
            // Where there is nothing to look up, a prefetch does no harm.
            next.prefetch(table, index);
            self.decide(index);
        }
        for index in ahead & !mid_stream {
            next.prefetch(table, index);
        }
    }

    /// Records only what is out of the ordinary.
    #[inline(always)]
    fn decide(&mut self, index: usize) {
        let Self { context, table, family, .. } = *self;
        let Some(probe) = table.probe_primary(&family.keys[index], family.hashed[index]) else {
            self.others.add(index);
            return prefetch_secondary(table, family, index);
        };
        self.stale.add_if(index, probe.is_stale(context.tick));
        let prepared = match self.burst.get_mut(index) {
            Some(packet) => prepare::<K>(context, packet, probe.target(), &mut self.port),
            None => false,
        };
        if !prepared {
            self.unprepared.add(index);
            self.verdicts[index] = Verdict::Forward(probe.target());
        }
    }
}

/// Decides about segments on their way back from the target that holds the connection. Returns those that it has
/// decided about.
#[inline(never)]
fn decide_returning<K: Family, B: PacketBuf>(
    context: &TurnContext<'_>,
    family: &FamilyBatch<K>,
    burst: &mut [B],
    (verdicts, prepared): (&mut [Verdict; BURST], &mut Prepared),
    stale: &mut BurstMask,
) -> BurstMask {
    let table = K::table(context.flows);
    let mut decided = BurstMask::NONE;
    for index in family.returning {
        let packed = &family.keys[index];
        let Kind::Return(from, _) = family.kind(index) else { continue };
        let probe = table.probe_primary(packed, family.hashed[index]).filter(|probe| probe.target() == from);
        let Some(probe) = probe else { continue };
        decided.add(index);
        stale.add_if(index, probe.is_stale(context.tick));
        let (key, Some(packet)) = (packed.key(), burst.get_mut(index)) else { continue };
        if prepare_return(context, packet, &key, &mut prepared.port) {
            prepared.packets.add(index);
        } else {
            verdicts[index] = Verdict::Return(key.vipa(), key.vipa_port());
        }
    }
    decided
}

/// Prefetches the secondary bucket of a connection that is not in its primary bucket.
#[cold]
#[inline(never)]
fn prefetch_secondary<K: Family>(table: &FlowTable<K>, family: &FamilyBatch<K>, index: usize) {
    if table.find_primary(&family.keys[index], family.hashed[index]).is_none() {
        table.prefetch_secondary(family.hashed[index]);
    }
}

/// Refreshes the last-seen tick of entries whose tick is stale.
#[inline(never)]
fn refresh<K: Family>(context: &TurnContext<'_>, family: &FamilyBatch<K>, packets: BurstMask) {
    let table = K::table(context.flows);
    for index in packets {
        if let Some(hit) = table.find_primary(&family.keys[index], family.hashed[index]) {
            table.touch(&hit, hit.state, context.tick);
        }
    }
}

/// Decides about packets whose connection is not in its primary bucket, and those that need more than to be forwarded.
#[inline(never)]
fn decide_others<K: Family, B: PacketBuf>(
    context: &TurnContext<'_>,
    (family, others): (&FamilyBatch<K>, BurstMask),
    burst: &[B],
    verdicts: &mut [Verdict; BURST],
    admission: &mut Admission,
) {
    let table = K::table(context.flows);
    for index in others {
        // In this order: a connection only ever moves from its primary to its secondary bucket.
        let (key, hashed) = (&family.keys[index], family.hashed[index]);
        admission.has_last_hop = burst.get(index).is_some_and(|packet| has_last_hop(packet.bytes()));
        let hit = table.find_primary(key, hashed).or_else(|| table.find_secondary(key, hashed));
        verdicts[index] = decide_one(context, &key.key(), family.kind(index), hit, admission);
    }
}

/// Decides about one packet that was held.
pub(crate) fn decide_again<B: PacketBuf>(
    context: &TurnContext<'_>,
    held: &HeldPacket<B>,
    admission: &mut Admission,
) -> Verdict {
    let HeldPacket { packet, key, kind, .. } = held;
    let kind = *kind;
    (admission.new_flows_left, admission.has_last_hop) = (1, has_last_hop(packet.bytes()));
    match key {
        AnyKey::V4(key) => decide_one(context, key, kind, context.flows.ipv4.lookup(key), admission),
        AnyKey::V6(key) => decide_one(context, key, kind, context.flows.ipv6.lookup(key), admission),
    }
}

/// Decides about one packet of the connection `key`.
#[inline(always)]
fn decide_one<K: Family>(
    context: &TurnContext<'_>,
    key: &K,
    kind: Kind,
    hit: Option<Hit>,
    admission: &mut Admission,
) -> Verdict {
    match hit {
        Some(hit) => known(context, key, kind, hit, admission),
        None => unknown(context, key, kind, admission),
    }
}

/// A packet that ends here says nothing about its connection.
const EXPIRED: Verdict = Verdict::Answer(LocalReply::TimeExceeded);

#[inline(never)]
fn known<K: Family>(context: &TurnContext<'_>, key: &K, kind: Kind, hit: Hit, admission: &mut Admission) -> Verdict {
    if admission.expires(context, hit.target) {
        return EXPIRED;
    }
    let state = match kind {
        Kind::Segment(flags) if flags.opens() => match begins_elsewhere(context, key, hit) {
            Some(reason) => return Verdict::drop(reason),
            None => return repeated_syn(context, key, hit, admission),
        },
        // The next connection of these addresses and ports may be at a target that has not reported it yet.
        Kind::Segment(_) if hit.state == FlowState::Ended && awaits_reports(context, key) => return Verdict::HoldQueue,
        // The target's report is old: the connection may have ended, and the next one may be at a target that has not
        // reported it yet.
        Kind::Segment(_) if hit.state.is_held() && is_in_doubt::<K>(context, key, hit) => return Verdict::HoldQueue,
        // A client repeats its FIN until it is acknowledged. Any other segment this late belongs to a connection that
        // is not known here.
        Kind::Segment(flags) if has_ended_earlier(context, hit) && !flags.closes() => {
            let Some(vipa) = context.routes.vipa(key.vipa()) else { return Verdict::drop(Reason::NoVipa) };
            return orphan(context, vipa, key, flags, admission);
        }
        Kind::Segment(flags) => hit.state.after_segment(flags.closes(), is_settled::<K>(context, hit)),
        Kind::Datagram => return datagram(context, key, hit, admission),
        Kind::Error => return Verdict::Forward(hit.target),
        Kind::Return(from, flags) => return returned(context, key, hit, (from, flags)),
    };
    touch::<K>(context, hit, state);
    Verdict::Forward(hit.target)
}

/// Refreshes the entry's last-seen tick. The tick of a reopened entry remains that of its SYN.
#[inline]
fn touch<K: Family>(context: &TurnContext<'_>, hit: Hit, state: FlowState) {
    if state != FlowState::Reopened {
        K::table(context.flows).touch(&hit, state, context.tick);
    }
}

/// Whether no report that is on its way can be about a connection before the entry's last SYN.
#[inline]
fn is_settled<K: Family>(context: &TurnContext<'_>, hit: Hit) -> bool {
    hit.is_stale(context.tick) || !K::table(context.flows).is_linked(hit.target)
}

/// A packet from the `nat` target that holds the connection. From any other target it belongs to another connection.
#[inline]
fn returned<K: Family>(
    context: &TurnContext<'_>,
    key: &K,
    hit: Hit,
    (from, flags): (TargetId, Option<TcpFlags>),
) -> Verdict {
    if hit.target != from {
        return Verdict::drop(Reason::Orphan);
    }
    // A SYN+ACK of the target does not open a connection before the client's next segment.
    let state = match (flags, hit.state) {
        (Some(flags), FlowState::HalfOpen) if !flags.closes() => FlowState::HalfOpen,
        (Some(flags), state) => state.after_segment(flags.closes(), is_settled::<K>(context, hit)),
        (None, state) => state,
    };
    touch::<K>(context, hit, state);
    Verdict::Return(key.vipa(), key.vipa_port())
}

/// A SYN on a connection in the table: sent again, or the client uses the port for a new connection. It goes to the
/// entry's target, unless that target takes no new connections and holds no established one. The target of a half-open
/// connection may have answered, and its SYN-ACK may be lost: it repeats that when the client repeats its SYN. A SYN to
/// another target would give the client two answers, and the connection to whichever comes first.
#[inline(never)]
fn repeated_syn<K: Family>(context: &TurnContext<'_>, key: &K, hit: Hit, admission: &mut Admission) -> Verdict {
    let table = K::table(context.flows);
    let state = hit.state.after_syn();
    let placed = match hit.state {
        FlowState::HalfOpen if keeps_begun(context, key, hit.target) => None,
        FlowState::HalfOpen if !table.is_linked(hit.target) && context.routes.is_answering(hit.target) => None,
        FlowState::Closing | FlowState::Ended if stays_for_successor(context, key, hit) => None,
        FlowState::Ended if has_ended_earlier(context, hit) => place_anew(context, key, hit, state, admission),
        FlowState::Closing | FlowState::Ended if serves(context, key, hit.target) => None,
        FlowState::HalfOpen | FlowState::Closing | FlowState::Ended => place_anew(context, key, hit, state, admission),
        FlowState::Open | FlowState::Confirmed | FlowState::Reopened | FlowState::Udp if is_lost::<K>(context, hit) => {
            place_anew(context, key, hit, FlowState::HalfOpen, admission)
        }
        // The sender may be anybody; the target, which holds the connection, answers the SYN (RFC 5961 §4).
        FlowState::Open | FlowState::Confirmed | FlowState::Reopened | FlowState::Udp => None,
    };
    placed.unwrap_or_else(|| {
        if state != FlowState::Open {
            table.touch(&hit, state, context.tick);
        }
        Verdict::Forward(hit.target)
    })
}

/// As [`vipa_handoff::Routes::is_lost`].
fn is_lost<K: Family>(context: &TurnContext<'_>, hit: Hit) -> bool {
    context.routes.is_lost(&hit, K::table(context.flows).is_linked(hit.target), context.tick)
}

/// Whether the next connection of the same addresses and ports stays at the target of the last one, although that gets no other new
/// connections: while the VIPA changes hands, because the successor has been told of the last one and sends the segments of the next
/// one there until its target has reported it. The target answers: it drains, or it has lost its agent only.
fn stays_for_successor<K: Family>(context: &TurnContext<'_>, key: &K, hit: Hit) -> bool {
    let answers = || !K::table(context.flows).is_linked(hit.target) && context.routes.is_answering(hit.target);
    context.routes.vipa(key.vipa()).is_some_and(|vipa| vipa.is_changing_hands(context.now))
        && !has_ended_earlier(context, hit)
        && (keeps_begun(context, key, hit.target) || answers())
}

/// Whether this router gives new connections of the service to this target.
fn serves<K: Family>(context: &TurnContext<'_>, key: &K, target: TargetId) -> bool {
    service_of(context, key).is_some_and(|service| service.picker.serves(target))
}

/// Whether UDP flows and half-open connections of the service stay at this target: it serves, or it drains.
fn keeps_begun<K: Family>(context: &TurnContext<'_>, key: &K, target: TargetId) -> bool {
    service_of(context, key).is_some_and(|service| service.keeps_begun(target))
}

fn service_of<'a, K: Family>(context: &TurnContext<'a>, key: &K) -> Option<&'a ServiceRoute> {
    context.routes.vipa(key.vipa())?.find_service(key.protocol(), key.vipa_port())
}

/// A datagram of a UDP flow in the table. The flow stays at its target while that serves or drains, else it moves to
/// another one: UDP has no connections that could break.
#[inline(never)]
fn datagram<K: Family>(context: &TurnContext<'_>, key: &K, hit: Hit, admission: &mut Admission) -> Verdict {
    let placed = if keeps_begun(context, key, hit.target) {
        None
    } else {
        place_anew(context, key, hit, FlowState::Udp, admission)
    };
    placed.unwrap_or_else(|| {
        K::table(context.flows).touch(&hit, hit.state, context.tick);
        Verdict::Forward(hit.target)
    })
}

/// Places the connection anew, if this router may index new ones. `None`: it stays at its target.
fn place_anew<K: Family>(
    context: &TurnContext<'_>,
    key: &K,
    hit: Hit,
    state: FlowState,
    admission: &mut Admission,
) -> Option<Verdict> {
    let vipa = context.routes.vipa(key.vipa())?;
    if vipa.stance == Stance::Standby || vipa.lease.passed(context.now) {
        return None;
    }
    let target = match pick(context, vipa, key, admission) {
        Ok(target) if admission.expires(context, target) => return Some(EXPIRED),
        Ok(target) => target,
        Err(reason) => return Some(not_opened(context, vipa, key, reason)),
    };
    if K::table(context.flows).redirect(&hit, target, state, context.tick) {
        context.shared.counters.add(Count::FlowOpened, 1);
        context.shared.vipas.add(key.vipa(), VipaCount::Opened, 1);
        count_admitted(context, target, state);
        return Some(Verdict::Forward(target));
    }
    // Another worker was faster; the connection is where that worker has placed it.
    Some(
        K::table(context.flows)
            .lookup(key)
            .map_or(Verdict::drop(Reason::TableFull), |hit| Verdict::Forward(hit.target)),
    )
}

#[inline(never)]
fn unknown<K: Family>(context: &TurnContext<'_>, key: &K, kind: Kind, admission: &mut Admission) -> Verdict {
    let Some(vipa) = context.routes.vipa(key.vipa()) else { return Verdict::drop(Reason::NoVipa) };
    match kind {
        Kind::Segment(flags) if flags.opens() => admit(context, vipa, key, FlowState::HalfOpen, admission),
        Kind::Segment(flags) => match K::table(context.flows).lookup(key) {
            // It was entered after the burst's lookup: by an earlier packet, or by a target's report.
            Some(hit) => known(context, key, kind, hit, admission),
            None => orphan(context, vipa, key, flags, admission),
        },
        Kind::Datagram if admission.new_flows_left == 0 => Verdict::drop(Reason::Overload),
        Kind::Datagram => {
            admission.new_flows_left -= 1;
            let goes_on = continue_unrecorded(context, vipa, key, admission);
            goes_on.unwrap_or_else(|| admit(context, vipa, key, FlowState::Udp, admission))
        }
        Kind::Error => about_unrecorded(context, vipa, key, admission).unwrap_or(Verdict::drop(Reason::IcmpOrphan)),
        Kind::Return(..) => unknown_return(context, vipa),
    }
}

/// A `nat` target answers on a connection that is not in the table. During a rebuilding it may still be entered.
fn unknown_return(context: &TurnContext<'_>, vipa: &VipaRoute) -> Verdict {
    match vipa.stance {
        Stance::Rebuilding => Verdict::HoldQueue,
        Stance::Active | Stance::Yielding if context.now < vipa.quiet_until => Verdict::HoldQueue,
        Stance::Standby | Stance::Active | Stance::Yielding => Verdict::drop(Reason::Orphan),
    }
}

/// A mid-stream segment of a connection that is not in the table. It is never forwarded by a guess: a wrong target
/// would answer with a reset and kill the connection.
fn orphan<K: Family>(
    context: &TurnContext<'_>,
    vipa: &VipaRoute,
    key: &K,
    flags: TcpFlags,
    admission: &mut Admission,
) -> Verdict {
    match vipa.stance {
        Stance::Standby => Verdict::drop(Reason::Standby),
        Stance::Rebuilding => Verdict::HoldQueue,
        Stance::Active | Stance::Yielding if context.now < vipa.quiet_until => Verdict::HoldQueue,
        // From here on the client believes the answer, so only the owner may give it.
        _ if vipa.lease.passed(context.now) => Verdict::drop(Reason::Fenced),
        Stance::Active if flags.is_syn_ack() => Verdict::HoldSynAck,
        Stance::Yielding if flags.is_syn_ack() => Verdict::drop(Reason::SynAck),
        // The successor may hold the connection already; it will answer the repeated segment.
        Stance::Yielding => Verdict::drop(Reason::Orphan),
        Stance::Active => apply_orphan_policy(context, vipa, key, flags, admission),
    }
}

/// A segment of a connection that no target holds: the service's orphan policy.
fn apply_orphan_policy<K: Family>(
    context: &TurnContext<'_>,
    vipa: &VipaRoute,
    key: &K,
    flags: TcpFlags,
    admission: &mut Admission,
) -> Verdict {
    let orphans = vipa.find_service(Protocol::Tcp, key.vipa_port()).map(|service| service.orphans);
    if orphans == Some(Orphans::Reset)
        && admission.unrecorded.may_exist(context.now)
        && let Some(verdict) = without_entry(context, vipa, key, admission)
    {
        return verdict;
    }
    match orphans {
        None if vipa.refuses_unserved(context.now) && !flags.has(TcpFlags::RST) => Verdict::Answer(LocalReply::Reset),
        None => Verdict::drop(Reason::NoService),
        Some(_) if flags.has(TcpFlags::RST) => Verdict::drop(Reason::Orphan),
        Some(Orphans::Drop) => Verdict::drop(Reason::Orphan),
        Some(Orphans::Reset) => Verdict::Answer(LocalReply::Reset),
        Some(Orphans::Balance) => {
            let state = FlowState::Open.after_segment(flags.closes(), true);
            admit(context, vipa, key, state, admission)
        }
    }
}

/// Admits a new connection, if this router may.
fn admit<K: Family>(
    context: &TurnContext<'_>,
    vipa: &VipaRoute,
    key: &K,
    state: FlowState,
    admission: &mut Admission,
) -> Verdict {
    match vipa.stance {
        Stance::Standby => return to_own(context, vipa, key, state),
        Stance::Rebuilding | Stance::Active | Stance::Yielding => {}
    }
    if vipa.lease.passed(context.now) {
        return Verdict::drop(Reason::Fenced);
    }
    match pick(context, vipa, key, admission) {
        Ok(target) if admission.expires(context, target) => EXPIRED,
        Ok(target) => {
            open(context, key, target, state).unwrap_or_else(|| unrecorded(context, vipa, key, state, admission))
        }
        Err(reason) => not_opened(context, vipa, key, reason),
    }
}

/// Verdict for a new connection that may not be opened.
fn not_opened<K: Family>(context: &TurnContext<'_>, vipa: &VipaRoute, key: &K, reason: Reason) -> Verdict {
    match vipa.not_opened(key.protocol(), reason, context.now) {
        Fate::Local(reply) => Verdict::Answer(reply),
        fate => Verdict::Done(fate),
    }
}

/// A packet of a new connection at a backup that is a target as well. It comes here because the owner has chosen this
/// target, so it goes to the local application if that listens. From then on the connection is in the table, and later
/// packets find it.
#[inline(never)]
fn to_own<K: Family>(context: &TurnContext<'_>, vipa: &VipaRoute, key: &K, state: FlowState) -> Verdict {
    let own = context.routes.own();
    let service = if own.is_empty() { None } else { vipa.find_service(key.protocol(), key.vipa_port()) };
    match service.and_then(|service| own.iter().find(|way| service.picker.serves(**way))) {
        Some(&way) => open(context, key, way, state).unwrap_or(Verdict::drop(Reason::TableFull)),
        None => Verdict::drop(Reason::Standby),
    }
}

/// Enters a new connection to this target. `None`: the table has no slot for it.
fn open<K: Family>(context: &TurnContext<'_>, key: &K, target: TargetId, state: FlowState) -> Option<Verdict> {
    let counters = &context.shared.counters;
    match K::table(context.flows).admit(key, target, state, context.tick) {
        Admitted::Existing(hit) => return Some(Verdict::Forward(hit.target)),
        Admitted::Full => return None,
        Admitted::Opened | Admitted::OpenedEvicting(_) => {}
    }
    counters.add(Count::FlowOpened, 1);
    context.shared.vipas.add(key.vipa(), VipaCount::Opened, 1);
    count_admitted(context, target, state);
    Some(Verdict::Forward(target))
}

/// Counts an admitted SYN: the router's half of its fate. A datagram has no other half.
fn count_admitted(context: &TurnContext<'_>, target: TargetId, state: FlowState) {
    if state != FlowState::Udp {
        context.shared.admitted.add(usize::from(target.0), 1);
    }
}

/// The target that `balance` chooses for a new connection, if one may be opened.
fn pick<K: Family>(
    context: &TurnContext<'_>,
    vipa: &VipaRoute,
    key: &K,
    admission: &mut Admission,
) -> Result<TargetId, Reason> {
    let service = vipa.find_service(key.protocol(), key.vipa_port()).ok_or(Reason::NoService)?;
    if let Some(reason) = admission.permits(context, vipa, service, key) {
        return Err(reason);
    }
    let hash = key.balance_hash(&context.routes.key, vipa.address);
    let by_hash = vipa.is_changing_hands(context.now);
    service.choose(by_hash, hash, || service.turns.take()).ok_or(Reason::NoTarget)
}
