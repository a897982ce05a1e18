//! What becomes of a connection's packet, once the table has answered.
//!
//! | | Standby | Rebuilding | Active, Yielding until `quiet_until` | Active after | Yielding after |
//! |---|---|---|---|---|---|
//! | hit | forward | forward | forward | forward | forward |
//! | miss, SYN or UDP | drop | admit | admit | admit | admit |
//! | miss, other TCP | drop | hold | hold | orphan policy | drop |
//!
//! Admitting, and answering an orphan, need a lease that has not passed; forwarding a known connection never does, because
//! it can only go to the target that holds it.

use vipa_balance::hash_connection;
use vipa_flow::{Admitted, FlowState, Hit, Key4};
use vipa_handoff::{Count, LocalReply, Reason, Stance, VipaRoute};
use vipa_model::{Orphans, Protocol, TargetId};
use vipa_packet::TcpFlags;

use crate::{
    Scene,
    classify::{Kind, Lanes, Verdict},
};

/// Decides for all packets of a burst that have a connection. `turn` counts the connections this worker has placed.
#[inline]
pub(crate) fn decide(scene: &Scene<'_>, lanes: &mut Lanes, turn: &mut u64) {
    for (lane, asked) in lanes.asked.iter().enumerate() {
        lanes.verdicts[usize::from(asked.packet)] =
            decide_one(scene, &lanes.keys[lane], asked.kind, lanes.hits[lane], turn);
    }
}

/// Decides for one packet of the connection `key`.
#[inline(always)]
pub(crate) fn decide_one(scene: &Scene<'_>, key: &Key4, kind: Kind, hit: Option<Hit>, turn: &mut u64) -> Verdict {
    match hit {
        Some(hit) => known(scene, key, kind, hit, turn),
        None => unknown(scene, key, kind, turn),
    }
}

#[inline(always)]
fn known(scene: &Scene<'_>, key: &Key4, kind: Kind, hit: Hit, turn: &mut u64) -> Verdict {
    let state = match kind {
        Kind::Segment(flags) if flags.opens() => return opened_again(scene, key, hit, turn),
        Kind::Segment(flags) => progress(hit.state, flags),
        Kind::Datagram => return datagram(scene, key, hit, turn),
        Kind::Error => return Verdict::Forward(hit.target),
    };
    scene.flows.touch(&hit, state, scene.tick);
    Verdict::Forward(hit.target)
}

/// What a segment that does not open makes of a connection.
#[inline(always)]
fn progress(state: FlowState, flags: TcpFlags) -> FlowState {
    match state {
        _ if flags.closes() => FlowState::Closing,
        FlowState::HalfOpen => FlowState::Open,
        FlowState::Open | FlowState::Confirmed | FlowState::Closing | FlowState::Udp => state,
    }
}

/// A SYN on a connection in the table: sent again, or the client uses the port anew. It goes where it went before,
/// unless that target takes no new connections and holds no established one.
#[inline(never)]
fn opened_again(scene: &Scene<'_>, key: &Key4, hit: Hit, turn: &mut u64) -> Verdict {
    let state = match hit.state {
        FlowState::HalfOpen | FlowState::Closing => FlowState::HalfOpen,
        // Whoever sends this may be anybody; the target, which holds the connection, answers it (RFC 5961 §4).
        FlowState::Open | FlowState::Confirmed | FlowState::Udp => return Verdict::Forward(hit.target),
    };
    match place_anew(scene, key, hit, state, turn) {
        Some(verdict) => verdict,
        None => {
            scene.flows.touch(&hit, state, scene.tick);
            Verdict::Forward(hit.target)
        }
    }
}

/// UDP has no connections that could break: when its target stops serving, it goes to another.
#[inline(never)]
fn datagram(scene: &Scene<'_>, key: &Key4, hit: Hit, turn: &mut u64) -> Verdict {
    match place_anew(scene, key, hit, FlowState::Udp, turn) {
        Some(verdict) => verdict,
        None => {
            scene.flows.touch(&hit, hit.state, scene.tick);
            Verdict::Forward(hit.target)
        }
    }
}

