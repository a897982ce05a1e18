//! What becomes of a connection's packet, once the table has answered.
//!
//! | | Standby | Rebuilding | Active, Yielding until `quiet_until` | Active after | Yielding after |
//! |---|---|---|---|---|---|
//! | hit | forward | forward | forward | forward | forward |
//! | miss, SYN or UDP | drop (*) | admit | admit | admit | admit |
//! | miss, SYN-ACK | drop | hold | hold | hold briefly, drop | drop |
//! | miss, other TCP | drop | hold | hold | orphan policy | drop |
//!
//! (*) But for what the owner has sent here because this router is a target too: see [`to_own`].
//!
//! A SYN-ACK answers a connection that a target opens with the VIPA as its source. Its target's report is on its way; a reset would
//! break the connection at a server that is nobody's client here.
//!
//! Where the table has no place for a new connection, its packets are forwarded by the service's hash without an entry, if that
//! names the same target for each ([`without_entry`]); so are orphans that would be reset and ICMP errors about unknown connections,
//! for a minute after that.
//!
//! Admitting, and answering an orphan, need a lease that has not passed; forwarding a known connection never does, because
//! it can only go to the target that holds it.

mod doubt;
mod unrecorded;

use vipa_flow::{Admitted, FlowState, FlowTable, Hit};
use vipa_handoff::{AnyKey, Count, Fate, LocalReply, Reason, ServiceRoute, VipaRoute};
use vipa_model::{Orphans, PortId, Protocol, Stance, TargetId};
use vipa_packet::{PacketBuf, TcpFlags, has_last_hop};

use doubt::{awaits_reports, begins_elsewhere, has_ended_earlier, is_in_doubt};

use crate::{
    BURST, TurnContext,
    batch::{Batch, FamilyBatch, Kind, Verdict},
    family::Family,
    hold::Held,
    limit::{SourceLimits, TokenBucket},
    mask::BurstMask,
    path::{Prepared, make_ready_back, prepare},
};
use unrecorded::{Unrecorded, about_unrecorded, go_on_unrecorded, unrecorded, without_entry};

/// What bounds the new connections that this worker opens.
pub(crate) struct Admission {
    /// New connections to each VIPA, by `VipaId`; those without a limit have no part in it.
    vipas: Vec<TokenBucket>,
    sources: SourceLimits,
    workers: u32,
    /// How many datagrams of the burst may still open a connection; SYNs beyond are not even looked up.
    openings: u32,
    /// The packet that is decided has no hop left.
    has_last_hop: bool,
    unrecorded: Unrecorded,
}

