//! When the table's entry does not decide where a packet goes: long after the connection's end, while targets report, and where another
//! router owns the VIPA.

use vipa_flow::{FlowState, Hit};
use vipa_handoff::Reason;
use vipa_model::Stance;

use crate::{TurnContext, family::Family};

/// Ticks after its end from which on an entry says nothing about the next connection of its addresses and ports: two seconds.
const ENDED_EARLIER: u16 = 8;
/// Ticks after which a target's report is older than a rebuilding: one second, about what a rebuilding may take.
const OLD_REPORT: u16 = 4;

/// Whether the connection ended so long ago that the next one of these addresses and ports may be elsewhere.
pub(super) fn has_ended_earlier(context: &TurnContext<'_>, hit: Hit) -> bool {
    hit.state == FlowState::Ended && hit.silence(context.tick) >= ENDED_EARLIER
}

/// Whether targets may still report what they held before this router owned the VIPA.
pub(super) fn awaits_reports<K: Family>(context: &TurnContext<'_>, key: &K) -> bool {
    let Some(vipa) = context.routes.vipa(key.vipa()) else { return false };
    vipa.stance == Stance::Rebuilding || vipa.stance != Stance::Standby && context.now < vipa.quiet_until
}

/// Whether the targets are still reporting, this one's agent is not linked, and its report is old.
pub(super) fn is_in_doubt<K: Family>(context: &TurnContext<'_>, key: &K, hit: Hit) -> bool {
    context.routes.is_rebuilding
        && hit.silence(context.tick) >= OLD_REPORT
        && !K::table(context.flows).is_linked(hit.target)
        && !context.routes.is_away(hit.target)
        && context.routes.vipa(key.vipa()).is_some_and(|vipa| vipa.stance == Stance::Rebuilding)
}

/// Why this router does not forward a SYN of a connection in the table: another may own the VIPA and place it elsewhere. A router that
/// was stopped finds SYNs of that time in its queues. An owner sends the target on a backup's own host its SYNs.
pub(super) fn begins_elsewhere<K: Family>(context: &TurnContext<'_>, key: &K, hit: Hit) -> Option<Reason> {
    let vipa = context.routes.vipa(key.vipa())?;
    match vipa.stance {
        Stance::Standby if context.routes.own().contains(&hit.target) => None,
        Stance::Standby => Some(Reason::Standby),
        _ => vipa.lease.passed(context.now).then_some(Reason::Fenced),
    }
}