/// When the target of `hit` takes no new connections and this router may place new ones: places the connection anew.
/// `None`: it stays where it is.
fn place_anew(scene: &Scene<'_>, key: &Key4, hit: Hit, state: FlowState, turn: &mut u64) -> Option<Verdict> {
    let vipa = scene.routes.vipa(key.vipa)?;
    let served =
        vipa.find_service(key.protocol, key.vipa_port).is_some_and(|service| service.picker.serves(hit.target));
    if served || vipa.stance == Stance::Standby || vipa.lease.passed(scene.now) {
        return None;
    }
    let target = match pick(scene, vipa, key, turn) {
        Ok(target) => target,
        Err(verdict) => return Some(verdict),
    };
    if scene.flows.redirect(&hit, target, state, scene.tick) {
        scene.desk.counters.add(Count::FlowOpened, 1);
        return Some(Verdict::Forward(target));
    }
    // Somebody was faster; it is where they put it.
    Some(scene.flows.lookup(key).map_or(Verdict::drop(Reason::TableFull), |hit| Verdict::Forward(hit.target)))
}

#[inline(never)]
fn unknown(scene: &Scene<'_>, key: &Key4, kind: Kind, turn: &mut u64) -> Verdict {
    let Some(vipa) = scene.routes.vipa(key.vipa) else { return Verdict::drop(Reason::NoVipa) };
    match kind {
        Kind::Segment(flags) if flags.opens() => admit(scene, vipa, key, FlowState::HalfOpen, turn),
        Kind::Segment(flags) => match scene.flows.lookup(key) {
            // It came since the burst was looked up: by a packet before it, or by a target's report.
            Some(hit) => known(scene, key, kind, hit, turn),
            None => orphan(scene, vipa, key, flags, turn),
        },
        Kind::Datagram => admit(scene, vipa, key, FlowState::Udp, turn),
        Kind::Error => Verdict::drop(Reason::IcmpOrphan),
    }
}

/// A segment in the middle of a connection that is not in the table. Never guess: a wrong target would answer with a
/// reset and kill the connection.
fn orphan(scene: &Scene<'_>, vipa: &VipaRoute, key: &Key4, flags: TcpFlags, turn: &mut u64) -> Verdict {
    match vipa.stance {
        Stance::Standby => Verdict::drop(Reason::Standby),
        Stance::Rebuilding => Verdict::Hold,
        Stance::Active | Stance::Yielding if scene.now < vipa.quiet_until => Verdict::Hold,
        // From here on the answer is for the client to believe, so only the owner may give it.
        _ if vipa.lease.passed(scene.now) => Verdict::drop(Reason::Fenced),
        // The successor may know the connection already; it will answer what is sent again.
        Stance::Yielding => Verdict::drop(Reason::Orphan),
        Stance::Active => match vipa.find_service(Protocol::Tcp, key.vipa_port).map(|service| service.orphans) {
            None => Verdict::drop(Reason::NoService),
            Some(_) if flags.has(TcpFlags::RST) => Verdict::drop(Reason::Orphan),
            Some(Orphans::Drop) => Verdict::drop(Reason::Orphan),
            Some(Orphans::Reset) => Verdict::Answer(LocalReply::Reset),
            Some(Orphans::Balance) => admit(scene, vipa, key, progress(FlowState::Open, flags), turn),
        },
    }
}

/// Places a new connection, if this router may.
fn admit(scene: &Scene<'_>, vipa: &VipaRoute, key: &Key4, state: FlowState, turn: &mut u64) -> Verdict {
    match vipa.stance {
        Stance::Standby => return Verdict::drop(Reason::Standby),
        Stance::Rebuilding | Stance::Active | Stance::Yielding => {}
    }
    if vipa.lease.passed(scene.now) {
        return Verdict::drop(Reason::Fenced);
    }
    let target = match pick(scene, vipa, key, turn) {
        Ok(target) => target,
        Err(verdict) => return verdict,
    };
    let counters = &scene.desk.counters;
    match scene.flows.admit(key, target, state, scene.tick) {
        Admitted::Existing(hit) => return Verdict::Forward(hit.target),
        Admitted::Full => return Verdict::drop(Reason::TableFull),
        Admitted::Opened => {}
        Admitted::OpenedEvicting(_) => counters.add(Count::FlowEvicted, 1),
    }
    counters.add(Count::FlowOpened, 1);
    Verdict::Forward(target)
}

/// The target that `balance` names for a new connection.
fn pick(scene: &Scene<'_>, vipa: &VipaRoute, key: &Key4, turn: &mut u64) -> Result<TargetId, Verdict> {
    let Key4 { client, client_port, vipa_port, vipa: _, protocol } = *key;
    let service = vipa.find_service(protocol, vipa_port).ok_or(Verdict::drop(Reason::NoService))?;
    let hash = hash_connection(&scene.routes.key, client, client_port, vipa.address.to_bits(), vipa_port, protocol);
    let target = service.picker.pick(hash, *turn).ok_or(Verdict::drop(Reason::NoTarget))?;
    *turn = turn.wrapping_add(1);
    Ok(target)
}