impl Admission {
    /// Of one of so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        let (vipas, sources, unrecorded) = (Vec::new(), SourceLimits::new(), Unrecorded::new());
        Self { vipas, sources, workers, openings: 0, has_last_hop: false, unrecorded }
    }

    /// How many packets of the burst that was decided last may still open a connection.
    pub(crate) fn openings_left(&self) -> u32 {
        self.openings
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

    /// Whether the packet ends here: its time to live does not take it to this target.
    fn expires(&self, context: &TurnContext<'_>, target: TargetId) -> bool {
        self.has_last_hop && context.routes.counts_hop(target)
    }

    /// Whether the VIPA and the service take another connection of this client now.
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

/// Decides for all packets of a burst that have a connection, and makes ready those that need nothing out of the ordinary.
/// Between one packet and the next a lookup of the burst after it begins: a processor can only wait for so much memory at once.
#[inline(always)]
pub(crate) fn decide<B: PacketBuf>(
    context: &TurnContext<'_>,
    (burst, batch): (&mut [B], &mut Batch),
    next: &mut Batch,
    admission: &mut Admission,
) {
    admission.openings = batch.openings;
    let Batch { ipv4, ipv6, verdicts, ready, .. } = batch;
    decide_lane(context, ipv4, burst, (verdicts, ready), &mut next.ipv4, admission);
    decide_lane(context, ipv6, burst, (verdicts, ready), &mut next.ipv6, admission);
}

/// First, without leaving a short loop, for the packets that go on with a connection that is at home: nearly all, and nothing
/// to decide.
#[inline(always)]
fn decide_lane<K: Family, B: PacketBuf>(
    context: &TurnContext<'_>,
    lane: &FamilyBatch<K>,
    burst: &mut [B],
    (verdicts, ready): (&mut [Verdict; BURST], &mut Prepared),
    next: &mut FamilyBatch<K>,
    admission: &mut Admission,
) {
    let table = K::table(context.flows);
    // While targets report, not even these go where their entries say without a look at the target.
    let going_on = if context.routes.is_rebuilding { BurstMask::NONE } else { lane.going_on };
    let (mut others, mut news) = (lane.asked & !going_on, BurstMask::NONE);
    if !others.is_empty() {
        others = others & !decide_back(context, lane, burst, (verdicts, ready), &mut news);
        others.for_each(|place| approach(table, lane, place));
    }
    if !going_on.is_empty() || !next.unsought.is_empty() {
        let mut pass =
            Pass { context, table, lane, burst, verdicts, port: ready.port, others, news, unready: BurstMask::NONE };
        pass.decide_all(going_on, next);
        let found = going_on & !pass.others;
        *ready = Prepared { places: ready.places | found & !pass.unready, port: pass.port };
        (others, news) = (pass.others, pass.news);
    }
    if !news.is_empty() {
        refresh(context, lane, news);
    }
    if !others.is_empty() {
        decide_others(context, (lane, others), burst, verdicts, admission);
    }
}

/// Once over the packets of a lane that go on.
struct Pass<'a, K: Family, B> {
    context: &'a TurnContext<'a>,
    table: &'a FlowTable<K>,
    lane: &'a FamilyBatch<K>,
    burst: &'a mut [B],
    verdicts: &'a mut [Verdict; BURST],
    /// By which those leave that are ready.
    port: PortId,
    /// Whose connection was not found, and those that do not go on.
    others: BurstMask,
    /// Whose connection had not been heard of for long.
    news: BurstMask,
    /// Whose connection was found, but want more than to be made ready.
    unready: BurstMask,
}

impl<K: Family, B: PacketBuf> Pass<'_, K, B> {
    /// Between one and the next a lookup of the burst after it begins.
    #[inline(always)]
    fn decide_all(&mut self, going_on: BurstMask, next: &mut FamilyBatch<K>) {
        let table = self.table;
        let ahead = std::mem::take(&mut next.unsought);
        if ahead.is_empty() {
            for place in going_on {
                self.decide(place);
            }
            return;
        }
        for place in going_on {
            // Where nothing is to be found, looking does no harm.
            next.prefetch(table, place);
            self.decide(place);
        }
        for place in ahead & !going_on {
            next.prefetch(table, place);
        }
    }

    /// Writes down what is out of the ordinary only.
    #[inline(always)]
    fn decide(&mut self, place: usize) {
        let Self { context, table, lane, .. } = *self;
        let Some(glance) = table.probe_primary(&lane.keys[place], lane.hashed[place]) else {
            self.others.add(place);
            return approach(table, lane, place);
        };
        self.news.add_if(place, glance.is_stale(context.tick));
        let ready = match self.burst.get_mut(place) {
            Some(packet) => prepare::<K>(context, packet, glance.target(), &mut self.port),
            None => false,
        };
        if !ready {
            self.unready.add(place);
            self.verdicts[place] = Verdict::Forward(glance.target());
        }
    }
}

