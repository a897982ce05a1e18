//! When the table's entry does not decide where a packet goes: long after the connection's end, while targets report, and where another
//! router owns the VIPA.

use vipa_flow::{FlowState, Hit};
use vipa_handoff::Reason;
use vipa_model::Stance;

use crate::{Scene, family::Family};

/// Ticks after its end from which on an entry says nothing about the next connection of its addresses and ports: two seconds.
const ENDED_EARLIER: u16 = 8;
/// Ticks after which a target's report is older than a rebuilding: one second, about what a rebuilding may take.
const OLD_REPORT: u16 = 4;

/// Whether the connection ended so long ago that the next one of these addresses and ports may be elsewhere.
pub(super) fn has_ended_earlier(scene: &Scene<'_>, hit: Hit) -> bool {
    hit.state == FlowState::Ended && hit.silence(scene.tick) >= ENDED_EARLIER
}

/// Whether targets may still report what they held before this router owned the VIPA.
pub(super) fn awaits_reports<K: Family>(scene: &Scene<'_>, key: &K) -> bool {
    let Some(vipa) = scene.routes.vipa(key.vipa()) else { return false };
    vipa.stance == Stance::Rebuilding || vipa.stance != Stance::Standby && scene.now < vipa.quiet_until
}

/// Whether the targets are still reporting, this one's agent is not linked, and its report is old.
pub(super) fn is_in_doubt<K: Family>(scene: &Scene<'_>, key: &K, hit: Hit) -> bool {
    scene.routes.is_rebuilding
        && hit.silence(scene.tick) >= OLD_REPORT
        && !K::table(scene.flows).is_linked(hit.target)
        && !scene.routes.is_away(hit.target)
        && scene.routes.vipa(key.vipa()).is_some_and(|vipa| vipa.stance == Stance::Rebuilding)
}

/// Why this router does not forward a SYN of a connection in the table: another may own the VIPA and place it elsewhere. A router that
/// was stopped finds SYNs of that time in its queues. An owner sends the target on a backup's own host its SYNs.
pub(super) fn begins_elsewhere<K: Family>(scene: &Scene<'_>, key: &K, hit: Hit) -> Option<Reason> {
    let vipa = scene.routes.vipa(key.vipa())?;
    match vipa.stance {
        Stance::Standby if scene.routes.own().contains(&hit.target) => None,
        Stance::Standby => Some(Reason::Standby),
        _ => vipa.lease.passed(scene.now).then_some(Reason::Fenced),
    }
}
