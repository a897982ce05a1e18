//! Cases in which an entry does not decide where a packet goes: long after the connection's end, while targets report,
//! and where another router owns the VIPA.

use vipa_flow::Hit;
use vipa_handoff::{Reason, VipaRoute};

use crate::{TurnContext, family::Family};

/// As [`vipa_handoff::has_ended_earlier`].
pub(super) fn has_ended_earlier(context: &TurnContext<'_>, hit: Hit) -> bool {
    vipa_handoff::has_ended_earlier(&hit, context.tick)
}

/// As [`VipaRoute::awaits_reports`].
pub(super) fn awaits_reports<K: Family>(context: &TurnContext<'_>, key: &K) -> bool {
    vipa_of(context, key).is_some_and(|vipa| vipa.awaits_reports(context.now))
}

/// As [`vipa_handoff::Routes::is_in_doubt`].
pub(super) fn is_in_doubt<K: Family>(context: &TurnContext<'_>, key: &K, hit: Hit) -> bool {
    let is_linked = || K::table(context.flows).is_linked(hit.target);
    context.routes.is_rebuilding && context.routes.is_in_doubt(vipa_of(context, key), &hit, is_linked, context.tick)
}

/// As [`vipa_handoff::Routes::begins_elsewhere`].
pub(super) fn begins_elsewhere<K: Family>(context: &TurnContext<'_>, key: &K, hit: Hit) -> Option<Reason> {
    context.routes.begins_elsewhere(vipa_of(context, key)?, &hit, context.now)
}

fn vipa_of<'a, K: Family>(context: &TurnContext<'a>, key: &K) -> Option<&'a VipaRoute> {
    context.routes.vipa(key.vipa())
}