/// The same for segments on their way back from the target that holds the connection. Says for which it has decided.
#[inline(never)]
fn decide_back<K: Family, B: PacketBuf>(
    context: &TurnContext<'_>,
    lane: &FamilyBatch<K>,
    burst: &mut [B],
    (verdicts, ready): (&mut [Verdict; BURST], &mut Prepared),
    news: &mut BurstMask,
) -> BurstMask {
    let table = K::table(context.flows);
    let mut decided = BurstMask::NONE;
    for place in lane.coming_back {
        let packed = &lane.keys[place];
        let Kind::Return(from, _) = lane.kind(place) else { continue };
        let glance = table.probe_primary(packed, lane.hashed[place]).filter(|glance| glance.target() == from);
        let Some(glance) = glance else { continue };
        decided.add(place);
        news.add_if(place, glance.is_stale(context.tick));
        let (key, Some(packet)) = (packed.key(), burst.get_mut(place)) else { continue };
        if make_ready_back(context, packet, &key, &mut ready.port) {
            ready.places.add(place);
        } else {
            verdicts[place] = Verdict::Return(key.vipa(), key.vipa_port());
        }
    }
    decided
}

/// Asks for the memory of the other bucket when a connection is not at home.
#[cold]
#[inline(never)]
fn approach<K: Family>(table: &FlowTable<K>, lane: &FamilyBatch<K>, place: usize) {
    if table.find_primary(&lane.keys[place], lane.hashed[place]).is_none() {
        table.prefetch_secondary(lane.hashed[place]);
    }
}

/// Writes down that connections were heard of which had not been for long.
#[inline(never)]
fn refresh<K: Family>(context: &TurnContext<'_>, lane: &FamilyBatch<K>, places: BurstMask) {
    let table = K::table(context.flows);
    for place in places {
        if let Some(hit) = table.find_primary(&lane.keys[place], lane.hashed[place]) {
            table.touch(&hit, hit.state, context.tick);
        }
    }
}

/// For packets whose connection is not at home, and for those that want more than to be forwarded.
#[inline(never)]
fn decide_others<K: Family, B: PacketBuf>(
    context: &TurnContext<'_>,
    (lane, others): (&FamilyBatch<K>, BurstMask),
    burst: &[B],
    verdicts: &mut [Verdict; BURST],
    admission: &mut Admission,
) {
    let table = K::table(context.flows);
    for place in others {
        // In this order: a connection only ever moves from its home to its other bucket.
        let (key, hashed) = (&lane.keys[place], lane.hashed[place]);
        admission.has_last_hop = burst.get(place).is_some_and(|packet| has_last_hop(packet.bytes()));
        let hit = table.find_primary(key, hashed).or_else(|| table.find_secondary(key, hashed));
        verdicts[place] = decide_one(context, &key.key(), lane.kind(place), hit, admission);
    }
}

/// Decides for one packet that was held.
pub(crate) fn decide_again<B: PacketBuf>(
    context: &TurnContext<'_>,
    held: &Held<B>,
    admission: &mut Admission,
) -> Verdict {
    let Held { packet, key, kind, .. } = held;
    let kind = *kind;
    (admission.openings, admission.has_last_hop) = (1, has_last_hop(packet.bytes()));
    match key {
        AnyKey::V4(key) => decide_one(context, key, kind, context.flows.ipv4.lookup(key), admission),
        AnyKey::V6(key) => decide_one(context, key, kind, context.flows.ipv6.lookup(key), admission),
    }
}

/// Decides for one packet of the connection `key`.
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
            None => return opened_again(context, key, hit, admission),
        },
        // The next connection of these addresses and ports may be at a target that has not reported it yet.
        Kind::Segment(_) if hit.state == FlowState::Ended && awaits_reports(context, key) => return Verdict::HoldQueue,
        // The target's word is old: it may have ended, and the next connection be at one that has not reported it yet.
        Kind::Segment(_) if hit.state.is_held() && is_in_doubt::<K>(context, key, hit) => return Verdict::HoldQueue,
        // A client repeats its FIN until it is acknowledged. Other segments, so late, are of a connection that is not known here.
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

/// Writes down that the connection was heard of. The tick of a reopened one is that of its SYN.
#[inline]
fn touch<K: Family>(context: &TurnContext<'_>, hit: Hit, state: FlowState) {
    if state != FlowState::Reopened {
        K::table(context.flows).touch(&hit, state, context.tick);
    }
}

