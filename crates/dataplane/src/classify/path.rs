//! ICMP errors about our own outer packets: a tunnel's path has a smaller MTU than we use.

use vipa_handoff::{Fate, Note, Reason};
use vipa_packet::{PacketTooBig, Parsed};

use super::Ingress;
use crate::{TurnContext, batch::Verdict};

/// UDP destination port of GUE, assigned by IANA.
const GUE_PORT: u16 = 6_080;

/// Reports to control the MTU of the path to a target, if it is smaller than the known one. `None`: the message is
/// about no packet that this port sent to a target. A forger must know both ends of a tunnel, and can lower the path's
/// MTU to the minimum that control accepts, for as long as control keeps it.
#[inline(never)]
pub(super) fn narrow_path(
    context: &TurnContext<'_>,
    at: Ingress<'_>,
    frame: &[u8],
    parsed: &Parsed,
) -> Option<Verdict> {
    let path = PacketTooBig::read(frame, parsed, GUE_PORT).filter(|path| at.route.has(path.source))?;
    let target = context.routes.find_target(path.destination)?;
    if path.mtu >= target.path_mtu {
        return Some(Verdict::Done(Fate::Punt));
    }
    // A full mailbox counts what it refuses; the next packet that is too big causes the same message.
    let told = context.shared.notes.try_send(Note::NarrowPath { target: path.destination, mtu: path.mtu });
    Some(if told.is_ok() { Verdict::Done(Fate::Punt) } else { Verdict::drop(Reason::Icmp) })
}