/// Whether no report that is on its way can be of a connection before the entry's last SYN.
#[inline]
fn is_settled<K: Family>(context: &TurnContext<'_>, hit: Hit) -> bool {
    hit.is_stale(context.tick) || !K::table(context.flows).is_linked(hit.target)
}

/// A packet from the target of `nat` that holds the connection. From any other it is somebody else's.
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
    // The target's SYN+ACK does not open what the client has not gone on with.
    let state = match (flags, hit.state) {
        (Some(flags), FlowState::HalfOpen) if !flags.closes() => FlowState::HalfOpen,
        (Some(flags), state) => state.after_segment(flags.closes(), is_settled::<K>(context, hit)),
        (None, state) => state,
    };
    touch::<K>(context, hit, state);
    Verdict::Return(key.vipa(), key.vipa_port())
}

/// A SYN on a connection in the table: sent again, or the client uses the port anew. It goes where it went before,
/// unless that target takes no new connections and holds no established one. The target of a half-open connection may have
/// answered, and its SYN-ACK been lost: it sends that again when the client sends its SYN again. A SYN elsewhere would give
/// the client two answers, and the connection to whichever comes first.
#[inline(never)]
fn opened_again<K: Family>(context: &TurnContext<'_>, key: &K, hit: Hit, admission: &mut Admission) -> Verdict {
    let table = K::table(context.flows);
    let state = hit.state.after_syn();
    let placed = match hit.state {
        FlowState::HalfOpen if keeps_begun(context, key, hit.target) => None,
        FlowState::HalfOpen if !table.is_linked(hit.target) && context.routes.is_answering(hit.target) => None,
        FlowState::Ended if has_ended_earlier(context, hit) => place_anew(context, key, hit, state, admission),
        FlowState::Closing | FlowState::Ended if serves(context, key, hit.target) => None,
        FlowState::HalfOpen | FlowState::Closing | FlowState::Ended => place_anew(context, key, hit, state, admission),
        FlowState::Open | FlowState::Confirmed | FlowState::Reopened | FlowState::Udp if is_lost::<K>(context, hit) => {
            place_anew(context, key, hit, FlowState::HalfOpen, admission)
        }
        // Whoever sends this may be anybody; the target, which holds the connection, answers it (RFC 5961 §4).
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

/// Whether this router gives new connections of the service to this target.
fn serves<K: Family>(context: &TurnContext<'_>, key: &K, target: TargetId) -> bool {
    service_of(context, key).is_some_and(|service| service.picker.serves(target))
}

/// Whether UDP flows and half-open connections of the service that are at this target stay there: it serves, or it drains.
fn keeps_begun<K: Family>(context: &TurnContext<'_>, key: &K, target: TargetId) -> bool {
    service_of(context, key).is_some_and(|service| service.keeps_begun(target))
}

fn service_of<'a, K: Family>(context: &TurnContext<'a>, key: &K) -> Option<&'a ServiceRoute> {
    context.routes.vipa(key.vipa())?.find_service(key.protocol(), key.vipa_port())
}

/// A UDP flow stays at its target while that serves, or drains. Else it goes to another: UDP has no connections that could
/// break.
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

/// BurstMask the connection anew, if this router may place new ones. `None`: it stays where it is.
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
        count_admitted(context, target, state);
        return Some(Verdict::Forward(target));
    }
    // Somebody was faster; it is where they put it.
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
            // It came since the burst was looked up: by a packet before it, or by a target's report.
            Some(hit) => known(context, key, kind, hit, admission),
            None => orphan(context, vipa, key, flags, admission),
        },
        Kind::Datagram if admission.openings == 0 => Verdict::drop(Reason::Overload),
        Kind::Datagram => {
            admission.openings -= 1;
            let goes_on = go_on_unrecorded(context, vipa, key, admission);
            goes_on.unwrap_or_else(|| admit(context, vipa, key, FlowState::Udp, admission))
        }
        Kind::Error => about_unrecorded(context, vipa, key, admission).unwrap_or(Verdict::drop(Reason::IcmpOrphan)),
        Kind::Return(..) => unknown_return(context, vipa),
    }
}

/// A target of `nat` answers on a connection that is not in the table, which may come while it is being rebuilt.
fn unknown_return(context: &TurnContext<'_>, vipa: &VipaRoute) -> Verdict {
    match vipa.stance {
        Stance::Rebuilding => Verdict::HoldQueue,
        Stance::Active | Stance::Yielding if context.now < vipa.quiet_until => Verdict::HoldQueue,
        Stance::Standby | Stance::Active | Stance::Yielding => Verdict::drop(Reason::Orphan),
    }
}

/// A segment in the middle of a connection that is not in the table. Never guess: a wrong target would answer with a
/// reset and kill the connection.
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
        // From here on the answer is for the client to believe, so only the owner may give it.
        _ if vipa.lease.passed(context.now) => Verdict::drop(Reason::Fenced),
        Stance::Active if flags.is_syn_ack() => Verdict::HoldSynAck,
        Stance::Yielding if flags.is_syn_ack() => Verdict::drop(Reason::SynAck),
        // The successor may know the connection already; it will answer what is sent again.
        Stance::Yielding => Verdict::drop(Reason::Orphan),
        Stance::Active => of_nobody(context, vipa, key, flags, admission),
    }
}

/// A segment of a connection that no target has.
fn of_nobody<K: Family>(
    context: &TurnContext<'_>,
    vipa: &VipaRoute,
    key: &K,
    flags: TcpFlags,
    admission: &mut Admission,
) -> Verdict {
    let orphans = vipa.find_service(Protocol::Tcp, key.vipa_port()).map(|service| service.orphans);
    if orphans == Some(Orphans::Reset)
        && admission.unrecorded.may_be(context.now)
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

/// BurstMask a new connection, if this router may.
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

/// A new connection that may not be opened.
fn not_opened<K: Family>(context: &TurnContext<'_>, vipa: &VipaRoute, key: &K, reason: Reason) -> Verdict {
    match vipa.not_opened(key.protocol(), reason, context.now) {
        Fate::Local(reply) => Verdict::Answer(reply),
        fate => Verdict::Done(fate),
    }
}

/// A backup may be a target as well. A new connection's packet comes to it because the owner has chosen it, and is its own
/// application's, if that listens; from then on the connection is known here, and what follows finds it.
#[inline(never)]
fn to_own<K: Family>(context: &TurnContext<'_>, vipa: &VipaRoute, key: &K, state: FlowState) -> Verdict {
    let own = context.routes.own();
    let service = if own.is_empty() { None } else { vipa.find_service(key.protocol(), key.vipa_port()) };
    match service.and_then(|service| own.iter().find(|way| service.picker.serves(**way))) {
        Some(&way) => open(context, key, way, state).unwrap_or(Verdict::drop(Reason::TableFull)),
        None => Verdict::drop(Reason::Standby),
    }
}

/// Enters a new connection to this target. `None`: the table has no place for it.
fn open<K: Family>(context: &TurnContext<'_>, key: &K, target: TargetId, state: FlowState) -> Option<Verdict> {
    let counters = &context.shared.counters;
    match K::table(context.flows).admit(key, target, state, context.tick) {
        Admitted::Existing(hit) => return Some(Verdict::Forward(hit.target)),
        Admitted::Full => return None,
        Admitted::Opened | Admitted::OpenedEvicting(_) => {}
    }
    counters.add(Count::FlowOpened, 1);
    count_admitted(context, target, state);
    Some(Verdict::Forward(target))
}

/// For the router's half of what becomes of a SYN; a datagram has no other half.
fn count_admitted(context: &TurnContext<'_>, target: TargetId, state: FlowState) {
    if state != FlowState::Udp {
        context.shared.admitted.add(usize::from(target.0), 1);
    }
}

/// The target that `balance` names for a new connection, if it may be opened.
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
